"""The eyeball's mesh: a globe with a flat, sunken iris, and a clear cornea over it. Pure numbers: numpy only.

One mesh for every eye, in units of the globe's radius, the gaze along -z; `fit_sphere` finds where a person's eyes are and how
large. Proportions of the iris and the cornea follow an adult eye's (iris 11.7 mm wide, Gross and others, "Limbus anatomy"),
measured against the base mesh's eyeballs, which are larger than real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

GRID = 6                        # quads along a side of the grid that closes a pole; rings have four times as many
IRIS = np.deg2rad(23.5)         # angle between the axis and the iris's rim, seen from the globe's centre
BULGE = 0.045                   # how far the cornea stands out over the globe, radii
RIM = 1.25                      # where the cornea meets the white, in angles of the iris
SUNK = 0.03                     # how far the iris lies behind its rim, radii
EYE_PARTS = ("white", "iris", "pupil", "cornea")
# Degrees that an eye turns at weight 1 of the ARKit shapes.
LOOK = {"In": 25.0, "Out": 25.0, "Up": 20.0, "Down": 25.0}


@dataclass(frozen=True)
class Eyeball:
    """Quads are counter-clockwise seen from outside in the head frame (x right, y down, z away)."""

    vertices: np.ndarray        # (E, 3) radii, gaze along -z, centre at the origin
    quads: np.ndarray           # (Q, 4) int
    uvs: np.ndarray             # (E, 2) v up: the front's middle in the middle, see `eye_uv`
    part: np.ndarray            # (Q,) int: index into EYE_PARTS


def eye_uv(angle: np.ndarray, around: np.ndarray) -> np.ndarray:
    """UVs (..., 2), v up, of points of the globe: `angle` from the gaze, `around` it from the viewer's right, downwards (radians).

    The distance from the middle is half of 1 - (1 - angle / pi)^3, so that the front gets most of the picture.
    """
    reach = 0.5 * (1 - (1 - angle / np.pi) ** 3)
    return np.stack([0.5 + reach * np.cos(around), 0.5 - reach * np.sin(around)], -1)


def disc(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A disc of quads: (angle, around) of its vertices and quads (Q, 4). A grid in the middle up to angles[0], then rings."""
    ticks = np.linspace(-1, 1, GRID + 1)
    x, y = (axis.ravel() for axis in np.meshgrid(ticks, ticks))
    # Square to disc, after Fong ("Analytical methods for squaring the disc", 2014).
    u, v = x * np.sqrt(1 - y * y / 2), y * np.sqrt(1 - x * x / 2)
    angle, around = angles[0] * np.hypot(u, v), np.arctan2(v, u)
    number = np.arange((GRID + 1) ** 2).reshape(GRID + 1, GRID + 1)
    quads = [np.stack([number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]], -1).reshape(-1, 4)]
    border = np.concatenate([number[0, :-1], number[:-1, -1], number[-1, :0:-1], number[:0:-1, 0]])
    parts = [(angle, around)]
    inner, count = border, len(angle)
    for ring in angles[1:]:
        outer = count + np.arange(len(border))
        parts.append((np.full(len(border), ring), around[border]))
        quads.append(np.stack([inner, np.roll(inner, -1), np.roll(outer, -1), outer], 1))
        inner, count = outer, count + len(border)
    angle, around = (np.concatenate(values) for values in zip(*parts))
    return angle, around, np.concatenate(quads)


@lru_cache(maxsize=1)
def eyeball() -> Eyeball:
    """The mesh of one eye."""
    front = np.concatenate([IRIS * np.array([0.28, 0.45, 0.62, 0.8, 0.94, 1.0]),
                            np.linspace(IRIS, np.pi / 2, 8)[1:]])
    angle, around, quads = disc(front)
    part = np.select([np.arange(len(quads)) < GRID ** 2, np.arange(len(quads)) < GRID ** 2 + 5 * 4 * GRID], [2, 1], 0)
    back_angle, back_around, back = disc(np.linspace(0.22, 1, 6) * np.pi / 2)
    # The back is the front's mirror image; they share the equator.
    ring = 4 * GRID
    own = len(back_angle) - ring
    back_number = np.concatenate([len(angle) + np.arange(own), len(angle) - ring + np.arange(ring)])
    quads = np.concatenate([quads, back_number[back][:, ::-1]])
    angle = np.concatenate([angle, np.pi - back_angle[:own]])
    around = np.concatenate([around, back_around[:own]])
    reach, depth = np.sin(angle), np.cos(angle)
    # The iris is a disc behind its rim, a little hollow.
    inside = angle < IRIS - 1e-9
    share = angle / IRIS
    depth = np.where(inside, np.cos(IRIS) - SUNK * np.minimum(1, 4 * (1 - share)), depth)
    reach = np.where(inside, share * np.sin(IRIS), reach)
    globe = np.stack([reach * np.cos(around), reach * np.sin(around), -depth], 1)
    uvs = eye_uv(angle, around)

    clear, clear_around, clear_quads = disc(RIM * IRIS * np.array([0.25, 0.45, 0.65, 0.8, 0.92, 1.0]))
    far = 1.0005 + BULGE * (1 - (clear / (RIM * IRIS)) ** 2) ** 2
    cap = far[:, None] * np.stack([np.sin(clear) * np.cos(clear_around), np.sin(clear) * np.sin(clear_around), -np.cos(clear)], 1)
    return Eyeball(np.concatenate([globe, cap]).astype(np.float32),
                   np.concatenate([quads, clear_quads + len(globe)]).astype(np.int32),
                   np.concatenate([uvs, eye_uv(clear, clear_around)]).astype(np.float32),
                   np.concatenate([part, np.zeros(len(back), int), np.full(len(clear_quads), 3)]))


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of the sphere nearest to points (N, 3), in the algebraic least squares sense."""
    system = np.column_stack([2 * points, np.ones(len(points))])
    solution = np.linalg.lstsq(system, (points ** 2).sum(1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def turned(vertices: np.ndarray, right: float, up: float) -> np.ndarray:
    """Vertices (E, 3) round the origin with the gaze turned to the viewer's right and up, degrees."""
    a, b = np.deg2rad([right, up])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    return vertices @ (about_y @ about_x).T
