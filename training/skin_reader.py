"""Trains the small network that tells expressions by comparing a face with itself at rest: `python -m training.skin_reader --faces FOLDER --minutes 45`.

What it is for and what it sees: `prn_blender/prn/skin_reader.py`. Draws `--people` people into the cache (`training.same_person`), learns from them
with the averaged weights of every two minutes kept in `<cache>/skin_reader.pt`, and writes `weights/skin`. The shipped first network must be there: its
maps are what the pictures are laid out by.
"""
from __future__ import annotations

import argparse
import copy
import datetime
import io
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

from prn_blender.prn.arkit import ARKIT_NAMES, MIRRORED
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.network import Residual, convolution
from prn_blender.prn.position_map import SIZE
from prn_blender.prn.skin_motion import WINDOW
from prn_blender.prn.skin_reader import GIVEN, OF_REST, OUTPUTS
from prn_blender.prn.weights import load_bundle, load_tensors, write_bundle
from training.averages import blend
from training.cache import default_cache
from training.drawing import SHARD, draw_beside, missing_shards
from training.export import SOURCES
from training.halves import HALVES
from training.quantize import answers, in_8_bits

HELD_OUT = SHARD                # people
REST = -1                       # in a pair: the mean of the two pictures at rest
LEAST = 0.03                    # of a weight: nobody knows one better
MIXED = 0.5                     # of another person, at most
DETAILS = 8                     # features of the pictures as fine as they are
LEFT_TO_RIGHT = torch.tensor([1.0, -1, -1, -1, 1, 1])       # what mirroring makes of a rotation's first two rows
TOLERANCE = 2e-3                # of a weight
IN_8_BITS = 0.01                # the same, RMS: what 8 bits may cost


