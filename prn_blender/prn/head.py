"""The whole head of a captured face: hm08's skin from the crown to the neck's foot, eyes, teeth, tongue and lashes.

The position map has drawn the face on hm08, and the fit has told the person's identity and expression in hm08's own
basis; so the head is that basis on all of hm08's vertices, plus what the map knows beyond it. The map's word (the fit's
low-passed residual) counts where the map sees: `trust`, 1 in the face, falling to 0 over the 22 mm inside the face's rim, little
on ears and under hair. From there it is carried on over the rest of the skin as the smoothest field that fades within 45 mm
(a screened bi-Laplacian on the mean head, solved in `training/head_kit.py` and shipped as a product of two matrices), so
that neither the surface nor its normals have a seam at the face's rim.

Vertices come in one fixed order: first the skin (`HeadTopology.skin` of them, with the mouth's inside and the eye sockets, in
the order of hm08's own numbers), then tongue, teeth and gums, lashes, and the eyeballs (the viewer's left one first). `part` tells
what a quad is. UVs of skin, mouth, sockets and tongue are hm08's own; teeth, gums, lashes and eyes have the whole square each,
eyes as `eyeball.eye_uv` says. Reads `hm08_head.npz` and `hm08_face.npz`; numpy and OpenCV only.

Head frame as everywhere: metres, x to the viewer's right, y down, z away, origin midway between the eyeballs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import cv2
import numpy as np

from .arkit import ARKIT_NAMES
from .capture import FaceCapture
from .errors import CaptureError
from .eyeball import LOOK, eyeball, fit_sphere, turned
from .face_fit import GRID

# What a quad is. The first three share hm08's skin texture.
PARTS = ("skin", "mouth", "sockets", "tongue", "teeth", "gums", "eyes", "cornea", "lashes")


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
    expression: np.ndarray          # (52, H, 3) float32, ARKit shapes at weight 1
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
            return values

        self.hm08_vertices = used
        self.mean, self.identity, self.expression = rows("mean"), rows("identity"), rows("expression")
        self.skin = int(data["skin"])
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
        eyes_start = self.shown + len(self._own)
        self.eye_vertices = [slice(eyes_start + side * len(eye.vertices), eyes_start + (side + 1) * len(eye.vertices))
                             for side in (0, 1)]
        self.count = eyes_start + 2 * len(eye.vertices)
        own_parts = [PARTS.index(name) for name in ("teeth", "gums", "teeth", "gums", "lashes", "lashes")]
        own_part = np.repeat(own_parts, counts[:, 1])
        eye_part = np.where(eye.cornea, PARTS.index("cornea"), PARTS.index("eyes"))
        own_quads = data["own_quads"].astype(np.int32)
        first_uv = len(data["texture"])
        self.quads = np.concatenate([data["quads"], own_quads + self.shown,
                                     *(eye.quads + part.start for part in self.eye_vertices)]).astype(np.int32)
        self.part = np.concatenate([data["part"], own_part, eye_part, eye_part]).astype(np.int8)
        self.texture = np.concatenate([data["texture"], data["own_uvs"].astype(np.float32), eye.uvs])
        eye_corners = eye.quads + first_uv + len(self._own)
        self.corners = np.concatenate([data["corners"], own_quads + first_uv, eye_corners, eye_corners]).astype(np.int32)

    def _bind_jaws(self) -> None:
        """How teeth and gums follow hm08's teeth helpers: the quadratic field that explains the helpers' movements best."""
        ends = np.cumsum(self._jaw_counts)
        self._jaw_slices = [slice(0, ends[0]), slice(ends[0], ends[1])]
        self._jaw_follow = [_monomials(self._own[part]) @ np.linalg.pinv(_monomials(self.mean[helpers]), rcond=1e-4)
                            for part, helpers in zip(self._jaw_slices, self._helpers[:2])]

    def movements(self, rows: np.ndarray) -> np.ndarray:
        """(..., V, 3) how the vertices move when the hm08 rows (..., H, 3) do; eyeballs, which `place_eyes` sets, stay."""
        parts = [rows[..., :self.shown, :]]
        parts += [follow @ rows[..., helpers, :] for follow, helpers in zip(self._jaw_follow, self._helpers)]
        hung = sum(self._factors[:, k, None] * rows[..., self._anchors[:, k], :] for k in range(self._anchors.shape[1]))
        nothing = np.zeros((*rows.shape[:-2], self.count - self.eye_vertices[0].start, 3), np.float32)
        return np.concatenate([*parts, hung, nothing], -2).astype(np.float32)

    @cached_property
    def mean_vertices(self) -> np.ndarray:
        """(V, 3) the mean head with everything in it."""
        vertices = np.concatenate([self.mean[:self.shown], self._own, np.zeros((self.count - self.eye_vertices[0].start, 3))])
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
        places = (self.trusted_uv * GRID - 0.5).astype(np.float32)
        read = cv2.remap(residual.astype(np.float32), places[None], None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)[0]
        field = np.zeros_like(self.mean)
        field[:self.skin] = self._spread @ (self._gather @ read)
        share = self.trust[self.trusted, None]
        field[self.trusted] += share * (read - field[self.trusted])
        upper, lower = (weights @ field[:self.skin] for weights in self._jaw_skin)
        field[self._helpers[0]] = upper
        field[self._helpers[1]] = field[self.skin:self.shown] = lower
        for helpers, rims in zip(self._helpers[2:], self.lid_rims):
            field[helpers] = field[rims[2]].mean(0)
        return field

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


@lru_cache(maxsize=1)
def load_head_topology() -> HeadTopology:
    """The head topology that ships with the module."""
    return HeadTopology(Path(__file__).parent)


def build_head(capture: FaceCapture) -> Head:
    """The head of a captured face. Raises CaptureError if the weights in use have another topology than hm08."""
    capture.topology.require_hm08("The head")
    if capture.fit is None:
        raise CaptureError("The head needs a fitted face: capture the photo again.")
    fit = capture.fit
    return head_of(fit.identity, fit.expression, fit.residual, capture.metric)


def head_of(identity: np.ndarray, weights: np.ndarray, residual: np.ndarray, metric: float = 1.0) -> Head:
    """The head of an identity (120,) in standard deviations and ARKit weights (52,), in the fit's terms.

    residual (64, 64, 3): what the map shows beyond them, metres (`FaceFit.residual`). metric: the size (`FaceCapture.metric`).
    """
    topology = load_head_topology()
    identity, weights = identity.astype(np.float32), weights.astype(np.float32)
    rows = (topology.mean + np.tensordot(identity, topology.identity, 1) + topology.carried(residual)) * np.float32(metric)
    neutral = topology.mean_vertices * np.float32(metric) + topology.movements(rows - topology.mean * np.float32(metric))
    neutral = topology.place_eyes(neutral, rows)
    eyes = topology.eyes(rows)
    shapes = topology.movement_of_expression * np.float32(metric)
    for part, (_, radius), side in zip(topology.eye_vertices, eyes, ("Right", "Left")):
        for way, degrees in LOOK.items():
            # The viewer's left eye is the person's right one, and looks in to the viewer's right.
            right = {"In": degrees, "Out": -degrees}.get(way, 0.0) * (1 if side == "Right" else -1)
            up = {"Up": degrees, "Down": -degrees}.get(way, 0.0)
            rest = eyeball().vertices
            shapes[ARKIT_NAMES.index(f"eyeLook{way}{side}"), part] = radius * (turned(rest, right, up) - rest)
    vertices = neutral + np.tensordot(weights, shapes, 1)
    return Head(vertices, neutral, shapes, weights, identity, eyes)
