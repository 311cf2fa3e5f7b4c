"""How far the eyes are open, read from a photograph's own pixels: the third, small network, for stills.

The first network sees a whole head in a crop of 192 pixels, of which an open eye is seven high. This one sees each eye by itself, at four times that area,
and says the gap between the lids as a share of the eye's width, and how sure it is; `contact.opened` moves the lids of a map accordingly. It is
trained by `training/eye_reader.py`. numpy and ONNX Runtime; reads `weights/eyes`, never imports bpy.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache

import numpy as np

from .crop import Crop
from .engine import open_small_network
from .position_map import sample

EYE_PIXELS = 64
_SIDE = 0.42  # of a patch, over the size of the 68 landmarks' box (the root of its area)
INPUT, OUTPUTS = "eyes", ("openings", "spreads")
_SIZES = (0.93, 1.0, 1.07)  # in which an eye is seen: the answers are averaged, as the first network's are


def patches_of(landmarks: np.ndarray) -> tuple[Crop, Crop]:
    """Where the left eye and the right one are looked at: squares of the image frame. landmarks (68, 2) or (68, 3), image frame, pixels."""
    points = np.asarray(landmarks, np.float64)[:, :2]
    side = _SIDE * float(np.sqrt(np.prod(np.ptp(points, axis=0))))
    right, down = points[45] - points[36]
    roll = float(np.rad2deg(np.arctan2(down, right)))
    # The viewer's left eye is the person's right one.
    return Crop(*points[[42, 45]].mean(0), side, roll), Crop(*points[[36, 39]].mean(0), side, roll)


class EyeReader:
    """The network, ready to run in any thread."""

    def __init__(self) -> None:
        """Raises CaptureError if `weights/eyes` is missing, damaged, or no such network."""
        self._session, bundle = open_small_network("eyes", (INPUT,))
        # Texels (column, row) of three pairs of points across the left eye, the right eye and the mouth, (3, 3, 2, 2), and of their corners, (3, 2, 2).
        self._across, self._corners = (np.array(json.loads(bundle.metadata[name]), np.float32) for name in ("across", "corners"))

    def read(self, image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(2,) how far the left eye and the right one are open, over their width, in three dimensions, and (2,) the standard deviations of the errors.

        image: (H, W, 3) uint8 RGB; landmarks (68, 2) or (68, 3), image frame.
        """
        # It knows right eyes: the left one is mirrored.
        shown = [replace(eye, side=eye.side * size).pixels(image, EYE_PIXELS)[:, ::flip]
                 for eye, flip in zip(patches_of(landmarks), (-1, 1)) for size in _SIZES]
        return tuple(found.reshape(2, -1).mean(1) for found in self._session.run(list(OUTPUTS), {INPUT: np.stack(shown)}))

    def measured(self, position_map: np.ndarray) -> np.ndarray:
        """(3,) the same of the left eye, the right eye and the mouth of a map (256, 256, 3), in any frame."""
        points = [sample(position_map, texels.reshape(-1, 2)).reshape(*texels.shape[:-1], 3) for texels in (self._across, self._corners)]
        gaps, widths = (np.linalg.norm(ends[..., 0, :] - ends[..., 1, :], axis=-1) for ends in points)
        return gaps.mean(1) / widths


@lru_cache(maxsize=1)
def open_eye_reader() -> EyeReader:
    """The shipped one, loaded once."""
    return EyeReader()
