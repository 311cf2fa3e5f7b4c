"""Photographs with sparse labels: MediaPipe points and blendshape scores, one by one and as batches of augmented crops.

Reads a folder in the format of docs/training.md (`photographs-*.zip`, `points.npz`, `blendshapes.npz`); decodes it once
into `<cache>/photographs.npy`. Crop frame and units as in `prn_blender.prn.crop`.
"""
from __future__ import annotations

import zipfile
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from prn_blender.prn.arkit import ARKIT_NAMES, MIRRORED
from prn_blender.prn.crop import SIDE_PER_LANDMARK_BOX
from training.augment import Dice, crop_transforms, degraded, occluded, placed, warped

PIXELS = 224
# MediaPipe's points that sit where the 68 iBUG points do (the jaw: the nearest points of MediaPipe's face outline).
IBUG_FROM_MEDIAPIPE = [
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87]
# MediaPipe's points along the jaw, from the person's left ear over the chin to the right one.
JAW = (288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58)
SKEWED = 20.0, 40.0             # degrees of turn from which on MediaPipe's points are skewed, and from which on a capture alone is believed
FRONTAL = 20.0                  # degrees: up to here the jaw that one sees is the jaw that the labels mean
_SWAPPED = np.array(MIRRORED)


def upright_transforms(points: np.ndarray, size: int) -> np.ndarray:
    """(N, 2, 3) from the pixels of photographs with these points (N, 478, 3) to those of their own crops."""
    box = points[:, IBUG_FROM_MEDIAPIPE, :2]
    low, high = box.min(1), box.max(1)
    scale = size / (SIDE_PER_LANDMARK_BOX * np.sqrt(np.prod(high - low, axis=1)))[:, None]
    return np.concatenate([np.eye(2) * scale[..., None], ((size - 1) / 2 - scale * (low + high) / 2)[..., None]], 2)


