"""What the commands that draw or measure faces are asked in the same words."""
from __future__ import annotations

import argparse
from pathlib import Path

from training.cache import default_cache


def about_faces(description: str) -> argparse.ArgumentParser:
    """A parser of --faces, --cache and --weights; description: the module's own text, of which the first line is shown."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="model bundle instead of the shipped one")
    return parser
