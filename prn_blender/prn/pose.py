"""A head's pose: the similarity between head frame and image frame, and its angles.

Both frames have x to the viewer's right, y down and z away from the viewer. numpy only; touches nothing.
"""

from __future__ import annotations

import numpy as np


def fit_similarity(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """The similarity that carries weighted points closest to others, by least squares (Umeyama, 1991).

    source, target (N, 3); weights (N,) not negative. Returns rotation (3, 3), scale and translation (3,) with
    target = scale * rotation @ source + translation, in float64.
    """
    share = (weights / weights.sum())[:, None]
    source_mean, target_mean = (share * source).sum(0), (share * target).sum(0)
    source, target = source - source_mean, target - target_mean
    left, stretch, right = np.linalg.svd((share * target).T @ source)
    # A reflection would fit a mirrored face better, but a head cannot be mirrored.
    signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    scale = float((stretch * signs).sum() / (share * source**2).sum())
    return rotation, scale, target_mean - scale * rotation @ source_mean


def fit_similarity_robustly(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray, rounds: int = 5
) -> tuple[np.ndarray, float, np.ndarray]:
    """As `fit_similarity`, but points that do not move with the others lose their say (Cauchy weights)."""
    rotation, scale, translation = fit_similarity(source, target, weights)
    for _ in range(rounds):
        distance = np.linalg.norm(scale * source @ rotation.T + translation - target, axis=1)
        spread = max(float(np.median(distance)), 1e-12)
        rotation, scale, translation = fit_similarity(source, target, weights / (1 + (distance / spread) ** 2))
    return rotation, scale, translation


def angles(rotation: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a head's rotation (3, 3), signs and order as in AFLW2000-3D.

    Yaw is positive when the face is turned to the viewer's left, pitch when it looks up, roll when it leans clockwise
    as the viewer sees it; rotation = pitch about x, after yaw about y, after roll about z.
    """
    yaw = np.arcsin(np.clip(rotation[0, 2], -1, 1))
    pitch = np.arctan2(rotation[1, 2], rotation[2, 2])
    roll = np.arctan2(-rotation[0, 1], rotation[0, 0])
    return float(np.rad2deg(yaw)), float(np.rad2deg(pitch)), float(np.rad2deg(roll))
