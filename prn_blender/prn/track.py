"""Video -> position maps, frame by frame: the door to moving faces, as capture.py is to photographs. Never imports bpy.

frame -> crop from the last map -> batched forward passes -> maps. The detector looks at the whole frame only at the
start, at cuts, while nobody is followed, and now and then for newcomers; it looks near a face when that face is in
doubt. Frames are decoded ahead in a thread of their own. Holds two batches of frames, however long the video is. Reads the
video and the weights; writes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import cv2
import numpy as np

from .ahead import ahead
from .crop import Crop, crop_from_face_box, crop_from_landmarks, face_square, roll_of
from .detector import FaceBox, confirm_face, detect_faces
from .engine import Engine, open_engine
from .errors import CaptureCancelled
from .face_fit import similarity
from .faces import believed
from .small_map import Places, whole
from .threads import one_thread_each
from .video import Video, VideoFrame, open_video

BATCH, CALM_BATCH = 4, 8     # frames a forward pass: more take a tenth less time, but their crops lag behind a head that moves
_CALM = 0.25                # a pass is calm if no crop of it was off by this share of what has it cut again
MAX_FACES = 8               # followed at once
# A crop that its own map disagrees with by more than this is cut again from the map: share of the side, and ratio.
_OFF_CENTRE, _OFF_SIZE = 0.10, 1.15
# Degrees by which a head may lean otherwise than its crop before that leans with it, and the steps in which crops lean.
_ASLANT, _STEP = 12.0, 15.0
_CHECK_SECONDS = 0.5        # between looks at whether a followed face still is one
_SEARCH_SECONDS = 0.15      # between searches while nobody is followed
_NEWCOMER_SECONDS = 2.0     # between searches for other faces while somebody is followed
_NEARER = 1.5               # a face is nearer than another if its area is this much larger
_REMEMBERED_SECONDS = 3.0   # so long a lost face keeps its number, if it comes back where it was
_CONFIRMED = 0.8            # what the cascade itself asks of its last stage
_WINDOW = 128               # pixels of the picture in which a face is looked for again, twice its crop's side
_RESTLESS = 0.004           # of a crop's side a frame: a face that moves less stands still
_NEAR = 0.1                 # a crop that would move by less than this share of what has it cut again stays where it is
_SETTLING = 3               # passes until a detector's crop has become the map's own
_LIKENESS = 0.55            # correlation with the frame before, below which a face is in doubt
_DOUBTS = 3                 # frames in a row without a face, after which it is lost: a detector may miss one
_GREY = np.full((1, 3), 1 / 765)     # from three colours in 0..255 to their mean in 0..1
_DETAIL, _THUMBNAIL = 96, 24    # sides of the small grey pictures of a crop: to judge its sharpness, and its likeness
# RMS distance of a map's reference points from the average head's, metres, beyond which it is no face. Measured: the most
# extreme expressions 0.010, what is no face 0.015-0.04.
_MISSHAPEN = 0.0145
# A cut: the small picture (64x36) changes by this many grey levels in the mean, and its middle is found nowhere in the
# one before, not even moved by a few pixels (correlation). Measured on cuts at most 0.46, on fast pans at least 0.69.
_CUT_CHANGE, _CUT_CORRELATION = 6.0, 0.58


@dataclass(frozen=True)
class TrackedFace:
    """One face in one frame.

    Faces of one number are the same face, told by where it is; a cut gives new numbers. 0 is the first one found.
    """

    track: int
    crop: Crop  # the square that the network saw, image frame
    network_map: np.ndarray  # (256, 256, 3) or, of a quantized engine, (64, 64, 3) float32, the network's position map in crop units
    expression: np.ndarray | None  # (52,) float32 in 0..1, the network's ARKit weights; None if it gives none
    sharpness: float  # log of the crop's contrast from pixel to pixel, to compare frames of one face by

    @property
    def crop_map(self) -> np.ndarray:
        """(256, 256, 3) float32 the position map in crop units, made whole each time that it is asked for."""
        return whole(self.network_map)


@dataclass(frozen=True)
class TrackedFrame:
    """One frame with the faces that were seen in it, largest first; none is a gap."""

    index: int
    time: float  # seconds since the first frame
    image: np.ndarray  # (H, W, 3) uint8 RGB; keep it only where it is needed
    faces: list[TrackedFace]
    cut: bool  # whether a new shot begins here


@dataclass(frozen=True)
class Progress:
    """How far a video is, in one of the things that are done with it. fraction and seconds_left are None where nobody knows the video's length."""

    done: int
    total: int | None
    seconds: float
    doing: str = "frame"

    @property
    def fraction(self) -> float | None:
        return min(self.done / self.total, 1.0) if self.total else None

    @property
    def seconds_left(self) -> float | None:
        return max(self.total - self.done, 0) * self.seconds / self.done if self.total and self.done else None

    def __str__(self) -> str:
        if self.total is None:
            return f"{self.doing} {self.done}"
        left = self.seconds_left
        clock = "" if left is None else f", {int(left) // 60}:{int(left) % 60:02d} left"
        return f"{self.doing} {self.done} of {self.total}{clock}"


