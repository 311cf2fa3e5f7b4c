"""How skin has moved since a face was at rest, by optical flow: what a network misses of lips, brows and cheeks.

A network sees each frame by itself, in a small crop, and reads weak shapes weakly. But the position map says where every point
of the face is in every frame, so that all frames can be laid out alike, as in a texture; what still moves there is skin that
the map did not follow, to a fraction of a pixel. Flow: Kroeger et al., "Fast optical flow using dense inverse search"
(ECCV 2016). numpy and OpenCV only; knows the shape space, no videos and no Blender.

Frames as in face_fit.py. A layout's unit is a cell of the fit's 64x64 grid.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from .crop import Crop
from .face_fit import GRID, ShapeSpace, small_motions

PICTURE = 128               # side of a frame laid out as the map: lips and lids have a millimetre there
_FINEST = 320               # pixels of a crop's side, up to which a frame is read as it is; larger ones shrink before
_MARGIN = 0.15              # of a crop's side: as far beyond it a map may reach
_FARTHEST = 1.5             # cells: the longest flow that is believed
# How far grey levels are off that do not come from motion: shading, wrinkles, the neighbours' like errors (a standard deviation).
_GREY = 8.0
_UNLIKE = 6.0               # grey levels: where the flow leaves this difference, it is half believed
_ASIDE = 0.2, 0.5           # the cosine between skin and view up to which nothing is believed, and from which all is
_SOLVED = 1200              # cells that are solved with
_LOOSE = 100.0              # what a frame by itself is held by to what is expected of it: a tenth, as 1 / spread^2
_OUTLIER = 0.5              # cells: skin that moves this much otherwise than all shapes together is half believed


def picture(image: np.ndarray, crop: Crop, crop_map: np.ndarray) -> np.ndarray:
    """(128, 128) uint8 grey: a frame (H, W, 3) laid out as its map (256, 256, 3; crop units) is."""
    block = max(1, round(crop.side / _FINEST))
    part, (left, top) = crop.part_of(image, int(_MARGIN * crop.side), block)
    places = (cv2.resize(crop_map[..., :2], (PICTURE, PICTURE), interpolation=cv2.INTER_LINEAR) * np.float32(crop.side / block)
              + np.float32([(crop.center_x + 0.5 - left) / block - 0.5, (crop.center_y + 0.5 - top) / block - 0.5]))
    return cv2.cvtColor(cv2.remap(part, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), cv2.COLOR_RGB2GRAY)


class SkinMotion:
    """The skin's motion in a take's frames against the frames at rest.

    space: the shape space. pictures (N, 128, 128) uint8; offsets (N, 3, cells) the maps from the mean head, head frame, metres;
    scale (N,) and rotation (N, 3, 3) of their heads, to pixels. rest: numbers of a few frames at rest. identity (120,).
    """

    def __init__(self, space: ShapeSpace, pictures: np.ndarray, offsets: np.ndarray, scale: np.ndarray, rotation: np.ndarray,
                 rest: np.ndarray, identity: np.ndarray) -> None:
        self.pictures, self.offsets, self.cells = pictures, offsets, space.cells
        self.views = (scale[:, None, None] * rotation[:, :2]).astype(np.float32)        # (N, 2, 3) head to pixels
        self.mean = space.small_mean[space.cells].T.astype(np.float32)
        self.at_rest = np.stack([offsets[i] for i in rest]).astype(np.float32).mean(0)
        self.reference = np.clip(np.stack([pictures[i] for i in rest]).mean(0) + 0.5, 0, 255).astype(np.uint8)
        inside = np.zeros(GRID * GRID, np.uint8)
        inside[space.cells] = 1
        # A cell's slopes need its neighbours.
        self.inner = cv2.erode(inside.reshape(GRID, GRID), np.ones((3, 3), np.uint8)).ravel()[space.cells].astype(np.float32)
        self.facing = self.inner * np.mean([self._facing(*self._slopes(i)) for i in rest], 0)
        # What a cell's grey levels tell of motion along the layout's axes and across (the structure tensor).
        x, y = (2 / 8 * cv2.Sobel(self.reference, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))
        self.tensor = np.stack([_small(cv2.GaussianBlur(product, (0, 0), 1.0)).ravel()[space.cells] for product in (x * x, x * y, y * y)])
        # A plain cheek tells next to nothing: of what all cells tell, these tell nine tenths.
        told = self.tensor[0] + self.tensor[2]
        self.solved = np.sort(np.argsort(-told * self.inner)[:_SOLVED])
        self.precision = (self.tensor[:, self.solved] / _GREY ** 2).astype(np.float32)
        places = space.cells[self.solved]
        person = (space.small_mean + space.offsets(np.r_[identity, np.zeros(len(space.basis) - len(identity))]))[places]
        shapes = space.basis[space.identities:].reshape(-1, GRID * GRID, 3)[:, places]
        self.shapes = len(shapes)
        self.basis = np.concatenate([shapes, small_motions(person).reshape(-1, _SOLVED, 3)]).swapaxes(1, 2).copy()   # (59, 3, P)

    def follow(self, frames: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, cells) float32 where skin is in some frames, as offsets from the mean head, and (B, cells) how far that is believed.

        A picture tells nothing about depth: along the view the offsets are the maps' own.
        """
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        flow.setFinestScale(0)
        flow.setVariationalRefinementIterations(0)      # takes as long as the search, and smooths what is read smoothed anyway
        row, column = np.mgrid[:PICTURE, :PICTURE].astype(np.float32)
        found, trusts = [], []
        for frame in frames:
            shown = np.array(self.pictures[frame])
            moved = flow.calc(self.reference, shown, None)
            back = cv2.remap(shown, column + moved[..., 0], row + moved[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            unlike = _small(cv2.subtract(back, self.reference, dtype=cv2.CV_32F))
            unlike = np.abs(unlike - cv2.GaussianBlur(unlike, (0, 0), 2.0))     # light that changes is no motion
            unlike = cv2.GaussianBlur(unlike, (0, 0), 0.7).ravel()[self.cells]
            across, down = self._slopes(frame)
            trusts.append(self.facing * self._facing(across, down) / (1 + np.square(unlike / _UNLIKE)))
            step = _small(moved).reshape(-1, 2)[self.cells].T * np.float32(GRID / PICTURE)
            step = np.clip(step, -_FARTHEST, _FARTHEST)
            view = self.views[frame]                                            # its rows are of one length, at right angles
            found.append(self.offsets[frame] + (view.T / np.square(view[0]).sum()) @ (step[0] * across[:2] + step[1] * down[:2]))
        return np.stack(found), np.stack(trusts)

    def evidence(self, frame: int, offsets: np.ndarray, trust: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What one frame says of the ARKit weights' change since rest: normal matrix (52, 52) and right side (52,), float32.

        offsets (3, cells), trust (cells,): from `follow`. expected (52,): such changes as they are known without it. Robust as Cauchy's
        distribution is. The head's own small motion is free, and eliminated.
        """
        n, trust = self.shapes, trust[self.solved]
        to_layout = self._to_layout(frame)                                      # (2, 3, P)
        basis = np.empty((len(self.basis), 2, _SOLVED), np.float32)
        for axis in (0, 1):
            np.multiply(self.basis[:, 0], to_layout[axis, 0], out=basis[:, axis])
            basis[:, axis] += self.basis[:, 1] * to_layout[axis, 1]
            basis[:, axis] += self.basis[:, 2] * to_layout[axis, 2]
        seen = (to_layout * (offsets - self.at_rest)[:, self.solved]).sum(1)
        normal, right = self._normal(basis, seen, trust)
        # What this frame alone would say, by which outliers are told.
        start = np.r_[expected, np.zeros(len(basis) - n)]
        solution = start + np.linalg.solve(normal + np.diag(np.r_[np.full(n, _LOOSE), np.ones(len(basis) - n)]), right - normal @ start)
        away = seen - (solution.astype(np.float32) @ basis.reshape(len(basis), -1)).reshape(2, -1)
        x, xy, y = self.tensor[:, self.solved]
        # Only across an edge in the picture is motion seen at all.
        square = (x * away[0] ** 2 + 2 * xy * away[0] * away[1] + y * away[1] ** 2) / (x + y + 1e-3)
        normal, right = self._normal(basis, seen, trust / (1 + square / _OUTLIER ** 2))
        carried = np.linalg.solve(normal[n:, n:] + np.eye(len(basis) - n), np.c_[normal[n:, :n], right[n:]])
        return normal[:n, :n] - normal[:n, n:] @ carried[:, :n], right[:n] - normal[:n, n:] @ carried[:, n]

    def _normal(self, basis: np.ndarray, seen: np.ndarray, trust: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normal matrix and right side of shapes and motions (59, 2, P) that are to explain what is seen (2, P)."""
        x, xy, y = self.precision * trust
        weighted = np.empty_like(basis)
        weighted[:, 0] = basis[:, 0] * x + basis[:, 1] * xy
        weighted[:, 1] = basis[:, 0] * xy + basis[:, 1] * y
        weighted = weighted.reshape(len(basis), -1)
        return weighted @ basis.reshape(len(basis), -1).T, weighted @ seen.ravel()

    def _slopes(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """(3, cells) twice: how far one step to the right and one down in the layout lead, pixels."""
        view = self.views[frame]
        whole = np.vstack([view, np.cross(view[0], view[1]) / np.linalg.norm(view[0])])
        grid = np.zeros((3, GRID * GRID), np.float32)
        grid[:, self.cells] = whole @ (self.mean + self.offsets[frame])
        grid = grid.reshape(3, GRID, GRID)
        across, down = np.zeros_like(grid), np.zeros_like(grid)
        across[:, :, 1:-1] = (grid[:, :, 2:] - grid[:, :, :-2]) / 2
        down[:, 1:-1] = (grid[:, 2:] - grid[:, :-2]) / 2
        return across.reshape(3, -1)[:, self.cells], down.reshape(3, -1)[:, self.cells]

    def _facing(self, across: np.ndarray, down: np.ndarray) -> np.ndarray:
        """(cells,) 0..1: whether skin faces the camera."""
        (a, b, c), (d, e, f) = across, down
        x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
        cosine = z / (np.sqrt(x * x + y * y + z * z) + 1e-9)
        cosine = cosine * np.sign(cosine[self.inner > 0].sum())                 # most of a face does
        return np.clip((cosine - _ASIDE[0]) / (_ASIDE[1] - _ASIDE[0]), 0, 1)

    def _to_layout(self, frame: int) -> np.ndarray:
        """(2, 3, P) from motion in the head frame to motion in the layout, at the cells that are solved for."""
        (a, c, _), (b, d, _) = (slopes[:, self.solved] for slopes in self._slopes(frame))
        determinant = a * d - b * c
        # Skin seen from the side is nowhere in the layout.
        determinant = np.where(np.abs(determinant) < 0.3, np.inf, determinant)
        view = self.views[frame][:, :, None]
        return np.stack([view[0] * d - view[1] * b, view[1] * a - view[0] * c]) / determinant


def _small(picture: np.ndarray) -> np.ndarray:
    """A picture's means over the cells (64, 64, ...)."""
    return cv2.resize(picture, (GRID, GRID), interpolation=cv2.INTER_AREA)
