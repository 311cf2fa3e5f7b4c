"""Movies and photographs come out in sRGB, whatever colours their files are written in."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from prn_blender.prn import colour
from prn_blender.prn.boxes import MovieFacts, Tags, movie_facts
from prn_blender.prn.image_io import load_image
from prn_blender.prn.video import open_video, read_frame
from test_image_io import encode, png_chunk

DATA = Path(__file__).parent / "data"
BARS = np.array([(224, 172, 140), (141, 85, 60), (90, 50, 35), (200, 60, 60), (60, 160, 60), (60, 60, 200), (128, 128, 128), (235, 235, 235)])
HLG_SIGNALS = np.array([(.75, .75, .75), (.5, .5, .5), (.25, .25, .25), (.62, .52, .46), (.45, .36, .31), (.95, .95, .95), (.55, .60, .50),
                        (.3, .3, .45)])
# Of profiles: red, green and blue in XYZ, adapted to D50 (Bradford).
SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142))
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
SRGB_CURVE = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def curve(kind: int, *numbers: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + fixed(*numbers)


def icc(primaries: tuple, of_each: bytes = curve(*SRGB_CURVE), space: bytes = b"RGB ") -> bytes:
    """The smallest profile with three primaries and one curve."""
    parts = {letter + b"XYZ": b"XYZ \0\0\0\0" + fixed(*xyz) for letter, xyz in zip((b"r", b"g", b"b"), primaries)}
    parts |= {letter + b"TRC": of_each for letter in (b"r", b"g", b"b")}
    table, content, start = struct.pack(">I", len(parts)), b"", 132 + 12 * len(parts)
    for name, part in parts.items():
        table += struct.pack(">4sII", name, start + len(content), len(part))
        content += part + b"\0" * (-len(part) % 4)
    head = bytearray(128)
    head[16:20], head[20:24], head[36:40] = space, b"XYZ ", b"acsp"
    return struct.pack(">I", 128 + len(table) + len(content)) + bytes(head[4:]) + table + content


def in_srgb(values: np.ndarray, primaries: tuple, gamma: float | None = None) -> np.ndarray:
    """Values 0..1 of these primaries with sRGB's curve, or a gamma, in sRGB."""
    light = values ** gamma if gamma else np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = np.clip(light @ np.array(primaries) @ np.linalg.inv(np.array(SRGB)), 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def colours_of(image: np.ndarray) -> np.ndarray:
    """(8, 3) the middles of eight bars."""
    height, width = image.shape[:2]
    return image[height // 2, width // 16::width // 8].astype(int)


# ---- movies ----------------------------------------------------------------------------------------------------------


def test_high_definition_is_bt709():
    frames = [frame.image for frame in open_video(DATA / "hd.mp4")] + [read_frame(DATA / "hd.mp4", 1)]
    assert len(frames) == 3
    for frame in frames:
        assert np.abs(colours_of(frame) - BARS).max() <= 3


def test_the_decoder_by_itself_is_wrong():
    """If OpenCV learns to heed the matrix, this package must stop doing so."""
    _, image = cv2.VideoCapture(str(DATA / "hd.mp4"), cv2.CAP_FFMPEG).read()
    assert np.abs(colours_of(image[..., ::-1]) - BARS).max() >= 8


def test_hdr_looks_as_on_a_screen_without_it():
    shown = 255 * colour.shown(HLG_SIGNALS, 9, 18)
    for frame in (next(iter(open_video(DATA / "hlg.mov"))).image, read_frame(DATA / "hlg.mov", 0)):
        assert np.abs(colours_of(frame) - shown).max() <= 5
        # Paper is nearly white, greys are grey, and what is brighter than paper still is.
        paper, half, quarter, skin, *_ = colours_of(frame)
        assert paper.min() >= 240 and np.ptp(paper) <= 4 and np.ptp(half) <= 4 and np.ptp(quarter) <= 4
        assert colours_of(frame)[5].min() > paper.max()
        assert skin[0] - skin[2] > 50                       # OpenCV by itself: 30


def test_hlg_is_bright_as_bt2100_says():
    """BT.2408: paper, 203 cd/m2 on a screen of 1,000, is at 75 % of HLG's signal and 58 % of PQ's."""
    hlg, pq = colour.shown(np.full(3, 0.75), 9, 18), colour.shown(np.full(3, 0.5807), 9, 16)
    assert np.abs(hlg - pq).max() < 0.01
    assert np.ptp(hlg) < 1e-6


@pytest.mark.parametrize("tags", [Tags(9, 18, 9), Tags(9, 16, 9), Tags(12, 13, 6)])
def test_two_matrices_and_a_curve_come_near(tags):
    """Skin's colours, and what is about as saturated, as `shown` says, which takes far longer."""
    dice = np.random.default_rng(8)
    level = dice.uniform(0.1, 0.7, (3000, 1))
    signals = -np.sort(-np.clip(level * (1 + dice.uniform(-0.3, 0.3, (3000, 3))), 0, 1), 1)
    exact = colour.shown(signals, tags.primaries, tags.transfer)
    skin = (exact.min(1) > 0.5 * exact.max(1)) & (exact.max(1) < 0.95)
    assert skin.sum() > 300
    to_ycc = np.linalg.inv(colour._from_ycc(tags.matrix))
    decoded = signals @ (colour._from_ycc(6) @ to_ycc).T    # what OpenCV makes of these signals
    image = np.rint(255 * np.clip(decoded, 0, 1)).astype(np.uint8)[None, :, ::-1]
    found = colour.correction(tags, False)(np.ascontiguousarray(image))[0]
    assert np.abs(found - 255 * exact)[skin].mean() < 1.2


def test_what_is_right_is_left():
    assert colour.correction(Tags(1, 13, 6), False) == colour.correction(Tags(2, 2, 2), True) == colour.Correction()


def test_black_is_set_right_where_the_decoder_took_it_for_16():
    right = np.array([[(30, 40, 90), (200, 120, 60), (128, 128, 128)]], float)
    ycc = right @ np.linalg.inv(colour._from_ycc(6)).T
    # The decoder takes 16 for black and 235 for white, and so stretches what was written from 0 to 255.
    stretched = np.concatenate([(ycc[..., :1] - 16) * 255 / 219, ycc[..., 1:] * 255 / 224], 2) @ colour._from_ycc(6).T
    image = np.rint(np.clip(stretched, 0, 255)).astype(np.uint8)[..., ::-1]
    found = colour.correction(Tags(1, 13, 6, full=True), True)(np.ascontiguousarray(image))
    assert np.abs(found - right).max() <= 2


def tagged(movie: bytes, tags: Tags) -> bytes:
    """An MP4 whose description comes last, with a `colr` box in its picture's entry."""
    box = struct.pack(">I4s4sHHHB", 19, b"colr", b"nclx", *tags[:3], tags.full << 7)
    around = [movie.rindex(kind) - 4 for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")]
    entry = around[-1] + 16
    end = entry + struct.unpack_from(">I", movie, entry)[0]
    changed = bytearray(movie)
    for place in (*around, entry):
        changed[place:place + 4] = struct.pack(">I", struct.unpack_from(">I", movie, place)[0] + len(box))
    return bytes(changed[:end]) + box + bytes(changed[end:])


def test_tags_count_more_than_the_size(tmp_path):
    """The writer knows BT.601 only: pictures made so that what it writes is right in BT.709, in a small movie that says so."""
    as_written = BARS @ (colour._from_ycc(6) @ np.linalg.inv(colour._from_ycc(1))).T
    bars = np.repeat(np.repeat(np.rint(np.clip(as_written, 0, 255)).astype(np.uint8)[None], 96, 0), 20, 1)
    path = tmp_path / "small.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 24, (160, 96))
    for _ in range(3):
        writer.write(np.ascontiguousarray(bars[..., ::-1]))
    writer.release()
    assert movie_facts(path) == MovieFacts()
    assert np.abs(colours_of(read_frame(path, 0)) - BARS).max() >= 8
    path.write_bytes(tagged(path.read_bytes(), Tags(1, 1, 1)))
    assert movie_facts(path) == MovieFacts(Tags(1, 1, 1))
    assert np.abs(colours_of(read_frame(path, 0)) - BARS).max() <= 6


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0\0\0AVI ", b"\0\0\0\0moov", b"\0\0\0\x01moov", struct.pack(">I4s", 1 << 31, b"moov"),
                                     struct.pack(">I4sI4s", 24, b"moov", 16, b"trak") + b"\xff" * 8])
def test_what_is_no_movie_has_no_tags(tmp_path, content):
    path = tmp_path / "movie.mp4"
    path.write_bytes(content)
    assert movie_facts(path) == MovieFacts()


# ---- photographs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Colours that are sRGB's as well when they are taken for wider ones."""
    rows, columns = np.mgrid[:48, :64]
    return np.stack([90 + columns * 2, 80 + rows * 2, 150 - columns], 2).astype(np.uint8)


def with_profile(ending: str, image: np.ndarray, profile: bytes) -> bytes:
    import zlib

    if ending == ".png":
        data = encode(".png", image)
        return data[:33] + png_chunk(b"iCCP", b"a name\0\0" + zlib.compress(profile)) + data[33:]
    if ending == ".jpg":
        data, half = encode(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, 98), len(profile) // 2
        pieces = [b"ICC_PROFILE\0" + bytes([number, 2]) + piece for number, piece in ((2, profile[half:]), (1, profile[:half]))]
        return data[:2] + b"".join(b"\xff\xe2" + struct.pack(">H", len(piece) + 2) + piece for piece in pieces) + data[2:]
    if ending == ".webp":
        data = encode(".webp", image, cv2.IMWRITE_WEBP_QUALITY, 101)
        assert data[12:16] == b"VP8L"
        head = struct.pack("<4sIB3x", b"VP8X", 10, 0x20) + (image.shape[1] - 1).to_bytes(3, "little") + (image.shape[0] - 1).to_bytes(3, "little")
        body = head + struct.pack("<4sI", b"ICCP", len(profile)) + profile + b"\0" * (len(profile) & 1) + data[12:]
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    # TIFF: the directory once more, with one entry more, behind everything.
    data = encode(".tif", image)
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries = data[start + 2:start + 2 + 12 * count] + struct.pack(order + "HHII", 34675, 7, len(profile), len(data))
    place = len(data) + len(profile) + (len(data) + len(profile)) % 2
    return (data[:4] + struct.pack(order + "I", place) + data[8:] + profile).ljust(place, b"\0") + struct.pack(order + "H", count + 1) + entries \
        + b"\0\0\0\0"


def load(tmp_path: Path, ending: str, data: bytes) -> np.ndarray:
    path = tmp_path / f"photo{ending}"
    path.write_bytes(data)
    return load_image(path)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("primaries, of_each, gamma", [
    (DISPLAY_P3, curve(*SRGB_CURVE), None), (ADOBE_RGB, b"curv\0\0\0\0" + struct.pack(">IH", 1, 563), 563 / 256)])
def test_a_wide_profile_counts(tmp_path, picture, ending, primaries, of_each, gamma):
    image = load(tmp_path, ending, with_profile(ending, picture, icc(primaries, of_each)))
    expected = 255 * in_srgb(picture / 255, primaries, gamma)
    assert np.abs(expected - picture).mean() > 4
    assert np.abs(image - expected).mean() < 1.5


@pytest.mark.parametrize("of_each", [
    curve(0, 2.2), curve(1, 2.2, 1, 0), curve(2, 2.2, 1, 0, 0), curve(3, 2.2, 1, 0, 1, 0), curve(4, 2.2, 1, 0, 1, 0, 0, 0),
    b"curv\0\0\0\0" + struct.pack(">I", 256) + (np.linspace(0, 1, 256) ** 2.2 * 65535).astype(">u2").tobytes()])
def test_every_form_of_a_curve(of_each):
    assert np.abs(colour._curve(of_each) - np.linspace(0, 1, 256) ** 2.2).max() < 1e-3


def test_srgbs_own_profile_changes_nothing(tmp_path, picture):
    image = load(tmp_path, ".png", with_profile(".png", picture, icc(SRGB)))
    assert (image == picture).all()


@pytest.mark.parametrize("profile", [b"", b"\0" * 200, icc(DISPLAY_P3)[:180], icc(DISPLAY_P3, space=b"CMYK"), icc(DISPLAY_P3, b"curv"),
                                     icc(DISPLAY_P3, curve(9, 1.0)), icc(DISPLAY_P3, curve(1, -2.2, 0, 0))])
def test_a_profile_that_cannot_be_read_changes_nothing(tmp_path, picture, profile):
    assert (load(tmp_path, ".png", with_profile(".png", picture, profile)) == picture).all()
