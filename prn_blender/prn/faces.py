"""Which of the detector's boxes are faces: what captures of photographs and videos, and the panel's list of faces, begin with.

The detector takes many a coat for a face, with little confidence; the network's views of such a thing disagree. Reads the shipped weights, if it has to ask.
"""

from __future__ import annotations

import numpy as np

from .crop import crop_from_face_box
from .detector import SURE, FaceBox, detect_faces
from .engine import open_engine
from .look import doubtful


def find_faces(image: np.ndarray) -> list[FaceBox]:
    """The faces of a photograph, largest first, also those that lie on their side; an empty list if there is none.

    image: (H, W, 3) uint8 RGB. Of several, those that the detector is not sure of count if the network's views of them agree.
    """
    return believed(image, detect_faces(image, lying=True))


def believed(image: np.ndarray, boxes: list[FaceBox]) -> list[FaceBox]:
    """Of the detector's boxes in an image (H, W, 3) those that are faces; what is found alone is not doubted."""
    if len(boxes) < 2:
        return boxes
    return [box for box in boxes if box.confidence >= SURE or not doubtful(image, crop_from_face_box(box), open_engine())] or boxes
