"""What the head has that hm08 has only a hint of: single teeth with gums, and lashes. Built on the mean head.

hm08's own teeth are strips that rely on a painted picture, its lashes cards that rely on one; these are real geometry. They
follow the base mesh: the teeth its teeth helpers, the lashes the rim of its lids. Numbers only, in the head frame (metres).
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Mesio-distal widths of the crowns from the middle, and their heights, in mm: mean adult figures (Wheeler's Dental Anatomy).
WIDTHS = {"upper": (8.5, 6.5, 7.5, 7.0, 7.0, 10.0, 9.0), "lower": (5.0, 5.5, 7.0, 7.0, 7.0, 11.0, 10.5)}
HEIGHTS = {"upper": (10.5, 9.0, 10.0, 8.5, 8.5, 7.5, 7.0), "lower": (9.0, 9.5, 11.0, 8.5, 8.0, 7.5, 7.0)}
DEPTHS = {"upper": (7.0, 6.0, 8.0, 9.0, 9.0, 11.0, 11.0), "lower": (6.0, 6.5, 7.5, 7.5, 8.0, 10.5, 10.5)}
AROUND = 12                     # vertices round a crown
LASHES = {"upper": 38, "lower": 22}


@dataclass
class Part:
    """Vertices (N, 3) metres, quads (Q, 4), uvs (N, 2)."""

    vertices: np.ndarray
    quads: np.ndarray
    uvs: np.ndarray


def joined(parts: list[Part]) -> Part:
    starts = np.cumsum([0] + [len(part.vertices) for part in parts])
    return Part(np.concatenate([part.vertices for part in parts]),
                np.concatenate([part.quads + start for part, start in zip(parts, starts)]),
                np.concatenate([part.uvs for part in parts]))


class Arch:
    """The curve that a jaw's teeth stand on, from the middle to the viewer's right; the left is its mirror image."""

    def __init__(self, points: np.ndarray) -> None:
        """points (n, 3): x from 0 upwards, along the outer edge at the bite."""
        dense = np.linspace(0, 1, 400)
        at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        # A polynomial, even in x, through the helper's few points: crowns would show its corners.
        x = np.interp(dense * at[-1], at, points[:, 0])
        z = np.polynomial.Polynomial.fit(points[:, 0] ** 2, points[:, 2], 3)(x ** 2)
        y = np.polynomial.Polynomial.fit(points[:, 0] ** 2, points[:, 1], 2)(x ** 2)
        self.points = np.stack([x, y, z], 1)
        self.length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(self.points, axis=0), axis=1))])

    def at(self, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, 3) on the curve and the horizontal directions (n, 3) out of the mouth there."""
        length = np.atleast_1d(length)
        place = np.stack([np.interp(np.abs(length), self.length, self.points[:, k]) for k in range(3)], 1)
        ahead = np.stack([np.interp(np.abs(length) + 5e-4, self.length, self.points[:, k]) for k in range(3)], 1)
        behind = np.stack([np.interp(np.abs(length) - 5e-4, self.length, self.points[:, k]) for k in range(3)], 1)
        along = (ahead - behind) * [1, 0, 1]
        along /= np.linalg.norm(along, axis=1, keepdims=True)
        out = np.stack([-along[:, 2], np.zeros(len(along)), along[:, 0]], 1) * -1
        side = np.where(length < 0, -1.0, 1.0)[:, None] * [1, 0, 0] + [0, 1, 1]
        return place * side, out * side


