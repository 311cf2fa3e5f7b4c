"""The fixed topology: what every texel of a position map means, and the meshes that follow from it.

A UV position map (Feng et al., "Joint 3D Face Reconstruction and Dense Alignment with Position Map Regression
Network", ECCV 2018) is a 256x256 image of 3D positions in which a texel is always the same point of the face. The face
is MakeHuman's hm08 (CC0) from the scalp to the upper neck with the ears, laid out in UV by `training/uv_layout.py`:
mirror-symmetric about the middle column, eyes and mouth standing open so that lids and lips are never neighbours.
This module reads `hm08_face.npz` and `landmarks68.json` beside it and knows numpy only. A model bundle may bring a
topology of its own, as PRNet's does: `Topology` is what any of them has, `Hm08Topology` what only hm08's has.

Texel coordinates are (column, row), centres at integers, row 0 the scalp, column 0 at the viewer's left (the person's
right). UV coordinates are Blender's: u right, v up, u = (column + 0.5) / 256, v = 1 - (row + 0.5) / 256.
Head frame: metres, x to the viewer's right, y down, z away from the viewer, origin midway between the eyeballs.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from .errors import CaptureError

SIZE = 256
HM08, TOPOLOGY_VERSION = "hm08", 1
# Region weights of the loss, section 3.2 of the paper: 68 landmarks : eyes, nose, mouth : rest of the face : neck.
LANDMARK_WEIGHT, FEATURE_WEIGHT, FACE_WEIGHT, NECK_WEIGHT = 16.0, 4.0, 3.0, 0.0
STRIDES = (1, 2, 4)


def sample(values: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Bilinear samples (..., N, C) of maps (..., H, W, C) at texel coordinates (N, 2) given as (column, row)."""
    height, width = values.shape[-3:-1]
    column = np.clip(coordinates[:, 0], 0, width - 1)
    row = np.clip(coordinates[:, 1], 0, height - 1)
    left = np.minimum(column.astype(int), width - 2)
    top = np.minimum(row.astype(int), height - 2)
    right_share = (column - left).astype(values.dtype)[:, None]
    bottom_share = (row - top).astype(values.dtype)[:, None]
    # One index into rows of texels laid end to end: several times faster than two.
    texels, place = values.reshape(*values.shape[:-3], height * width, -1), top * width + left
    upper, upper_right, lower, lower_right = (texels.take(place + step, axis=-2) for step in (0, 1, width, width + 1))
    upper = upper * (1 - right_share) + upper_right * right_share
    lower = lower * (1 - right_share) + lower_right * right_share
    return upper * (1 - bottom_share) + lower * bottom_share


def texels_to_uv(coordinates: np.ndarray) -> np.ndarray:
    """Texel coordinates (N, 2) as Blender's UVs (N, 2)."""
    return (np.stack([coordinates[:, 0] + 0.5, SIZE - 0.5 - coordinates[:, 1]], 1) / SIZE).astype(np.float32)


def smooth_boundary(places: np.ndarray, quads: np.ndarray, rounds: int = 6) -> np.ndarray:
    """Places (V, 2) with those on a boundary of the quads (F, 4) moved towards their neighbours along it."""
    sides = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)
    names = sides[:, 0] * len(places) + sides[:, 1]
    border = sides[~np.isin(sides[:, 1] * len(places) + sides[:, 0], names)]
    # Where two corners touch, a vertex has two successors; it stays.
    once = np.bincount(border[:, 0], minlength=len(places)) == 1
    before, after = np.arange(len(places)), np.arange(len(places))
    after[border[:, 0]], before[border[:, 1]] = border[:, 1], border[:, 0]
    moving = np.flatnonzero(once)
    result = places.astype(np.float64)
    for _ in range(rounds):
        result[moving] = 0.5 * result[moving] + 0.25 * (result[before[moving]] + result[after[moving]])
    # No quad may turn over or shrink to nothing: where one would, its corners go back a fifth of the way.
    move = result - places
    while True:
        a, b, c, d = (places[quads[:, i]] + move[quads[:, i]] for i in range(4))
        areas = np.stack([cross(b - a, c - a), cross(c - a, d - a), cross(d - b, a - b), cross(c - b, d - b)], 1)
        bad = (np.abs(areas) < 0.05).any(1) | (np.sign(areas) != np.sign(areas[0, 0])).any(1)
        if not bad.any():
            return places + move
        move[np.unique(quads[bad])] *= 0.8


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) the cross product of plane vectors (N, 2)."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


