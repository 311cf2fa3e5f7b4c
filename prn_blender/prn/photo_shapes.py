"""The 52 ARKit shapes of a person who is known from one photograph: hm08's own, scaled to the head, with lids that meet.

Numbers only. A video of the person gives better ones (performance.py), which have learnt how this face moves.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from .capture import FaceCapture
from .contact import close_lids
from .face_fit import GRID, load_shape_space
from .position_map import SIZE

_SMALLEST = 1e-5  # metres: what moves less than this is left where it is, which keeps files small


def photo_shapes(face: FaceCapture) -> tuple[np.ndarray, np.ndarray]:
    """The face at rest (256, 256, 3), and the offsets (52, 64, 64, 3) of the ARKit shapes at weight 1; head frame, metres.

    At rest means without the photo's own expression as the network saw it: rest + weights of the photo times offsets is the
    face as it was captured. Raises CaptureError for a capture with weights of another topology.
    """
    face.topology.require_hm08("ARKit shape keys")
    space = load_shape_space()
    eyes = [np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))
            for points in (face.topology.landmarks_of(face.head_map), face.topology.landmarks_of(space.mean))]
    shapes = space.basis[space.identities:].reshape(-1, GRID, GRID, 3) * np.float32(eyes[0] / eyes[1])
    # How the lids meet depends on the face at rest, and that on how far the photo's lids are shut.
    shapes = close_lids(at_rest(face, shapes), shapes, face.topology)
    return at_rest(face, shapes), shapes


def at_rest(face: FaceCapture, shapes: np.ndarray) -> np.ndarray:
    return face.head_map - enlarged(np.tensordot(face.expression, shapes, 1))


def enlarged(shape: np.ndarray) -> np.ndarray:
    return cv2.resize(shape, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def shape_vertices(rest: np.ndarray, shapes: np.ndarray, sample: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) of a mesh at rest and their offsets (52, V, 3). sample: from a map (256, 256, 3) to its vertices."""
    vertices = sample(rest).astype(np.float32)
    offsets = np.stack([sample(rest + enlarged(shape)) - vertices for shape in shapes]).astype(np.float32)
    offsets[np.abs(offsets).max(2) < _SMALLEST] = 0
    return vertices, offsets
