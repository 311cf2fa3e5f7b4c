"""Keeps a person's skin from folding over: where offsets from the mean head turn a quad onto its neighbour, they are evened out.

A shape space adds what each of its components knows, and nothing in a sum keeps small quads (at the corners of lips and lids, behind
the ears) from turning over when a person is far from the mean. Skin whose offsets hardly differ from vertex to vertex cannot fold:
so in a patch round each fold the offsets go towards their neighbours' until nothing is folded in it. The mean head is free of folds,
and stays so in the expressions that photographs show. numpy only.
"""

from __future__ import annotations

import numpy as np

# Cosine between the normals of neighbouring quads below which they are folded: 143 degrees. Only where the mean head has less than 90
# do pairs count. Hooded lids have up to 125; beyond 150 everybody sees a fold, and what lies between is room for more expression.
FOLDED = -0.8
ROOM = 0.3              # how much further from a fold an expression has to be on the mean head for a person's skin to count in it
STEPS, PATIENCE = 80, 8         # of evening out, at most; and after how many the patch grows by a ring where a fold is left


class Folds:
    """The mean head's skin, vertices (N, 3) in metres and quads (Q, 4), and which quads (Q,) bool an expression may fold."""

    def __init__(self, mean: np.ndarray, quads: np.ndarray, free: np.ndarray) -> None:
        self.mean, self.quads = mean, quads
        sides = np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1), -1).reshape(-1, 2)
        self.sides, side = np.unique(sides, axis=0, return_inverse=True)
        self.weights = 1 / np.linalg.norm(mean[self.sides[:, 0]] - mean[self.sides[:, 1]], axis=1).astype(np.float32) ** 2
        order = np.argsort(side.ravel(), kind="stable")
        same = np.flatnonzero(np.diff(side.ravel()[order]) == 0)
        pairs = np.stack([order[same], order[same + 1]], 1) // 4
        self.pairs = pairs[self._cosines(mean, pairs) > 0]
        self.bound = ~free[self.pairs].any(1)

    def _cosines(self, points: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """(P,) cosines between the normals of the quads in pairs (P, 2)."""
        corners = points[self.quads]
        normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-15)
        return (normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1)

    def over(self, points: np.ndarray) -> np.ndarray:
        """(P,) bool, which pairs of neighbouring quads of skin (N, 3) are folded."""
        return self._cosines(points, self.pairs) < FOLDED

    def _grown(self, chosen: np.ndarray, rings: int) -> np.ndarray:
        """(N,) bool, the chosen vertices and so many rings of neighbours."""
        for _ in range(rings):
            chosen = chosen.copy()
            chosen[self.sides[chosen[self.sides].any(1)]] = True
        return chosen

    def taken_out(self, rest: np.ndarray, movement: np.ndarray | float = 0.0) -> np.ndarray:
        """The skin at rest (N, 3) without folds, in itself and moved by an expression (N, 3); in the mean head's size, metres."""
        offsets, patch, mendable = rest - self.mean, np.zeros(len(rest), bool), None
        for step in range(STEPS):
            rest = self.mean + offsets
            over, moved = self.over(rest), self.over(rest + movement) & self.bound
            if moved.any() and mendable is None:
                # What an expression folds on the mean head itself (some shapes contradict each other) no person's skin can mend.
                mendable = self._cosines(self.mean + movement, self.pairs) > FOLDED + ROOM
            over |= moved if mendable is None else moved & mendable
            if not over.any():
                break
            # No more than is needed is evened out: a step at a time, in patches that grow while a fold stays.
            bad = np.zeros(len(rest), bool)
            bad[self.quads[self.pairs[over]]] = True
            patch |= self._grown(bad, 1 + step // PATIENCE)
            offsets = np.where(patch[:, None], self._evened(offsets, patch), offsets)
        return rest

    def _evened(self, offsets: np.ndarray, patch: np.ndarray) -> np.ndarray:
        """(N, 3) offsets half way to their neighbours' mean, right in the patch (N,) only.

        Near neighbours count most: what folds is where vertices are close, and there offsets must differ least.
        """
        touched = patch[self.sides].any(1)
        sides, weights = self.sides[touched], self.weights[touched, None]
        total, share = np.zeros_like(offsets), np.zeros((len(offsets), 1), offsets.dtype)
        for here, there in (sides.T, sides.T[::-1]):
            np.add.at(total, here, weights * offsets[there])
            np.add.at(share, here, weights)
        return 0.5 * (offsets + total / np.maximum(share, 1e-9))
