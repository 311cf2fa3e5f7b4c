"""How a head's eyelids lie on the eyeball and close over it: whoever the person is, weight 1 of a blink shuts the eye.

`seat` the eyeball, `push` lids off it, `close` makes a person's blink, `clear` keeps the other shapes out of the eyeball.
numpy only. Frames and units as in head_topology.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .arkit import ARKIT_NAMES
from .membrane import membrane

if TYPE_CHECKING:
    from .head_topology import HeadTopology

LID_SPACE = 0.0011      # metres between the eyeball and the lids' outer side, at least: a cornea goes between them
LID_SLOPE = 0.4         # metres a metre that a lid's way off the eyeball falls to the skin round it
LIDS_APART = 0.0005, 0.0003, 0.0001     # metres between the edges of closed lids, from inside to outside
HELD = 0.15             # how much the shape space's place of an eye counts against where the lids want it


class Lids:
    """One eye's lids: an upper one that comes down, by its ARKit blink, onto a lower one that stays.

    hm08's own blink is made for one eye and goes past the lower lid by up to 6 mm; here weight 1 closes any eye.
    """

    def __init__(self, topology: HeadTopology, side: int) -> None:
        self.number = ARKIT_NAMES.index(("eyeBlinkRight", "eyeBlinkLeft")[side])
        mean, blink = topology.mean_vertices[:topology.skin], topology.expression[self.number, :topology.skin]
        # Of each ring the vertices from the viewer's left to right, corners included.
        self.upper, self.lower = [], []
        for ring in topology.lid_rims[side]:
            first, last = mean[ring, 0].argmin(), mean[ring, 0].argmax()
            halves = (np.roll(ring, -first)[:(last - first) % len(ring) + 1],
                      np.roll(ring[::-1], first + 1)[:(first - last) % len(ring) + 1])
            upper, lower = sorted(halves, key=lambda half: mean[half, 1].mean())
            self.upper.append(upper)
            self.lower.append(lower)
        self.others = [number for number in range(len(ARKIT_NAMES)) if number != self.number and
                       np.abs(topology.expression[number, np.concatenate([*self.upper, *self.lower])]).max() > 5e-4]
        self._spread_blink(topology, np.linalg.norm(blink, axis=1))
        # How far the lids' outer side is from the eyeball on the mean head, and has to be on any.
        self.centre, self.radius = topology.eyes(topology.mean)[side]
        away = np.linalg.norm(mean - self.centre, axis=1) - self.radius
        inside = np.concatenate([np.concatenate(halves) for halves in (self.upper[:1], self.lower[:1])])
        self.inner = np.unique(inside)
        self.rest_away = away[self.inner]
        lid = np.zeros(topology.skin, bool)
        lid[np.concatenate([*self.upper, *self.lower, self.rest])] = True
        for _ in range(3):      # and the lower lid below its edge
            lid[topology.sides[lid[topology.sides].any(1)]] = True
        lid &= (away > -2e-4) & (away < 0.012)
        self.lid = np.flatnonzero(lid)
        self.need = np.minimum(away[self.lid] - 2e-4, LID_SPACE)
        self._spread_push(topology, mean)

    def seat(self, neutral: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
        """The eyeball's centre (3,) where the person's own lids lie against it as on the mean head."""
        wanted = radius + self.rest_away * radius / self.radius
        moved = np.array(centre, np.float64)
        for _ in range(3):
            arm = neutral[self.inner] - moved
            length = np.linalg.norm(arm, axis=1, keepdims=True)
            out = arm / length
            off = length[:, 0] - wanted
            system = out.T @ out + HELD * len(out) * np.eye(3)
            moved = moved + np.linalg.solve(system, out.T @ off - HELD * len(out) * (moved - centre))
        return moved

    def push(self, points: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
        """(A, 3) what is lacking between the lids and the eyeball, outwards; mostly nothing. points (A, 3): the skin `around`.

        Vertices pushed one by one would fold over their neighbours: so what one lacks its neighbours are pushed by as well, the less
        the further they are.
        """
        arm = points[:len(self.lid)] - centre
        lack = radius + self.need * (radius / self.radius) - np.sqrt(np.einsum("nk,nk->n", arm, arm))
        pushed, short = np.zeros_like(points), np.flatnonzero(lack > 0)
        if len(short):
            wide = (lack[short, None] - self._fade[short]).max(0)
            reached = np.flatnonzero(wide > 0)
            arm = points[reached] - centre
            pushed[reached] = (wide[reached] / np.linalg.norm(arm, axis=1))[:, None] * arm
        return pushed

    def _spread_push(self, topology: HeadTopology, mean: np.ndarray) -> None:
        """Which skin goes along when a lid is pushed off the eyeball, `around` (A,), the lid's own vertices first; and how much less."""
        count, rings = topology.skin, 6
        inside = np.zeros(count, bool)
        inside[self.lid] = True
        for _ in range(rings):
            inside[topology.sides[inside[topology.sides].any(1)]] = True
        self.around = np.concatenate([self.lid, np.setdiff1d(np.flatnonzero(inside), self.lid)])
        place = np.full(count, -1)
        place[self.around] = np.arange(len(self.around))
        sides = place[topology.sides]
        sides = sides[(sides >= 0).all(1)]
        lengths = np.linalg.norm(np.diff(mean[self.around][sides], axis=1)[:, 0], axis=1)
        way = np.full((len(self.lid), len(self.around)), np.inf)
        way[np.arange(len(self.lid)), np.arange(len(self.lid))] = 0
        for _ in range(4 * rings):      # along the sides, as far as a push can matter
            for a, b in (sides.T, sides.T[::-1]):
                np.minimum.at(way.T, b, (way[:, a] + lengths).T)
        self._fade = (LID_SLOPE * way).astype(np.float32)

    def _spread_blink(self, topology: HeadTopology, moved: np.ndarray) -> None:
        """How the rest of the lid follows its edge: as a membrane that is held by the edge, the lower lid and the still skin around.

        It is the stiffer the further hm08's blink moves it, so that the fold stays where it is.
        """
        edge = np.unique(np.concatenate([half[1:-1] for half in self.upper]))
        still = np.unique(np.concatenate(self.lower))
        corners = topology.mean[self.upper[2][[0, -1]], 0]
        beyond = np.abs(topology.mean[:topology.skin, 0] - corners.mean()) > np.ptp(corners) / 2 + 0.003
        self.rest = np.setdiff1d(np.flatnonzero((moved > 2e-4) & ~beyond), np.concatenate([edge, still]))
        sides = topology.sides
        weights = (0.1 + np.minimum(moved[sides].min(1) / moved[edge].mean(), 1)) ** 2
        # Round the corners, and beyond them, the skin is held the more.
        past = (np.abs(topology.mean[self.rest, 0] - corners.mean()) - np.ptp(corners) / 2 + 0.002) / 0.004
        self.edge, self.follow = edge, membrane(sides, weights, self.rest, edge, 1.5 * np.clip(past, 0, 1) ** 2)
        self.still = np.setdiff1d(np.flatnonzero(moved > 0), np.concatenate([edge, self.rest]))

    def close(self, neutral: np.ndarray, blink: np.ndarray, centre: np.ndarray, radius: float) -> float:
        """Makes the blink (V, 3) close the lids of a neutral head (V, 3), in place, round the eyeball and not through it.

        Returns how much further the given blink went over the middle of the eye: what its weights are to be multiplied by.
        """
        middle = self.upper[2][len(self.upper[2]) // 3:-(len(self.upper[2]) // 3)]
        before = np.linalg.norm(blink[middle], axis=1).mean()
        blink[self.still] = 0
        for upper, lower, apart in zip(self.upper, self.lower, LIDS_APART):
            shares = shares_along(neutral[upper])
            blink[upper] = along(neutral[lower], shares) - neutral[upper]
            blink[upper, 1] -= apart * np.minimum(1, 8 * np.minimum(shares, 1 - shares))
        blink[self.rest] = self.follow @ blink[self.edge]
        # The lids go on a straight line and the eye is round: where the line is too near, its end goes further out.
        for share in (1.0, 0.75, 0.5, 0.3):
            blink[self.around] += self.push(neutral[self.around] + share * blink[self.around], centre, radius) / share
        return float(np.clip(before / max(np.linalg.norm(blink[middle], axis=1).mean(), 1e-4), 0.5, 3.0))

    def clear(self, neutral: np.ndarray, shapes: np.ndarray, centre: np.ndarray, radius: float) -> None:
        """Keeps the lids off the eyeball, in place, when the other shapes (52, V, 3) that move them come with or without a blink."""
        rest, closing = neutral[self.around], shapes[self.number, self.around]
        for number in self.others:
            shape = shapes[number, self.around]
            for share in (0.0, 0.5, 1.0):
                shape += self.push(rest + share * closing + shape, centre, radius)
            shapes[number, self.around] = shape


def shares_along(line: np.ndarray) -> np.ndarray:
    """(N,) 0..1 how far along a polyline (N, 3) each of its points is."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    return length / length[-1]


def along(line: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(M, 3) points of a polyline (N, 3) at shares (M,) of its length."""
    own = shares_along(line)
    return np.stack([np.interp(shares, own, line[:, axis]) for axis in range(3)], 1)
