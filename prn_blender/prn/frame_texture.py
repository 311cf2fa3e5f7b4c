"""A texture for every frame of a take: what each frame shows of the face, and the take's one texture where it shows nothing.

performance + its video once more -> numbered pictures, in the layout of the position map or of the head. They follow the
scene's frames, whatever its rate. numpy and OpenCV only; writes one folder.
"""

from __future__ import annotations

import shutil
import tempfile
import time as clock
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .ahead import ahead
from .capture import FaceCapture, angles, visibility_of
from .crop import Crop
from .detector import FaceBox
from .errors import CaptureError
from .head_texture import complete_head, size_on_map
from .take import Performance
from .take_texture import in_light_of, laid_over, merged
from .texture import seen_colours
from .track import Progress
from .video import Video, VideoFrame

QUALITY = 92                # of the JPEG pictures
_DECODED = 4                # frames decoded ahead


@dataclass(frozen=True)
class FrameTextures:
    """Numbered pictures, one a frame of the scene."""

    first: Path  # the first of them, number 1
    count: int
    start: int  # frames of the scene from the video's beginning to the first of them


def frames_shown(performance: Performance, rate: float) -> tuple[int, np.ndarray]:
    """The first frame, counted from the video's beginning, of a scene of `rate` frames a second that shows the performance,
    and which of the performance's frames it and each following one shows (count,)."""
    first, last = (place * rate / performance.fps for place in (performance.start, performance.start + len(performance) - 1))
    shown = np.arange(int(np.floor(first + 1e-6)), int(np.ceil(last - 1e-6)) + 1)
    frames = np.rint(shown * performance.fps / rate).astype(int) - performance.start
    return int(shown[0]), np.clip(frames, 0, len(performance) - 1)


def write_frame_textures(performance: Performance, video: Video, folder: Path, size: int = 2048, topology: str = "grid",
                         rate: float | None = None, announce: Callable[[str], None] | None = None,
                         progress: Callable[[Progress], None] | None = None) -> FrameTextures:
    """Writes `folder`/NAME_0001.jpg and on, NAME being the folder's name; pictures of an earlier run are replaced.

    video: the one that the performance is of, opened anew. size: side of the pictures, pixels. topology: "head" for hm08's own
    UV layout, otherwise the map's. rate: the scene's frames a second, by default the performance's. announce: called with one
    sentence on the disk space before the first picture is made. progress: called after each picture; what it raises leaves
    nothing behind. Raises CaptureError if the disk has not enough space.
    """
    start, frames = frames_shown(performance, rate or performance.fps)
    still, known = merged(performance, size_on_map(size) if topology == "head" else size)

    def encoded(texture: np.ndarray) -> bytes:
        texture = complete_head(texture, known, size) if topology == "head" else texture
        return cv2.imencode(".jpg", texture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()

    hidden = encoded(still)  # for the frames in which nobody is seen
    needed, free = 1.2 * len(frames) * len(hidden) / 1e6, shutil.disk_usage(folder.parent).free / 1e6
    if needed > free:
        raise CaptureError(f"A texture for each of {len(frames)} frames takes about {needed:.0f} MB, and only {free:.0f} MB are "
                           f"free in '{folder.parent}': choose a smaller texture, or one for the whole take.")
    if announce:
        announce(f"A texture for each of {len(frames)} frames, {size} x {size} pixels: about {needed:.0f} MB in '{folder}'.")
    started = clock.perf_counter()
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        pictures = ahead(nearest(video, (performance.start + frames) / performance.fps), _DECODED)
        for number, (frame, picture) in enumerate(zip(frames, pictures), 1):
            seen = performance.seen[frame]
            content = encoded(frame_texture(performance, frame, picture, still)) if seen else hidden
            (unfinished / f"{folder.name}_{number:04d}.jpg").write_bytes(content)
            if progress:
                progress(Progress(number, len(frames), clock.perf_counter() - started))
        folder.mkdir(exist_ok=True)
        for old in folder.glob(f"{folder.name}_[0-9]*.jpg"):
            old.unlink()
        for new in unfinished.iterdir():
            new.replace(folder / new.name)
    finally:
        shutil.rmtree(unfinished)
    return FrameTextures(folder / f"{folder.name}_0001.jpg", len(frames), start)


def nearest(video: Iterable[VideoFrame], times: np.ndarray) -> Iterator[np.ndarray]:
    """The pictures of the frames nearest to rising times, seconds; the last one stands if the video ends."""
    frames = iter(video)
    before = after = next(frames)
    for time in times:
        while after.time < time and (following := next(frames, None)) is not None:
            before, after = after, following
        yield before.image if time - before.time < after.time - time else after.image


def frame_texture(performance: Performance, frame: int, picture: np.ndarray, still: np.ndarray) -> np.ndarray:
    """(size, size, 3) uint8 what a frame shows, and the take's texture (size, size, 3), in the frame's light, where it shows nothing."""
    colours, seen, clear = seen_colours(frame_capture(performance, frame, picture), len(still))
    return laid_over(colours, in_light_of(colours, still, clear), 1 - seen)


def frame_capture(performance: Performance, frame: int, picture: np.ndarray) -> FaceCapture:
    """A frame as the capture of a photograph, with the take's smooth surface where the network had its own."""
    scale, rotation, translation = (values[frame] for values in (performance.scale, performance.rotation, performance.translation))
    head_map = performance.head_map(frame)
    position_map = performance.seen_at(frame, head_map).astype(np.float32)
    low, high = position_map[..., :2].min((0, 1)), position_map[..., :2].max((0, 1))
    yaw, pitch, roll = angles(rotation)
    return FaceCapture(
        image=picture, box=FaceBox(*low, *(high - low), 1.0), crop=Crop(*((low + high) / 2), float((high - low).max())),
        position_map=position_map, raw_position_map=position_map, expression=performance.weights[frame], rotation=rotation,
        translation=translation, pixels_per_metre=float(scale), head_map=head_map,
        visibility=visibility_of(position_map, performance.topology), yaw=yaw, pitch=pitch, roll=roll, seconds={},
        topology=performance.topology, lens=performance.lens)
