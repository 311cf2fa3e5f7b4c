"""One texture of a take: from which frames it comes, and what covers the face in some of them. Never imports bpy."""

import cv2
import numpy as np
import pytest

from clips import portrait
from prn_blender.prn.performance import capture_performance
from prn_blender.prn.position_map import SIZE
from prn_blender.prn.take_texture import front_capture, in_light_of, make_take_texture

RATE, COVERED, BARE = 10, 5, 12
FLESH = np.s_[120:180, 50:100]  # the map's cheek that the thing is before


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    """A sharp face with something grey before its cheek, that is blurred from when the thing is gone."""
    frames = [portrait(x=150 + 0.3 * step) for step in range(COVERED + BARE)]
    for step, frame in enumerate(frames):
        if step < COVERED:
            cv2.circle(frame, (128, 140), 11, (70, 75, 80), -1, cv2.LINE_AA)
        else:
            frame[:] = cv2.GaussianBlur(frame, (0, 0), 0.7)
    return frames


def grey(texture: np.ndarray) -> float:
    """How much of the cheek is no redder than green."""
    flesh = cv2.resize(texture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[FLESH].astype(int)
    return float((flesh[..., 0] < flesh[..., 1] + 8).mean())


def test_what_covers_the_front_comes_from_another_moment(clip):
    performance = capture_performance(clip, fps=RATE)
    fronts = performance.key_frames["front"]
    assert fronts[0].frame < COVERED <= max(key.frame for key in fronts)
    alone = capture_performance(clip[:COVERED], fps=RATE)
    assert [key.frame for key in alone.key_frames["front"]] == [fronts[0].frame]
    covered, bared = (make_take_texture(one, 512) for one in (alone, performance))
    assert grey(covered) > 0.1 and grey(bared) < 0.01
    # Nothing but what covers it: lids, lips and the other cheek stay this frame's.
    rest = np.ones((512, 512), bool)
    rest[200:400, 60:240] = False
    assert (np.abs(covered.astype(int) - bared).max(-1)[rest] > 12).mean() < 0.01


def test_what_hides_half_of_the_face_makes_another_frame_the_front():
    frames = [portrait() for _ in range(2 * BARE)]
    for step, frame in enumerate(frames):
        if step < BARE:
            cv2.rectangle(frame, (100, 128), (140, 180), (70, 75, 80), -1)
        else:
            frame[:] = cv2.GaussianBlur(frame, (0, 0), 0.7)
    performance = capture_performance(frames, fps=RATE)
    fronts = performance.key_frames["front"]
    assert fronts[0].frame < BARE and fronts[0].merit > fronts[-1].merit
    chosen, = [key.frame for key in fronts if key.image is front_capture(performance).image]
    assert chosen >= BARE
    assert grey(make_take_texture(performance, 512)) < 0.01


def test_only_the_face_of_a_key_frame_is_kept():
    big = portrait(960, 540, 700, 300)
    (front,) = capture_performance([big] * 3, fps=RATE).key_frames["front"]
    assert max(front.image.shape) < 320
    crop, middle = front.face.crop, np.array(front.image.shape[1::-1]) / 2
    assert np.abs(middle - (crop.center_x, crop.center_y)).max() < 3


def test_another_light_is_taken_off():
    """Whole, and to one side."""
    rng = np.random.default_rng(0)
    seen = cv2.GaussianBlur(rng.uniform(60, 200, (SIZE, SIZE, 3)).astype(np.float32), (0, 0), 3)
    light = np.linspace(0.7, 1.1, SIZE)[None, :, None] * [1.0, 0.9, 0.8]
    other = np.clip(seen * light, 0, 255).astype(np.uint8)
    common = np.ones((SIZE, SIZE), np.float32)
    again = in_light_of(seen.astype(np.uint8), other, common)
    assert np.abs(again.astype(float) - seen).mean() < 3 < 15 < np.abs(other - seen).mean()
    np.testing.assert_array_equal(in_light_of(seen.astype(np.uint8), other, 0 * common), other)
