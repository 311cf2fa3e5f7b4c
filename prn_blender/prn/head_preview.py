"""Pictures of whole heads, textured and in clay, without Blender: for the preview and for docs/. numpy and OpenCV only.

The preview has a row a head: the photo, the mesh over it, then the head from the front, turned to one side and in profile from the
other, with its texture and in clay.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .capture import FaceCapture
from .gaze import seen_head
from .head_topology import PARTS, load_head_topology
from .position_map import cross
from .preview import BACKDROP, PANEL, framed, turned, write_picture
from .render import draw, shade, triangulate, vertex_normals

SMOOTH = 3              # drawn so many times as large
PIVOT = (0.0, 0.012, 0.075)     # of the views, head frame, metres: the middle of a head with its neck
HEIGHT = 0.31           # metres that a picture is high
# What has a colour and no texture; sRGB.
COLOURS = {"teeth": (244, 235, 217), "gums": (168, 92, 90), "lashes": (34, 26, 22)}
ON_EYES = ("white", "iris", "pupil")
VIEWS = (0, 40, -90)    # degrees that the preview turns the head by: so that both sides are seen
WIRES = (120, 240, 255)


def write_head_preview(path: Path, faces: list[FaceCapture], textures: list[np.ndarray], lashes: bool = True) -> None:
    """Writes the preview of faces' heads with their textures (N, N, 3) uint8 in hm08's layout as a PNG; never half of it.

    Raises OSError, and CaptureError where a face has no head.
    """
    write_picture(path, np.concatenate([head_row(face, texture, lashes) for face, texture in zip(faces, textures)]))


def head_row(face: FaceCapture, texture: np.ndarray, lashes: bool = True) -> np.ndarray:
    """(PANEL, 8 PANEL, 3) uint8 RGB."""
    head, eyes, white = seen_head(face)
    vertices = head.vertices if lashes else head.without_lashes().vertices
    photo, placed = framed(face.image, face.seen(vertices))
    # In the size of people with eyes 63 mm apart, whatever scale was asked for.
    upright = vertices / np.float32(face.metric)
    views = [head_pictures(upright, texture, eyes, white, degrees, PANEL, PANEL) for degrees in VIEWS]
    return np.concatenate([photo, wired(photo, placed), *(textured for textured, _ in views), *(clay for _, clay in views)], 1)


def wired(picture: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 with a head's mesh drawn over it; vertices (V, 3) in its pixels. Eyes, teeth and lashes stay clear."""
    topology = load_head_topology()
    quads = topology.quads[np.isin(topology.part, [PARTS.index(name) for name in ("skin", "mouth", "sockets")])]
    height, width = picture.shape[:2]
    large = vertices * SMOOTH
    depth = draw(large, triangulate(quads), width * SMOOTH, height * SMOOTH).depth
    column, row = np.clip(np.rint(large[:, :2]).astype(int), 0, (width * SMOOTH - 1, height * SMOOTH - 1)).T
    shown = large[:, 2] < depth[row, column] + 0.01 * np.ptp(large[:, 2])
    sides = topology.sides[shown[topology.sides].all(1)]
    lines = cv2.resize(picture, None, fx=SMOOTH, fy=SMOOTH, interpolation=cv2.INTER_LINEAR)
    cv2.polylines(lines, list(np.rint(large[sides, :2]).astype(np.int32)), False, WIRES, 1)
    return cv2.addWeighted(picture, 0.3, cv2.resize(lines, (width, height), interpolation=cv2.INTER_AREA), 0.7, 0)


def head_pictures(vertices: np.ndarray, texture: np.ndarray, eyes: np.ndarray, white: float, degrees: float, width: int,
                  height: int) -> tuple[np.ndarray, np.ndarray]:
    """A head (V, 3), head frame, with or without lashes, seen from the front or turned: (height, width, 3) uint8 RGB with its texture,
    and in clay.

    texture in hm08's layout, eyes the eyeballs', (N, N, 3) uint8 both; white: how bright teeth are, 1 in full light (`gaze.seen_head`). The
    photo's light is in the textures already, so that only a little is added.
    """
    topology = load_head_topology()
    shown = topology.part != PARTS.index("cornea")
    shown[topology.quads_of(len(vertices)).stop:] = False
    scale = height / HEIGHT * SMOOTH
    placed = turned(vertices - PIVOT, degrees) * scale + (width * SMOOTH / 2, height * SMOOTH / 2, 0)
    triangles = triangulate(topology.quads[shown])
    corners = topology.corners[shown][:, (0, 1, 2, 0, 2, 3)].reshape(-1, 3)
    part = np.repeat(topology.part[shown], 2)
    a, b, c = (placed[triangles[:, k], :2] for k in range(3))
    front = cross(b - a, c - a) < 0
    triangles, corners, part = triangles[front], corners[front], part[front]
    drawn = draw(placed, triangles, width * SMOOTH, height * SMOOTH)
    covered, triangle = drawn.covered, drawn.triangle[drawn.covered]
    normals = drawn.interpolate(triangles, vertex_normals(placed, topology.quads[topology.quads_of(len(vertices))]).astype(np.float32))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    light = shade(normals)

    uv = np.einsum("nk,nkc->nc", drawn.barycentric[covered], topology.texture[corners[triangle]])
    colours, kind = np.zeros((len(triangle), 3), np.float32), part[triangle]
    for number, name in enumerate(PARTS):
        here = kind == number
        if name not in COLOURS:
            colours[here] = _looked_up(eyes if name in ON_EYES else texture, uv[here])
    for name, colour in COLOURS.items():
        colours[kind == PARTS.index(name)] = np.float32(colour) * white

    def finished(pixels: np.ndarray) -> np.ndarray:
        large = np.full((height * SMOOTH, width * SMOOTH, 3), BACKDROP, np.uint8)
        large[covered] = np.clip(pixels, 0, 255)
        return cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)

    return finished(colours * (0.72 + 0.33 * light)), finished(light * np.float32([196, 192, 188]))


def _looked_up(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """(N, 3) the nearest texels at UVs (N, 2), v up: what is drawn is so much larger than it is shown that this is enough."""
    size = len(texture)
    places = np.clip((uv * (1, -1) + (0, 1)) * size, 0, size - 1).astype(int)
    return texture[places[:, 1], places[:, 0]]
