"""How near the camera was: perspective, taken off a face's map and put on again.

From arm's length a nose is seen large and ears small. A map lies over the photo, so that a head fitted to it as it is
comes out narrow, with a broad nose; where a photo tells its lens, the map is first brought to what a camera far away
would see (a pinhole, Hartley and Zisserman, "Multiple View Geometry", chapter 6). numpy only; touches nothing.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .boxes import LEAST_FOCAL, MOST_FOCAL
from .errors import CaptureError

_DIAGONAL = 43.27               # millimetres, of the 36 x 24 frame that equivalent focal lengths are told for
# A network that has learned from heads at all distances gives a near one that is half way to the mean already: so much of its perspective is
# left to take off. Told on rendered heads (docs/head.md).
BELIEVED = 0.6
_NEAREST = 0.25                 # of the head's distance: a map's points are never brought nearer to the camera
# A photo whose file tells the lens may have been cut out of a larger one since. It is believed if it has a camera's shape, and pixels.
_SHAPES, _SHAPE_ERROR, _LEAST_PIXELS = (4 / 3, 3 / 2, 16 / 9), 0.01, 3_000_000


@dataclass(frozen=True)
class Lens:
    """A pinhole `focal` pixels before the plane z = 0 of the image frame, over the picture's `middle` (x, y).

    Both directions take points (..., 3) and keep their z: seen, as they lie in the photo; flat, as from far away.
    """

    focal: float
    middle: tuple[float, float]

    @classmethod
    def over(cls, focal: float, width: int, height: int) -> Lens:
        """Over the middle of a picture of this size."""
        return cls(focal, ((width - 1) / 2, (height - 1) / 2))

    def flattened(self, seen: np.ndarray) -> np.ndarray:
        return self._scaled(seen, self._nearness(seen))

    def seen(self, flat: np.ndarray) -> np.ndarray:
        return self._scaled(flat, 1 / self._nearness(flat))

    def brought(self, flat: np.ndarray, depth: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat points (..., 3) moved along the rays on which they are seen, and the growth that makes, so that what was in the plane z = depth comes to
        lie in z = 0. depth: of all, or (..., 1) of each, as the growth then is."""
        growth = self.focal / (self.focal + np.asarray(depth))
        moved = self._scaled(flat, growth)
        moved[..., 2:] = (flat[..., 2:] - depth) * growth
        return moved, growth

    def cut_out(self, x: float, y: float) -> Lens:
        """The same lens for a part of the picture that begins there."""
        return replace(self, middle=(self.middle[0] - x, self.middle[1] - y))

    def _nearness(self, points: np.ndarray) -> np.ndarray:
        return np.maximum(1 + points[..., 2:] / self.focal, _NEAREST)

    def _scaled(self, points: np.ndarray, scale: np.ndarray) -> np.ndarray:
        middle = np.asarray(self.middle, points.dtype)
        return np.concatenate([middle + (points[..., :2] - middle) * scale.astype(points.dtype), points[..., 2:]], -1)


def lens_of(millimetres: float, width: int, height: int) -> Lens:
    """The lens of a picture (pixels) taken with this focal length, equivalent to one of a 36 x 24 mm frame. Raises CaptureError if no lens has it."""
    if not LEAST_FOCAL <= millimetres <= MOST_FOCAL:
        raise CaptureError(f"A focal length of {millimetres:g} mm is not possible: give one from {LEAST_FOCAL:.0f} to {MOST_FOCAL:.0f}.")
    pixels = millimetres / _DIAGONAL * np.hypot(width, height)
    return Lens.over(float(pixels / BELIEVED), width, height)


def seen_through(lens: Lens | None, points: np.ndarray, scale: float, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Where points (..., 3) of the head frame appear, image frame: scale * rotation @ point + translation, through the lens if there is one."""
    flat = scale * points @ rotation.T + translation
    return lens.seen(flat) if lens else flat


def is_whole(width: int, height: int) -> bool:
    """Whether a picture is as large, and of the shape, as cameras make them, so that it hardly is a part of one."""
    shape = max(width, height) / min(width, height)
    return width * height >= _LEAST_PIXELS and any(abs(shape / usual - 1) < _SHAPE_ERROR for usual in _SHAPES)
