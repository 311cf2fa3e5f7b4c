"""Weights on their way from a rented machine: the averaged weights of a checkpoint as few, small safetensors files, and back.

Reads the checkpoint and those files, writes those files.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

FILE = 15_000_000               # bytes at most of a file


def weights_of(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """What of a network's state is weights; the rest counts batch norm's training steps."""
    return {name: value.numpy() for name, value in state.items() if value.dtype.is_floating_point}


def fill(network: torch.nn.Module, tensors: dict[str, np.ndarray], otherwise: str) -> None:
    """Give a network all of its weights. Raises SystemExit, saying `otherwise`, if these are another network's."""
    if tensors.keys() != weights_of(network.state_dict()).keys():
        raise SystemExit(otherwise)
    network.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in tensors.items()}, strict=False)


def carry_back(cache: Path, out: Path) -> None:
    """Write the averaged weights of every network in the checkpoint as `out/<encoder>-N.safetensors`, and what they took."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = torch.load(cache / "checkpoint.pt", map_location="cpu", weights_only=True)
    metadata = {key: str(checkpoint[key]) for key in ("samples", "seconds")}
    for encoder, state in checkpoint["learners"].items():
        files: list[dict[str, np.ndarray]] = [{}]
        for name, value in weights_of(state["ema"]).items():
            rows = value.astype(np.float16)
            pieces = np.array_split(rows, -(-rows.nbytes // FILE)) if rows.ndim else [rows]
            for number, piece in enumerate(pieces):
                if sum(kept.nbytes for kept in files[-1].values()) + piece.nbytes > FILE:
                    files.append({})
                files[-1][f"{name}/{number}"] = np.ascontiguousarray(piece)
        for number, tensors in enumerate(files):
            save_file(tensors, out / f"{encoder}-{number}.safetensors", metadata)


def tensors_of(folder: Path, encoder: str) -> dict[str, np.ndarray]:
    """The weights that `carry_back` wrote of one network."""
    pieces: dict[str, dict[int, np.ndarray]] = {}
    for path in folder.glob(f"{encoder}-*.safetensors"):
        for key, value in load_file(path).items():
            name, number = key.rsplit("/", 1)
            pieces.setdefault(name, {})[int(number)] = value
    return {name: np.concatenate([parts[k] for k in sorted(parts)]) if len(parts) > 1 else parts[0] for name, parts in pieces.items()}


def learned(folder: Path, encoder: str) -> tuple[int, float]:
    """How many pictures and seconds the weights that `carry_back` wrote of one network took."""
    path = next(folder.glob(f"{encoder}-*.safetensors"))
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    return int(metadata["samples"]), float(metadata["seconds"])
