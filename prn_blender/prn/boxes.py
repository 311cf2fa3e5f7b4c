"""The boxes that MP4, QuickTime and HEIC files are made of, and what they declare of colours and lens. Reads files, imports nothing of the package.

After ISO/IEC 14496-12 (boxes; 12.1.5 for `colr`) and Apple's QuickTime File Format (`nclc`); the numbers are those of
ITU-T H.273.
"""
from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

LEAST_FOCAL, MOST_FOCAL = 5.0, 2000.0        # millimetres: other lenses there are not
_FOCAL = b"com.apple.quicktime.camera.focal_length.35mm_equivalent"
_LARGEST = 64 << 20             # bytes of what describes a movie: an hour's have a few millions


class Tags(NamedTuple):
    """How a picture's numbers mean colours, in the numbers of H.273."""

    primaries: int
    transfer: int
    matrix: int
    full: bool = False          # black and white are 0 and 255, and not 16 and 235


class MovieFacts(NamedTuple):
    """What a movie's file says of its pictures: their colours, and its lens's focal length, equivalent to a 36 x 24 mm frame's."""

    tags: Tags | None = None
    focal: float | None = None


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes that follow each other in these bytes: kind and content. What is cut off at the end is left out."""
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if length == 1 and at + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        elif length == 0:                                           # to the end
            length = len(data) - at
        if length < head or at + length > len(data):
            return
        yield kind, data[at + head:at + length]
        at += length


def tags_of(colr: bytes) -> Tags | None:
    """What a `colr` box's content says in numbers; None where it says it by a profile."""
    if colr[:4] in (b"nclx", b"nclc") and len(colr) >= 10:
        return Tags(*struct.unpack_from(">HHH", colr, 4), colr[:4] == b"nclx" and len(colr) > 10 and colr[10] >= 128)
    return None


def movie_facts(path: Path) -> MovieFacts:
    """What an MP4 or QuickTime movie says of its first picture track; nothing, if it is another kind of file."""
    with open(path, "rb") as file:
        moov = _top_box(file, b"moov") or b""
    for kind, content in boxes(moov):
        track = dict(boxes(content)) if kind == b"trak" else {}
        media = dict(boxes(track.get(b"mdia", b"")))
        if media.get(b"hdlr", b"")[8:12] == b"vide":
            return MovieFacts(_tags(media), _focal(track.get(b"meta", b"")) or _focal(dict(boxes(moov)).get(b"meta", b"")))
    return MovieFacts()


def _tags(media: dict[bytes, bytes]) -> Tags | None:
    table = dict(boxes(dict(boxes(media.get(b"minf", b""))).get(b"stbl", b"")))
    for _, entry in boxes(table.get(b"stsd", b"")[8:]):
        # 78 bytes that every picture format's entry begins with.
        for inner, content in boxes(entry[78:]):
            if inner == b"colr" and (tags := tags_of(content)):
                return tags
    return None


def _focal(meta: bytes) -> float | None:
    """Apple's metadata (QuickTime File Format, "Metadata"): a list of names, and values by their numbers."""
    parts = dict(boxes(meta)) if b"keys" in dict(boxes(meta)) else dict(boxes(meta[4:]))
    names = [name for _, name in boxes(parts.get(b"keys", b"")[8:])]
    for number, item in boxes(parts.get(b"ilst", b"")):
        place = int.from_bytes(number, "big") - 1
        value = dict(boxes(item)).get(b"data", b"")
        if 0 <= place < len(names) and names[place] == _FOCAL and len(value) > 8:
            return _millimetres(int.from_bytes(value[:4], "big"), value[8:])
    return None


def _millimetres(form: int, value: bytes) -> float | None:
    """A number that may be text, with or without its unit, a whole number or a float; None if it makes no sense."""
    if form == 1:
        found = re.match(rb"\s*(\d+(\.\d+)?)", value)
        number = float(found[1]) if found else 0.0
    elif form in (23, 24) and len(value) == (4 if form == 23 else 8):
        (number,) = struct.unpack(">f" if form == 23 else ">d", value)
    else:
        number = float(int.from_bytes(value, "big")) if len(value) <= 8 else 0.0
    return number if LEAST_FOCAL <= number <= MOST_FOCAL else None


def _top_box(file: BinaryIO, wanted: bytes) -> bytes | None:
    """The content of a file's outermost box of this kind, found without reading the others."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        rest = length - 8
        if length == 1:
            rest = int.from_bytes(file.read(8), "big") - 16
        if rest < 0:                                                # up to the end, or no box at all
            return None
        if kind == wanted:
            return file.read(rest) if rest <= _LARGEST else None
        file.seek(rest, 1)
    return None
