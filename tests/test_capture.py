"""From a picture to placed faces: pose, scale and visibility against known truth, then the real thing on a photograph."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from bundles import eyes_unread, write_constant_bundle  # noqa: F401
from prn_blender.prn import ARKIT_NAMES, CaptureError, NoFaceError, OnnxEngine, capture_image, load_bundle
from prn_blender.prn.arkit import MIRRORED
from prn_blender.prn.capture import angles, place_face
from prn_blender.prn.crop import Crop, crop_from_face_box, crop_from_landmarks, turn
from prn_blender.prn.detector import FaceBox
from prn_blender.prn.engine import open_engine
from prn_blender.prn.face_fit import load_shape_space
from prn_blender.prn.image_io import load_image
from prn_blender.prn.look import look_twice, run_network
from prn_blender.prn.position_map import SIZE, load_topology

ROOT = Path(__file__).parent.parent
PHOTO = Path(__file__).parent / "data" / "astronaut.jpg"
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """A rotation with these angles, put together from turns about one axis at a time."""
    x, y, z = (cv2.Rodrigues(np.array(axis) * np.deg2rad(angle))[0]
               for axis, angle in (((1.0, 0, 0), -pitch), ((0, 1.0, 0), yaw), ((0, 0, 1.0), roll)))
    return x @ y @ z


def engine_for(folder: Path, position_map: np.ndarray, expression: np.ndarray | None = None) -> OnnxEngine:
    """A network that sees this face in every crop, and its mirror image in the mirrored half of the batch."""
    engine = OnnxEngine(load_bundle(write_constant_bundle(folder, position_map, expression)), threads=1)
    constant = engine.run

    def run(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, expressions = (part.copy() for part in constant(crops))
        half = len(crops) // 2
        maps[half:] = maps[half:, :, ::-1] * np.float32([-1, 1, 1])
        expressions[half:] = expressions[half:, list(MIRRORED)]
        return maps, expressions

    engine.run = run
    return engine


def in_its_crop(seen: np.ndarray) -> np.ndarray:
    """A position map where its own crop has it, in crop units: seen a second time, it lies where it lay."""
    crop = crop_from_landmarks(load_topology().landmarks_of(seen))
    return ((seen - [crop.center_x, crop.center_y, 0]) / crop.side).astype(np.float32)


def mean_seen(rotation: np.ndarray) -> np.ndarray:
    """The mean face's position map in crop units, turned."""
    return in_its_crop(load_topology().mean @ rotation.T)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return load_image(PHOTO)


@pytest.fixture(scope="module")
def real_face():
    """The astronaut through the shipped weights."""
    return capture_image(PHOTO)[0]


