"""The file as it was before something was built, to go back to when that fails or is cancelled. Touches what is new.

Undo would do the same in the window, but there is none under `blender -b`, and it would be the user's step that is lost.
"""

import bpy

KINDS = ("objects", "meshes", "cameras", "materials", "images", "actions", "sounds", "movieclips", "collections")
SETTINGS = ("camera", "frame_start", "frame_end", "frame_current")
RENDER = ("resolution_x", "resolution_y", "resolution_percentage", "pixel_aspect_x", "pixel_aspect_y", "fps", "fps_base")


class Snapshot:
    """Which datablocks there are, and the settings of a scene that a capture may change."""

    def __init__(self, scene: bpy.types.Scene) -> None:
        self._known = {piece.session_uid for kind in KINDS for piece in getattr(bpy.data, kind)}
        self._scene = scene.name
        self._settings = {name: getattr(scene, name) for name in SETTINGS if name != "camera"}
        self._camera = scene.camera.name if scene.camera else ""
        self._render = {name: getattr(scene.render, name) for name in RENDER}

    def restore(self) -> None:
        """Takes away what is new since, and gives the scene its settings back."""
        bpy.data.batch_remove([piece for kind in KINDS for piece in getattr(bpy.data, kind)
                               if piece.session_uid not in self._known])
        scene = bpy.data.scenes.get(self._scene)
        if scene is None:
            return
        for name, value in self._settings.items():
            setattr(scene, name, value)
        for name, value in self._render.items():
            setattr(scene.render, name, value)
        scene.camera = bpy.data.objects.get(self._camera)
