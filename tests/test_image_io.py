"""Every kind of photograph file loads to the same upright RGB, and every kind of broken one gets one sentence."""

import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from prn_blender.prn.errors import CaptureError
from prn_blender.prn.image_io import MAX_LONG_SIDE, load_image

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A smooth picture (48, 64, 3) RGB that is different in every corner and colour."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack([columns * 4, rows * 5, 255 - columns * 2 - rows], 2).astype(np.uint8)


def encode(ending: str, image: np.ndarray, *options: int) -> bytes:
    """An RGB(A) or grey array as a file's bytes."""
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    done, data = cv2.imencode(ending, image, options)
    assert done
    return data.tobytes()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif(orientation: int, order: str = "<") -> bytes:
    """The smallest EXIF block with an orientation."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IH", 8, 1) + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0) + b"\0" * 4


def with_exif(data: bytes, block: bytes) -> bytes:
    """Put an EXIF block into the bytes of a JPEG, PNG or WebP file."""
    if data.startswith(b"\xff\xd8"):
        block = b"Exif\0\0" + block
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    if data.startswith(b"\x89PNG"):
        return data[:33] + png_chunk(b"eXIf", block) + data[33:]
    body = data[12:] + b"EXIF" + struct.pack("<I", len(block)) + block + b"\0" * (len(block) & 1)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def load(tmp_path: Path, data: bytes, name: str = "photo.jpg") -> np.ndarray:
    path = tmp_path / name
    path.write_bytes(data)
    return load_image(path)


def assert_close(image: np.ndarray, expected: np.ndarray, tolerance: float = 2.0) -> None:
    assert image.dtype == np.uint8 and image.shape == expected.shape
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).mean() <= tolerance


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_colour(tmp_path, picture, ending):
    assert_close(load(tmp_path, encode(ending, picture), "photo" + ending), picture)


def test_the_name_needs_not_tell_the_format(tmp_path, picture):
    assert_close(load(tmp_path, encode(".png", picture), "photo.jpg"), picture)


def test_progressive_jpeg(tmp_path, picture):
    assert_close(load(tmp_path, encode(".jpg", picture, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), picture)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_grey(tmp_path, picture, ending):
    grey = picture[..., 0]
    assert_close(load(tmp_path, encode(ending, grey)), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit(tmp_path, picture, channels):
    deep = picture[..., :channels].astype(np.uint16) * 257
    expected = np.broadcast_to(picture[..., :channels], picture.shape)
    assert_close(load(tmp_path, encode(".png", deep if channels == 3 else deep[..., 0])), expected, 0.0)


@pytest.mark.parametrize("ending", [".png", ".webp"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_transparency_is_laid_over_grey_and_still_turned(tmp_path, picture, ending, orientation):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:, 32:] = 0
    data = encode(ending, np.dstack([picture, alpha]))
    if orientation != 1:
        data = with_exif(data, exif(orientation))
    expected = picture.copy()
    expected[:, 32:] = 128
    if orientation == 6:
        expected = np.rot90(expected, -1)
    assert_close(load(tmp_path, data), expected)


def test_sixteen_bit_transparency(tmp_path, picture):
    alpha = np.full(picture.shape[:2], 128 * 257, np.uint16)
    data = encode(".png", np.dstack([picture.astype(np.uint16) * 257, alpha]))
    assert_close(load(tmp_path, data), np.rint(picture * (128 / 255) + 128 * (127 / 255)).astype(np.uint8), 1.0)


def test_palette_with_transparency(tmp_path):
    rows = (b"\0" + bytes([0, 1] * 16)) * 32
    data = (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 32, 8, 3, 0, 0, 0))
        + png_chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0]))
        + png_chunk(b"tRNS", bytes([0, 255]))
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )
    image = load(tmp_path, data)
    assert image[0, 0].tolist() == [128, 128, 128] and image[0, 1].tolist() == [0, 255, 0]


def test_cmyk():
    face = cv2.imread(str(DATA / "astronaut.jpg"))[20:220, 140:300, ::-1]
    assert_close(load_image(DATA / "cmyk.jpg"), cv2.resize(face, (80, 100), interpolation=cv2.INTER_AREA), 4.0)


# How to hold the picture as the camera saw it, so that turning by the orientation gives `picture` again.
AS_SEEN = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_jpeg(tmp_path, picture, orientation):
    seen = np.ascontiguousarray(AS_SEEN[orientation](picture))
    order = "<" if orientation % 2 else ">"
    assert_close(load(tmp_path, with_exif(encode(".jpg", seen), exif(orientation, order))), picture)


def test_exif_orientation_agrees_with_opencv(tmp_path, picture):
    for orientation in range(1, 9):
        path = tmp_path / "photo.jpg"
        path.write_bytes(with_exif(encode(".jpg", picture), exif(orientation)))
        np.testing.assert_array_equal(load_image(path), cv2.imread(str(path))[..., ::-1])


@pytest.mark.parametrize("ending", [".png", ".webp"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_of_png_and_webp(tmp_path, picture, ending, orientation):
    seen = np.ascontiguousarray(AS_SEEN[orientation](picture))
    assert_close(load(tmp_path, with_exif(encode(ending, seen), exif(orientation))), picture)


@pytest.mark.parametrize("block", [b"", b"II", b"II*\0\xff\xff\xff\xff", exif(0), exif(77), exif(6)[:-10]])
def test_broken_exif_is_ignored(tmp_path, picture, block):
    assert_close(load(tmp_path, with_exif(encode(".jpg", picture), block)), picture)


def test_bytes_after_the_end_do_no_harm(tmp_path, picture):
    for ending in (".jpg", ".png", ".webp"):
        assert_close(load(tmp_path, encode(ending, picture) + b"motion photo" * 100), picture)


def test_a_thumbnail_inside_does_not_hide_a_truncation(tmp_path, picture):
    whole = with_exif(encode(".jpg", picture), exif(1) + encode(".jpg", picture[:16, :16]))
    assert_close(load(tmp_path, whole), picture)
    with pytest.raises(CaptureError, match="truncated"):
        load(tmp_path, whole[:-200])


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_truncated(tmp_path, ending, kept):
    data = encode(ending, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    with pytest.raises(CaptureError, match="truncated"):
        load(tmp_path, data[: int(len(data) * kept)])


def test_cut_by_one_byte(tmp_path, picture):
    for ending in (".jpg", ".png", ".webp"):
        with pytest.raises(CaptureError, match="truncated"):
            load(tmp_path, encode(ending, picture)[:-1])


def test_every_cut_of_a_photograph_gets_a_sentence(tmp_path):
    data = (DATA / "cmyk.jpg").read_bytes()
    for kept in range(1, len(data), 97):
        with pytest.raises(CaptureError):
            load(tmp_path, data[:kept])


def wrong(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "photo.jpg"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("This is not a photograph.\n" * 20)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "one pixel":
        path.write_bytes(encode(".png", np.zeros((1, 1, 3), np.uint8)))
    elif kind == "damaged png":
        data = bytearray(encode(".png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
        data[20:24] = b"\xff\xff\xff\xff"
        path.write_bytes(data)
    elif kind == "markers only":
        path.write_bytes(b"\xff\xd8\xff\xd9")
    elif kind == "heic":
        path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100)
    return path


@pytest.mark.parametrize(
    "kind, says",
    [
        ("missing", "does not exist"),
        ("folder", "is a folder"),
        ("text", "not a picture"),
        ("empty", "is empty"),
        ("one pixel", "1 x 1 pixels"),
        ("damaged png", "too large|not a picture"),
        ("markers only", "damaged"),
        ("heic", "HEIC"),
    ],
)
def test_wrong_files_get_one_sentence(tmp_path, kind, says):
    with pytest.raises(CaptureError, match=says) as caught:
        load_image(wrong(tmp_path, kind))
    message = str(caught.value)
    assert caught.value.exit_status == 2
    assert "photo.jpg" in message and message.endswith(".") and "\n" not in message


def test_a_name_in_another_script(tmp_path, picture):
    assert_close(load(tmp_path, encode(".jpg", picture), "Фото Ωδ 写真.jpg"), picture)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_huge_pictures_in_bounded_memory(tmp_path, ending):
    path = tmp_path / f"huge{ending}"
    image = np.zeros((9000, 12000, 3), np.uint8)
    image[:, 6000:] = 200
    cv2.imwrite(str(path), image)
    # In a process of its own, whose greatest use of memory can be read off. Not by getrusage: there the new process
    # begins with the peak of the one that started it, and the suite's own is higher.
    code = (
        "import re, sys; from prn_blender.prn.image_io import load_image; image = load_image(sys.argv[1]); "
        "peak = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]; "
        "print(*image.shape, image[10, 10, 0], image[10, -10, 0], peak)"
    )
    result = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    height, width, channels, left, right, kilobytes = map(int, result.stdout.split())
    assert (height, width, channels) == (3072, MAX_LONG_SIDE, 3) and left < 3 and right > 197
    assert kilobytes < 1_000_000


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    data = bytearray(encode(".png", np.zeros((32, 32, 3), np.uint8)))
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CaptureError, match="60000 x 60000 pixels"):
        load(tmp_path, bytes(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
