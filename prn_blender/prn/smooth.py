"""Smoothing over time without lag: what stands still stands still, and blinks and consonants keep their depth.

A local Wiener filter (Lee, "Digital image enhancement and noise filtering by use of local statistics", PAMI 1980) along
the time axis: where a signal moves no more than its noise it is averaged over a wide window, where it moves more it is
followed. All windows are symmetric, so nothing comes late. Pure numbers: numpy and OpenCV's filters.
"""

from __future__ import annotations

import cv2
import numpy as np

# A signal is followed where its variance round the average is more than this many times what the noise explains: round
# the wide average, and round the narrow one, whose few frames are fooled by noise more often.
_CERTAINTY, _CERTAINTY_NARROW = 3.0, 8.0
_CALM, _WANDERING = 0.4, 8.0  # part of a take that is thought calm; how much stronger than white the noise may be
_MOST_WANDERING = 2.0       # and how much stronger than the most that is noise at all
# Savitzky-Golay, five points, second order: follows a peak that is five frames wide, and halves the noise's variance.
_FOLLOWING = np.array([-3, 12, 17, 12, -3]) / 35


def smooth(values: np.ndarray, fps: float, seconds: float, groups: np.ndarray | None = None,
           most: float | np.ndarray = np.inf) -> np.ndarray:
    """Values (N, C), one row a frame, smoothed over a window of so many seconds (the standard deviation of its Gauss).

    groups (C,) int: columns of one group are followed together, as parts of one motion; by default each on its own.
    most: noise has no larger standard deviation than this, or these (C,); who dances throughout a take would be thought to tremble. seconds 0 gives the
    values back. The ends are continued by reflection about the end's own value.
    """
    values = np.asarray(values, np.float64)
    if seconds <= 0 or len(values) < 3 or values.shape[1] == 0:
        return values.copy()
    noise = noise_of(values)
    values = without_spikes(values, noise)
    wide = _flat(gaussian(max(seconds * fps, 0.3)))
    result = convolve(values, wide)
    # First from the wide average to the narrow one where there is motion, then to the signal itself where even that
    # falls short: the bottom of a blink is one frame wide.
    narrow = convolve(values, _FOLLOWING) if len(values) >= 5 else values
    result = result + _share_of_motion(values - result, noise, most, wide, _CERTAINTY, groups) * (narrow - result)
    sure = _share_of_motion(values - narrow, noise, most, _FOLLOWING, _CERTAINTY_NARROW, groups)
    return result + sure * (values - narrow)


def _share_of_motion(deviation: np.ndarray, noise: np.ndarray, most: float | np.ndarray, window: np.ndarray, certainty: float,
                     groups: np.ndarray | None) -> np.ndarray:
    """(N, C) 0..1: how far the deviation (N, C) from an average over a window is motion, and not the noise (C,), of which no more than `most` is."""
    # White noise leaves this share of its variance in the deviation from its own average.
    left = 1 - 2 * window[len(window) // 2] + (window ** 2).sum()
    floor = np.minimum(noise, most) ** 2 * left
    power = deviation ** 2
    # Errors of a network on compressed video are not quite white: how far they wander shows in the calmer part of the take.
    near = gaussian(max(len(window) / 17, 1.0))
    floor = np.clip(np.quantile(convolve(power, near), _CALM, axis=0), floor, np.minimum(_WANDERING * floor, _MOST_WANDERING * most ** 2 * left))
    if groups is not None:
        members = (groups[:, None] == np.unique(groups)).astype(np.float64)
        # In units of its own noise each column counts alike.
        own = 1 / np.maximum(floor, 1e-12 * np.maximum(floor.max(), 1e-30))
        power, floor = (power * own) @ members, members.sum(0)
    power = convolve(power, near)
    share = np.clip(1 - certainty * floor / np.maximum(power, 1e-30), 0, 1)
    # Where a motion begins the window holds little of it yet: the largest share nearby counts.
    share = cv2.dilate(share, np.ones((3, 1)), borderType=cv2.BORDER_REPLICATE).reshape(share.shape)
    return share if groups is None else share @ members.T


def without_spikes(values: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Values (N, C) in which what only one frame says, and no frame beside it begins to say, is replaced by its neighbours.

    The fastest blink takes more than a frame to close and more than one to open.
    """
    if len(values) < 5:
        return values
    beside = (values[1:-3] + values[3:-1]) / 2
    further = (values[:-4] + values[4:]) / 2
    jump = values[2:-2] - beside
    spike = np.abs(jump) > 4 * np.abs(beside - further) + 2 * np.abs(values[1:-3] - values[3:-1]) + 6 * noise
    result = values.copy()
    result[2:-2][spike] = beside[spike]
    return result


def noise_of(values: np.ndarray) -> np.ndarray:
    """(C,) standard deviation of the white noise in values (N, C): robust, from fourth differences.

    Differences of that order hardly see motion up to a few hertz, and what is faster does not count if it lasts less than
    half of the time.
    """
    if len(values) < 5:
        return np.zeros(values.shape[1])
    fourth = values[:-4] - 4 * values[1:-3] + 6 * values[2:-2] - 4 * values[3:-1] + values[4:]
    return 1.4826 * np.median(np.abs(fourth), 0) / np.sqrt(70)


def gaussian(sigma: float) -> np.ndarray:
    """A symmetric Gaussian window that sums to 1, cut at three standard deviations."""
    reach = max(1, int(np.ceil(3 * sigma)))
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return window / window.sum()


def _flat(window: np.ndarray) -> np.ndarray:
    """The window of smoothing twice and adding back what the first pass took (Tukey's twicing): slow motion stays whole."""
    twice = -np.convolve(window, window)
    reach = len(window) // 2
    twice[reach:-reach] += 2 * window
    return twice


def convolve(values: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Values (N, C) convolved along their rows with a symmetric window; same shape."""
    reach = len(window) // 2
    places = np.arange(-reach, len(values) + reach)
    last = len(values) - 1
    # Point reflection keeps a slope going beyond the ends: 2 * end - mirrored.
    mirrored = np.abs(places)
    mirrored = np.clip(np.where(mirrored > last, 2 * last - mirrored, mirrored), 0, last)
    padded = values[mirrored]
    padded = np.where((places < 0)[:, None], 2 * values[:1] - padded, padded)
    padded = np.where((places > last)[:, None], 2 * values[-1:] - padded, padded)
    result = np.zeros_like(values)
    for shift, weight in enumerate(window):
        result += weight * padded[shift:shift + len(values)]
    return result


def rotation_vectors(rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (N, 3, 3) as a middle one (3, 3) and vectors (N, 3), radians, from it: far from any jump of angles."""
    u, _, vt = np.linalg.svd(rotations.mean(0))
    middle = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return middle, np.array([cv2.Rodrigues(middle.T @ rotation)[0].ravel() for rotation in rotations])


def rotations_of(middle: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(N, 3, 3): the inverse of `rotation_vectors`."""
    return np.array([middle @ cv2.Rodrigues(vector)[0] for vector in vectors])
