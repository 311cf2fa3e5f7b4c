"""Pictures as packed image datablocks. Touches bpy.data.images and one temporary file."""

import os
import tempfile

import bpy
import cv2
import numpy as np


def pack_image(name: str, pixels: np.ndarray) -> bpy.types.Image:
    """pixels (H, W, 3) uint8 sRGB as an image packed into the .blend file; name ends in .png or .jpg.

    Encoded here and loaded, not assigned pixel by pixel: Blender's own way through floats takes seconds.
    """
    encoded, data = cv2.imencode(os.path.splitext(name)[1], pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        data.tofile(path)
        image = bpy.data.images.load(path)
        image.pack()
    image.name = os.path.splitext(name)[0]
    image.filepath_raw = f"//{name}"
    return image
