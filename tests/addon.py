"""The add-on as the tests use it: registered in an empty file, with or without the shipped network. Needs bpy."""

import contextlib
from pathlib import Path

import bpy
import numpy as np

import prn_blender
from bundles import write_constant_bundle
from prn_blender import stills
from prn_blender.prn.position_map import load_topology

PORTRAIT = Path(__file__).parent / "data" / "astronaut.jpg"


@contextlib.contextmanager
def registered():
    """The add-on in an empty file, enabled in the preferences, and gone again afterwards."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    entry = bpy.context.preferences.addons.new()
    entry.module = prn_blender.__name__
    prn_blender.register()
    stills.forget()
    try:
        yield bpy.context.preferences.addons[prn_blender.__name__].preferences
    finally:
        prn_blender.unregister()
        bpy.context.preferences.addons.remove(bpy.context.preferences.addons[prn_blender.__name__])


def mean_face_bundle(folder: Path) -> Path:
    """A bundle whose network sees the mean face in every crop."""
    return write_constant_bundle(folder, (load_topology().mean / 0.21).astype(np.float32))


def group_photo(path: Path) -> Path:
    """The portrait twice in one picture, the larger one at the right: 1 is the right face."""
    import cv2

    photo = cv2.imread(str(PORTRAIT))
    small = cv2.resize(photo, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    picture = np.full((512, 900, 3), 90, np.uint8)
    picture[:384, :384] = small
    picture[:, 388:] = photo
    cv2.imwrite(str(path), picture)
    return path
