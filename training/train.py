"""Trains the position map network on photographs, turned photographs and rendered heads, mixed in every step.

`python -m training.train --faces DIR --minutes N` makes the face kit and the pictures if they are missing, and trains for
the rest of N minutes on the CPU or on CUDA: from the last checkpoint in the cache; without one from the shipped weights, as far
as they fit; or from nothing (--scratch). It may be killed at any moment: a checkpoint is replaced in one step every two
minutes, and holds all that the next run needs.
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

from safetensors.numpy import load_file

from prn_blender.prn.network import (DECODER_SIZE, IMAGES, INPUT_SIZE, PositionMapNetwork, bicubic, enlarged, mean_in_crop)
from prn_blender.prn.weights import SAFETENSORS_NAME, default_folder
from training.cache import default_cache
from training.face_kit import build
from training.kit import Kit
from training.photographs import Photographs
from training.synthetic import SyntheticHeads, draw_heads
from training.turned import draw_turned

LOSS_SIZE = 128                 # the map is compared at this size
EMA_DECAY = 0.998
# MediaPipe's points above and below the opening of the eyes and the mouth.
OPENINGS = ((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373),
            (13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
SHARES = 0.6, 0.2, 0.2           # of a batch: photographs, turned photographs, rendered heads


class Losses:
    """The terms of the loss on one device; all positions in crop units, all terms in percent of the crop."""

    def __init__(self, kit: Kit, device: torch.device, plain: bool = False) -> None:
        """plain: every texel of the face and every point counts alike, for comparison with the weighted loss."""
        size = LOSS_SIZE
        self.enlarging = bicubic(size).to(device)
        step = len(kit.topology.weights) // size
        weights = (kit.topology.mask if plain else kit.topology.weights).astype(np.float32)
        weights = weights.reshape(size, step, size, step).mean((1, 3))
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
        lifted = np.flatnonzero(kit.mediapipe_usable).tolist()
        self.upper, self.lower = (torch.tensor([lifted.index(pair[k]) for pair in OPENINGS], device=device) for k in (0, 1))
        face = kit.topology.mask & ~kit.topology.regions["ears"] & ~kit.topology.regions["neck"]
        inside = face.reshape(size, step, size, step).all((1, 3))
        inside[1::2] = inside[:, 1::2] = False                                  # every other texel is close enough
        self.face = torch.tensor(np.flatnonzero(inside), device=device)
        features = np.zeros(len(texels), bool)
        rounded = np.clip(np.round(texels).astype(int), 0, 255)
        for name in ("eye_left", "eye_right", "mouth"):
            features |= kit.topology.regions[name][rounded[:, 1], rounded[:, 0]]
        point_weights = np.where(features & (not plain), 4.0, 1.0)
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
        """Known maps: weighted L1, L1 of first differences, and how far eyes and mouth are open."""
        error = predicted - target
        return {"map": 100 * (error.abs() * self.weights).mean(),
                "slope": 250 * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()),
                "lids": 100 * self.openings(self.at_points(error)).abs().mean()}

    def openings(self, points: torch.Tensor) -> torch.Tensor:
        """(N, P, 2) from the lower lids and lip to the upper, of MediaPipe's usable points (N, K, 2+)."""
        points = points[..., :2]
        return points.index_select(1, self.upper) - points.index_select(1, self.lower)

    def at_points(self, predicted: torch.Tensor) -> torch.Tensor:
        """Maps (N, 3, S, S) at MediaPipe's usable points, (N, K, 3)."""
        flat = predicted.flatten(2)
        return sum(flat.index_select(2, self.corner_index[k]) * self.corner_share[k] for k in range(4)).transpose(1, 2)

    def sparse(self, predicted: torch.Tensor, points: torch.Tensor) -> dict[str, torch.Tensor]:
        """Photographs: L1 at MediaPipe's points (N, K, 4; last their trust), x, y in full, z softly and up to an offset."""
        error, trust = self.at_points(predicted) - points[..., :3], points[..., 3:]
        offset = (error[..., 2:] * trust).sum(1, keepdim=True) / trust.sum(1, keepdim=True).clamp_min(1e-3)
        weights = self.point_weights * trust
        both = torch.minimum(trust[:, self.upper], trust[:, self.lower])
        return {"points": 200 * (error[..., :2].abs() * weights).mean(),
                "openings": 300 * (self.openings(error).abs() * both).mean(),
                "depth": 60 * ((error[..., 2:] - offset).abs() * weights).mean()}

    def outline(self, predicted: torch.Tensor, jaw: torch.Tensor) -> torch.Tensor:
        """Photographs from the front: the face reaches as far outwards as the jaw's outline (N, J, 3; last its trust).

        Points slide along an outline, and on the map other texels lie on it for every pose; so it is its tangents that
        the face's outermost texels have to touch.
        """
        along = jaw[:, 2:, :2] - jaw[:, :-2, :2]
        normals = F.normalize(torch.stack([along[..., 1], -along[..., 0]], -1), dim=-1)
        middle = jaw[:, 1:-1, :2]
        normals = normals * torch.sign(((middle - predicted[:, :2].mean((2, 3))[:, None].detach()) * normals).sum(-1, keepdim=True))
        reach = (normals @ predicted[:, :2].flatten(2).index_select(2, self.face)).amax(2)
        return 30 * ((reach - (normals * middle).sum(-1)).abs() * jaw[:, 1:-1, 2]).mean()

    @staticmethod
    def smooth(offsets: torch.Tensor) -> torch.Tensor:
        """Second differences of the offset from the mean, where no label says what the skin between points does."""
        return 100 * (offsets.diff(n=2, dim=2).abs().mean() + offsets.diff(n=2, dim=3).abs().mean())


