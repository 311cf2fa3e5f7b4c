"""The square that the network sees: face box -> crop -> image, both ways.

Image frame: pixels, x right, y down, z away from the camera in the same scale, pixel centres at integers.
Crop frame: origin at the crop's centre, x right, y down, z away, one unit = the crop's side; it leans as the crop does.
Needs numpy and OpenCV; touches no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from .light import evened

if TYPE_CHECKING:
    from .detector import FaceBox

# The crop's side over the size of the 68 landmarks' box: the convention that our network is trained on.
SIDE_PER_LANDMARK_BOX = 1.6


@dataclass(frozen=True)
class CropConvention:
    """How large the crop is that a network is trained on; it travels with the model bundle.

    side: the crop's side over the size of the 68 landmarks' box. mean: which mean of the box's width and height is its size.
    """

    side: float = SIDE_PER_LANDMARK_BOX
    mean: Literal["geometric", "arithmetic"] = "geometric"

    def size(self, width: float, height: float) -> float:
        """The size of a box."""
        return float(np.sqrt(width * height)) if self.mean == "geometric" else (width + height) / 2


OUR_CROP = CropConvention()

# Where the landmarks' box lies inside a detector's box: its size over the detector box's size, and the way from the
# detector box's centre to its centre in units of its own size. Medians over 375 training photographs turned at most
# about 25 degrees (beyond, their own labels are doubtful): 1.16 +- 0.05 and 0.17 +- 0.04; the sideways mean is within
# the noise, and symmetry says 0.
LANDMARK_SIZE_PER_FACE_BOX = 1 / 1.16
LANDMARK_CENTER_FROM_FACE_BOX = (0.0, 0.17)
_CONTRAST = 35.0  # grey levels: less contrast than nearly all crops have, and the network still errs no more than on them
# Of a crop's side, over which what lies beyond the image's edge fades into a blur of this standard deviation, in training as in captures. An image that is
# only mirrored shows a second face where the edge cuts the face off, and by streaks of its border's pixels a network knows its training photographs.
FADE = BLUR = 0.05
_LEANING = 0.5  # how much of a head's axis has to lie in the image's plane, for it to lean in it


@dataclass(frozen=True)
class Crop:
    """A square of the image; it may reach beyond the image's edges. In pixels of the image frame, and degrees."""

    center_x: float
    center_y: float
    side: float
    roll: float = 0.0  # how far it leans, with the head in it, clockwise as the viewer sees it

    @property
    def turn(self) -> np.ndarray:
        """(3, 3) the rotation from the crop's axes to the image's."""
        return turn(self.roll)

    def cut(self, image: np.ndarray, size: int) -> np.ndarray:
        """What a network is given of an image: `shown` as (size, size, 3) float32 RGB in 0..1."""
        return np.multiply(self.shown(image, size), np.float32(1 / 255))

    def shown(self, image: np.ndarray, size: int) -> np.ndarray:
        """The same in bytes: `pixels` whose light is evened out where they are dull."""
        return evened(self.pixels(image, size), _CONTRAST)

    def within(self, image: np.ndarray) -> bool:
        """Whether all of it lies within an image."""
        reach = self.side / 2 * np.abs(self.turn[:2, :2]).sum(1)
        edge = np.array([self.center_x, self.center_y]) + 0.5
        return bool((edge >= reach).all() and (edge + reach <= image.shape[1::-1]).all())

    def pixels(self, image: np.ndarray, size: int) -> np.ndarray:
        """Cut the square out of an image and resample it.

        image: (H, W, 3) uint8 RGB. Returns (size, size, 3) uint8 RGB. Beyond the image's edges it is mirrored, and fades into a blur.
        Texel (row, column) shows the crop point ((column + 0.5) / size - 0.5, (row + 0.5) / size - 0.5).
        """
        step = self.side / size  # pixels a texel
        # Shrinking has to average pixels, or fine patterns alias. Whole blocks are averaged quickly, and the rest is at most 1.5.
        block = max(1, round(step))
        # A pixel reaches half a pixel to either side of its centre.
        x, y = self.center_x - self.side / 2 + 0.5, self.center_y - self.side / 2 + 0.5
        if not self.roll and x >= 0 and y >= 0 and x + self.side <= image.shape[1] and y + self.side <= image.shape[0] and \
                x % 1 == y % 1 == self.side % block == 0:
            x, y, side = int(x), int(y), int(self.side)
            part = _averaged(image[y:y + side, x:x + side], block)
            return cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)
        part, matrix = self.part_of(image, int(np.ceil(2 * step)) + 2, block)
        texels = np.array([[1 / size, 0, 0.5 / size - 0.5], [0, 1 / size, 0.5 / size - 0.5], [0, 0, 0], [0, 0, 1]])     # to the crop frame
        cut = cv2.warpAffine(part, matrix @ texels, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                             borderMode=cv2.BORDER_REFLECT_101)
        return cut if self.within(image) else _faded(cut, self._beyond(image, size))

    def _beyond(self, image: np.ndarray, size: int) -> np.ndarray:
        """(size, size) float32 how far the crop's texels lie beyond the image's edges, in sides of the crop."""
        across = np.float32(self.side * ((np.arange(size) + 0.5) / size - 0.5))
        away = []
        for middle, (right, down), length in zip((self.center_x, self.center_y), self.turn[:2, :2].astype(np.float32), image.shape[1::-1]):
            place = np.float32(middle) + right * across + down * across[:, None]
            away.append(np.maximum(np.maximum(-0.5 - place, place - (length - 0.5)), 0))
        return np.hypot(*away) / np.float32(self.side)

    def snapped(self, size: int) -> Crop:
        """The nearest square of whole pixels, at most half a pixel off, which is cut to `size` in a third of the time; one that leans is left as it is."""
        if self.roll:
            return self
        block = max(1, round(self.side / size))
        side = block * max(1, round(self.side / block))
        return Crop(round(self.center_x - side / 2 + 0.5) - 0.5 + side / 2, round(self.center_y - side / 2 + 0.5) - 0.5 + side / 2, side)

    def part_of(self, image: np.ndarray, margin: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """The part of an image (H, W, 3) that the square and a margin of pixels round it touch, each block x block pixels averaged into one;
        and (2, 4) what takes homogeneous points of the crop frame to the part's pixels. A photograph may be a hundred times as large."""
        height, width = image.shape[:2]
        axes = self.turn[:2]
        away = self.side / 2 * np.abs(axes).sum(1) + margin     # a square that leans reaches further
        x0, x1 = _span(self.center_x - away[0], self.center_x + away[0], width, block)
        y0, y1 = _span(self.center_y - away[1], self.center_y + away[1], height, block)
        # Pixel p has its centre at p, so that p + 0.5 counts from the edge; the same holds for the shrunk part.
        corner = (np.array([self.center_x - x0, self.center_y - y0]) + 0.5) / block - 0.5
        return _averaged(image[y0:y1, x0:x1], block), np.column_stack([axes * (self.side / block), corner])

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Carry points (..., 3) from the crop frame to the image frame (z is scaled like x and y). Returns float32."""
        offset = np.array([self.center_x, self.center_y, 0.0])
        return (np.asarray(points, np.float64) @ (self.side * self.turn.T) + offset).astype(np.float32)

    def from_image(self, points: np.ndarray) -> np.ndarray:
        """Carry points (..., 3) from the image frame to the crop frame: the inverse of `to_image`. Returns float32."""
        offset = np.array([self.center_x, self.center_y, 0.0])
        return ((np.asarray(points, np.float64) - offset) @ (self.turn / self.side)).astype(np.float32)


def turn(roll: float) -> np.ndarray:
    """(3, 3) the rotation by `roll` degrees in the image's plane, clockwise as the viewer sees it."""
    sine, cosine = np.sin(np.deg2rad(roll)), np.cos(np.deg2rad(roll))
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def roll_of(rotation: np.ndarray) -> float:
    """How far a head leans in the image's plane, degrees, clockwise as the viewer sees it; rotation (3, 3) head to image. 0 of a head that
    shows the camera its crown or the underside of its chin: it leans nowhere."""
    x, y = rotation[:2, 1]      # the head's downward axis
    return float(np.rad2deg(np.arctan2(-x, y))) if x * x + y * y > _LEANING ** 2 else 0.0


def _faded(picture: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """A square picture (S, S, 3) uint8 that fades into a blur of itself: beyond (S, S), how far each pixel lies beyond what is known, in its sides."""
    # A blur as wide as this holds all in a few pixels.
    few = max(8, round(2 / BLUR))
    small = cv2.GaussianBlur(cv2.resize(picture, (few, few), interpolation=cv2.INTER_AREA), (0, 0), BLUR * few)
    share = np.minimum(beyond / np.float32(FADE), 1)
    return cv2.blendLinear(picture, cv2.resize(small, picture.shape[:2], interpolation=cv2.INTER_CUBIC), 1 - share, share)


def _averaged(part: np.ndarray, block: int) -> np.ndarray:
    """Pictures (H, W, 3) with each block x block pixels averaged into one."""
    if block == 1:
        return part
    height, width = part.shape[:2]
    return cv2.resize(part, (max(1, width // block), max(1, height // block)), interpolation=cv2.INTER_AREA)


def _span(low: float, high: float, length: int, block: int) -> tuple[int, int]:
    """The whole pixels of 0..length from low to high, at least one, and a multiple of `block` if there are as many."""
    start = int(np.clip(np.floor(low), 0, length - 1))
    end = int(np.clip(np.ceil(high), start + 1, length))
    if end - start > block:
        end -= (end - start) % block
    return start, end


def crop_from_landmark_box(x_min: float, y_min: float, x_max: float, y_max: float,
                           convention: CropConvention = OUR_CROP) -> Crop:
    """The crop round the box of the 68 landmarks (pixels, image frame): same centre, side = 1.6 sqrt(w h) for our network."""
    size = convention.size(x_max - x_min, y_max - y_min)
    return Crop((x_min + x_max) / 2, (y_min + y_max) / 2, convention.side * size)


def crop_from_landmarks(points: np.ndarray, convention: CropConvention = OUR_CROP, roll: float = 0.0) -> Crop:
    """The crop round the 68 landmarks themselves: points (68, 2) or (68, 3), image frame; roll: degrees by which it leans with the head."""
    leaning = turn(roll)[:2, :2]
    upright = points[:, :2] @ leaning
    found = crop_from_landmark_box(*upright.min(0), *upright.max(0), convention)
    return Crop(*(leaning @ (found.center_x, found.center_y)), found.side, roll)


def crop_from_face_box(box: FaceBox, convention: CropConvention = OUR_CROP) -> Crop:
    """The crop round a detected face, by the measured relation between detector boxes and landmark boxes."""
    size = LANDMARK_SIZE_PER_FACE_BOX * float(np.sqrt(box.width * box.height))
    beside = turn(box.roll)[:2, :2] @ LANDMARK_CENTER_FROM_FACE_BOX * size
    return Crop(box.x + box.width / 2 + beside[0], box.y + box.height / 2 + beside[1], convention.side * size, box.roll)


def face_square(crop: Crop) -> Crop:
    """The square where a detector's box would lie whose face has this crop: the inverse of `crop_from_face_box`, for our network."""
    size = crop.side / OUR_CROP.side
    beside = crop.turn[:2, :2] @ LANDMARK_CENTER_FROM_FACE_BOX * size
    return Crop(crop.center_x - beside[0], crop.center_y - beside[1], size / LANDMARK_SIZE_PER_FACE_BOX, crop.roll)
