"""What happens to a picture between the face and the file: colour, blur, noise, compression, something in the way.

Every function takes and returns (size, size, 3) uint8 RGB; all randomness comes from the given generator. Geometry
(crop, rotation, mirroring) is the data sets' own, since labels must follow it.
"""
from __future__ import annotations

import cv2
import numpy as np


def occlude(rng: np.random.Generator, image: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Cover part of the picture: a patch of another picture or a flat colour, as an ellipse, a bar or the picture's edge."""
    size = len(image)
    mask = np.zeros((size, size), np.uint8)
    kind = rng.random()
    if kind < 0.5:
        centre = tuple(int(v) for v in rng.uniform(0.1, 0.9, 2) * size)
        axes = tuple(int(v) for v in rng.uniform(0.06, 0.24, 2) * size)
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1)
    elif kind < 0.8:
        one, other = (rng.uniform(-0.1, 1.1, (2, 2)) * size).astype(int)
        cv2.line(mask, tuple(map(int, one)), tuple(map(int, other)), 255, int(rng.uniform(0.04, 0.14) * size))
    else:
        depth = int(rng.uniform(0.08, 0.3) * size)
        side = rng.integers(4)
        (mask if side % 2 else mask.T)[(slice(-depth, None) if side > 1 else slice(0, depth))] = 255
    if rng.random() < 0.5:
        mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 3))
    cover = texture if rng.random() < 0.6 else np.full_like(image, rng.integers(0, 256, 3, dtype=np.uint8))
    share = mask[..., None].astype(np.uint16)
    return ((image * (255 - share) + cover * share) // 255).astype(np.uint8)


def degrade(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Change exposure and colour, and lose detail, as cameras and file formats do."""
    size = len(image)
    # One table a channel: gain, offset, gamma, white balance.
    ramp = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(rng.normal(0, 0.28))
    contrast, brightness = np.exp(rng.normal(0, 0.2)), rng.normal(0, 0.08)
    balance = np.exp(rng.normal(0, 0.09, 3))
    if rng.random() < 0.08:                     # dark pictures
        contrast *= rng.uniform(0.2, 0.6)
    tables = np.stack([np.clip(((ramp ** gamma - 0.45) * contrast + 0.45 + brightness) * gain, 0, 1)
                       for gain in balance], 1)
    image = cv2.LUT(image, (tables * 255).astype(np.uint8)[None])
    if rng.random() < 0.12:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    elif rng.random() < 0.3:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        share = rng.uniform(0.4, 1.5)
        image = np.clip(grey + (image.astype(np.float32) - grey) * share, 0, 255).astype(np.uint8)
    if rng.random() < 0.12:                     # light from one side
        angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.2)
        ramp2 = np.linspace(-1, 1, size, dtype=np.float32)
        slope = np.cos(angle) * ramp2[None] + np.sin(angle) * ramp2[:, None]
        image = np.clip(image * np.exp(depth * slope)[..., None], 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        small = int(size * rng.uniform(0.25, 0.8))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size),
                           interpolation=cv2.INTER_LINEAR)
    elif rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.08:                     # motion
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    if rng.random() < 0.2:
        noise = np.empty(image.shape, np.int16)
        cv2.randn(noise, 0, float(rng.uniform(2, 14)))
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if rng.random() < 0.2:
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(12, 80))])[1]
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return image


def crop_transform(rng: np.random.Generator, points: np.ndarray, size: int, side_per_box: float) -> np.ndarray:
    """(2, 3) affine from picture pixels to a `size` crop round a face, jittered as detectors do and turned in the plane.

    points (K, 2): what the crop's box is taken from. Pixel centres at integers on both sides.
    """
    wide = rng.random() < 0.08
    angle = np.deg2rad(rng.normal(0, 40 if wide else 11))
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    turned = points @ rotation.T
    low, high = turned.min(0), turned.max(0)
    box = np.sqrt(np.prod(high - low))
    side = side_per_box * box * np.exp(rng.normal(0, 0.10))
    centre = (low + high) / 2 + rng.normal(0, 0.06, 2) * box
    scale = size / side
    return np.concatenate([rotation * scale, ((size - 1) / 2 - scale * centre)[:, None]], 1)
