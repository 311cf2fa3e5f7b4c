"""The measures of depth, expression and robustness, on maps whose error is known."""

import numpy as np
import pytest

from prn_blender.prn.crop import Crop
from training.measure import DISTURBANCES, EYES, MOUTH, correlation, moved, opening


def test_an_opening_is_its_gap_over_its_width_in_any_pose():
    points = np.random.default_rng(0).normal(size=(478, 3))
    pairs, corners = MOUTH
    points[corners[0]], points[corners[1]] = (-2, 0, 0), (2, 0, 0)
    for upper, lower in pairs:
        points[upper], points[lower] = (0, -0.5, 0.3), (0, 0.5, 0.3)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    assert opening(points, *MOUTH) == pytest.approx(0.25)
    assert opening(points @ turn * 7 + 3, *MOUTH) == pytest.approx(0.25)
    for pairs, corners in EYES:
        assert len({*np.ravel(pairs), *corners}) == 8


def test_a_moved_crop_stays_within_its_bounds():
    crop, rng = Crop(100, 80, 160), np.random.default_rng(0)
    drawn = [moved(rng, crop) for _ in range(200)]
    sides = np.array([one.side for one in drawn])
    shifts = np.array([(one.center_x - 100, one.center_y - 80) for one in drawn])
    assert 128 <= sides.min() < 135 and 185 < sides.max() <= 192
    assert 13 < np.abs(shifts).max() <= 15                  # 15 % of the face, which is 100 pixels large


@pytest.mark.parametrize("name", DISTURBANCES)
def test_disturbances_change_the_picture_and_nothing_else(name):
    rows, columns = np.mgrid[:128, :128] / 128
    picture = np.stack([rows, columns, (rows + columns) / 2], -1).astype(np.float32)
    picture[::2] *= 0.8
    before = picture.copy()
    changed = DISTURBANCES[name](picture)
    assert changed.shape == picture.shape and changed.min() >= 0 and changed.max() <= 1
    assert np.array_equal(picture, before) and np.abs(changed - picture).max() > 0.05


def test_correlation():
    a = np.arange(10.0)
    assert correlation(a, 3 * a - 1) == pytest.approx(1) and correlation(a, -a) == pytest.approx(-1)
