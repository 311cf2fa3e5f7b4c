"""What a capture is made from, as plain data that a worker thread may hold: a picture, or pictures in time. No bpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """A picture file, or one frame of a movie."""

    path: Path
    frame: int | None = None  # of a movie, from 0

    def __str__(self) -> str:
        return f"'{self.path}'" if self.frame is None else f"frame {self.frame + 1} of '{self.path}'"


@dataclass(frozen=True)
class Footage:
    """Pictures in time: what is shown from scene frame `start` on, one picture a scene frame."""

    path: Path  # the movie, or the picture, or the sequence's first picture
    pictures: tuple[Picture, ...]
    start: int  # scene frame of the first picture
    sound: bool = False  # whether the file may have a sound track

    def at(self, scene_frame: int) -> Picture:
        """What is shown at a scene frame; before its start the first picture, after its end the last."""
        return self.pictures[min(max(scene_frame - self.start, 0), len(self.pictures) - 1)]
