"""The files that go to other programs: each read back, by another reader where there is one, and held against the truth."""

import json
import os

os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"

import bpy
import cv2
import numpy as np
import pytest

from exact_face import exact_face, skin_texture
from prn_blender.command_line import WRITE
from prn_blender.prn import OUTPUTS, CaptureError, write_outputs
from prn_blender.prn.outputs import NOTHING, dense_mesh
from test_command_line import PORTRAIT, capture, refused, weights  # noqa: F401 (a fixture)

FILES = {
    "landmarks": ["landmarks.json", "landmarks.txt"], "vertices": ["vertices.npy"],
    "obj": ["colours.obj", "textured.mtl", "textured.obj", "textured.png"], "obj-front": ["front.obj"], "mesh": ["mesh.ply"],
    "mesh-cropped": ["mesh_cropped.ply"], "depth": ["depth.exr", "depth.json", "depth.png"], "pose": ["pose.json", "pose.txt"],
    "uv-position": ["uv_position.exr"], "uv-texture": ["uv_texture.png"], "visibility": ["visibility.npy", "visibility.png"],
    "mask": ["mask.png", "uv_mask.png"], "overlay": ["overlay.png"],
    "mpfb-target": ["likeness.target", "likeness_woman.target", "likeness_man.target", "expression.target"],
}


@pytest.fixture(scope="module")
def face():
    return exact_face(35, 10, -12)


