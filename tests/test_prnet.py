"""Weights with another topology than the program's own: PRNet's uv-data, the network, and the whole way to Blender."""

import json

import bpy
import cv2
import numpy as np
import pytest
import torch

from bundles import write_constant_bundle
from prn_blender.prn import CaptureError, OnnxEngine, capture_image, load_bundle
from prn_blender.prn.crop import CropConvention, crop_from_landmark_box
from prn_blender.prn.image_io import load_image
from prn_blender.prn.network import ARCHITECTURES
from prn_blender.prn.openings import close_openings, opening_grid
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.preview import preview_row
from prn_blender.prn.resfcn256 import ResFcn256
from prn_blender.prn.texture import make_texture
from prn_blender.prn.weights import write_bundle
from prn_blender.scene.face import build_face
from training.convert_prnet import CROP, VERTICES, main, read_topology, variables
from training.export import difference, export_onnx

from prnet_data import landmarks, mask, on_stand_in, write_uv_data
from test_capture import turned
from test_command_line import PORTRAIT, capture


@pytest.fixture(scope="module")
def uv_data(tmp_path_factory):
    return write_uv_data(tmp_path_factory.mktemp("data") / "uv-data")


@pytest.fixture(scope="module")
def topology(uv_data):
    return read_topology(uv_data)


def seen_mean(*pose: float) -> np.ndarray:
    """The mean face on the stand-in's map, turned, about as large as a crop shows it."""
    return (5.0 * on_stand_in(load_topology().mean) @ turned(*pose).T + [0.02, -0.1, 0.3]).astype(np.float32)


@pytest.fixture(scope="module")
def weights(topology, tmp_path_factory):
    return write_constant_bundle(tmp_path_factory.mktemp("bundle") / "prnet", seen_mean(25, 10, -8), topology=topology)


@pytest.fixture(scope="module")
def face(weights):
    return capture_image(load_image(PORTRAIT), engine=OnnxEngine(load_bundle(weights)))[0]


# ---- uv-data -----------------------------------------------------------------------------------------------------


def test_uv_data_becomes_a_topology(topology, tmp_path):
    assert topology.name == "prnet" and topology.mask.sum() == VERTICES
    np.testing.assert_array_equal(topology.mask, mask())
    np.testing.assert_array_equal(topology.landmarks, landmarks())
    # PRNet's average head comes out in our head frame: upright, in metres, with its z turned round.
    truth = on_stand_in(load_topology().mean)
    columns, rows = topology.reference_texels.astype(int).T
    assert len(columns) > 2000
    assert np.abs(topology.reference_points - truth[rows, columns]).max() < 0.004
    # Without it our own mean's landmarks tell the pose.
    plain = read_topology(write_uv_data(tmp_path / "uv-data", canonical=False))
    assert plain.reference_points.shape == (68, 3)
    np.testing.assert_array_equal(plain.reference_texels, landmarks())


def test_dense_alignment_has_the_order_of_face_ind(topology, uv_data):
    numbers = np.arange(256 * 256, dtype=np.float32).reshape(256, 256, 1)
    np.testing.assert_array_equal(topology.vertices_of(numbers)[:, 0], np.loadtxt(uv_data / "face_ind.txt"))


def spoiled(folder, name: str, change) -> None:
    path = folder / name
    np.savetxt(path, change(np.loadtxt(path)))


