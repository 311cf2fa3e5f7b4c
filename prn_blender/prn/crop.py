"""The square that the network sees: face box -> crop -> image, both ways.

Image frame: pixels, x right, y down, z away from the camera in the same scale, pixel centres at integers.
Crop frame: origin at the crop's centre, x right, y down, z away, one unit = the crop's side.
Needs numpy and OpenCV; touches no files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

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


@dataclass(frozen=True)
class Crop:
    """A square of the image, upright; it may reach beyond the image's edges. All in pixels of the image frame."""

    center_x: float
    center_y: float
    side: float

    def cut(self, image: np.ndarray, size: int) -> np.ndarray:
        """What the network is given of an image: `pixels` as (size, size, 3) float32 RGB in 0..1."""
        return np.multiply(self.pixels(image, size), np.float32(1 / 255))

    def pixels(self, image: np.ndarray, size: int) -> np.ndarray:
        """Cut the square out of an image and resample it.

        image: (H, W, 3) uint8 RGB. Returns (size, size, 3) uint8 RGB. Beyond the image's edges its border pixels are repeated.
        Texel (row, column) shows the crop point ((column + 0.5) / size - 0.5, (row + 0.5) / size - 0.5).
        """
        left = self.center_x - self.side / 2
        top = self.center_y - self.side / 2
        step = self.side / size  # pixels a texel
        # Shrinking has to average pixels, or fine patterns alias. Whole blocks are averaged quickly, and the rest is at most 1.5.
        block = max(1, round(step))
        # A pixel reaches half a pixel to either side of its centre.
        x, y = left + 0.5, top + 0.5
        if x >= 0 and y >= 0 and x + self.side <= image.shape[1] and y + self.side <= image.shape[0] and \
                x % 1 == y % 1 == self.side % block == 0:
            x, y, side = int(x), int(y), int(self.side)
            part = _averaged(image[y:y + side, x:x + side], block)
            return cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)
        part, (x0, y0) = self.part_of(image, int(np.ceil(2 * step)) + 2, block)
        # Pixel p has its centre at p, so that p + 0.5 counts from the edge; the same holds for the shrunk part.
        matrix = np.array(
            [
                [step / block, 0, (left + 0.5 * step + 0.5 - x0) / block - 0.5],
                [0, step / block, (top + 0.5 * step + 0.5 - y0) / block - 0.5],
            ]
        )
        return cv2.warpAffine(
            part, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )

    def snapped(self, size: int) -> Crop:
        """The nearest square of whole pixels, at most half a pixel off, which is cut to `size` in a third of the time."""
        block = max(1, round(self.side / size))
        side = block * max(1, round(self.side / block))
        return Crop(round(self.center_x - side / 2 + 0.5) - 0.5 + side / 2, round(self.center_y - side / 2 + 0.5) - 0.5 + side / 2, side)

    def part_of(self, image: np.ndarray, margin: int, block: int) -> tuple[np.ndarray, tuple[int, int]]:
        """The part of an image (H, W, 3) that the square and a margin round it touch, each block x block pixels averaged into one; and
        its left and top edge, pixels of the image. A photograph may be a hundred times as large."""
        height, width = image.shape[:2]
        left, top = self.center_x - self.side / 2 - margin, self.center_y - self.side / 2 - margin
        x0, x1 = _span(left, left + self.side + 2 * margin, width, block)
        y0, y1 = _span(top, top + self.side + 2 * margin, height, block)
        return _averaged(image[y0:y1, x0:x1], block), (x0, y0)

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Carry points (..., 3) from the crop frame to the image frame (z is scaled like x and y). Returns float32."""
        offset = np.array([self.center_x, self.center_y, 0.0])
        return (np.asarray(points, np.float64) * self.side + offset).astype(np.float32)

    def from_image(self, points: np.ndarray) -> np.ndarray:
        """Carry points (..., 3) from the image frame to the crop frame: the inverse of `to_image`. Returns float32."""
        offset = np.array([self.center_x, self.center_y, 0.0])
        return ((np.asarray(points, np.float64) - offset) / self.side).astype(np.float32)


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


def crop_from_landmarks(points: np.ndarray, convention: CropConvention = OUR_CROP) -> Crop:
    """The crop round the 68 landmarks themselves: points (68, 2) or (68, 3), image frame."""
    return crop_from_landmark_box(*points[:, :2].min(0), *points[:, :2].max(0), convention)


def crop_from_face_box(box: FaceBox, convention: CropConvention = OUR_CROP) -> Crop:
    """The crop round a detected face, by the measured relation between detector boxes and landmark boxes."""
    size = LANDMARK_SIZE_PER_FACE_BOX * float(np.sqrt(box.width * box.height))
    return Crop(
        box.x + box.width / 2 + LANDMARK_CENTER_FROM_FACE_BOX[0] * size,
        box.y + box.height / 2 + LANDMARK_CENTER_FROM_FACE_BOX[1] * size,
        convention.side * size,
    )


def face_square(crop: Crop) -> Crop:
    """The square where a detector's box would lie whose face has this crop: the inverse of `crop_from_face_box`, for our network."""
    size = crop.side / OUR_CROP.side
    return Crop(
        crop.center_x - LANDMARK_CENTER_FROM_FACE_BOX[0] * size,
        crop.center_y - LANDMARK_CENTER_FROM_FACE_BOX[1] * size,
        size / LANDMARK_SIZE_PER_FACE_BOX,
    )
