"""A photo whose lens is known gives the head that it would give from far away; one whose lens is not known, what it gave before."""

import struct
from pathlib import Path

import numpy as np
import pytest

import takes
from exact_face import HEIGHT, NEAR, WIDTH, exact_face
from heif_file import box, heic
from prn_blender.prn.boxes import MovieFacts, movie_facts
from prn_blender.prn.capture import capture_image, place_face
from prn_blender.prn.crop import crop_from_landmarks
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.frame_texture import frame_capture
from prn_blender.prn.heif import read_heif
from prn_blender.prn.image_io import load_image, load_photograph
from prn_blender.prn.lens import BELIEVED, Lens, is_whole, lens_of
from prn_blender.prn.take_texture import front_capture
from takes import make_take, solve_take
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


@pytest.mark.parametrize("millimetres", [1, 4000, -20])
def test_no_such_lens(millimetres):
    with pytest.raises(CaptureError, match=f"A focal length of {millimetres} mm is not possible: give one from 5 to 2000."):
        lens_of(millimetres, 640, 480)


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


def test_a_take_from_near_by():
    """The same person as from far away, at the same places, in the same size from beginning to end."""
    take = make_take(lens=takes.NEAR)
    near, unknown, far = solve_take(take, takes.NEAR), solve_take(take), solve_take(make_take())

    def shape(performance) -> np.ndarray:
        points = performance.topology.landmarks_of(performance.neutral)
        return np.linalg.norm(points[[27, 31]] - points[[8, 35]], axis=1) / np.linalg.norm(points[2] - points[14])

    assert np.abs(shape(near) / shape(far) - 1).max() < 0.02
    assert (shape(unknown) / shape(far) - 1 > 0.05).all()
    assert np.abs(near.weights - far.weights).mean() < 0.02
    assert np.ptp(near.scale) < 0.02 * near.scale.mean()
    for frame, tracked in list(zip(range(60), take.frames))[::10]:
        face, = tracked.faces
        seen = near.topology.landmarks_of(face.crop.to_image(face.crop_map))
        assert np.linalg.norm((near.seen_at(frame, near.topology.landmarks_of(near.head_map(frame))) - seen)[:, :2], axis=1).mean() < 1.0
    front = front_capture(near)
    assert np.abs(shape_of(front) - shape_of(front_capture(far))).max() < 0.03
    textured = frame_capture(near, 10, takes.IMAGE)
    np.testing.assert_allclose(textured.seen(textured.head_map), textured.position_map, atol=0.01)


def quicktime(value: bytes, form: int, *, full: bool = False, in_track: bool = True) -> bytes:
    """A movie's description with Apple's metadata: a camera's name, and the lens."""
    names = (b"com.apple.quicktime.camera.lens_model", b"com.apple.quicktime.camera.focal_length.35mm_equivalent")
    keys = box(b"keys", struct.pack(">I", len(names)), *(box(b"mdta", name) for name in names), version=0)
    items = [box(struct.pack(">I", number), box(b"data", struct.pack(">II", kind, 0), content))
             for number, kind, content in ((1, 1, b"A camera 26mm"), (2, form, value))]
    meta = box(b"meta", box(b"hdlr", bytes(8), b"mdta", bytes(13)), keys, box(b"ilst", *items), version=0 if full else None)
    media = box(b"mdia", box(b"hdlr", bytes(4), b"vide", bytes(13), version=0))
    sound = box(b"trak", box(b"mdia", box(b"hdlr", bytes(4), b"soun", bytes(13), version=0)))
    return box(b"ftyp", b"qt  ") + box(b"mdat", bytes(40)) + box(
        b"moov", sound, box(b"trak", media, meta if in_track else b""), b"" if in_track else meta)


@pytest.mark.parametrize("value, form", [(b"27", 1), (b"27.00mm", 1), (b"\x1b", 21), (b"\0\0\0\x1b", 22), (struct.pack(">f", 27), 23),
                                         (struct.pack(">d", 27), 24)])
def test_a_phones_movie_tells_the_lens(tmp_path, value, form):
    path = tmp_path / "clip.mov"
    for variant in ({}, {"full": True}, {"in_track": False}):
        path.write_bytes(quicktime(value, form, **variant))
        assert movie_facts(path).focal == 27


@pytest.mark.parametrize("value, form", [(b"wide", 1), (b"0", 1), (b"", 21), (b"\xff" * 12, 21), (struct.pack(">f", np.nan), 23), (b"\0", 24)])
def test_a_movie_that_tells_nonsense(tmp_path, value, form):
    path = tmp_path / "clip.mov"
    path.write_bytes(quicktime(value, form))
    assert movie_facts(path) == MovieFacts()


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
