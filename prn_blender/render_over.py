"""The command `render-over PHOTO CAPTURE TEXTURE -o PNG`: a texture, changed in any program, back over the photo.

PHOTO is the one that was captured (any size of it), CAPTURE the .blend file of it, TEXTURE the edited UV texture. Writes one
PNG of the photo's size. Touches bpy through scene/read_back.py.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .prn.errors import CaptureError


def arguments_for(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.description = "Put an edited face texture back over the photo, hidden where the face hides itself."
    parser.add_argument("photo", metavar="PHOTO", type=Path, help="the photograph that was captured")
    parser.add_argument("capture", metavar="CAPTURE", type=Path, help="the .blend file that the capture wrote")
    parser.add_argument("texture", metavar="TEXTURE", type=Path, help="the edited texture, a square picture of any size")
    parser.add_argument("-o", "--output", metavar="PNG", type=Path, required=True, help="the picture to write")
    parser.add_argument("--whole", action="store_true",
                        help="put the whole texture over the photo, and not only what differs from the capture's own")
    parser.add_argument("--over-all", action="store_true", help="also over hair, hands and glasses in front of the face")
    return parser


def render_over(photo: Path, capture: Path, texture: Path, output: Path, *, whole: bool = False, over_all: bool = False) -> float:
    """Writes `output` and returns what part of the photo has changed. Raises CaptureError if an input is wrong or the photo is not the
    captured one, OSError if the output cannot be written.
    """
    import cv2
    import numpy as np

    from .prn.image_io import load_image
    from .prn.retexture import render_over as drawn_over
    from .scene.read_back import read_faces

    if not capture.is_file() or capture.suffix.lower() != ".blend":
        raise CaptureError(f"'{capture}' is not a .blend file: give the one that the capture wrote.")
    image, edited = load_image(photo), load_image(texture)
    if edited.shape[0] != edited.shape[1]:
        raise CaptureError(f"The texture '{texture}' has {edited.shape[1]} x {edited.shape[0]} pixels: a face's texture is square.")
    meshes, aspect = read_faces(capture)
    height, width = image.shape[:2]
    if abs(height / width / aspect - 1) > 0.02:
        raise CaptureError(f"'{photo}' is not the photo that '{capture}' was made from, its sides have another ratio: give that one.")
    result = image
    # The furthest first: a head in front covers one behind it.
    for mesh in sorted(meshes, key=lambda mesh: -float(np.median(mesh.vertices[:, 2]))):
        result = drawn_over(result, mesh.vertices * width - (0.5, 0.5, 0), mesh.triangles, mesh.uvs, edited, mesh.texture,
                            whole=whole, in_front=not over_all)
    unfinished = output.with_name(f".{output.name}.part")
    try:
        unfinished.write_bytes(cv2.imencode(".png", result[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes())
        os.replace(unfinished, output)
    finally:
        unfinished.unlink(missing_ok=True)
    return float((result != image).any(-1).mean())
