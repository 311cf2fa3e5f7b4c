"""How skin has moved since a face was at rest, by optical flow: what a network misses of lips, brows and cheeks.

A network sees each frame by itself, in a small crop, and reads weak shapes weakly. But the position map says where every point
of the face is in every frame, so that all frames can be laid out alike, as in a texture; what still moves there is skin that
the map did not follow, to a fraction of a pixel. Flow: Kroeger et al., "Fast optical flow using dense inverse search"
(ECCV 2016). numpy and OpenCV only; knows the shape space, no videos and no Blender.

Frames as in face_fit.py. A layout's unit is a cell of the fit's 64x64 grid.
"""

from __future__ import annotations

import cv2
import numpy as np

from .crop import Crop
from .face_fit import GRID, ShapeSpace, small_motions

PICTURE = 128               # side of a frame laid out as the map: lips and lids have a millimetre there
# Rows and columns of it between which skin is followed: eyes, brows, nose, cheeks and mouth; beside them are hair, ears and neck.
WINDOW = slice(8, 120), slice(16, 112)
_FINEST = 320               # pixels of a crop's side, up to which a frame is read as it is; larger ones shrink before
_MARGIN = 0.15              # of a crop's side: as far beyond it a map may reach
_FARTHEST = 1.5             # cells: the longest flow that is believed
# How far grey levels are off that do not come from motion: shading, wrinkles, the neighbours' like errors (a standard deviation).
_GREY = 8.0
_UNLIKE = 6.0               # grey levels: where the flow leaves this difference, it is half believed
_EDGE_ON = 0.3              # square pixels that a cell has to cover, to be solved with
_ASIDE = 0.2, 0.5           # the cosine between skin and view up to which nothing is believed, and from which all is
_SOLVED = 256               # cells that are solved with
_BLUR, _DOUBT = 2.0, 0.1    # cells over which the surface follows the skin, and the belief that is shared with the map
_OUTLIER = 0.5              # cells: skin that moves this much otherwise than all shapes together is half believed
_ROW, _COLUMN = np.mgrid[:WINDOW[0].stop - WINDOW[0].start, :WINDOW[1].stop - WINDOW[1].start].astype(np.float32)
_CELLS = tuple(slice(part.start * GRID // PICTURE, part.stop * GRID // PICTURE) for part in WINDOW)


def picture(image: np.ndarray, crop: Crop, crop_map: np.ndarray) -> np.ndarray:
    """(128, 128) uint8 grey: a frame (H, W, 3) laid out as its map (256, 256, 3 or 64, 64, 3; crop units) is."""
    part, matrix = crop.part_of(image, int(_MARGIN * crop.side), max(1, round(crop.side / _FINEST)))
    places = cv2.resize(cv2.transform(crop_map, matrix), (PICTURE, PICTURE), interpolation=cv2.INTER_LINEAR)
    return cv2.remap(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def mean_picture(pictures: np.ndarray) -> np.ndarray:
    """(128, 128) uint8 the mean of pictures (N, 128, 128)."""
    return np.clip(pictures.mean(0) + 0.5, 0, 255).astype(np.uint8)


def flow(reference: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How skin has moved from one picture (128, 128) to another, in the window, by cells: (56, 48, 2) pixels right and down; and what is left between
    them when that is undone, (56, 48) grey levels, without light that changes slowly over the face."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(0)
    search.setPatchStride(8)                          # patches of 8 pixels side by side: a third of the time of the preset's 4, and as good here
    search.setVariationalRefinementIterations(0)      # takes as long as the search, and smooths what is read smoothed anyway
    reference, shown = (np.ascontiguousarray(picture[WINDOW]) for picture in (reference, shown))
    moved = search.calc(reference, shown, None)
    back = cv2.remap(shown, _COLUMN + moved[..., 0], _ROW + moved[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    unlike = _halved(cv2.subtract(back, reference, dtype=cv2.CV_32F))
    return _halved(moved), unlike - cv2.GaussianBlur(unlike, (0, 0), 2.0)


class SkinMotion:
    """The skin's motion in a take's frames against the frames at rest.

    space: the shape space. scale (N,) and rotation (N, 3, 3) of all frames' heads, to pixels. rest (R,): numbers of a few frames at rest;
    resting (R, 3, cells): their maps from the mean head, head frame, metres; reference (128, 128) uint8: the mean of their pictures. person
    (4096, 3): the face without expression on the fit's grid, head frame, metres.
    """

    def __init__(self, space: ShapeSpace, scale: np.ndarray, rotation: np.ndarray, rest: np.ndarray, resting: np.ndarray,
                 reference: np.ndarray, person: np.ndarray) -> None:
        self.cells = space.cells
        self.views = (scale[:, None, None] * rotation).astype(np.float32)       # (N, 3, 3) head to pixels
        self.mean = space.small_mean[space.cells].T.astype(np.float32)
        self.at_rest = resting.mean(0)
        rows, columns = _CELLS
        self.places = space.place[rows.start - 1:rows.stop + 1, columns.start - 1:columns.stop + 1]   # in the window and just round it
        inside = (space.place < len(space.cells)).astype(np.uint8)
        # A cell's slopes need its neighbours.
        self.inner = cv2.erode(inside, np.ones((3, 3), np.uint8))[_CELLS].astype(np.float32)
        self.facing = self.inner * self._facing(*self._slopes(rest, resting)).mean(0)
        # What a cell's grey levels tell of motion along the layout's axes and across (the structure tensor).
        x, y = (2 / 8 * cv2.Sobel(reference, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))
        tensor = np.stack([_halved(cv2.GaussianBlur(product, (0, 0), 1.0))[_CELLS] for product in (x * x, x * y, y * y)])
        # A plain cheek tells next to nothing, and neighbours tell the same: of each block of 2x2 cells one at most, or the rims of glasses would
        # take the places of lids.
        worth = np.where(self.inner > 0, tensor[0] + tensor[2], -1)
        blocks = worth.reshape(worth.shape[0] // 2, 2, worth.shape[1] // 2, 2)
        worth = np.where(blocks == blocks.max((1, 3), keepdims=True), blocks, -1).ravel()
        self.solved = np.sort(np.argsort(-worth)[:_SOLVED])                     # places of the window
        self.solved_cells = self.places[1:-1, 1:-1].ravel()[self.solved]
        x, xy, y = tensor.reshape(3, -1)[:, self.solved] / _GREY ** 2
        # Its Cholesky factor: motion that it is applied to is in standard deviations.
        along = np.sqrt(x + 1e-9)
        self.factor = np.stack([along, xy / along, np.sqrt(np.maximum(y - xy * xy / (x + 1e-9), 0))])
        self.told = x + y
        places = space.cells[self.solved_cells]
        shapes = space.basis[space.identities:].reshape(-1, GRID * GRID, 3)[:, places]
        self.shapes = len(shapes)
        self.basis = np.concatenate([shapes, small_motions(person[places]).reshape(-1, _SOLVED, 3)]).swapaxes(1, 2).copy()   # (59, 3, P)

    def read(self, frames: np.ndarray, own: np.ndarray, expected: np.ndarray, motion: np.ndarray,
             unlike: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where skin is in frames (B,), as offsets from the mean head (B, 3, cells), smoothly; and what it says of the ARKit weights' change
        since rest: normal matrices (B, 52, 52) and right sides (B, 52); all float32.

        own (B, 3, cells): the offsets of the frames' maps, float32, metres. expected (B, 52): that change, as the skin's reader tells it. motion
        (B, 56, 48, 2), unlike (B, 56, 48): the `flow` from the reference to each frame. A picture tells nothing about depth: along the view
        the offsets are the maps' own, and so they are where nothing is believed.
        """
        across, down = self._slopes(frames, own)
        moved, trust = self._follow(frames, across, down, motion, unlike)
        grid = np.zeros((len(frames), GRID, GRID, 4), np.float32)
        inside = grid[:, *_CELLS]
        inside[..., :3], inside[..., 3] = np.moveaxis(trust[:, None] * moved, 1, 3), trust
        surface = own.copy()
        for one, laid in zip(surface, grid):
            *way, belief = cv2.GaussianBlur(laid, (0, 0), _BLUR).reshape(-1, 4).take(self.cells, 0).T.copy()
            one += way / (belief + np.float32(_DOUBT))
        moved, trust = (values.reshape(*values.shape[:-2], -1)[..., self.solved] for values in (moved, trust))
        across, down = (slopes.reshape(*slopes.shape[:-2], -1)[..., self.solved] for slopes in (across, down))
        offsets = (own - self.at_rest)[..., self.solved_cells] + moved
        return surface, *self._evidence(frames, offsets, trust, expected, across, down)

    def _follow(self, frames: np.ndarray, across: np.ndarray, down: np.ndarray, motion: np.ndarray,
                unlike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, 56, 48) how skin lies otherwise than the maps say, head frame, and (B, 56, 48) how far that is believed."""
        unlike = np.stack([cv2.GaussianBlur(one, (0, 0), 0.7) for one in np.abs(unlike)])
        trust = self.facing * self._facing(across, down) / (1 + np.square(unlike / _UNLIKE))
        step = np.clip(np.moveaxis(motion, 3, 1) * np.float32(GRID / PICTURE), -_FARTHEST, _FARTHEST)
        view = self.views[frames, :2]                                       # its rows are of one length, at right angles
        seen = (step[:, :1] * across[:, :2] + step[:, 1:] * down[:, :2]).reshape(len(frames), 2, -1)
        return ((view.swapaxes(1, 2) / np.square(view[:, :1]).sum(2, keepdims=True)) @ seen).reshape(across.shape), trust

    def _evidence(self, frames: np.ndarray, offsets: np.ndarray, trust: np.ndarray, expected: np.ndarray, across: np.ndarray,
                  down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normal matrices and right sides, of the solved cells' offsets since rest (B, 3, P); robust as Cauchy's distribution is. The head's own
        small motion is free, and eliminated."""
        n, count, free = self.shapes, len(self.basis), np.eye(len(self.basis) - self.shapes, dtype=np.float32)
        (a, c), (b, d) = (slopes.swapaxes(0, 1)[:2] for slopes in (across, down))
        determinant = a * d - b * c
        # Skin seen from the side is nowhere in the layout.
        determinant = np.where(np.abs(determinant) < _EDGE_ON, np.inf, determinant)
        view = self.views[frames, :2, :, None].swapaxes(0, 1)
        a, b, c, d = (slope[:, None] for slope in (a, b, c, d))
        x, y = (view[0] * d - view[1] * b) / determinant[:, None], (view[1] * a - view[0] * c) / determinant[:, None]   # head frame to layout (B, 3, P)
        believed = np.sqrt(trust)[:, None]
        telling = np.stack([believed * (self.factor[0] * x + self.factor[1] * y), believed * self.factor[2] * y], 1)   # and to deviations (B, 2, 3, P)
        basis = np.einsum("nkp,bakp->bnap", self.basis, telling).reshape(len(frames), count, -1)
        seen = (telling * offsets[:, None]).sum(2).reshape(len(frames), -1)
        # What is expected, and the head's motion besides, leave little of the skin's: by the rest outliers are told.
        shapes, motions = basis[:, :n], basis[:, n:]
        beyond = seen - (expected[:, None] @ shapes)[:, 0]
        head = np.linalg.solve(motions @ motions.swapaxes(1, 2) + free, motions @ beyond[..., None])
        away = np.square(beyond - (head.swapaxes(1, 2) @ motions)[:, 0]).reshape(len(frames), 2, -1).sum(1)
        # In cells: only across an edge in the picture is motion seen at all.
        square = away / (trust * self.told + 1e-3)
        inlier = np.tile(1 / np.sqrt(1 + square / _OUTLIER ** 2), 2)
        basis *= inlier[:, None]
        normal, right = basis @ basis.swapaxes(1, 2), (basis @ (seen * inlier)[..., None])[..., 0]
        carried = np.linalg.solve(normal[:, n:, n:] + free, np.concatenate([normal[:, n:, :n], right[:, n:, None]], 2))
        coupled = normal[:, :n, n:]
        return normal[:, :n, :n] - coupled @ carried[..., :n], right[:, :n] - (coupled @ carried[..., n:])[..., 0]

    def _slopes(self, frames: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, 56, 48) twice: how far one step to the right and one down in the layout lead, pixels, in the window; nonsense beside the face."""
        seen = np.zeros((len(frames), 3, len(self.cells) + 1), np.float32)
        np.matmul(self.views[frames], self.mean + offsets, out=seen[..., :-1])
        seen = seen.take(self.places, 2)
        return (seen[..., 1:-1, 2:] - seen[..., 1:-1, :-2]) / 2, (seen[..., 2:, 1:-1] - seen[..., :-2, 1:-1]) / 2

    def _facing(self, across: np.ndarray, down: np.ndarray) -> np.ndarray:
        """(B, 56, 48) 0..1: whether skin faces the camera."""
        (a, b, c), (d, e, f) = across.swapaxes(0, 1), down.swapaxes(0, 1)
        x, y, z = b * f - c * e, c * d - a * f, a * e - b * d
        cosine = z / (np.sqrt(x * x + y * y + z * z) + 1e-9)
        cosine *= np.sign((cosine * self.inner).sum((1, 2), keepdims=True))     # most of a face does
        return np.clip((cosine - _ASIDE[0]) / (_ASIDE[1] - _ASIDE[0]), 0, 1)


def _halved(picture: np.ndarray) -> np.ndarray:
    """A picture's means over the cells, two pixels a side."""
    return cv2.resize(picture, (picture.shape[1] // 2, picture.shape[0] // 2), interpolation=cv2.INTER_AREA)
