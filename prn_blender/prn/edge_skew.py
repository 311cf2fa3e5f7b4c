"""What streaks beyond a picture's edge do to a face's maps, followed through a video, and taken off them. numpy and OpenCV only; runs the engine that it is
given.

Where a crop reaches beyond the picture, the network sees expressions best with streaks there, and heads without them: of real faces that are turned it
then makes skewed ones (crop.py, look.py). A photograph is looked at both ways. Of a video every crop is seen with streaks, and one in a batch without:
how the two maps differ hardly changes from one batch to the next, as neither head nor edge do. Eyes and mouth move as one with what is round them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from .crop import Crop
from .engine import Engine
from .fill import pull_push
from .position_map import SIZE, Topology

_NEWEST = 0.5  # how much the newest difference counts against all before
_ABOUT = 16  # texels about eyes and mouth that move as one with their surroundings


class EdgeSkew:
    """The skew of one face, for as long as it is followed."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None  # (M, M, 3) crop units: what a map with streaks has over one without

    def take_off(self, maps: Sequence[np.ndarray], images: Sequence[np.ndarray], crops: Sequence[Crop], engine: Engine) -> None:
        """Make of maps (M, M, 3), as the engine gave them of consecutive images' crops with streaks, in place, what they would be without; images (H, W, 3)
        uint8 RGB. One further pass, of the last crop (and of the first one, the first time), if it reaches beyond the picture."""
        before = self._skew(maps[0], images[0], crops[0], engine) if self._last is None else self._last
        self._last = before
        if len(maps) > 1:
            self._last = before + np.float32(_NEWEST) * (self._skew(maps[-1], images[-1], crops[-1], engine) - before)
        for share, one in zip(np.linspace(1 / len(maps), 1, len(maps), dtype=np.float32), maps):
            one -= before + share * (self._last - before)

    @staticmethod
    def _skew(position_map: np.ndarray, image: np.ndarray, crop: Crop, engine: Engine) -> np.ndarray:
        if crop.within(image):
            return np.zeros_like(position_map)
        differing = position_map - engine.run(crop.shown(image, engine.input_size)[None])[0][0]
        return pull_push(differing, _beside(engine.topology, len(differing)))


@lru_cache(maxsize=2)
def _beside(topology: Topology, size: int) -> np.ndarray:
    """(size, size) float32: 1 where a map does not show eyes, mouth, or what is about them."""
    about = np.zeros((SIZE, SIZE), np.uint8)
    for opening in (slice(36, 42), slice(42, 48), slice(48, 60)):
        cv2.fillConvexPoly(about, cv2.convexHull(np.round(topology.landmarks[opening]).astype(np.int32)), 1)
    about = cv2.dilate(about, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _ABOUT + 1,) * 2))
    return (cv2.resize(about.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) == 0).astype(np.float32)
