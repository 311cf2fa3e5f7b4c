"""Trains the small network that reads how far eyes are open: `python -m training.eye_reader --faces FOLDER --epochs 11`.

What it is for and what it sees: `prn_blender/prn/eye_reader.py`. It learns from nothing: from the photographs of FOLDER that are not kept out of training,
of which MediaPipe's points tell the openings, and its scores of the lids besides, which keep it from learning the former's errors by heart, and from
rendered heads. Draws these and cuts the patches into the cache, and writes `weights/eyes`.
"""
from __future__ import annotations

import argparse
import copy
import datetime
import io
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional as F

from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.crop import crop_from_landmarks
from prn_blender.prn.engine import open_engine
from prn_blender.prn.eye_reader import EYE_PIXELS, INPUT, OUTPUTS, patches_of
from prn_blender.prn.network import Residual, convolution
from prn_blender.prn.position_map import SIZE, sample
from prn_blender.prn.weights import write_bundle
from training.averages import blend
from training.cache import default_cache
from training.drawing import SHARD, draw_beside, missing_shards
from training.export import SOURCES, in_halves
from training.halves import HALVES
from training.kit import Kit
from training.measure import EYES, MOUTH, correlation, openings_of
from training.photographs import IBUG_FROM_MEDIAPIPE, Photographs

# What is cut into the cache: patches are shifted, turned and sized anew each time.
CUT_PIXELS = 88
WIDER = CUT_PIXELS / EYE_PIXELS
JUDGED = 1200                   # of the training photographs, left out to follow the training by
BESIDES = "eyeBlink", "eyeSquint", "eyeWide"
OF_SCORES = 0.1                 # their weight
LEAST = 0.1                     # standard deviation of an opening's error, over that of all openings
TOLERANCE = 2e-3                # of a width: what the export may differ by


class EyeNetwork(nn.Module):
    """Patches (N, 64, 64, 3) uint8 to openings and the standard deviations of their errors, both (N,) and over an eye's width."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(3, 24, stride=2),                         # 32
                                  convolution(24, 32, stride=2), Residual(32),          # 16
                                  convolution(32, 64, stride=2), Residual(64),          # 8
                                  convolution(64, 96, stride=2), Residual(96))          # 4
        self.code = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(96 * 4 * 4, 96), nn.ReLU(), nn.Dropout(0.3))
        self.opening, self.scores = nn.Linear(96, 2), nn.Linear(96, len(BESIDES))
        # The mean and the spread of openings, so that the network's own answers are of the order of 1.
        self.register_buffer("level", torch.tensor([0.0, 1.0]))

    def standardised(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Openings and spreads (N,) and scores (N, 3), all over what they vary by."""
        pictures = patches.float().permute(0, 3, 1, 2) / 255
        middle = pictures.mean((1, 2, 3), keepdim=True)
        contrast = (pictures - middle).square().mean((1, 2, 3), keepdim=True).sqrt() + 0.05
        code = self.code(self.body(((pictures - middle) / contrast).contiguous(memory_format=torch.channels_last)))
        opening, spread = self.opening(code).unbind(1)
        return opening, LEAST + F.softplus(spread), self.scores(code)

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        opening, spread, _ = self.standardised(patches)
        return opening * self.level[1] + self.level[0], spread * self.level[1]


# ---- what it learns from -----------------------------------------------------------------------------------------------


@dataclass
class Faces:
    """Pictures of one kind with their labels."""

    name: str  # of their patches in the cache
    pictures: Sequence[np.ndarray]  # N times (H, W, 3) uint8
    landmarks: np.ndarray  # (N, 68, 2) pixels: what the first network's crops are cut by
    openings: np.ndarray  # (N, 2) left eye, right eye
    scores: np.ndarray  # (N, 52)
    believed: np.ndarray  # (N, 2) how far openings and scores are


