"""The shape-space fit recovers what made a map, in any frame, and cleans what is noise."""

import time

import cv2
import numpy as np
import pytest

from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.capture import fit_face
from prn_blender.prn.face_fit import in_head, load_shape_space, reading, similarity
from prn_blender.prn.openings import opening_texels
from prn_blender.prn.position_map import SIZE, load_topology

MASK = load_topology().mask


@pytest.fixture(scope="module")
def space():
    return load_shape_space()


def rotation(yaw: float, pitch: float) -> np.ndarray:
    return cv2.Rodrigues(np.radians([pitch, 0.0, 0.0]))[0] @ cv2.Rodrigues(np.radians([0.0, yaw, 0.0]))[0]


def made(space, seed: int, yaw: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A person's map in a frame of its own, the head's map, the turn and the ARKit weights."""
    rng = np.random.default_rng(seed)
    expression = np.zeros(52)
    expression[[ARKIT_NAMES.index(n) for n in ("jawOpen", "mouthSmileLeft", "eyeBlinkRight")]] = rng.uniform(0.3, 0.9, 3)
    small = space.offsets(np.concatenate([rng.normal(0, 1, space.identities), expression])).reshape(64, 64, 3)
    head = space.mean + cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    turn = rotation(yaw, 10)
    return (4 * head @ turn.T + [0.1, -0.2, 0.3]).astype(np.float32), head, turn, expression


@pytest.mark.parametrize("yaw", [-80, -30, 0, 45, 85])
def test_a_face_of_the_space_comes_back(space, yaw):
    position_map, _, turn, expression = made(space, 1, yaw)
    fit = space.fit(position_map, expression)
    millimetres = np.linalg.norm(fit.position_map - position_map, axis=2)[MASK] / 4 * 1000
    assert millimetres.mean() < 1.0 and np.quantile(millimetres, 0.95) < 2.5
    turned = np.degrees(np.arccos(np.clip((np.trace(fit.rotation.T @ turn) - 1) / 2, -1, 1)))
    assert turned < 2.5
    assert fit.scale == pytest.approx(4, rel=0.03)
    assert np.abs(fit.expression - expression).mean() < 0.04


def test_map_and_head_are_the_same_surface(space):
    position_map, *_, expression = made(space, 2, 30)
    fit = space.fit(position_map, expression)
    again = fit.scale * fit.head_map @ fit.rotation.T + fit.translation
    assert np.abs(again - fit.position_map).max() < 1e-4


def test_an_alignment_gives_what_the_normal_equations_of_its_frame_want(space):
    faces = [made(space, seed, 20 * seed) for seed in range(3)]
    readings = np.stack([reading(face[0]).reshape(-1, 3) for face in faces])
    *pose, _, right = space.align(readings, np.stack([face[3] for face in faces]))
    offsets = (in_head(readings, *pose) - space.small_mean)[:, space.solved].swapaxes(1, 2).reshape(3, -1)
    wanted = offsets @ space.weighted.reshape(len(space.weighted), -1).T
    assert np.abs(right - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_noise_is_taken_off(space):
    position_map, *_, expression = made(space, 3)
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE, 3)), (0, 0), 4)
    noisy = position_map + (noise / noise.std() * 0.0015 * 4).astype(np.float32)
    fit = space.fit(noisy, expression)
    before = np.linalg.norm(noisy - position_map, axis=2)[MASK].mean()
    after = np.linalg.norm(fit.position_map - position_map, axis=2)[MASK].mean()
    assert after < 0.55 * before            # at the rims of eyes and mouth it stays


def rims(position_map: np.ndarray) -> np.ndarray:
    """(3,) the mean way from the rim below to the rim above the openings of the right eye, the left and the mouth, in the map's unit."""
    count, labels = cv2.connectedComponents(opening_texels(load_topology()).astype(np.uint8), connectivity=4)
    *eyes, mouth = sorted((labels == label for label in range(1, count)), key=lambda opening: np.flatnonzero(opening.any(1)).mean())
    ways = []
    for opening in (*sorted(eyes, key=lambda eye: np.flatnonzero(eye.any(0)).mean()), mouth):
        columns = np.flatnonzero(opening.any(0))
        columns = columns[len(columns) // 4:-len(columns) // 4]
        rows = [np.flatnonzero(opening[:, column]) for column in columns]
        ways.append(np.mean([np.linalg.norm(position_map[row[0] - 1, column] - position_map[row[-1] + 1, column])
                             for row, column in zip(rows, columns)]))
    return np.array(ways)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_eyes_and_mouth_are_as_far_open_as_in_the_map(space, share):
    """A person whose lids and lips close otherwise than any head of the space, by network weights that say nothing of it."""
    head, *_ = made(space, 8)
    openings = opening_texels(load_topology()).astype(np.uint8)
    row = np.mgrid[:SIZE, :SIZE][0]
    count, labels = cv2.connectedComponents(openings, connectivity=4)
    wanted = head.copy()
    for label in range(1, count):
        inside = labels == label
        middle = row[inside].mean()
        away = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5)
        for column in np.flatnonzero(inside.any(0)):
            hole = np.flatnonzero(inside[:, column])
            gap = head[hole[-1] + 1, column] - head[hole[0] - 1, column]
            fade = np.exp(-(away[:, column] / 14) ** 2)[:, None]
            wanted[:, column] += (1 - share) / 2 * fade * np.where(row[:, [column]] < middle, 1, -1) * gap
    fit = space.fit(wanted.astype(np.float32), np.zeros(52))
    assert np.abs(rims(fit.position_map) - rims(wanted)).max() < 0.06 * rims(head).max()
    assert (rims(wanted) < (share + 0.1) * rims(head)).all()


@pytest.mark.parametrize("left, right", [(0.9, 0.1), (0.2, 0.8), (0.95, 0.95), (0.3, 0.4)])
def test_an_eye_that_the_network_is_sure_of_is_shut(space, left, right):
    """By the network's word alone, in any frame: its map leaves both half open."""
    topology = load_topology()
    weights = np.zeros(52)
    weights[[ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index("eyeBlinkRight")]] = 0.4
    small = space.offsets(np.concatenate([np.random.default_rng(9).normal(0, 1, space.identities), weights])).reshape(64, 64, 3)
    head = space.mean + cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    position_map = (4 * head @ rotation(25, -8).T).astype(np.float32)
    weights[[ARKIT_NAMES.index("eyeBlinkLeft"), ARKIT_NAMES.index("eyeBlinkRight")]] = left, right
    fit = fit_face(position_map, weights, topology)
    before, after = rims(position_map), rims(fit.position_map)
    for number, weight in enumerate((right, left)):
        if weight > 0.7:
            assert after[number] < 0.12 * before[number]
        else:
            assert after[number] == pytest.approx(before[number], rel=0.15)
    assert after[2] == pytest.approx(before[2], rel=0.15)


def test_weights_stay_between_nothing_and_all(space):
    position_map, *_ = made(space, 4)
    for prior in (np.zeros(52), np.ones(52)):
        fit = space.fit(position_map, prior)
        assert fit.expression.min() >= 0 and fit.expression.max() <= 1


def test_expression_and_identity_are_told_apart(space):
    """With the network's word for it a closed eye is a blink, not narrow lids of the person."""
    position_map, _, _, expression = made(space, 5)
    fit = space.fit(position_map, np.clip(expression + np.random.default_rng(1).normal(0, 0.05, 52), 0, 1))
    blink = ARKIT_NAMES.index("eyeBlinkRight")
    assert fit.expression[blink] == pytest.approx(expression[blink], abs=0.2)
    assert fit.identity.std() < 1.5


def test_similarity_is_exact_without_noise():
    rng = np.random.default_rng(0)
    source, turn = rng.normal(size=(50, 3)), rotation(70, -20)
    scale, found, translation = similarity(source, 2.5 * source @ turn.T + [1, 2, 3], rng.uniform(0.1, 1, 50))
    assert scale == pytest.approx(2.5)
    assert np.allclose(found, turn) and np.allclose(translation, [1, 2, 3])


def test_a_fit_is_quick(space):
    position_map, *_, expression = made(space, 6, 20)
    space.fit(position_map, expression)
    started = time.process_time()
    for _ in range(10):
        space.fit(position_map, expression)
    assert (time.process_time() - started) / 10 < 0.05          # a benchmark says how quick; this only says not slow
