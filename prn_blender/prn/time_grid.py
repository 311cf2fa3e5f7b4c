"""Even times for a take: recorded frames brought to them, gaps bridged or left out, and what is smoothed between the gaps.

Numbers only, numpy, no files.
"""

from __future__ import annotations

import numpy as np

from .arkit import ARKIT_NAMES
from .smooth import rotation_vectors, rotations_of, smooth
from .take import Smoothing

BRIDGED = 0.5               # seconds: gaps up to this are interpolated, longer ones are left out
# How far a head's pose and a face's weights tremble at most, from frame to frame (standard deviations), by the head's size in pixels per metre: what the
# network adds, and what comes of pixels. Measured on rendered takes with faces of 20 to 150 pixels, clean, compressed and with a camera's noise: half
# to all of these. What is more is motion: a head that never stands still, and speech, which does not either.
_TURNS = np.radians(0.25), np.radians(200)     # radians, and radians times pixels per metre
_SHIFTS = 0.12, 0.00012     # pixels, and metres
_GROWTH = 0.003, 1.5        # of the logarithm of the size
_WEIGHTS = 0.004, 1.6       # of 0..1, of the shapes that speech moves; others are slow, and smoothed as they need it
EYE_SHAPES = np.array([name.startswith("eye") for name in ARKIT_NAMES])
_SPEECH = np.array([name.startswith(("jaw", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRoll", "mouthPress", "mouthLowerDown", "mouthUpperUp"))
                    for name in ARKIT_NAMES])


class TimeGrid:
    """Even times, and how the recorded ones are brought to them."""

    def __init__(self, times: np.ndarray, fps: float, source_fps: float) -> None:
        self.times, self.fps = times, fps
        self.start = int(np.round(times[0] * fps))
        count = int(np.round(times[-1] * fps)) - self.start + 1
        wanted = (self.start + np.arange(count)) / fps
        after = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
        before = after - 1
        span = times[after] - times[before]
        share = np.clip((wanted - times[before]) / np.maximum(span, 1e-9), 0, 1)
        # Times of frames are rounded in files: nearly on a frame is on it, and its values stay untouched.
        near = 0.05 / max(fps, source_fps) / np.maximum(span, 1e-9)
        share = np.where(share < near, 0.0, np.where(share > 1 - near, 1.0, share))
        self.before, self.after, self.share = before, after, share
        nearest = np.minimum(np.abs(wanted - times[before]), np.abs(wanted - times[after]))
        self.seen = (span <= BRIDGED + 1.5 / source_fps) | (nearest < 0.6 / min(fps, source_fps))

    def resample(self, values: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Values (M, ...) of the recorded times at the even ones (N, ...); rows (M,): which of more values they are."""
        before, after = (self.before, self.after) if rows is None else (rows[self.before], rows[self.after])
        nearer = np.where(self.share < 0.5, before, after)
        between = np.flatnonzero((self.share > 0) & (self.share < 1))
        if not len(between) and (np.diff(nearer) == 1).all():
            return values[nearer[0]:nearer[-1] + 1]
        result = values[nearer]
        exact = np.result_type(values.dtype, np.float32)
        for i in between:  # a frame at a time: some are large
            share = self.share[i].astype(exact)
            result[i] = (1 - share) * values[before[i]].astype(exact) + share * values[after[i]].astype(exact)
        return result

    def gaps(self) -> list[tuple[int, int]]:
        edges = np.flatnonzero(np.diff(np.r_[True, self.seen, True].astype(int)))
        return [(int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2])]

    def warnings(self) -> list[str]:
        """A sentence on the gaps too long to bridge, if there are any."""
        gaps = self.gaps()
        if not gaps:
            return []
        where = ", ".join(f"{(self.start + first) / self.fps:.1f}-{(self.start + last + 1) / self.fps:.1f} s" for first, last in gaps[:6])
        return [f"The face was not seen at {where}: these {sum(b - a + 1 for a, b in gaps)} frames are left out."]

    def pieces(self) -> list[slice]:
        """The stretches between gaps: nothing is smoothed across them."""
        edges = np.flatnonzero(np.diff(np.r_[False, self.seen, False].astype(int)))
        return [slice(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2])]


def smoothed(grid: TimeGrid, rotation: np.ndarray, translation: np.ndarray, scale: np.ndarray, weights: np.ndarray,
              details: np.ndarray, strength: Smoothing) -> tuple[np.ndarray, ...]:
    rotation, translation, scale = rotation.copy(), translation.copy(), scale.copy()
    weights, details = weights.copy(), details.copy()
    head, face, eyes = strength.head * Smoothing.HEAD, strength.face * Smoothing.FACE, strength.eyes * Smoothing.EYES
    for piece in grid.pieces():
        middle, vectors = rotation_vectors(rotation[piece])
        size, together = float(np.median(scale[piece])), np.zeros(3, int)
        rotation[piece] = rotations_of(middle, smooth(vectors, grid.fps, head, together, _TURNS[0] + _TURNS[1] / size))
        translation[piece] = smooth(translation[piece], grid.fps, head, together, _SHIFTS[0] + _SHIFTS[1] * size)
        scale[piece] = np.exp(smooth(np.log(scale[piece])[:, None], grid.fps, head, most=_GROWTH[0] + _GROWTH[1] / size))[:, 0]
        if weights.shape[1]:
            weights[piece, EYE_SHAPES] = smooth(weights[piece, EYE_SHAPES], grid.fps, eyes)
            most = np.where(_SPEECH[~EYE_SHAPES], _WEIGHTS[0] + _WEIGHTS[1] / size, np.inf)
            weights[piece, ~EYE_SHAPES] = smooth(weights[piece, ~EYE_SHAPES], grid.fps, face, most=most)
        details[piece] = smooth(details[piece], grid.fps, face)
    # In gaps the last seen values are held: no motion is better than an invented one.
    held = np.maximum.accumulate(np.where(grid.seen, np.arange(len(grid.seen)), 0))
    return rotation[held], translation[held], scale[held], np.clip(weights[held], 0, 1), details[held]
