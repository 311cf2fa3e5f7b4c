"""Frames from a movie, an image sequence, or any iterable of pictures: upright 8-bit RGB, each with its time.

OpenCV decodes movies (turned as their rotation metadata says), `colour` makes sRGB of them, and image_io reads
pictures. One frame at a time is in memory. Reads the files it is given and touches nothing else; what went wrong on the
way is collected in `warnings`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from .boxes import movie_facts
from .colour import BT709, UNSPECIFIED, Correction, Tags, correction
from .decoder import knows_black, name_of, quiet_decoder
from .errors import CaptureError
from .image_io import MIN_SIDE, load_image
from .inputs import PICTURES, PLACEHOLDER

DEFAULT_FPS = 24.0  # of pictures, which tell no time
# A frame's number is the last group of digits of its name: shot2_0017.png is number 17 of shot2_.
_NUMBERED = re.compile(r"^(.*?)(\d+)(\.[^.]+)$")
_MAX_FPS = 1000.0


@dataclass(frozen=True)
class VideoFrame:
    """One frame. index counts the source's own frames from 0, missing pictures of a sequence included."""

    index: int
    time: float  # seconds since the first frame
    image: np.ndarray  # (H, W, 3) uint8 RGB


@dataclass
class Video:
    """Where frames come from; iterate it once.

    fps: frames a second, the mean where the rate varies. count: how many frames are announced, None if nobody knows.
    focal: of the lens, millimetres, equivalent to a 36 x 24 mm frame's, if the file tells. warnings: sentences for the
    user, complete when the iteration has ended.
    """

    name: str
    fps: float
    count: int | None
    frames: Iterator[VideoFrame]
    warnings: list[str] = field(default_factory=list)
    focal: float | None = None

    def __iter__(self) -> Iterator[VideoFrame]:
        return self.frames


def open_video(source: str | os.PathLike | Iterable, fps: float | None = None) -> Video:
    """Open a movie file, an image sequence, or an iterable of pictures.

    source: a movie's file; a folder of pictures; a sequence's pattern (shot_####.png, shot_%04d.png) or one of its
    numbered pictures; or an iterable of files or of arrays (H, W, 3) uint8 RGB. fps: overrides the movie's own rate, and
    is the rate of pictures (24 by default). Raises CaptureError if there is nothing that can be read.
    """
    if fps is not None and not 0 < fps <= _MAX_FPS:
        raise CaptureError(f"A rate of {fps} frames a second is not possible: give a number from 1 to {_MAX_FPS:.0f}.")
    if not isinstance(source, (str, os.PathLike)):
        return _iterable(source, fps or DEFAULT_FPS)
    path = Path(source)
    if path.is_dir() or path.suffix.lower() in PICTURES:
        return _sequence(picture_numbers(path), f"'{path}'", fps or DEFAULT_FPS)
    if not path.exists():
        raise CaptureError(f"'{path}' does not exist: check the name of the movie.")
    return _movie(path, fps)


def read_frame(path: str | os.PathLike, index: int) -> np.ndarray:
    """One frame of a movie, (H, W, 3) uint8 RGB, counted from 0. Raises CaptureError if the movie has no such frame."""
    path = Path(path)
    decoder, image = _opened(path)
    try:
        read = index >= 0
        if index > 0:
            decoder.set(cv2.CAP_PROP_POS_FRAMES, index)
            read, image = decoder.read()
        if not read:
            raise CaptureError(f"'{path}' has no frame {index + 1}: choose an earlier one.")
        return _colours(movie_facts(path).tags, decoder)(image)
    finally:
        decoder.release()


# ---- movies ----------------------------------------------------------------------------------------------------------


# Codecs of cameras and of the web. What they hold in high definition is BT.709's, if nothing is said; what else is untagged is BT.601's.
_CAMERA_CODECS = ("avc1", "h264", "hevc", "hvc1", "hev1", "vp09", "vp90", "vp80", "av01", "apch", "apcn", "apcs", "apco", "ap4h", "mpg2")


def _opened(path: Path) -> tuple[cv2.VideoCapture, np.ndarray]:
    """A movie's decoder, and its first frame as it comes from there. Raises CaptureError, which says what is wrong with the file."""
    name = f"'{path}'"
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise CaptureError(f"{name} is empty: copy or download it again.")
    except OSError as error:
        raise CaptureError(f"{name} cannot be read ({error.strerror}): check the file and its permissions.") from None
    with quiet_decoder():
        decoder = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        decoder.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # it is off by default in some of OpenCV's builds
        opened, first = decoder.read() if decoder.isOpened() else (False, None)
    if not opened:
        decoder.release()
        raise CaptureError(
            f"{name} is not a movie that can be read: copy it again if it is damaged, or convert it to MP4 (H.264)."
        )
    if min(first.shape[:2]) < MIN_SIDE:
        decoder.release()
        raise CaptureError(f"{name} has only {first.shape[1]} x {first.shape[0]} pixels: the face must be 40 pixels wide.")
    return decoder, first


def _movie(path: Path, fps: float | None) -> Video:
    decoder, first = _opened(path)
    told = decoder.get(cv2.CAP_PROP_FPS)
    rate = fps or (told if math.isfinite(told) and 0 < told <= _MAX_FPS else DEFAULT_FPS)
    announced = int(decoder.get(cv2.CAP_PROP_FRAME_COUNT))
    video = Video(f"'{path}'", rate, announced if announced > 0 else None, iter(()))
    facts = movie_facts(path)
    video.focal = facts.focal
    video.frames = _decoded(decoder, first, video, _colours(facts.tags, decoder), timed=fps is None)
    return video


