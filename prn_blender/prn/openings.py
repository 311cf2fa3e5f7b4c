"""What stands in the face's openings: a surface across each eye and the mouth, which the topology leaves open.

An artist's own eyeballs and teeth go behind the lids and lips. Until they are there, these surfaces carry the photo's
eyes and teeth, so that nobody looks through the head. A topology without openings, as PRNet's, has an empty mesh here.
numpy and OpenCV only.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .fill import pull_push
from .position_map import SIZE, Grid, Topology

OVERLAP = 3  # texels that the surfaces go on behind lids and lips, so that no level of detail leaves a gap
BEHIND = 0.0005  # metres from lids and lips to the surface behind them
SMALLEST = 40  # texels; what is smaller is not an opening but a speck of the mask


@lru_cache(maxsize=2)
def opening_texels(topology: Topology) -> np.ndarray:
    """(256, 256) bool: the texels inside eyes and mouth."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats((~topology.mask).astype(np.uint8), connectivity=4)
    inside = np.zeros_like(topology.mask)
    for label in range(1, count):
        left, top, width, height, area = statistics[label]
        at_border = left == 0 or top == 0 or left + width == SIZE or top + height == SIZE
        if area >= SMALLEST and not at_border:
            inside |= labels == label
    return inside


@lru_cache(maxsize=2)
def opening_grid(topology: Topology) -> Grid:
    """The surfaces' mesh: one vertex a texel of the openings and of a seam round them."""
    wide = cv2.dilate(opening_texels(topology).astype(np.uint8), np.ones((3, 3)), iterations=OVERLAP).astype(bool)
    row, column = np.nonzero(wide[:-1, :-1] & wide[1:, :-1] & wide[1:, 1:] & wide[:-1, 1:])
    corners = np.stack([row * SIZE + column, (row + 1) * SIZE + column,
                        (row + 1) * SIZE + column + 1, row * SIZE + column + 1], 1)
    used, quads = np.unique(corners, return_inverse=True)
    cells = np.stack([used % SIZE, used // SIZE], 1)
    return Grid(cells.astype(np.float32), cells, quads.reshape(-1, 4).astype(np.int32))


def close_openings(position_map: np.ndarray, topology: Topology) -> np.ndarray:
    """The map with its openings spanned from rim to rim like a soap film; all other texels stay. Any frame."""
    inside = opening_texels(topology)
    if not inside.any():
        return position_map
    film = np.where(inside[..., None], pull_push(position_map, topology.mask), position_map)
    rows, columns = np.nonzero(inside)
    window = slice(rows.min() - 1, rows.max() + 2), slice(columns.min() - 1, columns.max() + 2)
    part, inside = film[window], inside[window]
    for _ in range(60):
        around = sum(np.roll(part, shift, axis) for axis in (0, 1) for shift in (-1, 1)) / 4
        part[inside] = around[inside]
    return film


def opening_vertices(head_map: np.ndarray, topology: Topology) -> np.ndarray:
    """(V, 3) vertices of `opening_grid` in the head frame, metres, a little behind lids and lips."""
    return opening_grid(topology).sample(close_openings(head_map, topology)) + np.float32([0, 0, BEHIND])
