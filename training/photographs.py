"""Photographs with sparse labels: MediaPipe points and blendshape scores, as batches of augmented crops.

Reads a folder in the format of docs/training.md (`photographs-*.zip`, `points.npz`, `blendshapes.npz`); decodes it once
into `<cache>/photographs.npy`. Crop frame and units as in `prn_blender.prn.crop`.
"""
from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.arkit import ARKIT_NAMES, MIRRORED
from prn_blender.prn.crop import SIDE_PER_LANDMARK_BOX
from training.augment import crop_transform, degrade, occlude

PIXELS = 224
# MediaPipe's points that sit where the 68 iBUG points do (the jaw: the nearest points of MediaPipe's face outline).
IBUG_FROM_MEDIAPIPE = [
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]
# MediaPipe's points along the jaw, from the person's left ear over the chin to the right one.
JAW = (288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58)
FRONTAL = 20.0                  # degrees: up to here the jaw that one sees is the jaw that the labels mean
_SWAPPED = np.array(MIRRORED)


class Photographs:
    """Training or validation photographs of a folder, decoded to memory-mapped pixels."""

    def __init__(self, folder: Path, cache: Path, usable: np.ndarray, mirror: np.ndarray, validation: bool) -> None:
        """usable (478,): which MediaPipe points are compared; mirror (478,): each point's partner."""
        labels = np.load(folder / "points.npz")
        self.chosen = np.flatnonzero(labels["validation"] == validation)
        self.points = labels["points32"][self.chosen].astype(np.float32) / 32
        self.pixels = np.load(self._decoded(folder, cache, labels), mmap_mode="r")
        self.usable = np.flatnonzero(usable)
        self.mirror = mirror
        self.expression, self.expression_weight = self._scores(folder, len(labels["names"]))
        self.trust, self.frontal, believed = self._trust()
        self.expression_weight *= believed[:, None]         # the scorer calls many a profile's shut mouth open
        self.expressive = self._expressive()
        self.groups = {name: labels[name][self.chosen] for name in ("age", "gender", "race")}

    @staticmethod
    def _decoded(folder: Path, cache: Path, labels: np.lib.npyio.NpzFile) -> Path:
        path = cache / "photographs.npy"
        if not path.exists():
            names, shards = labels["names"], labels["shard"]
            partial = path.with_suffix(".partial.npy")
            pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(names), PIXELS, PIXELS, 3))
            for shard in np.unique(shards):
                with zipfile.ZipFile(folder / f"photographs-{shard}.zip") as archive:
                    inside = {Path(name).stem: name for name in archive.namelist()}
                    for index in np.flatnonzero(shards == shard):
                        data = np.frombuffer(archive.read(inside[Path(str(names[index])).stem]), np.uint8)
                        pixels[index] = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
            pixels.flush()
            partial.rename(path)
        return path

    def _scores(self, folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
        """ARKit targets (N, 52) and how far to trust each (N, 52): shapes the scorer hardly ever fires are left out."""
        data = np.load(folder / "blendshapes.npz")
        scores = data["scores254"].astype(np.float32)
        found = scores[:, 0] < 255
        targets = np.zeros((count, len(ARKIT_NAMES)), np.float32)
        weights = np.zeros_like(targets)
        for column, label in enumerate(data["labels"]):
            if label in ARKIT_NAMES and scores[found, column].std() / 254 > 0.025:
                targets[:, ARKIT_NAMES.index(label)] = scores[:, column] / 254
                weights[:, ARKIT_NAMES.index(label)] = found
        return targets[self.chosen], weights[self.chosen]

    def _expressive(self) -> np.ndarray:
        """Indices of photographs with a wide open mouth or a shut eye: what a network sees too little of by chance."""
        def apart(a: int, b: int) -> np.ndarray:
            return np.linalg.norm(self.points[:, a] - self.points[:, b], axis=1)
        mouth = apart(13, 14) / apart(61, 291)
        eyes = np.minimum(apart(159, 145) / apart(33, 133), apart(386, 374) / apart(362, 263))
        return np.flatnonzero((mouth > 0.30) | (eyes < 0.11))

    def _trust(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(N, 478) how far each point is to be believed: not on the far side of a turned head, where MediaPipe guesses.

        There it draws the hidden cheek into view, and a network that believed it would never turn a head far enough.
        And (N,) how far the face looks into the camera, 0..1, so that its outline is the jaw; and (N,) how far it is to be
        believed at all.
        """
        faces = self.points - self.points.mean(1, keepdims=True)
        mean = faces[:2000].mean(0)
        mean = 0.5 * (mean + mean[self.mirror] * [-1, 1, 1])
        for _ in range(4):
            u, _, vt = np.linalg.svd(np.einsum("nka,kb->nab", faces, mean))
            u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
            rotation = u @ vt                                       # mean to face
            mean = np.einsum("nka,nab->nkb", faces[:2000], rotation[:2000]).mean(0)
        # Outwards from a point in the middle of the head, a good half of the face's width behind it.
        outwards = mean - np.array([0, 0, mean[:, 2].mean() + 0.55 * np.ptp(mean[:, 0])])
        outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
        facing = -np.einsum("nb,kb->nk", rotation[:, 2], outwards)
        turned = np.degrees(np.arcsin(np.clip(np.abs(rotation[:, 0, 2]), 0, 1)))
        believed = np.clip((50 - turned) / 20, 0.15, 1)
        away = np.degrees(np.arccos(np.clip(rotation[:, 2, 2], -1, 1)))
        frontal = np.clip((FRONTAL - away) / 8, 0, 1)
        return (np.clip((facing - 0.2) / 0.3, 0, 1) * believed[:, None]).astype(np.float32), frontal.astype(np.float32), \
            believed.astype(np.float32)

    def __len__(self) -> int:
        return len(self.chosen)

    def sample(self, rng: np.random.Generator, index: int, size: int, augment: bool = True):
        """One crop: image (size, size, 3) uint8, points (K, 4) in crop units with their trust, the jaw's outline (J, 3) in
        crop units with its trust, ARKit targets and weights (52,)."""
        picture, points = self.pixels[self.chosen[index]], self.points[index]
        expression, weight, trust = self.expression[index], self.expression_weight[index], self.trust[index]
        if augment and rng.random() < 0.5:
            picture = np.ascontiguousarray(picture[:, ::-1])
            points = points[self.mirror] * [-1, 1, 1] + [PIXELS - 1, 0, 0]
            expression, weight, trust = expression[_SWAPPED], weight[_SWAPPED], trust[self.mirror]
        box = points[IBUG_FROM_MEDIAPIPE, :2]
        if augment:
            transform = crop_transform(rng, box, size, SIDE_PER_LANDMARK_BOX)
        else:
            low, high = box.min(0), box.max(0)
            scale = size / (SIDE_PER_LANDMARK_BOX * np.sqrt(np.prod(high - low)))
            transform = np.concatenate([np.eye(2) * scale, ((size - 1) / 2 - scale * (low + high) / 2)[:, None]], 1)
        border = cv2.BORDER_REPLICATE if not augment or rng.random() < 0.6 else cv2.BORDER_CONSTANT
        image = cv2.warpAffine(picture, transform, (size, size), flags=cv2.INTER_LINEAR, borderMode=border,
                               borderValue=[0, 0, 0] if rng.random() < 0.5 else rng.integers(0, 256, 3).tolist())
        if augment:
            if rng.random() < 0.10:
                other = self.pixels[self.chosen[rng.integers(len(self))]]
                image = occlude(rng, image, cv2.resize(other, (size, size)))
            image = degrade(rng, image)
        scale = np.sqrt(abs(np.linalg.det(transform[:, :2])))
        flat = (points[:, :2] @ transform[:, :2].T + transform[:, 2] + 0.5) / size - 0.5
        jaw = np.column_stack([flat[list(JAW)], np.full(len(JAW), self.frontal[index])]).astype(np.float32)
        placed = np.empty((len(self.usable), 4), np.float32)
        placed[:, :2] = flat[self.usable]
        placed[:, 2] = points[self.usable, 2] * scale / size
        placed[:, 3] = trust[self.usable]
        return image, placed, jaw, expression, weight

    def batch(self, rng: np.random.Generator, count: int, size: int) -> tuple[np.ndarray, ...]:
        """`count` random augmented crops, stacked; every third one is drawn from the expressive photographs."""
        chosen = np.concatenate([rng.choice(self.expressive, count // 3), rng.integers(0, len(self), count - count // 3)])
        return tuple(np.stack(part) for part in zip(*(self.sample(rng, int(index), size) for index in chosen)))
