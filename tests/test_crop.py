"""Crops carry points there and back exactly, show what lies there, and do not alias."""

import cv2
import numpy as np
import pytest

from prn_blender.prn.crop import Crop, crop_from_face_box, crop_from_landmark_box, crop_from_landmarks, face_square, roll_of, turn
from prn_blender.prn.detector import FaceBox


def waves(points: np.ndarray) -> np.ndarray:
    """Levels at points (..., 2) of the image frame: in red they go up and down along x, in green along y."""
    return 127 + 100 * np.sin(2 * np.pi * points / 48)


def wavy(height: int, width: int) -> np.ndarray:
    """A picture of `waves`."""
    rows, columns = np.mgrid[:height, :width]
    levels = waves(np.stack([columns, rows], 2))
    return np.dstack([levels, np.zeros((height, width))]).round().astype(np.uint8)


def test_there_and_back():
    crop = Crop(123.4, 56.7, 89.0)
    points = np.random.default_rng(0).normal(0, 0.4, (5, 7, 3))
    there = crop.to_image(points)
    assert there.shape == points.shape and there.dtype == np.float32
    np.testing.assert_allclose(crop.from_image(there), points, atol=1e-5)
    np.testing.assert_allclose(crop.to_image(np.zeros(3)), [123.4, 56.7, 0], rtol=1e-6)
    # z grows with the crop's side like x and y, so that the shape stays a similar one.
    np.testing.assert_allclose(crop.to_image(np.array([0, 0, 0.5])), [123.4, 56.7, 44.5], rtol=1e-6)


def test_a_leaning_crop_goes_there_and_back_and_leans_clockwise():
    crop = Crop(100.0, 50.0, 80.0, 30.0)
    points = np.random.default_rng(0).normal(0, 0.4, (5, 3))
    np.testing.assert_allclose(crop.from_image(crop.to_image(points)), points, atol=1e-5)
    # Its upper end has gone to the viewer's right.
    np.testing.assert_allclose(crop.to_image(np.array([0, -0.5, 0.25])), [100 + 40 * 0.5, 50 - 40 * np.sqrt(0.75), 20], rtol=1e-6)


@pytest.mark.parametrize("roll", [-170.0, -35.0, 0.0, 90.0])
def test_the_crop_of_a_leaning_face_is_that_of_the_upright_one_turned(roll):
    upright = np.random.default_rng(1).uniform((40, 60), (130, 190), (68, 2))
    expected, leaning = crop_from_landmarks(upright), crop_from_landmarks(upright @ turn(roll)[:2, :2].T, roll=roll)
    assert leaning.side == pytest.approx(expected.side) and leaning.roll == roll
    assert (leaning.center_x, leaning.center_y) == pytest.approx(tuple(turn(roll)[:2, :2] @ (expected.center_x, expected.center_y)))


@pytest.mark.parametrize("roll", [-170.0, -35.0, 0.0, 90.0])
def test_how_a_head_leans_is_told_from_its_rotation(roll):
    def about(axis, degrees):
        return cv2.Rodrigues(np.deg2rad(degrees) * np.array(axis, float))[0]
    facing = about((1, 0, 0), 25) @ about((0, 1, 0), -60)
    assert roll_of(turn(roll) @ facing) == pytest.approx(roll)
    assert roll_of(turn(roll) @ about((1, 0, 0), 85)) == 0      # it shows its chin, or its crown


@pytest.mark.parametrize("roll", [0.0, 40.0])
@pytest.mark.parametrize("snapped", [False, True])
@pytest.mark.parametrize("side", [40.0, 64.0, 100.0, 180.0])
@pytest.mark.parametrize("size", [64, 128])
def test_a_texel_shows_the_point_it_stands_for(side, size, snapped, roll):
    # As far from the edges as one that leans reaches.
    crop = Crop(131.3, 129.8, side, roll)
    if snapped:
        crop = crop.snapped(size)
    cut = crop.cut(wavy(262, 262), size)
    assert cut.shape == (size, size, 3) and cut.dtype == np.float32
    rows, columns = np.mgrid[:size, :size]
    texels = np.stack([(columns + 0.5) / size - 0.5, (rows + 0.5) / size - 0.5, np.zeros((size, size))], 2)
    points = crop.to_image(texels)[..., :2]
    error = cut[..., :2] * 255 - waves(points)
    assert np.abs(error).max() < 5  # averages and chords of a wave are flatter than itself, and at a snapped crop's edge nothing beyond is seen
    # How far the picture lies beside where it should, pixels, along x and along y.
    slope = waves(points + 0.5) - waves(points - 0.5)
    assert np.abs((error * slope).sum((0, 1)) / (slope ** 2).sum((0, 1))).max() < 0.035  # OpenCV resamples at 32nds of a pixel


