"""Texel weights on the Catmull-Clark surface of hm08's quads, so that a map shows skin and not the mesh's facets.

Catmull and Clark, "Recursively generated B-spline surfaces on arbitrary topological meshes" (1978), with cubic
B-splines along the boundary. Subdivision is linear in the vertices, so a texel becomes a short list of vertices with
weights, and every shape, basis and label drawn through it is smooth alike.
"""
from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags, identity, vstack

from prn_blender.prn.render import draw, triangulate

CORNERS = 24                    # weights kept per texel; what is cut off is below a thousandth
LEVELS = 3


def incidence(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int], weight: float = 1.0) -> csr_matrix:
    return coo_matrix((np.full(rows.size, weight), (rows.ravel(), columns.ravel())), shape).tocsr()


def catmull_clark(quads: np.ndarray, count: int) -> tuple[csr_matrix, csr_matrix, np.ndarray]:
    """One step on `count` vertices: matrices (V', V) of the smooth points and of the plain midpoints, and the new quads.

    New vertices: the old ones first, then one an edge, then one a face.
    """
    number = np.arange(len(quads))
    sides = np.stack([quads, np.roll(quads, -1, 1)], -1).reshape(-1, 2)           # quad f's sides at 4f..4f+3
    edges, edge_of, uses = np.unique(np.sort(sides, 1), axis=0, return_inverse=True, return_counts=True)
    edge_of = edge_of.reshape(-1, 4)
    ends = np.repeat(np.arange(len(edges)), 2)
    around = np.repeat(number, 4)
    face_points = incidence(around, quads, (len(quads), count), 0.25)
    middles = incidence(ends, edges, (len(edges), count), 0.5)
    faces_of_edge = incidence(edge_of, around, (len(edges), len(quads)))
    edges_of_vertex = incidence(edges, ends, (count, len(edges)))
    faces_of_vertex = incidence(quads, around, (count, len(quads)))

    inner_edge = uses == 2
    edge_points = diags(np.where(inner_edge, 0.5, 1.0)) @ middles \
        + diags(np.where(inner_edge, 0.25, 0.0)) @ faces_of_edge @ face_points
    valence = np.asarray(edges_of_vertex.sum(1)).ravel()
    faces = np.asarray(faces_of_vertex.sum(1)).ravel()
    inner = diags(1 / (faces * valence)) @ faces_of_vertex @ face_points \
        + diags(2 / valence ** 2) @ edges_of_vertex @ middles + diags((valence - 3) / valence)
    border_edges = edges_of_vertex @ diags((~inner_edge).astype(float))
    border = 0.5 * identity(count) + 0.25 * border_edges @ middles
    at_border = (np.asarray(border_edges.sum(1)).ravel() > 0).astype(float)
    vertex_points = diags(at_border) @ border + diags(1 - at_border) @ inner

    on_edge, on_face = count + edge_of, count + len(edges) + number
    finer = np.stack([np.stack([quads[:, i], on_edge[:, i], on_face, on_edge[:, i - 1]], 1) for i in range(4)], 1)
    return (vstack([vertex_points, edge_points, face_points]).tocsr(),
            vstack([identity(count), middles, face_points]).tocsr(), finer.reshape(-1, 4))


def smooth_texels(quads: np.ndarray, uv: np.ndarray, corners: np.ndarray, weights: np.ndarray,
                  mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and weights (S, S, CORNERS) of every texel on the smooth surface.

    quads (Q, 4), uv (V, 2) in the unit square, v down; corners and weights (S, S, k): the texels on the plain mesh,
    whose rule holds outside the mask (S, S) too, there applied to the smoothed vertices.
    """
    size, count = len(mask), len(uv)
    smooth = linear = identity(count, format="csr")
    finer = quads
    for _ in range(LEVELS):
        step_smooth, step_linear, finer = catmull_clark(finer, smooth.shape[0])
        smooth, linear = step_smooth @ smooth, step_linear @ linear
    placed = np.column_stack([(linear @ uv) * size - 0.5, np.zeros(linear.shape[0])])
    triangles = triangulate(finer)
    fragments = draw(placed.astype(np.float32), triangles, size, size)
    covered = fragments.covered & mask
    texels = np.repeat(np.flatnonzero(covered.ravel()), 3)
    inside = coo_matrix((fragments.barycentric[covered].ravel(),
                         (texels, triangles[fragments.triangle[covered]].ravel())),
                        (size * size, smooth.shape[0])).tocsr() @ smooth
    plain = coo_matrix((weights.ravel(), (np.repeat(np.arange(size * size), corners.shape[-1]), corners.ravel())),
                       (size * size, count)).tocsr()
    rows = (inside + diags((~covered.ravel()).astype(float)) @ plain @ smooth[:count]).tocsr()
    found = np.zeros((size * size, CORNERS), np.int64)
    shares = np.zeros((size * size, CORNERS), np.float32)
    for texel in range(size * size):
        row = slice(rows.indptr[texel], rows.indptr[texel + 1])
        index, value = rows.indices[row], rows.data[row]
        best = np.argsort(-np.abs(value))[:CORNERS]
        found[texel, :len(best)] = index[best]
        shares[texel, :len(best)] = value[best] / value[best].sum()
    return found.reshape(size, size, CORNERS), shares.reshape(size, size, CORNERS)
