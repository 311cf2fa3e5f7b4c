"""Pictures as packed image datablocks. Touches bpy.data.images and one temporary file."""

from __future__ import annotations

import os
import tempfile

import bpy
import cv2
import numpy as np


def pack_image(name: str, pixels: np.ndarray | bytes) -> bpy.types.Image:
    """pixels (H, W, 3) uint8 sRGB as an image packed into the .blend file; name ends in .png or .jpg.

    Encoded here (or already, where a worker thread has done it) and loaded, not assigned pixel by pixel: Blender's own
    way through floats takes seconds.
    """
    if not isinstance(pixels, bytes):
        ending = os.path.splitext(name)[1]
        pixels = cv2.imencode(ending, pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(pixels)
        image = bpy.data.images.load(path)
        image.pack()
    image.name = os.path.splitext(name)[0]
    image.filepath_raw = f"//{name}"
    return image
