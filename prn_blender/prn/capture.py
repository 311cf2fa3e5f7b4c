"""From a photograph to faces: the only door that the add-on and the command line use.

image -> box -> crop -> network -> position map -> fit -> pose and visibility. Never imports bpy nor torch.
Reads the picture and the weights; writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .crop import Crop
from .detector import FaceBox

if TYPE_CHECKING:
    from .position_map import Topology


@dataclass
class FaceCapture:
    """One captured face.

    Image frame: pixels, x right, y down, z away from the camera in the same scale, pixel centres at integers.
    Head frame: metres, upright head seen from the front: x to the viewer's right, y down, z into the head, origin
    midway between the eyes. A head point p appears at pixels_per_metre * rotation @ p + translation.
    """

    image: np.ndarray  # (H, W, 3) uint8 RGB: what all pixel coordinates refer to
    box: FaceBox  # where the face was found, image frame
    crop: Crop  # the square that the network saw, image frame
    position_map: np.ndarray  # (256, 256, 3) float32, image frame: the chosen surface
    raw_position_map: np.ndarray  # (256, 256, 3) float32, image frame: as the network gave it
    expression: np.ndarray  # (52,) float32 in 0..1, in the order of ARKIT_NAMES
    rotation: np.ndarray  # (3, 3) float64
    translation: np.ndarray  # (3,) float64, pixels
    pixels_per_metre: float
    head_map: np.ndarray  # (256, 256, 3) float32, head frame: position_map with the head's pose taken off
    visibility: np.ndarray  # (256, 256) float32 in 0..1: cosine to the camera, 0 where another part hides it
    yaw: float  # degrees; positive when the person turns to the viewer's left
    pitch: float  # degrees
    roll: float  # degrees
    seconds: dict[str, float]  # how long each stage took
    topology: Topology
