"""Stands in for PRNet's uv-data in the tests: files of the same format and counts, made from hm08's mean face."""

from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.position_map import SIZE, load_topology
from training.convert_prnet import VERTICES

# Where a texel of the stand-in lies on hm08's map: the layout is hm08's, drawn together towards the map's middle, so that
# it is another topology, without hm08's openings, whose every point is known.
SHRINK = 0.80


def places() -> np.ndarray:
    """(256, 256, 2) hm08's texel (column, row) for each texel of the stand-in."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    middle = (SIZE - 1) / 2
    return ((np.stack([columns, rows], -1) - middle) / SHRINK + middle).astype(np.float32)


def on_stand_in(position_map: np.ndarray) -> np.ndarray:
    """A map (256, 256, C) of hm08 as the stand-in's, (256, 256, C)."""
    return cv2.remap(position_map, places(), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def landmarks() -> np.ndarray:
    """(68, 2) whole texels (column, row)."""
    middle = (SIZE - 1) / 2
    return np.rint((load_topology().landmarks - middle) * SHRINK + middle).astype(int)


def mask() -> np.ndarray:
    """(256, 256) bool: as many texels as PRNet's face has, an upright oval round the landmarks."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    middle = (SIZE - 1) / 2
    distance = np.hypot(columns - middle, (rows - middle) * 0.98) + 1e-6 * (rows * SIZE + columns)
    inside = np.zeros(SIZE * SIZE, bool)
    inside[np.argsort(distance.ravel())[:VERTICES]] = True
    return inside.reshape(SIZE, SIZE)


def write_uv_data(folder: Path, canonical: bool = True) -> Path:
    """face_ind.txt, uv_kpt_ind.txt and, if wanted, canonical_vertices.npy in a new folder, written as PRNet's are."""
    folder.mkdir(parents=True)
    np.savetxt(folder / "face_ind.txt", np.flatnonzero(mask()))
    np.savetxt(folder / "uv_kpt_ind.txt", landmarks().T)
    if canonical:
        # Any scale and place, y down, z towards the camera.
        vertices = on_stand_in(load_topology().mean)[mask()] * (1200, 1200, -1200) + (3, 250, 60)
        np.save(folder / "canonical_vertices.npy", vertices)
    return folder
