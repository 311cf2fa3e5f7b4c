"""What streaks beyond a picture's edge do to a face's maps, followed through a video, and taken off them. numpy only; runs the engine that it is given.

Where a crop reaches beyond the picture, the network sees expressions, blinks above all, best with streaks there, and heads without them: of real faces
that are turned it then makes skewed ones (crop.py, look.py). A photograph is looked at both ways. Of a video every crop is seen with streaks, and one in
a batch without: what differs hardly changes from one batch to the next, as neither head nor edge do, while expressions come and go.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .crop import Crop
from .engine import Engine

_NEWEST = 0.5  # how much the newest difference counts against all before: there is some noise and some expression in each


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
        return position_map - engine.run(crop.shown(image, engine.input_size)[None])[0][0]