@dataclass(frozen=True)
class _Reading:
    """What the network makes of one crop."""

    face: TrackedFace
    own: Crop  # what the map's own landmarks ask for
    misshapen: bool  # no head at all, as when the network sees something else or half of a face
    detail: np.ndarray  # (96, 96) float32 the crop in grey


@dataclass
class _Track:
    """A face that is followed: where its next crop lies, and how sure that is."""

    number: int
    crop: Crop
    looked: Crop | None = None  # where the network last looked
    speed: np.ndarray = field(default_factory=lambda: np.zeros(3))  # of the crop: x, y pixels and log side, a frame
    thumbnail: np.ndarray | None = None
    checked: float = 0.0  # seconds: when it was last known to be a face
    seen: float = 0.0
    calm: bool = False  # whether the last crops lay where the face was
    doubts: int = 0  # frames in a row in which the detector did not see it

    def ahead(self, frames: int) -> Crop:
        """Where to look for the face so many frames later."""
        # A network's map moves a little with its crop, so what is only noise in the speed must not move the crop.
        limit = _RESTLESS * np.array([self.crop.side, self.crop.side, 1.0])
        sure = np.clip(1 - (limit / np.maximum(np.abs(self.speed), 1e-9)) ** 2, 0, 1)
        x, y, growth = self.speed * sure * frames
        wanted = Crop(self.crop.center_x + x, self.crop.center_y + y, self.crop.side * float(np.exp(growth)), self.crop.roll)
        if self.looked is None or _disagreement(wanted, self.looked) > _NEAR:
            self.looked = wanted
        return self.looked


