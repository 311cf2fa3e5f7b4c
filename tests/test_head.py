"""The whole head: its topology, and how it follows the map. Real network, real fit."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.capture import capture_image
from prn_blender.prn.face_fit import GRID, load_shape_space
from prn_blender.prn.head import build_head, head_of
from prn_blender.prn.head_topology import PARTS, load_head_topology
from prn_blender.prn.position_map import cross, load_topology, sample
from prn_blender.prn.render import draw, triangulate, vertex_normals
from prn_blender.prn.unfold import Folds

ASTRONAUT = Path(__file__).parent / "data" / "astronaut.jpg"


@pytest.fixture(scope="module")
def face():
    return capture_image(ASTRONAUT)[0]


def skin_quads():
    topology = load_head_topology()
    return topology.quads[(topology.quads < topology.skin).all(1)]


def test_topology_is_one_closed_skin_but_for_the_neck():
    topology = load_head_topology()
    quads = skin_quads()
    sides = np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2), 1)
    edges, count = np.unique(sides, axis=0, return_counts=True)
    assert count.max() == 2
    rim = edges[count == 1]
    assert (np.bincount(rim.ravel())[np.unique(rim)] == 2).all()
    assert (topology.mean[np.unique(rim), 1] > 0.11).all()  # all of it at the neck's foot
    assert set(np.unique(topology.part)) == set(range(len(PARTS)))
    assert (topology.texture >= 0).all() and (topology.texture <= 1).all()
    assert np.array_equal(np.unique(topology.quads), np.arange(topology.count))


def test_basis_is_the_face_kits():
    topology, face = load_head_topology(), load_topology()
    places = topology.trusted_uv * 256 - 0.5
    inner = topology.trust[topology.trusted] > 0.99
    read = sample(face.mean, places)
    assert np.linalg.norm(read - topology.mean_vertices[topology.trusted], axis=1)[inner].max() < 0.0015


def test_head_follows_the_map_in_the_face(face):
    head, topology = build_head(face), load_head_topology()
    inner = topology.trusted[topology.trust[topology.trusted] > 0.95]
    places = topology.trusted_uv[topology.trust[topology.trusted] > 0.95] * 256 - 0.5
    distance = np.linalg.norm(head.vertices[inner] - sample(face.head_map, places), axis=1)
    assert distance.mean() < 0.0009 and np.quantile(distance, 0.95) < 0.0025


def test_nothing_jumps_at_the_faces_rim(face):
    head, topology = build_head(face), load_head_topology()
    bare = head_of(face.fit.identity, face.fit.expression, np.zeros((64, 64, 3)), face.metric, face.yaw)
    quads = skin_quads()
    sides = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    moved = (head.vertices - bare.vertices)[sides]
    length = np.linalg.norm(np.diff(bare.vertices[sides], axis=1)[:, 0], axis=1)
    change = np.linalg.norm(np.diff(moved, axis=1)[:, 0], axis=1)
    beyond = np.concatenate([topology.trust < 0.5, np.zeros(len(head.vertices) - topology.skin, bool)])
    assert (change / np.maximum(length, 1e-3))[beyond[sides].all(1)].max() < 0.15
    turned = (vertex_normals(head.vertices, quads) * vertex_normals(bare.vertices, quads)).sum(1)[:topology.skin]
    rim = (topology.trust > 0) & (topology.trust < 0.5)
    assert np.degrees(np.arccos(np.clip(turned[rim], -1, 1))).mean() < 8


def test_photo_is_neutral_plus_shapes(face):
    head = build_head(face)
    assert np.allclose(head.vertices, head.neutral + np.tensordot(head.weights, head.shapes, 1), atol=1e-6)


# ---- folds -----------------------------------------------------------------------------------------------------------


def folds(vertices, over_lids):
    """How many pairs of neighbouring quads have turned by more than 150 degrees where the mean head has less than 90."""
    topology = load_head_topology()
    quads = topology.quads
    _, side = np.unique(np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1), -1).reshape(-1, 2), axis=0, return_inverse=True)
    order = np.argsort(side.ravel(), kind="stable")
    same = np.flatnonzero(np.diff(side.ravel()[order]) == 0)
    one, other = order[same] // 4, order[same + 1] // 4

    def cosines(points):
        normals = np.cross(points[quads[:, 2]] - points[quads[:, 0]], points[quads[:, 3]] - points[quads[:, 1]])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return (normals[one] * normals[other]).sum(1)
    bent = (cosines(vertices) < np.cos(np.radians(150))) & (cosines(topology.mean_vertices) > 0)
    return int((bent & (over_lids | ~np.isin(quads, topology.lid_rims).any(1)[one] & ~np.isin(quads, topology.lid_rims).any(1)[other])).sum())


def test_no_quad_folds_over_at_rest_or_in_the_photos_expression(monkeypatch):
    """People as far from the mean as few are, with expressions as photographs have them: without the cure they have folds."""
    expressions = ({}, {"mouthLeft": 0.5, "mouthStretchRight": 0.3, "mouthPressRight": 0.3, **both(eyeSquint=0.6)},
                   {"jawOpen": 0.4, **both(mouthSmile=0.6, cheekSquint=0.4)}, both(mouthStretch=0.5, mouthPress=0.5, eyeSquint=0.5))

    def count():
        rng, found = np.random.default_rng(5), 0
        for expression in 3 * expressions:
            weights = np.zeros(52)
            for name, weight in expression.items():
                weights[ARKIT_NAMES.index(name)] = weight
            residual = cv2.GaussianBlur(rng.normal(0, 0.02, (GRID, GRID, 3)).astype(np.float32), (0, 0), 4.0)
            head = head_of(rng.normal(0, 1.2, 120), weights, residual)
            found += folds(head.neutral, True) + folds(head.vertices, False)
        return found
    assert count() == 0
    monkeypatch.setattr(Folds, "taken_out", lambda self, rest, movement=0.0: rest)
    assert count() > 5


def test_skin_without_folds_is_left_alone(face):
    topology = load_head_topology()
    skin = topology.mean[:topology.skin] + np.tensordot(0.3 * face.fit.identity, topology.identity[:, :topology.skin], 1)
    np.testing.assert_allclose(topology.folds.taken_out(skin), skin, atol=1e-7)


# ---- eyes, lids, mouth -----------------------------------------------------------------------------------------------


PEOPLE = 6


def people():
    """Heads of random people with random residuals: wider than photographs give them."""
    rng = np.random.default_rng(11)
    space = load_shape_space()
    for _ in range(PEOPLE):
        rough = rng.normal(0, 0.02, (GRID, GRID, 3)).astype(np.float32)
        residual = cv2.GaussianBlur(rough, (0, 0), 4.0)  # about a millimetre
        yield head_of(rng.normal(0, 1, space.identities), np.zeros(52), residual)


def posed(head, **weights):
    return head.neutral + sum(value * head.shapes[ARKIT_NAMES.index(name)] for name, value in weights.items())


def both(**weights):
    return {name + side: value for name, value in weights.items() for side in ("Left", "Right")}


def pixels_of(head_vertices, quads, part, names, place, metres=0.05, size=160):
    """How many pixels of a picture from the front, round a place, show parts of these names."""
    scale = size / metres
    flat = ((head_vertices - [*place[:2], 0]) * scale + [size / 2, size / 2, 0]).astype(np.float32)
    triangles = triangulate(quads)
    first, second, third = (flat[triangles[:, k], :2] for k in range(3))
    front = cross(second - first, third - first) < 0
    fragments = draw(flat, triangles[front], size, size)
    shown = np.repeat(part, 2)[front][fragments.triangle[fragments.covered]]
    return int(np.isin(shown, [PARTS.index(name) for name in names]).sum())


EYE = ("white", "iris", "pupil", "cornea")


@pytest.mark.parametrize("others", [{}, both(eyeSquint=1.0), both(eyeLookDown=1.0), both(browDown=1.0),
                                    {"eyeLookOutLeft": 1.0, "eyeLookInRight": 1.0}, both(cheekSquint=1.0)])
def test_closed_lids_hide_the_eyes(others):
    topology = load_head_topology()
    shown = topology.part != PARTS.index("lashes")
    for head in people():
        opened = posed(head)
        closed = posed(head, **others, **both(eyeBlink=1.0))
        for centre, _ in head.eyes:
            before = pixels_of(opened, topology.quads[shown], topology.part[shown], EYE, centre)
            after = pixels_of(closed, topology.quads[shown], topology.part[shown], EYE, centre)
            assert before > 300 and after <= 0.01 * before


@pytest.mark.parametrize("name", ["eyeSquint", "cheekSquint", "eyeWide", "eyeLookUp", "eyeLookDown", "eyeLookIn", "eyeLookOut"])
def test_no_lid_goes_through_an_eye_at_any_blink(name):
    topology = load_head_topology()
    for head in people():
        for share in np.linspace(0, 1, 6):
            for strength in (0.0, 0.5, 1.0):
                vertices = posed(head, **both(eyeBlink=share, **{name: strength}))
                for lids, (centre, radius) in zip(topology.lids, head.eyes):
                    outer = lids.lid[lids.need > 0.0005]  # what can be seen from outside
                    clear = np.linalg.norm(vertices[outer] - centre, axis=1) - radius
                    assert clear.min() > 0
