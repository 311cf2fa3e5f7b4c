"""The pieces that training is made of: people, augmentation, subdivision. The whole runs where its data is."""

import numpy as np
import pytest

from prn_blender.prn.arkit import ARKIT_NAMES
from training.augment import crop_transform, degrade, occlude
from training.people import random_expression, random_identity
from training.subdivision import catmull_clark, smooth_texels
from training.uv_layout import boundary_loops, flatten, triangles_of

MACRO = [f"macrodetails/{race}-{gender}-{age}" for race in ("african", "asian", "caucasian")
         for gender in ("female", "male") for age in ("baby", "child", "young", "old")]


def square_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (size * size, 3) of a flat square, z to the viewer, and its quads, counter-clockwise."""
    row, column = np.mgrid[:size, :size]
    points = np.stack([column, row, np.zeros_like(row)], -1).reshape(-1, 3) / (size - 1) - [0.5, 0.5, 0]
    a = (row[:-1, :-1] * size + column[:-1, :-1]).ravel()
    return points, np.stack([a, a + 1, a + size + 1, a + size], 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_person_is_a_blend_of_corner_persons(seed):
    local = ["nose/nose-hump-incr", "nose/nose-hump-decr", "ears/l-ear-scale-incr", "ears/r-ear-scale-incr"]
    weights = random_identity(np.random.default_rng(seed), MACRO + local)
    assert sum(weights.get(name, 0) for name in MACRO) == pytest.approx(1, abs=1e-3)
    assert not {"nose/nose-hump-incr", "nose/nose-hump-decr"} <= weights.keys()
    assert all(value >= 0 for value in weights.values())


def test_expressions_are_possible_and_various():
    rng = np.random.default_rng(0)
    drawn = np.stack([random_expression(rng) for _ in range(400)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    index = {name: i for i, name in enumerate(ARKIT_NAMES)}
    assert (np.minimum(drawn[:, index["jawLeft"]], drawn[:, index["jawRight"]]) == 0).all()
    assert (drawn[:, index["eyeBlinkLeft"]] > 0.8).mean() > 0.05
    assert (drawn[:, index["jawOpen"]] > 0.4).mean() > 0.08
    assert (drawn > 0.05).any(0).all()                      # every shape is seen


def test_pictures_change_and_stay_pictures():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for _ in range(60):
        for result in (degrade(rng, image), occlude(rng, image, image[::-1])):
            assert result.shape == image.shape and result.dtype == np.uint8


def test_a_crop_is_taken_round_the_face():
    points = np.array([[40, 50], [140, 50], [40, 150], [140, 150.0]])
    rng = np.random.default_rng(2)
    placed = np.stack([points @ (t := crop_transform(rng, points, 128, 1.6))[:, :2].T + t[:, 2] for _ in range(300)])
    centres, sizes = placed.mean(1), np.sqrt(np.ptp(placed, axis=1).prod(1))
    assert np.abs(centres.mean(0) - 63.5).max() < 1.5
    assert np.median(sizes) == pytest.approx(128 / 1.6, rel=0.2)        # a turned square's box is larger


def test_subdivision_keeps_what_is_flat():
    points, quads = square_grid(5)
    smooth, linear, finer = catmull_clark(quads, len(points))
    assert np.asarray(smooth.sum(1)).ravel() == pytest.approx(1)
    assert np.abs((smooth @ points)[:, 2]).max() == 0
    assert len(finer) == 4 * len(quads) and finer.max() < smooth.shape[0]
    assert np.abs((linear @ points)[:len(points)] - points).max() == 0


def test_subdivision_rounds_what_is_bent():
    points, quads = square_grid(5)
    points[:, 2] = np.abs(points[:, 0])                     # a roof
    smooth, *_ = catmull_clark(quads, len(points))
    ridge = np.abs(points[:, 0]) < 1e-9
    assert (smooth @ points)[:len(points)][ridge, 2].min() > 0.02


def test_texels_are_means_of_vertices():
    points, quads = square_grid(6)
    uv = points[:, :2] * [0.9, -0.9] + 0.5
    mask = np.zeros((32, 32), bool)
    mask[4:28, 4:28] = True
    corners, weights = smooth_texels(quads, uv, np.zeros((32, 32, 4), int), np.tile([1.0, 0, 0, 0], (32, 32, 1)), mask)
    assert weights.sum(-1) == pytest.approx(1, abs=1e-5)
    places = (uv[corners] * weights[..., None]).sum(2)[mask]
    row, column = np.nonzero(mask)
    assert np.abs(places * 32 - 0.5 - np.stack([column, row], 1)).max() < 0.6


def test_flattening_folds_nothing_and_keeps_the_mirror():
    points, quads = square_grid(9)
    points[:, 2] = 0.5 - 1.2 * (points[:, 0] ** 2 + points[:, 1] ** 2)         # a dome
    mirror = np.argmin(np.linalg.norm(points[:, None] * [-1, 1, 1] - points[None], axis=2), axis=1)
    triangles = triangles_of(quads, points)
    uv = flatten(points, triangles, np.ones(len(triangles)), boundary_loops(quads)[0], mirror, steps=60)
    a, b, c = (uv[triangles[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a) < 0).all()               # v points down
    assert uv.min() > 0 and uv.max() < 1
    # Nearly: the diagonals on the middle line have no mirror image; `design_layout` takes the mean of both sides.
    assert np.abs(uv[mirror] * [-1, 1] + [1, 0] - uv).max() < 0.04
