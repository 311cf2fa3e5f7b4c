"""Which files are photographs and which are moving pictures, told by their names. Touches nothing; imports nothing heavy."""

from __future__ import annotations

import re
from pathlib import Path

PICTURES = (".bmp", ".heic", ".heif", ".hif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MOVIES = (".3gp", ".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv")
PLACEHOLDER = re.compile(r"#+|%0?\d*d")  # of a sequence's number in its pattern


def is_video(path: Path) -> bool:
    """Whether a path means moving pictures: a movie by its ending, or a sequence's pattern. A folder may mean either."""
    return path.suffix.lower() in MOVIES or (bool(PLACEHOLDER.search(path.name)) and not path.exists())
