"""Skins for rendered heads: calm frontal photographs unwrapped onto the position map's UV layout.

Real skin, brows, beards and make-up on heads whose shape, pose and expression are known exactly. Texture only: the
labels of a rendered head come from its geometry. Written once, (N, 256, 256, 3) uint8 RGB.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import Delaunay

from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.position_map import SIZE
from training.kit import Kit
from training.photographs import PIXELS, Photographs

MOST = 3500


# The most that a photograph's head may be turned and nodded (shares of its width), its lips apart (too) and that it may smile (ARKit weight).
CALM = (0.18, 0.32, 0.02, 0.8)
NEARLY_CALM = (0.3, 0.45, 0.03, 1.0)    # twice as many


def calm(photographs: Photographs, most: tuple[float, float, float, float]) -> np.ndarray:
    """Indices of photographs that look into the camera with closed lips, as far as `most` (CALM) asks."""
    points = photographs.points
    left, right, nose = points[:, 234, :2], points[:, 454, :2], points[:, 1, :2]
    width = np.linalg.norm(right - left, axis=1)
    turned = np.abs(np.linalg.norm(nose - left, axis=1) - np.linalg.norm(right - nose, axis=1)) / width
    tilted = np.abs((points[:, 152, 2] - points[:, 10, 2]) / width)
    gap = np.linalg.norm(points[:, 13, :2] - points[:, 14, :2], axis=1) / width
    smile = photographs.expression[:, ARKIT_NAMES.index("mouthSmileLeft")]
    inside = ((points[:, photographs.usable, :2] > 1) & (points[:, photographs.usable, :2] < PIXELS - 2)).all((1, 2))
    known = photographs.expression_weight.sum(1) > 0
    return np.flatnonzero((np.stack([turned, tilted, gap, smile], 1) <= most).all(1) & inside & known)


def fill(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Extend an image (S, S, 3) smoothly where `known` (S, S) is zero: means of ever coarser neighbourhoods."""
    weights, values = [known.astype(np.float32)], [image.astype(np.float32) * known[..., None]]
    while weights[-1].shape[0] > 2:
        weights.append(cv2.resize(weights[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        values.append(cv2.resize(values[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    result = values[-1] / np.maximum(weights[-1], 1e-6)[..., None]
    for weight, value in zip(weights[-2::-1], values[-2::-1]):
        result = cv2.resize(result, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        share = np.minimum(weight, 1)[..., None]
        result = np.where(weight[..., None] > 1e-6, value / np.maximum(weight, 1e-6)[..., None] * share
                          + result * (1 - share), result)
    return result


def varied(skins: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(256, 256, 3) uint8 a skin that nobody has, of two of `skins` (N, 256, 256, 3): the light and colour of the one, the features of both in
    different places, stronger or weaker, and all of it a little beside where it belongs.

    A thousand skins are few for ten thousand people, and each has its lips and brows in one place.
    """
    one, other = (skins[i][:, ::rng.choice([-1, 1])].astype(np.float32) for i in rng.integers(len(skins), size=2))
    tone = [cv2.GaussianBlur(skin, (0, 0), 14) for skin in (one, other)]
    share = np.zeros((SIZE, SIZE, 1), np.float32)
    if rng.random() < 0.6:
        share = np.clip(0.5 + 2 * _field(rng, 4, 1), 0, 1)
    brighter = tone[0].mean() / max(tone[1].mean(), 20)
    features = (one - tone[0]) * (1 - share) + (other - tone[1]) * brighter * share
    skin = tone[0] + features * np.exp(rng.normal(0, 0.25))
    moved = _field(rng, int(rng.integers(3, 9)), 2) * rng.uniform(0, 2.5)
    at = moved + np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1)
    return cv2.remap(np.clip(skin, 0, 255).astype(np.uint8), at.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _field(rng: np.random.Generator, knots: int, channels: int) -> np.ndarray:
    """(256, 256, channels) smooth random numbers of deviation 1 where the knots, so many a side, are."""
    return cv2.resize(rng.standard_normal((knots, knots, channels)), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC).reshape(SIZE, SIZE, channels)


def make_skins(kit: Kit, photographs: Photographs, path: Path, most: tuple[float, float, float, float] = CALM) -> Path:
    """Unwrap up to MOST photographs that are so calm; the given path, where they are then."""
    if path.exists():
        return path
    chosen = calm(photographs, most)
    rng = np.random.default_rng(3)
    chosen = rng.permutation(chosen)[:MOST]
    texels = kit.mediapipe[photographs.usable]
    mesh = Delaunay(texels)
    columns, rows = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    places = np.stack([columns.ravel(), rows.ravel()], 1).astype(float)
    triangle = mesh.find_simplex(places)
    inside = triangle >= 0
    affine = mesh.transform[triangle]
    two = np.einsum("nij,nj->ni", affine[:, :2], places - affine[:, 2])
    weights = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1) * inside[:, None]
    corners = mesh.simplices[triangle]
    # A soft edge, so that the outermost texels, where the photograph turns into hair and background, fade to skin.
    known = cv2.erode(inside.reshape(SIZE, SIZE).astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    known = cv2.GaussianBlur(known, (0, 0), 3) * known
    partial = path.with_suffix(".partial.npy")
    skins = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(chosen), SIZE, SIZE, 3))
    for number, index in enumerate(chosen):
        points = photographs.points[index][photographs.usable, :2]
        at = (points[corners] * weights[..., None]).sum(1).reshape(SIZE, SIZE, 2).astype(np.float32)
        unwrapped = cv2.remap(np.ascontiguousarray(photographs.pixels[photographs.chosen[index]]), at, None,
                              cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        skin = fill(unwrapped, known)
        grain = cv2.GaussianBlur(rng.normal(0, 9, (SIZE, SIZE, 1)), (0, 0), 0.8)[..., None]
        skins[number] = np.clip(skin + grain * (1 - known[..., None]), 0, 255)
    skins.flush()
    partial.rename(path)
    print(f"{len(chosen)} skins")
    return path
