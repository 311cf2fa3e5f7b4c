"""What a capture says of every training photograph: where heads are placed by, and labels for a network that goes on from the shipped weights.

A still is seen a dozen times, in crops of three sizes, mirrored, upright and leaning with the head, and its eyes once more by themselves; one look that has
learned to say the same needs none of that (self-distillation). Kept in `<cache>/captured.npz`, and asked for anew when the weights are others.
"""
from __future__ import annotations

import hashlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.crop import Crop
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.face_fit import reading
from prn_blender.prn.look import run_network
from prn_blender.prn.small_map import mean_in_crop
from prn_blender.prn.weights import SAFETENSORS_NAME, default_folder, load_bundle
from training.photographs import Photographs, upright_transforms

TOGETHER = 50                   # photographs
_engine: OnnxEngine             # of a process that answers


def answers(cache: Path, photographs: Photographs) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from the mean map (N, 3, 64, 64) float16, in units of each photograph's own crop, and ARKit weights (N, 52) float16. The first time
    that takes a seventh of a second a photograph and core."""
    path, weights = cache / "captured.npz", hashlib.sha256((default_folder() / SAFETENSORS_NAME).read_bytes()).hexdigest()
    if path.exists():
        known = np.load(path)
        if str(known["weights"]) == weights and len(known["scores"]) == len(photographs):
            return known["offsets"], known["scores"]
    own = upright_transforms(photographs.points, 1)
    parts = [range(first, min(first + TOGETHER, len(photographs))) for first in range(0, len(photographs), TOGETHER)]
    offsets, scores = [], []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, _load) as pool:
        for maps, said in pool.map(_captured, ([photographs.pixels[photographs.chosen[index]] for index in part] for part in parts), (own[part] for part in parts)):
            offsets.append(maps)
            scores.append(said)
    partial = cache / "captured.partial.npz"
    np.savez(partial, weights=weights, offsets=np.concatenate(offsets), scores=np.concatenate(scores))
    partial.rename(path)
    return answers(cache, photographs)


def _load() -> None:
    global _engine
    cv2.setNumThreads(1)
    _engine = OnnxEngine(load_bundle(), threads=1)


def _captured(pictures: list[np.ndarray], own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offsets (n, 3, 64, 64) and ARKit weights (n, 52) of pictures (224, 224, 3), by what takes their pixels to their own crops of size 1 (n, 2, 3)."""
    mean = reading(mean_in_crop(_engine.topology))
    offsets, scores = np.empty((len(pictures), 3, *mean.shape[:2]), np.float16), np.empty((len(pictures), 52), np.float16)
    for number, (picture, transform) in enumerate(zip(pictures, own)):
        side = 1 / transform[0, 0]
        maps, expressions = run_network(picture, [Crop(*(-side * transform[:, 2]), side)], _engine)
        offsets[number], scores[number] = (reading(maps[0]) - mean).transpose(2, 0, 1), expressions[0]
    return offsets, scores
