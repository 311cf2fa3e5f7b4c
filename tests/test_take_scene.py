"""A performance in Blender's scene, in all four ways: the same faces at the same places at the same times. Needs bpy."""

import struct

import bpy
import cv2
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from clips import portrait, write_movie
from exact_face import skin_texture
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.contact_sheet import PANEL, write_contact_sheet
from prn_blender.prn.head_topology import load_head_topology
from prn_blender.prn.position_map import sample
from prn_blender.scene import versions
from prn_blender.scene.curves import continuous_quaternions, decimate
from prn_blender.scene.frames import to_blender
from prn_blender.scene.performance import build_performance, cost
from prn_blender.scene.stage import match_time, new_stage
from takes import NEAR, make_take, solve_take, talking

WIDTH, HEIGHT = 320, 240


@pytest.fixture
def scene():
    scene = new_stage()
    match_time(scene, 30.0, 60)
    return scene


def moved_vertices(placed: bpy.types.Object) -> np.ndarray:
    """Vertices of the evaluated object, in its own space."""
    bpy.context.view_layer.update()
    mesh = placed.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    coordinates = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", coordinates)
    return coordinates.reshape(-1, 3)


@pytest.mark.parametrize("way", ["absolute", "relative", "pc2", "arkit"])
def test_every_way_plays_the_same_faces(scene, tmp_path, way):
    _, performance = talking()
    built = build_performance(performance, skin_texture(), scene, way=way, stride=4, folder=tmp_path)
    grid = performance.topology.grid(4)
    assert len(built.mesh.data.vertices) == len(grid.uvs)
    for frame in (0, 7, 20, 59):
        scene.frame_set(scene.frame_start + frame)
        wanted = to_blender(grid.sample(performance.head_map(frame, details=way != "arkit")))
        away = np.linalg.norm(moved_vertices(built.mesh) - wanted, axis=1)
        assert away.max() < (0.0015 if way == "arkit" else 0.0002), frame  # metres; decimated keys are a little off
        # The eyes' and mouth's surface goes along.
        assert np.linalg.norm(moved_vertices(built.openings), axis=1).max() < 0.2
    if way == "pc2":
        header = struct.unpack("<12siiffi", built.files[0].read_bytes()[:32])
        assert header == (b"POINTCACHE2\0", 1, len(grid.uvs), 0.0, 1.0, 60)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["Take_Eyes_and_Mouth.pc2", "Take_Face.pc2"]
    else:
        assert len(built.mesh.data.shape_keys.key_blocks) == 1 + (52 if way == "arkit" else 60)


@pytest.mark.parametrize("lens", [None, NEAR])
def test_the_mesh_lies_over_the_footage(scene, lens):
    take, performance = talking(lens)
    built = build_performance(performance, skin_texture(), scene, way="arkit", stride=4)
    grid = performance.topology.grid(4)
    for frame in (0, 20, 45):
        scene.frame_set(scene.frame_start + frame)
        bpy.context.view_layer.update()
        head = grid.sample(performance.head_map(frame, details=False))[::60]
        wanted = performance.seen_at(frame, head)[:, :2]
        seen = [world_to_camera_view(scene, built.camera, built.mesh.matrix_world @ Vector(point)) for point in to_blender(head)]
        seen = [[place.x * WIDTH - 0.5, (1 - place.y) * HEIGHT - 0.5] for place in seen]
        np.testing.assert_allclose(seen, wanted, atol=0.05)


def test_head_motion_is_the_objects_and_never_flips(scene):
    _, performance = talking()
    built = build_performance(performance, skin_texture(), scene, way="arkit", stride=4)
    curves = {(curve.data_path, curve.array_index): curve for curve in versions.curves_of(built.head, "OBJECT")}
    assert set(curves) == {*(("location", i) for i in range(3)), *(("rotation_quaternion", i) for i in range(4)),
                           *(("scale", i) for i in range(3))}
    turns = np.array([[curves["rotation_quaternion", i].evaluate(1 + f) for i in range(4)] for f in range(60)])
    assert (np.linalg.norm(np.diff(turns, axis=0), axis=1) < 0.1).all()
    assert built.mesh.animation_data.action == built.head


def test_quaternions_go_on_through_half_a_turn():
    angles = np.linspace(0, 4 * np.pi, 90)
    rotations = np.array([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angles])
    quaternions = continuous_quaternions(rotations)
    assert (np.linalg.norm(np.diff(quaternions, axis=0), axis=1) < 0.1).all()
    assert quaternions[-1] @ quaternions[0] == pytest.approx(1, abs=1e-6)  # two whole turns


def test_decimated_keys_stay_within_the_tolerance(scene):
    _, performance = talking()
    built = build_performance(performance, skin_texture(), scene, way="arkit", stride=4)
    keys = 0
    for curve in versions.curves_of(built.expression, "KEY"):
        name = curve.data_path.split('"')[1]
        values = [curve.evaluate(scene.frame_start + frame) for frame in range(60)]
        assert np.abs(np.array(values) - performance.weights[:, ARKIT_NAMES.index(name)]).max() < 0.0045
        keys += len(curve.keyframe_points)
    assert 52 <= keys < 0.6 * 52 * 60


