"""The shape-space fit: clean surface, head pose, identity and ARKit weights of a position map, in one small solve.

Starts from the weighted similarity (Umeyama, 1991) that carries the mean head onto the map, then solves ridge
least-squares a few times (Gauss-Newton) for the head's motion and the coefficients of hm08's shape space together:
identity components with a unit Gaussian prior, ARKit shapes with the network's own expression as the prior, kept within
0 and 1. What the space cannot say (perspective, the person) comes back as a low-passed residual; the surface has it as it is
at the rims of eyes and mouth. Knows numpy, OpenCV's filters and the topology; no images, no tensors, no Blender.

Frames: the map's own (any similarity of the head frame, e.g. crop or image frame) and the head frame (metres).
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from .openings import opening_texels
from .position_map import SIZE, Topology, load_topology, sample

GRID = 64                       # the fit looks at a 64x64 reading of the map; skin has no detail below that
ITERATIONS = 3
MOTIONS = 7                     # turn about x, y, z; shift along x, y, z; growth
# How far a map's point is off on average (metres, at mean size), and how many independent readings a map is worth:
# neighbouring texels err together, so that thousands of them count as these few.
NOISE, READINGS = 0.0015, 120.0
EXPRESSION_SPREAD = 0.15        # how far the network's ARKit weights are off
RESIDUAL_BLUR = 2.0             # texels of the 64x64 grid
# Texels of the grid round eyes and mouth, a standard deviation, over which the residual is kept as it is. Blurred, it opened shut
# eyes by half and open ones by a seventh more than the map does (350 photographs kept out of training).
RIM = 2.0
NECK_SHARE = 0.3                # weight of the neck, which the loss leaves free but the pose may lean on


@dataclass(frozen=True)
class FaceFit:
    """One fitted face: map point = scale * rotation @ head point + translation."""

    position_map: np.ndarray        # (256, 256, 3) float32, the clean surface in the frame of the given map
    head_map: np.ndarray            # (256, 256, 3) float32, the same in the head frame, metres
    rotation: np.ndarray            # (3, 3)
    scale: float                    # units of the map per metre
    translation: np.ndarray         # (3,)
    identity: np.ndarray            # (120,) standard deviations
    expression: np.ndarray          # (52,) ARKit weights, 0..1
    residual: np.ndarray            # (64, 64, 3) float32 head frame, metres: what the shape space cannot say, low-passed everywhere


def similarity(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (3, 3), translation (3,) that carry source (N, 3) onto target in the weighted least squares sense.

    Leading axes broadcast, and are problems of their own: scale (...,), rotation (..., 3, 3), translation (..., 3).
    Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (PAMI 1991).
    """
    # Axis by axis, (..., 3, N): numpy is slow along short last axes. Points that lie so in memory are not copied.
    source, target = (np.ascontiguousarray(points.swapaxes(-1, -2)) for points in (source, target))
    share = (weights / weights.sum(-1, keepdims=True))[..., None]
    source_centre, target_centre = source @ share, target @ share  # (..., 3, 1)
    a, b = source - source_centre, target - target_centre
    weighted = a * share[..., 0][..., None, :]
    u, s, vt = np.linalg.svd(b @ weighted.swapaxes(-1, -2))
    sign = np.ones(s.shape)
    sign[..., 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = (u * sign[..., None, :]) @ vt
    scale = (s * sign).sum(-1) / (weighted * a).sum((-1, -2))
    return scale, rotation, target_centre[..., 0] - scale[..., None] * (rotation @ source_centre)[..., 0]


def pose_of(position_map: np.ndarray, topology: Topology) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (3, 3), translation (3,) that carry an average head (head frame, metres) onto a map (256, 256, 3) of any topology, in any frame."""
    points = topology.reference_points
    return similarity(points, sample(position_map, topology.reference_texels).astype(np.float64), np.ones(len(points)))


class ShapeSpace:
    """hm08's identity and ARKit shapes as maps of the topology; `load_shape_space()` gives the shipped one."""

    def __init__(self, folder: Path, topology: Topology) -> None:
        data = np.load(folder / "hm08_face.npz")
        self.mean = topology.mean
        identity, expression = data["identity"], data["expression"]
        self.identities = len(identity)
        basis = np.concatenate([identity, expression]).astype(np.float32)
        by_vertex = np.ascontiguousarray(basis.transpose(1, 0, 2)).reshape(basis.shape[1], -1)
        # A grid cell is read at its centre: the mean of the four texels round it.
        step, maps = SIZE // GRID, 0
        for row in (step // 2 - 1, step // 2):
            for column in (step // 2 - 1, step // 2):
                vertices = data["texel_vertices"][row::step, column::step]
                weights = data["texel_weights"][row::step, column::step]
                for corner in range(vertices.shape[-1]):
                    maps = maps + by_vertex[vertices[..., corner]] * (weights[..., corner, None] / 4)
        self.basis = np.ascontiguousarray(
            maps.reshape(GRID * GRID, len(basis), 3).transpose(1, 0, 2)).reshape(len(basis), -1)   # (172, 4096 * 3)
        centres = slice(step // 2 - 1, step // 2 + 1)
        mask = topology.mask.reshape(GRID, step, GRID, step)[:, centres, :, centres].all((1, 3)).ravel()
        weights = topology.weights.reshape(GRID, step, GRID, step).mean((1, 3)).ravel()
        neck = topology.regions["neck"].reshape(GRID, step, GRID, step).any((1, 3)).ravel()
        weights = np.where(neck, NECK_SHARE * 3, np.minimum(weights, 4))
        # Ears and scalp move little with the face and are mostly guessed under hair.
        weights[topology.regions["forehead"][step // 2::step, step // 2::step].ravel()] *= 0.4
        self.cells = np.flatnonzero(mask)
        # Which cell lies where on the grid; the number after all cells stands for none.
        self.place = np.full((GRID, GRID), len(self.cells))
        self.place.ravel()[self.cells] = np.arange(len(self.cells))
        self.cell_weights = weights[self.cells]
        # The solve looks at every cell of eyes, nose and mouth, and at every other one of the smooth rest.
        row, column = np.divmod(self.cells, GRID)
        chosen = (weights[self.cells] > 3) | ((row % 2 == 0) & (column % 2 == 0))
        share = np.where(weights[self.cells] > 3, 1, 4)[chosen] * weights[self.cells][chosen]
        self.solved = self.cells[chosen]
        self.weights = (share / share.mean()).astype(np.float32)
        self.small_mean = reading(self.mean).reshape(-1, 3)
        columns = (self.solved[:, None] * 3 + np.arange(3)).ravel()
        self.seen = np.concatenate([small_motions(self.small_mean[self.solved]), self.basis[:, columns]])
        data_weight = np.repeat(self.weights, 3) * READINGS / (len(columns) * NOISE ** 2)
        weighted = self.seen * data_weight
        # What weighs offsets, axis by axis (179, 3, P); and what it makes of one shift of all points and of the mean head.
        self.weighted = np.ascontiguousarray(weighted.reshape(len(weighted), -1, 3).swapaxes(1, 2))
        self._of_shift = self.weighted.sum(2)
        self._of_mean = weighted @ self.small_mean[self.solved].ravel()
        self.normal = normal = weighted @ self.seen.T
        # No prior for the motions beyond what keeps the matrix regular.
        self.prior = np.concatenate([np.full(MOTIONS, 1e-3), np.ones(self.identities),
                                     np.full(len(expression), EXPRESSION_SPREAD ** -2)]).astype(np.float32)
        self._inverse = np.linalg.inv(normal + np.diag(self.prior)).astype(np.float32)
        # With the expression held at its bounds only motion and identity are solved again.
        n = self.bounded = MOTIONS + self.identities
        self._free_inverse = np.linalg.inv(normal[:n, :n] + np.diag(self.prior[:n])).astype(np.float32)
        self._cross = normal[:n, n:].astype(np.float32)
        inside = mask.reshape(GRID, GRID).astype(np.float32)
        self._grid_gain = np.repeat(1 / np.maximum(cv2.GaussianBlur(inside, (0, 0), RESIDUAL_BLUR), 1e-3)[..., None], 3, 2)
        away = cv2.distanceTransform((~opening_texels(topology)).astype(np.uint8), cv2.DIST_L2, 5) / step
        away = np.maximum(cv2.resize(away, (GRID, GRID), interpolation=cv2.INTER_AREA) - 0.5, 0)
        self._rim = np.exp(-np.square(away / RIM) / 2)[..., None]
        # Of every cell the nearest that the mask has: lids and lips go on as they end.
        _, labels = cv2.distanceTransformWithLabels((inside == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        nearest = np.zeros(labels.max() + 1, int)
        nearest[labels.ravel()[self.cells]] = self.cells
        self._nearest = nearest[labels.ravel()]

    def _solve(self, right: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Small motions (N, 7) and coefficients (N, 172) in one, that explain N offsets from the mean best.

        right (N, 179): `weighted` times those offsets. expression (N, 52): the prior of the ARKit weights.
        """
        n = self.bounded
        pulled = right.copy()
        pulled[:, n:] += self.prior[n:] * expression
        solution = pulled @ self._inverse.T
        solution[:, n:] = np.clip(solution[:, n:], 0, 1)
        solution[:, :n] = (right[:, :n] - solution[:, n:] @ self._cross.T) @ self._free_inverse.T
        return solution

    def offsets(self, coefficients: np.ndarray) -> np.ndarray:
        """(4096, 3) offsets from the mean of every grid cell, metres."""
        return (coefficients.astype(np.float32) @ self.basis).reshape(-1, 3)

    def low_pass(self, residual: np.ndarray) -> np.ndarray:
        """(64, 64, 3) residuals (cells, 3) blurred within the mask, and carried smoothly beyond it."""
        return cv2.GaussianBlur(self._laid_out(residual).reshape(GRID, GRID, 3), (0, 0), RESIDUAL_BLUR) * self._grid_gain

    def sharp_at_rims(self, blurred: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """(64, 64, 3) residuals that `low_pass` has blurred, as they are (cells, 3) at the rims of eyes and mouth: what is shut is shut."""
        return blurred + self._rim * (self._laid_out(residual)[self._nearest].reshape(GRID, GRID, 3) - blurred)

    def _laid_out(self, residual: np.ndarray) -> np.ndarray:
        """(4096, 3) residuals (cells, 3) in their places, 0 beside the mask."""
        grid = np.zeros((GRID * GRID, 3), np.float32)
        grid[self.cells] = residual
        return grid

    def align(self, everything: np.ndarray,
              expression: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Scale (N,), rotation (N, 3, 3), translation (N, 3) of the head in N maps' readings (N, 4096, 3), the last
        solution (N, 179), and the right side (N, 179) of the normal equations, `weighted` times the offsets from the mean in that head's frame:
        many are solved at little more than the cost of one.

        expression (N, 52): the prior of the ARKit weights.
        """
        target, mean, expression = everything[:, self.solved], self.small_mean[self.solved], expression.astype(np.float32)
        scale, rotation, translation = similarity(mean, target, self.weights)
        # Carrying the points into the head frame and weighing them is linear in both: weighed once, (N, 179, 3 axes of the head
        # frame, 3 of the map's), they need not be touched again.
        count, centre = len(target), translation.astype(np.float32)
        flat = (target - centre[:, None]).transpose(1, 0, 2).reshape(len(self.solved), -1)
        weighed = (self.weighted.reshape(-1, len(flat)) @ flat).reshape(-1, 3, count, 3).transpose(2, 0, 1, 3)

        def right() -> np.ndarray:
            turned = (rotation / scale[:, None, None]).astype(np.float32)
            moved = ((centre - translation).astype(np.float32)[:, None] @ turned)[:, 0]
            of_points = (weighed.reshape(count, -1, 9) @ turned.swapaxes(1, 2).reshape(count, 9, 1))[..., 0]
            return of_points + moved @ self._of_shift.T - self._of_mean

        for _ in range(ITERATIONS):
            solution = self._solve(right(), expression)
            turn, shift, growth = solution[:, :3].astype(np.float64), solution[:, 3:6], solution[:, 6].astype(np.float64)
            translation = translation + scale[:, None] * (rotation @ shift[..., None])[..., 0]
            rotation = rotation @ np.stack([cv2.Rodrigues(one)[0] for one in turn])
            scale = scale * (1 + growth)
        return scale, rotation, translation, solution, right()

    def fit(self, position_map: np.ndarray, expression: np.ndarray) -> FaceFit:
        """Fit one map (256, 256, 3) in any frame similar to the head frame, with the network's ARKit weights (52,)."""
        everything = reading(position_map).reshape(1, -1, 3)
        scale, rotation, translation, solution, _ = (found[0] for found in self.align(everything, expression[None]))
        coefficients = solution[MOTIONS:]
        small = self.offsets(coefficients).reshape(GRID, GRID, 3)
        seen = in_head(everything[0, self.cells], scale, rotation, translation)
        beyond = seen - self.small_mean[self.cells] - small.reshape(-1, 3)[self.cells]
        residual = self.low_pass(beyond)
        head_map = self.mean + cv2.resize(small + self.sharp_at_rims(residual, beyond), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        fitted = cv2.transform(head_map, np.column_stack([scale * rotation, translation]))
        n = self.identities
        return FaceFit(fitted, head_map, rotation, scale, translation, coefficients[:n], coefficients[n:], residual)


def in_head(points: np.ndarray, scale: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """Points (..., P, 3) of maps in the head frame of their poses (...,), (..., 3, 3), (..., 3); float32."""
    turned = (rotation / scale[..., None, None]).astype(np.float32)
    return (points - translation[..., None, :].astype(np.float32)) @ turned


def small_motions(points: np.ndarray) -> np.ndarray:
    """(7, N * 3) how points (N, 3) move when their frame turns about x, y, z, shifts along x, y, z, or grows."""
    axes = np.eye(3)
    turns = [np.cross(axis, points) for axis in axes]
    shifts = [np.tile(axis, (len(points), 1)) for axis in axes]
    return np.stack([*turns, *shifts, points]).reshape(MOTIONS, -1).astype(np.float32)


def reading(position_map: np.ndarray) -> np.ndarray:
    """(64, 64, 3) a map at the centres of the fit's cells: the mean of the four texels round each; a small one as it is."""
    return cv2.resize(position_map, (GRID, GRID), interpolation=cv2.INTER_LINEAR)


@lru_cache(maxsize=1)
def load_shape_space() -> ShapeSpace:
    """The shape space that ships with the module."""
    return ShapeSpace(Path(__file__).parent, load_topology())


def fit(position_map: np.ndarray, expression: np.ndarray) -> FaceFit:
    """`ShapeSpace.fit` in the shipped space."""
    return load_shape_space().fit(position_map, expression)
