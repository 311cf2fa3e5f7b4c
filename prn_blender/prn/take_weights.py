"""The identity and the ARKit-52 weights of a take, from what the maps, the network and the skin's motion say of them together.

Each says it as the terms of a least squares problem; the weights are its bounded, sparse and steady solution. numpy only;
touches a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .arkit import ARKIT_NAMES
from .at_rest import Compared
from .face_fit import MOTIONS, ShapeSpace
from .skin_reader import NOT_ASKED, shows
from .stored_offsets import STORED, stored
from .threads import in_blocks
from .time_grid import EYE_SHAPES

_ROUNDS = 3                 # of solving for the identity and for the expressions in turn
_WORTH = 40.0               # a take's frames err together: however many, they count as these few against the identity's prior
# How far the network's ARKit weights are off, as the take's solve sees it. A map says less about lids and lips than the
# network's own reading of the picture, and errs together with it: at 0.15, as for photographs, half of every blink is lost.
_SPREAD = 0.05
# L1 weight of the ARKit weights, in the fit's own unit (1 / spread^2 = 400): 0.02 of each.
_SPARSITY = 8.0
# With the skin: how far its motion and the maps are believed beside its reader, which has seen both; and the L1 weight then.
_BESIDE_READER, _SPARSITY_WITH_READER = 0.1, 1.0
_STEADY = 12.0              # weight of their differences from frame to frame, same unit, at 30 frames a second
_STEPS, _DONE = 80, 1e-5     # of solving for the weights at most, and how little a step may change them to be the last
_SPIKE = 0.06               # of a weight: a mouth that opens and shuts goes on for longer than a frame
# How far the first network's weights are off beside the reader's. It has seen real faces, the reader rendered ones only: so it is believed a
# little in all, as much as costs nothing on rendered ones; of a lower lip drawn down it knows more, by the jaw with which it goes.
_FIRST_SPREAD = np.array([0.10 if name.startswith("eyeBlink") else 0.05 if alone or name.startswith("mouthLowerDown") else 0.3
                          for name, alone in zip(ARKIT_NAMES, NOT_ASKED)])


def identity_and_reading(space: ShapeSpace, right: np.ndarray, prior: np.ndarray, fps: float) -> tuple[np.ndarray, _Reading, np.ndarray]:
    """(120,) one identity for all frames, what their maps and the network's weights, `prior`, say beside it, and the weights (N, 52)
    that follow. right (N, 179): what `Recorder.rights` has of the maps."""
    n, count = MOTIONS + space.identities, len(right)
    normal = space.normal
    motion, who, how = slice(0, MOTIONS), slice(MOTIONS, n), slice(n, None)
    # Small motions left over from the first alignment are free in every frame: they are eliminated.
    inverse = np.linalg.inv(normal[motion, motion] + 1e-3 * np.eye(MOTIONS))
    reduced = normal - normal[:, motion] @ inverse @ normal[motion]
    right = right - right[:, motion] @ inverse @ normal[motion]
    worth = min(1.0, _WORTH / count)
    identity_inverse = np.linalg.inv(worth * count * reduced[who, who] + np.eye(space.identities))
    weights = prior.astype(np.float64)
    for _ in range(_ROUNDS):
        explained = right[:, who].sum(0) - reduced[who, how] @ weights.sum(0)
        identity = identity_inverse @ (worth * explained)
        read = _Reading(reduced[how, how], right[:, how] - identity @ reduced[who, how], prior, fps)
        weights = read.weights()
    return identity, read, weights


def with_skin(compared: Compared, read: _Reading, weights: np.ndarray,
              followed: Callable[[int, int], None] | None) -> tuple[np.ndarray, np.ndarray]:
    """(M, 3, cells) the good frames' offsets where the skin has been followed, as they are stored, and the weights (N, 52) that it tells."""
    good, grid, skin = compared.good, compared.grid, compared.skin()
    count = len(good)
    moved = np.memmap(tempfile.TemporaryFile(prefix="prn-take-"), STORED, "w+", shape=(count, *compared.offsets.shape[1:]))
    normal, right = np.empty((count, 52, 52), np.float32), np.empty((count, 52), np.float32)
    change, spread = np.empty((2, count, 52), np.float32)
    at_rest = compared.at_rest
    # Which of the even frames is nearest to each recorded one.
    places = np.clip(np.rint(grid.times * grid.fps).astype(int) - grid.start, 0, len(weights) - 1)
    # Where there is little for the reader to see, the maps count for more again.
    beside = _BESIDE_READER / shows(compared.of_rest["picture"])

    def tell(frames: np.ndarray) -> None:
        numbers = good[frames]
        own, motion, unlike, change[frames], spread[frames] = compared.frames(numbers)
        surface, normal[frames], right[frames] = skin.read(numbers, own, change[frames], motion, unlike)
        moved[frames] = stored(surface)

    in_blocks(tell, np.arange(count), (lambda done: followed(done, count)) if followed else None)

    def told() -> np.ndarray:
        even = grid.resample(normal)
        return read.weights_with(even, grid.resample(right) + even @ at_rest, np.clip(at_rest + grid.resample(change), 0, 1), grid.resample(spread), beside)

    weights = told()
    spikes = _spikes(weights[places])
    if not len(spikes):
        return moved, weights
    # In these the flow has lost the skin: what lies between the frames before and after is nearer to it.
    for values in (moved, normal, right, change):
        values[spikes] = (values[spikes - 1].astype(np.float32) + values[spikes + 1].astype(np.float32)) / 2
    return moved, told()


