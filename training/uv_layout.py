"""Designs the UV layout of the position map on hm08's head: which skin it covers and where every vertex lies.

Run once by `training.face_kit`; its result is the product's fixed topology (position_map.TOPOLOGY_VERSION).

hm08's own layout gives eyes and mouth a few texels and closes their slits, which tears lips and lids when a map is
resampled. So the skin is flattened anew. Start: Tutte's embedding (How to Draw a Graph, 1963: convex outline, every
vertex at the mean of its neighbours), which cannot fold. Then the symmetric Dirichlet energy (Smith and Schaefer,
Bijective Parameterization with Free Boundaries, 2015) is lowered against the surface of a face with open eyes and
mouth, scaled by a wanted texel density; its barrier keeps every triangle from folding, and a barrier at the square's
sides makes the face fill the square. Both are symmetric in left and right, and the result is made exactly so.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import factorized, spsolve

from training.hm08 import Hm08

MARGIN = 0.012                  # of the square's side, kept free around the face


def boundary_loops(quads: np.ndarray) -> list[np.ndarray]:
    """The closed boundary loops of a quad mesh as ordered vertex indices, longest first, directed as the quads are."""
    edges = np.concatenate([np.stack([quads[:, i], quads[:, (i + 1) % 4]], 1) for i in range(4)])
    directed = {tuple(e) for e in edges.tolist()}
    following = {a: b for a, b in directed if (b, a) not in directed}
    loops = []
    while following:
        start, current = next(iter(following.items()))
        loop = [start]
        del following[start]
        while current != start:
            loop.append(current)
            current = following.pop(current)
        loops.append(np.array(loop))
    return sorted(loops, key=len, reverse=True)


def face_quads(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Which quads of the head (Q, 4) belong to the face: everything a camera in front of the ears can see.

    vertices: hm08's, decimetres. Returns a boolean (Q,). The back of the head and the top of the scalp are left out.
    """
    centre = vertices[quads].mean(1)
    x, y, z = centre.T
    height = y - 7.30                                   # above the eyes' line
    # The rear limit runs behind the ears, comes forward over the scalp and under the jaw.
    rear = 0.02 + 0.75 * np.clip(height - 0.42, 0, None) ** 1.3 + 0.35 * np.clip(-height - 0.45, 0, None)
    keep = (z > rear) & (height < 1.0)
    # Ears are kept whole.
    keep |= (np.abs(x) > 0.78) & (np.abs(height + 0.02) < 0.42) & (z > -0.05)
    return _without_spurs(quads, keep)


