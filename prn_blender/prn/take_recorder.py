"""What is kept of a track while a video is read: notes, the best pictures, and in temporary files its maps and the skin's pictures.

tracked frames -> Recorder (some twenty kilobytes a frame, on disk) -> take_solve. numpy only; touches temporary files, never bpy.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from .arkit import ARKIT_NAMES
from .errors import CaptureError
from .face_fit import MOTIONS, ShapeSpace, in_head, reading
from .lens import Lens
from .skin_motion import PICTURE, picture
from .smooth import rotation_vectors, rotations_of
from .stored_offsets import STORED, stored
from .take import KeyFrame
from .time_grid import TimeGrid
from .track import TrackedFace, TrackedFrame

_RESTING = 0.35             # seconds that a face should have been as it is, for its picture to be the one from the front
_TEETH = 0.1                # of jawOpen, from which lips show what is between them; a smile with teeth has 0.13
_FRONTS, _APART = 6, 0.5      # frontal frames that are kept, and seconds that they are apart: a hand has moved on by then
_REACH = 0.8                 # of a crop's side: as far from its middle a map may reach, leaning or not
_ALIGNED = 8                # frames that a recorder aligns together, and keeps until then, pictures and all
_SOME = 3                   # of so many solved cells one tells how well a map is explained
_WRONG = 0.0025             # metres, RMS: a map that no head explains better is wrong; good ones have 0.0005 to 0.002


class TrackNotes:
    """What is noted of one track, frame by frame, whatever the topology; the maps themselves are a recorder's own matter."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.times: list[float] = []
        self.poses: list[tuple[float, np.ndarray, np.ndarray]] = []  # pixels per metre, head to image, pixels
        self.errors: list[float] = []  # metres, RMS: how far the map is from being a head
        self.size = 0.0  # pixels, summed over the frames: how much of the take this face is
        self.best: dict[str, list[tuple[float, KeyFrame]]] = {}  # by kind: when, and the frame; the best first
        self._lately: list[tuple[float, np.ndarray]] = []  # times and ARKit weights of the last frames

    def note(self, frame: TrackedFrame, face: TrackedFace) -> None:
        self.frames.append(frame.index)
        self.times.append(frame.time)
        self.size += face.crop.side

    def judge(self, frame: TrackedFrame, face: TrackedFace, error: float, scale: float, rotation: np.ndarray,
              translation: np.ndarray) -> None:
        """What an alignment says of a noted frame; scale, rotation, translation: from the head to the crop."""
        self.errors.append(error)
        self.poses.append((scale * face.crop.side, face.crop.turn @ rotation, face.crop.to_image(translation).astype(np.float64)))
        self._consider(frame, face, rotation)

    def finish(self) -> None:
        """To be called when all frames are added."""

    def _consider(self, frame: TrackedFrame, face: TrackedFace, rotation: np.ndarray) -> None:
        """Keep the picture if it is the best yet of its kind: sharp, large, at rest; from the front or from a side."""
        yaw = float(np.degrees(np.arcsin(np.clip(rotation[0, 2], -1, 1))))
        if abs(yaw) > 50:
            return
        expression = np.zeros(len(ARKIT_NAMES)) if face.expression is None else face.expression
        blink = max(expression[ARKIT_NAMES.index("eyeBlinkLeft")], expression[ARKIT_NAMES.index("eyeBlinkRight")])
        opening = float(expression[ARKIT_NAMES.index("jawOpen")])
        # A hand or a microphone before the face makes a map that fits no head well.
        merit = face.sharpness + 0.5 * np.log(face.crop.side) - 2.0 * blink - 500.0 * self.errors[-1]
        # On its way to rest a face may look more at rest than it is.
        self._lately = [(time, weights) for time, weights in self._lately if frame.time - time < _RESTING] + [(frame.time, expression)]
        changes = float(np.abs(expression - self._lately[0][1]).sum())
        kinds = {"front": merit - 0.04 * abs(yaw) - 1.5 * opening - 0.3 * float(expression.sum()) - 0.3 * changes}
        if opening > _TEETH:
            kinds["mouth"] = face.sharpness + 3.0 * min(opening, 0.7) - 0.04 * abs(yaw)
        if abs(yaw) > 15:
            kinds["left" if yaw > 0 else "right"] = merit - 0.04 * abs(abs(yaw) - 35) - 0.3 * float(expression.sum())
        for kind, value in kinds.items():
            self._keep(kind, value, frame, face)

    def _keep(self, kind: str, value: float, frame: TrackedFrame, face: TrackedFace) -> None:
        """Among the best of its kind, if it is one of them: of frames that are near each other the best alone."""
        kept, most = self.best.setdefault(kind, []), _FRONTS if kind == "front" else 1
        near = [one for one in kept if most == 1 or abs(one[0] - frame.time) < _APART]
        if any(key.merit >= value for _, key in near) or len(kept) - len(near) == most and kept[-1][1].merit >= value:
            return
        found = (frame.time, _key_frame(frame, face, value))
        self.best[kind] = sorted([*(one for one in kept if one not in near), found], key=lambda one: -one[1].merit)[:most]

    def good(self) -> np.ndarray:
        """Indices of the recorded frames whose map is a head; the others count as gaps."""
        errors = np.array(self.errors)
        return np.flatnonzero(errors < max(_WRONG, 3 * np.median(errors)))

    def key_frames(self) -> dict[str, list[KeyFrame]]:
        return {kind: [key for *_, key in kept] for kind, kept in self.best.items()}

    def resampled_poses(self, grid: TimeGrid, good: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scale (N,), rotation (N, 3, 3) and translation (N, 3) at the grid's times, from the good frames."""
        scale = np.exp(grid.resample(np.log([self.poses[i][0] for i in good])[:, None]))[:, 0]
        middle, vectors = rotation_vectors(np.array([self.poses[i][1] for i in good]))
        return scale, rotations_of(middle, grid.resample(vectors)), grid.resample(np.array([self.poses[i][2] for i in good]))

    def place_of(self, frame: int, grid: TimeGrid, count: int) -> int:
        """Where a frame of the video lies among the grid's. Raises CaptureError if the face is not seen in it."""
        if frame not in self.frames:
            raise CaptureError(f"Frame {frame} cannot be the neutral one, the face is not seen in it: choose a frame "
                               f"from {self.frames[0]} to {self.frames[-1]} in which it is.")
        time = self.times[self.frames.index(frame)]
        return int(np.clip(np.round(time * grid.fps) - grid.start, 0, count - 1))


def _key_frame(frame: TrackedFrame, face: TrackedFace, merit: float) -> KeyFrame:
    """The part of a frame in which the face is: whole frames of 4K would take much memory."""
    crop, size = face.crop, np.array(frame.image.shape[1::-1])
    centre, reach = np.array([crop.center_x, crop.center_y]), _REACH * crop.side
    low = np.clip(np.floor(centre - reach), 0, size - 1).astype(int)
    high = np.clip(np.ceil(centre + reach) + 1, low + 1, size).astype(int)
    moved = replace(crop, center_x=crop.center_x - low[0], center_y=crop.center_y - low[1])
    return KeyFrame(frame.index, frame.image[low[1]:high[1], low[0]:high[0]].copy(), replace(face, crop=moved), merit, (int(low[0]), int(low[1])))


class Recorder(TrackNotes):
    """Collects one track: a few numbers a frame in memory, its maps in a temporary file.

    Some frames are aligned together, in a thread of their own while the next ones are tracked. skin: with the frames laid out as
    their maps, by which the solve follows the skin. lens: of the camera; poses then are of heads as seen from far away (`Lens.flattened`).
    """

    def __init__(self, space: ShapeSpace, skin: bool = True, lens: Lens | None = None) -> None:
        super().__init__()
        self.space, self.skin, self.lens = space, skin, lens
        self.expressions: list[np.ndarray] = []
        self._shapes = space.seen[MOTIONS:].reshape(-1, len(space.solved), 3)[:, ::_SOME].reshape(len(space.seen) - MOTIONS, -1)
        self.rights: list[np.ndarray] = []  # (179,) the right side of the shape space's normal equations for each map's offsets
        self._waiting: list[tuple[TrackedFrame, TrackedFace, np.ndarray]] = []
        self._aligner = ThreadPoolExecutor(1, "PRN align")
        self._aligned: Future = self._aligner.submit(int)
        self._file, self._pictures = (tempfile.TemporaryFile(prefix="prn-take-") for _ in range(2))

    def add(self, frame: TrackedFrame, face: TrackedFace) -> None:
        self.note(frame, face)
        self.expressions.append(face.expression)
        self._waiting.append((frame, face, reading(face.network_map).reshape(-1, 3)))
        if len(self._waiting) == _ALIGNED:
            self._aligned.result()  # no more than one portion is kept, and what went wrong is raised here
            self._aligned = self._aligner.submit(self._align, self._waiting)
            self._waiting = []

    def finish(self) -> None:
        self._aligned.result()
        if self._waiting:
            self._align(self._waiting)
            self._waiting = []

    def _align(self, waiting: list[tuple[TrackedFrame, TrackedFace, np.ndarray]]) -> None:
        frames, faces, readings = zip(*waiting)
        if self.lens:
            readings = [face.crop.from_image(self.lens.flattened(face.crop.to_image(one))) for face, one in zip(faces, readings)]
        space, readings = self.space, np.stack(readings)
        *poses, solution, rights = space.align(readings, np.stack([face.expression for face in faces]))
        offsets = in_head(readings, *poses) - space.small_mean
        self._file.write(stored(offsets.take(space.cells, 1)).swapaxes(1, 2).tobytes())
        if self.skin:
            for frame, face in zip(frames, faces):
                self._pictures.write(picture(frame.image, face.crop, face.network_map).tobytes())
        self.rights.extend(rights)
        # What no head of the shape space explains.
        unexplained = offsets[:, space.solved[::_SOME]].reshape(len(frames), -1) - solution[:, MOTIONS:] @ self._shapes
        errors = np.sqrt(np.square(unexplained).mean(1))
        for frame, face, error, scale, rotation, translation in zip(frames, faces, errors, *poses):
            self.judge(frame, face, float(error), scale, rotation, translation)

    def offsets(self) -> np.ndarray:
        """(N, 3, cells) offsets from the mean head as they are stored (stored_offsets.py), a view of the file."""
        self._file.flush()
        return np.memmap(self._file, STORED, "r").reshape(len(self.frames), 3, -1)

    def pictures(self) -> np.ndarray:
        """(N, 128, 128) uint8 the frames laid out as their maps, as a view of the file."""
        self._pictures.flush()
        return np.memmap(self._pictures, np.uint8, "r").reshape(-1, PICTURE, PICTURE)
