"""The texture that a topology's mesh wears: in the position map's UV layout, or in hm08's own for the head. Touches no file."""

from __future__ import annotations

import numpy as np

from .capture import FaceCapture
from .head_texture import make_head_texture
from .texture import make_texture


def make_skin(face: FaceCapture, topology: str, size: int = 2048) -> np.ndarray:
    """(size, size, 3) uint8 sRGB RGB for the mesh "grid", "loops" or "head". Raises CaptureError if the face's weights cannot have it."""
    return (make_head_texture if topology == "head" else make_texture)(face, size)
