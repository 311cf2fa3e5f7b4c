"""A take's solve against exact truth: head motion and expression apart, steady, gaps bridged, rates changed."""

from dataclasses import replace

import numpy as np
import pytest

from clips import portrait, wall
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.crop import Crop
from prn_blender.prn.errors import CaptureError, NoFaceError
from prn_blender.prn.lens import lens_of
from prn_blender.prn.performance import capture_performance
from prn_blender.prn.take import Smoothing
from prn_blender.prn.take_recorder import TrackNotes
from prn_blender.prn.take_solve import _calmest
from prn_blender.prn.take_weights import _spikes
from prn_blender.prn.time_grid import TimeGrid
from prn_blender.prn.track import TrackedFace, TrackedFrame
from prn_blender.prn.video import open_video
from takes import BLINK, FPS, JAW, LEFT_LID, RIGHT_LID, SMILE, make_take, solve_take, talking, unsmoothed


def angle_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) degrees between rotations (N, 3, 3)."""
    trace = np.einsum("nij,nij->n", one, other)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def test_head_motion_is_found_apart_from_the_expression():
    take, performance = talking()
    assert len(performance) == 60 and performance.seen.all() and not performance.gaps
    assert angle_between(performance.rotation, take.rotations).max() < 1.0
    moved = performance.translation[:, :2] - performance.translation[0, :2]
    np.testing.assert_allclose(moved, take.places - take.places[0], atol=1.0)
    assert np.ptp(performance.scale) / performance.scale.mean() < 0.02
    np.testing.assert_allclose(np.linalg.det(performance.rotation), 1, atol=1e-6)


def test_expression_comes_back():
    take, performance = talking()
    for shape in (JAW, SMILE, LEFT_LID):
        assert np.corrcoef(performance.weights[:, shape], take.weights[:, shape])[0, 1] > 0.98
    assert np.abs(performance.weights - take.weights).mean() < 0.02
    assert performance.weights.min() >= 0 and performance.weights.max() <= 1
    assert performance.weights[BLINK, LEFT_LID] > 0.9


@pytest.mark.parametrize("seen, shown", [(0.62, 1.0), (0.40, 0.2)])
def test_eyes_that_are_kept_shut_stay_shut(seen, shown):
    """A network calls them half shut, and eyes that are narrow at rest a quarter; a squint stays one."""
    step = np.arange(90)
    lids = 0.25 + (seen - 0.25) * np.clip((step - 20) / 10, 0, 1) * np.clip((85 - step) / 10, 0, 1)
    weights = solve_take(make_take(90, still=True, lids=lids)).weights[:, [LEFT_LID, RIGHT_LID]]
    assert weights[:15].max() < 0.05
    np.testing.assert_allclose(weights[40:70], shown, atol=0.08)


def test_the_skull_stands_still_in_head_space():
    """What no ARKit shape moves must not move: the bridge of the nose, a landmark."""
    _, performance = talking()
    bridge = np.array([performance.topology.landmarks_of(performance.head_map(i))[27] for i in range(0, 60, 3)])
    assert np.linalg.norm(bridge - bridge.mean(0), axis=1).max() < 0.0008


def test_a_still_face_stands_still_and_smoothing_can_be_left_out():
    take = make_take(noise=0.001, still=True)

    def shaking(performance) -> float:
        points = np.array([performance.scale[i] * performance.topology.landmarks_of(performance.head_map(i))
                           @ performance.rotation[i].T + performance.translation[i] for i in range(len(performance))])
        return float(np.diff(points, axis=0).std())

    raw, smooth = shaking(unsmoothed(take)), shaking(solve_take(take))
    assert smooth < raw / 3.7
    assert shaking(solve_take(take, smoothing=Smoothing(head=0, face=1, eyes=1))) > 1.5 * smooth


def test_a_head_that_never_stands_still_stays_where_it_is_seen():
    take = make_take(noise=0.0005, still=True)
    dance = np.repeat(np.random.default_rng(0).normal(0, 8, (20, 2)), 3, 0)      # pixels: elsewhere every tenth of a second
    frames = [replace(frame, faces=[replace(face, crop=Crop(face.crop.center_x + x, face.crop.center_y + y, face.crop.side)) for face in frame.faces])
              for frame, (x, y) in zip(take.frames, dance)]
    away = solve_take(replace(take, frames=frames)).translation[:, :2] - solve_take(take).translation[:, :2] - dance
    assert np.abs(away).max() < 1


def test_the_neutral_is_found_or_chosen():
    take, performance = talking()
    assert take.weights[performance.neutral_frame].sum() < 0.15
    chosen = solve_take(take, neutral_frame=58)
    assert chosen.neutral_frame == 58
    with pytest.raises(CaptureError, match="Frame 400 cannot be the neutral one"):
        solve_take(take, neutral_frame=400)


def test_short_gaps_are_bridged_and_long_ones_left_out():
    take = make_take(count=90, missing=[*range(10, 18), *range(40, 70)])
    performance = solve_take(take)
    assert len(performance) == 90 and performance.seen[10:18].all()
    assert angle_between(performance.rotation[10:18], take.rotations[10:18]).max() < 2.5
    assert performance.gaps == [(40, 69)]
    assert "1.3-2.3 s" in performance.warnings[-1] and "30 frames are left out" in performance.warnings[-1]
    np.testing.assert_array_equal(performance.rotation[45], performance.rotation[39])  # held


def test_another_frame_rate():
    take = make_take(count=61)
    performance = solve_take(take, fps=24.0)
    assert len(performance) == 49 and performance.fps == 24
    times = np.arange(49) / 24
    wanted = np.interp(times, np.arange(61) / FPS, take.weights[:, JAW])
    assert np.abs(performance.weights[:, JAW] - wanted).max() < 0.08


def test_a_frame_whose_map_is_no_head_counts_as_a_gap():
    take = make_take()
    rng = np.random.default_rng(1)
    for i in (30, 31):
        face = take.frames[i].faces[0]
        face.network_map[:] = face.network_map * rng.uniform(0.2, 2.5, (256, 1, 1))
    performance = solve_take(take)
    assert performance.seen.all()
    assert angle_between(performance.rotation, take.rotations).max() < 2


def test_a_take_that_starts_late_keeps_its_place():
    take = make_take(missing=range(15))
    performance = solve_take(take)
    assert performance.start == 15 and len(performance) == 45


def test_from_a_clip():
    calls = []
    frames = [wall()] * 3 + [portrait(x=150 + step) for step in range(14)]
    performance = capture_performance(frames, progress=calls.append)
    assert calls[-1].done == len(performance) and performance.image_size == (320, 240)
    assert 3 <= performance.start <= 7 and performance.seen.all()
    moved = performance.translation[-1, 0] - performance.translation[0, 0]
    assert moved == pytest.approx(len(performance) - 1, abs=1.5)
    assert "front" in performance.key_frames


def test_a_clip_that_tells_its_lens():
    video = open_video([portrait(x=150 + step) for step in range(6)])
    video.focal = 26.0                                      # as of a phone's movie
    performance = capture_performance(video, quick=True)
    assert performance.lens == lens_of(26, 320, 240)
    given = capture_performance([portrait(x=150 + step) for step in range(6)], quick=True, focal=50)
    assert given.lens == lens_of(50, 320, 240)
    landmarks = performance.topology.landmarks_of
    apart = performance.seen_at(0, landmarks(performance.head_map(0))) - given.seen_at(0, landmarks(given.head_map(0)))
    assert np.linalg.norm(apart[:, :2], axis=1).mean() < 1.0


def test_wrong_requests():
    with pytest.raises(NoFaceError, match="No face found in the frames"):
        capture_performance([wall()] * 4)
    with pytest.raises(CaptureError, match="Face 2 was asked for"):
        capture_performance([portrait()] * 4, face=2)
    with pytest.raises(CaptureError, match="faces are counted from 1"):
        capture_performance([portrait()] * 4, face=0)
    with pytest.raises(CaptureError, match="frames a second"):
        capture_performance([portrait()] * 4, fps=0.1)


def test_the_picture_from_the_front_is_of_a_face_that_rests():
    """Not the one frame in which a moving face looks most at rest."""
    smiles = [*[0.30] * 20, *[0.9] * 10, 0.6, 0.25, 0.6, *[0.9] * 10]
    notes, image = TrackNotes(), np.zeros((8, 8, 3), np.uint8)
    for index, smile in enumerate(smiles):
        expression = np.zeros(52, np.float32)
        expression[[ARKIT_NAMES.index("mouthSmileLeft"), ARKIT_NAMES.index("mouthSmileRight")]] = smile
        face = TrackedFace(0, Crop(100, 100, 80), np.zeros((4, 4, 3), np.float32), expression, -2.0)
        notes.judge(TrackedFrame(index, index / 30, image, [face], False), face, 0.001, 5.0, np.eye(3), np.zeros(3))
    assert notes.key_frames()["front"][0].frame < 20


def test_teeth_come_from_the_widest_mouth():
    """A smile's too, if no mouth opens wider; shut lips show none."""
    notes, image = TrackNotes(), np.zeros((8, 8, 3), np.uint8)

    def see(index: int, opening: float) -> None:
        expression = np.zeros(52, np.float32)
        expression[JAW] = opening
        face = TrackedFace(0, Crop(100, 100, 80), np.zeros((4, 4, 3), np.float32), expression, -2.0)
        notes.judge(TrackedFrame(index, index / 30, image, [face], False), face, 0.001, 5.0, np.eye(3), np.zeros(3))

    see(0, 0.02)
    assert "mouth" not in notes.key_frames()
    see(1, 0.13)
    assert notes.key_frames()["mouth"][0].frame == 1
    see(2, 0.6)
    see(3, 0.3)
    assert notes.key_frames()["mouth"][0].frame == 2


