"""What a face does, told by comparing it with itself at rest: the second, small network, for takes.

The first network sees a single picture, and lips that press or roll look much like others' lips at rest. This one is given a frame and the
frames at rest, laid out alike, how the skin moved from these to that (`skin_motion.flow`), what the motion does not explain, and both maps, and
gives how far the ARKit weights have changed since rest, and how sure of each it is. It is trained by `training/skin_reader.py`. numpy and
ONNX Runtime; reads `weights/skin`, never imports bpy.

Frames as in face_fit.py. All it sees is a window of the layout, in which eyes, brows, nose, cheeks and mouth lie.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .arkit import ARKIT_NAMES
from .engine import open_small_network
from .face_fit import GRID, ShapeSpace
from .skin_motion import WINDOW

_QUARTER = tuple(slice(part.start // 4, part.stop // 4) for part in WINDOW)
INPUTS = ("picture", "motion", "unlike", "map", "weights", "rotation")
OF_REST = ("picture", "map", "weights", "rotation")
GIVEN = (*INPUTS, *(f"rest_{name}" for name in OF_REST))
OUTPUTS = ("change", "spread")
# It has seen rendered faces only: of lids, gaze and tongue the first network, which has seen photographs, knows more.
NOT_ASKED = np.array([name.startswith(("eyeBlink", "eyeLook")) or name == "tongueOut" for name in ARKIT_NAMES])
# A face at rest whose grey levels differ by no more than this (a standard deviation) shows little of what moves; most faces have 15 to 60.
_BLANK = 3.0


def laid_out(offsets: np.ndarray, space: ShapeSpace) -> np.ndarray:
    """(..., 28, 24, 3) float32 maps' offsets from the mean head (..., 3, cells), metres, in the window at half the grid's size."""
    rows, columns = _QUARTER
    blocks = space.place.reshape(GRID // 2, 2, GRID // 2, 2)[rows, :, columns]
    # The number after all cells, where there is none, is that of a zero.
    offsets = np.concatenate([offsets, np.zeros((*offsets.shape[:-1], 1), np.float32)], -1)
    total = sum(offsets.take(blocks[:, row, :, column], -1) for row in (0, 1) for column in (0, 1))
    return np.moveaxis(total, -3, -1) / 4


def shows(at_rest: np.ndarray) -> float:
    """0..1 how much of what moves a face shows, by its picture at rest: nearly 1 for most, little for one of a single grey. Noise alone is a level."""
    return float(1 / np.hypot(1, _BLANK / (at_rest.std() + 1)))


class SkinReader:
    """The network, ready to run in any thread."""

    def __init__(self) -> None:
        """Raises CaptureError if `weights/skin` is missing, damaged, or no such network."""
        self._session, _ = open_small_network("skin", GIVEN, threads=1)       # the solve has threads of its own

    def read(self, frames: dict[str, np.ndarray], rest: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """How far the ARKit weights of N frames are from those at rest, (N, 52), and the standard deviations of its errors (N, 52).

        frames: `picture` (N, 112, 96) grey levels in the window; `motion` (N, 56, 48, 2) and `unlike` (N, 56, 48), of `skin_motion.flow`; `map` (N, 28, 24, 3)
        of `laid_out`; `weights` (N, 52) that the first network gave; `rotation` (N, 6) the first two rows of the head's. rest: the
        frames at rest, `picture`, `map`, `weights` and `rotation` of them without the first axis.
        """
        count = len(frames["picture"])
        given = {name: frames[name] for name in INPUTS} | {f"rest_{name}": np.broadcast_to(rest[name], (count, *rest[name].shape)) for name in OF_REST}
        change, spread = self._session.run(list(OUTPUTS), {name: np.ascontiguousarray(values, np.float32) for name, values in given.items()})
        # It has never seen a face of one grey, on which nothing moves visibly, and would be as sure there as elsewhere.
        return change, spread / np.float32(shows(rest["picture"]))


@lru_cache(maxsize=1)
def open_skin_reader() -> SkinReader:
    """The shipped one, loaded once."""
    return SkinReader()
