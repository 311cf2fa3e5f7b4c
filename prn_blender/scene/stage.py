"""The scene around the faces: a fresh file for the command line, and the photo's frame. Touches bpy's scene settings."""

import bpy


def new_stage() -> bpy.types.Scene:
    """Empties the file and prepares it so that a render shows the photo's own colours under even light."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    scene = bpy.context.scene
    scene.name = "Face Capture"
    scene.view_settings.view_transform = "Standard"
    scene.render.film_transparent = True
    scene.world = bpy.data.worlds.new("Even Light")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = 1.0, 1.0, 1.0, 1.0
    return scene


def frame_photo(scene: bpy.types.Scene, camera: bpy.types.Object, width: int, height: int) -> None:
    """Makes the scene's frame the photo's: without its aspect the face would not lie over the photo."""
    scene.camera = camera
    scene.render.resolution_x = width
    scene.render.resolution_y = height
    scene.render.resolution_percentage = 100
    scene.render.pixel_aspect_x = scene.render.pixel_aspect_y = 1.0


def match_time(scene: bpy.types.Scene, fps: float, frames: int) -> None:
    """Gives the scene a video's frame rate, and a range as long as it. Only for those who asked for it."""
    whole = round(fps)
    if abs(fps - whole) < 1e-3:
        scene.render.fps, scene.render.fps_base = whole, 1.0
    else:  # 29.97 is 30 / 1.001
        scene.render.fps, scene.render.fps_base = max(1, int(-(-fps // 1))), max(1, int(-(-fps // 1))) / fps
    scene.frame_end = scene.frame_start + frames - 1
    scene.frame_set(scene.frame_start)
