"""A take of weights with a topology of their own, of which no shape space is known: head motion apart from the moving surface.

tracked frames -> PlainRecorder -> solve_plain -> Performance, as of other weights, with the same time grid and smoothing, but
without identity or ARKit weights: what moves least over the take is the skull, and everything else is this take's own
shapes. numpy and OpenCV only; touches a temporary file, never bpy.
"""

from __future__ import annotations

import tempfile

import cv2
import numpy as np

from .capture import INTEROCULAR
from .errors import NoFaceError
from .face_fit import GRID, reading, similarity
from .position_map import SIZE, Topology, sample
from .stored_offsets import STORED, metres, stored
from .take import Performance, Smoothing, resized
from .take_recorder import TrackNotes
from .take_solve import compressed
from .threads import one_thread_each
from .time_grid import TimeGrid, smoothed
from .track import TrackedFace, TrackedFrame

_ROUNDS = 6                 # of finding the skull and aligning to it
_STILL = 0.0004             # metres, RMS: a point that moves no more than this against the rest belongs to the skull
_BLUR = 1.0                 # cells: a network's maps have bumps that change from frame to frame


class PlainRecorder(TrackNotes):
    """Collects one track of any topology: a few numbers a frame in memory, its maps in a temporary file."""

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.topology = topology
        step = SIZE // GRID
        self.mask = topology.mask.reshape(GRID, step, GRID, step).all((1, 3))
        self.base: np.ndarray | None = None  # (cells, 3) the first frame's face: the others are kept as offsets from it
        self.total = np.zeros((SIZE, SIZE, 3))  # of all head maps
        self._file = tempfile.TemporaryFile(prefix="prn-take-")

    def add(self, frame: TrackedFrame, face: TrackedFace) -> None:
        points = self.topology.reference_points
        seen = sample(face.crop_map, self.topology.reference_texels).astype(np.float64)
        scale, rotation, translation = similarity(points, seen, np.ones(len(points)))
        head = ((face.crop_map - translation) @ rotation / scale).astype(np.float32)
        cells = reading(head)[self.mask]
        self.base = cells if self.base is None else self.base
        self._file.write(stored(cells - self.base).tobytes())
        self.total += head
        away = (seen - translation) @ rotation / scale - points
        self.note(frame, face)
        self.judge(frame, face, float(np.sqrt((away ** 2).sum(1).mean())), scale, rotation, translation)

    def offsets(self) -> np.ndarray:
        """(N, cells, 3) as they are stored (stored_offsets.py), a view of the file."""
        self._file.flush()
        return np.memmap(self._file, STORED, "r").reshape(len(self.frames), -1, 3)


@one_thread_each()
def solve_plain(recorder: PlainRecorder, name: str, fps: float, image_size: tuple[int, int], smoothing: Smoothing = Smoothing(),
                neutral_frame: int | None = None, warnings: list[str] | None = None, source_fps: float | None = None,
                interocular: float = INTEROCULAR) -> Performance:
    """One neutral, per-frame pose and shape of a recorded track, smoothed, at `fps` frames a second; arguments as `solve`.

    The neutral is the frame that is nearest to the take's mean, or neutral_frame. Raises CaptureError if that is not among the
    recorded frames, NoFaceError if the face is hardly seen.
    """
    topology, warnings = recorder.topology, list(warnings or [])
    good = recorder.good()
    if len(good) < 2:
        raise NoFaceError(f"The face in {name} is never seen well enough: use a video in which it is larger, sharper or less hidden.")
    grid = TimeGrid(np.array(recorder.times)[good], fps, source_fps or fps)
    offsets = grid.resample(recorder.offsets(), good)
    scale, rotation, translation = recorder.resampled_poses(grid, good)

    mean = recorder.base + np.mean([metres(offset) for offset in offsets], 0)
    mean_at_first, skull = mean, np.ones(len(mean))
    for _ in range(_ROUNDS):
        pose = [similarity(mean, recorder.base + metres(offset), skull) for offset in offsets]

        def aligned(i: int) -> np.ndarray:
            grown, turned, shifted = pose[i]
            return (recorder.base + metres(offsets[i]) - shifted) @ turned / grown
        mean = np.mean([aligned(i) for i in range(len(offsets))], 0)
        spread = np.sqrt(np.mean([((aligned(i) - mean) ** 2).sum(1) for i in range(len(offsets))], 0))
        skull = 1 / (1 + (spread / _STILL) ** 2)
    translation = translation + np.array([s * r @ p[2] for s, r, p in zip(scale, rotation, pose)])
    rotation = np.array([r @ p[1] for r, p in zip(rotation, pose)])
    scale = scale * np.array([p[0] for p in pose])

    share = cv2.GaussianBlur(recorder.mask.astype(np.float32), (0, 0), _BLUR)[..., None]

    def moved(cells: np.ndarray) -> np.ndarray:
        """(64, 64, 3) offsets (cells, 3) blurred within the mask, and carried beyond it."""
        result = np.zeros((GRID, GRID, 3), np.float32)
        result[recorder.mask] = cells
        return cv2.GaussianBlur(result, (0, 0), _BLUR) / np.maximum(share, 1e-3)

    details, detail_shapes = compressed(lambda frames: np.stack([moved(aligned(i) - mean).ravel() for i in frames]), len(offsets))
    rest = calm_frame(details, recorder, grid, neutral_frame)
    at_rest = (details[rest] @ detail_shapes).reshape(GRID, GRID, 3)
    details = details - details[rest]
    none = np.zeros((len(offsets), 0))
    rotation, translation, scale, none, details = smoothed(grid, rotation, translation, scale, none, details, smoothing)

    # The fine map is the mean of all; what is finer than the cells stays the same over the take.
    neutral = (recorder.total / len(recorder.frames)).astype(np.float32) + resized(moved(mean - mean_at_first) + at_rest, SIZE)
    landmarks = topology.landmarks_of(neutral)
    metric = interocular / float(np.linalg.norm(landmarks[36:42].mean(0) - landmarks[42:48].mean(0)))
    return Performance(
        name=name, fps=fps, start=grid.start, image_size=image_size, seen=grid.seen, rotation=rotation, translation=translation,
        scale=scale / metric, weights=none.astype(np.float32), details=details.astype(np.float32),
        neutral=(neutral * metric).astype(np.float32), shapes=np.zeros((0, GRID, GRID, 3), np.float32),
        detail_shapes=(detail_shapes.reshape(-1, GRID, GRID, 3) * metric).astype(np.float32),
        identity=None, residual=None, metric=metric,
        neutral_frame=int(np.round((grid.start + rest) * (source_fps or fps) / fps)),
        key_frames=recorder.key_frames(), warnings=warnings + grid.warnings(), topology=topology)


def calm_frame(details: np.ndarray, recorder: PlainRecorder, grid: TimeGrid, chosen: int | None) -> int:
    """The chosen frame, or the one nearest to the take's mean face."""
    if chosen is not None:
        return recorder.place_of(chosen, grid, len(details))
    return int(np.argmin(np.where(grid.seen, np.linalg.norm(details, axis=1), np.inf)))
