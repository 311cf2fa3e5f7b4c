"""Footage to a performance: the work that the video operator gives to a thread. Never imports bpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from .footage import Footage, Picture
from .prn.engine import EngineChoice, open_engine
from .prn.errors import CaptureCancelled
from .prn.frame_texture import FrameTextures, write_frame_textures
from .prn.image_io import load_image
from .prn.performance import SKIN, capture_performance
from .prn.take import Performance
from .prn.take_texture import make_take_skin, make_take_texture
from .prn.track import Progress
from .prn.video import Video, VideoFrame, open_video, read_frame
from .stills import Kept, encode, file_state

TRACKED, FOLLOWED = 0.55, 0.9  # of the whole work: when the face is tracked, and its skin followed


@dataclass(frozen=True)
class TakeRequest:
    source: Path | Footage  # a file as `open_video` takes it, or footage whose pictures follow each other at `fps`
    fps: float | None = None  # of footage: the scene's rate
    face: int = 1
    interocular: float = 0.063  # metres
    focal: float = 0.0  # millimetres, equivalent to a 36 x 24 mm frame's; 0: what the file tells
    topology: str = "grid"  # whose UV layout the texture is in
    texture_size: int | None = 2048  # None: no texture is wanted
    engine: EngineChoice = EngineChoice()
    frame_textures: Path | None = None  # the folder for a texture a frame; None: one for the whole take
    rate: float | None = None  # of the scene that is to show these; None: the video's
    quick: bool = False  # without following the skin


@dataclass(frozen=True)
class Take:
    performance: Performance
    texture: bytes | FrameTextures | None  # PNG, or pictures in a folder


_performances = Kept(1)  # so that another way of building, in the redo panel, does not begin with the video anew


def capture_take(request: TakeRequest, job) -> Take:
    """The whole work. job: as in jobs.py. Raises CaptureError in one sentence, or jobs.Cancelled."""
    path = request.source if isinstance(request.source, Path) else request.source.path
    key = replace(request, texture_size=None, topology="", frame_textures=None, rate=None), file_state(path)
    performance = _performances.get(key, partial(_perform, request, job))
    texture = None
    if request.frame_textures:
        texture = write_frame_textures(
            performance, _video(request), request.frame_textures, request.texture_size, request.topology, request.rate,
            progress=lambda progress: job.report("Making the textures", progress.fraction))
    elif request.texture_size:
        job.report("Making the texture", 0.95)
        make = make_take_skin if request.topology == "head" else make_take_texture
        texture = encode(".png", make(performance, request.texture_size))
    job.report("Building the face", 1.0)
    return Take(performance, texture)


def _perform(request: TakeRequest, job) -> Performance:
    def follow(progress: Progress) -> None:
        fraction = progress.fraction
        if progress.doing == SKIN:
            job.report("Following the skin", TRACKED + (FOLLOWED - TRACKED) * fraction)
        else:
            job.report("Following the face", None if fraction is None else fraction * (FOLLOWED if request.quick else TRACKED))
    try:
        return capture_performance(_video(request), face=request.face, interocular=request.interocular, focal=request.focal or None, quick=request.quick,
                                   engine=open_engine(request.engine, quantized=True), progress=follow, cancelled=lambda: job.cancelled)
    except CaptureCancelled:
        job.report()  # leaves by jobs.Cancelled, as all other work does
        raise


def _video(request: TakeRequest) -> Video:
    return open_video(request.source) if isinstance(request.source, Path) else footage_video(request.source, request.fps)


def forget() -> None:
    """Lets go of the performance that is kept."""
    _performances.clear()


def footage_video(footage: Footage, fps: float) -> Video:
    """Footage as a video: one frame a scene frame, through whatever trims and speeds it has."""
    return Video(f"'{footage.path}'", fps, len(footage.pictures), _frames(footage, fps))


def _frames(footage: Footage, fps: float) -> Iterator[VideoFrame]:
    read = _reader(footage)
    for index, picture in enumerate(footage.pictures):
        yield VideoFrame(index, index / fps, read(picture))


def _reader(footage: Footage) -> Callable[[Picture], np.ndarray]:
    """Reads pictures of the footage; a movie is decoded onwards from one to the next, and sought in only to go back."""
    movie: Iterator[VideoFrame] | None = None
    last: VideoFrame | None = None

    def read(picture: Picture) -> np.ndarray:
        nonlocal movie, last
        if picture.frame is None:
            return load_image(picture.path)
        if last is not None and picture.frame < last.index:
            return read_frame(picture.path, picture.frame)
        movie = movie or iter(open_video(picture.path))
        while last is None or last.index < picture.frame:
            frame = next(movie, None)
            if frame is None:
                break  # the movie ends early: its last frame stands, as in Blender's sequencer
            last = frame
        return last.image
    return read
