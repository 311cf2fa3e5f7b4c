"""The video behind the face and its sound beside it. Touches bpy.data.images, the camera's background, the sequencer."""

from __future__ import annotations

from pathlib import Path

import bpy

from ..prn.inputs import MOVIES
from ..prn.video import picture_numbers
from . import versions


def load_footage(source: Path) -> bpy.types.Image:
    """A movie, or a sequence of pictures given as `open_video` takes it, as an image datablock; the files stay outside."""
    if source.suffix.lower() in MOVIES:
        image = bpy.data.images.load(str(source.absolute()))
    else:
        image = bpy.data.images.load(str(picture_numbers(source)[0][1].absolute()))
        image.source = "SEQUENCE"
    image.name = "Face Footage"
    return image


def show_behind(camera: bpy.types.Object, footage: bpy.types.Image, source: Path, first: int, frames: int,
                skipped: int = 0) -> None:
    """Plays the footage behind the camera's picture, its first frame that is not skipped at the scene's frame `first`."""
    user = camera.data.background_images[0].image_user
    user.frame_start = first
    user.frame_duration = frames
    user.frame_offset = skipped
    if footage.source == "SEQUENCE":
        user.frame_offset += picture_numbers(source)[0][0] - 1
    user.use_auto_refresh = True


def add_sound(scene: bpy.types.Scene, movie: Path, first: int):
    """The movie's sound as a strip of the sequencer that begins at frame `first`; None if the movie is silent."""
    if not scene.sequence_editor:
        scene.sequence_editor_create()
    strips = versions.sequencer_strips(scene.sequence_editor)
    channel = max((strip.channel for strip in strips), default=0) + 1
    try:
        strip = strips.new_sound(movie.stem, str(movie.absolute()), channel, first)
    except RuntimeError:  # no sound in it, or none that can be decoded
        return None
    if strip.frame_final_duration <= 1:
        strips.remove(strip)
        return None
    return strip
