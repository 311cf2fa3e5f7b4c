"""Faces are found where they are, at any size and in any number, and nowhere else. The detector is the real one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from prn_blender.prn.detector import FaceBox, detect_faces
from prn_blender.prn.image_io import load_image

DATA = Path(__file__).parent / "data"
# The astronaut's face: x, y, width and height from brow to chin and from cheek to cheek.
FACE = (183, 66, 82, 106)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return load_image(DATA / "astronaut.jpg")


def overlap(box: FaceBox, truth: tuple[float, float, float, float]) -> float:
    """Intersection over union."""
    x, y, width, height = truth
    across = min(box.x + box.width, x + width) - max(box.x, x)
    down = min(box.y + box.height, y + height) - max(box.y, y)
    common = max(across, 0) * max(down, 0)
    return common / (box.width * box.height + width * height - common)


def test_one_face(astronaut):
    faces = detect_faces(astronaut)
    assert len(faces) == 1
    assert overlap(faces[0], FACE) > 0.7 and faces[0].confidence > 0.99


@pytest.mark.parametrize("scale", [0.3, 0.5, 2.0, 5.0])
def test_any_size_of_picture(astronaut, scale):
    faces = detect_faces(cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    assert len(faces) == 1
    assert overlap(faces[0], tuple(scale * value for value in FACE)) > 0.65


def test_a_small_face_in_a_large_picture(astronaut):
    picture = np.full((2400, 3600, 3), 120, np.uint8)
    picture[1000:1512, 2500:3012] = astronaut
    faces = detect_faces(picture)
    assert len(faces) == 1
    assert overlap(faces[0], (2500 + FACE[0], 1000 + FACE[1], *FACE[2:])) > 0.6


def test_several_faces_largest_first(astronaut):
    # Whole heads on a plain ground, each half the size of the one before.
    picture = np.full((600, 900, 3), 128, np.uint8)
    head = astronaut[:220, 120:330]
    places = [(500, 20, 1.6), (20, 40, 1.0), (250, 300, 0.5)]
    for x, y, scale in places:
        small = cv2.resize(head, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        picture[y : y + small.shape[0], x : x + small.shape[1]] = small
    faces = detect_faces(picture)
    assert len(faces) == 3
    for face, (x, y, scale) in zip(faces, places):
        truth = (x + (FACE[0] - 120) * scale, y + FACE[1] * scale, FACE[2] * scale, FACE[3] * scale)
        assert overlap(face, truth) > 0.6


def test_a_face_that_fills_the_picture(astronaut):
    x, y, width, height = FACE
    tight = np.ascontiguousarray(astronaut[y - 4 : y + height + 2, x - 2 : x + width + 2])
    for scale in (1, 3, 12):
        faces = detect_faces(cv2.resize(tight, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
        assert len(faces) == 1
        assert overlap(faces[0], (2 * scale, 4 * scale, width * scale, height * scale)) > 0.6


@pytest.mark.parametrize("change", ["grey", "dark", "mirrored", "tilted"])
def test_other_takes_of_the_face(astronaut, change):
    if change == "grey":
        picture = cv2.cvtColor(cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    elif change == "dark":
        picture = (astronaut * 0.25).astype(np.uint8)
    elif change == "mirrored":
        picture = astronaut[:, ::-1]  # also a view with negative strides
    else:
        picture = cv2.warpAffine(astronaut, cv2.getRotationMatrix2D((224, 120), 20, 1), (512, 512))
    assert len(detect_faces(picture)) == 1


def pictures_without_a_face() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:480, :640]

    def colour(*values: np.ndarray) -> np.ndarray:
        return np.clip(np.stack(values, 2), 0, 255).astype(np.uint8)

    def clouds(sigma: float) -> np.ndarray:
        cloud = cv2.GaussianBlur(rng.normal(size=(480, 640, 3)), (0, 0), sigma)
        return cv2.normalize(cloud, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)

    hills = 240 + 40 * np.sin(columns / 50) + 20 * np.sin(columns / 17)
    grass = rng.normal(0, 25, (480, 640))
    ground = rows > hills
    landscape = colour(
        np.where(ground, 70 + grass, 130 + rows / 4), np.where(ground, 120 + grass, 170 + rows / 5),
        np.where(ground, 50 + grass, 230),
    )
    bricks = ((rows // 24 + 0) % 2 * 32 + columns) % 64 < 3
    wall = colour(*(np.where(bricks | (rows % 24 < 3), 190, shade) + grass / 3 for shade in (150, 70, 50)))
    return {
        "flat": np.full((480, 640, 3), 128, np.uint8),
        "noise": rng.integers(0, 256, (480, 640, 3), np.uint8),
        "clouds": clouds(12),
        "fine clouds": clouds(3),
        "landscape": landscape,
        "wall": wall,
        "ramp": colour(columns / 2.5, columns / 2.5, rows / 2),
        "checks": ((rows // 20 + columns // 20) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2),
        "smallest": rng.integers(0, 256, (16, 16, 3), np.uint8),
        "thin": rng.integers(0, 256, (16, 2000, 3), np.uint8),
    }


@pytest.mark.parametrize("kind", list(pictures_without_a_face()))
def test_no_face(kind):
    assert detect_faces(pictures_without_a_face()[kind], lying=True) == []


def test_the_suit_alone_is_no_face(astronaut):
    assert detect_faces(astronaut[230:], lying=True) == []


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_lying_face_is_found_where_it_is_asked_for(astronaut, quarters):
    """The box lies where the upright picture's does, turned with the picture, and says how the face leans."""
    picture = cv2.copyMakeBorder(astronaut, 0, 40, 0, 90, cv2.BORDER_REPLICATE)     # neither square nor in its middle
    upright, lying = detect_faces(picture)[0], detect_faces(np.ascontiguousarray(np.rot90(picture, -quarters)), lying=True)[0]
    height, width = picture.shape[:2]
    x, y = upright.x + upright.width / 2, upright.y + upright.height / 2
    expected = {1: (height - y, x), 2: (width - x, height - y), 3: (y, width - x)}[quarters]
    found = lying.x + lying.width / 2, lying.y + lying.height / 2
    assert lying.roll % 360 == 90 * quarters and np.abs(np.subtract(found, expected)).max() < 0.1 * upright.width
    assert abs(np.log(lying.width * lying.height / (upright.width * upright.height))) < 0.2


def test_threads_do_not_disturb_each_other(astronaut):
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(detect_faces, [astronaut, astronaut[:, ::-1]] * 4))
    assert all(result == results[0] for result in results[::2])
    assert all(result == results[1] for result in results[1::2])