class Photographs:
    """Training or validation photographs of a folder, decoded to memory-mapped pixels."""

    def __init__(self, folder: Path, cache: Path, usable: np.ndarray, mirror: np.ndarray, validation: bool) -> None:
        """usable (478,): which MediaPipe points are compared; mirror (478,): each point's partner."""
        labels = np.load(folder / "points.npz")
        self.chosen = np.flatnonzero(labels["validation"] == validation)
        self.points = labels["points32"][self.chosen].astype(np.float32) / 32
        self.pixels = np.load(self._decoded(folder, cache, labels), mmap_mode="c")
        self.usable = np.flatnonzero(usable)
        self.mirror = mirror
        self.expression, self._scored = self._scores(folder, len(labels["names"]))
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

    @property
    def trust(self) -> np.ndarray:
        """(N, 478) how far each point is to be believed."""
        return self._trust[0]

    @property
    def frontal(self) -> np.ndarray:
        """(N,) how far the face looks into the camera, 0..1."""
        return self._trust[1]

    @property
    def believed(self) -> np.ndarray:
        """(N,) how far MediaPipe is to be believed at all, 0..1: less of a head that is turned."""
        return self._trust[2]

    @property
    def straight(self) -> np.ndarray:
        """(N,) how far MediaPipe's points are no more skewed than those of heads that look into the camera, 0..1."""
        return self._trust[3]

    @property
    def expression_weight(self) -> np.ndarray:
        """(N, 52) how far each score is to be believed: the scorer calls many a profile's shut mouth open."""
        return self._scored * self.believed[:, None]

    @cached_property
    def expressive(self) -> np.ndarray:
        """Indices of photographs with a wide open mouth or a shut eye: what a network sees too little of by chance."""
        def apart(a: int, b: int) -> np.ndarray:
            return np.linalg.norm(self.points[:, a] - self.points[:, b], axis=1)
        mouth = apart(13, 14) / apart(61, 291)
        eyes = np.minimum(apart(159, 145) / apart(33, 133), apart(386, 374) / apart(362, 263))
        return np.flatnonzero((mouth > 0.30) | (eyes < 0.11))

    @cached_property        # seconds of work, which drawing pictures does not need
    def _trust(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(N, 478) how far each point is to be believed: not on the far side of a turned head, where MediaPipe guesses.

        There it draws the hidden cheek into view, and a network that believed it would never turn a head far enough.
        And (N,) how far the face looks into the camera, 0..1, so that its outline is the jaw; (N,) how far it is to be
        believed at all; and (N,) how far the points are not skewed.
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
        straight = np.clip((SKEWED[1] - turned) / (SKEWED[1] - SKEWED[0]), 0, 1)
        return ((np.clip((facing - 0.2) / 0.3, 0, 1) * believed[:, None]).astype(np.float32),
                *(share.astype(np.float32) for share in (frontal, believed, straight)))

    def __len__(self) -> int:
        return len(self.chosen)

    def upright(self, index: int, size: int, wider: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """A photograph's own crop, or one so many times as wide: image (size, size, 3) uint8 and points (K, 4) in crop units with their trust."""
        points = self.points[index]
        transform = upright_transforms(points[None], size)[0] / wider
        transform[:, 2] += (size - 1) / 2 * (1 - 1 / wider)
        scale = transform[0, 0]
        image = cv2.warpAffine(self.pixels[self.chosen[index]], transform, (size, size), flags=cv2.INTER_LINEAR,
                               borderMode=cv2.BORDER_REPLICATE)
        placed = np.empty((len(self.usable), 4), np.float32)
        placed[:, :2] = (points[self.usable, :2] * scale + transform[:, 2] + 0.5) / size - 0.5
        placed[:, 2] = points[self.usable, 2] * scale / size
        placed[:, 3] = self.trust[index, self.usable]
        return image, placed


class PhotographBatches:
    """Random augmented crops of photographs with their labels, on one device."""

    def __init__(self, photographs: Photographs, device: torch.device, said: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        """On a GPU all pixels go there (150 kB each); on the CPU they stay in their file. said: a teacher's or a capture's answers
        (`training.taught`, `training.captured`), for batches that hold them too."""
        def there(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        if device.type == "cpu":
            self.pixels, numbers = torch.from_numpy(photographs.pixels.view(np.ndarray)), photographs.chosen
        else:
            self.pixels, numbers = there(photographs.pixels[photographs.chosen]), np.arange(len(photographs))
        self.numbers = there(numbers)                                   # of the pictures among the pixels
        self.points, self.trust, self.frontal, self.straight = map(
            there, (photographs.points, photographs.trust, photographs.frontal, photographs.straight))
        self.scores, self.believed = there(photographs.expression), there(photographs.expression_weight)
        self.expressive = there(photographs.expressive)
        self.usable, self.mirror, self.swapped = there(photographs.usable), there(photographs.mirror), there(_SWAPPED)
        self.box, self.jaw = there(np.array(IBUG_FROM_MEDIAPIPE)), there(np.array(JAW))
        self.said = None if said is None else (*map(there, said), there(upright_transforms(photographs.points, 1).astype(np.float32)))

    def batch(self, dice: Dice, count: int, size: int) -> dict[str, torch.Tensor]:
        """`count` crops, every third one of the expressive photographs: image (N, 3, size, size) in 0..1, points (N, K, 4; last their
        trust) and the jaw's outline (N, J, 2) in crop units; how far the face looks into the camera, `frontal`, and how far its points
        are not skewed, `straight` (N,); ARKit scores and how far to believe them (N, 52). What a teacher says, if there is one: `said_scores`,
        `said_offsets` (N, 3, 64, 64), mirrored as the crop is, and what takes its maps to this crop, `said_crop` (N, 2, 3) for x and y and
        `said_depth` (N) for z."""
        expressive = self.expressive[dice.below(len(self.expressive), count // 3)]
        chosen = torch.cat([expressive, dice.below(len(self.numbers), count - count // 3)])
        pictures, points, trust = self.pixels[self.numbers[chosen]], self.points[chosen], self.trust[chosen]
        scores, believed = self.scores[chosen], self.believed[chosen]
        turned = dice.hits(0.5, count)
        one = turned[:, None, None]
        flipped = points[:, self.mirror] * points.new_tensor([-1, 1, 1]) + points.new_tensor([PIXELS - 1, 0, 0])
        points = torch.where(one, flipped, points)
        trust = torch.where(turned[:, None], trust[:, self.mirror], trust)
        scores = torch.where(turned[:, None], scores[:, self.swapped], scores)
        believed = torch.where(turned[:, None], believed[:, self.swapped], believed)
        transforms = crop_transforms(dice, points[:, self.box, :2], size, SIDE_PER_LANDMARK_BOX)
        mirroring = torch.where(one, points.new_tensor([[-1, 0, PIXELS - 1], [0, 1, 0]]), torch.eye(2, 3, device=points.device))
        linear = transforms[:, :, :2]
        whole = torch.cat([linear @ mirroring[:, :, :2], linear @ mirroring[:, :, 2:] + transforms[:, :, 2:]], 2)
        image = warped(dice, pictures, whole, size, bordered=0.15)
        image = degraded(dice, occluded(dice, image, 0.10))
        flat = placed(points[:, :, :2], transforms, size)
        depth = points[:, self.usable, 2:] * torch.linalg.det(linear).sqrt()[:, None, None] / size
        return {"image": image, "points": torch.cat([flat[:, self.usable], depth, trust[:, self.usable, None]], 2),
                "jaw": flat[:, self.jaw], "frontal": self.frontal[chosen], "straight": self.straight[chosen], "scores": scores,
                "believed": believed} | self._as_said(chosen, turned, whole, size)

    def _as_said(self, chosen: torch.Tensor, turned: torch.Tensor, whole: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
        """A teacher's answers on `chosen`, and what takes them to crops by `whole` (N, 2, 3) of photograph pixels; `turned` are mirrored."""
        if self.said is None:
            return {}
        offsets, scores, own = (values[chosen] for values in self.said)
        # From the units of the own crop to the photograph's pixels (`own` goes the other way), and on to the other crop's units.
        side = 1 / own[:, 0, 0]
        corner = -own[:, :, 2] * side[:, None]
        linear = whole[:, :, :2] * side[:, None, None] / size
        shift = ((whole[:, :, :2] @ corner[..., None])[..., 0] + whole[:, :, 2] + 0.5) / size - 0.5
        mirror = linear.new_tensor([-1, 1, 1])
        linear = torch.where(turned[:, None, None], linear * mirror[:2], linear)
        return {"said_scores": torch.where(turned[:, None], scores[:, self.swapped], scores).float(),
                "said_offsets": torch.where(turned[:, None, None, None], offsets.flip(3) * mirror[:, None, None], offsets).float(),
                "said_crop": torch.cat([linear, shift[..., None]], 2), "said_depth": torch.linalg.det(linear).sqrt()}
