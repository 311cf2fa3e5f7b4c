"""A take: what one tracked face did, as one person's neutral, head motion and expression apart, and smooth in time.

tracked frames -> Recorder (a few kilobytes a frame, on disk) -> solve -> Performance. One identity and one neutral for
the whole take; per frame the rigid head pose against that neutral, the ARKit-52 weights in shapes adapted to the person,
and what these shapes cannot say. numpy and OpenCV only; touches a temporary file, never bpy.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from .arkit import ARKIT_NAMES
from .blinks import completed
from .capture import INTEROCULAR
from .contact import close_lids, close_lips, part_lips
from .engine import Engine, open_engine
from .errors import CaptureCancelled, CaptureError, NoFaceError
from .face_fit import GRID, MOTIONS, ShapeSpace, in_head, load_shape_space, reading, similarity
from .position_map import HM08, SIZE, Topology, load_topology
from .skin_motion import PICTURE, SkinMotion, picture
from .smooth import rotation_vectors, rotations_of, smooth
from .track import Progress, TrackedFace, TrackedFrame, capture_video
from .video import Video, open_video

SKIN = "skin of frame"     # what a Progress is of, after the tracking
BRIDGED = 0.5               # seconds: gaps up to this are interpolated, longer ones are left out
CELLS = GRID * GRID
RESIDUAL = 32               # what the shapes lack is low-passed, so that a map of 32x32 holds all of it
_BLOCK = 16                 # frames that are computed together: a matrix product over some costs little more than for one
_RESTING = 0.35  # seconds that a face should have been as it is, for its picture to be the one from the front
_ALIGNED = 8                # frames that a recorder aligns together, and keeps until then, pictures and all
_DETAILS, _SAMPLED = 24, 600    # of it so many principal directions are kept, found on so many frames
_ROUNDS = 3                 # of solving for the identity and for the expressions in turn
_WORTH = 40.0               # a take's frames err together: however many, they count as these few against the identity's prior
# How far the network's ARKit weights are off, as the take's solve sees it. A map says less about lids and lips than the
# network's own reading of the picture, and errs together with it: at 0.15, as for photographs, half of every blink is lost.
_SPREAD = 0.05
_SPREAD_BESIDE_SKIN = 0.07  # the same where the skin's motion is known as well
_SPARSITY = 8.0             # L1 weight of the ARKit weights, in the fit's own unit (1 / spread^2 = 400): 0.02 of each
_STEADY = 12.0              # weight of their differences from frame to frame, same unit, at 30 frames a second
_ADAPTED = 12.0             # frames at full weight that a shape has to be seen before half of what it lacks is believed
_WRONG = 0.0025             # metres, RMS: a map that no head explains better is wrong; good ones have 0.0005 to 0.002
_RIGID_MOVE = 0.0012        # metres that the ARKit shapes may move a point of the skull
_REST = 0.3                 # the most that a resting face's own weights may be, and still be called rest
_AROUND, _AT_REST = 0.4, 5   # seconds about the calmest frame, of which so many are the skin at rest
_SPIKE = 0.06               # of a weight: a mouth that opens and shuts goes on for longer than a frame
_UNSEEN = np.array([name.startswith("eyeLook") or name == "tongueOut" for name in ARKIT_NAMES])
EYE_SHAPES = np.array([name.startswith("eye") for name in ARKIT_NAMES])


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
    """A frame whose picture is kept for the texture."""

    frame: int  # index in the video
    image: np.ndarray
    face: TrackedFace


@dataclass
class Performance:
    """One face over a take, evenly spaced in time.

    Head frame and image frame are those of `FaceCapture`; a head point p of frame i appears at
    scale[i] * rotation[i] @ p + translation[i]. Frame i lies `start + i` frames after the video's beginning.
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
    key_frames: dict[str, KeyFrame]  # by what they are best for: front, left, right, mouth
    warnings: list[str]
    topology: Topology
    length: int = 0  # frames that the whole video has at `fps`, those before and after the face among them; 0 if nobody counted

    def __len__(self) -> int:
        return len(self.seen)

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
        self._first, self._block = -_BLOCK, self.shapes[:0]

    def __len__(self) -> int:
        return len(self.performance)

    def __getitem__(self, frame: int) -> np.ndarray:
        if not 0 <= frame < len(self):
            raise IndexError(frame)
        if not self._first <= frame < self._first + _BLOCK:
            # Frames are mostly asked for in order.
            self._first = frame - frame % _BLOCK
            part = slice(self._first, self._first + _BLOCK)
            weights = np.concatenate([self.performance.weights[part], self.performance.details[part]], 1).astype(np.float32)
            self._block = (weights @ self._flat).reshape(len(weights), -1, 3) + self.neutral
        return self._block[frame - self._first]


