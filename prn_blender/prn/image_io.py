"""Photographs from disk: any usual file in, an upright 8-bit sRGB array out, or one sentence on what is wrong with it.

OpenCV decodes; this module reads the files' outlines itself, because OpenCV fills up a truncated JPEG with grey without
a word, forgets the orientation where it keeps the transparency, and knows no colour profiles. Reads the one file it is given.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .boxes import LEAST_FOCAL, MOST_FOCAL
from .colour import from_profile
from .errors import CaptureError
from .heif import Heif, Unreadable, decode_heif, is_heif, read_heif
from .lens import is_whole

# Pictures are scaled down to this on loading: more pixels help neither the network nor a 2048 texture.
MAX_LONG_SIDE = 4096
MIN_SIDE = 16
# Beyond this, decoding alone would take gigabytes.
MAX_PIXELS = 300_000_000
_MID_GREY = 128

_READABLE = "use a JPEG, PNG, WebP or HEIC photograph"
_LARGEST_PROFILE = 4 << 20
_PROFILE_TAG = 34675  # TIFF's


@dataclass(frozen=True)
class _Outline:
    """What a file's own structure says about the picture, before it is decoded."""

    width: int
    height: int
    orientation: int = 1  # EXIF's: 1 is upright
    profile: bytes = b""  # ICC profile of its colours
    heif: Heif | None = None
    focal: float | None = None  # millimetres, of a 36 x 24 mm frame, as EXIF tells


@dataclass(frozen=True)
class Photograph:
    """A photograph's picture, and how it was taken."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    focal: float | None  # of its lens, millimetres, equivalent to a 36 x 24 mm frame's; None if the file does not tell, or is a part of a photo


class _Truncated(Exception):
    """The file ends before its picture does."""


def load_image(path: str | os.PathLike) -> np.ndarray:
    """The picture of `load_photograph`."""
    return load_photograph(path).image


def load_photograph(path: str | os.PathLike) -> Photograph:
    """Load a photograph.

    Its image is (H, W, 3) uint8 RGB in sRGB, turned upright as the file says, at most 4096 pixels on the long side.
    Grey, 16-bit, palette and CMYK pictures become 8-bit RGB; transparent pixels are laid over mid grey.
    Raises CaptureError if there is no such file, it is not a picture, it is truncated, or it is too small or too large.
    """
    path = Path(path)
    name = f"'{path}'"
    data = _read(path, name)
    try:
        outline = _outline(data)
    except _Truncated:
        raise CaptureError(f"{name} is truncated, its end is missing: copy or download it again.") from None
    except (struct.error, IndexError):
        raise CaptureError(f"{name} is damaged and cannot be read as a picture: {_READABLE}.") from None
    except Unreadable:
        raise _no_heif(name) from None
    if outline is not None and outline.width * outline.height > MAX_PIXELS:
        raise CaptureError(
            f"{name} has {outline.width} x {outline.height} pixels, which is too large: "
            f"scale it down to at most {MAX_PIXELS // 1_000_000} megapixels."
        )
    try:
        image = _decode(data, outline)
    except Unreadable:
        raise _no_heif(name) from None
    if image is None:
        raise CaptureError(f"{name} is not a picture that can be read: {_what_to_do(data)}.")
    if min(image.shape[:2]) < MIN_SIDE:
        raise CaptureError(
            f"{name} has only {image.shape[1]} x {image.shape[0]} pixels: use a photograph in which the face "
            f"is at least 40 pixels wide."
        )
    whole = outline is not None and is_whole(outline.width, outline.height)
    return Photograph(image, outline.focal if whole else None)


def _read(path: Path, name: str) -> bytes:
    if path.is_dir():
        raise CaptureError(f"{name} is a folder: give the name of a photograph.")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CaptureError(f"{name} does not exist: check the name of the photograph.") from None
    except OSError as error:
        raise CaptureError(f"{name} cannot be read ({error.strerror}): check the file and its permissions.") from None
    if not data:
        raise CaptureError(f"{name} is empty: copy or download it again.")
    return data


def _no_heif(name: str) -> CaptureError:
    return CaptureError(f"{name} is a HEIC picture that is damaged, cut off or of a rare kind: copy it again, or save it as JPEG.")


def _what_to_do(data: bytes) -> str:
    return "AVIF pictures have to be saved as JPEG or PNG first" if data[4:8] == b"ftyp" else _READABLE


def _decode(data: bytes, outline: _Outline | None) -> np.ndarray | None:
    """The upright RGB picture in sRGB, or None if OpenCV cannot make one of it. Raises Unreadable of a HEIC picture."""
    if outline is not None and outline.heif:
        image = _reduced(decode_heif(outline.heif))
    else:
        image = _pixels(data, outline)
        if image is None:
            return None
        image = _to_rgb(_reduced(image))
    image = from_profile(image, outline.profile if outline else _tiff_value(data, _PROFILE_TAG))
    return np.ascontiguousarray(_turn_upright(image, outline.orientation if outline else 1))


def _pixels(data: bytes, outline: _Outline | None) -> np.ndarray | None:
    """What OpenCV decodes, with 8 bits a channel."""
    buffer = np.frombuffer(data, np.uint8)
    try:
        if outline is None:  # Any other format that OpenCV happens to know, as it comes.
            return cv2.imdecode(buffer, cv2.IMREAD_COLOR)
        if data.startswith(b"\xff\xd8"):
            # JPEG is decoded at a half, a quarter or an eighth straight away, so that memory stays bounded.
            flags = cv2.IMREAD_COLOR
            for factor, reduced in (
                (2, cv2.IMREAD_REDUCED_COLOR_2),
                (4, cv2.IMREAD_REDUCED_COLOR_4),
                (8, cv2.IMREAD_REDUCED_COLOR_8),
            ):
                if max(outline.width, outline.height) >= factor * MAX_LONG_SIDE:
                    flags = reduced
            return cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
        image = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if image is not None and image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=255 / 65535)
    return image


def _reduced(image: np.ndarray) -> np.ndarray:
    scale = MAX_LONG_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _to_rgb(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    alpha = image[..., 3:].astype(np.float32) / 255
    color = cv2.cvtColor(image, cv2.COLOR_BGRA2RGB)
    return np.rint(color * alpha + _MID_GREY * (1 - alpha)).astype(np.uint8)


def _turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF's eight orientations: 5 to 8 have rows and columns exchanged, the rest are mirrorings on top of that."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image


def _outline(data: bytes) -> _Outline | None:
    """Walk a JPEG, PNG, WebP or HEIC file from its first byte to its last. None for every other kind of file.

    Raises _Truncated if the end is missing, struct.error or IndexError if the structure makes no sense, Unreadable of a HEIC picture.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _outline_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _outline_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _outline_webp(data)
    if is_heif(data):
        picture = read_heif(data)
        return _Outline(*picture.size, 1, picture.profile or b"", picture, _exif_focal(picture.exif))
    return None


