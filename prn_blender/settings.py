"""What the panel is set to: the PropertyGroup `scene.prn`, kept in the scene and saved with it. Registers only.

File names are relative where the .blend file is saved.
"""

import bpy
from bpy.props import EnumProperty, FloatProperty, PointerProperty, StringProperty

from .options import EYE_DISTANCE, FaceOption, ResultOptions, TakeOptions
from .scene.versions import RELATIVE_PATH


def source_changed(settings, context) -> None:
    from . import finding

    settings.face = 1
    finding.look_again(context)


def path_changed(settings, context) -> None:
    path = settings.path
    if path and not path.startswith("//") and bpy.data.filepath:
        try:
            settings.path = bpy.path.relpath(path)  # which calls this again
            return
        except ValueError:  # on another drive there is no way from here to there
            pass
    source_changed(settings, context)


def default_eye_distance(settings) -> float:
    """The scene's own, or the preferences' while the scene has none."""
    from .preferences import preferences

    chosen = preferences(bpy.context)
    return settings.get("own_eye_distance", chosen.eye_distance if chosen else 63.0)


def set_eye_distance(settings, value: float) -> None:
    settings["own_eye_distance"] = value


class PRN_Settings(bpy.types.PropertyGroup, ResultOptions, TakeOptions, FaceOption):
    source: EnumProperty(
        name="Source", description="Where the face comes from", update=source_changed,
        items=(("IMAGE", "Image", "A photo", "IMAGE_DATA", 0),
               ("MOVIE", "Movie", "A movie file", "FILE_MOVIE", 1),
               ("SEQUENCE", "Sequence", "Numbered pictures in a folder", "RENDERLAYERS", 2),
               ("STRIP", "Strip", "The active movie or image strip of the video sequencer", "SEQUENCE", 3),
               ("CLIP", "Clip", "A clip of the movie clip editor", "TRACKER", 4)))
    whole: EnumProperty(
        name="Capture", description="How much of a moving source is captured",
        items=(("TAKE", "Performance", "The whole of it, as an animated face"),
               ("STILL", "Current Frame", "One face, from the picture at the current frame")))
    path: StringProperty(name="File", description="The photo, the movie, or one picture of the sequence", update=path_changed,
                         subtype="FILE_PATH", **RELATIVE_PATH)
    eye_distance: FloatProperty(**EYE_DISTANCE, get=default_eye_distance, set=set_eye_distance)
    clip: PointerProperty(name="Clip", description="The movie clip", type=bpy.types.MovieClip, update=source_changed)
    collection: PointerProperty(name="Collection", type=bpy.types.Collection,
                                description="Where new faces go; empty: beside everything else in the scene")


def register() -> None:
    bpy.utils.register_class(PRN_Settings)
    bpy.types.Scene.prn = PointerProperty(type=PRN_Settings)


def unregister() -> None:
    del bpy.types.Scene.prn
    bpy.utils.unregister_class(PRN_Settings)