@dataclass(frozen=True)
class Grid:
    """A mesh whose vertices are points of the map."""

    texel_coordinates: np.ndarray   # (V, 2) float32 (column, row)
    cells: np.ndarray               # (V, 2) int (column, row) of the texel, or the cell of texels, that a vertex stands for
    quads: np.ndarray               # (F, 4) int32 into the vertices, counter-clockwise seen from outside

    @cached_property
    def uvs(self) -> np.ndarray:
        """(V, 2) float32 UV coordinates, v up."""
        return texels_to_uv(self.texel_coordinates)

    def sample(self, position_map: np.ndarray) -> np.ndarray:
        """Vertices (V, 3) of a position map (256, 256, 3), in the map's own frame and unit."""
        return sample(position_map, self.texel_coordinates)


class Topology:
    """What the texels of a network's position maps are: which lie on the face, where the 68 landmarks are, and the mesh.

    name: "hm08", or what the model bundle calls its own. mask (256, 256) bool, texels on the face. landmarks (68, 2)
    float32 texels in iBUG order. reference_texels (N, 2) and reference_points (N, 3): points of an average head in the
    head frame, metres, and where they are on the map; a head's pose is the similarity that carries them onto its map.
    """

    def __init__(self, name: str, mask: np.ndarray, landmarks: np.ndarray, reference_texels: np.ndarray,
                 reference_points: np.ndarray) -> None:
        self.name = name
        self.mask = mask
        self.landmarks = landmarks
        self.reference_texels = reference_texels
        self.reference_points = reference_points

    def require_hm08(self, what: str) -> None:
        """Raises CaptureError in one sentence if `what` (which begins it) needs hm08 and this is another topology."""
        if self.name != HM08:
            raise CaptureError(f"{what} can be had with this program's own weights only, because the weights in use have "
                               f"another topology, '{self.name}', which has its own grid only: use the weights that came with the program.")

    def landmarks_of(self, position_map: np.ndarray) -> np.ndarray:
        """The 68 iBUG landmarks (68, 3) of a position map."""
        return sample(position_map, self.landmarks)

    def vertices_of(self, position_map: np.ndarray) -> np.ndarray:
        """(V, C) the values of every texel on the face, row by row: the dense alignment, one fixed order for every face."""
        return position_map[self.mask]

    @lru_cache(maxsize=2 * len(STRIDES))
    def grid(self, stride: int = 1) -> Grid:
        """The position-map mesh: one vertex a masked texel (stride 1), or a cell of 2x2 or 4x4 masked texels.

        Coarser levels take the cells' centres, so that every level is mirror-symmetric. Along the outline, the lids and
        the lips the vertices move onto a smooth line, by less than a cell: texels alone would leave a staircase.
        """
        if stride not in STRIDES:
            raise ValueError(f"stride must be one of {STRIDES}, not {stride}")
        cells = SIZE // stride
        whole = self.mask.reshape(cells, stride, cells, stride).all((1, 3))
        squares = whole[:-1, :-1] & whole[1:, :-1] & whole[1:, 1:] & whole[:-1, 1:]
        row, column = np.nonzero(squares)
        corners = np.stack([row * cells + column, (row + 1) * cells + column,
                            (row + 1) * cells + column + 1, row * cells + column + 1], 1)
        used, quads = np.unique(corners, return_inverse=True)
        quads = quads.reshape(-1, 4)
        cell = np.stack([used % cells, used // cells], 1)
        centres = smooth_boundary(cell + 0.5, quads) * stride - 0.5
        return Grid(centres.astype(np.float32), cell, quads.astype(np.int32))

    def loops(self) -> Grid:
        """hm08's own face topology. Raises CaptureError: this is another one."""
        self.require_hm08("The hm08 face loops")


class Hm08Topology(Topology):
    """The topology of this program's own weights; `load_topology()` gives it."""

    def __init__(self, folder: Path) -> None:
        data = np.load(folder / "hm08_face.npz")
        with open(folder / "landmarks68.json", encoding="utf-8") as file:
            landmarks = np.array(json.load(file)["texels"], np.float32)      # (68, 2) iBUG order
        self.version = int(data["version"])
        self._texel_vertices = data["texel_vertices"].astype(np.int32)
        self._texel_weights = data["texel_weights"]
        self._face_quads = data["face_quads"].astype(np.int32)
        self._face_uv = data["face_uv"]
        self.mean = self.map_of(data["mean"])                       # (256, 256, 3) head frame, metres
        super().__init__(HM08, data["mask"], landmarks, landmarks, sample(self.mean, landmarks))

    def map_of(self, vertices: np.ndarray) -> np.ndarray:
        """Position map (256, 256, C) of values (V, C) on hm08's vertices above the shoulders (`ShapeSpace`).

        Outside the mask the map goes on smoothly: nearest point of the outline, between the rims in eyes and mouth.
        """
        result = np.zeros((SIZE, SIZE, vertices.shape[1]), np.float32)
        for corner in range(self._texel_vertices.shape[-1]):
            result += vertices[self._texel_vertices[..., corner]] * self._texel_weights[..., corner, None]
        return result

    @cached_property
    def regions(self) -> dict[str, np.ndarray]:
        """Named regions, each (256, 256) bool inside the mask; eye_left is the viewer's left."""
        x, y, z = np.moveaxis(self.mean, -1, 0)
        points = self.landmarks_of(self.mean)
        mouth, nose, chin = points[48:68].mean(0), points[27:36].mean(0), points[8]
        regions = {
            "eye_left": ((x + 0.0315) / 0.024) ** 2 + (y / 0.016) ** 2 < 1,
            "eye_right": ((x - 0.0315) / 0.024) ** 2 + (y / 0.016) ** 2 < 1,
            "nose": (np.abs(x) < 0.012 + 0.012 * np.clip(y / 0.05, 0, 1)) & (y > 0.0) & (y < nose[1] + 0.030),
            "mouth": ((x - mouth[0]) / 0.034) ** 2 + ((y - mouth[1]) / 0.019) ** 2 < 1,
            "ears": np.abs(x) > 0.075,
            "forehead": y < -0.040,
            # What lies behind the jaw line and below the chin.
            "neck": (y > 0.060) & (z > chin[2] + 0.022 + 0.9 * np.clip(chin[1] - y, 0, None)),
        }
        front = z < 0.03
        for name in ("eye_left", "eye_right", "nose", "mouth"):
            regions[name] = regions[name] & front
        return {name: region & self.mask for name, region in regions.items()}

    @cached_property
    def weights(self) -> np.ndarray:
        """(256, 256) float32 weights of the loss; 0 outside the mask."""
        weights = np.where(self.mask, FACE_WEIGHT, 0).astype(np.float32)
        for name in ("eye_left", "eye_right", "nose", "mouth"):
            weights[self.regions[name]] = FEATURE_WEIGHT
        weights[self.regions["neck"]] = NECK_WEIGHT
        rows, columns = np.mgrid[:SIZE, :SIZE]
        for column, row in self.landmarks:
            weights[(np.abs(columns - column) <= 1) & (np.abs(rows - row) <= 1) & self.mask] = LANDMARK_WEIGHT
        return weights

    @lru_cache(maxsize=1)
    def loops(self) -> Grid:
        """hm08's own face topology (edge loops round eyes and mouth), sampled from the map at its vertices' UVs."""
        places = (self._face_uv * SIZE - 0.5).astype(np.float32)
        return Grid(places, np.rint(places).astype(int), self._face_quads)


@lru_cache(maxsize=1)
def load_topology() -> Hm08Topology:
    """The hm08 topology that ships with the module."""
    return Hm08Topology(Path(__file__).parent)
