"""Dark, bright and flat pictures: what their light is made, and that faces in them are found and seen. Never imports bpy."""

import cv2
import numpy as np
import pytest

from clips import PORTRAIT, portrait
from prn_blender.prn.capture import capture_image
from prn_blender.prn.detector import detect_faces
from prn_blender.prn.image_io import load_image
from prn_blender.prn.light import evened
from prn_blender.prn.performance import capture_performance

DULL = {"dark": (0.06, 0), "darker than a candle": (0.03, 0), "haze": (0.12, 150), "white haze": (0.12, 224)}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return load_image(PORTRAIT)


def dull(picture: np.ndarray, name: str) -> np.ndarray:
    gain, base = DULL[name]
    noise = np.random.default_rng(0).normal(0, 0.5, picture.shape)
    return np.clip(gain * picture + base + noise, 0, 255).astype(np.uint8)


def test_what_has_contrast_stays_as_it_is(photo):
    assert photo.std() > 50 and evened(photo, 50) is photo


@pytest.mark.parametrize("name", DULL)
def test_what_has_little_gets_it(photo, name):
    picture = evened(dull(photo, name), 50)
    assert picture.dtype == np.uint8 and picture.std() == pytest.approx(50, rel=0.15)
    assert 75 < picture.mean() < 180
    # Its levels keep their order and their proportions.
    assert np.corrcoef(picture.ravel(), photo.ravel())[0, 1] > 0.9


def test_nothing_jumps_where_it_begins():
    rng = np.random.default_rng(0)
    noise = np.clip(rng.normal(0, 1, (64, 64, 3)), -3, 3)
    # Frames of a video that grow darker and flatter, past the least contrast.
    frames = [np.round(40 + 0.5 * deviation + deviation * noise).clip(0, 255).astype(np.uint8) for deviation in np.arange(38, 12, -0.5)]
    means = np.array([evened(frame, 25).mean() for frame in frames])
    assert np.abs(np.diff(means)).max() < 1.5
    assert evened(np.full((8, 8, 3), 3, np.uint8), 50).std() == 0


@pytest.mark.parametrize("name", DULL)
def test_a_dull_photograph_is_captured_like_a_good_one(photo, name):
    (expected,), (found,) = (capture_image(picture) for picture in (photo, dull(photo, name)))
    one, other = (face.topology.landmarks_of(face.position_map)[:, :2] for face in (expected, found))
    size = np.sqrt(np.prod(np.ptp(one, axis=0)))
    assert np.linalg.norm(one - other, axis=1).mean() < 0.025 * size
    # The picture, and so the texture, stays the photographer's.
    assert found.image.mean() == pytest.approx(dull(photo, name).mean())


def test_a_dark_clip_is_captured():
    frames = [dull(portrait(x=150 + step), "dark") for step in range(8)]
    assert detect_faces(frames[0], quick=True)
    performance = capture_performance(frames, fps=24)
    assert performance.seen.all() and performance.translation[-1, 0] - performance.translation[0, 0] == pytest.approx(7, abs=1.5)


def test_nothing_is_found_in_the_dark():
    rng = np.random.default_rng(0)
    for side in (3, 8, 20):
        cloud = cv2.resize(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
        assert not detect_faces(dull(cloud, "dark"), lying=True)
