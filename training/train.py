"""Trains the position map network on rendered heads and photographs, mixed half and half in every step.

`python -m training.train --faces DIR --minutes N` makes the face kit and the rendered heads if they are missing, and
trains for the rest of N minutes from the last checkpoint in the cache (or from nothing), on the CPU or on CUDA. It may be
killed at any moment: a checkpoint is replaced in one step every two minutes, and holds all that the next run needs.
Loss: Feng et al., section 3.2 (weighted L1 over UV), with differences for smooth skin; docs/training.md lists the terms.
"""
from __future__ import annotations

import argparse
import copy
import json
import os
import queue
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from prn_blender.prn.network import INPUT_SIZE, PositionMapNetwork, bicubic, enlarged, mean_in_crop
from training.cache import default_cache
from training.face_kit import build
from training.kit import Kit
from training.photographs import Photographs
from training.synthetic import SyntheticHeads, draw_heads

CHECKPOINT_EVERY = 120.0        # seconds
LOSS_SIZE = 128                 # the map is compared at this size
EMA_DECAY = 0.998


class Losses:
    """The terms of the loss on one device; all positions in crop units, all terms in percent of the crop."""

    def __init__(self, kit: Kit, device: torch.device) -> None:
        size = LOSS_SIZE
        self.enlarging = bicubic(size).to(device)
        step = len(kit.topology.weights) // size
        weights = kit.topology.weights.reshape(size, step, size, step).mean((1, 3))
        self.weights = torch.tensor(weights / weights.mean(), device=device)[None, None]
        mean, basis = kit.basis_maps(size)
        self.mean = torch.tensor(mean, device=device)                           # (S, S, 3)
        self.basis = torch.tensor(basis.reshape(len(basis), -1), device=device)
        texels = kit.mediapipe[kit.mediapipe_usable]
        points = (texels + 0.5) / step - 0.5
        low = np.clip(np.floor(points), 0, size - 2).astype(int)
        share = points - low
        corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
        self.corner_index = torch.tensor(np.stack([(low[:, 1] + b) * size + low[:, 0] + a for a, b in corners]),
                                         device=device)
        self.corner_share = torch.tensor(np.stack([np.abs(1 - a - share[:, 0]) * np.abs(1 - b - share[:, 1])
                                                   for a, b in corners]), dtype=torch.float32, device=device)
        features = np.zeros(len(texels), bool)
        rounded = np.clip(np.round(texels).astype(int), 0, 255)
        for name in ("eye_left", "eye_right", "mouth"):
            features |= kit.topology.regions[name][rounded[:, 1], rounded[:, 0]]
        point_weights = np.where(features, 4.0, 1.0)
        self.point_weights = torch.tensor(point_weights / point_weights.mean(), dtype=torch.float32,
                                          device=device)[None, :, None]

    def labels(self, heads: dict[str, torch.Tensor]) -> torch.Tensor:
        """Position maps (N, 3, S, S) in crop units of rendered heads: their shapes, seen by their cameras."""
        shape = self.mean.reshape(1, -1) + heads["coefficients"] @ self.basis
        points = shape.reshape(len(shape), -1, 3) @ heads["rotation"].transpose(1, 2) + heads["translation"][:, None]
        depth = heads["translation"][:, None, 2]
        pixels = points[..., :2] / points[..., 2:] * heads["focal"][:, None, None] + heads["centre"][:, None]
        crop = heads["crop"]
        flat = pixels @ crop[:, :, :2].transpose(1, 2) + crop[:, None, :, 2]
        scale = torch.sqrt(torch.linalg.det(crop[:, :, :2]).abs())[:, None]
        z = (points[..., 2] - depth) * heads["focal"][:, None] / depth * scale
        size = self.mean.shape[0]
        return torch.cat([flat, z[..., None]], 2).transpose(1, 2).reshape(len(shape), 3, size, size)

    def dense(self, predicted: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Rendered heads: weighted L1, and L1 of first differences."""
        error = predicted - target
        return {"map": 100 * (error.abs() * self.weights).mean(),
                "slope": 250 * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())}

    def at_points(self, predicted: torch.Tensor) -> torch.Tensor:
        """Maps (N, 3, S, S) at MediaPipe's usable points, (N, K, 3)."""
        flat = predicted.flatten(2)
        return sum(flat[:, :, self.corner_index[k]] * self.corner_share[k] for k in range(4)).transpose(1, 2)

    def sparse(self, predicted: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
        """Photographs: L1 at MediaPipe's points (N, K, 4; last their trust), x, y in full, z softly and up to an offset."""
        error, trust = self.at_points(predicted) - points[..., :3], points[..., 3:]
        offset = (error[..., 2:] * trust).sum(1, keepdim=True) / trust.sum(1, keepdim=True).clamp_min(1e-3)
        weights = self.point_weights * trust
        return {"points": 200 * (error[..., :2].abs() * weights).mean(),
                "depth": 20 * ((error[..., 2:] - offset).abs() * weights).mean()}

    @staticmethod
    def smooth(offsets: torch.Tensor) -> torch.Tensor:
        """Second differences of the offset from the mean, where no label says what the skin between points does."""
        return 100 * (offsets.diff(n=2, dim=2).abs().mean() + offsets.diff(n=2, dim=3).abs().mean())


class Batches:
    """Mixed batches from background threads, so that augmentation runs beside the network."""

    def __init__(self, photographs: Photographs, heads: SyntheticHeads, size: int, seed: int, threads: int) -> None:
        self.photographs, self.heads, self.size = photographs, heads, size
        self.queue: queue.Queue = queue.Queue(6)
        self.stopped = threading.Event()
        self.error: BaseException | None = None
        for number in range(threads):
            threading.Thread(target=self._produce, args=(np.random.default_rng([seed, number]),), daemon=True).start()

    def _produce(self, rng: np.random.Generator) -> None:
        try:
            while not self.stopped.is_set():
                half = self.size // 2
                photographs = self.photographs.batch(rng, self.size - half, INPUT_SIZE)
                heads = self.heads.batch(rng, half, INPUT_SIZE)
                self.queue.put((photographs, heads))
        except BaseException as error:                      # shown by the main thread
            self.error = error
            self.queue.put(None)

    def next(self):
        item = self.queue.get()
        if item is None:
            raise RuntimeError("a data thread failed") from self.error
        return item


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Warm-up, a plateau, and a fall to nothing over the last 40 % of this run's time (warmup-stable-decay)."""
    return peak * min(1.0, (step + 1) / 300) * min(1.0, max(0.0, (1 - progress) / 0.4))


def average(ema: torch.nn.Module, network: torch.nn.Module, step: int) -> None:
    """Move the averaged weights towards the network's."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    with torch.no_grad():
        for mine, other in zip(ema.state_dict().values(), network.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(other, 1 - decay)
            else:
                mine.copy_(other)


def validate(network: PositionMapNetwork, losses: Losses, photographs: Photographs, device: torch.device) -> float:
    """Mean 2D error of MediaPipe's points on photographs kept out of training, in percent of the face's size."""
    network.eval()
    rng, total = np.random.default_rng(0), []
    with torch.no_grad():
        for start in range(0, 600, 50):
            samples = [photographs.sample(rng, index, INPUT_SIZE, augment=False) for index in range(start, start + 50)]
            images = torch.tensor(np.stack([s[0] for s in samples]), device=device).permute(0, 3, 1, 2).float() / 255
            offsets = enlarged(network.offsets(images)[0], losses.enlarging)
            found = losses.at_points(offsets + F.avg_pool2d(network.mean, 2))
            target = torch.tensor(np.stack([s[1] for s in samples]), device=device)
            error = (found - target[..., :3])[..., :2].norm(dim=-1).mean(1)
            extent = target[..., :2].amax(1) - target[..., :2].amin(1)
            total.append(error / extent.prod(1).sqrt())
    network.train()
    return float(100 * torch.cat(total).mean())


def save(path: Path, state: dict) -> None:
    """Replace the checkpoint in one step."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def train(arguments: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cv2.setNumThreads(1)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    cache: Path = arguments.cache
    cache.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    if not (cache / "kit.npz").exists():
        build(cache, arguments.faces)
    draw_heads(cache, arguments.faces, arguments.heads)
    kit = Kit(cache)
    losses = Losses(kit, device)
    network = PositionMapNetwork(mean_in_crop(kit.topology)).to(device, memory_format=torch.channels_last)
    ema = copy.deepcopy(network)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.03}, {"params": others, "weight_decay": 0}],
                                  betas=(0.9, 0.99))
    checkpoint = cache / "checkpoint.pt"
    step, samples, seconds = 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        step, samples, seconds = state["step"], state["samples"], state["seconds"]
        print(f"going on from step {step}, {samples} samples, {seconds / 3600:.2f} h", flush=True)
    usable, mirror = kit.mediapipe_usable, kit.mediapipe_mirror
    photographs = Photographs(arguments.faces, cache, usable, mirror, validation=False)
    held_out = Photographs(arguments.faces, cache, usable, mirror, validation=True)
    heads = SyntheticHeads(cache)
    batches = Batches(photographs, heads, arguments.batch, seed=step, threads=1 if device.type == "cpu" else 12)
    training_since = saved = logged = time.monotonic()
    ends = started + arguments.minutes * 60
    totals: dict[str, float] = {}
    log = open(cache / "train.jsonl", "a", encoding="utf-8")

    def checkpoint_now() -> None:
        save(checkpoint, {"network": network.state_dict(), "ema": ema.state_dict(), "step": step, "samples": samples,
                          "optimiser": optimiser.state_dict(), "seconds": seconds + time.monotonic() - training_since})

    network.train()
    while (now := time.monotonic()) < ends:
        rate = learning_rate((now - training_since) / (ends - training_since), step, arguments.rate)
        for group in optimiser.param_groups:
            group["lr"] = rate
        photo, head = batches.next()
        images = torch.from_numpy(np.concatenate([photo[0], head["image"]])).to(device)
        images = (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        count = len(photo[0])
        with torch.autocast(device.type, torch.bfloat16):
            offsets, logits = network.offsets(images)
        offsets, logits = enlarged(offsets.float(), losses.enlarging), logits.float()
        predicted = offsets + F.avg_pool2d(network.mean, 2)
        truth = {key: torch.from_numpy(value).to(device) for key, value in head.items() if key != "image"}
        expression = torch.sigmoid(logits)
        scores, trust = (torch.from_numpy(part).to(device) for part in photo[2:])
        terms = {**losses.sparse(predicted[:count], torch.from_numpy(photo[1]).to(device)),
                 **losses.dense(predicted[count:], losses.labels(truth)),
                 "smooth": losses.smooth(offsets[:count]),
                 "scores": 8 * ((expression[:count] - scores) ** 2 * trust).sum() / trust.sum().clamp_min(1),
                 "arkit": 8 * ((expression[count:] - truth["coefficients"][:, -52:]) ** 2).mean()}
        loss = sum(terms.values())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        average(ema, network, step)
        step, samples = step + 1, samples + len(images)
        for key, value in terms.items():
            totals[key] = totals.get(key, 0) + value.item()
        if step % 20 == 0:
            row = {"step": step, "samples": samples, "rate": rate, "samples_per_second": 20 * len(images) /
                   (time.monotonic() - logged), **{key: round(value / 20, 3) for key, value in totals.items()}}
            if step % 1000 == 0:
                row["validation"] = validate(ema, losses, held_out, device)
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
            totals, logged = {}, time.monotonic()
        if time.monotonic() - saved > CHECKPOINT_EVERY:
            checkpoint_now()
            heads.refresh()
            saved = time.monotonic()
    batches.stopped.set()
    checkpoint_now()
    print(f"validation {validate(ema, losses, held_out, device):.3f} % after {samples} samples")


def main() -> None:
    parser = argparse.ArgumentParser(prog="build.py train", description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--minutes", type=float, required=True, help="time budget of this run")
    parser.add_argument("--heads", type=int, default=12000, help="rendered heads to train on")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--rate", type=float, default=1.2e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=0, help="torch threads, 0: all")
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    if not (arguments.faces / "points.npz").is_file():
        parser.error(f"'{arguments.faces}' holds no points.npz: give a folder of photographs as docs/training.md describes")
    train(arguments)


if __name__ == "__main__":
    main()