def crown(kind: int, width: float, height: float, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """One tooth: vertices (N, 3) as (along, towards the root, outwards from its outer edge), metres, and quads.

    kind: 0 and 1 incisors, 2 canine, 3 and 4 premolars, 5 and 6 molars.
    """
    around = np.arange(AROUND) * 2 * np.pi / AROUND
    # Levels from inside the gum to the edge: share of the height, width, depth.
    levels = np.array([[1.16, 0.70, 0.70], [1.0, 0.78, 0.80], [0.72, 0.93, 0.98], [0.40, 1.0, 0.96], [0.15, 0.99, 0.86], [0.03, 0.93, 0.76],
                       [0.0, 0.80, 0.64]])
    taper = (0.22, 0.22, 0.34, 0.75, 0.78, 0.9, 0.9)[kind]  # of the depth at the edge
    exponent = (0.55, 0.55, 0.75, 0.7, 0.7, 0.55, 0.55)[kind]
    rings = []
    for share, wide, deep in levels:
        c, s = np.cos(around), np.sin(around)
        x = np.sign(c) * np.abs(c) ** exponent * wide * width / 2
        thick = depth * deep * (taper + (1 - taper) * min(1, share))
        z = np.sign(s) * np.abs(s) ** (0.8 if kind < 3 else exponent) * thick / 2
        # The outer face leans a little inwards to the edge, and the inner one much.
        front = -0.04 * depth - 0.05 * height * (1 - min(1, share)) ** 2
        y = np.full(AROUND, share * height)
        if kind == 2:
            y = y + 0.16 * height * np.abs(x / (width / 2)) * (1 - min(1, share)) ** 2
        rings.append(np.stack([x, y, front - thick / 2 + z], 1))
    last = rings[-1]
    middle = last.mean(0)
    if kind > 2:
        middle = middle + [0, 0.08 * height, 0]  # the groove between the cusps
    if kind == 2:
        middle = middle - [0, 0.10 * height, 0]
    vertices = np.concatenate([*rings, 0.5 * (last + middle), middle[None]])
    number = np.arange(AROUND * (len(rings) + 1)).reshape(-1, AROUND)
    quads = [np.stack([upper, lower, np.roll(lower, -1), np.roll(upper, -1)], 1) for upper, lower in zip(number[:-1], number[1:])]
    cap, centre = number[-1], len(vertices) - 1
    quads.append(np.stack([cap[0::2], cap[1::2], np.roll(cap, -2)[0::2], np.full(AROUND // 2, centre)], 1))
    return vertices, np.concatenate(quads)


def outward(part: Part, quads_out: np.ndarray) -> Part:
    """The part with the quads turned whose winding does not look along quads_out (Q, 3)."""
    a, b, c, d = (part.vertices[part.quads[:, k]] for k in range(4))
    wrong = (np.cross(c - a, d - b) * quads_out).sum(1) < 0
    part.quads[wrong] = part.quads[wrong][:, ::-1]
    return part


def teeth(jaw: str, arch: Arch, root: float) -> tuple[Part, Part]:
    """A jaw's fourteen teeth and their gum. root: -1 if the roots point upwards (y down), 1 if downwards."""
    widths = np.array(WIDTHS[jaw])
    factor = 0.985 * arch.length[-1] / (widths.sum() / 1000)
    borders = np.concatenate([[0], np.cumsum(widths)]) / 1000 * factor
    crowns = []
    for kind in range(7):
        for side in (-1, 1):
            height, depth = HEIGHTS[jaw][kind] / 1000 * factor, DEPTHS[jaw][kind] / 1000 * min(factor, 1.1)
            shape, quads = crown(kind, 1.03 * widths[kind] / 1000 * factor, height, depth)
            middle = 0.5 * (borders[kind] + borders[kind + 1])
            _, out = arch.at(np.array([side * middle]))
            # Each crown is straight, on its chord of the arch.
            ends, _ = arch.at(side * np.array([borders[kind], borders[kind + 1]]))
            along = ends[1] - ends[0]
            along = along / np.linalg.norm(along)
            place = (ends[0] + ends[1]) / 2
            vertices = (place + shape[:, :1] * along * [1, 0, 1] + shape[:, 1:2] * [0, root, 0] + shape[:, 2:] * out[0]
                        + shape[:, :1] * along * [0, 1, 0])
            centre = vertices.mean(0)
            uvs = np.stack([0.5 + side * (middle + shape[:, 0]) / (2.1 * borders[-1]),
                            0.75 - root * 0.25 + root * np.clip(shape[:, 1] / height, 0, 1) * 0.24], 1)
            part = Part(vertices, quads.copy(), np.clip(uvs, 0, 1))
            # A crown is convex enough: away from its axis is outside.
            middles = vertices[quads].mean(1)
            axis = np.stack([np.full(len(middles), centre[0]), np.clip(middles[:, 1], *sorted((place[1] + root * 0.25 * height,
                             place[1] + root * 2 * height))), np.full(len(middles), centre[2])], 1)
            crowns.append(outward(part, middles - axis))

    stations = np.linspace(-1, 1, 113) * borders[-1]
    place, out = arch.at(stations)
    nearest = np.clip(np.searchsorted(borders, np.abs(stations)) - 1, 0, 6)
    height = np.interp(np.abs(stations), 0.5 * (borders[:-1] + borders[1:]), np.array(HEIGHTS[jaw]) / 1000 * factor)
    depth = np.interp(np.abs(stations), 0.5 * (borders[:-1] + borders[1:]), np.array(DEPTHS[jaw]) / 1000 * min(factor, 1.1))
    base = np.full(len(stations), height.mean())
    within = (np.abs(stations) - borders[nearest]) / np.diff(borders)[nearest]
    scallop = np.abs(np.cos(np.pi * within)) ** 1.5     # papillae between the teeth
    line = height * (0.90 - 0.16 * scallop)
    up = np.array([0, root, 0])
    # Across the gum: from high on the outside over its edge at the teeth to high on the inside.
    profile = [(2.0 * base, -0.25 * depth), (1.5 * base, 0.10 * depth), (1.10 * height, 0.12 * depth), (line + 0.0004, 0.03 * depth),
               (line - 0.0002, -0.10 * depth), (line + 0.0002, -0.85 * depth), (1.10 * height, -1.12 * depth), (1.5 * base, -1.22 * depth),
               (2.0 * base, -1.25 * depth)]
    rows = [place + up * np.asarray(high)[..., None] + out * np.asarray(far)[..., None] for high, far in profile]
    vertices = np.concatenate(rows)
    count = len(stations)
    number = np.arange(len(rows) * count).reshape(len(rows), count)
    quads = np.stack([number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]], -1).reshape(-1, 4)
    uvs = np.stack([np.tile(np.linspace(0, 1, count), len(rows)), np.repeat(np.linspace(0, 1, len(rows)), count)], 1)
    axis = (place + up * (1.5 * height)[:, None] - out * (0.5 * depth)[:, None])
    middles = vertices[quads].mean(1)
    core = np.tile(0.5 * (axis[:-1] + axis[1:]), (len(rows) - 1, 1))
    return joined(crowns), outward(Part(vertices, quads, uvs), middles - core)


def lashes(mean: np.ndarray, rings: list[np.ndarray], eye: np.ndarray) -> tuple[Part, np.ndarray, np.ndarray]:
    """One eye's lashes, and what they hang on: anchors (N, 4) and factors (N, 4).

    rings: the lid's rim from inside to outside, three rings of vertices ordered round the eye, neighbours with the same number.
    A vertex of a lash moves by the sum of factors times the movements of its anchors: with its root, and turned as far as the lid's
    edge turns.
    """
    inner, edge, outer = (mean[ring] for ring in rings)
    corners = np.argmin(edge[:, 0]), np.argmax(edge[:, 0])
    level = np.interp(edge[:, 0], edge[list(corners), 0], edge[list(corners), 1])
    parts, anchors, factors = [], [], []
    rng = np.random.default_rng(4)
    for lid, sign in (("upper", -1), ("lower", 1)):
        on_lid = np.flatnonzero((edge[:, 1] - level) * sign >= -1e-9)
        order = on_lid[np.argsort(edge[on_lid, 0])]
        at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(edge[order], axis=0), axis=1))])
        count = LASHES[lid]
        for place in np.linspace(0.08, 0.97 if lid == "upper" else 0.92, count) + rng.normal(0, 0.004, count):
            outside = place if mean[rings[1], 0].mean() > 0 else 1 - place
            place = outside * at[-1]
            k = int(np.clip(np.searchsorted(at, place) - 1, 0, len(order) - 2))
            share = (place - at[k]) / (at[k + 1] - at[k])
            a, b = order[k], order[k + 1]
            root = (1 - share) * 0.5 * (edge[a] + outer[a]) + share * 0.5 * (edge[b] + outer[b])
            margin = (1 - share) * (outer[a] - inner[a]) + share * (outer[b] - inner[b])
            out = margin / np.linalg.norm(margin)
            along = edge[b] - edge[a]
            along /= np.linalg.norm(along)
            fan = (root[0] - eye[0]) / 0.018   # lashes fan out to the sides
            longest = (0.0085 if lid == "upper" else 0.0052) * (0.75 + 0.35 * abs(fan)) * rng.uniform(0.85, 1.1)
            curl = np.array([0, sign, 0.0])
            steps = np.array([0.0, 0.3, 0.65, 1.0])
            path = root + longest * (steps[:, None] * (0.95 * out + 0.35 * fan * np.array([1.0, 0, 0]))
                                     + (steps ** 2)[:, None] * 0.55 * curl + rng.normal(0, 0.03, 3) * steps[:, None])
            # From the side of the eye a lash is a thin blade that tapers to nothing much.
            half = 0.00011 * np.array([1.0, 0.9, 0.55, 0.12])[:, None] * along
            vertices = np.stack([path - half, path + half], 1).reshape(-1, 3)
            quads = np.array([[0, 1, 3, 2], [2, 3, 5, 4], [4, 5, 7, 6]])
            uvs = np.stack([np.tile([0.0, 1.0], 4), np.repeat(steps, 2)], 1)
            parts.append(Part(vertices, quads, uvs))
            turn = np.repeat(steps, 2) * longest / np.linalg.norm(margin)
            ring_a, ring_b = [ring[a] for ring in rings], [ring[b] for ring in rings]
            for t in turn:
                anchors.append([ring_a[0], ring_b[0], ring_a[2], ring_b[2]])
                factors.append([-t * (1 - share), -t * share, (1 + t) * (1 - share), (1 + t) * share])
    return joined(parts), np.array(anchors), np.array(factors)
