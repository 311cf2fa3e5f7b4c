"""The eyeballs' picture: an iris of a given colour, the pupil, and the white with its veins' tinge. Draws an array; numpy and OpenCV only.

Laid out as `eyeball.eye_uv` says: the gaze in the middle, angles from it as distances, so that the iris gets a third of the picture's
width. The iris is drawn, not copied: a photo shows it in a few dozen pixels, behind a highlight and half under a lid.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from .eyeball import IRIS
from .texture import smooth_step

SIZE = 512
PUPIL = 0.36            # of the iris' radius, in the light of a room
WHITE = np.float32([226, 218, 210])
PINK = np.float32([206, 150, 138])  # of the white towards the corners


@lru_cache(maxsize=1)
def _pattern(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angle from the gaze as a part of the iris' (size, size), angle (radians), and the iris' fibres in -1..1."""
    row, column = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    reach = np.clip(np.hypot(row, column), 0, 0.4999)
    angle = np.pi * (1 - np.cbrt(1 - 2 * reach)) / IRIS
    rng = np.random.default_rng(5)
    # Fibres: noise that is long along the radius; ring-shaped, so that it closes.
    fine = rng.standard_normal((64, 360)).astype(np.float32)
    fine = cv2.GaussianBlur(np.tile(fine, (1, 3)), (0, 0), sigmaX=1.2, sigmaY=9)[:, 360:720]
    around = (np.arctan2(row, column) / (2 * np.pi) % 1 * 359).astype(np.float32)
    fibres = cv2.remap(fine / np.abs(fine).max(), around, (np.clip(angle, 0, 1) * 63).astype(np.float32), cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_WRAP)
    return angle.astype(np.float32), np.arctan2(row, column).astype(np.float32), fibres


def eye_texture(iris: tuple[int, int, int], light: float = 1.0, size: int = SIZE) -> np.ndarray:
    """(size, size, 3) uint8 sRGB RGB, v up. iris: its mean colour in full light. light: how bright the photo is, 1 for full light."""
    angle, _, fibres = _pattern(size)
    colour = np.float32(iris)
    # Brighter and yellower round the pupil, dark at the limbus; the mean over the iris stays near the colour.
    inner = 1 - smooth_step(angle, PUPIL, 0.85)
    shade = (1.0 + 0.55 * fibres + 0.25 * inner - 0.45 * smooth_step(angle, 0.72, 1.0))[..., None]
    drawn = colour * shade + inner[..., None] * np.float32([14, 6, -4]) * colour.mean() / 100
    drawn *= 1 - 0.95 * (1 - smooth_step(angle, PUPIL - 0.04, PUPIL + 0.04))[..., None]
    far = smooth_step(angle, 1.6, 4.2)[..., None]
    white = (WHITE * (1 - 0.6 * far) + PINK * 0.6 * far)
    edge = smooth_step(angle, 0.93, 1.07)[..., None]
    return np.clip((drawn * (1 - edge) + white * edge) * light + 0.5, 0, 255).astype(np.uint8)