@pytest.fixture(scope="module")
def folder(face, tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    written = write_outputs(folder / "face.blend", face, list(OUTPUTS), [skin_texture(512)])
    assert sorted(path.name for path in written) == sorted(f"face_{name}" for names in FILES.values() for name in names)
    assert sorted(folder.iterdir()) == sorted(written)
    return folder


def read(path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else pixels[..., ::-1]


def test_the_command_line_knows_the_same_names():
    assert WRITE == tuple(OUTPUTS) == tuple(FILES)


def test_landmarks_vertices_and_pose(face, folder):
    landmarks = face.topology.landmarks_of(face.position_map)
    np.testing.assert_allclose(np.loadtxt(folder / "face_landmarks.txt"), landmarks, atol=1e-3)
    described = json.loads((folder / "face_landmarks.json").read_text())
    np.testing.assert_allclose(described["landmarks"], landmarks, atol=1e-3)
    assert described["image_size"] == list(face.image.shape[1::-1])

    vertices = np.load(folder / "face_vertices.npy")
    assert vertices.dtype == np.float32
    np.testing.assert_array_equal(vertices, face.position_map[face.topology.mask])

    pose = json.loads((folder / "face_pose.json").read_text())
    assert (pose["yaw"], pose["pitch"], pose["roll"]) == (35, 10, -12)
    for matrix in (np.array(pose["matrix"]), np.loadtxt(folder / "face_pose.txt")):
        head = np.column_stack([described["head_landmarks_metres"], np.ones(68)])
        np.testing.assert_allclose(head @ matrix.T, landmarks, atol=2e-3)


def test_maps(face, folder):
    position = read(folder / "face_uv_position.exr")
    assert position.dtype == np.float32
    np.testing.assert_array_equal(position, face.position_map)
    np.testing.assert_array_equal(read(folder / "face_uv_texture.png"), skin_texture(512))
    assert np.abs(read(folder / "face_visibility.png") / 255 - face.visibility).max() < 0.003
    seen = np.load(folder / "face_visibility.npy")
    assert seen.shape == (face.topology.mask.sum(),) and 0.5 < seen.mean() < 0.9       # turned: one side is hidden
    np.testing.assert_array_equal(read(folder / "face_uv_mask.png")[face.topology.mask] > 0, seen)


def test_depth_and_mask_lie_over_the_photo(face, folder):
    depth, picture = read(folder / "face_depth.exr"), read(folder / "face_depth.png")
    scale = json.loads((folder / "face_depth.json").read_text())
    assert depth.dtype == np.float32 and picture.dtype == np.uint16 and depth.shape == picture.shape == face.image.shape[:2]
    covered = depth < NOTHING
    np.testing.assert_array_equal(read(folder / "face_mask.png") > 0, covered)
    assert (picture[~covered] == 0).all() and picture[covered].min() == 1 and picture.max() == 65535
    restored = scale["far"] - (picture[covered] - 1) / 65534 * (scale["far"] - scale["near"])
    assert np.abs(restored - depth[covered]).max() < 0.01
    # The photo was drawn from the same geometry over a plain background.
    drawn = (face.image != face.image[0, 0]).any(-1)
    assert (drawn == covered).mean() > 0.995
    # The nose is the nearest; its tip has the landmark's own depth.
    tip = face.topology.landmarks_of(face.position_map)[30]
    assert depth[int(round(tip[1])), int(round(tip[0]))] == pytest.approx(tip[2], abs=1.5)


def imported(operator, path):
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    operator(filepath=str(path))
    piece, = bpy.context.scene.objects
    return piece, np.array([piece.matrix_world @ vertex.co for vertex in piece.data.vertices])


def in_photo(points: np.ndarray, face) -> np.ndarray:
    """Blender's axes back to the image frame: X right, Y away, Z up."""
    return np.stack([points[:, 0], face.image.shape[0] - 1 - points[:, 2], points[:, 1]], 1)


@pytest.mark.parametrize("name", ["colours", "textured"])
def test_blender_reads_the_obj(face, folder, name):
    piece, points = imported(bpy.ops.wm.obj_import, folder / f"face_{name}.obj")
    np.testing.assert_allclose(in_photo(points, face), face.position_map[face.topology.mask], atol=0.01)
    assert len(piece.data.polygons) == len(dense_mesh(face.topology)[0])
    if name == "colours":
        colours = np.array([value.color[:3] for value in piece.data.color_attributes[0].data])
        assert len(colours) == len(points) and 0.2 < colours.mean() < 0.9
    else:
        image = piece.active_material.node_tree.nodes["Image Texture"].image
        assert tuple(image.size) == (512, 512) and len(piece.data.uv_layers) == 1
    normals = np.array([polygon.normal for polygon in piece.data.polygons])
    assert normals[:, 1].mean() < -0.2          # outwards, to the camera


def test_the_upright_head(face, folder):
    _, points = imported(bpy.ops.wm.obj_import, folder / "face_front.obj")
    np.testing.assert_allclose(points[:, (0, 2, 1)] * (1, -1, 1), face.head_map[face.topology.mask], atol=1e-4)


def test_blender_reads_the_meshes_whole_and_cropped(face, folder):
    whole, points = imported(bpy.ops.wm.ply_import, folder / "face_mesh.ply")
    faces, colours = len(whole.data.polygons), len(whole.data.color_attributes)
    # PLY says nothing about axes: Blender takes them as they are.
    np.testing.assert_allclose(in_photo(points[:, (0, 2, 1)] * (1, -1, 1), face), face.position_map[face.topology.mask], atol=0.01)
    assert faces == 2 * len(dense_mesh(face.topology)[0]) and colours == 1
    cropped, points = imported(bpy.ops.wm.ply_import, folder / "face_mesh_cropped.ply")
    assert 0.5 * faces < len(cropped.data.polygons) < 0.9 * faces
    used = {corner for polygon in cropped.data.polygons for corner in polygon.vertices}
    assert len(used) == len(points)


def test_overlay(face, folder):
    picture = read(folder / "face_overlay.png")
    changed = (picture != face.image).any(-1)
    assert picture.shape == face.image.shape and 0.1 < changed.mean() < 0.9 and not changed[0].any()


def test_several_faces_are_numbered(face, tmp_path):
    written = write_outputs(tmp_path / "two.glb", [face, face], ["pose", "pose"])
    assert [path.name for path in written] == ["two_1_pose.json", "two_1_pose.txt", "two_2_pose.json", "two_2_pose.txt"]


def test_a_wrong_name_writes_nothing(face, tmp_path):
    with pytest.raises(CaptureError, match="'shadow' is not an output that can be written: choose from landmarks, "):
        write_outputs(tmp_path / "face.blend", face, ["pose", "shadow"])
    assert not list(tmp_path.iterdir())


def test_from_the_command_line(tmp_path, weights):  # noqa: F811
    refused(capture(PORTRAIT, "--weights", weights, "--write", "depth,shadow", cwd=tmp_path), 2, "'shadow' is not an output")
    assert not list(tmp_path.iterdir())
    result = capture(PORTRAIT, "--weights", weights, "-o", "a.blend", "--write", "landmarks,uv-position", cwd=tmp_path)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == \
        ["a.blend", "a_landmarks.json", "a_landmarks.txt", "a_uv_position.exr"]
    assert "wrote a_landmarks.txt" in result.stdout and " outputs " in result.stdout.splitlines()[0]
