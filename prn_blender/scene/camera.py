"""The camera that sees what the photographer saw: orthographic, or where the photo tells its lens in perspective.

Touches bpy.data.cameras and objects.
"""

import math

import bpy

# Metres in front of the faces. An orthographic picture does not depend on it; near as this, and blind beyond as much
# again behind the faces, the camera does not see the new scene's cube in front of them or between them and the photo.
DISTANCE = 0.6


def build_camera(name: str, photo: bpy.types.Image | None, width: int, pixels_per_metre: float,
                 middle: tuple[float, float, float], focal: float | None = None) -> bpy.types.Object:
    """A camera whose frame is the photo (if there is one to show), `width` pixels wide; the photo's middle lies at `middle` in the world.

    focal: in pixels, of `prn.lens.Lens`; None: orthographic. The scene's render resolution has to have the photo's aspect; see
    stage.frame_photo.
    """
    data = bpy.data.cameras.new(name)
    data.sensor_fit = "HORIZONTAL"
    distance = DISTANCE
    if focal is None:
        data.type = "ORTHO"
        data.ortho_scale = width / pixels_per_metre
    else:
        data.lens = data.sensor_width * focal / width
        distance = focal / pixels_per_metre
    data.clip_start, data.clip_end = max(0.01, distance - DISTANCE), distance + DISTANCE
    data.display_size = 0.2
    if photo:
        data.show_background_images = True
        background = data.background_images.new()
        background.image = photo
        background.alpha = 1.0
        background.frame_method = "FIT"
    camera = bpy.data.objects.new(name, data)
    camera.location = middle[0], middle[1] - distance, middle[2]
    camera.rotation_euler = math.pi / 2, 0.0, 0.0
    return camera
