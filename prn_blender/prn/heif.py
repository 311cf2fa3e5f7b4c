"""HEIC pictures, as phones write them: the container is read here, its HEVC pictures are decoded by OpenCV's FFmpeg.

After ISO/IEC 23008-12 (HEIF) and 14496-12 (boxes), 14496-15 (HEVC in them): the primary item, which is one picture or
a grid of equal tiles, turned, mirrored and cropped as its properties say. Thumbnails, depth and gain maps are left
alone. Reads the bytes it is given; while it decodes, a file in the system's folder for temporary files.
"""
from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from .boxes import Tags, boxes, tags_of
from .colour import BT601, UNSPECIFIED, correction
from .decoder import knows_black, quiet_decoder

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1"}
_PICTURES = (b"hvc1", b"hev1")
_UNTAGGED = Tags(UNSPECIFIED, UNSPECIFIED, BT601, full=True)
_START = b"\0\0\0\1"            # before every unit of a bare HEVC stream


class Unreadable(Exception):
    """The file is damaged, ends early, or holds a kind of picture that is not read here."""


@dataclass(frozen=True)
class Heif:
    """The primary picture of a file: what is stored, and what has to be done with it.

    tiles: each a bare HEVC stream, row by row in a grid of `columns`; size: (width, height) of the whole, in pixels;
    transforms: of the whole, in order: its properties' kinds and contents; profile: its ICC profile; tags: its colours; exif: its EXIF data.
    """

    tiles: list[bytes]
    columns: int
    size: tuple[int, int]
    transforms: list[tuple[bytes, bytes]]
    profile: bytes | None
    tags: Tags | None
    exif: bytes


def is_heif(data: bytes) -> bool:
    """Whether a file's first bytes call it a HEIF file that may hold HEVC pictures."""
    if data[4:8] != b"ftyp":
        return False
    (length,) = struct.unpack_from(">I", data)
    brands = data[8:12], *(data[place:place + 4] for place in range(16, min(length, len(data)), 4))
    return data[8:12] != b"avif" and any(brand in _BRANDS for brand in brands)


def read_heif(data: bytes) -> Heif:
    """The primary picture of a file's bytes. Raises Unreadable."""
    try:
        return _File(data).primary()
    except (struct.error, IndexError, KeyError, StopIteration, ZeroDivisionError):
        raise Unreadable from None


def decode_heif(picture: Heif) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright; in sRGB if it has tags and no profile, which is for the caller to read. Raises Unreadable."""
    tags = picture.tags or _UNTAGGED
    if picture.profile:
        tags = tags._replace(primaries=UNSPECIFIED, transfer=UNSPECIFIED)
    width, height = picture.size
    whole = np.zeros((height, width, 3), np.uint8)
    covered = 0
    for number, tile in enumerate(_decoded(picture.tiles, tags)):
        tall, wide = tile.shape[:2]
        y, x = number // picture.columns * tall, number % picture.columns * wide
        place = whole[y:y + tall, x:x + wide]
        place[...] = tile[:place.shape[0], :place.shape[1]]
        covered += place.shape[0] * place.shape[1]
    if covered < width * height:
        raise Unreadable
    try:
        for kind, content in picture.transforms:
            whole = _transformed(whole, kind, content)
    except (struct.error, IndexError, ZeroDivisionError):
        raise Unreadable from None
    return np.ascontiguousarray(whole)


def _decoded(tiles: list[bytes], tags: Tags) -> Iterator[np.ndarray]:
    """The tiles' pictures, (H, W, 3) uint8 RGB. Each is whole by itself, so that all of them make one stream."""
    with tempfile.TemporaryDirectory(prefix="prn-heif-") as folder:
        path = Path(folder) / "tiles.hevc"
        path.write_bytes(b"".join(tiles))
        with quiet_decoder():
            decoder = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
            try:
                to_rgb = correction(tags, taken_for_limited=not knows_black(decoder))
                for _ in tiles:
                    read, picture = decoder.read()
                    if not read:
                        raise Unreadable
                    yield to_rgb(picture)
            finally:
                decoder.release()


def _transformed(image: np.ndarray, kind: bytes, content: bytes) -> np.ndarray:
    if kind == b"irot":
        return np.rot90(image, content[0] & 3)                      # against the clock
    if kind == b"imir":
        return image[:, ::-1] if content[0] & 1 else image[::-1]    # 1: left and right change places
    # clap: a width, a height, and how far the middle of that lies from the picture's, all fractions.
    numbers = struct.unpack_from(">IIIIiIiI", content)
    wide, tall, right, down = (Fraction(*numbers[k:k + 2]) for k in range(0, 8, 2))
    height, width = image.shape[:2]
    x, y = round((width - wide) / 2 + right), round((height - tall) / 2 + down)
    kept = image[max(y, 0):y + round(tall), max(x, 0):x + round(wide)]
    if not kept.size:
        raise Unreadable
    return kept


