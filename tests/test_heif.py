"""HEIC pictures of phones load as their JPEGs would; what is wrong with one is said in a sentence."""

from pathlib import Path

import numpy as np
import pytest

from heif_file import TILE, box, cropped, heic, mirrored, nclx, profile, turned
from prn_blender.prn.capture import capture_image
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.heif import is_heif
from prn_blender.prn.inputs import PICTURES
from prn_blender.prn.image_io import load_image
from test_colour import DISPLAY_P3, icc, in_srgb

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """(128, 128, 3) what the tiles are the quarters of."""
    y, x = np.mgrid[:2 * TILE, :2 * TILE]
    return np.stack([2 * x, 2 * y, 255 - x - y], 2)


def load(tmp_path, data: bytes) -> np.ndarray:
    path = tmp_path / "photo.heic"
    path.write_bytes(data)
    return load_image(path)


def assert_close(image: np.ndarray, expected: np.ndarray) -> None:
    assert image.dtype == np.uint8 and image.shape == expected.shape and image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).mean() <= 2


@pytest.mark.parametrize("wide", [False, True])
def test_one_picture(tmp_path, picture, wide):
    assert_close(load(tmp_path, heic(wide=wide)), picture[:TILE, :TILE])


@pytest.mark.parametrize("wide", [False, True])
def test_a_grid_of_tiles(tmp_path, picture, wide):
    assert_close(load(tmp_path, heic(grid=True, wide=wide)), picture)


def test_a_grid_whose_last_tiles_reach_beyond_it(tmp_path, picture):
    assert_close(load(tmp_path, heic(grid=True, size=(100, 90))), picture[:90, :100])


def test_the_name_of_another_brand(tmp_path, picture):
    assert_close(load(tmp_path, heic(brand=b"mif1")), picture[:TILE, :TILE])


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turned_against_the_clock(tmp_path, picture, quarters):
    assert_close(load(tmp_path, heic(turned(quarters), grid=True, size=(128, 96))), np.rot90(picture[:96], quarters))


def test_mirrored(tmp_path, picture):
    assert_close(load(tmp_path, heic(mirrored(1))), picture[:TILE, :TILE][:, ::-1])
    assert_close(load(tmp_path, heic(mirrored(0))), picture[:TILE, :TILE][::-1])


def test_properties_take_effect_in_their_order(tmp_path, picture):
    # Cropped to 40 x 20, its middle 4 to the right of the picture's and 2 above; then turned.
    kept = picture[20:40, 16:56]
    assert_close(load(tmp_path, heic(cropped(40, 20, 4, -2), turned(1))), np.rot90(kept))


def test_its_profile_counts(tmp_path, picture):
    image = load(tmp_path, heic(profile(icc(DISPLAY_P3)), nclx(12, 13, 6), grid=True))
    inside = picture[32:96, 32:96]                          # where all these colours are sRGB's as well
    assert np.abs(image[32:96, 32:96] - 255 * in_srgb(inside / 255, DISPLAY_P3)).mean() < 3
    assert np.abs(image[32:96, 32:96].astype(int) - inside).mean() > 6


def test_its_tags_count_where_it_has_no_profile(tmp_path, picture):
    image = load(tmp_path, heic(nclx(12, 13, 6), grid=True))
    inside = picture[32:96, 32:96]
    assert np.abs(image[32:96, 32:96] - 255 * in_srgb(inside / 255, DISPLAY_P3)).mean() < 4


def test_a_face_is_captured_from_one():
    """A file of another writer's (libheif): the same face as in the JPEG that it was made of."""
    assert is_heif((DATA / "astronaut.heic").read_bytes()) and ".heic" in PICTURES
    face, = capture_image(DATA / "astronaut.heic")
    same, = capture_image(load_image(DATA / "astronaut.jpg")[:256, 80:336])
    assert np.abs(face.image.astype(int) - same.image).mean() < 4
    of_face, of_same = (one.topology.landmarks_of(one.position_map) for one in (face, same))
    assert np.linalg.norm(of_face - of_same, axis=1).mean() < 0.01 * np.ptp(of_same[:, 0])


BROKEN = {
    "cut off": lambda: heic(grid=True)[:-700],
    "cut off in its lists": lambda: heic(grid=True)[:300],
    "tiles missing": lambda: heic(grid=True, tiles=3),
    "larger than its tiles": lambda: heic(grid=True, size=(200, 128)),
    "no picture at all": lambda: heic().replace(b"hvc1", b"jpeg"),
    "no primary item": lambda: heic().replace(b"pitm", b"free"),
    "pictures of zeros": lambda: heic()[:-600] + b"\0" * 600,
    "turned by nothing": lambda: heic(box(b"irot")),
    "cropped by halves of nothing": lambda: heic(cropped(10, 10, 0, 0).replace(b"\0\0\0\x01", b"\0\0\0\0")),
    "cropped to nothing": lambda: heic(cropped(10, 10, 900, 0)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_one_gets_a_sentence(tmp_path, what):
    with pytest.raises(CaptureError, match="photo.heic' is a HEIC picture that is damaged.*copy it again, or save it as JPEG"):
        load(tmp_path, BROKEN[what]())


def test_every_byte_may_be_wrong(tmp_path):
    """Whatever single byte of its lists is damaged, a picture comes out or a sentence."""
    whole = heic(turned(1), grid=True)
    dice = np.random.default_rng(3)
    lists = whole.index(b"mdat")
    for place in dice.choice(lists, 150, replace=False):
        try:
            load(tmp_path, whole[:place] + bytes([whole[place] ^ int(dice.integers(1, 256))]) + whole[place + 1:])
        except CaptureError:
            pass


def test_an_avif_picture_is_said_to_be_one(tmp_path):
    with pytest.raises(CaptureError, match="AVIF pictures have to be saved as JPEG or PNG first"):
        load(tmp_path, heic(brand=b"avif").replace(b"heic", b"avif").replace(b"mif1", b"avif"))