# A marker: not a stuffed zero, not a restart marker, not a fill byte.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


def _outline_jpeg(data: bytes) -> _Outline:
    width = height = 0
    exif = b""
    profile: dict[int, bytes] = {}  # its pieces by number
    position = 2
    while True:
        # Searching, not stepping, also skips the coded picture that follows a scan's header.
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            raise _Truncated
        marker = data[match.start() + 1]
        if marker == 0xD9:
            if not width:
                raise IndexError("a JPEG without a picture")
            pieces = b"".join(profile[number] for number in sorted(profile))
            return _Outline(width, height, _exif_orientation(exif), pieces, focal=_exif_focal(exif))
        if match.end() + 2 > len(data):
            raise _Truncated
        (length,) = struct.unpack_from(">H", data, match.end())
        position = match.end() + length
        if position > len(data):
            raise _Truncated
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, match.end() + 3)
        elif marker == 0xE1 and data[match.end() + 2 : match.end() + 8] == b"Exif\0\0":
            exif = data[match.end() + 8 : position]
        elif marker == 0xE2 and data[match.end() + 2 : match.end() + 14] == b"ICC_PROFILE\0":
            profile[data[match.end() + 14]] = data[match.end() + 16 : position]


def _outline_png(data: bytes) -> _Outline:
    width, height = struct.unpack_from(">II", data, 16) if len(data) >= 24 else (0, 0)
    exif = profile = b""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if kind == b"eXIf":
            exif = data[position + 8 : position + 8 + length]
        elif kind == b"iCCP":
            profile = _inflated(data[position + 8 : position + 8 + length].partition(b"\0")[2][1:])
        position += 12 + length
        if kind == b"IEND":
            return _Outline(width, height, _exif_orientation(exif), profile, focal=_exif_focal(exif))
    raise _Truncated


def _outline_webp(data: bytes) -> _Outline:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        raise _Truncated
    width = height = 0
    exif = profile = b""
    position = 12
    while position + 8 <= size + 8:
        kind = data[position : position + 4]
        (length,) = struct.unpack_from("<I", data, position + 4)
        start = position + 8
        if kind == b"VP8X":
            width = 1 + int.from_bytes(data[start + 4 : start + 7], "little")
            height = 1 + int.from_bytes(data[start + 7 : start + 10], "little")
        elif kind == b"VP8 ":
            width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, start + 6))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, start + 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"EXIF":
            # Some writers put JPEG's prefix before the EXIF data here as well.
            exif = data[start : start + length].removeprefix(b"Exif\0\0")
        elif kind == b"ICCP":
            profile = data[start : start + length]
        position = start + length + (length & 1)
    return _Outline(width, height, _exif_orientation(exif), profile, focal=_exif_focal(exif))


def _inflated(packed: bytes) -> bytes:
    """What zlib packed; nothing where it is damaged, since a picture is of more worth than its profile."""
    try:
        return zlib.decompressobj().decompress(packed, _LARGEST_PROFILE)
    except zlib.error:
        return b""


def _exif_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, of EXIF data (a small TIFF file); 1 where it has none that makes sense."""
    orientation = _number(exif, _tiff_value(exif, 0x0112))
    return orientation if 1 <= orientation <= 8 else 1


def _exif_focal(exif: bytes) -> float | None:
    """FocalLengthIn35mmFilm of EXIF data, millimetres; None where it has none that makes sense."""
    millimetres = _number(exif, _tiff_value(exif, 0xA405, _number(exif, _tiff_value(exif, 0x8769))))
    return float(millimetres) if LEAST_FOCAL <= millimetres <= MOST_FOCAL else None


def _number(data: bytes, value: bytes) -> int:
    return int.from_bytes(value, "little" if data[:2] == b"II" else "big")


def _tiff_value(data: bytes, wanted: int, directory: int | None = None) -> bytes:
    """The bytes of a tag in a TIFF file's first directory, or in the one that begins there, in the file's own order; nothing where it has none that
    makes sense."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or directory == 0:
        return b""
    try:
        if directory is None:
            (directory,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
            if tag == wanted:
                length = number * {3: 2, 4: 4}.get(kind, 1)
                start = entry + 8 if length <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
                return data[start : start + length]
    except struct.error:
        pass
    return b""
