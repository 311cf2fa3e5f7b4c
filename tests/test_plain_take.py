"""Takes of weights with a topology of their own: followed, smoothed, head motion apart, in Blender by every way but ARKit's."""

import bpy
import numpy as np
import pytest

from bundles import write_constant_bundle
from clips import portrait, write_movie
from exact_face import rotation_of, skin_texture
from prn_blender.prn.crop import Crop
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.face_fit import load_shape_space
from prn_blender.prn.plain_take import PlainRecorder, solve_plain
from prn_blender.prn.position_map import SIZE
from prn_blender.prn.record import of_take, write_json
from prn_blender.prn.take import Smoothing
from prn_blender.prn.track import TrackedFace, TrackedFrame
from prn_blender.scene.export import export
from prn_blender.scene.performance import build_performance
from prn_blender.scene.stage import match_time, new_stage
from prnet_data import on_stand_in, write_uv_data
from takes import FPS, IMAGE, JAW
from test_command_line_video import capture
from test_take_scene import moved_vertices
from prn_blender.scene.frames import to_blender
from training.convert_prnet import read_topology

COUNT = 40


@pytest.fixture(scope="module")
def topology(tmp_path_factory):
    return read_topology(write_uv_data(tmp_path_factory.mktemp("prnet") / "uv-data"))


def truth():
    """Jaw openings (N,), rotations (N, 3, 3) and head maps of a head that turns and talks."""
    import cv2
    space = load_shape_space()
    step = np.arange(COUNT)
    jaw = 0.4 - 0.4 * np.cos(step / COUNT * 6 * np.pi)
    rotations = np.array([rotation_of(20 * np.sin(t / COUNT * 2 * np.pi), 5 * np.cos(t / COUNT * 2 * np.pi)) for t in step])
    heads = []
    for opening in jaw:
        coefficients = np.zeros(space.identities + 52)
        coefficients[space.identities + JAW] = opening
        small = space.offsets(coefficients).reshape(64, 64, 3)
        heads.append(on_stand_in(space.mean + cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)))
    return jaw, rotations, heads


@pytest.fixture(scope="module")
def take(topology):
    jaw, rotations, heads = truth()
    recorder, rng = PlainRecorder(topology), np.random.default_rng(3)
    for i, (rotation, head) in enumerate(zip(rotations, heads)):
        shaken = head + rng.normal(0, 0.0004, 3)  # a network's crops tremble
        seen = (4.5 * shaken @ rotation.T).astype(np.float32)
        recorder.add(TrackedFrame(i, i / FPS, IMAGE, [], False), TrackedFace(0, Crop(160.0, 120.0, 110.0), seen, None, 0.0))
    return solve_plain(recorder, "the take", FPS, (320, 240))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))


def test_head_motion_is_apart_from_expression(take, topology):
    jaw, rotations, heads = truth()
    relative = [angle(take.rotation[i] @ take.rotation[0].T, rotations[i] @ rotations[0].T) for i in range(COUNT)]
    assert max(relative) < 1.5  # degrees, while the chin goes down by centimetres
    chin = np.array([topology.landmarks_of(take.head_map(i))[8, 1] for i in range(COUNT)])
    true = np.array([topology.landmarks_of(head)[8, 1] for head in heads])
    assert np.corrcoef(chin, true)[0, 1] > 0.98 and np.ptp(chin) == pytest.approx(np.ptp(true), rel=0.2)
    bridge = np.array([topology.landmarks_of(take.head_map(i))[27] for i in range(COUNT)])
    assert np.ptp(bridge, 0).max() < 0.002  # metres: the nose's bridge stays on the skull


def test_it_says_that_it_has_no_arkit_weights(take, tmp_path):
    assert take.weights.shape == (COUNT, 0) and take.topology.name == "prnet"
    with pytest.raises(CaptureError, match="^ARKit shape keys can be had with this program's own weights only"):
        build_performance(take, skin_texture(), new_stage(), way="arkit", stride=4)
    assert not bpy.data.objects
    with pytest.raises(CaptureError, match="^The hm08 face loops can be had"):
        build_performance(take, skin_texture(), new_stage(), way="absolute", topology="loops")
    write_json(tmp_path / "take.json", [of_take(take)])
    assert '"arkit_names": []' in (tmp_path / "take.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("way", ["absolute", "relative", "pc2"])
def test_it_plays_in_blender(take, tmp_path, way):
    scene = new_stage()
    match_time(scene, FPS, COUNT)
    built = build_performance(take, skin_texture(), scene, way=way, stride=4, folder=tmp_path)
    assert built.expression is None
    for frame in (0, 20, 39):
        scene.frame_set(scene.frame_start + frame)
        wanted = to_blender(take.topology.grid(4).sample(take.head_map(frame)))
        assert np.linalg.norm(moved_vertices(built.mesh) - wanted, axis=1).max() < 0.0003
    if way == "absolute":
        assert export(tmp_path / "take.glb", [built.mesh])[-1].stat().st_size > 10_000


def test_smoothing_smooths(topology):
    _, rotations, heads = truth()
    rng = np.random.default_rng(1)
    takes = []
    for smoothing in (Smoothing(0, 0, 0), Smoothing()):
        recorder, rng = PlainRecorder(topology), np.random.default_rng(1)
        for i in range(COUNT):
            seen = (4.5 * heads[0] @ rotation_of(rng.normal(0, 0.5)).T).astype(np.float32)
            recorder.add(TrackedFrame(i, i / FPS, IMAGE, [], False), TrackedFace(0, Crop(160.0, 120.0, 110.0), seen, None, 0.0))
        takes.append(solve_plain(recorder, "the take", FPS, (320, 240), smoothing))
    rough, calm = (np.mean([angle(a, b) for a, b in zip(take.rotation, take.rotation[1:])]) for take in takes)
    assert calm < 0.5 * rough


@pytest.mark.slow
def test_on_the_command_line(topology, tmp_path):
    from test_prnet import seen_mean
    weights = write_constant_bundle(tmp_path / "weights", seen_mean(10, 0, 0), topology=topology)
    write_movie(tmp_path / "clip.mp4", [portrait(x=150 + step) for step in range(8)], 25)
    result = capture("clip.mp4", "--weights", weights, "-o", "take.blend", "--preview", "look.png", "--detail", "4", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "frames captured at 25 a second" in result.stdout and "weights: Research only" in result.stdout
    for options, what in ((("-o", "take.csv"), "A LiveLink Face file"), (("--animation", "arkit"), "ARKit shape keys")):
        refused = capture("clip.mp4", "--weights", weights, *options, cwd=tmp_path)
        assert refused.returncode == 2 and refused.stderr.startswith(f"{what} can be had with this program's own weights only")