@pytest.mark.parametrize("surface", ["fitted", "raw"])
@pytest.mark.parametrize("pose", [(0, 0, 0), (40, 0, 0), (-70, 10, 0), (20, -30, 0)])
def test_pose_and_scale(tmp_path, photo, surface, pose, eyes_unread):  # noqa: F811
    topology = load_topology()
    truth = mean_seen(turned(*pose))
    face = capture_image(photo, surface=surface, engine=engine_for(tmp_path, truth))[0]

    np.testing.assert_allclose((face.yaw, face.pitch, face.roll), pose, atol=0.2)
    assert np.abs(face.rotation - turned(*pose)).max() < 0.004
    np.testing.assert_allclose(face.rotation @ face.rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(face.rotation) > 0

    pixels = face.crop.to_image(truth)
    np.testing.assert_allclose(face.raw_position_map, pixels, atol=1e-3)
    error = np.linalg.norm(face.position_map - pixels, axis=-1)[topology.mask]
    assert error.max() < (1e-3 if surface == "raw" else 0.02 * face.crop.side)
    # The image's points are the head's, carried by the pose: that is what the scene is built on.
    carried = face.pixels_per_metre * face.head_map @ face.rotation.T + face.translation
    assert np.abs(carried - face.position_map).max() < 0.01

    eyes = topology.landmarks_of(face.head_map)
    assert np.linalg.norm(eyes[LEFT_EYE].mean(0) - eyes[RIGHT_EYE].mean(0)) == pytest.approx(0.063, abs=1e-5)
    assert face.head_map.dtype == face.position_map.dtype == face.visibility.dtype == np.float32
    assert face.image is photo and set(face.seconds) == {"load", "detect", "network", "fit", "visibility"}


def test_interocular_distance_sets_the_scale(tmp_path, photo):
    engine = engine_for(tmp_path, mean_seen(np.eye(3)))
    adult = capture_image(photo, engine=engine)[0]
    child = capture_image(photo, engine=engine, interocular=0.05)[0]
    np.testing.assert_allclose(child.head_map, adult.head_map * (0.05 / 0.063), atol=1e-6)
    assert child.pixels_per_metre == pytest.approx(adult.pixels_per_metre * 0.063 / 0.05)
    np.testing.assert_allclose(child.position_map, adult.position_map)


def test_pose_of_another_person_with_an_open_mouth(tmp_path, photo):
    space = load_shape_space()
    rng = np.random.default_rng(3)
    expression = np.zeros(52)
    expression[ARKIT_NAMES.index("jawOpen")] = 0.9
    offsets = space.offsets(np.concatenate([rng.normal(0, 0.7, space.identities), expression])).reshape(64, 64, 3)
    head = space.mean + cv2.resize(offsets, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    pose = (25, 10, -5)
    seen = in_its_crop(head @ turned(*pose).T)
    face = capture_image(photo, surface="raw", engine=engine_for(tmp_path, seen, expression))[0]
    # How much of a nod is the pose, and how much a steeper face, is a matter of the fit's few iterations.
    np.testing.assert_allclose((face.yaw, face.pitch, face.roll), pose, atol=6)


def test_angles_have_the_documented_signs():
    # Where the nose points to, in the image frame, for a head that looks along -z of its own.
    assert (turned(30, 0, 0) @ [0, 0, -1])[0] < 0  # to the viewer's left
    assert (turned(0, 30, 0) @ [0, 0, -1])[1] < 0  # up
    assert (turned(0, 0, 30) @ [0, -1, 0])[0] > 0  # the crown leans to the viewer's right: clockwise
    for pose in ((30, 20, 10), (-50, 5, 80), (0, -60, -20)):
        np.testing.assert_allclose(angles(turned(*pose)), pose, atol=1e-9)


def test_visibility(tmp_path, photo):
    topology = load_topology()
    engine = engine_for(tmp_path, mean_seen(np.eye(3)))
    front = capture_image(photo, engine=engine, surface="raw")[0].visibility
    assert front.shape == (SIZE, SIZE) and (front[~topology.mask] == 0).all() and 0.97 < front.max() <= 1
    # The mean face is symmetric, and so is what can be seen of it from the front, but for the buffer's rounding.
    assert np.abs(front - front[:, ::-1]).mean() < 0.003
    assert front[topology.regions["nose"]].mean() > 0.5

    engine = engine_for(tmp_path / "turned", mean_seen(turned(50, 0, 0)))
    side = capture_image(photo, engine=engine, surface="raw")[0].visibility
    columns = np.arange(SIZE)
    # Turned to the viewer's left: the far cheek, left in the map, is hidden, also where it faces the camera.
    far = topology.mask & (columns < 60)[None] & ~topology.regions["forehead"]
    near = topology.mask & (columns > 140)[None] & (columns < 210)[None] & ~topology.regions["forehead"]
    assert side[far].mean() < 0.1 and side[near].mean() > 0.5
    # The nose hides part of the cheek that would face the camera.
    column, row = topology.landmarks[31].astype(int)
    beside_nose = side[row - 20 : row, column - 30 : column - 5]
    assert (beside_nose == 0).mean() > 0.6


def test_which_faces(tmp_path, photo):
    engine = engine_for(tmp_path, mean_seen(np.eye(3)))
    small = cv2.resize(photo, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    pair = np.full((512, 900, 3), 128, np.uint8)
    pair[:, :512] = photo
    pair[: small.shape[0], 540 : 540 + small.shape[1]] = small
    every = capture_image(pair, faces="all", engine=engine)
    assert len(every) == 2 and every[0].box.x < 512 < every[1].box.x
    assert capture_image(pair, engine=engine)[0].box == every[0].box
    assert capture_image(pair, faces=2, engine=engine)[0].box == every[1].box
    with pytest.raises(CaptureError, match="Face 5 was asked for, but only 2 faces were found") as caught:
        capture_image(pair, faces=5, engine=engine)
    assert caught.value.exit_status == 2
    with pytest.raises(CaptureError, match="Face 2 was asked for, but only one face was found in .*astronaut.jpg"):
        capture_image(PHOTO, faces=2, engine=engine)


def test_no_face(tmp_path):
    path = tmp_path / "wall.png"
    cv2.imwrite(str(path), np.full((300, 400, 3), 170, np.uint8))
    with pytest.raises(NoFaceError, match="No face found in '.*wall.png': use a photograph") as caught:
        capture_image(path)
    assert caught.value.exit_status == 3 and str(caught.value).endswith(".")


@pytest.mark.parametrize("shape, dtype", [((50, 50), np.uint8), ((50, 50, 4), np.uint8), ((50, 50, 3), np.float32),
                                          ((8, 50, 3), np.uint8)])
def test_arrays_that_are_no_picture(shape, dtype):
    with pytest.raises(CaptureError, match="uint8 RGB"):
        capture_image(np.zeros(shape, dtype))


@pytest.mark.parametrize("options", [{"faces": 0}, {"faces": "some"}, {"surface": "smooth"}])
def test_options_that_do_not_exist(photo, options):
    with pytest.raises(ValueError):
        capture_image(photo, **options)


def test_importing_the_library_is_quick_and_light():
    code = (
        "import sys; import prn_blender.prn; assert not {'numpy', 'cv2', 'bpy', 'torch'} & set(sys.modules); "
        "from prn_blender.prn import capture_image; assert not {'bpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_names_of_the_library():
    import prn_blender.prn

    for name in prn_blender.prn.__all__:
        assert getattr(prn_blender.prn, name) is not None
    with pytest.raises(AttributeError):
        prn_blender.prn.nothing
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 52


# Read off the picture by eye, pixels.
SEEN = {
    "left eye": (slice(36, 42), (203, 101)),
    "right eye": (slice(42, 48), (246, 102)),
    "nose tip": (slice(30, 31), (225, 124)),
    "mouth": (slice(48, 68), (223, 144)),
    "chin": (slice(8, 9), (222, 176)),
}


@pytest.mark.parametrize("part", list(SEEN))
def test_a_photograph(real_face, part):
    points, place = SEEN[part]
    landmarks = real_face.topology.landmarks_of(real_face.position_map)
    # Reading off is good to 2 pixels, and the landmarks' convention puts the nose's tip that much lower than the eye does.
    assert np.linalg.norm(landmarks[points, :2].mean(0) - place) < 6


def test_the_pose_in_a_photograph(real_face):
    assert abs(real_face.yaw) < 12 and abs(real_face.pitch) < 20 and abs(real_face.roll) < 8


def test_the_expression_in_a_photograph(real_face):
    assert real_face.expression.shape == (52,) and real_face.expression.dtype == np.float32
    weights = dict(zip(ARKIT_NAMES, real_face.expression))
    assert min(weights.values()) >= 0 and max(weights.values()) <= 1
    # She smiles with open eyes.
    assert weights["mouthSmileLeft"] + weights["mouthSmileRight"] > 0.5
    assert weights["eyeBlinkLeft"] + weights["eyeBlinkRight"] < 0.8


def test_a_face_that_moves_in_the_picture_moves_with_it(photo, real_face):
    moved = capture_image(np.roll(photo, (20, -30), (0, 1)))[0]
    mask = real_face.topology.mask
    step = (moved.position_map - real_face.position_map)[mask][:, :2]
    assert np.linalg.norm(step.mean(0) - [-30, 20]) < 2.5


def test_both_surfaces_lie_close_to_each_other(real_face):
    distance = np.linalg.norm(real_face.position_map - real_face.raw_position_map, axis=-1)
    assert distance[real_face.topology.mask].mean() < 0.03 * real_face.crop.side


@pytest.mark.parametrize("roll", [35.0, -50.0, 90.0, 180.0])
def test_a_face_that_leans_is_seen_as_one_that_does_not(photo, real_face, roll):
    """Also where it lies on its side or stands on its head, as in a photograph that was not turned upright."""
    height, width = photo.shape[:2]
    centre = np.array([real_face.crop.center_x, real_face.crop.center_y])
    leaning = np.column_stack([turn(roll)[:2, :2], centre - turn(roll)[:2, :2] @ centre])
    picture = cv2.warpAffine(photo, leaning, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    face = capture_image(picture)[0]
    expected = real_face.position_map[..., :2] @ leaning[:, :2].T + leaning[:, 2]
    apart = np.linalg.norm(face.position_map[..., :2] - expected, axis=-1)[face.topology.mask]
    assert apart.mean() < 0.01 * face.crop.side
    assert abs((face.roll - real_face.roll - roll + 180) % 360 - 180) < 3 and abs(face.yaw - real_face.yaw) < 3
    assert np.abs(face.head_map - real_face.head_map)[face.topology.mask].mean() < 0.002


def test_a_face_in_a_leaning_crop_has_the_pose_of_both():
    """What the network says of such a crop is told in the crop's frame, and the capture in the image's."""
    crop, image, topology = Crop(120.0, 110.0, 160.0, -35.0), np.zeros((240, 240, 3), np.uint8), load_topology()
    box, seen = FaceBox(70, 60, 100, 100, 1.0), mean_seen(turned(10, 20, 0))
    face = place_face(image, box, crop, seen, np.zeros(52, np.float32), topology, "raw", 0.063, {})
    np.testing.assert_allclose(face.position_map, crop.to_image(seen), atol=1e-3)
    assert np.abs(face.rotation - turn(-35) @ turned(10, 20, 0)).max() < 0.004
    carried = face.pixels_per_metre * face.head_map @ face.rotation.T + face.translation
    assert np.abs(carried - face.position_map).max() < 0.01


def test_a_second_look_mends_a_box_that_is_off(photo, real_face):
    """Landmarks come nearer to those of the detector's own box than the first look's, by a third at least."""
    box, engine, topology = real_face.box, open_engine(), load_topology()
    distances = []
    for shift, size in ((0.15, 1.2), (-0.15, 1.2), (0.1, 0.8), (0, 1.35)):
        off = FaceBox(box.x + (shift + (1 - size) / 2) * box.width, box.y + (1 - size) / 2 * box.height, size * box.width, size * box.height, 1.0)
        crop = crop_from_face_box(off)
        once = crop.to_image(run_network(photo, [crop], engine)[0][0])
        twice = capture_image(photo, boxes=[off], surface="raw", engine=engine)[0].position_map
        reference = topology.landmarks_of(real_face.raw_position_map)[:, :2]
        distances.append([np.linalg.norm(topology.landmarks_of(found)[:, :2] - reference, axis=1).mean() for found in (once, twice)])
    once, twice = np.array(distances).T
    assert (twice < once).all() and twice.mean() < 0.67 * once.mean()


@pytest.mark.parametrize("x, y, size", [(0.5, 1.0, 0.5), (0.1, 0.3, 0.6), (0.5, 0.1, 0.55), (0.9, 0.8, 0.6)])
def test_a_box_that_holds_half_a_face_is_not_believed(photo, real_face, x, y, size):
    """As of a mouth beside a hand: the views of such a crop disagree, and the face is looked for all round."""
    box, engine, topology = real_face.box, open_engine(), load_topology()
    off = FaceBox(box.x + (x - size / 2) * box.width, box.y + (y - size / 2) * box.height, size * box.width, size * box.height, 1.0)
    crop = crop_from_face_box(off)
    first = crop.to_image(run_network(photo, [crop], engine)[0][0])
    (again,), maps, _ = look_twice(photo, [crop], engine)
    reference = topology.landmarks_of(real_face.raw_position_map)[:, :2]
    face = np.sqrt(np.prod(np.ptp(reference, axis=0)))
    error, before = (np.linalg.norm(topology.landmarks_of(found)[:, :2] - reference, axis=1).mean() / face for found in (again.to_image(maps[0]), first))
    assert error < 0.05 < before
