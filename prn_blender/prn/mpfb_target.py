"""The likeness and the expression as targets of MakeHuman's hm08 base mesh, which MakeHuman and MPFB load onto a body.

A target says how far vertices of the base mesh move (MPFB's file format description: docs/fileformats/target.md). A captured
head is brought to the size and place of the body's own, so that the neck moves as little as may be; below it the neck follows
more and more slowly and comes to rest at the shoulders. numpy only; arrays and text, no files.

Frames: the head frame (metres) and hm08's own: decimetres, x to the person's left, y up, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .capture import FaceCapture
from .face_fit import similarity
from .head import build_head
from .head_topology import load_head_topology

VERTICES = 19158  # of the base mesh, its helpers included
# What a likeness can go onto: the base mesh without any other target, and the young woman and man that MPFB makes with every
# slider in the middle: they have heads of their own, which the target has to take back.
BODIES = ("base", "woman", "man")
AXES = np.array([1.0, -1.0, -1.0])  # head frame -> hm08's axes
SMALLEST = 5e-5  # decimetres; what moves less is left out
HEADER = ("# {what}\n"
          "# basemesh hm08\n")


@dataclass(frozen=True)
class Body:
    """How the head hangs on hm08's body; `load_body()` gives it. Built by `training/body_table.py`."""

    head: np.ndarray  # (V,) indices of the head's vertices in the base mesh, those of the shape space
    shapes: dict[str, np.ndarray]  # (V, 3) where they are on each of BODIES, hm08's frame
    weights: np.ndarray  # (V,) area of skin that each stands for; 0 for helpers
    last_rows: np.ndarray  # (r,) places in `head` of the skin just above the neck
    helpers: np.ndarray  # (h,) places in `head` of what is not skin: eyes, teeth, lashes, joints
    helper_skin: np.ndarray  # (h, 4) places of the skin nearest to each
    helper_weights: np.ndarray  # (h, 4)
    neck: np.ndarray  # (n,) indices of the neck's vertices in the base mesh
    neck_shares: np.ndarray  # (n, r) how far each follows the last rows


@lru_cache(maxsize=1)
def load_body() -> Body:
    folder = Path(__file__).parent
    data = np.load(folder / "hm08_body.npz")
    head = np.load(folder / "hm08_face.npz")["hm08_vertices"].astype(int)
    return Body(head, dict(zip(BODIES, data["bodies"].astype(float))), data["weights"].astype(float), data["last_rows"].astype(int),
                data["helpers"].astype(int), data["helper_skin"].astype(int), data["helper_weights"].astype(float),
                data["neck"].astype(int), data["neck_shares"].astype(float))


def likeness(face: FaceCapture) -> tuple[np.ndarray, np.ndarray]:
    """The captured head on all of the shape space's vertices, helpers and joints included: (V, 3) at rest, (V, 3) as in the
    photo; head frame, metres. Raises CaptureError where `build_head` does."""
    head, topology, body = build_head(face), load_head_topology(), load_body()
    data = np.load(Path(__file__).parent / "hm08_face.npz")
    neutral = data["mean"] + np.tensordot(head.identity, data["identity"].astype(np.float32), 1)
    moves = np.tensordot(head.weights, data["expression"].astype(np.float32), 1)
    # The skin is the head's own: there the map has its say as well.
    place = np.full(VERTICES, -1)
    place[topology.hm08_vertices[:topology.skin]] = np.arange(topology.skin)
    own = np.flatnonzero(place[body.head] >= 0)
    beyond = np.zeros_like(neutral)
    beyond[own] = head.neutral[place[body.head[own]]] / np.float32(face.metric) - neutral[own]
    beyond[body.helpers] = (beyond[body.helper_skin] * body.helper_weights[..., None]).sum(1)
    neutral = (neutral + beyond) * np.float32(face.metric)
    return neutral, neutral + moves * np.float32(face.metric)


def target_offsets(neutral: np.ndarray, posed: np.ndarray, onto: str = "base") -> tuple[np.ndarray, np.ndarray]:
    """How a body moves to have a person's neutral head, and from there the expression: (19158, 3) each, decimetres.

    neutral, posed (V, 3): the head's vertices at rest and with the photo's expression, head frame. onto: one of BODIES.
    """
    body = load_body()
    before = body.shapes[onto]
    scale, rotation, translation = similarity(neutral * AXES, before, body.weights)
    at_rest = scale * (neutral * AXES) @ rotation.T + translation
    return _on_body(at_rest - before, body), _on_body(scale * ((posed - neutral) * AXES) @ rotation.T, body)


def _on_body(offsets: np.ndarray, body: Body) -> np.ndarray:
    """(19158, 3) displacements of the whole body from those of the head (V, 3)."""
    whole = np.zeros((VERTICES, 3))
    whole[body.head] = offsets
    whole[body.neck] = body.neck_shares @ offsets[body.last_rows]
    return whole


def target_text(offsets: np.ndarray, what: str) -> str:
    """A target file's content: what (one line) it is, then a line "vertex x y z" for each vertex that moves.

    Fields are parted by single blanks, as MPFB's reader has it.
    """
    moving = np.flatnonzero(np.abs(offsets).max(1) > SMALLEST)
    lines = ("%d %.4f %.4f %.4f\n" % (vertex, *offset) for vertex, offset in zip(moving.tolist(), offsets[moving].tolist()))
    return HEADER.format(what=what) + "".join(lines)
