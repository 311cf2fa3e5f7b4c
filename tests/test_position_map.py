"""The fixed topology is what it promises: bijective, mirror-symmetric, clean quads, dense where it counts."""

import numpy as np
import pytest

from prn_blender.prn.position_map import (FACE_WEIGHT, FEATURE_WEIGHT, LANDMARK_WEIGHT, SIZE, STRIDES, load_topology,
                                          texels_to_uv)

FEATURES = ("eye_left", "eye_right", "nose", "mouth")


@pytest.fixture(scope="module")
def topology():
    return load_topology()


def signed_areas(points: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(F, 2) signed areas of each quad's two triangles in the plane."""
    a, b, c, d = (points[quads[:, i]] for i in range(4))
    return 0.5 * np.stack([np.cross(b - a, c - a), np.cross(c - a, d - a)], 1)


def test_the_layout_is_one_to_one(topology):
    """No two quads of hm08's face lie over each other in UV: none folds, and their areas add up to what they cover."""
    grid = topology.loops()
    areas = signed_areas(grid.uvs.astype(float), grid.quads)
    assert (areas.sum(1) > 0).all()
    covered = np.zeros((4 * SIZE, 4 * SIZE), np.uint8)
    import cv2
    for quad in grid.quads:
        corners = np.stack([grid.uvs[quad, 0], 1 - grid.uvs[quad, 1]], 1) * 4 * SIZE
        cv2.fillPoly(covered, [np.round(corners * 16).astype(np.int32)], 1, shift=4)
    assert areas.sum() == pytest.approx(covered.mean(), abs=0.01)


def test_left_and_right_mirror(topology):
    assert (topology.mask == topology.mask[:, ::-1]).all()
    mirrored = topology.mean[:, ::-1] * [-1, 1, 1]
    assert np.abs(mirrored - topology.mean)[topology.mask].max() < 1e-5
    flipped = topology.landmarks * [-1, 1] + [SIZE - 1, 0]
    distance = np.linalg.norm(flipped[:, None] - topology.landmarks[None], axis=2).min(1)
    assert distance.max() < 0.1


def test_the_mask_is_one_piece_with_eyes_and_mouth_as_holes(topology):
    import cv2
    assert 0.78 < topology.mask.mean() < 0.92
    assert cv2.connectedComponents(topology.mask.astype(np.uint8), connectivity=4)[0] == 2
    holes = cv2.connectedComponents((~topology.mask).astype(np.uint8), connectivity=8)[0]
    assert holes == 1 + 1 + 3               # the face, the outside, two eyes and the mouth
    for first, last in ((36, 41), (42, 47), (60, 67)):
        column, row = np.round(topology.landmarks[first:last + 1].mean(0)).astype(int)
        assert not topology.mask[row, column]


@pytest.mark.parametrize("stride", STRIDES)
def test_quads_are_wound_alike_and_nearly_planar(topology, stride):
    grid = topology.grid(stride)
    assert (signed_areas(grid.uvs.astype(float), grid.quads) > 0).all()
    assert np.unique(grid.quads).size == len(grid.texel_coordinates)
    points = grid.sample(topology.mean).astype(float)
    a, b, c, d = (points[grid.quads[:, i]] for i in range(4))
    one, other = np.cross(b - a, c - a), np.cross(c - a, d - a)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    bend = np.degrees(np.arccos(np.clip((one * other).sum(1), -1, 1)))
    # Ears and nostrils fold within a texel or two; the skin an artist looks at is flat.
    assert np.median(bend) < 3 * stride
    assert (bend < 60).mean() > (0.985, 0.96, 0.90)[STRIDES.index(stride)]


def test_quads_face_outwards(topology):
    grid = topology.grid(2)
    points = grid.sample(topology.mean)
    front = (np.abs(points[:, 0]) < 0.03) & (points[:, 2] < 0)          # forehead, nose, lips, chin
    a, b, c, _ = (points[grid.quads[:, i]] for i in range(4))
    normal = np.cross(b - a, c - a)
    # x right, y down, z away is right-handed, so counter-clockwise seen from outside points at the viewer.
    assert (normal[front[grid.quads].all(1), 2] < 0).mean() > 0.93


def test_texels_lie_where_they_count(topology):
    """Eyes, nose and mouth take 60 % of the width; lids and lips are sampled within a millimetre."""
    features = np.any([topology.regions[name] for name in FEATURES], axis=0)
    columns = np.flatnonzero(features.any(0))
    assert (columns[-1] - columns[0] + 1) / SIZE >= 0.60
    for name in ("eye_left", "eye_right", "mouth"):
        region = topology.regions[name]
        along = np.linalg.norm(np.diff(topology.mean, axis=1), axis=2)[region[:, 1:] & region[:, :-1]] * 1000
        down = np.linalg.norm(np.diff(topology.mean, axis=0), axis=2)[region[1:] & region[:-1]] * 1000
        values = np.concatenate([along, down])
        assert np.median(values) < 0.8
        # The few beyond a millimetre lie in folds: between lid and brow, and where the lips turn inwards.
        assert (values <= 1.0).mean() > 0.85 and (values <= 1.3).mean() > 0.95
    assert features.sum() > 3 * topology.regions["ears"].sum()


def test_landmarks_lie_on_what_they_are_named_for(topology):
    points = topology.landmarks_of(topology.mean)
    assert topology.mask[np.round(topology.landmarks[:, 1]).astype(int),
                         np.round(topology.landmarks[:, 0]).astype(int)].mean() > 0.95
    assert np.argmin(points[:, 2]) in (29, 30, 31, 32, 33, 34, 35)      # the nose stands out most
    assert points[8, 1] == points[:17, 1].max()                         # the chin is lowest
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert (points[37:39, 1] < points[40:42, 1]).all() and (points[43:45, 1] < points[46:48, 1]).all()
    assert points[48, 0] < points[51, 0] < points[54, 0] and points[51, 1] < points[57, 1]
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    assert np.linalg.norm(eyes[0] - eyes[1]) == pytest.approx(0.063, abs=0.004)


def test_region_weights_are_the_papers(topology):
    assert set(np.unique(topology.weights)) == {0.0, FACE_WEIGHT, FEATURE_WEIGHT, LANDMARK_WEIGHT}
    assert (topology.weights[~topology.mask] == 0).all()
    column, row = np.round(topology.landmarks[30]).astype(int)
    assert topology.weights[row, column] == LANDMARK_WEIGHT
    assert (topology.weights[topology.regions["nose"]] >= FEATURE_WEIGHT).all()
    neck = topology.regions["neck"] & (topology.weights != LANDMARK_WEIGHT)
    assert (topology.weights[neck] == 0).all()


def test_the_map_goes_on_smoothly_beyond_the_mask(topology):
    """Resampling near an edge must not mix in anything far away: DESIGN's torn lips."""
    step = np.maximum(np.linalg.norm(np.diff(topology.mean, axis=0), axis=2)[:, 1:],
                      np.linalg.norm(np.diff(topology.mean, axis=1), axis=2)[1:])
    holes = np.zeros_like(topology.mask)
    for first, last in ((36, 41), (42, 47), (60, 67)):
        column, row = np.round(topology.landmarks[first:last + 1].mean(0)).astype(int)
        holes[row - 20:row + 21, column - 24:column + 25] = True
    assert step[holes[1:, 1:]].max() < 0.006


def test_uvs_are_blenders(topology):
    assert texels_to_uv(np.array([[0, 0], [SIZE - 1, SIZE - 1]])) == pytest.approx(
        np.array([[0.5 / SIZE, 1 - 0.5 / SIZE], [1 - 0.5 / SIZE, 0.5 / SIZE]]))


def test_a_stride_that_is_none_is_refused(topology):
    with pytest.raises(ValueError, match="stride"):
        topology.grid(3)
