"""What a wide network that has learned before says of every photograph: labels for lighter ones (distillation, Hinton et al., 2015).

It sees each photograph as a still is captured, in three sizes and their mirror images, before anything is covered or lost, and once: a batch
moves the answer with its crop. They are kept in `<cache>/taught.npz`, and asked for anew when the teacher is another one.
"""
from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from prn_blender.prn.arkit import MIRRORED
from prn_blender.prn.look import VIEWS
from prn_blender.prn.network import DECODER_SIZE, INPUT_SIZE, PositionMapNetwork
from training.carried import fill, tensors_of
from training.photographs import Photographs

TOGETHER = 256                  # photographs


def answers(teacher: Path, cache: Path, photographs: Photographs, mean: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from the mean map (N, 3, 64, 64) float16, in units of each photograph's own crop, and ARKit weights (N, 52) float16.

    teacher: the folder of its weights as `training.pack --weights` writes them. Raises SystemExit where they are not there.
    """
    tensors, path = tensors_of(teacher, "wide"), cache / "taught.npz"
    network = PositionMapNetwork(mean, "wide")
    fill(network, tensors, f"'{teacher}' does not hold the weights of a wide network: give a folder that training.pack --weights wrote.")
    name = hashlib.sha256(tensors["mixture.weight"].tobytes() + np.float64(VIEWS).tobytes()).hexdigest()
    if path.exists():
        known = np.load(path)
        if str(known["teacher"]) == name and len(known["scores"]) == len(photographs):
            return known["offsets"], known["scores"]
    network.to(device, memory_format=torch.channels_last).eval()
    offsets = np.empty((len(photographs), 3, DECODER_SIZE, DECODER_SIZE), np.float16)
    scores = np.empty((len(photographs), 52), np.float16)
    with ThreadPoolExecutor() as pool:
        for first in range(0, len(photographs), TOGETHER):
            part = range(first, min(first + TOGETHER, len(photographs)))
            crops = [np.stack(list(pool.map(lambda index: photographs.upright(index, INPUT_SIZE, size)[0], part))) for size in VIEWS]
            found, said = seen(network, [torch.from_numpy(crop).to(device) for crop in crops])
            offsets[part], scores[part] = found.cpu().numpy(), said.cpu().numpy()
    partial = cache / "taught.partial.npz"
    np.savez(partial, teacher=name, offsets=offsets, scores=scores)
    partial.rename(path)
    return offsets, scores


@torch.inference_mode()
def seen(network: PositionMapNetwork, crops: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Means over crops (N, 192, 192, 3) uint8 of VIEWS' sizes and their mirror images: offsets in the own crop's units, and ARKit weights."""
    mean = F.avg_pool2d(network.mean, network.mean.shape[2] // DECODER_SIZE)
    mirror = mean.new_tensor([-1, 1, 1])[:, None, None]
    maps, scores = [], []
    for size, crop in zip(VIEWS, crops):
        images = (crop.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        found, logits = network.decode(network.encode(torch.cat([images, images.flip(3)])))
        (straight, mirrored), (said, swapped) = found.chunk(2), torch.sigmoid(logits).chunk(2)
        maps.append(size * (mean + (straight + mirrored.flip(3) * mirror) / 2))
        scores.append((said + swapped[:, list(MIRRORED)]) / 2)
    return torch.stack(maps).mean(0) - mean, torch.stack(scores).mean(0)
