"""Takes and photographs in other programs' formats, each read by something that we did not write. Needs bpy."""

import csv
import json
import os
import struct
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import bpy
import numpy as np
import pytest
from scipy.spatial import cKDTree

from exact_face import exact_face, skin_texture
from gltf import validated
from prn_blender.prn import record
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.livelink import read_livelink, write_livelink
from prn_blender.scene import export as module
from prn_blender.scene.export import export
from prn_blender.scene.face import FACTS, build_face
from prn_blender.scene.performance import build_performance
from prn_blender.scene.record import record_of
from prn_blender.scene.stage import match_time, new_stage
from takes import BLINK, JAW, make_take, solve_take, talking

FRAMES = (0, 7, BLINK, 59)
USD = pytest.mark.skipif(not bpy.app.build_options.usd, reason="this Blender was built without USD")
ALEMBIC = pytest.mark.skipif(not bpy.app.build_options.alembic, reason="this Blender was built without Alembic")


def take_scene(way: str, folder: Path | None = None):
    """A take of 60 frames from frame 0 on, with the face that plays it."""
    scene = new_stage()
    scene.frame_start = 0
    match_time(scene, 30.0, 60)
    return build_performance(talking()[1], skin_texture(), scene, way=way, stride=4, folder=folder)


@lru_cache(maxsize=1)
def gappy():
    return solve_take(make_take(count=90, missing=range(40, 64)))


def world_points(placed: bpy.types.Object) -> np.ndarray:
    seen = placed.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = seen.to_mesh()
    points = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", points)
    matrix = np.array(seen.matrix_world)
    seen.to_mesh_clear()
    return points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def played(placed: bpy.types.Object) -> list[np.ndarray]:
    found = []
    for frame in FRAMES:
        bpy.context.scene.frame_set(frame)
        bpy.context.view_layer.update()
        found.append(world_points(placed))
    return found


def imported_face() -> bpy.types.Object:
    """The face among the imported objects: the mesh with the most vertices."""
    return max((piece for piece in bpy.data.objects if piece.type == "MESH"), key=lambda piece: len(piece.data.vertices))


def empty_scene_at_30() -> None:
    scene = new_stage()
    scene.frame_start = 0
    match_time(scene, 30.0, 60)


READERS = {
    ".glb": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".fbx": lambda path: bpy.ops.import_scene.fbx(filepath=path, anim_offset=0.0),
    ".usdc": lambda path: bpy.ops.wm.usd_import(filepath=path),
    ".abc": lambda path: bpy.ops.wm.alembic_import(filepath=path, as_background_job=False),
}


@pytest.mark.parametrize("ending, way", [
    (".glb", "arkit"), (".glb", "absolute"), (".fbx", "arkit"), (".fbx", "absolute"),
    pytest.param(".usdc", "arkit", marks=USD), pytest.param(".usdc", "absolute", marks=USD), pytest.param(".usdc", "pc2", marks=USD),
    pytest.param(".abc", "absolute", marks=ALEMBIC),
    pytest.param(".abc", "pc2", marks=ALEMBIC),
])
def test_a_take_plays_the_same_elsewhere(tmp_path, ending, way):
    built = take_scene(way, tmp_path)
    wanted = played(built.mesh)
    keys = built.mesh.data.shape_keys
    before = (keys.use_relative, keys.animation_data.action) if keys else None
    actions = len(bpy.data.actions)
    path = export(tmp_path / f"Jane Doe{ending}", [built.mesh])[-1]
    assert len(bpy.data.actions) == actions and (not keys or (keys.use_relative, keys.animation_data.action) == before)

    empty_scene_at_30()
    READERS[ending](str(path))
    face = imported_face()
    for frame, points, found in zip(FRAMES, wanted, played(face)):
        away = cKDTree(points).query(found)[0]
        assert len(found) == len(points) and away.max() < 0.0003, f"frame {frame}"  # metres
    if way == "arkit" and ending != ".abc":
        names = [block.name for block in face.data.shape_keys.key_blocks]
        assert set(ARKIT_NAMES) <= set(names)


@pytest.mark.parametrize("ending", [".glb", pytest.param(".usdc", marks=USD), pytest.param(".abc", marks=ALEMBIC)])
def test_a_take_with_a_gap_goes_on_after_it(tmp_path, ending):
    """Written while the scene stands in the gap, where the face is hidden; elsewhere the last seen face is held there."""
    empty_scene_at_30()
    scene = bpy.context.scene
    built = build_performance(gappy(), skin_texture(), scene, way="arkit", stride=4)
    frames = (39, 70, 89)
    wanted = []
    for frame in frames:
        scene.frame_set(frame)
        wanted.append(world_points(built.mesh))
    scene.frame_set(50)
    scene.frame_end = 89
    path = export(tmp_path / f"take{ending}", [built.mesh])[-1]
    assert scene.frame_current == 50 and built.mesh.hide_viewport and built.mesh.hide_render

    empty_scene_at_30()
    bpy.context.scene.frame_end = 89
    READERS[ending](str(path))
    face = imported_face()
    for frame, points in zip((*frames, 50), (*wanted, wanted[0])):
        bpy.context.scene.frame_set(frame)
        bpy.context.view_layer.update()
        assert cKDTree(points).query(world_points(face))[0].max() < 0.0003, frame


