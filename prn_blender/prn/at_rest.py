"""A take's frames beside the face at rest, as the skin's reader compares them, and which frame that is. numpy and OpenCV; reads what a recorder
has kept, writes nothing.

recorder and first weights -> compared_at_rest -> Compared -> take_weights.with_skin. Whatever is compared with a face that does something is all
wrong, and the first network takes many a one for a face at rest.
"""

from __future__ import annotations

import numpy as np

from .arkit import ARKIT_NAMES
from .skin_motion import WINDOW, SkinMotion, flow, mean_picture
from .skin_reader import NOT_ASKED, laid_out, open_skin_reader
from .stored_offsets import metres
from .take_recorder import Recorder
from .threads import in_blocks
from .time_grid import TimeGrid

_AROUND, _AT_REST = 0.6, 10  # seconds about the calmest frame, of which so many are the skin at rest
_LOOKS, _SHORT_LIST = 3, 4  # at the frames that may be at rest, each beside the calmest so far; so many of them are looked at again
_BELOW = 0.3                # what a weight below nothing counts then
_GAZE = np.array([name.startswith("eyeLook") for name in ARKIT_NAMES])


class Compared:
    """A take's frames as the skin's reader compares them with those at rest, which `rest_at` chooses first."""

    def __init__(self, recorder: Recorder, good: np.ndarray, grid: TimeGrid, person: np.ndarray, weights: np.ndarray) -> None:
        """good: numbers of the recorded frames that count. person (4096, 3): the face without expression. weights (N, 52): what is known of the
        expressions without the skin."""
        self.space, self.good, self.grid, self.person, self.weights = recorder.space, good, grid, person, weights
        self.reader = open_skin_reader()
        self.pictures, self.offsets = recorder.pictures(), recorder.offsets()
        self.expressions = np.array(recorder.expressions, np.float32)
        self.scale, self.rotation = (np.array([pose[part] for pose in recorder.poses]) for part in (0, 1))
        self.turns = self.rotation[:, :2].reshape(-1, 6)

    def rest_at(self, calm: int) -> None:
        """At rest are the frames about `calm`, one of the grid's, that are most like it."""
        self.calm, weights = calm, self.weights
        near = np.flatnonzero(np.abs(np.arange(len(weights)) - calm) <= _AROUND * self.grid.fps)
        alike = near[np.argsort(np.abs(weights[near] - weights[calm]).sum(1))[:_AT_REST]]
        self.at_rest = weights[alike].mean(0)
        self.rested = self.good[self.grid.before[alike]]
        self.resting = metres(self.offsets[self.rested])
        self.reference = mean_picture(self.pictures[self.rested])
        self.of_rest = {"picture": self.reference[WINDOW], "map": laid_out(self.resting.mean(0), self.space),
                        "weights": self.expressions[self.rested].mean(0), "rotation": self.turns[self.rested].mean(0)}

    def skin(self) -> SkinMotion:
        """What follows the skin from the frames at rest."""
        return SkinMotion(self.space, self.scale, self.rotation, self.rested, self.resting, self.reference, self.person)

    def frames(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of recorded frames (B,): their maps' offsets (B, 3, cells), the skin's `flow` from rest, and what the reader says, change and spread (B, 52)."""
        own, pictures = metres(self.offsets[numbers]), np.array(self.pictures[numbers])
        motion, unlike = (np.stack(values) for values in zip(*(flow(self.reference, shown) for shown in pictures)))
        change, spread = self.reader.read({
            "picture": pictures[:, *WINDOW], "motion": motion, "unlike": unlike, "weights": self.expressions[numbers],
            "map": laid_out(own, self.space), "rotation": self.turns[numbers]}, self.of_rest)
        return own, motion, unlike, change, spread


def compared_at_rest(recorder: Recorder, good: np.ndarray, grid: TimeGrid, person: np.ndarray, weights: np.ndarray, calm: int,
                     candidates: np.ndarray, unrest: np.ndarray) -> Compared:
    """The take beside that one of the grid's frames `candidates` which is most at rest, by what the skin's reader says of them and by their
    `unrest` (N,); beside `calm` if there are none. Other arguments are those of `Compared`.

    Beside a frame that only seems to be at rest, too, the reader sees that others do less.
    """
    compared = Compared(recorder, good, grid, person, weights)
    compared.rest_at(calm)
    for _ in range(_LOOKS if len(candidates) else 0):
        change = np.concatenate(in_blocks(lambda numbers: compared.frames(numbers)[3], good[grid.before[candidates]]))
        told = np.where(NOT_ASKED, weights[candidates], compared.at_rest + change)
        # Below nothing no weight can be: the frame that it is compared with is not at rest, or the reader does not know such a face.
        told = np.where(told < 0, _BELOW * told, told)[:, ~_GAZE].sum(1) + unrest[candidates]
        candidates = candidates[np.argsort(told)[:_SHORT_LIST]]
        if candidates[0] == compared.calm:
            break
        compared.rest_at(int(candidates[0]))
    return compared
