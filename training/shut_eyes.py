"""Mends MediaPipe's labels of shut eyes: its points stand apart by more than lids that touch, and its score stays near a half.

Where points and score together say that an eye is shut, its points come as near to each other as those of hm08's shut lids are, and its
score becomes 1, as for rendered heads. The bounds were chosen by looking at some four hundred eyes of training photographs, sorted
by gap and score: so that what is more likely shut than not is closed, as a network learns the likelier of two answers.
"""
from __future__ import annotations

import numpy as np

from prn_blender.prn.blinks import LIDS

# MediaPipe's points, of the left eye and of the right: corners, upper lid, and below each of its points one of the lower lid.
CORNERS = (263, 362), (33, 133)
UPPER = (466, 388, 387, 386, 385, 384, 398), (246, 161, 160, 159, 158, 157, 173)
LOWER = (249, 390, 373, 374, 380, 381, 382), (7, 163, 144, 145, 153, 154, 155)
# Neither tells a shut eye alone: half of those with a score of 0.47 are squints or look down, and so are half of those with a tenth of
# their width between the lids. Together: below SURE[0] fewer than half of the eyes are shut, from SURE[1] on more.
GAP, PER_GAP, SURE = 0.10, 1.0, (0.44, 0.51)
CLOSED = 0.07           # of an eye's width: the points lie a little off the lids' edges, and on hm08 are so far apart where these touch


def gaps(points: np.ndarray) -> np.ndarray:
    """(N, 2) how far each eye is open, left and right, as a share of its width. points (N, 478, 3)."""
    found = []
    for corners, upper, lower in zip(CORNERS, UPPER, LOWER):
        middle = slice(2, 5)
        apart = np.linalg.norm(points[:, upper[middle]] - points[:, lower[middle]], axis=2).mean(1)
        found.append(apart / np.linalg.norm(points[:, corners[0]] - points[:, corners[1]], axis=1))
    return np.stack(found, 1)


def shut(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(N, 2) float32, how surely each eye is shut, left and right. points (N, 478, 3); scores (N, 52)."""
    sign = scores[:, LIDS] - PER_GAP * (gaps(points) - GAP)
    return np.clip((sign - SURE[0]) / (SURE[1] - SURE[0]), 0, 1).astype(np.float32)


def mended(points: np.ndarray, scores: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 478, 3) and scores (N, 52) with the eyes closed by `share` (N, 2) of what keeps them open."""
    nearer = share * np.clip(1 - CLOSED / np.maximum(gaps(points), 1e-6), 0, 1)
    points, scores = points.copy(), scores.copy()
    for eye, (upper, lower) in enumerate(zip(UPPER, LOWER)):
        towards = nearer[:, eye, None, None] * (points[:, lower] - points[:, upper]) / 2
        points[:, upper] += towards
        points[:, lower] -= towards
    scores[:, LIDS] += share * (1 - scores[:, LIDS])
    return points, scores
