"""A take when it is solved: one person's neutral and shapes, and for every frame the head's motion and the expression.

`Performance` holds it; `VertexFrames` makes a mesh's vertices of it. Numbers only, numpy and OpenCV, no files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from .face_fit import GRID
from .lens import Lens, seen_through
from .position_map import SIZE, Topology
from .threads import BLOCK
from .track import TrackedFace


@dataclass(frozen=True)
class Smoothing:
    """How much to smooth: 1 is usual, 0 nothing. Motion above the noise is followed whatever the strength."""

    head: float = 1.0
    face: float = 1.0
    eyes: float = 1.0

    # Seconds at strength 1: the standard deviation of the window over what stands still.
    HEAD, FACE, EYES = 0.10, 0.08, 0.06


@dataclass(frozen=True)
class KeyFrame:
    """A frame of which the face is kept for the texture."""

    frame: int  # index in the video
    image: np.ndarray  # (H, W, 3) uint8 RGB, what of it shows the face
    face: TrackedFace  # its crop in pixels of that image
    merit: float  # how good it is of its kind: sharp, large, at rest, in logarithms
    corner: tuple[int, int]  # of that image in the frame: x, y


@dataclass
class Performance:
    """One face over a take, evenly spaced in time.

    Head frame and image frame are those of `FaceCapture`; `seen_at` tells where a head point of frame i appears. Frame i lies
    `start + i` frames after the video's beginning.
    """

    name: str  # what to call the source in messages
    fps: float
    start: int  # frames of the video before the first one here
    image_size: tuple[int, int]  # width, height, pixels
    seen: np.ndarray  # (N,) bool: False in gaps too long to bridge; there the neighbours' values are held
    rotation: np.ndarray  # (N, 3, 3) head to image
    translation: np.ndarray  # (N, 3) pixels
    scale: np.ndarray  # (N,) pixels per metre
    weights: np.ndarray  # (N, 52) 0..1, in the order of ARKIT_NAMES; (N, 0) of a topology that has no ARKit shapes
    details: np.ndarray  # (N, K) how much of each detail shape: what the ARKit shapes do not say
    neutral: np.ndarray  # (256, 256, 3) float32, head frame, metres: the person at rest
    shapes: np.ndarray  # (52, 64, 64, 3) float32, metres: the ARKit shapes adapted to the person, at weight 1; or none
    detail_shapes: np.ndarray  # (K, 32, 32, 3) or (K, 64, 64, 3) float32, metres, low-passed: this take's own shapes
    identity: np.ndarray | None  # (120,) float32, standard deviations: the person in the shape space; None without one
    residual: np.ndarray | None  # (64, 64, 3) float32, metres at the space's own size: what the neutral has beyond the identity
    metric: float  # how much larger neutral and shapes are than in the shape space
    neutral_frame: int  # index in the video of the frame that is most at rest, or that was chosen
    key_frames: dict[str, list[KeyFrame]]  # by what they are good for: front, left, right, mouth; the best first
    warnings: list[str]
    topology: Topology
    length: int = 0  # frames that the whole video has at `fps`, those before and after the face among them; 0 if nobody counted
    lens: Lens | None = None  # of the camera; None: far away

    def __len__(self) -> int:
        return len(self.seen)

    def seen_at(self, frame: int, points: np.ndarray) -> np.ndarray:
        """Where points (..., 3) of the head frame appear, image frame: scale * rotation @ point + translation, through the lens."""
        return seen_through(self.lens, points, self.scale[frame], self.rotation[frame], self.translation[frame])

    def shape_map(self, number: int) -> np.ndarray:
        """(256, 256, 3) offset of ARKit shape `number` from the neutral, metres."""
        return resized(self.shapes[number], SIZE)

    def head_map(self, frame: int, details: bool = True) -> np.ndarray:
        """(256, 256, 3) float32 the face in frame `frame`, head frame, metres; details: with what the shapes lack."""
        small = np.tensordot(self.weights[frame], self.shapes, 1)
        if details:
            small = small + resized(np.tensordot(self.details[frame], self.detail_shapes, 1), GRID)
        return self.neutral + resized(small, SIZE)

    def vertices(self, sample: Callable[[np.ndarray], np.ndarray]) -> VertexFrames:
        """All frames as vertices of a mesh; sample: from a map (256, 256, 3) to vertices (V, 3), linear but for an offset."""
        return VertexFrames(self, sample)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """(first, last) frames of each gap that was left out, counted as in `seen`."""
        edges = np.flatnonzero(np.diff(np.r_[True, self.seen, True].astype(int)))
        return [(int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2])]


class VertexFrames:
    """A performance's vertices as a sequence of N arrays (V, 3) float32, head frame, metres, each computed when asked."""

    def __init__(self, performance: Performance, sample: Callable[[np.ndarray], np.ndarray]) -> None:
        self.performance = performance
        self.neutral = sample(performance.neutral).astype(np.float32)
        offsets = [sample(performance.neutral + performance.shape_map(number)) - self.neutral
                   for number in range(len(performance.shapes))]
        self.shapes = np.array(offsets).reshape(len(offsets), *self.neutral.shape)  # (52, V, 3), or none
        offsets += [sample(performance.neutral + resized(shape, SIZE)) - self.neutral
                    for shape in performance.detail_shapes]
        self._keep(np.stack(offsets))

    def _keep(self, offsets: np.ndarray) -> None:
        """offsets (52 + K, V, 3): of the ARKit shapes, then of the details."""
        self._flat = offsets.reshape(len(offsets), -1).astype(np.float32)
        self._first, self._block = -BLOCK, self.shapes[:0]

    def __len__(self) -> int:
        return len(self.performance)

    def __getitem__(self, frame: int) -> np.ndarray:
        if not 0 <= frame < len(self):
            raise IndexError(frame)
        if not self._first <= frame < self._first + BLOCK:
            # Frames are mostly asked for in order.
            self._first = frame - frame % BLOCK
            part = slice(self._first, self._first + BLOCK)
            weights = np.concatenate([self.performance.weights[part], self.performance.details[part]], 1).astype(np.float32)
            self._block = (weights @ self._flat).reshape(len(weights), -1, 3) + self.neutral
        return self._block[frame - self._first]


def resized(small: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(small, np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
