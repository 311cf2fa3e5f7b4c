"""Writes HEIC files round HEVC pictures that are there already, in the ways in which phones do (ISO/IEC 23008-12)."""

import struct
from pathlib import Path

TILE = 64
STREAM = Path(__file__).parent / "data" / "tiles.hevc"


def box(kind: bytes, *content: bytes, version: int | None = None, flags: int = 0) -> bytes:
    body = (b"" if version is None else struct.pack(">I", version << 24 | flags)) + b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def units() -> tuple[list[bytes], list[bytes]]:
    """The stream's parameter sets, and its four pictures."""
    sets, pictures = {}, []
    for unit in STREAM.read_bytes().replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]:
        kind = unit[0] >> 1 & 63
        if kind < 32:
            pictures.append(unit)
        elif kind < 35:
            sets[kind] = unit
    return [sets[kind] for kind in sorted(sets)], pictures


def nclx(primaries: int, transfer: int, matrix: int, full: bool = True) -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", primaries, transfer, matrix, full << 7))


def profile(icc: bytes) -> bytes:
    return box(b"colr", b"prof", icc)


def turned(quarters: int) -> bytes:
    return box(b"irot", bytes([quarters]))


def mirrored(axis: int) -> bytes:
    return box(b"imir", bytes([axis]))


def cropped(width: int, height: int, right: int, down: int) -> bytes:
    return box(b"clap", struct.pack(">8i", width, 1, height, 1, right, 1, down, 1))


def heic(*properties: bytes, grid: bool = False, size: tuple[int, int] = (2 * TILE, 2 * TILE), tiles: int = 4, brand: bytes = b"heic",
         wide: bool = False, exif: bytes = b"") -> bytes:
    """A file whose primary item is the first picture, or a grid of 2×2, of `size`, with these properties.

    tiles: how many the grid says that it is made of. wide: with the long forms of lists and numbers. exif: EXIF data beside it.
    """
    sets, pictures = units()
    arrays = b"".join(struct.pack(">BHH", 0x80 | unit[0] >> 1 & 63, 1, len(unit)) + unit for unit in sets)
    setup = box(b"hvcC", bytes([1] + [0] * 20 + [3, len(sets)]) + arrays)
    number, short = (">I", 1) if wide else (">H", 0)
    items = [(k + 1, b"hvc1", struct.pack(">I", len(unit)) + unit) for k, unit in enumerate(pictures[:4 if grid else 1])]
    owned = {item: [1, 2] for item, _, _ in items}
    first = 1
    if grid:
        first = 50
        items.append((first, b"grid", struct.pack(">BBBBHH", 0, 0, 1, 1, *size)))
        owned[first] = [3]
    owned[first] = owned[first] + [4 + k for k in range(len(properties))]
    if exif:
        items.append((60, b"Exif", struct.pack(">I", 6) + b"Exif\0\0" + exif))

    infos = b"".join(box(b"infe", struct.pack(number + "H4s", item, 0, kind) + b"\0", version=3 if wide else 2) for item, kind, _ in items)
    iinf = box(b"iinf", struct.pack(">I" if wide else ">H", len(items)), infos, version=short)
    iref = box(b"iref", box(b"dimg", struct.pack(number, first) + struct.pack(">H", tiles) + b"".join(
        struct.pack(number, item) for item in range(1, tiles + 1))), version=short) if grid else b""
    ipco = box(b"ipco", setup, box(b"ispe", struct.pack(">II", TILE, TILE), version=0), box(b"ispe", struct.pack(">II", *size), version=0),
               *properties)
    step = ">H" if wide else ">B"
    ipma = box(b"ipma", struct.pack(">I", len(owned)), b"".join(
        struct.pack(number, item) + bytes([len(own)]) + b"".join(struct.pack(step, one) for one in own) for item, own in owned.items()),
        version=short, flags=short)
    rest = box(b"hdlr", struct.pack(">I4s12x", 0, b"pict"), b"\0", version=0) + box(b"pitm", struct.pack(number, first), version=short) \
        + iinf + iref + box(b"iprp", ipco, ipma)
    # A grid's few bytes lie in `idat`, pictures in the file; where these begin is known once the lists' lengths are.
    idat = b"".join(content for _, kind, content in items if kind == b"grid")

    def whole(start: int) -> bytes:
        entries, at = b"", start
        for item, kind, content in items:
            inside = kind == b"grid"
            entries += struct.pack(">I" if wide else ">H", item) + struct.pack(">HH", inside, 0) + struct.pack(
                ">HII", 1, 0 if inside else at, len(content))
            at += 0 if inside else len(content)
        iloc = box(b"iloc", struct.pack(">BB", 0x44, 0), struct.pack(">I" if wide else ">H", len(items)), entries, version=2 if wide else 1)
        return box(b"ftyp", brand, b"\0\0\0\0", b"mif1", b"heic") + box(b"meta", rest, iloc, box(b"idat", idat), version=0)

    head = len(whole(0)) + 8
    return whole(head) + box(b"mdat", *(content for _, kind, content in items if kind != b"grid"))
