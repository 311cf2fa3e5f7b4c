"""A small software rasteriser: z-buffers, and pictures of textured or clay meshes for the preview.

numpy and OpenCV only; reads arrays, gives arrays back, touches no file. Vertices are in the image frame: pixels of the
buffer that is drawn, x right, y down, z away from the camera, pixel centres at integers, orthographic.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .position_map import cross


@dataclass(frozen=True)
class Fragments:
    """What each pixel of a drawn buffer shows."""

    depth: np.ndarray  # (H, W) float32, z of the nearest surface; inf where there is none
    triangle: np.ndarray  # (H, W) int32 row of `triangles`; -1 where there is none
    barycentric: np.ndarray  # (H, W, 3) float32 weights of that triangle's three corners

    @property
    def covered(self) -> np.ndarray:
        return self.triangle >= 0

    def interpolate(self, triangles: np.ndarray, values: np.ndarray) -> np.ndarray:
        """values (V, C) at each covered pixel, in the order of `self.covered`'s True cells: (N, C)."""
        corners = values[triangles[self.triangle[self.covered]]]
        return np.einsum("nk,nkc->nc", self.barycentric[self.covered], corners)


def triangulate(quads: np.ndarray) -> np.ndarray:
    """(F, 4) quads to (2F, 3) triangles of the same winding."""
    return quads[:, (0, 1, 2, 0, 2, 3)].reshape(-1, 3)


def draw(vertices: np.ndarray, triangles: np.ndarray, width: int, height: int) -> Fragments:
    """Rasterises (V, 3) vertices and (T, 3) triangles into a buffer of width x height pixels.

    Every pixel centre in a triangle's bounding box is a candidate; all candidates of all triangles are tested at
    once, and the nearest that is inside wins. Edges belong to both of their triangles, so that no crack shows.
    """
    depth = np.full(width * height, np.inf, np.float32)
    winner = np.full(width * height, -1, np.int32)
    barycentric = np.zeros((width * height, 3), np.float32)

    corners = vertices.astype(np.float32)[triangles]
    low = np.maximum(np.ceil(corners[..., :2].min(1) - 1e-4), 0).astype(np.int32)
    high = np.minimum(np.floor(corners[..., :2].max(1) + 1e-4), (width - 1, height - 1)).astype(np.int32)
    columns, rows = np.maximum(high - low + 1, 0).T
    edge1, edge2 = corners[:, 1, :2] - corners[:, 0, :2], corners[:, 2, :2] - corners[:, 0, :2]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    count = np.where(np.abs(area) > 1e-8, columns * rows, 0)

    owner = np.repeat(np.arange(len(triangles), dtype=np.int32), count)
    within = np.arange(len(owner), dtype=np.int32) - np.repeat(np.cumsum(count) - count, count).astype(np.int32)
    down, right = np.divmod(within, columns[owner])
    x, y = low[owner, 0] + right, low[owner, 1] + down

    # One row of coefficients a triangle: the weights of corners 1 and 2, and z, are linear in x and y.
    with np.errstate(divide="ignore", invalid="ignore"):
        slope1 = np.stack([edge2[:, 1], -edge2[:, 0]], 1) / area[:, None]
        slope2 = np.stack([-edge1[:, 1], edge1[:, 0]], 1) / area[:, None]
    dx, dy = x.astype(np.float32) - corners[owner, 0, 0], y.astype(np.float32) - corners[owner, 0, 1]
    weight1 = slope1[owner, 0] * dx + slope1[owner, 1] * dy
    weight2 = slope2[owner, 0] * dx + slope2[owner, 1] * dy
    inside = (weight1 >= -1e-4) & (weight2 >= -1e-4) & (weight1 + weight2 <= 1 + 1e-4)
    owner, weight1, weight2 = owner[inside], weight1[inside], weight2[inside]
    pixel = y[inside] * width + x[inside]
    z = corners[:, :, 2]
    z = z[owner, 0] + weight1 * (z[owner, 1] - z[owner, 0]) + weight2 * (z[owner, 2] - z[owner, 0])

    np.minimum.at(depth, pixel, z)
    nearest = z == depth[pixel]
    pixel, owner, weight1, weight2 = pixel[nearest], owner[nearest], weight1[nearest], weight2[nearest]
    winner[pixel] = owner
    barycentric[pixel] = np.stack([1 - weight1 - weight2, weight1, weight2], 1)
    return Fragments(depth.reshape(height, width), winner.reshape(height, width), barycentric.reshape(height, width, 3))


