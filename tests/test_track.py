"""Faces followed through clips whose truth is known, with the shipped network and the real detector."""

import itertools
import weakref

import cv2
import numpy as np
import pytest

from clips import portrait, wall, write_movie
from prn_blender.prn import CaptureCancelled, CaptureError, capture_video
from prn_blender.prn.crop import turn
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.track import CALM_BATCH


def landmarks(face) -> np.ndarray:
    return face.crop.to_image(load_topology().landmarks_of(face.crop_map))[:, :2]


def test_a_moving_and_growing_face_is_followed(tmp_path):
    x, size = np.linspace(90, 220, 24), np.linspace(0.8, 1.1, 24)
    path = write_movie(tmp_path / "clip.mp4", [portrait(x=x[step], size=size[step]) for step in range(24)])
    calls = []
    frames = list(capture_video(path, progress=calls.append))
    assert [frame.index for frame in frames] == list(range(24)) and not any(frame.cut for frame in frames)
    assert all([face.track for face in frame.faces] == [0] for frame in frames)
    points = np.array([landmarks(frame.faces[0]) for frame in frames])
    widths = np.ptp(points[..., 0], axis=1)
    np.testing.assert_allclose(points.mean(1)[:, 0] - points.mean(1)[0, 0], x - x[0], atol=5)
    np.testing.assert_allclose(widths / widths[0], size / size[0], rtol=0.1)
    assert frames[5].faces[0].expression.shape == (52,) and frames[5].image.shape == (240, 320, 3)
    assert [call.done for call in calls] == list(range(1, 25)) and calls[-1].fraction == 1.0
    assert calls[0].seconds_left > 0 == calls[-1].seconds_left and str(calls[11]).startswith("frame 12 of 24, 0:0")


def test_a_sudden_jump_is_not_lost():
    frames = [portrait(x=120 if step < 7 else 150) for step in range(12)]
    found = list(capture_video(frames))
    assert all(len(frame.faces) == 1 for frame in found)
    assert landmarks(found[7].faces[0])[:, 0].mean() - landmarks(found[6].faces[0])[:, 0].mean() == pytest.approx(30, abs=4)


def test_a_head_that_leans_further_and_further_is_seen_as_an_upright_one():
    """From upright to 60 degrees: the landmarks turn with the picture, the crop leans with the head, and nothing of the expression changes."""
    rolls, middle = np.linspace(0, 60, 40), np.array([160.0, 120.0])
    frames = []
    for roll in rolls:
        matrix = np.column_stack([turn(roll)[:2, :2], middle - turn(roll)[:2, :2] @ middle])
        frames.append(cv2.warpAffine(portrait(size=0.8, y=120), matrix, (320, 240), borderMode=cv2.BORDER_REPLICATE))
    faces = [frame.faces[0] for frame in capture_video(frames)]
    upright = np.array([(landmarks(face) - middle) @ turn(roll)[:2, :2] for face, roll in zip(faces, rolls)])
    size = np.sqrt(np.prod(np.ptp(upright[0], axis=0)))
    assert np.linalg.norm(upright - upright[0], axis=-1).mean(1).max() < 0.02 * size
    assert np.abs([face.crop.roll - roll for face, roll in zip(faces, rolls)]).max() < 20
    assert np.abs([face.expression - faces[0].expression for face in faces]).mean(1).max() < 0.035


def test_nobody_at_first_then_a_gap_then_back():
    frames = [wall()] * 6 + [portrait()] * 16 + [wall()] * 10 + [portrait(x=165)] * 12
    found = list(capture_video(frames, fps=25))
    assert len(found) == len(frames)
    seen = np.array([len(frame.faces) for frame in found])
    assert not seen[:6].any() and not seen[23:31].any()
    assert seen[10:20].all() and seen[37:].all()


def test_a_cut_gives_a_new_number():
    bright = np.full((240, 320, 3), 200, np.uint8)
    frames = [portrait()] * 6 + [portrait(x=200, y=150, size=0.8, onto=bright)] * 6
    found = list(capture_video(frames))
    assert [frame.index for frame in found if frame.cut] == [6]
    assert {face.track for frame in found[:6] for face in frame.faces} == {0}
    assert {face.track for frame in found[6:] for face in frame.faces} == {1}
    assert abs(landmarks(found[6].faces[0])[:, 0].mean() - landmarks(found[11].faces[0])[:, 0].mean()) < 3


def two(step: int) -> np.ndarray:
    """A large face at the left and a small one at the right that comes nearer."""
    left = portrait(480, 240, x=100, y=130, size=0.9)
    return np.concatenate([left[:, :260], portrait(220, 240, x=110, y=120, size=0.6)], 1)


def test_all_faces_keep_their_numbers():
    found = list(capture_video([two(step) for step in range(10)], faces="all"))
    assert all(len(frame.faces) == 2 for frame in found)
    for frame in found:
        large, small = frame.faces
        assert (large.track, small.track) == (0, 1) and large.crop.side > small.crop.side
        assert large.crop.center_x < 200 < small.crop.center_x


def test_the_largest_face_alone():
    found = list(capture_video([two(step) for step in range(6)]))
    assert all(len(frame.faces) == 1 and frame.faces[0].crop.center_x < 200 for frame in found)


def test_somebody_nearer_takes_over():
    alone = np.concatenate([portrait(200, 240, x=100, y=120, size=0.5), wall(280, 240)], 1)
    both = np.concatenate([alone[:, :200], portrait(280, 240, x=140, y=130, size=1.1)], 1)
    found = list(capture_video([alone] * 4 + [both] * 12, fps=5))  # 5 a second: newcomers are looked for every 10 frames
    assert found[2].faces[0].crop.center_x < 200 < found[-1].faces[0].crop.center_x
    assert found[2].faces[0].track != found[-1].faces[0].track


def test_cancelling_and_closing():
    asked = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > 6

    seen = []
    with pytest.raises(CaptureCancelled):
        for frame in capture_video([portrait()] * 20, cancelled=cancelled):
            seen.append(frame.index)
    assert len(seen) < 7
    frames = capture_video([portrait()] * 20)
    next(frames)
    frames.close()


def test_a_missing_movie_is_refused_at_once():
    with pytest.raises(CaptureError, match="does not exist"):
        capture_video("nowhere.mp4")


def test_memory_does_not_grow_with_the_length():
    """A source without end: frames are made little before they are asked for, and none but two batches are kept."""
    made = []

    def frames():
        while True:
            frame = portrait()
            made.append(weakref.ref(frame))
            yield frame

    most = 0
    for found in itertools.islice(capture_video(frames()), 40):
        most = max(most, sum(reference() is not None for reference in made))
    assert len(made) >= 40 and most <= 3 * CALM_BATCH