def test_decimate():
    assert decimate(np.full(50, 0.3), 0.01).tolist() == [0]
    assert decimate(np.linspace(0, 1, 50), 0.01).tolist() == [0, 49]
    values = np.abs(np.linspace(-1, 1, 41))
    assert decimate(values, 0.01).tolist() == [0, 20, 40]


def test_gaps_are_hidden(scene):
    performance = solve_take(make_take(count=90, missing=range(40, 70)))
    built = build_performance(performance, skin_texture(), scene, way="absolute", stride=4)
    for frame, hidden in ((39, False), (40, True), (69, True), (70, False)):
        scene.frame_set(scene.frame_start + frame)
        assert built.mesh.hide_render == hidden and built.openings.hide_render == hidden, frame


def test_the_scenes_own_rate_is_kept_and_the_motion_keeps_its_time(scene):
    _, performance = talking()
    scene.render.fps, scene.render.fps_base, scene.frame_start = 24, 1.0, 101
    built = build_performance(performance, skin_texture(), scene, way="absolute", stride=4)
    assert (scene.render.fps, scene.frame_start) == (24, 101)
    scene.frame_set(101 + 40)  # 40 / 24 s are 50 / 30 s
    wanted = to_blender(performance.topology.grid(4).sample(performance.head_map(50)))
    np.testing.assert_allclose(moved_vertices(built.mesh), wanted, atol=2e-4)


@pytest.mark.parametrize("fps, base", [(25.0, 1.0), (29.97, 30 / 29.97), (23.976, 24 / 23.976)])
def test_a_scene_can_take_the_videos_rate(scene, fps, base):
    match_time(scene, fps, 100)
    assert scene.render.fps / scene.render.fps_base == pytest.approx(fps, rel=1e-5)
    assert scene.render.fps_base == pytest.approx(base, rel=1e-5)
    assert scene.frame_end - scene.frame_start + 1 == 100


def test_the_footage_plays_behind(scene, tmp_path):
    movie = write_movie(tmp_path / "clip.mp4", [portrait()] * 6, 30)
    _, performance = talking()
    built = build_performance(performance, skin_texture(), scene, way="arkit", stride=4, source=movie)
    background = built.camera.data.background_images[0]
    assert background.image.source == "MOVIE" and tuple(background.image.size) == (320, 240)
    assert background.image_user.frame_duration == 60 and background.image_user.frame_start == scene.frame_start


def test_the_cost_is_said():
    _, performance = talking()
    assert "60 frames of" in cost(performance, 2, "absolute") and "MB a frame" in cost(performance, 2, "pc2")
    assert cost(performance, 1, "arkit").startswith("52 shape keys on")


@pytest.mark.parametrize("way, lashes", [("absolute", True), ("arkit", False)])
def test_a_head_plays_the_take(scene, way, lashes):
    _, performance = talking()
    built = build_performance(performance, skin_texture(), scene, way=way, topology="head", lashes=lashes)
    head = load_head_topology()
    assert built.openings is None and len(built.mesh.data.vertices) == (head.count if lashes else head.bare)
    inner = head.trusted[head.trust[head.trusted] > 0.99]
    places = head.trusted_uv[head.trust[head.trusted] > 0.99] * 256 - 0.5
    tongue = slice(head.skin, head.shown)
    down = []
    for frame in (0, 7, 20, 45):
        scene.frame_set(scene.frame_start + frame)
        vertices = moved_vertices(built.mesh)
        wanted = to_blender(sample(performance.head_map(frame, details=way != "arkit"), places))
        assert np.linalg.norm(vertices[inner] - wanted, axis=1).mean() < 0.001, frame
        down.append((performance.weights[frame, ARKIT_NAMES.index("jawOpen")], vertices[tongue, 2].mean()))
    opened, shut = max(down), min(down)
    assert opened[0] - shut[0] > 0.2 and shut[1] - opened[1] > 0.002  # the tongue goes with the jaw


def test_a_heads_contact_sheet_shows_the_head(tmp_path):
    _, performance = talking()
    movie = write_movie(tmp_path / "clip.mp4", [portrait()] * len(performance), 30)
    for topology in ("grid", "head"):
        write_contact_sheet(tmp_path / f"{topology}.png", movie, performance, skin_texture(), topology)
    mask, head = (cv2.imread(str(tmp_path / f"{name}.png")).astype(int) for name in ("grid", "head"))
    assert mask.shape == head.shape and np.abs(mask - head)[:PANEL].max() == 0  # the footage
    alone = np.s_[2 * PANEL:4 * PANEL]
    # A head leaves room beside it, where a face fills its panel.
    assert 0.2 < (np.abs(head[alone] - 52).max(-1) < 3).mean() < 0.8 and np.abs(mask - head)[alone].mean() > 10