def _colours(tags: Tags | None, decoder: cv2.VideoCapture) -> Correction:
    """What makes sRGB of the decoder's pictures. tags: what the file says of them."""
    tags = tags or Tags(UNSPECIFIED, UNSPECIFIED, UNSPECIFIED)
    size = sorted(decoder.get(number) for number in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if tags.matrix == UNSPECIFIED and (size[1] >= 1280 or size[0] > 576) and name_of(decoder, cv2.CAP_PROP_FOURCC) in _CAMERA_CODECS:
        tags = tags._replace(matrix=BT709)
    return correction(tags, taken_for_limited=not knows_black(decoder))


def _decoded(decoder: cv2.VideoCapture, image: np.ndarray, video: Video, to_rgb: Correction,
             timed: bool) -> Iterator[VideoFrame]:
    try:
        start, last, index = decoder.get(cv2.CAP_PROP_POS_MSEC) / 1000, -1.0, 0
        while True:
            time = decoder.get(cv2.CAP_PROP_POS_MSEC) / 1000 - start
            # Some files carry no times, or wrong ones: then the frames are taken to follow each other evenly.
            if not timed or not math.isfinite(time) or time <= last:
                time = last + 1 / video.fps if index else 0.0
            last = time
            yield VideoFrame(index, time, to_rgb(image))
            index += 1
            more, image = decoder.read()
            if not more:
                break
    finally:
        decoder.release()
    # The announced number is an estimate in some formats; a few frames less are no loss.
    if video.count is not None and index < video.count - max(2, 0.02 * video.count):
        video.warnings.append(
            f"{video.name} ends early: {index} of {video.count} frames could be read and were kept."
        )
    video.count = index


# ---- pictures --------------------------------------------------------------------------------------------------------


def picture_numbers(source: Path) -> list[tuple[int, Path]]:
    """The pictures of a sequence with their frame numbers, in order: from its folder, pattern, or one of them.

    Raises CaptureError if there are none.
    """
    if source.is_dir():
        pictures = _pictures_of_folder(source)
    elif source.exists():
        pictures = _siblings(source)
    elif PLACEHOLDER.search(source.name):
        pictures = _pictures_of_pattern(source)
    else:
        raise CaptureError(f"'{source}' does not exist: check the name of the movie.")
    # Numbers with holes this large are dates or times, and count nothing.
    if pictures[-1][0] - pictures[0][0] >= 10 * len(pictures):
        return list(enumerate(path for _, path in pictures))
    return pictures


def _pictures_of_folder(folder: Path) -> list[tuple[int, Path]]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not path.name.startswith(".")]
    if not files:
        raise CaptureError(f"The folder '{folder}' holds no pictures: give a movie, or a folder with the frames of one.")
    matches = {path: _NUMBERED.match(path.name) for path in files}
    stems = {(match.group(1), match.group(3)) if match else None for match in matches.values()}
    if None not in stems and len(stems) == 1:
        return sorted((int(match.group(2)), path) for path, match in matches.items())
    return list(enumerate(sorted(files)))


def _pictures_of_pattern(pattern: Path) -> list[tuple[int, Path]]:
    place = PLACEHOLDER.search(pattern.name)
    digits = re.compile(re.escape(pattern.name[:place.start()]) + r"(\d+)" + re.escape(pattern.name[place.end():]) + "$")
    found = []
    if pattern.parent.is_dir():
        found = [(int(match.group(1)), path) for path in pattern.parent.iterdir() if (match := digits.match(path.name))]
    if not found:
        raise CaptureError(f"No pictures are named like '{pattern}': check the sequence's name and its folder.")
    return sorted(found)


def _siblings(path: Path) -> list[tuple[int, Path]]:
    """The sequence that a numbered picture belongs to; a picture without a number is a sequence of one."""
    match = _NUMBERED.match(path.name)
    if not match:
        return [(0, path)]
    start, _, ending = match.groups()
    return _pictures_of_pattern(path.with_name(f"{start}####{ending}"))


def _sequence(pictures: list[tuple[int, Path]], name: str, fps: float) -> Video:
    first = pictures[0][0]
    video = Video(name, fps, pictures[-1][0] - first + 1, iter(()))
    video.frames = _loaded(pictures, first, video)
    load_image(pictures[0][1])  # what is no picture at all is said at once
    return video


def _loaded(pictures: list[tuple[int, Path]], first: int, video: Video) -> Iterator[VideoFrame]:
    unread = []
    for number, path in pictures:
        try:
            image = load_image(path)
        except CaptureError:
            unread.append(path.name)
            continue
        yield VideoFrame(number - first, (number - first) / video.fps, image)
    missing = video.count - len(pictures)
    if missing:
        video.warnings.append(f"{video.name} lacks {missing} of its {video.count} pictures: they count as gaps.")
    if unread:
        video.warnings.append(f"{len(unread)} pictures of {video.name} could not be read, the first is {unread[0]}.")


def _iterable(source: Iterable, fps: float) -> Video:
    try:
        count = len(source)
    except TypeError:
        count = None
    if count == 0:
        raise CaptureError("There are no frames: give a movie, or pictures.")
    video = Video("the frames", fps, count, iter(()))
    video.frames = _given(source, video)
    return video


def _given(source: Iterable, video: Video) -> Iterator[VideoFrame]:
    index = -1
    for index, item in enumerate(source):
        image = item if isinstance(item, np.ndarray) else load_image(item)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < MIN_SIDE:
            raise CaptureError(
                f"Frame {index} has shape {image.shape} and type {image.dtype}: give arrays (height, width, 3) of "
                f"uint8 RGB with at least {MIN_SIDE} pixels a side."
            )
        yield VideoFrame(index, index / video.fps, image)
    video.count = index + 1