@pytest.mark.parametrize("spoil, says", [
    (lambda folder: (folder / "face_ind.txt").unlink(), "face_ind.txt' does not exist"),
    (lambda folder: spoiled(folder, "face_ind.txt", lambda v: v[:30000]), "holds 30000 numbers instead of 43867"),
    (lambda folder: spoiled(folder, "face_ind.txt", lambda v: v[::-1]), "have to ascend"),
    (lambda folder: spoiled(folder, "face_ind.txt", lambda v: v + 40000), "have to ascend and stay below 65536"),
    (lambda folder: spoiled(folder, "face_ind.txt", lambda v: v + 0.5), "holds numbers that are no texels"),
    (lambda folder: (folder / "face_ind.txt").write_text("some words\n"), "holds something else than numbers"),
    (lambda folder: spoiled(folder, "uv_kpt_ind.txt", lambda v: v[:1]), "holds 68 numbers instead of 136"),
    (lambda folder: spoiled(folder, "uv_kpt_ind.txt", lambda v: v * 0), "landmarks have to lie on the face"),
    (lambda folder: (folder / "canonical_vertices.npy").write_bytes(b"nothing"), "canonical_vertices.npy' is damaged"),
    (lambda folder: np.save(folder / "canonical_vertices.npy", np.ones((9, 3))), "holds (9, 3) numbers instead of"),
])
def test_wrong_uv_data_gets_one_sentence(tmp_path, capsys, spoil, says):
    folder = write_uv_data(tmp_path / "uv-data")
    spoil(folder)
    before = sorted(tmp_path.rglob("*"))
    assert main(["--checkpoint", str(tmp_path / "none"), "--uv-data", str(folder), "-o", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    assert says in output.err and output.err.count("\n") == 1 and not output.out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_that_is_not_there(tmp_path, uv_data, capsys):
    assert main(["--checkpoint", str(tmp_path / "none"), "--uv-data", str(uv_data), "-o", str(tmp_path / "out")]) == 2
    assert "none.index' does not exist" in capsys.readouterr().err
    assert main(["--checkpoint", str(tmp_path / "none"), "--uv-data", str(tmp_path / "no"), "-o", str(tmp_path / "out")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# ---- the network -------------------------------------------------------------------------------------------------


def test_resfcn256_is_as_large_as_the_design_says():
    network = ResFcn256()
    kernels = sum(value.numel() for name, value in network.named_parameters() if value.ndim == 4)
    norms = sum(value.numel() for name, value in network.named_parameters() if value.ndim == 1)
    assert kernels == 13_341_728 and norms == 11_890


def test_every_tensor_has_its_variable():
    network = ResFcn256()
    places = variables(network)
    ours = {name for name in network.state_dict() if not name.endswith("num_batches_tracked")}
    assert {name for name, _ in places.values()} == ours and len(places) == len(ours) == 245
    assert places["resfcn256/resBlock_2/shortcut/weights"] == ("blocks.2.shortcut.weight", (1, 1, 32, 64))
    assert places["resfcn256/Conv2d_transpose_7/weights"] == ("decoder.7.convolution.weight", (4, 4, 64, 128))


def test_a_bundle_of_it_runs_and_agrees(tmp_path, topology):
    torch.manual_seed(0)
    network = ARCHITECTURES["resfcn256"](topology).eval()
    model = export_onnx(network, 256, halves=False)
    assert difference(network, model, 256) < 1e-4
    tensors = {name: value.numpy() for name, value in network.state_dict().items() if value.dtype.is_floating_point}
    write_bundle(tmp_path, tensors, model, {"architecture": "resfcn256", "input_size": "256", "crop": CROP, "licence": "Research only",
                                            "research_only": "true"}, topology=topology, halves=False)
    bundle = load_bundle(tmp_path)
    assert bundle.input_size == 256 and bundle.research_only and bundle.licence == "Research only"
    assert not load_bundle().research_only
    maps, expression = OnnxEngine(bundle).run(np.random.default_rng(0).random((2, 256, 256, 3), np.float32))
    assert maps.shape == (2, 256, 256, 3) and expression is None


def test_the_crop_is_the_one_prnet_takes():
    """A landmark box of 100 x 140: side 1.6 x 120 between the centres of the first and the last of 256 pixels."""
    crop = crop_from_landmark_box(50, 20, 150, 160, CropConvention(**json.loads(json.dumps(CROP))))
    edges = crop.to_image([[0.5 / 256 - 0.5, 0.5 / 256 - 0.5, 0], [255.5 / 256 - 0.5, 255.5 / 256 - 0.5, 0]])
    np.testing.assert_allclose(edges[:, :2], [[100 - 96, 90 - 96], [100 + 96, 90 + 96]], atol=1e-3)


# ---- from a bundle with its own topology to the scene ------------------------------------------------------------


def test_a_damaged_topology_is_refused(weights, tmp_path):
    for piece in weights.iterdir():
        (tmp_path / piece.name).write_bytes(piece.read_bytes()[:-1] if piece.name == "topology.npz" else piece.read_bytes())
    with pytest.raises(CaptureError, match="topology.npz' is damaged"):
        load_bundle(tmp_path)
    (tmp_path / "topology.npz").unlink()
    with pytest.raises(CaptureError, match="topology.npz' is missing"):
        load_bundle(tmp_path)


def test_the_topology_travels_with_the_bundle(weights, topology):
    bundle = load_bundle(weights)
    assert bundle.topology.name == "prnet" and bundle.crop == CropConvention(1.606, "arithmetic")
    for name in ("mask", "landmarks", "reference_texels", "reference_points"):
        np.testing.assert_array_equal(getattr(bundle.topology, name), getattr(topology, name))
    with pytest.raises(CaptureError, match="^The hm08 face loops can be had with .* another topology, 'prnet'"):
        bundle.topology.loops()


def test_its_faces_have_a_pose_and_the_networks_own_surface(face):
    assert face.surface == "raw" and face.expression is None and face.topology.name == "prnet"
    np.testing.assert_allclose((face.yaw, face.pitch, face.roll), (25, 10, -8), atol=1)
    np.testing.assert_array_equal(face.position_map, face.raw_position_map)
    carried = face.pixels_per_metre * face.head_map @ face.rotation.T + face.translation
    assert np.abs(carried - face.position_map).max() < 0.01
    eyes = face.topology.landmarks_of(face.head_map)
    assert np.linalg.norm(eyes[36:42].mean(0) - eyes[42:48].mean(0)) == pytest.approx(0.063, abs=1e-5)
    truth = on_stand_in(load_topology().mean)[face.topology.mask]
    found = face.head_map[face.topology.mask]
    assert np.abs(found / np.ptp(found[:, 0]) - truth / np.ptp(truth[:, 0])).max() < 0.06
    # Seen from the front in its own frame: facing us, the nose in front.
    assert (face.visibility > 0).sum() > 0.4 * VERTICES


def test_texture_and_preview_of_it(face):
    assert len(opening_grid(face.topology).quads) == 0
    assert close_openings(face.head_map, face.topology) is face.head_map
    texture = make_texture(face, 512)
    assert texture.shape == (512, 512, 3) and texture[::2, ::2][face.topology.mask].std() > 5
    row = preview_row(face, texture)
    assert row.shape[1] == 7 * row.shape[0] and row.std() > 20


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_scene_does_not_know_which_topology(face, stride):
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    built = build_face(face, np.full((64, 64, 3), 128, np.uint8), bpy.context.scene, stride=stride)
    assert built.mesh["weights_licence"] == "Research only"
    assert built.mesh["prn_capture"]["topology"] == "prnet" and "expression_weights" not in built.mesh["prn_capture"]
    assert built.openings is None and len(built.collection.objects) == 2
    mesh = built.mesh.data
    assert not mesh.validate() and len(mesh.vertices) == pytest.approx(VERTICES / stride ** 2, rel=0.05)
    normals = np.array([polygon.normal for polygon in mesh.polygons])
    assert (normals[:, 1] < 0).mean() > 0.8     # outwards: a face looks along -Y


def test_what_needs_hm08_says_so_and_builds_nothing(face):
    from types import SimpleNamespace
    from prn_blender.scene.same_person import add_shapes
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    with pytest.raises(CaptureError, match="^The hm08 face loops can be had"):
        build_face(face, np.full((64, 64, 3), 128, np.uint8), bpy.context.scene, topology="loops")
    assert not bpy.data.objects and not bpy.data.collections
    built = build_face(face, np.full((64, 64, 3), 128, np.uint8), bpy.context.scene)
    with pytest.raises(CaptureError, match="weights of another topology, which ARKit shape keys do not fit"):
        add_shapes(built.mesh, SimpleNamespace(topology=load_topology()), bpy.context.scene, "take")
    assert built.mesh.data.shape_keys is None


def test_the_command_line_says_what_differs(tmp_path, weights):
    result = capture(PORTRAIT, "--weights", weights, "-o", "face.blend", "--preview", "look.png", cwd=tmp_path)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert "weights: Research only" in result.stdout
    assert "surface raw: the clean surface can be had with this program's own weights only" in result.stdout
    assert cv2.imread(str(tmp_path / "look.png")).std() > 20


def test_faces_are_followed_through_a_video(weights):
    from prn_blender.prn.track import capture_video
    engine, image = OnnxEngine(load_bundle(weights)), load_image(PORTRAIT)
    frames = list(capture_video([image] * 3, engine=engine))
    assert all(len(frame.faces) == 1 and frame.faces[0].expression is None for frame in frames)