class Batches:
    """Mixed batches from background threads, so that augmentation runs beside the network."""

    def __init__(self, photographs: Photographs, turned: SyntheticHeads, heads: SyntheticHeads, shares: tuple[float, ...],
                 size: int, seed: int, threads: int) -> None:
        self.photographs, self.turned, self.heads = photographs, turned, heads
        first, second = round(size * shares[0]), round(size * shares[1])
        self.counts = first, second, size - first - second
        self.queue: queue.Queue = queue.Queue(6)
        self.stopped = threading.Event()
        self.error: BaseException | None = None
        for number in range(threads):
            threading.Thread(target=self._produce, args=(np.random.default_rng([seed, number]),), daemon=True).start()

    def _produce(self, rng: np.random.Generator) -> None:
        try:
            while not self.stopped.is_set():
                photographs, turned, heads = (
                    data.batch(rng, count, INPUT_SIZE) if count else None
                    for data, count in zip((self.photographs, self.turned, self.heads), self.counts))
                known = [part for part in (turned, heads) if part is not None]
                self.queue.put((photographs, {key: np.concatenate([part[key] for part in known]) for key in known[0]}
                                if known else None))
        except BaseException as error:                      # shown by the main thread
            self.error = error
            self.queue.put(None)

    def next(self):
        item = self.queue.get()
        if item is None:
            raise RuntimeError("a data thread failed") from self.error
        return item


def learning_rate(progress: float, step: int, peak: float) -> float:
    """Warm-up, a plateau, and a fall to nothing over the last 40 % of the budget, time or samples (warmup-stable-decay)."""
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
            offsets = enlarged(network.decode(network.encode(images))[0], losses.enlarging)
            found = losses.at_points(offsets + F.avg_pool2d(network.mean, 2))
            target = torch.tensor(np.stack([s[1] for s in samples]), device=device)
            error = (found - target[..., :3])[..., :2].norm(dim=-1).mean(1)
            extent = target[..., :2].amax(1) - target[..., :2].amin(1)
            total.append(error / extent.prod(1).sqrt())
    network.train()
    return float(100 * torch.cat(total).mean())


