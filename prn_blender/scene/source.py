"""The panel's source (a file, the sequencer's active strip, a movie clip) as plain footage. Reads bpy, changes nothing.

Footage holds no bpy data, so that a worker thread may have it, and so that it outlives the strip it was made from.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_rpt as rpt_

from ..footage import Footage, Picture
from ..prn.errors import CaptureError
from . import versions


def absolute(path: str) -> Path:
    return Path(os.path.normpath(bpy.path.abspath(path)))


def footage_of(scene: bpy.types.Scene, settings) -> Footage:
    """What the settings' source shows, over the whole of it. Raises CaptureError, in one sentence, if there is nothing."""
    return {"IMAGE": of_image, "MOVIE": of_movie, "SEQUENCE": of_sequence, "STRIP": of_strip,
            "CLIP": of_clip}[settings.source](scene, settings)


def missing(scene: bpy.types.Scene, settings) -> str | None:
    """What has to be chosen before there is a source, in a sentence, or None. Quick: looks at no file."""
    if settings.source == "STRIP":
        return missing_strip(scene)
    if settings.source == "CLIP":
        return None if settings.clip else rpt_("Choose a movie clip, or open one in the movie clip editor.")
    path = settings.path
    if not path:
        return {"IMAGE": rpt_("Choose a photo with a face in it."), "MOVIE": rpt_("Choose a movie with a face in it."),
                "SEQUENCE": rpt_("Choose one picture of the sequence.")}[settings.source]
    return None


def missing_strip(scene: bpy.types.Scene) -> str | None:
    strip = active_strip(scene)
    if strip is None:
        return rpt_("Select a movie or image strip in the video sequencer.")
    if unwrapped(strip)[0].type not in ("MOVIE", "IMAGE"):
        return rpt_("The active strip is neither a movie nor an image: select another one in the video sequencer.")
    return None


# ---- files -----------------------------------------------------------------------------------------------------------


def of_image(scene, settings) -> Footage:
    path = absolute(settings.path)
    return Footage(path, (Picture(path),), scene.frame_current)


def of_movie(scene, settings) -> Footage:
    return movie(absolute(settings.path), scene.frame_start)


def movie(path: Path, start: int) -> Footage:
    from ..prn.video import open_video

    video = open_video(path)
    video.frames.close()
    return Footage(path, tuple(Picture(path, index) for index in range(video.count or 1)), start, sound=True)


def of_sequence(scene, settings) -> Footage:
    from ..prn.video import picture_numbers

    files = [path for _, path in picture_numbers(absolute(settings.path))]
    return Footage(files[0], tuple(Picture(path) for path in files), scene.frame_start)


def of_clip(scene, settings) -> Footage:
    clip = settings.clip
    path = absolute(clip.filepath)
    if clip.source == "SEQUENCE":
        from ..prn.video import picture_numbers

        files = [file for _, file in picture_numbers(path)][max(clip.frame_offset, 0):]
        return Footage(path, tuple(Picture(file) for file in files), clip.frame_start)
    footage = movie(path, clip.frame_start)
    return Footage(path, footage.pictures[max(clip.frame_offset, 0):], clip.frame_start, sound=True)


# ---- strips ----------------------------------------------------------------------------------------------------------


def active_strip(scene: bpy.types.Scene):
    editor = scene.sequence_editor
    return editor.active_strip if editor else None


def unwrapped(strip) -> tuple:
    """The strip that holds the pictures, and the speed effect over it or None."""
    if strip.type == "SPEED" and strip.input_1:
        return strip.input_1, strip
    return strip, None


def of_strip(scene, settings) -> Footage:
    """What the active strip shows from its first visible frame to its last, through trimming, offset and speed."""
    reason = missing_strip(scene)
    if reason:
        raise CaptureError(reason)
    shown = active_strip(scene)
    strip, speed = unwrapped(shown)
    source_frame = frames_of(strip)
    if speed is not None:
        source_frame = through_speed(strip, speed, source_frame)
    frames = range(shown.frame_final_start, shown.frame_final_end)
    if strip.type == "IMAGE":
        folder = absolute(strip.directory)
        names = [element.filename for element in strip.elements]
        files = [folder / names[min(max(source_frame(frame), 0), len(names) - 1)] for frame in frames]
        return Footage(files[0], tuple(Picture(file) for file in files), frames.start)
    path = absolute(strip.filepath)
    return Footage(path, tuple(Picture(path, source_frame(frame)) for frame in frames), frames.start, sound=True)


def frames_of(strip) -> Callable[[int], int]:
    """Scene frame -> index of the picture in the strip's own file or files.

    A strip plays at the rate of movie over scene, or as its two retiming keys say. Blender tells neither rate, but how
    many frames the whole content covers on the timeline.
    """
    keys = [key.timeline_frame for key in getattr(strip, "retiming_keys", ())]  # 4.2 has none on image strips
    if len(keys) > 2:
        raise CaptureError(rpt_("The strip's speed changes on the way: remove its retiming keys between the first and the last, "
                                "or render it to a movie and capture that."))
    start = strip.frame_start
    first = int(strip.animation_offset_start)
    count = max(1, pictures_in(strip) - first - int(strip.animation_offset_end))  # between the hard trims
    if len(keys) == 2:
        rate = (count - 1) / max(keys[1] - keys[0], 1)
    else:
        rate = count / max(strip.frame_final_end + strip.frame_offset_end - start, 1)
    if count == 1:
        rate = 0.0  # one picture, however long
    backwards, strobe = bool(strip.use_reverse_frames), max(1, int(strip.strobe))

    def source_frame(scene_frame: int) -> int:
        place = (scene_frame - start) * rate
        index = nearest(min(max(count - 1 - place if backwards else place, 0), count - 1))
        return first + index - index % strobe

    return source_frame


def pictures_in(strip) -> int:
    """How many pictures the strip's files have, trimmed away or not."""
    if strip.type == "IMAGE":
        return len(strip.elements)
    return len(movie(absolute(strip.filepath), 0).pictures)


def nearest(place: float) -> int:
    """The picture that Blender shows at a place between two."""
    return math.floor(place + 0.5)


def through_speed(strip, speed, source_frame: Callable[[int], int]) -> Callable[[int], int]:
    """The same through a Speed Control strip that multiplies or stretches."""
    start, length = strip.frame_final_start, strip.frame_final_duration
    if speed.speed_control == "MULTIPLY":
        factor = speed.speed_factor
    elif speed.speed_control == "STRETCH":
        factor = length / max(speed.frame_final_duration, 1)
    else:
        raise CaptureError(rpt_("The speed strip follows a length or frame numbers: set it to Multiply or Stretch, "
                                "or render it to a movie and capture that."))
    if versions.is_animated(speed, "speed_factor"):
        raise CaptureError(rpt_("The speed strip's speed is animated: render it to a movie and capture that."))
    return lambda scene_frame: source_frame(start + versions.speed_strip_frame((scene_frame - speed.frame_final_start) * factor))
