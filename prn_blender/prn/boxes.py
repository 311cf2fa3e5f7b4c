"""The boxes that MP4, QuickTime and HEIC files are made of, and what colours they declare. Reads files, imports nothing of the package.

After ISO/IEC 14496-12 (boxes; 12.1.5 for `colr`) and Apple's QuickTime File Format (`nclc`); the numbers are those of
ITU-T H.273.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_LARGEST = 64 << 20             # bytes of what describes a movie: an hour's have a few millions


class Tags(NamedTuple):
    """How a picture's numbers mean colours, in the numbers of H.273."""

    primaries: int
    transfer: int
    matrix: int
    full: bool = False          # black and white are 0 and 255, and not 16 and 235


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


def movie_tags(path: Path) -> Tags | None:
    """The colours that the first picture track of an MP4 or QuickTime movie declares; None if it declares none or is another kind of file."""
    with open(path, "rb") as file:
        moov = _top_box(file, b"moov")
    for kind, track in boxes(moov or b""):
        media = dict(boxes(track)).get(b"mdia", b"") if kind == b"trak" else b""
        parts = dict(boxes(media))
        if parts.get(b"hdlr", b"")[8:12] != b"vide":
            continue
        table = dict(boxes(dict(boxes(parts.get(b"minf", b""))).get(b"stbl", b"")))
        for _, entry in boxes(table.get(b"stsd", b"")[8:]):
            # 78 bytes that every picture format's entry begins with.
            for inner, content in boxes(entry[78:]):
                if inner == b"colr" and (tags := tags_of(content)):
                    return tags
        return None
    return None


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
