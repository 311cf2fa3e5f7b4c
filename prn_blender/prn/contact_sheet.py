"""The contact sheet of a take: one picture by which a person can tell whether a performance is good.

A column a moment: the footage, the mesh over it, and the head alone, upright, with its texture and in clay. Below, how
the most used weights run over time. Reads the video again for its pictures; writes one PNG. numpy and OpenCV only.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .arkit import ARKIT_NAMES
from .gaze import seen_head
from .head_preview import head_pictures, wired
from .head_take import HeadFrames
from .openings import opening_grid, opening_vertices
from .preview import BACKDROP, turned, wire_texture, write_picture
from .render import Picture
from .take import Performance
from .take_texture import front_capture
from .video import open_video

PANEL = 240  # pixels
COLUMNS = 8
CURVES = 8  # weights drawn
SIDE = 25  # degrees that the clay is turned by
_COLOURS = [(230, 90, 80), (90, 200, 120), (90, 140, 250), (240, 190, 70), (200, 110, 220), (90, 210, 220),
            (230, 140, 180), (170, 170, 170)]


def write_contact_sheet(path: Path, source, performance: Performance, texture: np.ndarray, topology: str = "grid",
                        lashes: bool = True) -> None:
    """Writes the sheet of a performance captured from `source` (as `open_video` takes it).

    topology, lashes: as for `build_performance`; texture (N, N, 3) uint8 in its UV layout. Raises OSError.
    """
    chosen = np.flatnonzero(performance.seen)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(COLUMNS, len(chosen))).astype(int)]
    times = (performance.start + chosen) / performance.fps
    pictures = frames_at(source, times)
    mesh = HeadPictures(performance, texture, lashes) if topology == "head" else MaskPictures(performance, texture)
    columns = [column(performance, int(frame), picture, mesh) for frame, picture in zip(chosen, pictures)]
    sheet = np.concatenate(columns, 1)
    write_picture(path, np.concatenate([sheet, curves(performance, chosen, sheet.shape[1])]))


def frames_at(source, times: np.ndarray) -> list[np.ndarray]:
    """The frames nearest to times (N,), in seconds and in order, of a video."""
    found: list[np.ndarray] = []
    before = None
    for frame in open_video(source):
        while len(found) < len(times) and frame.time >= times[len(found)]:
            nearer = before is not None and times[len(found)] - before.time < frame.time - times[len(found)]
            found.append((before if nearer else frame).image)
        if len(found) == len(times):
            return found
        before = frame
    return found + [before.image] * (len(times) - len(found))


class MaskPictures:
    """The position map's mesh in a take's frames."""

    def __init__(self, performance: Performance, texture: np.ndarray) -> None:
        topology = performance.topology
        self.performance, self.topology, self.grid = performance, topology, topology.grid(2)
        openings = opening_grid(topology)
        self.quads = np.concatenate([self.grid.quads, openings.quads + len(self.grid.uvs)])
        self.uvs = np.concatenate([self.grid.uvs, openings.uvs])
        self.texture = cv2.resize(texture, (1024, 1024), interpolation=cv2.INTER_AREA)
        neutral = self.grid.sample(performance.neutral)
        self.middle, self.height = (neutral.min(0) + neutral.max(0)) / 2, np.ptp(neutral[:, 1])

    def vertices(self, frame: int) -> np.ndarray:
        return self.grid.sample(self.performance.head_map(frame))

    def over(self, photo: np.ndarray, placed: np.ndarray) -> np.ndarray:
        wires = Picture(placed, self.grid.quads, PANEL, PANEL).textured(photo, self.grid.uvs, wire_texture())
        return cv2.addWeighted(photo, 0.6, wires, 0.4, 0)

    def alone(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        head = np.concatenate([self.vertices(frame), opening_vertices(self.performance.head_map(frame), self.topology)])
        head = (head - self.middle) * (0.92 * PANEL / self.height)  # the same place in every column: the skull must not move
        backdrop = np.full((PANEL, PANEL, 3), BACKDROP, np.uint8)
        front = Picture(head + (PANEL / 2, PANEL / 2, 0), self.quads, PANEL, PANEL).textured(backdrop, self.uvs, self.texture)
        return front, Picture(turned(head, SIDE) + (PANEL / 2, PANEL / 2, 0), self.quads, PANEL, PANEL).clay(backdrop)


class HeadPictures:
    """The whole head in a take's frames."""

    def __init__(self, performance: Performance, texture: np.ndarray, lashes: bool) -> None:
        self.vertices = HeadFrames(performance, lashes).__getitem__
        self.metric, self.texture = performance.metric, texture
        _, *self.eyes = seen_head(front_capture(performance))

    def over(self, photo: np.ndarray, placed: np.ndarray) -> np.ndarray:
        return wired(photo, placed)

    def alone(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        head = self.vertices(frame) / np.float32(self.metric)
        front, _ = head_pictures(head, self.texture, *self.eyes, 0, PANEL, PANEL)
        return front, head_pictures(head, self.texture, *self.eyes, SIDE, PANEL, PANEL)[1]


def column(performance: Performance, frame: int, picture: np.ndarray, mesh: MaskPictures | HeadPictures) -> np.ndarray:
    """(4 PANEL, PANEL, 3) one moment."""
    def placed(points: np.ndarray) -> np.ndarray:
        return performance.seen_at(frame, points)

    # Every column shows the same part of the frame around the head, so that the head's motion relative to it is seen.
    size = 1.5 * np.ptp(placed(performance.topology.vertices_of(performance.head_map(frame)))[:, :2], axis=0).max()
    scale = PANEL / size
    corner = performance.translation[frame][:2] + (0, 0.1 * size) - size / 2
    photo = cv2.warpAffine(picture, np.float32([[1 / scale, 0, corner[0]], [0, 1 / scale, corner[1]]]), (PANEL, PANEL),
                           flags=(cv2.INTER_LINEAR if scale > 0.7 else cv2.INTER_AREA) | cv2.WARP_INVERSE_MAP,
                           borderMode=cv2.BORDER_CONSTANT, borderValue=(BACKDROP,) * 3)
    over = mesh.over(photo, (placed(mesh.vertices(frame)) - (*corner, 0)) * scale)
    cv2.putText(photo, f"{(performance.start + frame) / performance.fps:.2f} s", (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45,
                (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([photo, over, *mesh.alone(frame)])


def curves(performance: Performance, marked: np.ndarray, width: int) -> np.ndarray:
    """(PANEL, width, 3) the weights that move most, over the frames; the columns' moments are marked."""
    picture = np.full((PANEL, width, 3), 30, np.uint8)
    frames = len(performance)
    across = np.arange(frames) / max(frames - 1, 1) * (width - 1)
    for frame in marked:
        cv2.line(picture, (int(across[frame]), 0), (int(across[frame]), PANEL), (70, 70, 70), 1)
    order = np.argsort(-performance.weights.std(0))[:CURVES]
    for place, (number, colour) in enumerate(zip(order, _COLOURS)):
        line = np.stack([across, (1 - performance.weights[:, number]) * (PANEL - 12) + 6], 1)
        cv2.polylines(picture, [line.round().astype(np.int32)], False, colour, 1, cv2.LINE_AA)
        cv2.putText(picture, ARKIT_NAMES[number], (8 + 200 * (place % 4), 16 + 16 * (place // 4)),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return picture