def uv_images(network: PositionMapNetwork, losses: Losses, *data: SyntheticHeads) -> torch.Tensor:
    """(IMAGES, 64, 64) the principal images of known maps' coordinates, each scaled to how much it is used."""
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(40):
        for heads in data:
            batch = {key: torch.from_numpy(value) for key, value in heads.batch(rng, 25, INPUT_SIZE).items() if key != "image"}
            labels = losses.labels({key: value.to(losses.mean.device) for key, value in batch.items()})
            maps.append(F.avg_pool2d(labels, LOSS_SIZE // DECODER_SIZE).cpu())
    offsets = torch.cat(maps) - F.avg_pool2d(network.mean.cpu(), network.mean.shape[-1] // DECODER_SIZE)
    flat = offsets.flatten(0, 1).flatten(1)
    weights = (F.avg_pool2d(losses.weights, LOSS_SIZE // DECODER_SIZE).flatten().cpu() + 0.05).sqrt()
    _, sizes, images = torch.svd_lowrank(flat * weights, q=IMAGES + 20, niter=4)
    images = images[:, :IMAGES].T / weights * (sizes[:IMAGES, None] / len(flat) ** 0.5)
    rest = flat - flat @ torch.linalg.pinv(images) @ images
    print(f"UV images leave {100 * rest.square().mean().sqrt():.3f} % of the crop unexplained", flush=True)
    return images.reshape(IMAGES, DECODER_SIZE, DECODER_SIZE)


def start_from(network: PositionMapNetwork, path: Path) -> str:
    """Takes over the shipped tensors that fit by name and shape; how many did."""
    mine, found = network.state_dict(), load_file(path)
    fitting = {name: torch.from_numpy(value.astype(np.float32)) for name, value in found.items()
               if name in mine and mine[name].shape == value.shape}
    network.load_state_dict(fitting, strict=False)
    return f"{len(fitting)} of {len(found)} shipped tensors"


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
    draw_turned(cache, arguments.faces, arguments.turned)
    kit = Kit(cache)
    losses = Losses(kit, device, arguments.plain)
    network = PositionMapNetwork(mean_in_crop(kit.topology)).to(device, memory_format=torch.channels_last)
    heads, turned = SyntheticHeads(cache / "heads"), SyntheticHeads(cache / "turned")
    decayed = [p for p in network.parameters() if p.ndim > 1 and p is not network.images]
    others = [p for p in network.parameters() if p.ndim <= 1]
    # The UV images begin as the shape space's own, and move slowly so that they stay smooth.
    ema = copy.deepcopy(network)
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.03, "share": 1.0},
                                   {"params": others, "weight_decay": 0, "share": 1.0},
                                   {"params": [network.images], "weight_decay": 0, "share": 0.05}], betas=(0.9, 0.99))
    checkpoint = cache / "checkpoint.pt"
    step, samples, seconds = 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        ema.load_state_dict(state["ema"])
        optimiser.load_state_dict(state["optimiser"])
        step, samples, seconds = state["step"], state["samples"], state["seconds"]
        print(f"going on from step {step}, {samples} samples, {seconds / 3600:.2f} h", flush=True)
    else:
        network.images.data.copy_(uv_images(network, losses, heads, turned))
        if not arguments.scratch:
            print(f"beginning with {start_from(network, default_folder() / SAFETENSORS_NAME)}", flush=True)
        ema.load_state_dict(network.state_dict())
    usable, mirror = kit.mediapipe_usable, kit.mediapipe_mirror
    photographs = Photographs(arguments.faces, cache, usable, mirror, validation=False)
    held_out = Photographs(arguments.faces, cache, usable, mirror, validation=True)
    batches = Batches(photographs, turned, heads, tuple(arguments.shares), arguments.batch, seed=step,
                      threads=1 if device.type == "cpu" else 12)
    training_since = saved = logged = time.monotonic()
    ends = started + arguments.minutes * 60
    totals: dict[str, float] = {}
    log = open(cache / "train.jsonl", "a", encoding="utf-8")

    def checkpoint_now() -> None:
        save(checkpoint, {"network": network.state_dict(), "ema": ema.state_dict(), "step": step, "samples": samples,
                          "optimiser": optimiser.state_dict(), "seconds": seconds + time.monotonic() - training_since})

    network.train()
    wanted = arguments.samples or np.inf
    while (now := time.monotonic()) < ends and samples < wanted:
        done = max((now - training_since) / (ends - training_since), samples / wanted)
        rate = learning_rate(done, step, arguments.rate)
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        photo, head = batches.next()
        count = len(photo[0]) if photo else 0
        images = torch.from_numpy(np.concatenate(([photo[0]] if photo else []) + ([head["image"]] if head else []))).to(device)
        images = (images.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            code = network.encode(images)
        offsets, logits = network.decode(code.float())          # sums of many images need the digits
        offsets = enlarged(offsets, losses.enlarging)
        predicted = offsets + F.avg_pool2d(network.mean, 2)
        expression = torch.sigmoid(logits)
        terms: dict[str, torch.Tensor] = {}
        if photo:
            points, jaw, scores, trust = (torch.from_numpy(part).to(device) for part in photo[1:])
            terms |= losses.sparse(predicted[:count], points)
            terms |= {"outline": losses.outline(predicted[:count], jaw), "smooth": losses.smooth(offsets[:count]),
                      "scores": 100 * ((expression[:count] - scores) ** 2 * trust).sum() / trust.sum().clamp_min(1)}
        if head:
            truth = {key: torch.from_numpy(value).to(device) for key, value in head.items() if key != "image"}
            terms |= losses.dense(predicted[count:], losses.labels(truth))
            terms["arkit"] = 30 * ((expression[count:] - truth["coefficients"][:, -52:]) ** 2).mean()
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
        if time.monotonic() - saved > arguments.checkpoint_every:
            checkpoint_now()
            heads.refresh()
            turned.refresh()
            saved = time.monotonic()
    batches.stopped.set()
    checkpoint_now()
    print(f"validation {validate(ema, losses, held_out, device):.3f} % after {samples} samples")


def main() -> None:
    parser = argparse.ArgumentParser(prog="build.py train", description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--minutes", type=float, required=True, help="time budget of this run")
    parser.add_argument("--heads", type=int, default=20000, help="rendered heads to train on")
    parser.add_argument("--turned", type=int, default=24000, help="turned photographs to train on")
    parser.add_argument("--samples", type=int, help="stop when the network has seen so many in all, if that is sooner")
    parser.add_argument("--shares", type=float, nargs=3, default=SHARES, metavar=("PHOTOGRAPHS", "TURNED", "HEADS"),
                        help="what a batch is made of (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="weigh all of the face alike, for comparison")
    parser.add_argument("--checkpoint-every", type=float, default=120, metavar="SECONDS")
    parser.add_argument("--scratch", action="store_true", help="without a checkpoint, begin from nothing")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.2e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=0, help="torch threads, 0: all")
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    if not (arguments.faces / "points.npz").is_file():
        parser.error(f"'{arguments.faces}' holds no points.npz: give a folder of photographs as docs/training.md describes")
    train(arguments)


if __name__ == "__main__":
    main()