def test_a_snapped_crop_is_near_and_shows_what_the_crop_there_shows():
    image = wavy(700, 700)
    for side in (61.3, 150.8, 333.3):
        crop = Crop(349.7, 352.2, side)
        snapped = crop.snapped(96)
        assert max(abs(snapped.center_x - 349.7), abs(snapped.center_y - 352.2), abs(snapped.side - side) / round(max(1, side / 96))) <= 0.5
        # A hair beside it the picture is resampled between pixels.
        beside = Crop(snapped.center_x + 1e-4, snapped.center_y, snapped.side)
        assert np.abs(snapped.cut(image, 96) - beside.cut(image, 96)).max() * 255 < 5


def test_a_crop_of_the_same_scale_copies_pixels():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    # 16 pixels, centred between pixels 7 and 8 from (10, 20): pixels 10..25 and 20..35.
    cut = Crop(17.5, 27.5, 16).cut(image, 16)
    np.testing.assert_allclose(cut * 255, image[20:36, 10:26], atol=1e-3)


def test_outside_the_image_it_is_mirrored_and_fades():
    """No edge, by which a network could know its training photographs; and no second face."""
    image = np.full((40, 40, 3), 90, np.uint8)
    image[:, 10:14] = 200
    cut = Crop(-0.5, 19.5, 80).pixels(image, 80).astype(float)
    np.testing.assert_allclose(cut[20:60, 50:54], 200, atol=1)
    np.testing.assert_allclose(cut[20:60, 56:78], 90, atol=1)
    beyond = cut[40, :40, 0]
    assert np.abs(beyond[-1] - 90) < 5 and 95 < beyond[22:35].max() < 190
    assert np.abs(np.diff(beyond)).max() < 30
    assert not Crop(-0.5, 19.5, 80).within(image) and Crop(19.5, 19.5, 38).within(image)
    whole = Crop(19.5, 19.5, 30).pixels(image, 30)
    np.testing.assert_array_equal(whole, image[5:35, 5:35])


def test_a_leaning_crop_fades_beyond_the_image_alone():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8), (0, 0), 2)
    wide = cv2.copyMakeBorder(image, 100, 100, 100, 100, cv2.BORDER_CONSTANT)
    lean, beside = Crop(20, 100, 90, 30).pixels(image, 90).astype(int), Crop(120, 200, 90, 30).pixels(wide, 90)
    known = Crop(120, 200, 90, 30).pixels(cv2.copyMakeBorder(np.full_like(image, 255), 100, 100, 100, 100, cv2.BORDER_CONSTANT), 90).min(-1) == 255
    assert 0.3 < known.mean() < 0.9
    assert np.abs(lean - beside).max(-1)[known].max() <= 2


@pytest.mark.parametrize("center", [(-500.0, 20.0), (20.0, 900.0), (5000.0, -5000.0)])
@pytest.mark.parametrize("side", [10.0, 300.0])
def test_a_crop_wholly_outside_is_no_error(center, side):
    cut = Crop(*center, side).cut(np.full((40, 40, 3), 90, np.uint8), 32)
    np.testing.assert_allclose(cut * 255, 90, atol=1e-3)


def test_fine_patterns_become_grey_when_shrunk():
    checks = (np.indices((1024, 1024)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    cut = Crop(512, 512, 900).pixels(checks, 128) / 255
    assert np.abs(cut - 0.5).max() < 0.05


def test_a_crop_is_the_same_wherever_the_image_ends():
    image = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    whole = Crop(450, 450, 500).cut(image, 64)
    # The cut-out begins at pixel 150, so the same crop lies 150 pixels further up and left in it.
    moved = Crop(300, 300, 500).cut(image[150:750, 150:750], 64)
    assert np.abs(moved - whole).mean() < 0.02


def test_crop_from_landmarks():
    crop = crop_from_landmark_box(100, 200, 180, 300)
    assert (crop.center_x, crop.center_y) == (140, 250)
    assert crop.side == pytest.approx(1.6 * np.sqrt(80 * 100))


def test_crop_from_a_detected_box():
    crop = crop_from_face_box(FaceBox(100, 200, 116, 116, 1.0))
    # The detector's box is larger than the landmarks' and reaches further up.
    assert crop.side == pytest.approx(160)
    assert crop.center_x == pytest.approx(158)
    assert crop.center_y == pytest.approx(275)


@pytest.mark.parametrize("roll", [0.0, 90.0])
def test_a_crops_face_square_is_the_detectors_box(roll):
    box = FaceBox(30, -20, 116, 116, 1.0, roll)
    crop = crop_from_face_box(box)
    square = face_square(crop)
    assert (square.center_x, square.center_y, square.side, square.roll) == pytest.approx((88, 38, 116, roll))
    # Chins lie below brows: of a face that lies on its side, with its brows to the right, to the left of them.
    assert (crop.center_x, crop.center_y) == pytest.approx((88, 55) if roll == 0 else (71, 38))
