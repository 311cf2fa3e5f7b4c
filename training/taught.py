"""What a wide network that has learned before says of every photograph: labels for lighter ones (distillation, Hinton et al., 2015).

It sees each photograph once, in its own crop, before anything is covered or lost; a batch moves the answer with its crop. They are kept in
`<cache>/taught.npz`, and asked for anew when the teacher is another one.
"""
from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from prn_blender.prn.network import DECODER_SIZE, INPUT_SIZE, PositionMapNetwork
from training.carried import fill, tensors_of
from training.photographs import Photographs

TOGETHER = 64                   # photographs


def answers(teacher: Path, cache: Path, photographs: Photographs, mean: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Offsets from the mean map (N, 3, 64, 64) float16, in units of each photograph's own crop, and ARKit weights (N, 52) float16.

    teacher: the folder of its weights as `training.pack --weights` writes them. Raises SystemExit where they are not there.
    """
    tensors, path = tensors_of(teacher, "wide"), cache / "taught.npz"
    network = PositionMapNetwork(mean, "wide")
    fill(network, tensors, f"'{teacher}' does not hold the weights of a wide network: give a folder that training.pack --weights wrote.")
    name = hashlib.sha256(tensors["mixture.weight"].tobytes()).hexdigest()
    if path.exists():
        known = np.load(path)
        if str(known["teacher"]) == name and len(known["scores"]) == len(photographs):
            return known["offsets"], known["scores"]
    network.to(device, memory_format=torch.channels_last).eval()
    offsets = np.empty((len(photographs), 3, DECODER_SIZE, DECODER_SIZE), np.float16)
    scores = np.empty((len(photographs), 52), np.float16)
    for first in range(0, len(photographs), TOGETHER):
        part = range(first, min(first + TOGETHER, len(photographs)))
        images = torch.from_numpy(np.stack([photographs.upright(index, INPUT_SIZE)[0] for index in part])).to(device)
        with torch.inference_mode():
            images = (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
            found, logits = network.decode(network.encode(images))
        offsets[part], scores[part] = found.cpu().numpy(), torch.sigmoid(logits).cpu().numpy()
    partial = cache / "taught.partial.npz"
    np.savez(partial, teacher=name, offsets=offsets, scores=scores)
    partial.rename(path)
    return offsets, scores
