"""Small clips whose truth is known: the astronaut's portrait moved over a wall, as frames and as movie files."""

import struct
from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.image_io import load_image

PORTRAIT = Path(__file__).parent / "data" / "astronaut.jpg"


def portrait(width: int = 320, height: int = 240, x: float = 160, y: float = 130, size: float = 1.0,
             onto: np.ndarray | None = None) -> np.ndarray:
    """(height, width, 3) uint8 RGB: the astronaut's face with its middle at x, y; at size 1 it is 90 pixels wide."""
    photo = load_image(PORTRAIT)
    scale = 0.8 * size
    middle = np.array([224.0, 110.0])
    matrix = np.float32([[scale, 0, x - scale * middle[0]], [0, scale, y - scale * middle[1]]])
    picture = np.full((height, width, 3), (60, 80, 70), np.uint8) if onto is None else onto.copy()
    return cv2.warpAffine(photo, matrix, (width, height), picture, cv2.INTER_AREA, cv2.BORDER_TRANSPARENT)


def wall(width: int = 320, height: int = 240) -> np.ndarray:
    return np.full((height, width, 3), (60, 80, 70), np.uint8)


def write_movie(path: Path, frames: list[np.ndarray], fps: float = 25.0) -> Path:
    height, width = frames[0].shape[:2]
    code = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame[..., ::-1])
    writer.release()
    return path


def _boxes(data: bytes, start: int, end: int):
    while start < end:
        size, name = struct.unpack_from(">I4s", data, start)
        yield name, start, size
        start += size


def _box(data: bytes, *names: bytes) -> list[tuple[int, int]]:
    """Start and size of each box on the way to an MP4's box."""
    path, start, end = [], 0, len(data)
    for name in names:
        start, size = next((place, size) for found, place, size in _boxes(data, start, end) if found == name)
        path.append((start, size))
        start, end = start + 8, start + size
    return path


def turn_by_metadata(path: Path) -> None:
    """Marks an MP4 as filmed with the camera turned: to be shown a quarter turn clockwise."""
    data = bytearray(path.read_bytes())
    start, _ = _box(data, b"moov", b"trak", b"tkhd")[-1]
    struct.pack_into(">9i", data, start + 8 + 40, 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def vary_rate(path: Path, first: int, factor: int) -> None:
    """The first frames of an MP4 each last `factor` times as long as the rest."""
    data = bytearray(path.read_bytes())
    boxes = _box(data, b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts")
    start, size = boxes[-1]
    entries, count, delta = struct.unpack_from(">III", data, start + 12)
    assert entries == 1 and boxes[0][0] > data.index(b"mdat")  # the index is behind the pictures, so it may grow
    table = struct.pack(">IIIII", 2, first, delta * factor, count - first, delta)
    grown = len(table) - (size - 12)
    data[start + 12:start + size] = table
    edits = data.find(b"edts")
    if edits > 0:
        data[edits:edits + 4] = b"free"  # an edit list would end the movie where it ended before
    for place, length in boxes:
        struct.pack_into(">I", data, place, length + grown)
    path.write_bytes(data)