def _without_spurs(quads: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Trim quads that hang on fewer than two neighbours, so that the outline has no teeth, and fill notches."""
    edge_of: dict[tuple[int, int], list[int]] = {}
    for index, quad in enumerate(quads.tolist()):
        for i in range(4):
            edge_of.setdefault(tuple(sorted((quad[i], quad[(i + 1) % 4]))), []).append(index)
    neighbours = [[] for _ in quads]
    for pair in edge_of.values():
        if len(pair) == 2:
            neighbours[pair[0]].append(pair[1])
            neighbours[pair[1]].append(pair[0])
    keep = keep.copy()
    for _ in range(8):
        count = np.array([sum(keep[n] for n in ns) for ns in neighbours])
        degree = np.array([len(ns) for ns in neighbours])
        keep = (keep & ~((count < 2) & (degree > 1))) | (~keep & (count >= 3))
    return keep


def triangles_of(quads: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """(2Q, 3) triangles; each quad is split along the diagonal that keeps left and right mirrored."""
    inward = np.abs(vertices[quads[:, 0], 0]) + np.abs(vertices[quads[:, 2], 0]) \
        <= np.abs(vertices[quads[:, 1], 0]) + np.abs(vertices[quads[:, 3], 0])
    a = np.concatenate([quads[inward][:, [0, 1, 2]], quads[inward][:, [0, 2, 3]]])
    b = np.concatenate([quads[~inward][:, [0, 1, 3]], quads[~inward][:, [1, 2, 3]]])
    return np.concatenate([a, b])


def tutte(vertices: np.ndarray, triangles: np.ndarray, outline: np.ndarray, on_outline: np.ndarray) -> np.ndarray:
    """(V, 2) Tutte's embedding with the vertices `outline` at the positions `on_outline`.

    Weights: Floater's mean value coordinates (2003), positive for every mesh, so that nothing folds.
    """
    count = len(vertices)
    rows, columns, values = [], [], []
    for i in range(3):
        here, one, other = triangles[:, i], triangles[:, (i + 1) % 3], triangles[:, (i + 2) % 3]
        to_one, to_other = vertices[one] - vertices[here], vertices[other] - vertices[here]
        length_one, length_other = np.linalg.norm(to_one, axis=1), np.linalg.norm(to_other, axis=1)
        cosine = (to_one * to_other).sum(1) / (length_one * length_other)
        tangent = np.sqrt((1 - cosine) / (1 + cosine))
        rows += [here, here]
        columns += [one, other]
        values += [tangent / length_one, tangent / length_other]
    weights = coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, count))
    laplacian = diags(np.asarray(weights.sum(1)).ravel()) - weights
    inner = np.setdiff1d(np.arange(count), outline)
    result = np.zeros((count, 2))
    result[outline] = on_outline
    right = -laplacian.tocsr()[inner][:, outline] @ on_outline
    result[inner] = spsolve(laplacian.tocsr()[inner][:, inner].tocsc(), right)
    return result


def flatten(vertices: np.ndarray, triangles: np.ndarray, density: np.ndarray, outline: np.ndarray,
            mirror: np.ndarray, steps: int = 4000) -> np.ndarray:
    """Lay a mirror-symmetric mesh out in the unit square; (V, 2) with v down and u to the viewer's right.

    vertices (V, 3): x to the viewer's right, y up, z to the viewer, any unit. triangles (T, 3), counter-clockwise seen
    from outside. density (T,): wanted length in the map per length on the surface, relative. outline (n,): the outer
    boundary loop. mirror (V,): each vertex' partner.
    """
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    ab, ac = b - a, c - a
    length = np.linalg.norm(ab, axis=1)
    along = (ab * ac).sum(1) / length
    across = np.linalg.norm(np.cross(ab, ac), axis=1) / length
    area = 0.5 * length * across
    # A triangle's rest shape is its surface shape times the density; the total is made larger than the square,
    # so that the face presses against the sides and fills it.
    scale = density * np.sqrt(1.05 / (area * density ** 2).sum())
    rest = torch.tensor(np.stack([np.stack([length * scale, along * scale], 1),
                                  np.stack([np.zeros_like(across), across * scale], 1)], 1))       # (T, 2, 2)
    inverse_rest = torch.linalg.inv(rest)
    importance = torch.tensor(area * scale ** 2)
    # Tutte start on a circle; left and right points mirrored.
    points = vertices[outline]
    steps_along = np.linalg.norm(np.roll(points, -1, 0) - points, axis=1)
    angle = 2 * np.pi * np.concatenate([[0], np.cumsum(steps_along)[:-1]]) / steps_along.sum()
    top = int(np.argmax(np.where(np.abs(points[:, 0]) < 1e-6, points[:, 1], -np.inf)))
    angle = np.pi / 2 + (angle - angle[top])
    circle = 0.5 + 0.46 * np.stack([np.cos(angle), np.sin(angle)], 1)
    start = tutte(vertices, triangles, outline, circle)
    start = 0.5 * (start + np.stack([1 - start[mirror, 0], start[mirror, 1]], 1))
    corners = torch.tensor(triangles)
    uv = torch.tensor(start, requires_grad=True)

    def energy(uv: torch.Tensor) -> torch.Tensor:
        p, q, r = (uv[corners[:, i]] for i in range(3))
        jacobian = torch.stack([q - p, r - p], 2) @ inverse_rest
        determinant = torch.linalg.det(jacobian)
        squares = (jacobian ** 2).sum((1, 2))
        dirichlet = (importance * squares * (1 + determinant ** -2)).sum()
        room = torch.cat([uv - MARGIN, 1 - MARGIN - uv])
        barrier = -2e-4 * torch.log(room.clamp_min(1e-9)).sum() / 10
        valid = (determinant > 0).all() & (room > 0).all()
        return torch.where(valid, dirichlet + barrier, torch.tensor(torch.inf, dtype=uv.dtype))

    # Descent along the gradient smoothed by the mesh's Laplacian (Kovalsky, Galun and Lipman, Accelerated Quadratic
    # Proxy, 2016), its edges weighted by how far each triangle still is from its rest shape, with a line search
    # that never steps over the barrier.
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    count, stride, solve = len(vertices), 1.0, None
    value = energy(uv)
    for step in range(steps):
        gradient, = torch.autograd.grad(value, uv)
        if step % 10 == 0:
            with torch.no_grad():
                p, q, r = (uv[corners[:, i]] for i in range(3))
                jacobian = torch.stack([q - p, r - p], 2) @ inverse_rest
                small = torch.linalg.svdvals(jacobian)[:, 1]
                stiffness = (importance * (1 + small ** -4) * torch.linalg.det(inverse_rest).abs()).numpy()
            weights = coo_matrix((np.tile(stiffness, 3), (edges[:, 0], edges[:, 1])), shape=(count, count))
            weights = weights + weights.T
            degree = np.asarray(weights.sum(1)).ravel()
            solve = factorized((diags(degree * (1 + 1e-6) + 1e-9) - weights).tocsc())
        direction = -torch.tensor(np.stack([solve(gradient.numpy()[:, i].copy()) for i in range(2)], 1))
        slope = (gradient * direction).sum()
        stride = min(stride * 4, 8.0)
        while True:
            trial = (uv + stride * direction).detach().requires_grad_()
            trial_value = energy(trial)
            if trial_value <= value + 1e-4 * stride * slope or stride < 1e-9:
                break
            stride *= 0.5
        if stride < 1e-9:
            break
        uv, value = trial, trial_value
    result = uv.detach().numpy()
    return np.stack([result[:, 0], 1 - result[:, 1]], 1)


def squared(uv: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Widen each row towards the square's sides, and the middle columns against the outer: more texels for the face."""
    segments = np.stack([uv[outline], uv[np.roll(outline, -1)]], 1)
    rows = np.linspace(0, 1, 201)
    half = np.full(len(rows), 0.05)
    for index, row in enumerate(rows):
        crossing = segments[(segments[:, 0, 1] - row) * (segments[:, 1, 1] - row) < 0]
        if len(crossing):
            along = (row - crossing[:, 0, 1]) / (crossing[:, 1, 1] - crossing[:, 0, 1])
            half[index] = np.abs(crossing[:, 0, 0] + along * (crossing[:, 1, 0] - crossing[:, 0, 0]) - 0.5).max()
    reach = 0.5 - MARGIN
    widening = gaussian_filter1d(np.minimum((reach / half) ** 0.6, 1.6), 8)
    across = (uv[:, 0] - 0.5) * np.interp(uv[:, 1], rows, widening)
    across *= min(1.0, reach / np.abs(across).max())
    across *= 1 + 0.09 * (1 - (across / reach) ** 2)
    return np.stack([0.5 + across, uv[:, 1]], 1)


def density_on_face(centres: np.ndarray) -> np.ndarray:
    """Wanted relative texel density at points (T, 3) of hm08's surface: most on lids and lips, least on the ears."""
    points = centres * [1, 1, 1]
    points[:, 0] = np.abs(points[:, 0])

    def bump(centre: tuple, radius: tuple) -> np.ndarray:
        return np.exp(-(((points - centre) / radius) ** 2).sum(1))

    features = np.maximum.reduce([1.3 * bump((0.32, 7.30, 1.3), (0.24, 0.17, 0.5)),
                                  1.35 * bump((0, 6.62, 1.4), (0.40, 0.22, 0.6)),
                                  bump((0, 6.95, 1.5), (0.28, 0.35, 0.6)),
                                  0.8 * bump((0.3, 7.5, 1.4), (0.4, 0.2, 0.5))])
    front = 1 / (1 + np.exp(-(points[:, 2] - 0.75) / 0.15))
    density = 0.24 + 0.4 * front + 1.6 * features
    density[(points[:, 0] > 0.70) & (np.abs(points[:, 1] - 7.28) < 0.45) & (points[:, 2] < 0.62)] = 0.3
    density *= np.where(points[:, 1] > 7.8, np.clip(1 - (points[:, 1] - 7.8) * 1.2, 0.45, 1), 1)
    return density * np.where(points[:, 1] < 6.3, 0.75, 1)


# How far eyes and mouth stand open in the shape that is flattened, so that their slits become holes in the map.
OPEN = {"jawOpen": 0.45, "eyeWideLeft": 0.8, "eyeWideRight": 0.8, "mouthLowerDownLeft": 0.5,
        "mouthLowerDownRight": 0.5, "mouthUpperUpLeft": 0.5, "mouthUpperUpRight": 0.5}


@dataclass(frozen=True)
class Layout:
    """The flattened face: which hm08 vertices it has and where they lie in the unit square (v down)."""

    vertices: np.ndarray        # (V,) indices into hm08's vertices
    quads: np.ndarray           # (Q, 4) into `vertices`
    triangles: np.ndarray       # (T, 3) into `vertices`
    uv: np.ndarray              # (V, 2)
    outline: np.ndarray         # ordered indices of the outer boundary
    holes: list[np.ndarray]     # mouth, then the two eyes
    mirror: np.ndarray          # (V,) partner on the other side


def design_layout(hm08: Hm08) -> Layout:
    """Lay hm08's face out. Raises ValueError if a triangle folds."""
    quads = hm08.quads[hm08.head_quads]
    quads = quads[face_quads(hm08.vertices, quads)]
    used = np.unique(quads)
    local = np.full(len(hm08.vertices), -1)
    local[used] = np.arange(len(used))
    quads = local[quads]
    opened = hm08.vertices.copy()
    for name, weight in OPEN.items():
        moved, displacement = hm08.arkit(name)
        opened[moved] += weight * displacement
    outline, *holes = boundary_loops(quads)
    closed = hm08.vertices[used]
    triangles = triangles_of(quads, closed)
    # Each hole is closed by a fan round its centre for the flattening, so that it keeps its shape and cannot invert.
    with_centres = np.concatenate([opened[used]] + [opened[used][hole].mean(0)[None] for hole in holes])
    fans = [[b, a, len(used) + k] for k, hole in enumerate(holes) for a, b in zip(hole, np.roll(hole, -1))]
    everything = np.concatenate([triangles, np.array(fans)])
    partners = [int(np.argmin(np.abs(with_centres[len(used):, 0] + x))) for x in with_centres[len(used):, 0]]
    mirror = np.concatenate([local[hm08.mirror[used]], len(used) + np.array(partners)])
    at = np.concatenate([closed] + [closed[hole].mean(0)[None] for hole in holes])
    uv = flatten(with_centres, everything, density_on_face(at[everything].mean(1)), outline, mirror)
    uv = 0.5 * (uv + uv[mirror] * [-1, 1] + [1, 0])
    uv = squared(uv, outline)
    uv = 0.5 * (uv + uv[mirror] * [-1, 1] + [1, 0])
    p, q, r = (uv[everything[:, i]] for i in range(3))
    if (np.cross(q - p, r - p) >= 0).any():
        raise ValueError("triangles fold in the UV layout")
    return Layout(used, quads, triangles, uv[:len(used)], outline, holes, mirror[:len(used)])
