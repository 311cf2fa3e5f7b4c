"""Lids that meet and lips that touch: small corrections where the shapes alone leave a slit, or pass through each other, or a map has an eye or
the mouth open otherwise than its photograph.

The rims of an opening face each other texel by texel: along each column of the map, the last texel above it and the first
one below. What lies between them is shared out to both rims and fades away from them. Pure numbers: numpy and OpenCV.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from .blinks import LIDS
from .face_fit import pose_of
from .openings import opening_texels
from .position_map import SIZE, Topology

FADE = 18  # texels from a rim to where the correction has faded away
UPPER_LID = 0.85  # of the way the upper lid goes
UPPER_LIP = 0.3  # of that between lips that open or close: the lower one hangs on the jaw
CLOSED_LIPS = 0.0035  # metres between the lips' middles, up to which a mouth at rest is closed
_ROUNDS = 4  # the correction is smoothed, so that it has to be repeated
# Lids or lips that a map has shut open in the shape of an arch; metres in its middle, against which what they are open already counts.
_ARCH = 0.0015
_FARTHEST = 4.0  # times that and what they are open already is as far as an opening is widened


def close_lids(neutral: np.ndarray, shapes: np.ndarray, topology: Topology) -> np.ndarray:
    """ARKit shapes (52, G, G, 3) whose eyeBlinkLeft and eyeBlinkRight at weight 1 bring this person's lids together.

    neutral (256, 256, 3); both in the head frame, metres. A copy; the other shapes stay.
    """
    shapes = shapes.copy()
    for number, opening in zip(LIDS, _eyes_and_mouth(topology)[0]):
        small, large = _about(opening, shapes.shape[1])
        lid, neutral_lid, opening = shapes[number][small], neutral[large], opening[large]
        for _ in range(_ROUNDS):
            lid += _small(_sealing(neutral_lid + _large(lid, opening.shape), opening, UPPER_LID), lid.shape[:2])
    return shapes


def shut_eyes(position_map: np.ndarray, share: np.ndarray, topology: Topology) -> np.ndarray:
    """A map (256, 256, 3), in any frame, with its lids brought together by a share (2,) of what is between them, left and right eye."""
    result = position_map
    for of_eye, opening in zip(share.tolist(), _eyes_and_mouth(topology)[0]):
        if of_eye > 0:
            result = result + of_eye * (_together(position_map, opening, UPPER_LID) - position_map)
    return np.asarray(result, np.float32)


def opened(position_map: np.ndarray, openings: np.ndarray, measured: Callable[[np.ndarray], np.ndarray], topology: Topology) -> np.ndarray:
    """A map (256, 256, 3), in any frame, with its lids and lips moved until eyes and mouth are open as far as they should be.

    openings (3,), left eye, right eye, mouth: as `measured` gives them of a map, which is what they are told by.
    """
    scale, rotation, _ = pose_of(position_map, topology)
    down = np.float32(scale * _ARCH * rotation[:, 1])
    eyes, mouth = _eyes_and_mouth(topology)
    now, result = measured(position_map), position_map
    for number, (opening, upper_share) in enumerate(zip((*eyes, mouth), (UPPER_LID, UPPER_LID, UPPER_LIP))):
        if openings[number] < now[number]:
            farthest, offsets = 1.0, _together(position_map, opening, upper_share) - position_map
        else:
            gaps = _gaps(position_map, opening)
            arch = np.sin(np.linspace(0, np.pi, len(gaps) + 2)[1:-1, None]).astype(np.float32)
            farthest, offsets = _FARTHEST, _spread(-arch * (gaps + down), opening, upper_share)
        wanted, share = openings[number] - now[number], 1.0
        # Again and again, for an opening does not widen quite as its rims move.
        for _ in range(3):
            if reached := measured(position_map + np.float32(share) * offsets)[number] - now[number]:       # rims that touch cannot come nearer
                share = float(np.clip(share * wanted / reached, 0, farthest))
        result = result + np.float32(share) * offsets
    return result


def close_lips(neutral: np.ndarray, topology: Topology) -> np.ndarray:
    """The neutral (256, 256, 3) with its lips together, if they nearly are; otherwise as it is."""
    _, mouth = _eyes_and_mouth(topology)
    gaps = _gaps(neutral, mouth)[:, 1]
    if np.median(gaps[len(gaps) // 4:-len(gaps) // 4]) > CLOSED_LIPS:
        return neutral
    for _ in range(_ROUNDS):
        # In steps of the coarse map, so that the neutral stays as smooth as all that moves it.
        neutral = neutral + _large(_small(_sealing(neutral, mouth, 0.5), (64, 64)), mouth.shape)
    return neutral


def part_lips(weights: np.ndarray, neutral: np.ndarray, shapes: np.ndarray, topology: Topology) -> np.ndarray:
    """ARKit weights (N, 52), changed as little as keeps the lips from passing through each other by what the shapes do together.

    neutral (256, 256, 3), shapes (52, G, G, 3): head frame, metres. Where they only touch, nothing changes.
    """
    _, mouth = _eyes_and_mouth(topology)
    small, large = _about(mouth, shapes.shape[1])
    mouth = mouth[large]
    gaps = np.stack([_gaps(one, mouth)[:, 1] for one in (neutral[large], *(_large(shape[small], mouth.shape) for shape in shapes))])
    # The corners, in which lips hardly part, left out: the mean over each third of the rest.
    inner = gaps[:, gaps.shape[1] // 4:-(gaps.shape[1] // 4)]
    thirds = np.stack([part.mean(1) for part in np.array_split(inner, 3, axis=1)])
    weights = weights.astype(np.float64)
    for _ in range(_ROUNDS):
        for at_rest, *each in thirds:
            each = np.array(each)
            crossed = np.minimum(max(at_rest, 0.0) + weights @ each, 0)
            weights = np.clip(weights - crossed[:, None] * each / (each @ each), 0, 1)
    return weights


@lru_cache(maxsize=2)
def _eyes_and_mouth(topology: Topology) -> tuple[list[np.ndarray], np.ndarray]:
    """The openings' texels, (256, 256) bool each: of the left eye and the right, and of the mouth, which lies below them."""
    count, labels = cv2.connectedComponents(opening_texels(topology).astype(np.uint8), connectivity=4)
    *eyes, mouth = sorted((labels == label for label in range(1, count)), key=lambda opening: np.flatnonzero(opening.any(1)).mean())
    # The viewer's left eye is the person's right one.
    return sorted(eyes, key=lambda eye: -np.flatnonzero(eye.any(0)).mean()), mouth


