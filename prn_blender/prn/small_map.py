"""Position maps at the size at which the network mixes them, 64x64, as videos are read, and the whole map of one. numpy and OpenCV only.

What a whole map has beyond a small one is the mean head's, and known (`network.enlarged`); so the 8-bit network gives small ones, and whole
ones are made of the few that somebody wants to look at.
"""
from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .face_fit import GRID as SMALL
from .face_fit import reading
from .position_map import SIZE, Hm08Topology, load_topology, sample

# Where the mean head lies in its crop, metres in the head frame: the crop's side and its centre's height. Constants of the
# trained weights, near what the 68 landmarks' box gives; they may not follow when a landmark is placed anew.
MEAN_CROP_SIDE, MEAN_CROP_CENTRE = 0.21910913, 0.04504143


def mean_in_crop(topology: Hm08Topology) -> np.ndarray:
    """(256, 256, 3) float32 mean position map seen from the front, in crop units, as a face in its own crop lies."""
    return ((topology.mean - np.float32([0, MEAN_CROP_CENTRE, 0])) / np.float32(MEAN_CROP_SIDE)).astype(np.float32)


@lru_cache(maxsize=1)
def _means() -> tuple[np.ndarray, np.ndarray]:
    mean = mean_in_crop(load_topology())
    return mean, reading(mean)


def whole(crop_map: np.ndarray) -> np.ndarray:
    """(256, 256, 3) float32 the whole of a small map (64, 64, 3) of hm08's topology in crop units; a whole one as it is."""
    if len(crop_map) == SIZE:
        return crop_map
    mean, small_mean = _means()
    return mean + cv2.resize(crop_map - small_mean, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


class Places:
    """Texels at which many maps of one size are read: whole maps bilinearly, small ones as their whole maps would be."""

    def __init__(self, texels: np.ndarray, size: int) -> None:
        """texels (K, 2): columns and rows on a whole map. size: side of the maps that will be read, 256 or 64."""
        self._texels, self.cells = texels, None
        if size == SIZE:
            return
        # What each row of a whole map, and each column, has of the small one's: five at most of them for what lies between two rows.
        enlarging = cv2.resize(np.eye(SMALL, dtype=np.float32), (SMALL, SIZE), interpolation=cv2.INTER_CUBIC)        # (256, 64)
        rows = np.stack([enlarging, enlarging], 1)          # as a map two columns wide
        column, row = (sample(rows, np.stack([np.zeros(len(texels)), texels[:, axis]], 1)) for axis in (0, 1))          # (K, 64)
        shares = (row[:, :, None] * column[:, None]).reshape(len(texels), -1)
        self.cells = np.argsort(-np.abs(shares), 1)[:, :25]
        self.shares = np.take_along_axis(shares, self.cells, 1)
        mean, small_mean = _means()
        self.beyond = sample(mean, texels) - self._read(small_mean[None])[0]

    def _read(self, maps: np.ndarray) -> np.ndarray:
        return np.einsum("nkjc,kj->nkc", maps.reshape(len(maps), -1, 3).take(self.cells, 1), self.shares)

    def of(self, maps: np.ndarray) -> np.ndarray:
        """(N, K, 3) maps (N, S, S, 3) at these places."""
        return sample(maps, self._texels) if self.cells is None else self._read(maps) + self.beyond