@dataclass(frozen=True)
class _Reading:
    """What maps and network say of the ARKit weights of evenly spaced frames, as the terms of a least squares problem."""

    normal: np.ndarray  # (52, 52), the same for all frames
    right: np.ndarray  # (N, 52)
    prior: np.ndarray  # (N, 52) the network's own weights
    fps: float

    def weights(self) -> np.ndarray:
        """(N, 52) each frame's best without the skin: bounded, sparse and steady."""
        return self._best(self.normal, self.right, self.prior, np.full(len(ARKIT_NAMES), _SPREAD ** -2), _SPARSITY)

    def weights_with(self, normal: np.ndarray, right: np.ndarray, read: np.ndarray, spread: np.ndarray, beside: float) -> np.ndarray:
        """The same with the skin: the terms of its motion, normal (N, 52, 52) and right (N, 52), and what the skin's reader makes of it,
        weights (N, 52) and how far each is off; beside: what maps and motion count beside that."""
        readers, firsts = np.where(NOT_ASKED, 0, spread ** -2), _FIRST_SPREAD ** -2
        both = readers + firsts
        return self._best(np.float32(beside) * (self.normal.astype(np.float32) + normal), beside * (self.right + right),
                          (readers * read + firsts * self.prior) / both, both, _SPARSITY_WITH_READER)

    def _best(self, normal: np.ndarray, right: np.ndarray, read: np.ndarray, precision: np.ndarray, sparsity: float) -> np.ndarray:
        return _bounded_weights(normal, right, read, precision, sparsity, _STEADY * self.fps / 30)


def _bounded_weights(normal: np.ndarray, right: np.ndarray, prior: np.ndarray, precision: np.ndarray,
                     sparsity: float, steady: float) -> np.ndarray:
    """(N, 52) weights in 0..1: least squares with a prior, an L1 term and a term on differences in time (FISTA).

    normal: (52, 52), or (N, 52, 52) if the frames' differ. precision: (52,), or (N, 52) if these do, of the prior (N, 52). Beck and
    Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems" (2009), with a step of its own for each weight.
    """
    diagonal = np.arange(len(ARKIT_NAMES))
    descent = normal.astype(np.float32).reshape(-1, *normal.shape[-2:])
    descent[:, diagonal, diagonal] += precision
    size = np.diagonal(descent, axis1=1, axis2=2).mean(0, dtype=np.float64) + 4 * steady
    # No eigenvalue is above the largest sum of a row.
    most = max(float((np.abs(one) @ size ** -0.5 * size ** -0.5 + 4 * steady / size).max()) for one in descent)
    step = 1 / (size * most)
    # A step down the gradient of all but the differences in time, as one matrix product. Of a long take these are large: in place.
    descent *= -step.astype(np.float32)
    descent[:, diagonal, diagonal] += 1
    pull = (step * (right + precision * prior - sparsity)).astype(np.float32)
    steady = (step * steady).astype(np.float32)
    weights = previous = np.clip(prior, 0, 1).astype(np.float32)
    momentum = 1.0
    for _ in range(_STEPS):
        larger = (1 + np.sqrt(1 + 4 * momentum ** 2)) / 2
        ahead = weights + np.float32((momentum - 1) / larger) * (weights - previous)
        previous, momentum = weights, larger
        weights = (ahead[:, None] @ descent)[:, 0] + pull
        change = steady * (ahead[1:] - ahead[:-1])
        weights[:-1] += change
        weights[1:] -= change
        np.clip(weights, 0, 1, out=weights)
        if np.abs(weights - previous).max() < _DONE:
            break
    return weights


def _spikes(weights: np.ndarray) -> np.ndarray:
    """Numbers of frames in which a weight (N, 52) jumps away from both its neighbours, which are like each other; lids may do that."""
    mouth = np.pad(weights[:, ~EYE_SHAPES], ((2, 2), (0, 0)), mode="edge")
    five = np.stack([mouth[step:step + len(weights)] for step in range(5)])
    before, shown, after = five[1:4]
    # Of three frames that jump to and fro the middle one is right.
    away = np.minimum(np.abs(shown - (before + after) / 2), np.abs(shown - np.median(five, axis=0)))
    jumps = ((away > _SPIKE) & (away > 2 * np.abs(after - before))).any(1)
    return 1 + np.flatnonzero(jumps[1:-1])
