"""The whole head of a captured face: hm08's skin from the crown to the neck's foot, and what is inside it.

The position map has drawn the face on hm08, and the fit has told the person's identity and expression in hm08's own
basis; so the head is that basis on all of hm08's vertices, plus what the map knows beyond it. The map's word (the fit's low-passed
residual) counts where the map sees: `trust`, 1 in the face, falling to 0 over the 22 mm inside the face's rim, little on ears and under
hair. From there it is carried on over the rest of the skin as the smoothest field that fades within 45 mm (a screened
bi-Laplacian on the mean head, solved in `training/head_kit.py` and shipped as a product of two matrices), so that neither
the surface nor its normals have a seam at the face's rim.

Vertices come in one fixed order: first the skin (`HeadTopology.skin` of them, with the mouth's inside and the eye sockets, in the
order of hm08's own numbers), then the other parts. `corners` and `texture` are hm08's own UV layout. Reads `hm08_head.npz` and
`hm08_face.npz`; numpy and OpenCV only.

Head frame as everywhere: metres, x to the viewer's right, y down, z away, origin midway between the eyeballs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from .capture import FaceCapture
from .errors import CaptureError
from .face_fit import GRID

PARTS = ("skin", "mouth", "sockets", "tongue")  # what a quad is; skin, mouth and sockets share hm08's skin texture


@dataclass(frozen=True)
class HeadTopology:
    """What is the same for every head."""

    hm08_vertices: np.ndarray       # (V,) int: number in hm08's base mesh
    skin: int                       # the first so many vertices are skin
    quads: np.ndarray               # (F, 4) int32 into the vertices, counter-clockwise seen from outside
    part: np.ndarray                # (F,) int8: index into PARTS
    texture: np.ndarray             # (T, 2) float32 UV coordinates, v up: hm08's own layout
    corners: np.ndarray             # (F, 4) int32 into `texture`, along with quads
    mean: np.ndarray                # (V, 3) float32 head frame, metres: the mean person
    identity: np.ndarray            # (120, V, 3) float32, one standard deviation each
    expression: np.ndarray          # (52, V, 3) float32, ARKit shapes at weight 1
    trust: np.ndarray               # (skin,) float32 0..1: how far the map rules
    trusted: np.ndarray             # (K,) int: the skin vertices at which the map is read
    trusted_uv: np.ndarray          # (K, 2) float32: where on the map, v down
    spread: np.ndarray              # (skin, R) float32, with
    gather: np.ndarray              # (R, K): spread @ gather @ displacements at `trusted` = displacements everywhere
    ears: np.ndarray                # (skin,) float32 0..1: belongs to an ear


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


@lru_cache(maxsize=1)
def load_head_topology() -> HeadTopology:
    """The head topology that ships with the module."""
    folder = Path(__file__).parent
    data, face = dict(np.load(folder / "hm08_head.npz")), np.load(folder / "hm08_face.npz")
    used, lacking = data["hm08_vertices"].astype(int), data["lacking"].astype(int)
    place = np.full(used.max() + 1, -1)
    shared = face["hm08_vertices"].astype(int)
    place[shared[shared <= used.max()]] = np.flatnonzero(shared <= used.max())
    rows = np.maximum(place[used], 0)

    def joined(name: str, own: np.ndarray) -> np.ndarray:
        values = face[name][..., rows, :].astype(np.float32)
        values[..., lacking, :] = own
        return values

    island = data["island"]
    part = np.select([island < 0, island == 1, np.isin(island, (3, 6))], [3, 1, 2], 0).astype(np.int8)
    return HeadTopology(
        hm08_vertices=used, skin=int(data["skin"]), quads=data["quads"].astype(np.int32), part=part,
        texture=data["texture"], corners=data["corners"].astype(np.int32),
        mean=joined("mean", data["mean"]), identity=joined("identity", data["identity"]),
        expression=joined("expression", data["expression"]),
        trust=data["trust"].astype(np.float32), trusted=data["trusted"].astype(int), trusted_uv=data["trusted_uv"],
        spread=data["spread"].astype(np.float32), gather=data["gather"].astype(np.float32),
        ears=data["ears"].astype(np.float32))


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
    neutral = topology.mean + np.tensordot(identity.astype(np.float32), topology.identity, 1)
    neutral[:topology.skin] += carried(topology, residual)
    neutral *= np.float32(metric)
    shapes = topology.expression * np.float32(metric)
    weights = weights.astype(np.float32)
    return Head(neutral + np.tensordot(weights, shapes, 1), neutral, shapes, weights, identity.astype(np.float32))


def carried(topology: HeadTopology, residual: np.ndarray) -> np.ndarray:
    """(skin, 3) the residual (64, 64, 3) of the map where the map rules, and its smooth continuation elsewhere."""
    places = (topology.trusted_uv * GRID - 0.5).astype(np.float32)
    read = cv2.remap(residual.astype(np.float32), places[None], None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)[0]
    field = topology.spread @ (topology.gather @ read)
    share = topology.trust[topology.trusted, None]
    field[topology.trusted] += share * (read - field[topology.trusted])
    return field
