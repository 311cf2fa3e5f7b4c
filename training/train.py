"""Trains the position map network on photographs, turned photographs and rendered heads, mixed in every step.

`python -m training.train --faces DIR --minutes N` makes the face kit and the pictures if they are missing, and trains for
the rest of N minutes on the CPU or on CUDA: from the last checkpoint in the cache; without one from the shipped weights, as far
as they fit; or from nothing (--scratch). It may be killed at any moment: a checkpoint is replaced in one step every two
minutes, and holds all that the next run needs.
Several networks may learn from the same pictures (--encoders), and follow a wide one that has learned before (--teacher), or what a capture says
of a photograph, in several looks (--captured).
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
from collections import deque
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F

from prn_blender.prn.face_fit import reading
from prn_blender.prn.network import DECODER_SIZE, ENCODERS, IMAGES, INPUT_SIZE, PositionMapNetwork
from prn_blender.prn.small_map import Places, mean_in_crop
from prn_blender.prn.weights import SAFETENSORS_NAME, default_folder
from training import captured, synthetic, taught, turned
from training.augment import Dice
from training.cache import default_cache
from training.carried import tensors_of
from training.drawing import SHARD, draw, draw_beside, missing_shards
from training.face_kit import build
from training.halves import HALVES
from training.kit import Kit
from training.photographs import PhotographBatches, Photographs
from training.skins import make_skins
from training.synthetic import FIRST_SHARDS, SyntheticHeads

EMA_DECAY = 0.998
# MediaPipe's points above and below the opening of the right eye, the left one and the mouth.
OPENINGS = ((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373),
            (13, 14), (82, 87), (312, 317), (81, 178), (311, 402))
FALL = 0.4                       # the last share of the budget, over which the rate falls
# Going on from finished weights (--tune): the encoder's first layers stay, every batch is learned from twice (Choi et al., "Faster Neural Network Training
# with Data Echoing", 2019), the second time after so many others, and the rate falls nearly all the time.
KEPT, BETWEEN, TUNED_FALL = 2, 5, 0.8
SHARES = 0.6, 0.2, 0.2           # of a batch: photographs, turned photographs, rendered heads


class Readings:
    """Places on the map, at which maps of the decoder's size are read as their whole maps would be (`small_map.Places`)."""

    def __init__(self, texels: np.ndarray, device: torch.device) -> None:
        """texels (K, 2): columns and rows of a whole map."""
        places = Places(texels, DECODER_SIZE)
        self.cells = torch.tensor(places.cells.T.copy(), device=device)
        self.share = torch.tensor(places.shares.T.copy(), dtype=torch.float32, device=device)
        self.beyond = torch.tensor(places.beyond, dtype=torch.float32, device=device)

    def between(self, difference: torch.Tensor) -> torch.Tensor:
        """The difference (N, 3, S, S) of two maps at these places, (N, K, 3)."""
        read = difference.flatten(2).index_select(2, self.cells.flatten()).unflatten(2, self.cells.shape)
        return (read * self.share).sum(2).transpose(1, 2)

    def of(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (N, 3, S, S) at these places, (N, K, 3)."""
        return self.between(maps) + self.beyond


class Losses:
    """The terms of the loss on one device; all positions in crop units, all terms in percent of the crop."""

    def __init__(self, kit: Kit, device: torch.device, plain: bool = False) -> None:
        """plain: every texel of the face and every point counts alike, for comparison with the weighted loss."""
        size = DECODER_SIZE                             # maps are compared as they are mixed
        step = len(kit.topology.weights) // size
        weights = (kit.topology.mask if plain else kit.topology.weights).astype(np.float32)
        weights = weights.reshape(size, step, size, step).mean((1, 3))
        self.weights = torch.tensor(weights / weights.mean(), device=device)[None, None]
        mean, basis = kit.basis_maps(size)
        self.mean = torch.tensor(mean, device=device)                           # (S, S, 3)
        self.basis = torch.tensor(basis.reshape(len(basis), -1), device=device)
        # (3, S, S) the mean map in crop units.
        self.mean_in_crop = torch.tensor(reading(mean_in_crop(kit.topology)).transpose(2, 0, 1).copy(), device=device)
        texels = kit.mediapipe[kit.mediapipe_usable]
        self.points = Readings(texels, device)
        lifted = np.flatnonzero(kit.mediapipe_usable).tolist()
        self.upper, self.lower = (torch.tensor([lifted.index(pair[k]) for pair in OPENINGS], device=device) for k in (0, 1))
        face = kit.topology.mask & ~kit.topology.regions["ears"] & ~kit.topology.regions["neck"]
        inside = face.reshape(size, step, size, step).all((1, 3))
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
        maps = torch.cat([flat, z[..., None]], 2).transpose(1, 2).reshape(len(shape), 3, size, size)
        # The layout is its own mirror image.
        return torch.where(heads["mirrored"][:, None, None, None], maps.flip(3) * maps.new_tensor([-1, 1, 1])[:, None, None], maps)

    def dense(self, predicted: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        """Known maps: weighted L1, L1 of first differences, and how far eyes and mouth are open."""
        error = predicted - target
        return {"map": 100 * (error.abs() * self.weights).mean(),
                "slope": 125 * _slope(error),
                "lids": 100 * self.openings(self.points.between(error)).abs().mean()}

    def openings(self, points: torch.Tensor) -> torch.Tensor:
        """(N, P, 2) from the lower lids and lip to the upper, of MediaPipe's usable points (N, K, 2+)."""
        points = points[..., :2]
        return points.index_select(1, self.upper) - points.index_select(1, self.lower)

    def sparse(self, predicted: torch.Tensor, points: torch.Tensor, straight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Photographs: L1 at MediaPipe's points (N, K, 4; last their trust), as far as they are not skewed (N,), x, y in full, z softly and
        up to an offset."""
        error, trust = self.points.of(predicted) - points[..., :3], points[..., 3:]
        offset = (error[..., 2:] * trust).sum(1, keepdim=True) / trust.sum(1, keepdim=True).clamp_min(1e-3)
        weights = self.point_weights * trust * straight[:, None, None]
        both = torch.minimum(trust[:, self.upper], trust[:, self.lower])
        return {"points": 200 * (error[..., :2].abs() * weights).mean(),
                "openings": 300 * (self.openings(error).abs() * both).mean(),
                "depth": 60 * ((error[..., 2:] - offset).abs() * weights).mean()}

    def said(self, photo: dict[str, torch.Tensor]) -> torch.Tensor:
        """A teacher's maps of photographs (N, 3, S, S), in the units of their crops."""
        maps = (photo["said_offsets"] + self.mean_in_crop).flatten(2)
        flat = photo["said_crop"][:, :, :2] @ maps[:, :2] + photo["said_crop"][:, :, 2:]
        return torch.cat([flat, maps[:, 2:] * photo["said_depth"][:, None, None]], 1).unflatten(2, self.mean.shape[:2])

    def follow(self, predicted: torch.Tensor, expression: torch.Tensor, photo: dict[str, torch.Tensor], wide: bool) -> dict[str, torch.Tensor]:
        """Photographs, as a teacher sees them: its map, how far eyes and mouth are open, its ARKit weights.

        A wide network's map is followed as far as the face looks into the camera: no label has told it where the hidden side of a turned head is,
        and what it is off there grows from teacher to pupil. A capture is only the same network in more looks, and is followed everywhere.
        """
        error = predicted - self.said(photo)
        believed = photo["frontal"][:, None, None, None] if wide else 1
        return {"follow": 300 * (error.abs() * self.weights * believed).mean(),
                "follow_slope": 75 * _slope(error * believed),
                "follow_openings": 200 * self.openings(self.points.between(error)).abs().mean(),
                "follow_scores": 100 * ((expression - photo["said_scores"]) ** 2).mean()}

    def outline(self, predicted: torch.Tensor, jaw: torch.Tensor, frontal: torch.Tensor) -> torch.Tensor:
        """Photographs, as far as they are from the front (N,): the face reaches as far outwards as the jaw's outline (N, J, 2).

        Points slide along an outline, and on the map other texels lie on it for every pose; so it is its tangents that
        the face's outermost texels have to touch.
        """
        along = jaw[:, 2:] - jaw[:, :-2]
        normals = F.normalize(torch.stack([along[..., 1], -along[..., 0]], -1), dim=-1)
        middle = jaw[:, 1:-1]
        normals = normals * torch.sign(((middle - predicted[:, :2].mean((2, 3))[:, None].detach()) * normals).sum(-1, keepdim=True))
        reach = (normals @ predicted[:, :2].flatten(2).index_select(2, self.face)).amax(2)
        return 30 * ((reach - (normals * middle).sum(-1)).abs() * frontal[:, None]).mean()

    @staticmethod
    def smooth(offsets: torch.Tensor) -> torch.Tensor:
        """Second differences of the offset from the mean, where no label says what the skin between points does."""
        return 25 * (offsets.diff(n=2, dim=2).abs().mean() + offsets.diff(n=2, dim=3).abs().mean())


def _slope(error: torch.Tensor) -> torch.Tensor:
    return error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()


Batch = tuple[dict[str, torch.Tensor] | None, dict[str, torch.Tensor] | None]


class Batches:
    """Mixed batches from a background thread, so that augmentation runs beside the network: photographs, and pictures whose maps are
    known. Another thread reads the shards that are drawn meanwhile."""

    def __init__(self, photographs: PhotographBatches, turned: SyntheticHeads, heads: SyntheticHeads, shares: tuple[float, ...],
                 size: int, dice: Dice) -> None:
        self.sources = photographs, turned, heads
        first, second = round(size * shares[0]), round(size * shares[1])
        self.counts = first, second, size - first - second
        self.dice = dice
        # A stream of its own: finding out how many pictures to blur must not wait for the network.
        self.stream = torch.cuda.Stream() if dice.device.type == "cuda" else None
        self.queue: queue.Queue = queue.Queue(3)
        self.stopped = threading.Event()
        self.error: BaseException | None = None
        for work in (self._produce, self._refresh):
            threading.Thread(target=work, daemon=True).start()

    def _produce(self) -> None:
        try:
            with torch.cuda.stream(self.stream):            # does nothing without one
                while not self.stopped.is_set():
                    batch = self._batch()
                    self.queue.put((batch, self.stream.record_event() if self.stream else None))
        except BaseException as error:                      # shown by the main thread
            self.error = error
            self.queue.put(None)

    def _batch(self) -> Batch:
        photographs, *rest = (source.batch(self.dice, count, INPUT_SIZE) if count else None
                              for source, count in zip(self.sources, self.counts))
        known = [part for part in rest if part is not None]
        return photographs, {key: torch.cat([part[key] for part in known]) for key in known[0]} if known else None

    def _refresh(self) -> None:
        while not self.stopped.wait(2):
            for source in self.sources[1:]:
                source.refresh()

    def next(self) -> Batch:
        item = self.queue.get()
        if item is None:
            raise RuntimeError("the data thread failed") from self.error
        batch, ready = item
        if ready:
            torch.cuda.current_stream().wait_event(ready)
            for part in filter(None, batch):
                for values in part.values():
                    values.record_stream(torch.cuda.current_stream())
        return batch


class Echoing:
    """Batches of which each comes twice, with others between: where drawing takes longer than learning."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.waiting: deque[Batch] = deque()

    def next(self) -> Batch:
        if len(self.waiting) > BETWEEN:
            return self.waiting.popleft()
        self.waiting.append(self.batches.next())
        return self.waiting[-1]


def learning_rate(progress: float, step: int, peak: float, fall: float = FALL) -> float:
    """Warm-up, a plateau, and a fall to nothing over the last share, `fall`, of the budget, time or samples (warmup-stable-decay)."""
    return peak * min(1.0, (step + 1) / 300) * min(1.0, max(0.0, (1 - progress) / fall))


def predict(network: PositionMapNetwork, images: torch.Tensor, losses: Losses, kept: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps (N, 3, DECODER_SIZE, DECODER_SIZE), their offsets from the mean, and ARKit weights (N, 52). kept: so many of the encoder's first
    layers do not learn."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda or HALVES):
        first, rest = network.encoder[:kept].eval(), network.encoder[kept:]
        with torch.no_grad():
            seen = first(images)
        code = network.code(rest(seen)).flatten(1)
    offsets, logits = network.decode(code.float())      # sums of many images need the digits
    return offsets + losses.mean_in_crop, offsets, torch.sigmoid(logits)


class Learner:
    """A network, its averaged weights and its optimiser."""

    def __init__(self, encoder: str, mean: np.ndarray, device: torch.device) -> None:
        self.network = PositionMapNetwork(mean, encoder).to(device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.network)
        decayed = [p for p in self.network.parameters() if p.ndim > 1 and p is not self.network.images]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        # The UV images begin as the shape space's own (`start_from`), and move slowly so that they stay smooth.
        self.optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.03, "share": 1.0},
                                            {"params": others, "weight_decay": 0, "share": 1.0},
                                            {"params": [self.network.images], "weight_decay": 0, "share": 0.05}],
                                           betas=(0.9, 0.99), fused=True)

    def start_from(self, images: torch.Tensor, tensors: dict[str, np.ndarray]) -> int:
        """Begins with these UV images and takes over the tensors that fit by name and shape; how many did."""
        self.network.images.data.copy_(images)
        mine = self.network.state_dict()
        fitting = {name: torch.from_numpy(value.astype(np.float32)) for name, value in tensors.items()
                   if name in mine and mine[name].shape == value.shape}
        self.network.load_state_dict(fitting, strict=False)
        self.ema.load_state_dict(self.network.state_dict())
        return len(fitting)

    def state(self) -> dict:
        return {"network": self.network.state_dict(), "ema": self.ema.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])

    def step(self, loss: torch.Tensor, rate: float, number: int) -> None:
        """One step down a loss; the averaged weights follow."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        decay = min(EMA_DECAY, (1 + number) / (10 + number))
        with torch.no_grad():
            mine, others = list(self.ema.state_dict().values()), list(self.network.state_dict().values())
            floating = [k for k, value in enumerate(mine) if value.dtype.is_floating_point]
            torch._foreach_lerp_([mine[k] for k in floating], [others[k] for k in floating], 1 - decay)
            for k, value in enumerate(mine):
                if not value.dtype.is_floating_point:
                    value.copy_(others[k])


class Validation:
    """Photographs kept out of training, cut once."""

    def __init__(self, photographs: Photographs, device: torch.device) -> None:
        samples = [photographs.upright(index, INPUT_SIZE) for index in range(600)]
        self.images = torch.tensor(np.stack([image for image, _ in samples]), device=device)
        self.points = torch.tensor(np.stack([points for _, points in samples]), device=device)

    @torch.no_grad()
    def error(self, network: PositionMapNetwork, losses: Losses) -> float:
        """Mean 2D error of MediaPipe's points, in percent of the face's size."""
        network.eval()
        total = []
        for images, points in zip(self.images.split(50), self.points.split(50)):
            offsets, _ = network.decode(network.encode(images.permute(0, 3, 1, 2).float() / 255))
            found = losses.points.of(offsets + losses.mean_in_crop)
            error = (found - points[..., :3])[..., :2].norm(dim=-1).mean(1)
            extent = points[..., :2].amax(1) - points[..., :2].amin(1)
            total.append(error / extent.prod(1).sqrt())
        return float(100 * torch.cat(total).mean())


def uv_images(losses: Losses, dice: Dice, *data: SyntheticHeads) -> torch.Tensor:
    """(IMAGES, 64, 64) the principal images of known maps' coordinates, each scaled to how much it is used."""
    maps = [losses.labels(heads.batch(dice, 50, INPUT_SIZE, pictured=False)).cpu() for _ in range(20) for heads in data]
    flat = (torch.cat(maps) - losses.mean_in_crop.cpu()).flatten(0, 1).flatten(1)
    weights = (losses.weights.flatten().cpu() + 0.05).sqrt()
    _, sizes, images = torch.svd_lowrank(flat * weights, q=IMAGES + 20, niter=4)
    images = images[:, :IMAGES].T / weights * (sizes[:IMAGES, None] / len(flat) ** 0.5)
    rest = flat - flat @ torch.linalg.pinv(images) @ images
    print(f"UV images leave {100 * rest.square().mean().sqrt():.3f} % of the crop unexplained", flush=True)
    return images.reshape(IMAGES, DECODER_SIZE, DECODER_SIZE)


def save(path: Path, state: dict) -> None:
    """Replace the checkpoint in one step."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def prepare(arguments: argparse.Namespace) -> tuple[Kit, Photographs]:
    """What the pictures are made of, made if it is missing, and the pictures: all of them now, or by --jobs processes beside training."""
    cache, faces = arguments.cache, arguments.faces
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "kit.npz").exists():
        build(cache, faces)
    kit = Kit(cache)
    photographs = Photographs(faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=False)
    make_skins(kit, photographs, cache / "skins.npy")
    turned.place_photographs(cache, photographs, kit)
    processes: list[BaseProcess] = []
    kinds = ((synthetic.maker, cache / "heads", arguments.heads), (turned.maker, cache / "turned", arguments.turned))
    for maker, folder, count in kinds:
        if arguments.jobs:
            processes += draw_beside(maker, folder, cache, faces, count, arguments.jobs)
        else:
            draw(maker, folder, cache, faces, missing_shards(folder, count))
    while any(missing_shards(folder, min(count, FIRST_SHARDS * SHARD)) for _, folder, count in kinds):
        if any(process.exitcode for process in processes):
            raise SystemExit("A process that draws pictures has failed; its message is above.")
        time.sleep(0.2)
    return kit, photographs


def first_tensors(encoder: str, arguments: argparse.Namespace) -> dict[str, np.ndarray]:
    """What a network begins with where there is no checkpoint: nothing, what was carried back from a GPU, or the shipped weights."""
    if arguments.begin:
        return tensors_of(arguments.begin, encoder)
    if arguments.scratch or encoder != "light":
        return {}
    return load_file(default_folder() / SAFETENSORS_NAME)


def loss_terms(learner: Learner, images: torch.Tensor, batch: Batch, truth: torch.Tensor | None, losses: Losses,
               wide: bool, kept: int) -> dict[str, torch.Tensor]:
    """The terms of the loss. truth: the known maps; wide: whether it is a wide network that is followed; kept: as in `predict`."""
    photo, head = batch
    predicted, offsets, expression = predict(learner.network, images, losses, kept)
    count = len(photo["image"]) if photo else 0
    terms: dict[str, torch.Tensor] = {}
    if photo:
        trust = photo["believed"]
        terms |= losses.sparse(predicted[:count], photo["points"], photo["straight"])
        terms |= {"outline": losses.outline(predicted[:count], photo["jaw"], photo["frontal"]), "smooth": losses.smooth(offsets[:count]),
                  "scores": 100 * ((expression[:count] - photo["scores"]) ** 2 * trust).sum() / trust.sum().clamp_min(1)}
        if "said_offsets" in photo:
            terms |= losses.follow(predicted[:count], expression[:count], photo, wide)
    if head:
        terms |= losses.dense(predicted[count:], truth)
        terms["arkit"] = 30 * ((expression[count:] - head["weights"]) ** 2).mean()
    return terms


def train(arguments: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    cache: Path = arguments.cache
    started = time.monotonic()
    kit, photographs = prepare(arguments)
    held_out = Validation(Photographs(arguments.faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True), device)
    losses = Losses(kit, device, arguments.plain)
    heads, turned_ones = SyntheticHeads(cache / "heads", device), SyntheticHeads(cache / "turned", device)
    mean = mean_in_crop(kit.topology)
    said = None
    if arguments.teacher:
        said = taught.answers(arguments.teacher, cache, photographs, mean, device)
    elif arguments.captured:
        said = captured.answers(cache, photographs)
    learners = {name: Learner(name, mean, device) for name in arguments.encoders}
    checkpoint = cache / "checkpoint.pt"
    step, samples, seconds = 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["learners"].keys() != learners.keys():
            raise SystemExit(f"The checkpoint '{checkpoint}' is of other networks: go on with --encoders "
                             f"{' '.join(state['learners'])}, or move it away.")
        for name, learner in learners.items():
            learner.load(state["learners"][name])
        step, samples, seconds = state["step"], state["samples"], state["seconds"]
        print(f"going on from step {step}, {samples} samples, {seconds / 3600:.2f} h", flush=True)
    else:
        images = uv_images(losses, Dice(0, device), heads, turned_ones)
        for name, learner in learners.items():
            tensors = first_tensors(name, arguments)
            print(f"{name}: beginning with {learner.start_from(images, tensors)} of {len(tensors)} tensors", flush=True)
    batches = Batches(PhotographBatches(photographs, device, said), turned_ones, heads, tuple(arguments.shares),
                      arguments.batch, Dice(step + 1, device))
    echoing = Echoing(batches) if arguments.tune else batches
    training_since = saved = logged = time.monotonic()
    ends = started + arguments.minutes * 60
    totals: dict[str, torch.Tensor] = {}
    log = open(cache / "train.jsonl", "a", encoding="utf-8")

    def checkpoint_now() -> None:
        save(checkpoint, {"learners": {name: learner.state() for name, learner in learners.items()}, "step": step,
                          "samples": samples, "seconds": seconds + time.monotonic() - training_since})

    wanted = arguments.samples or np.inf
    while (now := time.monotonic()) < ends and samples < wanted:
        done = max((now - training_since) / (ends - training_since), samples / wanted)
        rate = learning_rate(done, step, arguments.rate, TUNED_FALL if arguments.tune else FALL)
        batch = echoing.next()
        pictures = torch.cat([part["image"] for part in batch if part]).contiguous(memory_format=torch.channels_last)
        truth = losses.labels(batch[1]) if batch[1] else None
        for name, learner in learners.items():
            learner.network.train()
            terms = loss_terms(learner, pictures, batch, truth, losses, bool(arguments.teacher), KEPT if arguments.tune else 0)
            learner.step(sum(terms.values()), rate, step)
            for key, value in terms.items():
                key = f"{name} {key}"
                totals[key] = totals.get(key, 0) + value.detach()
        step, samples = step + 1, samples + len(pictures)
        if step % 20 == 0:
            row = {"step": step, "samples": samples, "rate": rate,
                   **{key: round(float(value) / 20, 3) for key, value in totals.items()}}
            row["samples_per_second"] = 20 * len(pictures) / (time.monotonic() - logged)
            if step % 1000 == 0:
                row |= {f"{name} validation": held_out.error(learner.ema, losses) for name, learner in learners.items()}
            print(json.dumps(row), flush=True)
            log.write(json.dumps(row) + "\n")
            log.flush()
            totals, logged = {}, time.monotonic()
        if time.monotonic() - saved > arguments.checkpoint_every:
            checkpoint_now()
            saved = time.monotonic()
    batches.stopped.set()
    checkpoint_now()
    for name, learner in learners.items():
        print(f"{name}: validation {held_out.error(learner.ema, losses):.3f} % after {samples} samples")


def main() -> None:
    parser = argparse.ArgumentParser(prog="build.py train", description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--minutes", type=float, required=True, help="time budget of this run")
    parser.add_argument("--heads", type=int, default=20000, help="rendered heads to train on")
    parser.add_argument("--turned", type=int, default=24000, help="turned photographs to train on")
    parser.add_argument("--samples", type=int, help="stop when the network has seen so many in all, if that is sooner")
    parser.add_argument("--shares", type=float, nargs=3, default=SHARES, metavar=("PHOTOGRAPHS", "TURNED", "HEADS"),
                        help="what a batch is made of (default: %(default)s)")
    parser.add_argument("--encoders", nargs="+", choices=tuple(ENCODERS), default=["light"],
                        help="the networks to train (default: light, the shipped one; wide: its teacher)")
    parser.add_argument("--teacher", type=Path, metavar="FOLDER",
                        help="weights of a trained wide network (training.pack --weights) whose answers the networks follow")
    parser.add_argument("--captured", action="store_true",
                        help="follow what a capture with the shipped weights says of each photograph, in several looks")
    parser.add_argument("--tune", action="store_true", help="go on from finished weights on a CPU: the first layers stay, batches come twice")
    parser.add_argument("--jobs", type=int, default=0, metavar="N",
                        help="draw pictures in N processes a kind while training goes on (default: all of them before it, here)")
    parser.add_argument("--plain", action="store_true", help="weigh all of the face alike, for comparison")
    parser.add_argument("--checkpoint-every", type=float, default=120, metavar="SECONDS")
    parser.add_argument("--scratch", action="store_true", help="without a checkpoint, begin from nothing")
    parser.add_argument("--begin", type=Path, metavar="FOLDER", help="without a checkpoint, begin with the weights in this folder (training.pack)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1.2e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=0, help="torch threads, 0: all")
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    if not (arguments.faces / "points.npz").is_file():
        parser.error(f"'{arguments.faces}' holds no points.npz: give a folder of photographs as docs/training.md describes")
    if arguments.teacher and arguments.captured:
        parser.error("give --teacher or --captured: photographs have one answer to follow")
    if arguments.teacher and not list(arguments.teacher.glob("wide-*.safetensors")):
        parser.error(f"'{arguments.teacher}' holds no weights of a wide network: give a folder that training.pack --weights wrote")
    train(arguments)


if __name__ == "__main__":
    main()