def _levels(pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 1, 1) twice, the middle of pictures (N, H, W) and their contrast; a blank one has some, too."""
    return pictures.mean((1, 2), keepdim=True), pictures.std((1, 2), keepdim=True) + 8


class SkinNetwork(nn.Module):
    """Inputs and outputs as `SkinReader.read` has them."""

    def __init__(self) -> None:
        super().__init__()
        self.detail = convolution(2, DETAILS, stride=2)                                                # 112x96 to 56x48: the rims of lips
        self.fine = nn.Sequential(convolution(6 + DETAILS, 16), convolution(16, 32, stride=2))          # 28x24
        self.coarse = nn.Sequential(convolution(32 + 6, 64, stride=2), Residual(64),                   # 14x12
                                     convolution(64, 96, stride=2), Residual(96))                       # 7x6
        self.code = nn.Sequential(nn.Linear(96 * 7 * 6, 192, bias=False), nn.BatchNorm1d(192), nn.ReLU(), nn.Dropout(0.2))
        count = len(ARKIT_NAMES)
        self.answer = nn.Sequential(nn.Linear(192 + 2 * count + 12, 192), nn.ReLU(), nn.Linear(192, 2 * count))
        self.first = nn.Parameter(torch.full((count,), 0.8))        # how far the first network is believed

    def forward(self, picture, motion, unlike, map, weights, rotation, rest_picture, rest_map, rest_weights, rest_rotation):
        middle, contrast = _levels(rest_picture)
        rest, shown = (rest_picture - middle) / contrast, (picture - middle) / contrast
        shown = shown - shown.mean((1, 2), keepdim=True)            # light that changes is no motion
        unlike = 4 * (unlike / contrast).clamp(-1, 1)
        both = torch.stack([rest, shown], 1)
        skin = torch.cat([F.avg_pool2d(both, 2), motion.permute(0, 3, 1, 2), unlike[:, None], F.avg_pool2d(unlike[:, None].abs(), 3, 1, 1),
                          self.detail(both)], 1)
        maps = torch.cat([(map - rest_map) * 333, rest_map * 100], 3).permute(0, 3, 1, 2)               # metres to the order of 1
        code = self.code(self.coarse(torch.cat([self.fine(skin), maps], 1)).flatten(1))
        answer = self.answer(torch.cat([code, rest_weights, weights, rest_rotation, rotation], 1))
        change, spread = answer.split(len(ARKIT_NAMES), 1)
        return change + self.first * (weights - rest_weights), LEAST + F.softplus(spread)


class Pairs:
    """The drawn people in memory, as batches of pairs of their pictures."""

    def __init__(self, shards: list[Path]) -> None:
        parts = [np.load(path) for path in shards]          # read one kind of values after the other: all twice would not fit in memory
        self.people = {key: torch.from_numpy(np.concatenate([part[key] for part in parts])) for key in parts[0]}
        people, pairs = self.people["pairs"].shape[:2]
        self.count, self.pairs = people * pairs, pairs
        self.swapped = torch.tensor(MIRRORED)

    def batch(self, index: torch.Tensor, generator: torch.Generator | None = None) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The network's inputs for some pairs (N,) and how far the true weights change (N, 52); with a generator mirrored, and lit otherwise, at random."""
        person, pair = index // self.pairs, index % self.pairs
        first, second = self.people["pairs"][person, pair].long().T
        names = {"picture": "pictures", "map": "maps", "weights": "network", "rotation": "rotations", "true": "weights"}

        def of(which: torch.Tensor, name: str) -> torch.Tensor:
            values = self.people[names[name]]
            found = values[person, which.clamp(min=0)].float()
            mean = which == REST
            found[mean] = values[person[mean], :2].float().mean(1)
            return found[:, WINDOW[0], WINDOW[1]] if name == "picture" else found

        inputs = {name: of(second, name) for name in ("picture", "map", "weights", "rotation")}
        inputs |= {f"rest_{name}": of(first, name) for name in OF_REST}
        inputs["motion"], inputs["unlike"] = self.people["motion"][person, pair].float(), self.people["unlike"][person, pair].float() / 2
        true = of(second, "true") - of(first, "true")
        if generator is None:
            return inputs, true
        hit = torch.rand(len(index), generator=generator) < 0.5
        inputs = {name: _where(hit, self._mirrored(name, values), values) for name, values in inputs.items()}
        inputs = _mixed(inputs, generator)
        return inputs | {"picture": _lit(inputs["picture"], generator)}, _where(hit, true[:, self.swapped], true)

    def _mirrored(self, name: str, values: torch.Tensor) -> torch.Tensor:
        kind = name.removeprefix("rest_")
        if kind == "weights":
            return values[:, self.swapped]
        if kind == "rotation":
            return values * LEFT_TO_RIGHT
        return values.flip(2) * {"map": torch.tensor([-1.0, 1, 1]), "motion": torch.tensor([-1.0, 1])}.get(kind, torch.ones(1))