def capture_video(
    source: str | os.PathLike | Iterable | Video,
    *,
    faces: Literal["largest", "all"] = "largest",
    fps: float | None = None,
    engine: Engine | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[TrackedFrame]:
    """Follow the faces of a video; yields every frame in order, those without a face as well.

    source: a movie, an image sequence (folder, pattern or one of its pictures), an iterable of files or of arrays
    (H, W, 3) uint8 RGB, or what `open_video` gave, whose warnings can then be read afterwards. faces: the largest (if
    somebody comes nearer, that face under a new number), or all. fps: overrides the source's rate. engine: by default
    the shipped weights. progress: called after each frame. cancelled: asked before each frame; when it says yes,
    CaptureCancelled is raised. Raises CaptureError at once, not on the first frame, if the source cannot be read.
    Runs in any thread, the source in one of its own; closing the iterator stops it.
    """
    if faces not in ("largest", "all"):
        raise ValueError(f"faces must be 'largest' or 'all', not {faces!r}")
    video = source if isinstance(source, Video) else open_video(source, fps)
    return _one_thread(_Tracker(faces, engine or open_engine(quantized=True), video.fps).run(video, progress, cancelled))


def _one_thread(frames: Iterator[TrackedFrame]) -> Iterator[TrackedFrame]:
    with one_thread_each():
        yield from frames


class _Tracker:
    def __init__(self, faces: str, engine: Engine, fps: float) -> None:
        self.all = faces == "all"
        self.engine = engine
        self.fps = fps
        self.topology = engine.topology
        self._places = Places(np.concatenate([self.topology.landmarks, self.topology.reference_texels]), engine.map_size)
        self.tracks: list[_Track] = []
        self.lost: list[_Track] = []
        self.numbers = 0
        self.searched = -np.inf  # seconds: when the whole frame was last searched

    def run(self, video: Video, progress, cancelled) -> Iterator[TrackedFrame]:
        started = time.perf_counter()
        done = 0
        batch: list[VideoFrame] = []
        cut = False

        def finished() -> Iterator[TrackedFrame]:
            nonlocal done
            for frame, found in zip(batch, self.follow(batch)):
                done += 1
                yield TrackedFrame(frame.index, frame.time, frame.image, found, cut and frame is batch[0])
                if progress:
                    progress(Progress(done, video.count, time.perf_counter() - started))

        for frame, is_cut in ahead(_with_cuts(video), CALM_BATCH):
            if cancelled and cancelled():
                raise CaptureCancelled("The capture was cancelled.")
            if batch and (is_cut or len(batch) == size or not self.tracks):
                yield from finished()
                batch, cut = [], False
            if is_cut:
                cut = True
                # Where somebody was says nothing about who is there in the next shot.
                self.tracks, self.lost = [], []
                self.searched = -np.inf
            if not batch:
                self.look_round(frame)
                size = CALM_BATCH if all(track.calm for track in self.tracks) else BATCH
            batch.append(frame)
        if batch:
            yield from finished()

    # ---- finding faces -----------------------------------------------------------------------------------------------

    def look_round(self, frame: VideoFrame) -> None:
        """Search the whole frame where it is time to, and start tracks."""
        if frame.time - self.searched < (_NEWCOMER_SECONDS if self.tracks else _SEARCH_SECONDS):
            return
        self.searched = frame.time
        found = [crop_from_face_box(box, self.engine.bundle.crop) for box in self._faces(frame)]
        found = [Crop(*(np.array([crop.center_x, crop.center_y, crop.side]) * self._scale)) for crop in found]
        if self.all:
            for crop in found:
                if len(self.tracks) < MAX_FACES and all(_apart(crop, track.crop) for track in self.tracks):
                    self._start(crop, frame)
        elif found:
            nearest = max(found, key=lambda crop: crop.side)
            current = self.tracks[0] if self.tracks else None
            if current is None:
                self._start(nearest, frame)
            elif _apart(nearest, current.crop) and nearest.side ** 2 > _NEARER * current.crop.side ** 2:
                self.lost += self.tracks
                self.tracks = []
                self._start(nearest, frame)

    def _faces(self, frame: VideoFrame) -> list[FaceBox]:
        """The faces in the whole frame; a quick look in half the time where that will do, and one of a single face is as good."""
        image = self._reduced(frame.image)
        found = []
        if self.tracks or not self.all:
            found = detect_faces(image, large=not self.all, quick=True)
        if not found and not self.tracks:
            found = detect_faces(image, large=not self.all)
        return believed(image, found)

    def _reduced(self, image: np.ndarray) -> np.ndarray:
        """The picture to search: while somebody is followed only faces of about that size matter, and few pixels do."""
        self._scale = 1.0
        if self.tracks:
            smallest = min(track.crop.side for track in self.tracks)
            # A crop of 64 pixels holds a face of 46, which the detector's coarse search finds; only larger ones are news.
            self._scale = max(1.0, smallest / (200 if self.all else 64))
        if self._scale == 1.0:
            return image
        size = max(1, round(image.shape[1] / self._scale)), max(1, round(image.shape[0] / self._scale))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def _start(self, crop: Crop, frame: VideoFrame) -> None:
        self.lost = [track for track in self.lost if frame.time - track.seen <= _REMEMBERED_SECONDS]
        known = [track for track in self.lost if not _apart(crop, track.crop)]
        if known:
            number = known[-1].number
            self.lost = [track for track in self.lost if track.number != number]
        else:
            number = self.numbers
            self.numbers += 1
        for _ in range(_SETTLING):
            track = _Track(number, crop, checked=frame.time, seen=frame.time)
            settled = self._read([(track, frame, crop)])[0]
            if settled.misshapen:
                break
            before, crop = crop, settled.own
            if _disagreement(crop, before) < _NEAR:
                break
        track.crop = crop
        self.tracks.append(track)

    # ---- following them ----------------------------------------------------------------------------------------------

    def follow(self, batch: list[VideoFrame]) -> list[list[TrackedFace]]:
        """The faces of each frame of a batch; tracks that are lost in it end."""
        found: list[list[TrackedFace]] = [[] for _ in batch]
        if not self.tracks:
            return found
        tracks = list(self.tracks)
        readings = iter(self._read([(track, frame, track.ahead(step + 1))
                                    for track in tracks for step, frame in enumerate(batch)]))
        for track, row in [(track, [next(readings) for _ in batch]) for track in tracks]:
            off = [_disagreement(reading.own, reading.face.crop) for reading in row]
            track.calm = max(off) < _CALM
            for step, (frame, reading) in enumerate(zip(batch, row)):
                if off[step] > 1:
                    # The head moved otherwise than expected: once more, where it is.
                    reading = self._read([(track, frame, reading.own)])[0]
                own = reading.own
                if reading.misshapen:
                    track.doubts += 1
                    track.speed *= 0.5
                    if track.doubts < _DOUBTS:
                        continue  # it says nothing about where the face is, and is no face to hand on
                if not self._holds(track, reading, frame):
                    # What was carried along in doubt was no face either.
                    for faces in found[max(0, step - track.doubts + 1):step]:
                        faces[:] = [other for other in faces if other.track != track.number]
                    self._drop(track)
                    break
                moved = np.array([own.center_x - track.crop.center_x, own.center_y - track.crop.center_y,
                                  np.log(own.side / track.crop.side)])
                track.speed = 0.5 * track.speed + 0.5 * np.clip(moved, *_fastest(own))
                track.crop, track.seen = own, frame.time
                found[step].append(reading.face)
        self._merge()
        for faces in found:
            faces.sort(key=lambda face: -face.crop.side)
        return found

    def _read(self, wanted: list[tuple[_Track, VideoFrame, Crop]]) -> list[_Reading]:
        """One forward pass over some crops, each with its track and its frame, those of a track one after the other."""
        size = self.engine.input_size
        # Half a pixel to or fro tells the network nothing, and such squares are cut quickly.
        crops = [crop.snapped(size) for _, _, crop in wanted]
        pictures = np.stack([crop.shown(frame.image, size) for (_, frame, _), crop in zip(wanted, crops)])
        maps, expressions = self.engine.run(pictures)
        points, count = self.topology.reference_points, len(self.topology.landmarks)
        placed = self._places.of(maps).astype(np.float64)
        landmarks, seen = placed[:, :count], placed[:, count:]
        scale, rotation, translation = similarity(points, seen, np.ones(len(points)))
        away = (seen - translation[:, None]) @ rotation / scale[:, None, None] - points
        misshapen = np.sqrt((away ** 2).sum(2).mean(1)) > _MISSHAPEN
        readings = []
        for i, ((track, _, _), crop) in enumerate(zip(wanted, crops)):
            grey = cv2.transform(cv2.resize(pictures[i], (_DETAIL, _DETAIL), interpolation=cv2.INTER_AREA).astype(np.float32), _GREY)
            sharpness = float(np.log(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))[1][0, 0] + 1e-3))
            face = TrackedFace(track.number, crop, maps[i], None if expressions is None else expressions[i], sharpness)
            # A crop leans in steps, as each of them moves the map a little.
            off = roll_of(rotation[i])
            roll = crop.roll if abs(off) < _ASLANT else _STEP * float(np.round((crop.roll + off) / _STEP))
            own = crop_from_landmarks(crop.to_image(landmarks[i]), self.engine.bundle.crop, roll)
            readings.append(_Reading(face, own, bool(misshapen[i]), grey))
        return readings

    def _holds(self, track: _Track, reading: _Reading, frame: VideoFrame) -> bool:
        """Whether there still is a face; asks the detector if time has passed or the picture has changed."""
        own = reading.own
        height, width = frame.image.shape[:2]
        inside = -0.1 * own.side < own.center_x < width + 0.1 * own.side and \
            -0.1 * own.side < own.center_y < height + 0.1 * own.side
        if not inside or not 16 < own.side < 4 * max(height, width):
            return False
        thumbnail = cv2.resize(reading.detail, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        thumbnail = thumbnail[4:-4, 4:-4] - thumbnail[4:-4, 4:-4].mean()
        before, track.thumbnail = track.thumbnail, thumbnail
        likeness = 1.0
        if before is not None:
            norms = np.linalg.norm(before) * np.linalg.norm(thumbnail)
            likeness = float((before * thumbnail).sum() / norms) if norms > 0 else 0.0
        if likeness >= _LIKENESS and frame.time - track.checked < _CHECK_SECONDS and not track.doubts:
            return True
        if is_face(frame.image, own):
            track.checked, track.doubts = frame.time, 0
        else:
            track.doubts += 1
        return track.doubts < _DOUBTS

    def _drop(self, track: _Track) -> None:
        self.tracks.remove(track)
        self.lost.append(track)
        self.searched = -np.inf

    def _merge(self) -> None:
        """Two tracks on one face: the younger ends."""
        for track in sorted(self.tracks, key=lambda track: -track.number):
            older = [other for other in self.tracks if other.number < track.number]
            if any(not _apart(track.crop, other.crop, 0.25) for other in older):
                self.tracks.remove(track)


def is_face(image: np.ndarray, crop: Crop) -> bool:
    """Whether the detector sees a face about where the crop says, looking at little more than the crop."""
    if confirm_face(face_square(crop).cut(image, 48)) > _CONFIRMED:
        return True
    # Not all of them lie as usual: another look, all round.
    wide = replace(crop, side=2 * crop.side)
    for box in detect_faces(wide.pixels(image, _WINDOW), large=True):
        found = crop_from_face_box(box)
        place = np.hypot(found.center_x - _WINDOW / 2, found.center_y - _WINDOW / 2) / (_WINDOW / 2)
        if place < 0.35 and 0.6 < found.side / (_WINDOW / 2) < 1.6:
            return True
    return False


def _apart(one: Crop, other: Crop, share: float = 0.5) -> bool:
    """Whether two crops show different faces: centres further apart than a share of the side, or sizes far off."""
    distance = np.hypot(one.center_x - other.center_x, one.center_y - other.center_y)
    return distance > share * min(one.side, other.side) or not 0.5 < one.side / other.side < 2


def _disagreement(own: Crop, crop: Crop) -> float:
    """How far a crop is from the one that its own map asks for; above 1 it is to be cut again."""
    if own.roll != crop.roll:
        return np.inf
    distance = np.hypot(own.center_x - crop.center_x, own.center_y - crop.center_y)
    return max(distance / (_OFF_CENTRE * crop.side), abs(np.log(own.side / crop.side)) / np.log(_OFF_SIZE))


def _fastest(crop: Crop) -> tuple[np.ndarray, np.ndarray]:
    """Bounds on a crop's motion in one frame that may be carried on: a map gone wrong must not throw the next one."""
    limit = np.array([0.1 * crop.side, 0.1 * crop.side, 0.05])
    return -limit, limit


def _with_cuts(video: Video) -> Iterator[tuple[VideoFrame, bool]]:
    """Each frame, and whether a new shot begins with it."""
    cuts = _Cuts()
    for frame in video:
        yield frame, cuts.begins(frame.image)


class _Cuts:
    """Tells where a new shot begins, from small grey pictures."""

    def __init__(self) -> None:
        self.small: np.ndarray | None = None

    def begins(self, image: np.ndarray) -> bool:
        # Every few pixels are enough, and reading them all would take longer than a small network.
        few = cv2.resize(image, (128, 72), interpolation=cv2.INTER_NEAREST)
        small = cv2.transform(cv2.resize(few, (64, 36), interpolation=cv2.INTER_AREA).astype(np.float32), np.full((1, 3), 1 / 3))
        before, self.small = self.small, small
        if before is None or np.abs(small - before).mean() < _CUT_CHANGE:
            return False
        middle = small[6:-6, 10:-10]
        if middle.std() < 1 or before.std() < 1:  # a plain picture correlates with nothing
            return True
        return float(cv2.matchTemplate(before, middle, cv2.TM_CCOEFF_NORMED).max()) < _CUT_CORRELATION
