"""Filling the unknown parts of an image from the known ones. numpy and OpenCV only."""

from __future__ import annotations

import cv2
import numpy as np


def pull_push(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fills an image where its weights are low, smoothly from where they are high, by a pyramid of weighted means.

    values (H, W, C), weights (H, W) in 0..1, H = W a power of two. Values of full weight stay. Returns float32.
    """
    weights = weights.astype(np.float32)[..., None]
    levels = [(values.astype(np.float32) * weights, weights)]
    while levels[-1][1].shape[0] > 1:
        summed, weight = levels[-1]
        rows = weight.shape[0] // 2
        summed = summed.reshape(rows, 2, rows, 2, -1).sum((1, 3))
        weight = weight.reshape(rows, 2, rows, 2, 1).sum((1, 3))
        share = np.minimum(1, 1 / np.maximum(weight, 1e-12))  # a weight never counts for more than one texel
        levels.append((summed * share, weight * share))
    filled = levels[-1][0] / np.maximum(levels[-1][1], 1e-12)
    for summed, weight in levels[-2::-1]:
        coarse = cv2.resize(filled, weight.shape[:2], interpolation=cv2.INTER_LINEAR).reshape(summed.shape)
        filled = summed + (1 - weight) * coarse
    return filled
