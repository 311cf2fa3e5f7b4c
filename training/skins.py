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


def calm(photographs: Photographs) -> np.ndarray:
    """Indices of photographs that look into the camera with closed lips, in even light."""
    points = photographs.points
    left, right, nose = points[:, 234, :2], points[:, 454, :2], points[:, 1, :2]
    width = np.linalg.norm(right - left, axis=1)
    turned = np.abs(np.linalg.norm(nose - left, axis=1) - np.linalg.norm(right - nose, axis=1)) / width
    tilted = np.abs((points[:, 152, 2] - points[:, 10, 2]) / width)
    gap = np.linalg.norm(points[:, 13, :2] - points[:, 14, :2], axis=1) / width
    smile = photographs.expression[:, ARKIT_NAMES.index("mouthSmileLeft")]
    inside = ((points[:, photographs.usable, :2] > 1) & (points[:, photographs.usable, :2] < PIXELS - 2)).all((1, 2))
    known = photographs.expression_weight.sum(1) > 0
    return np.flatnonzero((turned < 0.18) & (tilted < 0.32) & (gap < 0.02) & (smile < 0.8) & inside & known)


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


def make_skins(kit: Kit, photographs: Photographs, path: Path) -> Path:
    """Unwrap up to MOST calm photographs; the given path, where they are then."""
    if path.exists():
        return path
    chosen = calm(photographs)
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
