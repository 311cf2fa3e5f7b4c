"""The whole head of a captured face: hm08's skin from the crown to the neck's foot, eyes, teeth, tongue and lashes.

The position map has drawn the face on hm08, and the fit has told the person's identity and expression in hm08's own
basis; so the head is that basis on all of hm08's vertices, plus what the map knows beyond it. The map's word (half of the
fit's low-passed residual) counts where the map sees: `trust`, 1 in the face, falling to 0 over the 22 mm inside the face's rim, little
on ears and under hair. From there it is carried on over the rest of the skin as the smoothest field that fades within 45 mm
(a screened bi-Laplacian on the mean head, solved in `training/head_kit.py` and shipped as a product of two matrices), so
that neither the surface nor its normals have a seam at the face's rim.

Vertices come in one fixed order: first the skin (`HeadTopology.skin` of them, with the mouth's inside and the eye sockets, in
the order of hm08's own numbers), then tongue, teeth and gums, the eyeballs (the viewer's left one first), and the lashes: last, vertices
and quads, so that a head without lashes is the beginning of one with them. `part` tells what a quad is. UVs of skin, mouth, sockets and
tongue are hm08's own; teeth, gums, lashes and eyes have the whole square each, eyes as `eyeball.eye_uv` says. Reads `hm08_head.npz` and
`hm08_face.npz`; numpy and OpenCV only.

Head frame as everywhere: metres, x to the viewer's right, y down, z away, origin midway between the eyeballs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np

from .arkit import ARKIT_NAMES
from .capture import FaceCapture
from .errors import CaptureError
from .eyeball import EYE_PARTS, LOOK, eyeball, fit_sphere, turned
from .face_fit import GRID
from .membrane import membrane
from .unfold import Folds

# What a quad is. The first three share hm08's skin texture.
PARTS = ("skin", "mouth", "sockets", "tongue", "teeth", "gums", "lashes", *EYE_PARTS)

# A residual where the expression moves the face may be the expression's own error: it is off by this share of its movement, while
# a person at rest differs from the shape space by about SPREAD metres.
EXPRESSION_ERROR, SPREAD = 2.0, 0.0015
# How far the map is believed beyond the shape space. On rendered people less would be nearer to the truth, and two photographs of one
# person would agree better; more keeps the head nearer to what the photograph shows.
BELIEVED = 0.5
EAR = 0.3               # of an ear's own shape is believed; see `calm_ears`
TURNED = 55.0           # degrees of yaw beyond which a face shows one side only
AXIS = 0.07             # metres from the eyes back to the head's upright axis
SHOWN = -0.1, 0.4       # cosines to the camera from which a place is seen a little, and well
STEEP = 40.0            # degrees of pitch beyond which the head's proportions are guessed
LID_SPACE = 0.0011      # metres between the eyeball and the lids' outer side, at least: a cornea goes between them
LID_SLOPE = 0.4         # metres a metre that a lid's way off the eyeball falls to the skin round it
LIDS_APART = 0.0005, 0.0003, 0.0001     # metres between the edges of closed lids, from inside to outside
TONGUE = np.float32([0.80, 0.90, 0.95])     # of hm08's tongue, which fills the mouth and its teeth, about its root
TONGUE_ROOT = np.float32([0.0, 0.078, 0.045])
HELD = 0.15             # how much the shape space's place of an eye counts against where the lids want it
HIDDEN_SIDE = 0.3       # of what makes the two sides differ so much stays where no photo tells
ACTIVE = 0.03           # weight from which a shape of the photo's expression counts


class HeadTopology:
    """What is the same for every head. `load_head_topology()` gives the shipped one.

    V vertices: see the module's text. The basis has H rows ("hm08 rows"): the skin, the tongue, and behind them hm08's helpers
    that teeth and eyes follow, which are no vertices themselves.
    """

    skin: int                       # the first so many vertices are skin
    hm08_vertices: np.ndarray       # (H,) int: number in hm08's base mesh
    quads: np.ndarray               # (F, 4) int32 into the vertices, counter-clockwise seen from outside
    part: np.ndarray                # (F,) int8: index into PARTS
    texture: np.ndarray             # (T, 2) float32 UV coordinates, v up
    corners: np.ndarray             # (F, 4) int32 into `texture`, along with quads
    mean: np.ndarray                # (H, 3) float32 head frame, metres: the mean person
    identity: np.ndarray            # (120, H, 3) float32, one standard deviation each
    mirror: np.ndarray              # (H,) int: the hm08 row on the other side
    expression: np.ndarray          # (52, H, 3) float32, ARKit shapes at weight 1
    count: int                      # vertices with lashes, and
    bare: int                       # without
    trust: np.ndarray               # (skin,) float32 0..1: how far the map rules
    trusted: np.ndarray             # (K,) int: the skin vertices at which the map is read
    trusted_uv: np.ndarray          # (K, 2) float32: where on the map, v down
    ears: np.ndarray                # (skin,) float32 0..1: belongs to an ear
    lid_rims: np.ndarray            # (2, 3, n) int: rings of vertices round the viewer's left and right eye, from inside to outside

    def __init__(self, folder: Path) -> None:
        data, face = dict(np.load(folder / "hm08_head.npz")), np.load(folder / "hm08_face.npz")
        used, lacking = data["hm08_vertices"].astype(int), data["lacking"].astype(int)
        place = np.full(max(used.max(), face["hm08_vertices"].max()) + 1, 0)
        place[face["hm08_vertices"].astype(int)] = np.arange(len(face["hm08_vertices"]))

        def rows(name: str) -> np.ndarray:
            values = face[name][..., place[used], :].astype(np.float32)
            values[..., lacking, :] = data[name]
            return np.ascontiguousarray(values)

        self.hm08_vertices = used
        self.mean, self.identity, self.expression = rows("mean"), rows("identity"), rows("expression")
        self.skin = int(data["skin"])
        self.mirror = data["mirror"].astype(int)
        self.shown = self.skin + int(data["tongue"])        # of the hm08 rows so many are vertices
        self._helpers = np.split(np.arange(self.shown, len(used)), np.cumsum(data["helpers"])[:-1])
        self.trust, self.ears = data["trust"].astype(np.float32), data["ears"].astype(np.float32)
        self.trusted, self.trusted_uv = data["trusted"].astype(int), data["trusted_uv"]
        self._spread, self._gather = data["spread"].astype(np.float32), data["gather"].astype(np.float32)
        self.lid_rims = data["lid_rims"].astype(int)
        self._anchors, self._factors = data["anchors"].astype(int), data["factors"]
        self._own = data["own_vertices"]
        counts = data["own_counts"]
        self._jaw_counts = counts[0::2, 0][:2] + counts[1::2, 0][:2]    # upper, lower: teeth and gum together
        self._assemble(data, counts)
        self._bind_jaws()

    def _assemble(self, data: dict[str, np.ndarray], counts: np.ndarray) -> None:
        eye = eyeball()
        jaws = self._jaw_counts.sum()
        eyes_start = self.shown + jaws
        self.eye_vertices = [slice(eyes_start + side * len(eye.vertices), eyes_start + (side + 1) * len(eye.vertices))
                             for side in (0, 1)]
        self.bare = self.eye_vertices[1].stop
        self.count = self.bare + len(self._anchors)
        self.lashes = slice(self.bare, self.count)
        own_parts = [PARTS.index(name) for name in ("teeth", "gums", "teeth", "gums", "lashes", "lashes")]
        own_part = np.repeat(own_parts, counts[:, 1])
        eye_part = PARTS.index(EYE_PARTS[0]) + eye.part
        own_quads, of_jaws = data["own_quads"].astype(np.int32), counts[:4, 1].sum()
        first_uv = len(data["texture"])
        self.quads = np.concatenate([data["quads"], own_quads[:of_jaws] + self.shown,
                                     *(eye.quads + part.start for part in self.eye_vertices),
                                     own_quads[of_jaws:] - jaws + self.bare]).astype(np.int32)
        self.part = np.concatenate([data["part"], own_part[:of_jaws], eye_part, eye_part, own_part[of_jaws:]]).astype(np.int8)
        self.texture = np.concatenate([data["texture"], data["own_uvs"].astype(np.float32), eye.uvs])
        eye_corners = eye.quads + first_uv + len(self._own)
        self.corners = np.concatenate([data["corners"], own_quads[:of_jaws] + first_uv, eye_corners, eye_corners,
                                       own_quads[of_jaws:] + first_uv]).astype(np.int32)

    def quads_of(self, vertices: int) -> slice:
        """Which quads a head of so many vertices has: all of them, or with `bare` vertices those that are no lashes."""
        return slice(0, len(self.quads) if vertices == self.count else len(self.quads) - int((self.part == PARTS.index("lashes")).sum()))

    def _bind_jaws(self) -> None:
        """How teeth and gums follow hm08's teeth helpers: the quadratic field that explains the helpers' movements best."""
        ends = np.cumsum(self._jaw_counts)
        self._jaw_slices = [slice(0, ends[0]), slice(ends[0], ends[1])]
        self._jaw_follow = [_monomials(self._own[part]) @ np.linalg.pinv(_monomials(self.mean[helpers]), rcond=1e-4)
                            for part, helpers in zip(self._jaw_slices, self._helpers[:2])]

    def movements(self, rows: np.ndarray) -> np.ndarray:
        """(..., V, 3) how the vertices move when the hm08 rows (..., H, 3) do; eyeballs, which `place_eyes` sets, stay."""
        parts = [rows[..., :self.skin, :], rows[..., self.skin:self.shown, :] * TONGUE]
        parts += [follow @ rows[..., helpers, :] for follow, helpers in zip(self._jaw_follow, self._helpers)]
        nothing = np.zeros((*rows.shape[:-2], self.bare - self.eye_vertices[0].start, 3), np.float32)
        return np.concatenate([*parts, nothing, self.hung(rows)], -2).astype(np.float32)

    def hung(self, rows: np.ndarray) -> np.ndarray:
        """(..., lashes, 3) how the lashes move when the skin (..., skin or more, 3) does: with their roots, turned with the lid."""
        return np.einsum("nk,...nkc->...nc", self._factors, rows[..., self._anchors, :])

    @cached_property
    def squared_movement(self) -> np.ndarray:
        """(52, skin) squared metres that the ARKit shapes move the skin."""
        return (self.expression[:, :self.skin] ** 2).sum(2)

    @cached_property
    def sides(self) -> np.ndarray:
        """(S, 2) the pairs of skin vertices that a side joins."""
        quads = self.quads[(self.quads < self.skin).all(1)]
        return np.unique(np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2), 1), axis=0)

    @cached_property
    def folds(self) -> Folds:
        """What keeps the skin from folding over; the edges of lids, which close, may fold."""
        quads = self.quads[(self.quads < self.skin).all(1)]
        return Folds(self.mean[:self.skin], quads, np.isin(quads, self.lid_rims).any(1))

    @cached_property
    def mean_vertices(self) -> np.ndarray:
        """(V, 3) the mean head with everything in it."""
        tongue = (self.mean[self.skin:self.shown] - TONGUE_ROOT) * TONGUE + TONGUE_ROOT
        jaws = self._jaw_counts.sum()
        vertices = np.concatenate([self.mean[:self.skin], tongue, self._own[:jaws],
                                   np.zeros((self.bare - self.eye_vertices[0].start, 3)), self._own[jaws:]])
        return self.place_eyes(vertices.astype(np.float32), self.mean)

    @cached_property
    def movement_of_expression(self) -> np.ndarray:
        """(52, V, 3) how the ARKit shapes move the mean head's vertices, eyeballs apart."""
        return self.movements(self.expression)

    def eyes(self, rows: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Centre and radius of the eyeballs, the viewer's left one first, of hm08 rows (H, 3)."""
        return [fit_sphere(rows[helpers]) for helpers in self._helpers[2:]]

    def place_eyes(self, vertices: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The vertices (V, 3) with the eyeballs where the hm08 rows (H, 3) have them."""
        for part, (centre, radius) in zip(self.eye_vertices, self.eyes(rows)):
            vertices[part] = centre + radius * eyeball().vertices
        return vertices

    def carried(self, residual: np.ndarray) -> np.ndarray:
        """(H, 3) the map's residual (64, 64, 3) where the map rules, and its smooth continuation elsewhere.

        Teeth follow what the jaws' skin does, eyes what their lids do: as a whole, so that they keep their shape.
        """
        field = np.zeros_like(self.mean)
        field[:self.skin] = self.over_skin(residual)
        upper, lower = (weights @ field[:self.skin] for weights in self._jaw_skin)
        field[self._helpers[0]] = upper
        field[self._helpers[1]] = field[self.skin:self.shown] = lower
        for helpers, rims in zip(self._helpers[2:], self.lid_rims):
            field[helpers] = field[rims[2]].mean(0)
        return field

    def over_skin(self, residual: np.ndarray) -> np.ndarray:
        """(skin, 3) the same for the skin alone."""
        places = (self.trusted_uv * GRID - 0.5).astype(np.float32)
        read = cv2.remap(residual.astype(np.float32), places[None], None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)[0]
        field = self._spread @ (self._gather @ read)
        field[self.trusted] += self.trust[self.trusted, None] * (read - field[self.trusted])
        return field

    @cached_property
    def groups(self) -> dict[str, np.ndarray]:
        """Named regions, each (V,) float32 0..1. L and R are the person's own sides."""
        mean, skin = self.mean_vertices, np.arange(self.count) < self.skin
        x, y, z = mean.T
        padded = np.zeros((2, self.count), np.float32)
        padded[:, :self.skin] = self.trust, self.ears
        trust, ears = padded
        of_part = {name: np.isin(np.arange(self.count), self.quads[self.part == number]) for number, name in enumerate(PARTS)}
        outside = of_part["skin"] & ~of_part["sockets"] & ~of_part["mouth"]
        low = np.clip((y - 0.115 + 0.55 * z) / 0.02 + 0.5, 0, 1)        # below the jaw and the back of the skull
        rim = mean[of_part["skin"] & of_part["mouth"]]
        from_rim = np.array([np.linalg.norm(rim - point, axis=1).min() for point in mean[:self.skin]])
        lips = np.zeros(self.count)
        lips[:self.skin] = np.clip(2 - from_rim / 0.007, 0, 1)
        beyond = outside * (1 - trust) * (1 - ears)
        groups = {"face": trust, "scalp": beyond * (1 - low), "neck": beyond * low,
                  "lips": lips * outside, "mouth": of_part["mouth"] * 1.0, "tongue": of_part["tongue"] * 1.0,
                  "teeth.upper": ~skin & (of_part["teeth"] | of_part["gums"]), "lashes": of_part["lashes"] * 1.0}
        lower = np.zeros(self.count, bool)
        lower[self.shown + self._jaw_slices[1].start:self.shown + self._jaw_slices[1].stop] = True
        groups["teeth.lower"] = groups["teeth.upper"] & lower
        groups["teeth.upper"] = groups["teeth.upper"] & ~lower
        eyeballs = np.zeros((2, self.count))
        for row, part in zip(eyeballs, self.eye_vertices):
            row[part] = 1
        lids = np.zeros((2, self.count))
        for row, one in zip(lids, self.lids):
            moved = np.linalg.norm(self.expression[one.number, :self.skin], axis=1)
            row[:self.skin] = np.clip(moved / moved[one.upper[2]].mean(), 0, 1)
            row[np.concatenate([*one.upper, *one.lower])] = 1
        for number, side in ((1, "L"), (0, "R")):
            own = x * (1 if side == "L" else -1) > 0
            groups |= {f"ear.{side}": ears * own, f"eye.{side}": eyeballs[number], f"lids.{side}": lids[number],
                       f"socket.{side}": of_part["sockets"] * own}
        return {name: np.asarray(weights, np.float32) for name, weights in groups.items()}

    @cached_property
    def lids(self) -> list[Lids]:
        """How the lids of the viewer's left and right eye close."""
        return [Lids(self, side) for side in (0, 1)]

    @cached_property
    def _ear_roots(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ears' vertices, those of the skin round them, and how the ears go with it."""
        free = np.flatnonzero(self.ears > 0.05)
        inside = np.zeros(self.skin, bool)
        inside[free] = True
        around = self.sides[inside[self.sides].sum(1) == 1]
        held = np.setdiff1d(around, free)
        return free, held, membrane(self.sides, np.ones(len(self.sides)), free, held)

    def calm_ears(self, offsets: np.ndarray) -> None:
        """Takes a part of what the ears have of their own off a person's offsets from the mean (H, 3), in place.

        An ear is seen badly, from the front, under hair, and its many folds turn over when it is made up of too much guessing.
        """
        free, held, follow = self._ear_roots
        offsets[free] += (1 - EAR) * (follow @ offsets[held] - offsets[free])

    @cached_property
    def _jaw_skin(self) -> list[np.ndarray]:
        """Two rows (skin,) of weights: the skin over the upper and the lower front teeth."""
        found = []
        for place in ((0.0, 0.058, -0.030), (0.0, 0.092, -0.026)):
            weights = np.exp(-((self.mean[:self.skin] - place) ** 2).sum(1) / (2 * 0.012 ** 2)) * (self.trust > 0.9)
            found.append(weights / weights.sum())
        return found


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


def evened(topology: HeadTopology, rows: np.ndarray, yaw: float) -> np.ndarray:
    """hm08 rows (H, 3) whose two sides agree as far as the photo cannot tell them apart.

    What the camera did not see is the mirror image of what it saw, more and more the further the face is turned away; the skull and the
    neck, which no photo shows, are even for the most part always.
    """
    # Which way a place looks, by where it is round the head's upright axis; positive yaw shows the camera the side at positive x.
    x, z = topology.mean[:, 0], topology.mean[:, 2]
    around = np.arctan2(x, AXIS - z)
    shown = np.clip((np.cos(around - np.deg2rad(yaw)) - SHOWN[0]) / (SHOWN[1] - SHOWN[0]), 0, 1)
    shown = (shown * shown * (3 - 2 * shown))[:, None]
    other = shown[topology.mirror]
    seen = (shown + 1e-3) / (shown + other + 2e-3)
    mirrored = rows[topology.mirror] * np.float32([-1, 1, 1])
    own = np.full((len(rows), 1), HIDDEN_SIDE, np.float32)
    own[:topology.skin, 0] += (1 - HIDDEN_SIDE) * topology.trust
    own *= 1 - np.abs(shown - other) * (1 - HIDDEN_SIDE)
    return (own * rows + (1 - own) * (seen * rows + (1 - seen) * mirrored)).astype(np.float32)


def expression_shares(topology: HeadTopology, weights: np.ndarray, beyond: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of the residual (skin, 3) is said to be the active ARKit shapes' own: their numbers (A,), and (A, skin, 3) at weight 1.

    Where the photo's expression moves the face much, what the map shows beyond it is more likely the expression's
    peculiarity than the person at rest. Each shape's part is in proportion to its share of the movement.
    """
    active = np.flatnonzero(weights > ACTIVE)
    squares = topology.squared_movement[active]
    energy = (weights[active, None] ** 2 * squares).sum(0)
    # No shape may be given more than the whole of it: a weak one would carry it on to many times as much at weight 1.
    shares = EXPRESSION_ERROR ** 2 * weights[active, None] * squares / (SPREAD ** 2 + EXPRESSION_ERROR ** 2 * energy)
    return active, np.minimum(shares, 1)[..., None] * beyond


def _monomials(points: np.ndarray) -> np.ndarray:
    """(N, 10) 1, x, y, z and their products, of points (N, 3) metres; centred and scaled to a jaw."""
    x, y, z = ((points - [0.0, 0.07, 0.005]) / 0.03).T
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, z * x], 1)


@dataclass(frozen=True)
class Head:
    """One person's head. Vertices are those of `HeadTopology`, head frame, metres, in the size of `FaceCapture.head_map`.

    vertices = neutral + sum of weights[k] * shapes[k]: the head as the photo shows it.
    """

    vertices: np.ndarray            # (V, 3) float32, as in the photo
    neutral: np.ndarray             # (V, 3) float32, the face at rest
    shapes: np.ndarray              # (52, V, 3) float32, the ARKit shapes of this person at weight 1
    weights: np.ndarray             # (52,) float32 0..1, the photo's expression
    identity: np.ndarray            # (120,) float32, standard deviations
    eyes: list[tuple[np.ndarray, float]]    # centre (3,) and radius of the eyeballs at rest, the viewer's left one first

    def without_lashes(self) -> Head:
        """The same head with V = `HeadTopology.bare` vertices."""
        bare = load_head_topology().bare
        return replace(self, vertices=self.vertices[:bare], neutral=self.neutral[:bare], shapes=self.shapes[:, :bare])


@lru_cache(maxsize=1)
def load_head_topology() -> HeadTopology:
    """The head topology that ships with the module."""
    return HeadTopology(Path(__file__).parent)


def doubt(capture: FaceCapture) -> str | None:
    """What of a head its photo cannot tell, in a sentence, or None if it shows enough."""
    if abs(capture.yaw) > TURNED:
        return (f"The face is turned by {abs(capture.yaw):.0f}°: the far side of the head is the mirror image of the near side, and "
                f"its width a guess; a photo from the front is more exact.")
    if abs(capture.pitch) > STEEP:
        return (f"The face looks {'up' if capture.pitch > 0 else 'down'} by {abs(capture.pitch):.0f}°: the height of the head is a "
                f"guess; a photo from the front is more exact.")
    return None


def build_head(capture: FaceCapture) -> Head:
    """The head of a captured face. Raises CaptureError if the weights in use have another topology than hm08."""
    capture.topology.require_hm08("The head")
    if capture.fit is None:
        raise CaptureError("The head needs a fitted face: capture the photo again.")
    fit = capture.fit
    return head_of(fit.identity, fit.expression, fit.residual, capture.metric, capture.yaw)


def head_of(identity: np.ndarray, weights: np.ndarray, residual: np.ndarray, metric: float = 1.0,
            yaw: float = 0.0) -> Head:
    """The head of an identity (120,) in standard deviations and ARKit weights (52,), in the fit's terms.

    residual (64, 64, 3): what the map shows beyond them, metres (`FaceFit.residual`). metric: the size (`FaceCapture.metric`).
    yaw: how far the face was turned, degrees (`FaceCapture.yaw`).
    """
    topology = load_head_topology()
    identity, weights = identity.astype(np.float32), weights.astype(np.float32).copy()
    beyond = topology.carried(BELIEVED * residual)
    active, shares = expression_shares(topology, weights, beyond[:topology.skin])
    offsets = np.tensordot(identity, topology.identity, 1) + beyond
    offsets[:topology.skin] -= np.tensordot(weights[active], shares, 1)
    topology.calm_ears(offsets)
    rows = evened(topology, topology.mean + offsets, yaw)
    movement = np.tensordot(weights[active], topology.expression[active, :topology.skin] + shares, 1)
    rows[:topology.skin] = topology.folds.taken_out(rows[:topology.skin], movement)
    neutral, shapes, eyes, closing = adapted(topology, rows * np.float32(metric), active, shares, metric)
    for number, factor in closing.items():
        weights[number] = min(1.0, weights[number] * factor)
    return Head(neutral + np.tensordot(weights, shapes, 1), neutral, shapes, weights, identity, eyes)


def adapted(topology: HeadTopology, rows: np.ndarray, numbers: np.ndarray, own: np.ndarray,
            metric: float) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, float]], dict[int, float]]:
    """Neutral (V, 3), ARKit shapes (52, V, 3), eyes, and what a person's blinks need their weights multiplied by.

    rows (H, 3): the person's hm08 rows at rest, metres. numbers (A,), own (A, skin, 3): what shapes of this person have beyond the
    shape space's, in the space's size; metric: how much larger the person is.
    """
    neutral = topology.mean_vertices * np.float32(metric) + topology.movements(rows - topology.mean * np.float32(metric))
    eyes = []
    for lids, part, (centre, radius) in zip(topology.lids, topology.eye_vertices, topology.eyes(rows)):
        centre = lids.seat(neutral, centre, radius)
        neutral[part] = centre + radius * eyeball().vertices
        pushed = np.zeros((topology.skin, 3), np.float32)
        pushed[lids.around] = lids.push(neutral[lids.around], centre, radius)
        neutral[:topology.skin] += pushed
        neutral[topology.lashes] += topology.hung(pushed)
        eyes.append((centre, radius))
    shapes = topology.movement_of_expression * np.float32(metric)
    own = own * np.float32(metric)
    shapes[numbers, :topology.skin] += own
    shapes[numbers, topology.lashes] += topology.hung(own)
    closing = {lids.number: lids.close(neutral, shapes[lids.number], *eye) for lids, eye in zip(topology.lids, eyes)}
    for lids, eye in zip(topology.lids, eyes):
        lids.clear(neutral, shapes, *eye)
        changed = [lids.number, *lids.others]
        shapes[changed, topology.lashes] = topology.hung(shapes[changed])
    for part, (_, radius), side in zip(topology.eye_vertices, eyes, ("Right", "Left")):
        for way, degrees in LOOK.items():
            # The viewer's left eye is the person's right one, and looks in to the viewer's right.
            right = {"In": degrees, "Out": -degrees}.get(way, 0.0) * (1 if side == "Right" else -1)
            up = {"Up": degrees, "Down": -degrees}.get(way, 0.0)
            rest = eyeball().vertices
            shapes[ARKIT_NAMES.index(f"eyeLook{way}{side}"), part] = radius * (turned(rest, right, up) - rest)
    return neutral, shapes, eyes, closing

