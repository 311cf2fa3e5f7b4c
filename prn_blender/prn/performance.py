"""From a video to a performance: what one tracked face did, as one person's neutral, head motion and expression apart.

video -> track.py -> Recorder (take_recorder.py) -> solve (take_solve.py) -> Performance (take.py). numpy and OpenCV only;
touches the video it is given, never bpy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np

from .capture import INTEROCULAR
from .engine import Engine, open_engine
from .errors import CaptureCancelled, CaptureError, NoFaceError
from .face_fit import load_shape_space
from .lens import lens_of
from .plain_take import PlainRecorder, solve_plain
from .position_map import HM08
from .take import Performance, Smoothing
from .take_recorder import Recorder, TrackNotes
from .take_solve import solve
from .track import Progress, capture_video
from .video import Video, open_video

SKIN = "skin of frame"      # what a Progress is of, after the tracking


def capture_performance(
    source: str | os.PathLike | Iterable | Video,
    *,
    face: int = 1,
    fps: float | None = None,
    smoothing: Smoothing = Smoothing(),
    neutral_frame: int | None = None,
    interocular: float = INTEROCULAR,
    focal: float | None = None,
    quick: bool = False,
    engine: Engine | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Performance:
    """From a video to one person's performance: `capture_video`, then the take's solve. Runs in any thread.

    face: 1 is the face that takes up most of the video, 2 the next one, and so on. fps: of the result; the video's own by
    default. neutral_frame: the video's frame in which the face is at rest; by default the calmest one is found. Weights with a
    topology of their own give a performance without ARKit weights (plain_take.py).
    interocular: the real distance between the eyes' centres in metres, which sets the scale. focal: as for `capture_image`. quick: without following the skin
    (skin_motion.py), in three fifths of the time: small expressions come out weaker. Other arguments are those of
    `capture_video`. Raises NoFaceError if nobody is seen, CaptureError for a wrong request.
    """
    if face < 1:
        raise CaptureError(f"There is no face {face}: faces are counted from 1.")
    if fps is not None and not 1 <= fps <= 240:
        raise CaptureError(f"A rate of {fps:g} frames a second is not possible: give a number from 1 to 240.")
    engine = engine or open_engine(quantized=True)
    video = source if isinstance(source, Video) else open_video(source)
    # Somebody else than the largest can only be chosen if all are followed.
    recorders, size, last = record(video, "largest" if face == 1 else "all", engine, progress, cancelled, quick, focal or video.focal)
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
           cancelled: Callable[[], bool] | None = None, quick: bool = False, focal: float | None = None) -> tuple[list[TrackNotes], tuple[int, int], float]:
    """The finished recorders of all tracks of a video, its pictures' width and height, and the last one's time in seconds.

    Arguments are those of `capture_video` and `capture_performance`. Recorders are PlainRecorders if the weights have a topology of their own: without
    a shape space there is neither identity nor expression to solve for.
    """
    recorders: dict[int, TrackNotes] = {}
    size, last = (0, 0), 0.0
    for frame in capture_video(video, faces=faces, engine=engine, progress=progress, cancelled=cancelled):
        size, last = size if size[0] else frame.image.shape[1::-1], frame.time
        for seen in frame.faces:
            if seen.track not in recorders:
                recorders[seen.track] = Recorder(load_shape_space(), not quick, lens_of(focal, *size) if focal else None) \
                    if engine.topology.name == HM08 else PlainRecorder(engine.topology)
            recorders[seen.track].add(frame, seen)
    for recorder in recorders.values():
        recorder.finish()
    return list(recorders.values()), size, last