def _facing(opening: np.ndarray) -> np.ndarray:
    """(K, 2, 2) the texels (column, row) of the rim above and below the opening, for each of its columns."""
    columns = np.flatnonzero(opening.any(0))
    inside = opening[:, columns]
    ends = inside.argmax(0) - 1, len(inside) - inside[::-1].argmax(0)
    return np.stack([np.stack([columns, rows], 1) for rows in ends], 1)


def _gaps(head_map: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """(K, 3) from the rim above the opening to the one below it, for each of its columns."""
    (columns, above), (_, below) = _facing(opening).transpose(1, 2, 0)
    return head_map[below, columns] - head_map[above, columns]


def _together(head_map: np.ndarray, opening: np.ndarray, upper_share: float) -> np.ndarray:
    """The map with the rims of an opening brought together."""
    for _ in range(_ROUNDS):
        head_map = head_map + _sealing(head_map, opening, upper_share)
    return head_map


def _sealing(head_map: np.ndarray, opening: np.ndarray, upper_share: float) -> np.ndarray:
    """(H, W, 3) offsets that bring the rims together; a map or the part of it about the opening, and the opening in it."""
    return _spread(_gaps(head_map, opening), opening, upper_share)


def _spread(gaps: np.ndarray, opening: np.ndarray, upper_share: float) -> np.ndarray:
    """(H, W, 3) offsets that shorten the gaps (K, 3) between the rims by as much, shared out to both."""
    (columns, top), (_, bottom) = _facing(opening).transpose(1, 2, 0)
    rows, middle = np.arange(len(opening))[:, None], (top + bottom) / 2
    above = _smooth(np.clip(1 - (top - rows) / FADE, 0, 1) * (rows <= middle))
    below = _smooth(np.clip(1 - (rows - bottom) / FADE, 0, 1) * (rows > middle))
    result = np.zeros((*opening.shape, 3), np.float32)
    result[:, columns] = (above * upper_share - below * (1 - upper_share))[..., None] * gaps
    return cv2.GaussianBlur(result, (0, 0), sigmaX=1.5, sigmaY=0.01)


def _smooth(share: np.ndarray) -> np.ndarray:
    return share * share * (3 - 2 * share)


def _about(opening: np.ndarray, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Rows and columns of the part in which an opening is closed: of maps (size, size), and of those of 256. It takes a fraction of the time, and is so
    wide that nothing of the sealing, and of the interpolation at its edges, is cut off."""
    step, small = SIZE // size, []
    for axis in (1, 0):
        inside = np.flatnonzero(opening.any(axis))
        small.append(slice(max(0, (inside[0] - FADE) // step - 3), min(size, (inside[-1] + FADE) // step + 4)))
    return tuple(small), tuple(slice(part.start * step, part.stop * step) for part in small)


def _small(offsets: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return cv2.resize(offsets, shape[::-1], interpolation=cv2.INTER_AREA)


def _large(offsets: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return cv2.resize(offsets, shape[::-1], interpolation=cv2.INTER_CUBIC)