def draw_in_bands(vertices: np.ndarray, triangles: np.ndarray, width: int, height: int, rows: int = 512) -> Fragments:
    """The same as `draw`, a band of rows at a time: for pictures as large as a photograph, in bounded memory."""
    low, high = vertices[triangles, 1].min(1), vertices[triangles, 1].max(1)
    bands = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        inside = np.flatnonzero((high >= top - 1) & (low <= bottom))
        band = draw(vertices - np.float32([0, top, 0]), triangles[inside], width, bottom - top)
        band.triangle[band.covered] = inside[band.triangle[band.covered]]
        bands.append(band)
    return Fragments(*(np.concatenate([getattr(band, name) for band in bands]) for name in ("depth", "triangle", "barycentric")))


def depth_buffer(vertices: np.ndarray, quads: np.ndarray, width: int, height: int) -> np.ndarray:
    """z of the nearest surface at each pixel centre, (height, width) float32; inf where no quad covers it.

    vertices (V, 3) in pixels of the buffer; quads (F, 4) int.
    """
    return draw(vertices, triangulate(quads), width, height).depth


def vertex_normals(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, area-weighted over the quads, on the side from which their winding is counter-clockwise
    in a right-handed frame. Vertices without a quad get (0, 0, 0)."""
    corners = vertices[quads]
    faces = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normals = np.stack([np.bincount(quads.ravel(), np.repeat(faces[:, axis], 4), len(vertices)) for axis in range(3)], 1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def shade(normals: np.ndarray) -> np.ndarray:
    """(N, 1) brightness of a matt surface: a key light from above and the viewer's left, and some light all round.

    normals (N, 3), unit, image frame; those that face the camera have negative z.
    """
    key = np.float32([-0.4, -0.55, -0.73])
    return 0.32 + 0.68 * np.clip(normals @ key[:, None], 0, 1)


class Picture:
    """A mesh drawn once, to be coloured in several ways.

    vertices (V, 3) in pixels of the picture; quads (F, 4) counter-clockwise from outside. Back sides are not drawn.
    The mesh is drawn `smooth` times as large, so that edges come out clean.
    """

    def __init__(self, vertices: np.ndarray, quads: np.ndarray, width: int, height: int, smooth: int = 2) -> None:
        self.size = width, height
        self.large_size = width * smooth, height * smooth
        large = ((vertices + (0.5, 0.5, 0)) * smooth - (0.5, 0.5, 0)).astype(np.float32)
        triangles = triangulate(quads)
        first, second, third = (large[triangles[:, corner], :2] for corner in range(3))
        area = cross(second - first, third - first)
        self.triangles = triangles[area < 0]
        self.vertices, self.quads = large, quads
        self.fragments = draw(large, self.triangles, *self.large_size)

    def clay(self, background: np.ndarray) -> np.ndarray:
        """The shaded surface without a texture. background (height, width, 3) uint8 RGB; returns the same shape."""
        normals = self.fragments.interpolate(self.triangles, vertex_normals(self.vertices, self.quads).astype(np.float32))
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
        return self._over(background, shade(normals) * np.float32([196, 192, 188]))

    def textured(self, background: np.ndarray, uvs: np.ndarray, texture: np.ndarray) -> np.ndarray:
        """uvs (V, 2) in 0..1, v up; texture (N, N, 3) uint8 RGB; background and result as for clay."""
        place = self.fragments.interpolate(self.triangles, uvs.astype(np.float32)) * (1, -1) + (0, 1)
        place = (place * len(texture) - 0.5).astype(np.float32)
        # remap takes maps of at most 32767 rows, and none of 0: one long list of pixels is folded.
        folded = np.zeros((len(place) // 1024 + 1, 1024, 2), np.float32).reshape(-1, 2)
        folded[:len(place)] = place
        colours = cv2.remap(texture, folded.reshape(-1, 1024, 2), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return self._over(background, colours.reshape(-1, 3)[:len(place)])

    def _over(self, background: np.ndarray, colours: np.ndarray) -> np.ndarray:
        large = cv2.resize(background, self.large_size, interpolation=cv2.INTER_NEAREST)
        large[self.fragments.covered] = colours
        return cv2.resize(large, self.size, interpolation=cv2.INTER_AREA)