@pytest.mark.parametrize("way", ["arkit", "absolute"])
def test_khronos_finds_no_error_in_a_take(tmp_path, way):
    path = export(tmp_path / "take.glb", [take_scene(way).mesh])[-1]
    report = validated(path)
    assert report["issues"]["numErrors"] == 0 and report["issues"]["numWarnings"] == 0, report["issues"]["messages"]
    assert report["info"]["hasMorphTargets"] and report["info"]["animationCount"] == 1


def gltf_json(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[20:20 + struct.unpack_from("<I", data, 12)[0]])


def test_a_take_as_gltf_names_its_shapes_and_moves_its_head(tmp_path):
    told = gltf_json(export(tmp_path / "take.glb", [take_scene("arkit").mesh])[-1])
    assert all(mesh["extras"]["targetNames"] == list(ARKIT_NAMES) for mesh in told["meshes"])
    animation, = told["animations"]
    moved = {(told["nodes"][channel["target"]["node"]]["name"], channel["target"]["path"]) for channel in animation["channels"]}
    assert {("Face", "translation"), ("Face", "rotation"), ("Face", "weights"), ("Eyes and Mouth", "weights")} <= moved
    times = told["accessors"][animation["samplers"][0]["input"]]
    assert times["min"][0] == pytest.approx(0) and times["max"][0] == pytest.approx(59 / 30, abs=1e-4)


def smiling_face():
    face = exact_face(20)
    face.expression[JAW] = 0.5
    return face


def test_a_photograph_as_gltf_has_the_shapes_and_its_own_expression(tmp_path):
    face = smiling_face()
    built = build_face(face, skin_texture(), new_stage(), stride=4, shapes=True)
    bpy.context.view_layer.update()
    # Keys at the photo's own weights are the face as it was captured.
    plain = build_face(face, skin_texture(), bpy.context.scene, stride=4).mesh
    bpy.context.view_layer.update()
    np.testing.assert_allclose(world_points(built.mesh), world_points(plain), atol=2e-5)
    path = export(tmp_path / "photo.glb", [built.mesh])[-1]
    told = gltf_json(path)
    mesh = next(mesh for mesh in told["meshes"] if mesh["name"] == "Face")
    assert mesh["extras"]["targetNames"] == list(ARKIT_NAMES) and mesh["weights"][JAW] == pytest.approx(0.5)
    assert "animations" not in told
    report = validated(path)
    assert report["issues"]["numErrors"] == 0, report["issues"]["messages"]


def test_eyes_close_on_a_photographs_face():
    built = build_face(exact_face(), skin_texture(), new_stage(), topology="loops", shapes=True)
    blocks = built.mesh.data.shape_keys.key_blocks
    down = [blocks["eyeBlinkLeft"].data[number].co.z - blocks["Basis"].data[number].co.z for number in range(len(blocks["Basis"].data))]
    assert min(down) < -0.005  # metres: the upper lid comes down


READ_WITH_USD_CORE = """
import json, sys
import numpy as np
from pxr import Usd, UsdGeom, UsdSkel
stage = Usd.Stage.Open(sys.argv[1])
mesh = max((UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)), key=lambda mesh: len(mesh.GetPointsAttr().Get(0)))
top = mesh.GetPrim()
points = np.array(mesh.GetPointsAttr().Get(7))
matrix = np.array(mesh.ComputeLocalToWorldTransform(7))  # for rows
world = points @ matrix[:3, :3] + matrix[3, :3]
shapes = UsdSkel.BindingAPI(top).GetBlendShapesAttr().Get()
animation = next((UsdSkel.Animation(prim) for prim in stage.Traverse() if prim.IsA(UsdSkel.Animation)), None)
print(json.dumps({
    "up": UsdGeom.GetStageUpAxis(stage), "metres": UsdGeom.GetStageMetersPerUnit(stage), "rate": stage.GetTimeCodesPerSecond(),
    "range": [stage.GetStartTimeCode(), stage.GetEndTimeCode()], "points": len(points),
    "samples": mesh.GetPointsAttr().GetNumTimeSamples(), "low": world.min(0).tolist(), "high": world.max(0).tolist(),
    "shapes": [str(name) for name in shapes or []],
    "weights": animation.GetBlendShapeWeightsAttr().GetNumTimeSamples() if animation else 0}))
"""


