"""The preview: one picture by which a person can tell whether a capture is good.

A row a face: the photo, the mesh over it, the texture from the front and turned both ways, and the bare surface turned
both ways. Writes one PNG; numpy and OpenCV only.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from .capture import FaceCapture
from .openings import opening_grid, opening_vertices
from .render import Picture

PANEL = 400  # pixels
TURN = 35  # degrees
BACKDROP = 52
WIRE_STEP = 8  # texels between the wires drawn over the photo


def write_preview(path: Path, faces: list[FaceCapture], textures: list[np.ndarray]) -> None:
    """Writes the preview of faces with their textures (N, N, 3) uint8 as a PNG; never half of it. Raises OSError."""
    rows = [preview_row(face, texture) for face, texture in zip(faces, textures)]
    write_picture(path, np.concatenate(rows))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture (H, W, 3) uint8 RGB as a PNG; never half of it. Raises OSError."""
    _, data = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
    unfinished = path.with_name(f".{path.name}.part")
    try:
        data.tofile(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def preview_row(face: FaceCapture, texture: np.ndarray) -> np.ndarray:
    """(PANEL, 7 PANEL, 3) uint8 RGB."""
    grid = face.topology.grid(2)
    texture = cv2.resize(texture, (1024, 1024), interpolation=cv2.INTER_AREA)

    photo, vertices = framed(face.image, grid.sample(face.position_map))
    placed = Picture(vertices, grid.quads, PANEL, PANEL)
    over = cv2.addWeighted(photo, 0.55, placed.textured(photo, grid.uvs, wire_texture()), 0.45, 0)

    openings = opening_grid(face.topology)
    quads = np.concatenate([grid.quads, openings.quads + len(grid.uvs)])
    uvs = np.concatenate([grid.uvs, openings.uvs])
    head = np.concatenate([grid.sample(face.head_map), opening_vertices(face.head_map, face.topology)])
    head = head - (head.min(0) + head.max(0)) / 2
    head *= 0.86 * PANEL / np.linalg.norm(np.ptp(head[:, :2], axis=0)) * 1.2
    backdrop = np.full((PANEL, PANEL, 3), BACKDROP, np.uint8)
    views = [Picture(turned(head, angle) + (PANEL / 2, PANEL / 2, 0), quads, PANEL, PANEL)
             for angle in (0, TURN, -TURN)]
    panels = [photo, over, *(view.textured(backdrop, uvs, texture) for view in views),
              *(view.clay(backdrop) for view in views[1:])]
    return np.concatenate(panels, 1)


def framed(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of a picture shows the points (V, 3), in its pixels: (PANEL, PANEL, 3) uint8, and the points in the panel's pixels."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    scale = PANEL / (1.25 * (high - low).max())
    corner = (low + high) / 2 - (PANEL - 1) / 2 / scale
    panel = cv2.warpAffine(image, np.float32([[1 / scale, 0, corner[0]], [0, 1 / scale, corner[1]]]), (PANEL, PANEL),
                           flags=(cv2.INTER_LINEAR if scale > 0.7 else cv2.INTER_AREA) | cv2.WARP_INVERSE_MAP,
                           borderMode=cv2.BORDER_CONSTANT, borderValue=(BACKDROP,) * 3)
    return panel, (points - (*corner, 0)) * scale


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """(V, 3) points of the head frame, turned about the upright axis."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]).T


def wire_texture() -> np.ndarray:
    """A texture of the map's own lines, bright on dark, (1024, 1024, 3) uint8."""
    size = 1024
    texture = np.full((size, size, 3), 70, np.uint8)
    step = size * WIRE_STEP // 256
    for line in range(step // 2, size, step):
        texture[line - 1:line + 2] = texture[:, line - 1:line + 2] = (120, 240, 255)
    return texture
