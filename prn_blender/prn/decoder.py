"""OpenCV's FFmpeg: without its messages, which are not for users, and what it knows of its pixels.

Touches the environment while a file is opened.
"""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2


@contextmanager
def quiet_decoder() -> Iterator[None]:
    """OpenCV reads its decoder's log level from the environment when a file is opened."""
    name = "OPENCV_FFMPEG_LOGLEVEL"
    kept = os.environ.get(name)
    os.environ[name] = kept or "-8"
    level = cv2.setLogLevel(0)
    try:
        yield
    finally:
        cv2.setLogLevel(level)
        if kept is None:
            del os.environ[name]


def name_of(decoder: cv2.VideoCapture, number: int) -> str:
    """A property that is a code of four letters, in small ones."""
    return (int(decoder.get(number)) & 0xFFFFFFFF).to_bytes(4, "little").decode("latin-1").lower()


def knows_black(decoder: cv2.VideoCapture) -> bool:
    """Whether it heeds what the file says of black, 0 or 16: of all other pixels it takes 16 for black."""
    return name_of(decoder, cv2.CAP_PROP_CODEC_PIXEL_FORMAT) in ("i420", "y800")
