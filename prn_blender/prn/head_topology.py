"""The whole head's topology, the same for everybody: vertices, quads, UVs, and how they follow hm08's shapes and the position map.

Vertices come in one fixed order: first the skin (`HeadTopology.skin` of them, with the mouth's inside and the eye sockets, in
the order of hm08's own numbers), then tongue, teeth and gums, the eyeballs (the viewer's left one first), and the lashes: last, vertices
and quads, so that a head without lashes is the beginning of one with them. `part` tells what a quad is. UVs of skin, mouth, sockets and
tongue are hm08's own; teeth, gums, lashes and eyes have the whole square each, eyes as `eyeball.eye_uv` says. Reads `hm08_head.npz` and
`hm08_face.npz`; numpy and OpenCV only.

Head frame as everywhere: metres, x to the viewer's right, y down, z away, origin midway between the eyeballs.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np

from .eyeball import EYE_PARTS, eyeball, fit_sphere
from .face_fit import GRID
from .lids import Lids
from .membrane import membrane
from .unfold import Folds

# What a quad is. The first three share hm08's skin texture.
PARTS = ("skin", "mouth", "sockets", "tongue", "teeth", "gums", "lashes", *EYE_PARTS)

EAR = 0.3               # of an ear's own shape is believed; see `calm_ears`
TONGUE = np.float32([0.80, 0.90, 0.95])     # of hm08's tongue, which fills the mouth and its teeth, about its root
TONGUE_ROOT = np.float32([0.0, 0.078, 0.045])


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


def _monomials(points: np.ndarray) -> np.ndarray:
    """(N, 10) 1, x, y, z and their products, of points (N, 3) metres; centred and scaled to a jaw."""
    x, y, z = ((points - [0.0, 0.07, 0.005]) / 0.03).T
    return np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, y * z, z * x], 1)


@lru_cache(maxsize=1)
def load_head_topology() -> HeadTopology:
    """The head topology that ships with the module."""
    return HeadTopology(Path(__file__).parent)