@dataclass
class Patches:
    """Eyes, person by person, the left one (mirrored) and the right one, wider than the network will see them."""

    pictures: torch.Tensor  # (2 N, 88, 88, 3) uint8
    openings: torch.Tensor  # (2 N,), over an eye's width
    scores: torch.Tensor  # (2 N, 3), over what they vary by
    believed: torch.Tensor  # (2 N, 2)

    def and_those_of(self, other: Patches) -> Patches:
        return Patches(*(torch.cat([getattr(patches, name) for patches in (self, other)]) for name in ("pictures", "openings", "scores", "believed")))


def photographs_of(folder: Path, cache: Path, kit: Kit, validation: bool) -> Faces:
    """Those to learn from, or those kept out of training."""
    photographs = Photographs(folder, cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation)
    scored = photographs.expression_weight.max(1) > 0
    return Faces("held_out" if validation else "photographs", [photographs.pixels[number] for number in photographs.chosen],
                 photographs.points[:, IBUG_FROM_MEDIAPIPE, :2], _eyes_of(photographs.points), photographs.expression,
                 np.stack([photographs.believed, photographs.believed * scored], 1))


def heads_of(folder: Path, count: int, kit: Kit) -> Faces:
    """Rendered heads of the cache, whose openings are known, also where they are turned: there MediaPipe guesses."""
    shards = [np.load(path) for path in sorted(folder.glob("*.npz"))[:-(-count // SHARD)]]
    heads = {key: np.concatenate([shard[key] for shard in shards]) for key in ("image", "landmarks", "coefficients")}
    # MediaPipe's points on each head.
    mean, basis = (sample(maps, kit.mediapipe.astype(np.float32)) for maps in kit.basis_maps(SIZE))
    openings = _eyes_of([mean + np.tensordot(one, basis, 1) for one in heads["coefficients"]])
    count = len(openings)
    return Faces(f"heads_{count}", heads["image"], heads["landmarks"], openings, np.zeros((count, len(ARKIT_NAMES)), np.float32),
                 np.tile(np.float32([1, 0]), (count, 1)))


def _eyes_of(points: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 2) how far left and right eyes are open, of N times (478, 3) points."""
    return np.array([openings_of(one)[1::-1] for one in points], np.float32)


def patches(faces: Faces, cache: Path) -> Patches:
    """From the cache, or cut now: where the first network puts the eyes. Cut by the labels' points, patches would tell what these have wrong."""
    path = cache / f"eyes_{faces.name}.npy"
    if not path.exists():
        engine = open_engine()
        cut = np.empty((len(faces.pictures), 2, CUT_PIXELS, CUT_PIXELS, 3), np.uint8)
        for index, (picture, landmarks) in enumerate(zip(faces.pictures, faces.landmarks)):
            crop = crop_from_landmarks(landmarks)
            found = crop.to_image(engine.topology.landmarks_of(engine.run(crop.cut(picture, engine.input_size)[None])[0][0]))
            left, right = (replace(eye, side=eye.side * WIDER).pixels(picture, CUT_PIXELS) for eye in patches_of(found))
            cut[index] = left[:, ::-1], right
        partial = path.with_suffix(".partial.npy")
        np.save(partial, cut)
        partial.rename(path)
    scores = np.stack([faces.scores[:, [ARKIT_NAMES.index(name + side) for name in BESIDES]] for side in ("Left", "Right")], 1).reshape(-1, len(BESIDES))
    believed = np.repeat(faces.believed, 2, 0).astype(np.float32)
    if (known := believed[:, 1] > 0).any():
        scores = (scores - scores[known].mean(0)) / scores[known].std(0)
    return Patches(*map(torch.from_numpy, (np.load(path).reshape(-1, CUT_PIXELS, CUT_PIXELS, 3), faces.openings.ravel(), scores, believed)))


def seen(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Patches (N, 64, 64, 3) in 0..255 as a network in use might be given them, of wider ones (N, 88, 88, 3)."""
    count, size = len(pictures), EYE_PIXELS

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator)

    pictures = pictures.permute(0, 3, 1, 2).float() / 255
    # The points that a patch is cut by are a little off, and people tilt.
    angle, scale, shift = 0.07 * normal(), torch.exp(0.07 * normal()), 0.06 * normal(2)
    cosine, sine = torch.cos(angle) * scale / WIDER, torch.sin(angle) * scale / WIDER
    matrix = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    places = F.affine_grid(torch.cat([matrix, shift[..., None] / WIDER], 2), (count, 3, size, size), align_corners=False)
    pictures = F.grid_sample(pictures, places, padding_mode="border", align_corners=False)
    chance = torch.rand(2, generator=generator)
    if chance[0] < 0.35:                # far away, or blurred
        small = round(size * (0.35 + 0.5 * float(chance[1])))
        pictures = F.interpolate(F.interpolate(pictures, (small, small), mode="bilinear", antialias=True), (size, size), mode="bilinear")
    pictures = (pictures - 0.5) * torch.exp(0.25 * normal(1, 1, 1)) + 0.5 + 0.08 * normal(1, 1, 1)
    pictures = pictures * torch.exp(0.08 * normal(3, 1, 1))
    pictures = pictures + 0.03 * torch.rand(count, 1, 1, 1, generator=generator) * normal(3, size, size)
    return 255 * pictures.permute(0, 2, 3, 1)


# ---- learning ----------------------------------------------------------------------------------------------------------


def learn(photographs: Patches, heads: Patches, held_out: Patches, arguments: argparse.Namespace) -> EyeNetwork:
    """The averaged network after so many epochs of the heads and of the photographs that are not left out to judge by."""
    network = EyeNetwork().to(memory_format=torch.channels_last)
    middle, extent = photographs.openings.mean(), photographs.openings.std()
    network.level.copy_(torch.stack([middle, extent]))
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), arguments.rate, weight_decay=0.05)
    generator = torch.Generator().manual_seed(arguments.seed)
    people, everybody = len(photographs.openings) // 2, photographs.and_those_of(heads)
    order = torch.randperm(people, generator=torch.Generator().manual_seed(0))
    judged, learned = order[:JUDGED], torch.cat([order[JUDGED:], torch.arange(people, len(everybody.openings) // 2)])
    each, step, started = len(learned) // arguments.batch, 0, time.monotonic()
    for epoch in range(arguments.epochs):
        for chosen in learned[torch.randperm(len(learned), generator=generator)].split(arguments.batch)[:each]:
            for group in optimizer.param_groups:
                group["lr"] = arguments.rate * min(1, (step + 1) / 200) * 0.5 * (1 + np.cos(np.pi * step / (each * arguments.epochs)))
            index = _both(chosen)
            wanted, believed = (everybody.openings[index] - middle) / extent, everybody.believed[index]
            with torch.autocast("cpu", torch.bfloat16, enabled=HALVES):
                opening, spread, scores = (part.float() for part in network.standardised(seen(everybody.pictures[index], generator)))
            # Normal likelihood, weighed by the spread so that what is hard is learned too (Seitzer et al., ICLR 2022).
            likelihood = (0.5 * ((opening - wanted) / spread) ** 2 + torch.log(spread)) * spread.detach()
            loss = ((F.smooth_l1_loss(opening, wanted, reduction="none", beta=0.5) + likelihood) * believed[:, 0]).mean()
            loss = loss + OF_SCORES * ((scores - everybody.scores[index]).square().mean(1) * believed[:, 1]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            blend(average, network, min(0.998, step / (step + 20)))
        print(f"epoch {epoch + 1}, {(time.monotonic() - started) / 60:.1f} min: correlation of those left out {judge(average, everybody, _both(judged)):.4f}, "
              f"of those kept out of training {judge(average, held_out, torch.arange(len(held_out.openings))):.4f}", flush=True)
    return average


def _both(people: torch.Tensor) -> torch.Tensor:
    """Their eyes' numbers."""
    return torch.stack([2 * people, 2 * people + 1], 1).ravel()


@torch.no_grad()
def judge(network: EyeNetwork, eyes: Patches, index: torch.Tensor) -> float:
    """Correlation of the answers with the labels."""
    network.eval()
    edge = (CUT_PIXELS - EYE_PIXELS) // 2
    found = [network(eyes.pictures[some, edge:-edge, edge:-edge])[0] for some in index.split(256)]
    network.train()
    return correlation(torch.cat(found).numpy(), eyes.openings[index].numpy())


def export(network: EyeNetwork, folder: Path, texels: np.ndarray, learned: dict[str, int]) -> None:
    """Write the bundle: float16 tensors and the graph of the very same rounded weights, which is compared with torch first.

    texels: (478, 2) of MediaPipe's points, of which those that openings are measured by go with it. learned: how many of what.
    """
    tensors = {name: values.numpy().astype(np.float16) for name, values in network.state_dict().items()
               if values.is_floating_point() and not name.startswith("scores.")}
    network.load_state_dict({name: torch.from_numpy(values.astype(np.float32)) for name, values in tensors.items()}, strict=False)
    network.eval()
    given = torch.randint(0, 256, (4, EYE_PIXELS, EYE_PIXELS, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (given,), stream, input_names=[INPUT], output_names=list(OUTPUTS), opset_version=17,
                          dynamic_axes={name: {0: "eyes"} for name in (INPUT, *OUTPUTS)}, dynamo=False)
        expected = [part.numpy() for part in network(given)]
    graph = in_halves(onnx.load_from_string(stream.getvalue()), lambda values: values.ndim in (2, 4))
    found = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {INPUT: given.numpy()})
    if (error := max(float(np.abs(a - b).max()) for a, b in zip(found, expected))) > TOLERANCE:
        raise SystemExit(f"The ONNX export differs from torch by {error:.2e} of a width: nothing was written.")
    points = EYES[1], EYES[0], MOUTH
    write_bundle(folder, tensors, graph, {
        "architecture": "eyes", "input_size": str(EYE_PIXELS), "sources": SOURCES, "licence": "CC BY 4.0 (attribution to FairFace)",
        "date": datetime.date.today().isoformat(), "learned": learned,
        "across": [texels[np.array(pairs)].round(3).tolist() for pairs, _ in points],
        "corners": [texels[list(corners)].round(3).tolist() for _, corners in points]})
    print(f"wrote {folder}: {len(graph) / 1e6:.1f} MB, export differs by {error:.1e} of a width")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--heads", type=int, default=6000, help="rendered heads to learn from besides")
    parser.add_argument("--jobs", type=int, default=2, help="processes that draw them")
    parser.add_argument("--epochs", type=int, default=11)
    parser.add_argument("--batch", type=int, default=96, help="people a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "weights" / "eyes")
    arguments = parser.parse_args()
    from training.synthetic import maker        # opens an OpenGL context, which nothing else here needs
    kit, cache = Kit(arguments.cache), arguments.cache
    for process in draw_beside(maker, cache / "heads", cache, arguments.faces, arguments.heads, arguments.jobs):
        process.join()
    if missing_shards(cache / "heads", arguments.heads):
        raise SystemExit(f"Not all heads could be drawn into '{cache / 'heads'}': see above why.")
    photographs, heads, held_out = (patches(faces, cache) for faces in (
        photographs_of(arguments.faces, cache, kit, False), heads_of(cache / "heads", arguments.heads, kit), photographs_of(arguments.faces, cache, kit, True)))
    network = learn(photographs, heads, held_out, arguments)
    export(network, arguments.out, kit.mediapipe, {"photographs": len(photographs.openings) // 2 - JUDGED, "heads": len(heads.openings) // 2})


if __name__ == "__main__":
    main()