def resized(small: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(small, np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


# ---- recording -------------------------------------------------------------------------------------------------------


class TrackNotes:
    """What is noted of one track, frame by frame, whatever the topology; the maps themselves are a recorder's own matter."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.times: list[float] = []
        self.poses: list[tuple[float, np.ndarray, np.ndarray]] = []  # pixels per metre, head to image, pixels
        self.errors: list[float] = []  # metres, RMS: how far the map is from being a head
        self.size = 0.0  # pixels, summed over the frames: how much of the take this face is
        self.best: dict[str, tuple[float, KeyFrame]] = {}
        self._lately: list[tuple[float, np.ndarray]] = []  # times and ARKit weights of the last frames

    def note(self, frame: TrackedFrame, face: TrackedFace) -> None:
        self.frames.append(frame.index)
        self.times.append(frame.time)
        self.size += face.crop.side

    def judge(self, frame: TrackedFrame, face: TrackedFace, error: float, scale: float, rotation: np.ndarray,
              translation: np.ndarray) -> None:
        """What an alignment says of a noted frame; scale, rotation, translation: from the head to the crop."""
        self.errors.append(error)
        self.poses.append((scale * face.crop.side, rotation, face.crop.to_image(translation).astype(np.float64)))
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
        if opening > 0.25:
            kinds["mouth"] = face.sharpness + 3.0 * min(opening, 0.7) - 0.04 * abs(yaw)
        if abs(yaw) > 15:
            kinds["left" if yaw > 0 else "right"] = merit - 0.04 * abs(abs(yaw) - 35) - 0.3 * float(expression.sum())
        for kind, value in kinds.items():
            if kind not in self.best or value > self.best[kind][0]:
                self.best[kind] = value, KeyFrame(frame.index, frame.image, face)

    def good(self) -> np.ndarray:
        """Indices of the recorded frames whose map is a head; the others count as gaps."""
        errors = np.array(self.errors)
        return np.flatnonzero(errors < max(_WRONG, 3 * np.median(errors)))

    def key_frames(self) -> dict[str, KeyFrame]:
        return {kind: key for kind, (_, key) in self.best.items()}

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


class Recorder(TrackNotes):
    """Collects one track: a few numbers a frame in memory, its maps in a temporary file.

    Some frames are aligned together, in a thread of their own while the next ones are tracked. quick: without pictures, by which
    the solve follows the skin.
    """

    def __init__(self, space: ShapeSpace, quick: bool = False) -> None:
        super().__init__()
        self.space, self.quick = space, quick
        self.expressions: list[np.ndarray] = []
        self._waiting: list[tuple[TrackedFrame, TrackedFace, np.ndarray]] = []
        self._aligner = ThreadPoolExecutor(1, "PRN align")
        self._aligned: Future = self._aligner.submit(int)
        self._file, self._pictures = (tempfile.TemporaryFile(prefix="prn-take-") for _ in range(2))

    def add(self, frame: TrackedFrame, face: TrackedFace) -> None:
        self.note(frame, face)
        self.expressions.append(face.expression)
        self._waiting.append((frame, face, reading(face.crop_map).reshape(-1, 3)))
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
        space, readings = self.space, np.stack(readings)
        *poses, solution = space.align(readings, np.stack([face.expression for face in faces]))
        # Offsets from the mean head: small numbers, so that half precision holds a fiftieth of a millimetre.
        offsets = in_head(readings, *poses) - space.small_mean
        self._file.write(offsets[:, space.cells].swapaxes(1, 2).astype(np.float16).tobytes())
        if not self.quick:
            for frame, face in zip(frames, faces):
                self._pictures.write(picture(frame.image, face.crop, face.crop_map).tobytes())
        # What no head of the shape space explains.
        unexplained = offsets[:, space.solved].reshape(len(frames), -1) - solution[:, MOTIONS:] @ space.seen[MOTIONS:]
        errors = np.sqrt(np.square(unexplained).mean(1))
        for frame, face, error, scale, rotation, translation in zip(frames, faces, errors, *poses):
            self.judge(frame, face, float(error), scale, rotation, translation)

    def offsets(self) -> np.ndarray:
        """(N, 3, cells) float16 as a view of the file."""
        self._file.flush()
        return np.memmap(self._file, np.float16, "r").reshape(len(self.frames), 3, -1)

    def pictures(self) -> np.ndarray:
        """(N, 128, 128) uint8 the frames laid out as their maps, as a view of the file."""
        self._pictures.flush()
        return np.memmap(self._pictures, np.uint8, "r").reshape(-1, PICTURE, PICTURE)


def capture_performance(
    source: str | os.PathLike | Iterable | Video,
    *,
    face: int = 1,
    fps: float | None = None,
    smoothing: Smoothing = Smoothing(),
    neutral_frame: int | None = None,
    interocular: float = INTEROCULAR,
    quick: bool = False,
    engine: Engine | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Performance:
    """From a video to one person's performance: `capture_video`, then the take's solve. Runs in any thread.

    face: 1 is the face that takes up most of the video, 2 the next one, and so on. fps: of the result; the video's own by
    default. neutral_frame: the video's frame in which the face is at rest; by default the calmest one is found. Weights with a
    topology of their own give a performance without ARKit weights (plain_take.py).
    interocular: the real distance between the eyes' centres in metres, which sets the scale. quick: without following the skin
    (skin_motion.py), in two thirds of the time: small expressions come out weaker. Other arguments are those of
    `capture_video`. Raises NoFaceError if nobody is seen, CaptureError for a wrong request.
    """
    if face < 1:
        raise CaptureError(f"There is no face {face}: faces are counted from 1.")
    if fps is not None and not 1 <= fps <= 240:
        raise CaptureError(f"A rate of {fps:g} frames a second is not possible: give a number from 1 to 240.")
    from .plain_take import solve_plain
    engine = engine or open_engine()
    video = source if isinstance(source, Video) else open_video(source)
    # Somebody else than the largest can only be chosen if all are followed.
    recorders, size, last = record(video, "largest" if face == 1 else "all", engine, progress, cancelled, quick)
    chosen = [recorder for recorder in sorted(recorders, key=lambda recorder: -recorder.size)
              if len(recorder.frames) >= 2]
    if not chosen:
        raise NoFaceError(f"No face found in {video.name}: use a video in which a face is well lit and at least 40 pixels wide.")
    if face > len(chosen):
        raise CaptureError(f"Face {face} was asked for, but {video.name} shows {len(chosen)}: choose a number from 1 to "
                           f"{len(chosen)}.")
    recorder = chosen[face - 1]
    warnings = list(video.warnings)
    if len(chosen) > 1 and face == 1:
        where = ", ".join(f"{other.times[0]:.1f}-{other.times[-1]:.1f} s" for other in chosen[1:6])
        warnings.append(f"Other faces, or this one after a cut, were left out ({where}): choose them by their number.")
    started = time.perf_counter()

    def followed(done: int, total: int) -> None:
        if cancelled and cancelled():
            raise CaptureCancelled("The capture was cancelled.")
        if progress:
            progress(Progress(done, total, time.perf_counter() - started, SKIN))

    arguments = recorder, video.name, fps or video.fps, size, smoothing, neutral_frame, warnings, video.fps, interocular
    take = solve(*arguments, followed) if engine.topology.name == HM08 else solve_plain(*arguments)
    take.length = int(np.round(last * take.fps)) + 1
    return take


def record(video: Video, faces: Literal["largest", "all"], engine: Engine, progress: Callable[[Progress], None] | None = None,
           cancelled: Callable[[], bool] | None = None, quick: bool = False) -> tuple[list[TrackNotes], tuple[int, int], float]:
    """The finished recorders of all tracks of a video, its pictures' width and height, and the last one's time in seconds.

    Arguments are those of `capture_video`. Recorders are PlainRecorders if the weights have a topology of their own: without
    a shape space there is neither identity nor expression to solve for.
    """
    from .plain_take import PlainRecorder
    recorders: dict[int, TrackNotes] = {}
    size, last = (0, 0), 0.0
    for frame in capture_video(video, faces=faces, engine=engine, progress=progress, cancelled=cancelled):
        size, last = size if size[0] else frame.image.shape[1::-1], frame.time
        for seen in frame.faces:
            if seen.track not in recorders:
                recorders[seen.track] = Recorder(load_shape_space(), quick) if engine.topology.name == HM08 else PlainRecorder(engine.topology)
            recorders[seen.track].add(frame, seen)
    for recorder in recorders.values():
        recorder.finish()
    return list(recorders.values()), size, last


# ---- the take's solve ------------------------------------------------------------------------------------------------


def solve(recorder: Recorder, name: str, fps: float, image_size: tuple[int, int], smoothing: Smoothing = Smoothing(),
          neutral_frame: int | None = None, warnings: list[str] | None = None,
          source_fps: float | None = None, interocular: float = INTEROCULAR,
          followed: Callable[[int, int], None] | None = None) -> Performance:
    """One identity, one neutral, per-frame pose and expression of a recorded track, smoothed, at `fps` frames a second.

    followed: called now and then with the number of frames in which the skin has been followed, and of all; what it raises ends the
    solve. Raises CaptureError if neutral_frame is not among the recorded frames.
    """
    space, topology = recorder.space, load_topology()
    warnings = list(warnings or [])
    recorder.finish()
    good = recorder.good()
    if len(good) < 2:
        raise NoFaceError(f"The face in {name} is never seen well enough: use a video in which it is larger, sharper or less hidden.")
    grid = TimeGrid(np.array(recorder.times)[good], fps, source_fps or fps)
    offsets = grid.resample(recorder.offsets(), good)
    prior = grid.resample(np.array(recorder.expressions, np.float32)[good])
    scale, rotation, translation = recorder.resampled_poses(grid, good)

    identity, read, weights = _identity_and_reading(space, offsets, prior, fps)
    known = space.small_mean + space.offsets(np.concatenate([identity, np.zeros(52)]))
    calm = _calmest(weights, recorder, grid, neutral_frame)
    if not recorder.quick:
        moved, weights = _with_skin(recorder, good, grid, known, read, weights, calm, followed)
        offsets = grid.resample(moved)
        calm = _calmest(weights, recorder, grid, neutral_frame)
    expressions = space.basis[space.identities:].reshape(52, CELLS, 3)

    rest = _residual_at_rest(space, offsets, known, expressions, weights, calm)
    person = known + rest.reshape(-1, 3)

    # On the face's cells alone, in single precision, axis by axis: all that follows is matrix products over some frames.
    mean, steady, moves = (np.ascontiguousarray(values.reshape(-1, CELLS, 3)[:, space.cells].swapaxes(1, 2), np.float32)
                           for values in (space.small_mean, person, expressions))

    def explained(frames: np.ndarray) -> np.ndarray:
        """(B, 3, cells) the person with each frame's expression."""
        return (weights[frames] @ moves.reshape(52, -1)).reshape(-1, *steady.shape[1:]) + steady

    # The skull's motion: rigid, against this person's own face, without what the expression explains.
    skull = _skull(space, topology)
    pose = [np.concatenate(found) for found in zip(*_in_blocks(
        lambda frames: _rigid(explained(frames), offsets[frames].astype(np.float32) + mean, skull), np.arange(len(offsets))))]
    translation = translation + scale[:, None] * (rotation @ pose[2][..., None])[..., 0]
    rotation = rotation @ pose[1]
    scale = scale * pose[0]

    believed = np.repeat(_living(topology), 3, 2)

    def residuals(frames: np.ndarray) -> np.ndarray:
        grown, turned, shifted = (found[frames].astype(np.float32) for found in pose)
        seen = offsets[frames].astype(np.float32) + (mean - shifted[..., None])
        residual = (turned / grown[:, None, None]).swapaxes(1, 2) @ seen - explained(frames)
        low = [space.low_pass(one.T) * believed for one in residual]
        return np.stack([cv2.resize(one, (RESIDUAL, RESIDUAL), interpolation=cv2.INTER_AREA).ravel() for one in low])

    details, detail_shapes = compressed(residuals, len(offsets))
    lacking, details = _learn(details, weights)
    lacking = (lacking @ detail_shapes).reshape(52, RESIDUAL, RESIDUAL, 3)
    shapes = expressions.reshape(52, GRID, GRID, 3) + np.stack([resized(shape, GRID) for shape in lacking])
    # What the face wears at rest belongs to the neutral, and the weights count from there.
    rest_weights = _rest_weights(weights, calm)
    person = person + np.tensordot(rest_weights, shapes.reshape(52, CELLS, 3), 1)
    shapes = shapes * (1 - rest_weights)[:, None, None, None]
    weights = np.clip((weights - rest_weights) / (1 - rest_weights), 0, 1)

    rotation, translation, scale, weights, details = smoothed(grid, rotation, translation, scale, weights, details, smoothing)

    neutral = space.mean + resized((person - space.small_mean).reshape(GRID, GRID, 3), SIZE)
    landmarks = topology.landmarks_of(neutral)
    metric = interocular / float(np.linalg.norm(landmarks[36:42].mean(0) - landmarks[42:48].mean(0)))
    neutral = close_lips(neutral * np.float32(metric), topology)
    residual = reading(neutral) / np.float32(metric) - known.reshape(GRID, GRID, 3)
    shapes = close_lids(neutral, (shapes * metric).astype(np.float32), topology)
    weights = part_lips(completed(weights, fps), neutral, shapes, topology)
    return Performance(
        name=name, fps=fps, start=grid.start, image_size=image_size, seen=grid.seen, rotation=rotation,
        translation=translation, scale=scale / metric, weights=weights.astype(np.float32),
        details=details.astype(np.float32), neutral=neutral, shapes=shapes,
        detail_shapes=(detail_shapes.reshape(-1, RESIDUAL, RESIDUAL, 3) * metric).astype(np.float32),
        identity=identity.astype(np.float32), residual=residual.astype(np.float32), metric=metric,
        neutral_frame=int(np.round((grid.start + calm) * (source_fps or fps) / fps)),
        key_frames=recorder.key_frames(), warnings=warnings + grid.warnings(), topology=topology)


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
        if not self.share.any() and (np.diff(before) == 1).all():
            return values[before[0]:before[-1] + 1]
        result = np.empty((len(before), *values.shape[1:]), values.dtype)
        exact = np.result_type(values.dtype, np.float32)
        for i, share in enumerate(self.share.astype(exact)):  # a frame at a time: some are large
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


@dataclass(frozen=True)
class _Reading:
    """What maps and network say of the ARKit weights of evenly spaced frames, as the terms of a least squares problem."""

    normal: np.ndarray  # (52, 52), the same for all frames
    right: np.ndarray  # (N, 52)
    prior: np.ndarray  # (N, 52) the network's own weights
    fps: float

    def weights(self, normal: np.ndarray | float = 0.0, right: np.ndarray | float = 0.0, spread: float = _SPREAD) -> np.ndarray:
        """(N, 52) each frame's best: bounded, sparse and steady. normal (N, 52, 52), right (N, 52): what else says something of them.
        spread: how far the network's own weights are off."""
        # Where eyes look nothing else tells, nor what a tongue does.
        precision = np.where(_UNSEEN, _SPREAD, spread) ** -2
        return _bounded_weights(self.normal.astype(np.float32) + normal, self.right + right, self.prior, precision, _STEADY * self.fps / 30)


def _identity_and_reading(space: ShapeSpace, offsets: np.ndarray, prior: np.ndarray, fps: float) -> tuple[np.ndarray, _Reading, np.ndarray]:
    """(120,) one identity for all frames, what their maps (N, 3, cells) and the network's weights, `prior`, say beside it, and the
    weights (N, 52) that follow."""
    n, count = MOTIONS + space.identities, len(offsets)
    normal = space.normal
    place = np.searchsorted(space.cells, space.solved)
    weighted = space.weighted.reshape(len(normal), -1).T
    right = np.concatenate(_in_blocks(
        lambda frames: offsets[frames][:, :, place].astype(np.float32).reshape(len(frames), -1) @ weighted, np.arange(count)))  # (N, 179)
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


def _with_skin(recorder: Recorder, good: np.ndarray, grid: TimeGrid, person: np.ndarray, read: _Reading, weights: np.ndarray,
               calm: int, followed: Callable[[int, int], None] | None) -> tuple[np.ndarray, np.ndarray]:
    """(M, 3, cells) float16 the good frames' offsets where the skin has been followed, and the weights (N, 52) that it tells."""
    near = np.flatnonzero(np.abs(np.arange(len(weights)) - calm) <= _AROUND * grid.fps)
    alike = near[np.argsort(np.abs(weights[near] - weights[calm]).sum(1))[:_AT_REST]]
    scale, rotation = (np.array([pose[part] for pose in recorder.poses]) for part in (0, 1))
    skin = SkinMotion(recorder.space, recorder.pictures(), recorder.offsets(), scale, rotation, good[grid.before[alike]], person)
    count = len(good)
    moved = np.memmap(tempfile.TemporaryFile(prefix="prn-take-"), np.float16, "w+", shape=(count, *skin.offsets.shape[1:]))
    normal, right = np.empty((count, 52, 52), np.float32), np.empty((count, 52), np.float32)
    at_rest = weights[alike].mean(0)
    # Which of the even frames is nearest to each recorded one.
    places = np.clip(np.rint(grid.times * grid.fps).astype(int) - grid.start, 0, len(weights) - 1)
    expected = weights[places] - at_rest

    def tell(frames: np.ndarray) -> None:
        for frame in frames:
            moved[frame], normal[frame], right[frame] = skin.read(good[frame], expected[frame])

    _in_blocks(tell, np.arange(count), (lambda done: followed(done, count)) if followed else None)

    def told() -> np.ndarray:
        even = grid.resample(normal)
        return read.weights(even, grid.resample(right) + even @ at_rest, _SPREAD_BESIDE_SKIN)

    weights = told()
    spikes = _spikes(weights[places])
    if not len(spikes):
        return moved, weights
    # In these the flow has lost the skin: what lies between the frames before and after is nearer to it.
    for values in (moved, normal, right):
        values[spikes] = (values[spikes - 1].astype(np.float32) + values[spikes + 1].astype(np.float32)) / 2
    return moved, told()


def _spikes(weights: np.ndarray) -> np.ndarray:
    """Numbers of frames in which a weight (N, 52) jumps away from both its neighbours, which are like each other; lids may do that."""
    mouth = np.pad(weights[:, ~EYE_SHAPES], ((2, 2), (0, 0)), mode="edge")
    five = np.stack([mouth[step:step + len(weights)] for step in range(5)])
    before, shown, after = five[1:4]
    # Of three frames that jump to and fro the middle one is right.
    away = np.minimum(np.abs(shown - (before + after) / 2), np.abs(shown - np.median(five, axis=0)))
    jumps = ((away > _SPIKE) & (away > 2 * np.abs(after - before))).any(1)
    return 1 + np.flatnonzero(jumps[1:-1])


def _bounded_weights(normal: np.ndarray, right: np.ndarray, prior: np.ndarray, precision: np.ndarray,
                     steady: float) -> np.ndarray:
    """(N, 52) weights in 0..1: least squares with a prior, an L1 term and a term on differences in time (FISTA).

    normal: (52, 52), or (N, 52, 52) if the frames' differ. Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm for
    linear inverse problems" (2009), with a step of its own for each weight.
    """
    descent = (normal + np.diag(precision)).astype(np.float32).reshape(-1, *normal.shape[-2:])
    size = np.diagonal(descent, axis1=1, axis2=2).mean(0, dtype=np.float64) + 4 * steady
    # No eigenvalue is above the largest sum of a row.
    most = max(float((np.abs(one) @ size ** -0.5 * size ** -0.5 + 4 * steady / size).max()) for one in descent)
    step = 1 / (size * most)
    # A step down the gradient of all but the differences in time, as one matrix product. Of a long take these are large: in place.
    descent *= -step.astype(np.float32)
    descent += np.eye(len(precision), dtype=np.float32)
    pull = (step * (right + precision * prior - _SPARSITY)).astype(np.float32)
    steady = (step * steady).astype(np.float32)
    weights = previous = np.clip(prior, 0, 1).astype(np.float32)
    momentum = 1.0
    for _ in range(80):
        larger = (1 + np.sqrt(1 + 4 * momentum ** 2)) / 2
        ahead = weights + np.float32((momentum - 1) / larger) * (weights - previous)
        previous, momentum = weights, larger
        weights = (ahead[:, None] @ descent)[:, 0] + pull
        change = steady * (ahead[1:] - ahead[:-1])
        weights[:-1] += change
        weights[1:] -= change
        np.clip(weights, 0, 1, out=weights)
    return weights


def _calmest(weights: np.ndarray, recorder: Recorder, grid: TimeGrid, chosen: int | None) -> int:
    """The frame of the grid in which the face is at rest: the chosen one, or the one whose weights are least."""
    if chosen is not None:
        return recorder.place_of(chosen, grid, len(weights))
    moving = weights[:, [not name.startswith("eyeLook") for name in ARKIT_NAMES]].sum(1)
    around = max(1, int(round(0.1 * grid.fps)))
    steady = np.convolve(np.pad(moving, around, mode="edge"), np.ones(2 * around + 1) / (2 * around + 1), "valid")
    return int(np.argmin(np.where(grid.seen, steady, np.inf)))


def _rest_weights(weights: np.ndarray, calm: int) -> np.ndarray:
    """(52,) what the weights are at rest, which is then zero by definition; strong ones are no rest but a face made."""
    rest = np.median(weights[max(0, calm - 2):calm + 3], 0)
    # What most of the take lies below is no rest either: the one frame would cut the motion off.
    rest = np.minimum(np.minimum(rest, np.quantile(weights, 0.15, axis=0)), _REST)
    rest[[index for index, name in enumerate(ARKIT_NAMES) if name.startswith("eyeLook")]] = 0
    return rest


def _residual_at_rest(space: ShapeSpace, offsets: np.ndarray, person: np.ndarray, expressions: np.ndarray,
                      weights: np.ndarray, calm: int) -> np.ndarray:
    """(64, 64, 3) what the calm frames show of the person that the identity lacks, low-passed as on photographs."""
    quiet = weights.sum(1)
    likely = np.exp(-(quiet - quiet[calm]).clip(0) / 0.5)
    chosen = np.argsort(-likely)[:60]
    share = (likely[chosen] / likely[chosen].sum()).astype(np.float32)
    face = (person + np.tensordot(share @ weights[chosen], expressions, 1))[space.cells] - space.small_mean[space.cells]
    difference = np.tensordot(share, offsets[chosen].astype(np.float32), 1).T - face
    # The alignments' own error must not become part of the person.
    difference -= np.average(difference, axis=0, weights=space.cell_weights)
    return space.low_pass(difference.astype(np.float32))


def _skull(space: ShapeSpace, topology: Topology) -> np.ndarray:
    """(cells,) weights of the parts that move with the skull: nose bridge, brow ridge, temples, cheekbones."""
    moves = np.sqrt((space.basis[space.identities:].reshape(52, CELLS, 3)[:, space.cells] ** 2).sum(2)).max(0)
    step = SIZE // GRID
    left_out = np.zeros((SIZE, SIZE), bool)
    for region in ("ears", "neck", "forehead"):  # cartilage, muscle, hair
        left_out |= topology.regions[region]
    left_out = left_out.reshape(GRID, step, GRID, step).any((1, 3)).ravel()[space.cells]
    return np.where(left_out, 0.02, 1 / (1 + (moves / _RIGID_MOVE) ** 2)).astype(np.float32)


def _living(topology: Topology) -> np.ndarray:
    """(64, 64, 1) how far what a part does beyond the shapes is believed: ears and scalp only seem to move, under hair and
    in perspective, and lids would be kept from closing by maps that do not close them."""
    share = np.ones((SIZE, SIZE), np.float32)
    for region in ("ears", "forehead", "eye_left", "eye_right"):
        share[topology.regions[region]] = 0.2
    share[topology.regions["neck"]] = 0.5
    return cv2.GaussianBlur(cv2.resize(share, (GRID, GRID), interpolation=cv2.INTER_AREA), (0, 0), 2.0)[..., None]


def _in_blocks(function: Callable[[np.ndarray], Any], frames: np.ndarray, report: Callable[[int], None] | None = None) -> list[Any]:
    """What a function gives for portions of the frames' numbers, in their order; each processor works on one.

    report: called, in this thread, with the number of frames that are done; what it raises ends the work.
    """
    hands, found = ThreadPoolExecutor(os.cpu_count(), "PRN solve"), []
    try:
        for values in hands.map(function, np.split(frames, range(_BLOCK, len(frames), _BLOCK))):
            found.append(values)
            if report:
                report(min(_BLOCK * len(found), len(frames)))
    finally:
        hands.shutdown(cancel_futures=True)
    return found


def _rigid(source: np.ndarray, target: np.ndarray, skull: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The small similarities (B,), (B, 3, 3), (B, 3) from the person's head, source (B, 3, cells), to where the frames' first
    alignment put it, target; robust (Cauchy)."""
    trust = skull
    for _ in range(3):
        grown, turned, shifted = similarity(source.swapaxes(1, 2), target.swapaxes(1, 2), trust)
        away = target - (grown[:, None, None] * turned).astype(np.float32) @ source - shifted[..., None].astype(np.float32)
        distance = np.sqrt(np.square(away, out=away).sum(1))
        spread = (1.4826 * np.median(distance[:, skull > 0.3], axis=1) + 1e-6).astype(np.float32)
        trust = skull / (1 + np.square(distance / (2 * spread[:, None])))
    return grown, turned, shifted


def compressed(rows: Callable[[np.ndarray], np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, K) coefficients and (K, C) principal directions of count rows; rows gives those of some numbers (B,) as (B, C)."""
    few = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(int))
    sampled = np.concatenate(_in_blocks(rows, few))
    # By the products of the rows with each other: there are fewer of them than of columns.
    _, vectors = np.linalg.eigh(sampled.astype(np.float64) @ sampled.T)
    directions = np.linalg.qr(sampled.T @ vectors[:, :-_DETAILS - 1:-1])[0].T.astype(np.float32)
    if len(few) == count:
        return sampled @ directions.T, directions
    return np.concatenate(_in_blocks(lambda numbers: rows(numbers) @ directions.T, np.arange(count))), directions


def _learn(details: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(52, K) what each shape lacks on this person, by ridge regression over the take, and the details left (N, K)."""
    lacking = np.linalg.solve(weights.T @ weights + _ADAPTED * np.eye(52), weights.T @ details)
    return lacking, details - weights @ lacking


def smoothed(grid: TimeGrid, rotation: np.ndarray, translation: np.ndarray, scale: np.ndarray, weights: np.ndarray,
              details: np.ndarray, strength: Smoothing) -> tuple[np.ndarray, ...]:
    rotation, translation, scale = rotation.copy(), translation.copy(), scale.copy()
    weights, details = weights.copy(), details.copy()
    head, face, eyes = strength.head * Smoothing.HEAD, strength.face * Smoothing.FACE, strength.eyes * Smoothing.EYES
    for piece in grid.pieces():
        middle, vectors = rotation_vectors(rotation[piece])
        rotation[piece] = rotations_of(middle, smooth(vectors, grid.fps, head, np.zeros(3, int)))
        translation[piece] = smooth(translation[piece], grid.fps, head, np.zeros(3, int))
        scale[piece] = np.exp(smooth(np.log(scale[piece])[:, None], grid.fps, head))[:, 0]
        if weights.shape[1]:
            weights[piece, EYE_SHAPES] = smooth(weights[piece, EYE_SHAPES], grid.fps, eyes)
            weights[piece, ~EYE_SHAPES] = smooth(weights[piece, ~EYE_SHAPES], grid.fps, face)
        details[piece] = smooth(details[piece], grid.fps, face)
    # In gaps the last seen values are held: no motion is better than an invented one.
    held = np.maximum.accumulate(np.where(grid.seen, np.arange(len(grid.seen)), 0))
    return rotation[held], translation[held], scale[held], np.clip(weights[held], 0, 1), details[held]