def _where(hit: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.where(hit.reshape(-1, *[1] * (one.ndim - 1)), one, other)


def _mixed(inputs: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Most people get some of the looks and the shape of the next one in the batch, which move as they do themselves: that nobody is known by heart."""
    rest, motion = inputs["rest_picture"], inputs["motion"]
    count, height, width = rest.shape
    share = MIXED * torch.rand(count, 1, 1, generator=generator)
    mean, contrast = _levels(rest)
    other = mean + contrast * ((rest - mean) / contrast).roll(1, 0)
    # Where what is seen in the frame was at rest; grid_sample counts from -1 to 1 over the picture.
    whole = F.interpolate(motion.permute(0, 3, 1, 2), (height, width), mode="bilinear").permute(0, 2, 3, 1)
    here = torch.stack(torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy"), -1)
    places = 2 * (here - whole) / torch.tensor([width, height]) - 1
    moved = F.grid_sample(other[:, None], places, padding_mode="border", align_corners=False)[:, 0]
    shape = share[..., None] * (inputs["rest_map"].roll(1, 0) - inputs["rest_map"])
    return inputs | {"rest_picture": (1 - share) * rest + share * other, "picture": (1 - share) * inputs["picture"] + share * moved,
                     "unlike": (1 - share) * inputs["unlike"], "rest_map": inputs["rest_map"] + shape, "map": inputs["map"] + shape}


def _lit(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Pictures (N, 112, 96) brighter or darker, in all and to one side, and noisier."""
    count, height, width = pictures.shape

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator)

    down, across = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    light = 1 + 0.08 * (normal(1, 1) + normal(1, 1) * down + normal(1, 1) * across)
    noise = 3 * torch.rand(count, 1, 1, generator=generator)
    return pictures * light + 4 * normal(1, 1) + noise * normal(height, width)


def loss_of(change: torch.Tensor, spread: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Normal likelihood, weighed by the spread so that what is hard is learned too (Seitzer et al., ICLR 2022), and the squared error."""
    square = (change - true) ** 2
    likelihood = (0.5 * square / spread ** 2 + torch.log(spread)) * spread.detach()
    return 10 * likelihood.mean() + 20 * square.mean()


def judge(network: SkinNetwork, held_out: Pairs) -> str:
    """Correlation with the truth over all weights, of expressions against rest, and the mean absolute error; of the first network's too."""
    pairs = held_out.people["pairs"].reshape(-1, 2)
    found, first, truth = [], [], []
    network.eval()
    with torch.no_grad():
        for index in torch.nonzero(pairs[:, 0] == REST)[:, 0].split(256):
            inputs, true = held_out.batch(index)
            found.append(network(**inputs)[0])
            first.append(inputs["weights"] - inputs["rest_weights"])
            truth.append(true)
    network.train()
    found, first, truth = (torch.cat(values).numpy() for values in (found, first, truth))
    words = []
    for name, values in (("", found), ("first network ", first)):
        each = [np.corrcoef(values[:, k], truth[:, k])[0, 1] for k in range(truth.shape[1])]
        words.append(f"{name}correlation {np.mean(each):.3f}, error {np.abs(values - truth).mean():.4f}")
    return "; ".join(words)


def begun(folder: Path) -> SkinNetwork:
    """The network with the weights of a bundle. A layer that has got more inputs since begins with nothing for these. Raises CaptureError if the
    bundle is missing, damaged, or another network's."""
    network = SkinNetwork()
    state, tensors = network.state_dict(), load_tensors(load_bundle(folder))
    if not tensors.keys() <= state.keys():
        raise CaptureError(f"'{folder}' holds the weights of another network: give those of weights/skin.")
    for name, values in tensors.items():
        values = torch.from_numpy(values.astype(np.float32))
        if values.shape != state[name].shape:
            state[name].zero_()
        state[name][tuple(slice(length) for length in values.shape)] = values
    network.load_state_dict(state)
    return network


def learn(network: SkinNetwork, pairs: Pairs, held_out: Pairs, kept: Path, arguments: argparse.Namespace) -> tuple[SkinNetwork, int]:
    """The averaged network after the time budget, and how many pairs it has seen."""
    network = network.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), arguments.rate, weight_decay=0.05)
    generator = torch.Generator().manual_seed(1)
    started = told = time.monotonic()
    step = 0
    while (done := (time.monotonic() - started) / (60 * arguments.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * min(1, (step + 1) / 100) * min(1, 2 * (1 - done))
        inputs, true = pairs.batch(torch.randint(pairs.count, (arguments.batch,), generator=generator), generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=HALVES):
            answer = network(**inputs)
        loss = loss_of(*(part.float() for part in answer), true)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        keep = min(0.998, step / (step + 20))
        blend(average, network, keep)
        if time.monotonic() - told > 120:
            told = time.monotonic()
            print(f"{(told - started) / 60:.0f} min, {step * arguments.batch} pairs: {judge(average, held_out)}", flush=True)
            partial = kept.with_suffix(".partial")
            torch.save(average.state_dict(), partial)
            partial.rename(kept)
    torch.save(average.state_dict(), kept)
    return average, step * arguments.batch


def mean_of(one: SkinNetwork, other: SkinNetwork) -> SkinNetwork:
    """The network with the means of two networks' weights, which began alike and learned from other pairs or longer: better than either on people kept
    out (Wortsman et al., "Model soups", ICML 2022)."""
    mean = copy.deepcopy(one)
    blend(mean, other, 0.5)
    return mean


def export(network: SkinNetwork, folder: Path, learned: int, people: int, pairs: Pairs) -> None:
    """Write the bundle: float16 tensors and the graph of the very same rounded weights, most of it in 8 bits, which is compared with torch first.
    pairs: on which the ranges for these are found."""
    tensors = {name: values.numpy().astype(np.float16) for name, values in network.state_dict().items() if values.is_floating_point()}
    network.load_state_dict({name: torch.from_numpy(values.astype(np.float32)) for name, values in tensors.items()}, strict=False)
    network.eval()
    generator = torch.Generator().manual_seed(0)
    found_on, others = ([pairs.batch(torch.randint(pairs.count, (32,), generator=generator))[0] for _ in range(16)] for _ in range(2))
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, tuple(found_on[0][name] for name in GIVEN), stream, input_names=list(GIVEN), output_names=list(OUTPUTS), opset_version=17,
                          dynamic_axes={name: {0: "frames"} for name in (*GIVEN, *OUTPUTS)}, dynamo=False)
        expected = [[part.numpy() for part in network(**inputs)] for inputs in others]
    found_on, others = ([{name: inputs[name].numpy() for name in GIVEN} for inputs in examples] for examples in (found_on, others))
    # The first layers see inputs of many ranges at once, and are small.
    graph = in_8_bits(onnx.load_from_string(stream.getvalue()), found_on, ("/detail/", "/fine/fine.0/", "/code/", "/answer/"))
    exact, rounded = (np.subtract(answers(kind, others), expected) for kind in (stream.getvalue(), graph))
    if (error := float(np.abs(exact).max())) > TOLERANCE:
        raise SystemExit(f"The ONNX export differs from torch by {error:.2e} of a weight: nothing was written.")
    if (error := float(np.sqrt(np.square(rounded).mean()))) > IN_8_BITS:
        raise SystemExit(f"In 8 bits the answers differ from torch by {error:.4f} of a weight: nothing was written.")
    write_bundle(folder, tensors, graph, {
        "architecture": "skin", "input_size": str(SIZE // 2), "sources": SOURCES, "licence": "CC BY 4.0 (attribution to FairFace)",
        "date": datetime.date.today().isoformat(), "pairs": str(learned), "people": str(people)})
    print(f"wrote {folder}: {len(graph) / 1e6:.1f} MB, export differs by {error:.4f} of a weight (RMS)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--minutes", type=float, required=True, help="of learning, after the drawing")
    parser.add_argument("--people", type=int, default=4000, help="to draw and learn from")
    parser.add_argument("--jobs", type=int, default=2, help="processes that draw them")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--begin", type=Path, metavar="BUNDLE", help="begin with these weights, those of weights/skin for example, not from nothing")
    parser.add_argument("--mean-with", type=Path, metavar="BUNDLE", help="write the mean of what is learned and of these weights")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "weights" / "skin")
    arguments = parser.parse_args()
    try:
        network = begun(arguments.begin) if arguments.begin else SkinNetwork()
        other = begun(arguments.mean_with) if arguments.mean_with else None
    except CaptureError as error:
        parser.error(str(error))
    from training.same_person import held_out_maker, maker      # opens an OpenGL context, which nothing else here needs
    shards = {}
    for kind, making, count in (("same_person", maker, arguments.people), ("same_person_held_out", held_out_maker, HELD_OUT)):
        folder = arguments.cache / kind
        for process in draw_beside(making, folder, arguments.cache, arguments.faces, count, arguments.jobs):
            process.join()
        shards[kind] = sorted(folder.glob("*.npz"))[:-(-count // SHARD)]
        if missing_shards(folder, count):
            raise SystemExit(f"Not all people could be drawn into '{folder}': see above why.")
    pairs, held_out = (Pairs(paths) for paths in shards.values())
    network, learned = learn(network, pairs, held_out, arguments.cache / "skin_reader.pt", arguments)
    print(judge(network, held_out))
    if other:
        network = mean_of(network, other)
        print("the mean:", judge(network, held_out))
    export(network, arguments.out, learned, len(pairs.people["pairs"]), pairs)


if __name__ == "__main__":
    main()
