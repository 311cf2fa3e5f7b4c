"""F-curves in bulk, and only the keys that matter. Touches the action it is given; the numbers are numpy's."""

from __future__ import annotations

import bpy
import numpy as np

from . import versions

CONSTANT, LINEAR = 0, 1  # Blender's numbers of the interpolations


def write_curve(channels: versions.Channels, path: str, index: int, group: str, frames: np.ndarray, values: np.ndarray,
                interpolation: int = LINEAR) -> bpy.types.FCurve:
    """One F-curve with keys at frames (N,) of values (N,), written in one go."""
    curve = channels.new(path, index, group)
    points = curve.keyframe_points
    points.add(len(frames))
    points.foreach_set("co", np.stack([frames, values], 1).astype(np.float32).ravel())
    points.foreach_set("interpolation", np.full(len(frames), interpolation, np.int32))
    curve.update()
    return curve


def decimate(values: np.ndarray, tolerance: float, places: np.ndarray | None = None) -> np.ndarray:
    """Indices of the values (N,) whose straight connections stay within the tolerance of all of them.

    places (N,): where they lie, rising; evenly by default.

    Douglas and Peucker's algorithm ("Algorithms for the reduction of the number of points ...", 1973), with the distance
    measured along the value axis. The first and the last value are always among them; a constant needs but one.
    """
    if np.ptp(values) <= tolerance:
        return np.array([0])
    places = np.arange(len(values)) if places is None else places
    keep = np.zeros(len(values), bool)
    keep[[0, -1]] = True
    open_pieces = [(0, len(values) - 1)]
    while open_pieces:
        first, last = open_pieces.pop()
        if last - first < 2:
            continue
        line = np.interp(places[first:last + 1], places[[first, last]], values[[first, last]])
        away = np.abs(values[first:last + 1] - line)
        worst = int(np.argmax(away))
        if away[worst] > tolerance:
            keep[first + worst] = True
            open_pieces += [(first, first + worst), (first + worst, last)]
    return np.flatnonzero(keep)


def continuous_quaternions(rotations: np.ndarray) -> np.ndarray:
    """(N, 4) quaternions w, x, y, z of rotations (N, 3, 3), each on the same side as the one before: no flips."""
    from mathutils import Matrix  # importable only after bpy

    quaternions = np.array([Matrix(rotation.tolist()).to_quaternion() for rotation in rotations])
    turns = np.where((quaternions[1:] * quaternions[:-1]).sum(1) < 0, -1.0, 1.0)
    quaternions[1:] *= np.cumprod(turns)[:, None]
    return quaternions
