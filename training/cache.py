"""Where training keeps what a command can rebuild: sources, kit, pictures, checkpoints. Outside the repository."""
from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """Where training keeps everything that a command can rebuild."""
    root = os.environ.get("PRN_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "prn-face-capture"
