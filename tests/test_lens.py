"""A photo whose lens is known gives the head that it would give from far away; one whose lens is not known, what it gave before."""

import struct
from pathlib import Path

import numpy as np
import pytest

from exact_face import HEIGHT, NEAR, WIDTH, exact_face
from heif_file import box, heic
from prn_blender.prn.capture import capture_image, place_face
from prn_blender.prn.crop import crop_from_landmarks
from prn_blender.prn.heif import read_heif
from prn_blender.prn.image_io import load_image, load_photograph
from prn_blender.prn.lens import BELIEVED, Lens, is_whole, lens_of
from test_image_io import encode, with_exif

DATA = Path(__file__).parent / "data"


def test_both_directions_undo_each_other():
    points = np.random.default_rng(1).uniform(-100, 100, (50, 3)) + (320, 240, 0)
    np.testing.assert_allclose(NEAR.seen(NEAR.flattened(points)), points, atol=1e-9)
    assert NEAR.flattened(points.astype(np.float32)).dtype == np.float32
    # Something 100 pixels before the plane of a lens of 525 is seen larger by 525 / 425; the plane itself as it is.
    np.testing.assert_allclose(NEAR.seen(np.array([319.5 + 85, 239.5, -100])), [319.5 + 105, 239.5, -100])
    np.testing.assert_allclose(NEAR.seen(np.array([400.0, 300.0, 0.0])), [400, 300, 0])


def test_what_is_brought_to_another_depth_is_seen_in_the_same_place():
    points = np.random.default_rng(2).uniform(-80, 80, (50, 3)) + (300, 200, 40)
    moved, growth = NEAR.brought(points, 40.0)
    np.testing.assert_allclose(NEAR.seen(moved)[:, :2], NEAR.seen(points)[:, :2], atol=1e-9)
    np.testing.assert_allclose(moved[:, 2], (points[:, 2] - 40) * growth)
    assert growth == pytest.approx(525 / 565)


def test_the_lens_of_a_full_frame_camera():
    lens = lens_of(43.27, 3000, 4000)
    assert lens.focal == pytest.approx(5000 / BELIEVED) and lens.middle == (1499.5, 1999.5)


def shape_of(face) -> np.ndarray:
    """A face's height, and the width of its nose, over its width."""
    points = face.topology.landmarks_of(face.head_map)
    wide = np.linalg.norm(points[2] - points[14])
    return np.array([np.linalg.norm(points[27] - points[8]), np.linalg.norm(points[31] - points[35])]) / wide


@pytest.mark.parametrize("surface", ["fitted", "raw"])
@pytest.mark.parametrize("pose", [(0, 0, 0), (30, 10, 15)])
def test_a_head_seen_from_near_by(pose, surface):
    exact = exact_face(*pose, lens=NEAR)
    crop = crop_from_landmarks(exact.topology.landmarks_of(exact.position_map))
    given = exact.image, exact.box, crop, crop.from_image(exact.position_map), np.zeros(52, np.float32), exact.topology, surface, 0.063, {}
    near, far = place_face(*given, lens=NEAR), place_face(*given)
    face = exact.topology.mask
    truth = exact.head_map * (np.linalg.norm(near.head_map[face]) / np.linalg.norm(exact.head_map[face]))
    assert np.linalg.norm(near.head_map - truth, axis=2)[face].mean() < 0.001
    assert np.trace(near.rotation.T @ exact.rotation) > 1 + 2 * np.cos(np.radians(1))
    assert np.abs(shape_of(near) / shape_of(exact) - 1).max() < 0.03
    assert (shape_of(far) / shape_of(exact) - 1 > 0.06).all()           # as it is it would be narrow, with a broad nose
    # It still lies over the photo, its origin where its pose says, as large as its distance makes it.
    assert np.linalg.norm((near.position_map - exact.position_map)[..., :2], axis=2)[face].mean() < 0.4
    np.testing.assert_allclose(near.seen(near.head_map), near.position_map, atol=0.01)
    assert near.translation[2] == 0 and near.lens == NEAR and far.lens is None


def exif_with_focal(millimetres: int, order: str = "<") -> bytes:
    """EXIF data with FocalLengthIn35mmFilm, in the directory of its own in which cameras write it."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    first = struct.pack(order + "IH", 8, 1) + struct.pack(order + "HHII", 0x8769, 4, 1, 26) + b"\0" * 4
    return head + first + struct.pack(order + "H", 1) + struct.pack(order + "HHIHH", 0xA405, 3, 1, millimetres, 0) + b"\0" * 4


@pytest.fixture(scope="module")
def large() -> np.ndarray:
    """As large as a photo is, and of its shape."""
    return np.full((1536, 2048, 3), 90, np.uint8)


@pytest.mark.parametrize("ending, order", [(".jpg", "<"), (".jpg", ">"), (".png", "<"), (".webp", "<")])
def test_the_file_tells_the_lens(tmp_path, large, ending, order):
    path = tmp_path / f"photo{ending}"
    path.write_bytes(with_exif(encode(ending, large), exif_with_focal(26, order)))
    assert load_photograph(path).focal == 26


@pytest.mark.parametrize("block", [exif_with_focal(0), exif_with_focal(26)[:30], b"", exif_with_focal(26).replace(b"\x69\x87", b"\0\0")])
def test_a_file_that_does_not(tmp_path, large, block):
    path = tmp_path / "photo.jpg"
    path.write_bytes(with_exif(encode(".jpg", large), block))
    assert load_photograph(path).focal is None


@pytest.mark.parametrize("width, height, whole", [(4032, 3024, True), (3024, 4032, True), (6000, 4000, True), (4000, 2250, True),
                                                  (3024, 3024, False), (4032, 2800, False), (1600, 1200, False)])
def test_a_part_of_a_photo_does_not_tell(width, height, whole):
    assert is_whole(width, height) == whole


def test_a_part_of_a_photo_is_captured_as_from_far_away(tmp_path):
    image = exact_face().image
    path = tmp_path / "photo.jpg"
    path.write_bytes(with_exif(encode(".jpg", image), exif_with_focal(26)))
    assert image.shape == (HEIGHT, WIDTH, 3) and load_photograph(path).focal is None


def test_heic_tells_the_lens(tmp_path):
    """In an item beside the picture."""
    assert read_heif(heic()).exif == b""
    assert read_heif(heic(exif=exif_with_focal(24))).exif == exif_with_focal(24)


def test_a_capture_uses_the_files_lens_or_the_one_that_is_given(tmp_path):
    photo = load_image(DATA / "astronaut.jpg")
    large = np.zeros((1536, 2048, 3), np.uint8)
    large[:photo.shape[0], :photo.shape[1]] = photo
    path = tmp_path / "photo.jpg"
    path.write_bytes(with_exif(encode(".jpg", large), exif_with_focal(26)))
    told, given, far = capture_image(path)[0], capture_image(large, focal=26)[0], capture_image(large)[0]
    assert told.lens == given.lens == lens_of(26, 2048, 1536) and far.lens is None
    assert capture_image(path, focal=50)[0].lens == lens_of(50, 2048, 1536)
    face = far.topology.mask
    assert np.linalg.norm((told.position_map - far.position_map)[..., :2], axis=2)[face].mean() < 0.005 * far.crop.side
