"""Shards of pictures for training, drawn here or by several processes while training goes on.

A shard `<folder>/NNNN.npz` holds SHARD pictures and what drew them. Each is drawn from a seed of its own, so it does not matter who
draws it, and appears whole under its name or not at all. Writes below the given folder only.
"""
from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2
import numpy as np

SHARD = 500

# Loads all that a kind of picture needs from (cache, photographs' folder); what it gives draws shard number n.
Maker = Callable[[Path, Path], Callable[[int], list[dict[str, np.ndarray]]]]


def missing_shards(folder: Path, count: int) -> list[int]:
    """Numbers of the shards that a folder, made if need be, lacks of `count` pictures."""
    folder.mkdir(exist_ok=True)
    return [number for number in range((count + SHARD - 1) // SHARD) if not (folder / f"{number:04d}.npz").exists()]


def write_samples(path: Path, samples: list[dict[str, np.ndarray]]) -> None:
    """Stack samples into one npz, which appears whole under its name or not at all."""
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, **{key: np.stack([sample[key] for sample in samples]) for key in samples[0]})
    partial.rename(path)


def draw(maker: Maker, folder: Path, cache: Path, faces: Path, numbers: list[int]) -> None:
    """Draw the shards `numbers` of a folder. faces: the photographs."""
    if not numbers:
        return
    cv2.setNumThreads(1)
    shard = maker(cache, faces)
    for number in numbers:
        write_samples(folder / f"{number:04d}.npz", shard(number))
        print(f"{folder.name}: {(number + 1) * SHARD} pictures", flush=True)


def draw_beside(maker: Maker, folder: Path, cache: Path, faces: Path, count: int, jobs: int) -> list[BaseProcess]:
    """Processes that draw the shards that `count` pictures lack; they end with this process, or when they are done."""
    missing = missing_shards(folder, count)
    context = multiprocessing.get_context("spawn")          # a GL context and torch's threads do not survive a fork
    processes = [context.Process(target=_draw_politely, args=(maker, folder, cache, faces, missing[number::jobs]), daemon=True)
                 for number in range(min(jobs, len(missing)))]
    for process in processes:
        process.start()
    return processes


def _draw_politely(*arguments) -> None:
    os.nice(10)                                             # the trainer comes first
    draw(*arguments)
