"""How a patch of a mesh follows the vertices round it. numpy only."""

from __future__ import annotations

import numpy as np


def membrane(sides: np.ndarray, weights: np.ndarray, free: np.ndarray, held: np.ndarray,
             tether: np.ndarray | float = 0.0) -> np.ndarray:
    """(free, held) how vertices `free` (n,) follow those that are `held` (m,), as a membrane's do; all others stay.

    sides (S, 2): pairs of neighbours; weights (S,): how stiff the membrane is between them. tether (n,): how
    strongly each free vertex is drawn back to its place.
    """
    place, hold = np.full((2, sides.max() + 1), -1)
    place[free], hold[held] = np.arange(len(free)), np.arange(len(held))
    system, pull = np.eye(len(free)) * tether, np.zeros((len(free), len(held)))
    for a, b in (sides.T, sides.T[::-1]):
        chosen = place[a] >= 0
        np.add.at(system, (place[a[chosen]], place[a[chosen]]), weights[chosen])
        inner = chosen & (place[b] >= 0)
        np.add.at(system, (place[a[inner]], place[b[inner]]), -weights[inner])
        outer = chosen & (hold[b] >= 0)
        np.add.at(pull, (place[a[outer]], hold[b[outer]]), weights[outer])
    return np.linalg.solve(system, pull).astype(np.float32)
