"""The gaze and the iris' colour: read from photos into which eyes with known ones are drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from prn_blender.prn import capture_image
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.eye_texture import eye_texture
from prn_blender.prn.eyeball import IRIS, eyeball, turned
from prn_blender.prn.gaze import BROWN, UNSEEN, Eye, gaze_of, iris_of, light_of, look, read_eyes, seen_head
from prn_blender.prn.head import build_head
from prn_blender.prn.head_topology import load_head_topology

ASTRONAUT = Path(__file__).parent / "data" / "astronaut.jpg"


@pytest.fixture(scope="module")
def face():
    photo = cv2.imread(str(ASTRONAUT))[..., ::-1]
    return capture_image(np.ascontiguousarray(cv2.resize(photo, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)))[0]


@pytest.fixture(scope="module")
def head(face):
    return build_head(face)


def painted(face, head, right: float, up: float, iris: tuple[int, int, int]):
    """The capture with other eyes between its lids: white, and a disc where eyeballs turned so have their iris."""
    image = face.image.copy()

    def placed(points):
        return (face.pixels_per_metre * points @ face.rotation.T + face.translation)[:, :2]

    ring = np.linspace(0, 2 * np.pi, 40)
    rim = np.stack([np.sin(IRIS) * np.cos(ring), np.sin(IRIS) * np.sin(ring), np.full(40, -np.cos(IRIS))], 1)
    for (centre, radius), rims in zip(head.eyes, load_head_topology().lid_rims):
        opening, disc, pupil = (np.zeros(image.shape[:2], np.uint8) for _ in range(3))
        cv2.fillConvexPoly(opening, cv2.convexHull(np.rint(placed(head.vertices[rims[0]])).astype(np.int32)), 1)
        for target, share in ((disc, 1.0), (pupil, 0.4)):
            points = turned(rim * (share, share, 1), right, up)
            cv2.fillConvexPoly(target, np.rint(placed(centre + radius * points) * 16).astype(np.int32), 1, cv2.LINE_AA, shift=4)
        image[opening > 0] = (215, 205, 200)
        image[(opening & disc) > 0] = iris
        image[(opening & pupil) > 0] = (12, 10, 10)
    changed = type(face)(**{**face.__dict__, "image": cv2.GaussianBlur(image, (0, 0), 0.7)})
    return changed


@pytest.mark.parametrize("right, up", [(0, 0), (15, 0), (-15, 0), (8, 6), (-8, -8)])
def test_known_gaze_is_read(face, head, right, up):
    read = gaze_of(read_eyes(painted(face, head, right, up, (90, 60, 40)), head))
    assert read is not None
    assert read[0] == pytest.approx(right, abs=4)
    assert read[1] == pytest.approx(up, abs=9)          # lids hide the iris above and below


@pytest.mark.parametrize("iris", [(70, 105, 140), (95, 60, 35), (85, 105, 70)])
def test_iris_colour_is_read(face, head, iris):
    read = iris_of(read_eyes(painted(face, head, 0, 0, iris), head))
    assert np.abs(np.array(read) - iris).max() < 25
    assert np.argmax(read) == np.argmax(iris)


def test_eyes_that_cannot_be_read_are_brown_and_look_ahead(face, head):
    assert gaze_of([UNSEEN, UNSEEN]) is None and iris_of([UNSEEN, UNSEEN]) == BROWN
    assert gaze_of([Eye(True, -15, 0, BROWN, False), Eye(True, 15, 0, BROWN, False)]) is None
    grey = type(face)(**{**face.__dict__, "image": np.full_like(face.image, 120)})
    assert gaze_of(read_eyes(grey, head)) is None and iris_of(read_eyes(grey, head)) == BROWN


def test_whites_are_as_bright_as_the_photo(face, head):
    dark = type(face)(**{**face.__dict__, "image": (face.image // 3).astype(np.uint8)})
    assert light_of(read_eyes(face, head), face) > 0.85
    assert light_of(read_eyes(dark, head), dark) < 0.7 and light_of([UNSEEN, UNSEEN], dark) < 0.75
    black = type(face)(**{**face.__dict__, "image": (face.image // 9).astype(np.uint8)})
    assert light_of(read_eyes(black, head), black) < 0.3 and light_of([UNSEEN, UNSEEN], black) < 0.3


def test_eyes_and_teeth_are_as_dark_as_the_photo(face):
    black = type(face)(**{**face.__dict__, "image": (face.image // 9).astype(np.uint8)})
    (_, eyes, white), (_, dark_eyes, dark_white) = seen_head(face), seen_head(black)
    assert white > 0.85 and 0.05 < dark_white < 0.3
    assert eyes.max() > 190 and dark_eyes.max() < 80


def test_looking_turns_the_eyeballs_and_leaves_the_skin(head):
    topology = load_head_topology()
    turned_head = look(head, 12, -5)
    moved = np.linalg.norm(turned_head.vertices - head.vertices, axis=1)
    assert moved[:topology.skin].max() < 1e-6
    part, (centre, _) = topology.eye_vertices[0], head.eyes[0]
    front = np.argmin(eyeball().vertices[:, 2])
    x, y, z = turned_head.vertices[part][front] - centre
    assert np.degrees(np.arctan2(x, -z)) == pytest.approx(12, abs=1.5) and np.degrees(np.arctan2(-y, -z)) == pytest.approx(-5, abs=1.5)
    assert turned_head.weights[ARKIT_NAMES.index("eyeLookOutLeft")] > 0.4
    assert np.allclose(turned_head.vertices, turned_head.neutral + np.tensordot(turned_head.weights, turned_head.shapes, 1), atol=1e-6)


def test_eye_picture_has_the_colour_between_pupil_and_white():
    picture = eye_texture((70, 105, 140), size=512).astype(float)
    middle = picture[256, 256]
    reach = 0.5 * (1 - (1 - 0.65 * IRIS / np.pi) ** 3) * 512
    ring = [picture[int(256 + reach * np.sin(a)), int(256 + reach * np.cos(a))] for a in np.linspace(0, 6, 40)]
    assert middle.max() < 30 and np.abs(np.mean(ring, 0) - (70, 105, 140)).max() < 25
    assert picture[256, 370].min() > 170