@USD
@pytest.mark.parametrize("way", ["arkit", "absolute"])
def test_usd_core_reads_the_take(tmp_path, way):
    """In a process of its own: Blender's library and usd-core are two copies of one thing."""
    if "PRN_INSIDE_BLENDER" in os.environ:
        pytest.skip("starts a Python with usd-core")
    built = take_scene(way)
    bpy.context.scene.frame_set(7)
    points = world_points(built.mesh)
    path = export(tmp_path / "take.usdc", [built.mesh])[-1]
    answer = subprocess.run([sys.executable, "-c", READ_WITH_USD_CORE, str(path)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["up"], told["metres"], told["rate"], told["range"]) == ("Z", 1.0, 30.0, [0.0, 59.0])
    assert told["points"] == len(points)
    if way == "arkit":
        assert set(ARKIT_NAMES) <= set(told["shapes"]) and told["weights"] >= 50
    else:
        assert told["samples"] == 60
        np.testing.assert_allclose([told["low"], told["high"]], [points.min(0), points.max(0)], atol=0.0002)


def test_what_a_blender_lacks_is_told(tmp_path, monkeypatch):
    class Lacking:
        usd = alembic = False

    class App:
        build_options = Lacking

    class Blender:
        app, context, ops, data, types = App, bpy.context, bpy.ops, bpy.data, bpy.types
    built = build_face(exact_face(), skin_texture(), new_stage(), stride=4)
    monkeypatch.setattr(module, "bpy", Blender)
    for ending, name in (".usdc", "USD"), (".abc", "Alembic"):
        with pytest.raises(CaptureError, match=f"built without {name}: choose .glb"):
            export(tmp_path / f"face{ending}", [built.mesh])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".glb", ".fbx"])
def test_a_point_cache_cannot_be_morph_targets(tmp_path, ending):
    built = take_scene("pc2", tmp_path)
    with pytest.raises(CaptureError, match="point cache cannot be written"):
        export(tmp_path / f"take{ending}", [built.mesh])


# ---- what is written from the scene is what is written from the performance ----------------------------------------


@pytest.mark.parametrize("way", ["absolute", "arkit"])
def test_a_scenes_record_is_the_performances(way):
    take = talking()[1]
    built = take_scene(way)
    of_scene, wanted = record_of(built.mesh), record.of_take(take)
    assert of_scene.seen.all() and of_scene.fps == 30.0 and tuple(of_scene.image_size) == (320, 240)
    np.testing.assert_allclose(of_scene.translation, wanted.translation, atol=0.02)
    np.testing.assert_allclose(of_scene.rotation, wanted.rotation, atol=1e-4)
    np.testing.assert_allclose(of_scene.scale, wanted.scale, rtol=1e-4)
    np.testing.assert_allclose(of_scene.weights, wanted.weights, atol=0.005)
    away = np.linalg.norm(of_scene.head_landmarks - wanted.head_landmarks, axis=2)
    assert away.max() < 0.007 and away.mean() < 0.002  # metres: a vertex is four texels here, and keys are thinned out


def test_gaps_and_the_scenes_own_rate(tmp_path):
    take = gappy()
    scene = new_stage()
    scene.render.fps, scene.frame_start, scene.frame_end = 24, 11, 100
    built = build_performance(take, skin_texture(), scene, way="arkit", stride=4)
    found, wanted = record_of(built.mesh), record.of_take(take)
    assert found.seen.tolist() == wanted.seen.tolist()
    np.testing.assert_allclose(found.weights[found.seen], wanted.weights[found.seen], atol=0.01)
    away = np.linalg.norm(found.head_landmarks - wanted.head_landmarks, axis=2)[found.seen]
    assert away.max() < 0.007 and away.mean() < 0.002  # metres; after the gap as well
    path = export(tmp_path / "take.csv", [built.mesh])[-1]
    assert not read_livelink(path).seen[45] and read_livelink(path).seen[70]


def test_a_photographs_record_from_the_scene(tmp_path):
    face = smiling_face()
    built = build_face(face, skin_texture(), new_stage())
    path = export(tmp_path / "photo.json", [built.mesh])[-1]
    entry, = json.loads(path.read_text(encoding="utf-8"))["frames"]
    wanted = record.of_photo(face)
    assert entry["yaw"] == pytest.approx(face.yaw, abs=0.01) and entry["arkit"][JAW] == pytest.approx(0.5)
    assert np.abs(np.array(entry["landmarks"]) - wanted.landmarks(0)).max() < 1.5  # pixels; outlines are smoothed in the mesh
    export(tmp_path / "photo.csv", [built.mesh])
    with open(tmp_path / "photo.csv", newline="", encoding="utf-8") as file:
        row, = csv.DictReader(file)
    assert float(row["JawOpen"]) == pytest.approx(0.5)


def test_a_heads_landmarks():
    face = exact_face(20)
    built = build_face(face, skin_texture(), new_stage(), topology="head")
    away = np.linalg.norm(record_of(built.mesh).head_landmarks[0] - record.of_photo(face).head_landmarks[0], axis=1)
    assert away.max() < 0.007 and away.mean() < 0.002  # metres


def test_a_face_of_other_weights_says_so(tmp_path):
    built = build_face(exact_face(), skin_texture(), new_stage(), stride=4)
    built.mesh[FACTS]["topology"] = "resfcn256"
    with pytest.raises(CaptureError, match="another topology"):
        export(tmp_path / "photo.json", [built.mesh])
    assert not list(tmp_path.iterdir())
    with pytest.raises(CaptureError, match="ARKit weights"):
        write_livelink(tmp_path / "a.csv", record.FaceRecord(None, (1, 1), np.ones(1, bool), np.zeros((1, 68, 3)), np.eye(3)[None],
                                                             np.zeros((1, 2)), np.ones(1), None))