class _File:
    """A file's items and their properties."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        meta = next(content for kind, content in boxes(data) if kind == b"meta")
        self.meta = dict(boxes(meta[4:]))
        self.kinds = dict(self._item_kinds())
        self.places = dict(self._item_places())
        properties = dict(boxes(self.meta[b"iprp"]))
        self.properties = list(boxes(properties[b"ipco"]))
        self.owned = dict(self._associations(properties[b"ipma"]))

    def primary(self) -> Heif:
        pitm = self.meta[b"pitm"]
        item = struct.unpack_from(">I" if pitm[0] else ">H", pitm, 4)[0]
        own = self._properties_of(item)
        if self.kinds[item] in _PICTURES:
            tiles, columns = [item], 1
            size = struct.unpack_from(">II", dict(own)[b"ispe"], 4)
        elif self.kinds[item] == b"grid":
            content = self._content(item)
            rows, columns = content[2] + 1, content[3] + 1
            size = struct.unpack_from(">II" if content[1] & 1 else ">HH", content, 4)
            tiles = self._made_of(item)
            if len(tiles) != rows * columns:
                raise Unreadable
        else:
            raise Unreadable
        # A picture's profile and its tags may both be there: of the tags' kind the last one counts.
        colours = [content for kind, content in [*self._properties_of(tiles[0]), *own] if kind == b"colr"]
        profiles = [content[4:] for content in colours if content[:4] in (b"prof", b"rICC")]
        tags = [tags for content in colours if (tags := tags_of(content))]
        return Heif([self._stream(tile) for tile in tiles], columns, size,
                    [(kind, content) for kind, content in own if kind in (b"irot", b"imir", b"clap")],
                    profiles[-1] if profiles else None, tags[-1] if tags else None, self._exif())

    def _exif(self) -> bytes:
        """A picture is read without it as well."""
        item = next((item for item, kind in self.kinds.items() if kind == b"Exif"), None)
        try:
            content = self._content(item)
            return content[4 + int.from_bytes(content[:4], "big"):]     # they lie so many bytes behind the number itself
        except (Unreadable, KeyError):
            return b""

    def _properties_of(self, item: int) -> list[tuple[bytes, bytes]]:
        return [self.properties[number - 1] for number in self.owned[item] if number]

    def _item_kinds(self) -> Iterator[tuple[int, bytes]]:
        iinf = self.meta[b"iinf"]
        for kind, entry in boxes(iinf[8 if iinf[0] else 6:]):
            if kind == b"infe" and entry[0] >= 2:
                place = 8 if entry[0] == 2 else 10
                yield struct.unpack_from(">H" if entry[0] == 2 else ">I", entry, 4)[0], entry[place:place + 4]

    def _item_places(self) -> Iterator[tuple[int, tuple[int, list[tuple[int, int]]]]]:
        """Of every item: whether its parts lie in the file (0) or in `idat` (1), and where: (start, length)."""
        iloc = self.meta[b"iloc"]
        version, at = iloc[0], 6
        sizes = iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4, iloc[5] & 15 if version else 0

        def number(size: int) -> int:
            nonlocal at
            at += size
            if at > len(iloc):
                raise Unreadable
            return int.from_bytes(iloc[at - size:at], "big")

        for _ in range(number(4 if version == 2 else 2)):
            item = number(4 if version == 2 else 2)
            method = number(2) & 15 if version else 0
            number(2)                                               # of the file that it refers to: this one
            base = number(sizes[2])
            parts = []
            for _ in range(number(2)):
                number(sizes[3])
                start = base + number(sizes[0])
                parts.append((start, number(sizes[1])))
            yield item, (method, parts)

    @staticmethod
    def _associations(ipma: bytes) -> Iterator[tuple[int, list[int]]]:
        """Of every item the numbers of its properties, from 1, in order."""
        wide = ipma[3] & 1
        (count,) = struct.unpack_from(">I", ipma, 4)
        at = 8
        for _ in range(count):
            (item,) = struct.unpack_from(">I" if ipma[0] else ">H", ipma, at)
            at += 4 if ipma[0] else 2
            numbers = struct.unpack_from(f">{ipma[at]}{'H' if wide else 'B'}", ipma, at + 1)
            at += 1 + len(numbers) * (2 if wide else 1)
            yield item, [number & (0x7FFF if wide else 0x7F) for number in numbers]

    def _made_of(self, item: int) -> list[int]:
        """The items that a derived one is made of, in order."""
        iref = self.meta[b"iref"]
        form, step = (">I", 4) if iref[0] else (">H", 2)
        for kind, content in boxes(iref[4:]):
            if kind == b"dimg" and struct.unpack_from(form, content)[0] == item:
                (count,) = struct.unpack_from(">H", content, step)
                return [struct.unpack_from(form, content, step + 2 + step * k)[0] for k in range(count)]
        raise Unreadable

    def _content(self, item: int) -> bytes:
        method, parts = self.places[item]
        source = {0: self.data, 1: self.meta.get(b"idat", b"")}.get(method, b"")
        if not parts or any(start + length > len(source) for start, length in parts):
            raise Unreadable                                        # the file ends early
        return b"".join(source[start:start + length if length else None] for start, length in parts)

    def _stream(self, item: int) -> bytes:
        """An item's picture as a stream of its own: its parameter sets, and its units with marks instead of lengths."""
        if self.kinds[item] not in _PICTURES:
            raise Unreadable
        setup = dict(self._properties_of(item))[b"hvcC"]
        units, at = [], 23
        for _ in range(setup[22]):
            (count,) = struct.unpack_from(">H", setup, at + 1)
            at += 3
            for _ in range(count):
                (length,) = struct.unpack_from(">H", setup, at)
                units.append(setup[at + 2:at + 2 + length])
                at += 2 + length
        content, size, at = self._content(item), (setup[21] & 3) + 1, 0
        while at < len(content):
            length = int.from_bytes(content[at:at + size], "big")
            units.append(content[at + size:at + size + length])
            at += size + length
        return b"".join(_START + unit for unit in units)
