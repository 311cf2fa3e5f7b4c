"""From a real photo to a file with the shipped weights: what the README's first command does. Needs bpy."""

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view

from prn_blender import command_line
from prn_blender.prn.position_map import load_topology

from test_command_line import PORTRAIT

EYES = {36: (198, 103), 45: (253, 104)}  # the eyes' outer corners in the portrait, read off by eye, pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One capture of the portrait, read back: the scene is in bpy, the files are in the folder."""
    folder = tmp_path_factory.mktemp("whole")
    assert command_line.main(["capture", str(PORTRAIT), "-o", str(folder / "face.blend"), "--preview",
                              str(folder / "look.png")]) == 0
    return folder


@pytest.fixture
def scene(folder):
    bpy.ops.wm.open_mainfile(filepath=str(folder / "face.blend"))
    return bpy.context.scene


def test_the_file_shows_the_face_over_the_photo(scene):
    face, camera = bpy.data.objects["Face"], bpy.data.objects["Face Camera"]
    photo = camera.data.background_images[0].image
    texels = load_topology().grid(1).texel_coordinates
    for landmark, place in EYES.items():
        vertex = np.argmin(np.linalg.norm(texels - load_topology().landmarks[landmark], axis=1))
        seen = world_to_camera_view(scene, camera, face.matrix_world @ face.data.vertices[vertex].co)
        found = seen.x * photo.size[0] - 0.5, (1 - seen.y) * photo.size[1] - 0.5
        assert np.linalg.norm(np.subtract(found, place)) < 8


def test_the_face_has_this_persons_colour(scene):
    image = bpy.data.objects["Face"].active_material.node_tree.nodes["Image Texture"].image
    assert tuple(image.size) == (2048, 2048) and image.packed_file
    texture = np.array(image.pixels[:], np.float32).reshape(2048, 2048, 4)[::-8, ::8, :3]
    on_face = texture[load_topology().mask]
    skin = np.median(on_face, 0)
    assert skin[0] > skin[1] > skin[2] and 0.5 < skin[0] < 0.98
    # Her orange suit, the flag and her dark hair are beside the face, and not on it.
    assert (np.abs(on_face - skin).max(1) < 0.35).mean() > 0.9


def test_everything_is_in_the_file(scene):
    assert {piece.name for piece in bpy.data.collections["Face"].objects} == {"Face", "Eyes and Mouth", "Face Camera"}
    assert all(image.packed_file for image in bpy.data.images if image.users and image.source == "FILE")


@pytest.mark.parametrize("ending", [".glb", ".usd"] if bpy.app.build_options.usd else [".glb"])
def test_other_formats(tmp_path, ending):
    assert command_line.main(["capture", str(PORTRAIT), "-o", str(tmp_path / f"face{ending}"), "--face", "all"]) == 0
    assert (tmp_path / f"face{ending}").stat().st_size > 1_000_000
