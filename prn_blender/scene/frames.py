"""From the head's and the image's axes to Blender's. Pure numbers: numpy only, no bpy.

Head and image frame: x right, y down, z away. Blender: X right, Y away, Z up, so a face looks along -Y.
"""

import numpy as np

TO_BLENDER = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


def to_blender(points: np.ndarray) -> np.ndarray:
    """(..., 3) points or directions of the head or image frame, in Blender's axes. A rotation: no mirroring."""
    return points @ TO_BLENDER.T.astype(points.dtype)


def photo_to_world(translation: np.ndarray, width: int, height: int, pixels_per_metre: float) -> np.ndarray:
    """From the middle of the photo to an image point, in metres and Blender's axes: (3,).

    An orthographic camera tells no distance, so Y is 0.
    """
    right, down = (translation[:2] - ((width - 1) / 2, (height - 1) / 2)) / pixels_per_metre
    return np.array([right, 0.0, -down])


def head_matrix(rotation: np.ndarray, scale: float, location: np.ndarray) -> np.ndarray:
    """(4, 4) object matrix of a head that is turned by `rotation` of the image frame."""
    matrix = np.eye(4)
    matrix[:3, :3] = TO_BLENDER @ rotation @ TO_BLENDER.T * scale
    matrix[:3, 3] = location
    return matrix