def test_a_face_at_rest_stays_as_it_is():
    """An expression that the network hardly reads may come to less than rest itself, but does not last."""
    weights = np.zeros((90, 52))
    weights[:, [JAW, SMILE]] = 0.12  # a person who looks so at rest
    weights[25:, JAW] = 0.3 - 0.3 * np.cos(np.arange(65) * 2 * np.pi / 24)
    weights[25:, SMILE] = np.clip(weights[25:, JAW] - 0.1, 0, 1)  # at its least for a moment every 24 frames
    grid = TimeGrid(np.arange(90) / FPS, FPS, FPS)
    assert weights[49].sum() < 0.01 and _calmest(weights, None, grid, None) < 25
    # What never rests is at rest where it shows least.
    assert _calmest(weights[30:], None, TimeGrid(np.arange(60) / FPS, FPS, FPS), None) in (18, 19, 20, 42, 43, 44)
    # Nor does what is not seen say that it stays.
    hidden = TimeGrid(np.delete(np.arange(90), np.s_[3:60]) / FPS, FPS, FPS)
    assert _calmest(weights, None, hidden, None) >= 60


def test_single_frames_that_jump_are_told_from_motion():
    weights = np.full((30, 52), 0.1)
    weights[:, JAW] = [*np.linspace(0.1, 0.8, 8), *[0.8] * 14, *np.linspace(0.8, 0.1, 8)]
    weights[4:7, LEFT_LID] = 0.3, 0.9, 0.4
    assert not len(_spikes(weights))
    weights[[12, 14], JAW] = 0.95
    weights[18, SMILE] = 0.0
    np.testing.assert_array_equal(_spikes(weights), [12, 14, 18])
    weights[10:13, SMILE] = 0.4  # three frames are a twitch
    np.testing.assert_array_equal(_spikes(weights), [12, 14, 18])
