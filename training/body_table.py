"""Builds `prn_blender/prn/hm08_body.npz`: how a head hangs on hm08's body, and where both lie in hm08's own UV layout.

    python -m training.body_table

For targets and textures. The shape space ends below the chin; what moves there has to come to rest at the shoulders. That is linear, so it is solved
once, here: displacements of the neck from those of the head, as flat as the neck's own mesh lets them be (the bi-Laplacian
surfaces of Botsch and Kobbelt, "An intuitive framework for real-time freeform modeling", 2004). Everything in the file
derives from MakeHuman's CC0 data.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree

from training.cache import default_cache
from training.hm08 import Hm08, fetch_sources

FOLDER = Path(__file__).parent.parent / "prn_blender/prn"
SHOULDERS = 5.2                 # hm08's y (decimetres) below which nothing moves
BESIDE = 1.25                   # and its x, beyond which nothing moves
SMALLEST = 1e-3                 # shares below this are left out
PARTS = ("body", "helper-tongue")   # what of the base mesh lies on the skin's texture; the order is the number in the file


def laplacian(vertices: np.ndarray, quads: np.ndarray):
    """(V, V) graph Laplacian of the quads' sides, each weighted by one over its length."""
    sides = np.unique(np.sort(np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)]), 1), axis=0)
    weights = 1 / np.linalg.norm(vertices[sides[:, 0]] - vertices[sides[:, 1]], axis=1)
    graph = coo_matrix((weights, (sides[:, 0], sides[:, 1])), shape=(len(vertices),) * 2)
    graph = graph + graph.T
    degree = np.asarray(graph.sum(1)).ravel()
    return diags(1 / np.maximum(degree, 1e-12)) @ (diags(degree) - graph)


def areas(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(V,) a quarter of the area of the quads at each vertex."""
    corners = vertices[quads]
    quad = 0.5 * np.linalg.norm(np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]), axis=1)
    return np.bincount(quads.ravel(), np.repeat(quad / 4, 4), len(vertices))


def skin_islands(hm08: Hm08) -> np.ndarray:
    """(F,) which island of the UV layout each quad of the skin lies on: 0 head, 1 body, 2 the mouth's inside, 3 eye sockets."""
    result = np.full(len(hm08.quads), 1)
    for island in np.unique(hm08.islands[hm08.islands >= 0]):
        quads = hm08.islands == island
        centre = hm08.vertices[hm08.quads[quads]].mean((0, 1))
        if centre[1] > 6.0:
            result[quads] = 3 if abs(centre[0]) > 0.1 else 2
    result[hm08.head_quads] = 0
    return result


def average(hm08: Hm08, gender: str) -> np.ndarray:
    """(19158, 3) the young woman or man that MPFB makes with every slider in the middle."""
    shape = hm08.vertices.copy()
    root = hm08.folder / "mpfb2/targets/macrodetails"
    names = [(1 / 3, f"{race}-{gender}-young") for race in ("african", "asian", "caucasian")]
    for weight, name in [*names, (1.0, f"universal-{gender}-young-averagemuscle-averageweight")]:
        moved, displacement = hm08.target(root / f"{name}.target.gz")
        shape[moved] += weight * displacement
    return shape


def build(cache: Path) -> None:
    hm08 = Hm08(fetch_sources(cache)[0])
    base, head = hm08.vertices, np.load(FOLDER / "hm08_face.npz")["hm08_vertices"].astype(int)
    skin_quads = hm08.quads[hm08.groups == "body"]
    skin = np.zeros(len(base), bool)
    skin[np.unique(skin_quads)] = True
    in_head = np.zeros(len(base), bool)
    in_head[head] = True
    near = ~in_head & (base[:, 1] > SHOULDERS) & (np.abs(base[:, 0]) < BESIDE)
    neck = np.flatnonzero(near & skin)
    roughness = laplacian(base, skin_quads)
    roughness = (roughness @ roughness).tocsr()[neck]
    known = np.flatnonzero(in_head & skin)
    known = known[np.asarray(abs(roughness[:, known]).sum(0)).ravel() > 0]              # the head's two last rows
    shares = spsolve(roughness[:, neck].tocsc(), -roughness[:, known].tocsc()).toarray()
    # Helpers and joints beside the neck go with the skin that is nearest.
    beside = np.flatnonzero(near & ~skin)
    resting = np.flatnonzero(skin & ~in_head & ~near)
    around = np.concatenate([neck, resting])
    distance, nearest = cKDTree(base[around]).query(base[beside], 3)
    weights = 1 / np.maximum(distance, 1e-6)
    weights /= weights.sum(1, keepdims=True)
    everywhere = np.concatenate([shares, np.zeros((len(resting), len(known)))])
    shares = np.concatenate([shares, (everywhere[nearest] * weights[..., None]).sum(1)])
    shares[np.abs(shares) < SMALLEST] = 0
    head_place = np.full(len(base), -1)
    head_place[head] = np.arange(len(head))
    # Helpers and joints in the head go with the skin that is nearest, in what the shape space does not say of it.
    helpers = np.flatnonzero(~skin[head])
    on_skin = np.flatnonzero(skin[head])
    distance, nearest_skin = cKDTree(base[head[on_skin]]).query(base[head[helpers]], 4)
    nearness = 1 / np.maximum(distance, 0.02)
    # The texture's mesh: vertices of the head, then those of the neck.
    place = np.full(len(base), -1)
    place[np.concatenate([head, neck, beside])] = np.arange(len(head) + len(neck) + len(beside))
    drawn = (place[hm08.quads] >= 0).all(1) & np.isin(hm08.groups, PARTS)
    parts = np.array([PARTS.index(group) for group in hm08.groups[drawn]])
    islands = np.where(parts == 0, skin_islands(hm08)[drawn], -1)
    path = FOLDER / "hm08_body.npz"
    bodies = np.stack([base, *(average(hm08, gender) for gender in ("female", "male"))])[:, head]
    np.savez_compressed(path, quads=place[hm08.quads[drawn]].astype(np.int16), uv=hm08.texture[hm08.corners[drawn]].astype(np.float32),
                        parts=parts.astype(np.int8), islands=islands.astype(np.int8), bodies=bodies.astype(np.float32),
                        weights=areas(base, skin_quads)[head].astype(np.float16),
                        helpers=helpers.astype(np.int16), helper_skin=on_skin[nearest_skin].astype(np.int16),
                        helper_weights=(nearness / nearness.sum(1, keepdims=True)).astype(np.float16),
                        last_rows=head_place[known].astype(np.int16), neck=np.concatenate([neck, beside]).astype(np.int16),
                        neck_shares=shares.astype(np.float16), neck_base=base[np.concatenate([neck, beside])].astype(np.float32))
    print(f"{len(neck)} vertices of the neck's skin and {len(beside)} beside it follow {len(known)} of the head; "
          f"{path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=default_cache())
    build(parser.parse_args().cache)
