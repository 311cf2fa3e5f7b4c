"""Our network beside PRNet's and beside MediaPipe: size, work and time, in one run: `build.py bench-network`.

Prints a table in Markdown. Times are medians over rounds in which every contestant takes its turn, so that whatever else the
machine does hits them alike; trust the ratios more than the milliseconds. `resfcn256` has random weights here: they change
neither size nor time. MediaPipe FaceMesh 0.10.21 runs its whole way on a frame (it cannot be asked for less: video mode,
refined points, the same frame again and again, so that its detector rests) with as many threads as it likes.
"""
from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch.utils.flop_counter import FlopCounterMode

from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.image_io import load_image
from prn_blender.prn.network import ARCHITECTURES, Exported
from prn_blender.prn.resfcn256 import INPUT_SIZE
from prn_blender.prn.weights import Bundle, load_bundle, write_bundle
from training.carried import weights_of
from training.export import export_onnx

PHOTO = Path(__file__).parent.parent / "tests" / "data" / "astronaut.jpg"
THREADS, BATCHES = (1, 2), (1, 8)


class Contestant:
    """A network from its bundle, in torch and, for a number of threads, in ONNX Runtime."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        network = ARCHITECTURES[bundle.architecture](bundle.topology)
        state = {name: torch.from_numpy(values.astype(np.float32)) for name, values in load_file(bundle.safetensors_path).items()}
        network.load_state_dict(state, strict=False)
        self.network = Exported(network.eval()).eval()
        self.engines = {threads: OnnxEngine(bundle, threads) for threads in THREADS}
        # As videos run it; a bundle without such a network is run as it is.
        self.quantized = {threads: OnnxEngine(bundle, threads, quantized=True) for threads in THREADS}

    def parameters(self) -> int:
        return sum(value.numel() for value in self.network.parameters())

    def multiply_adds(self) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.network(self.images(1))
        return counter.get_total_flops() // 2

    def images(self, batch: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(0).random((batch, *2 * (self.bundle.input_size,), 3), np.float32))

    def in_torch(self, images: torch.Tensor) -> None:
        with torch.no_grad():
            self.network(images)


def resfcn256_bundle(folder: Path) -> Bundle:
    """A bundle of PRNet's network with random weights, as large as that of the released ones."""
    torch.manual_seed(0)
    network = ARCHITECTURES["resfcn256"](None).eval()
    write_bundle(folder, weights_of(network.state_dict()), export_onnx(network, INPUT_SIZE, halves=False),
                 {"architecture": "resfcn256", "input_size": str(INPUT_SIZE)}, topology=_any_topology(), halves=False)
    return load_bundle(folder)


def _any_topology():
    from prn_blender.prn.position_map import Topology, load_topology
    ours = load_topology()
    return Topology("prnet", ours.mask, ours.landmarks, ours.reference_texels, ours.reference_points)


def face_mesh() -> Callable[[], None]:
    os.environ["GLOG_minloglevel"] = "3"
    import mediapipe
    image = load_image(PHOTO)
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=1, refine_landmarks=True)

    def once() -> None:
        if not mesh.process(image).multi_face_landmarks:
            raise SystemExit("MediaPipe found no face in its picture: its times would mean nothing.")
    return once


def medians(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Milliseconds of each call: the median over rounds that go through all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number >= 2:     # the first rounds warm up
                seconds[name].append(time.perf_counter() - started)
    return {name: 1000 * float(np.median(values)) for name, values in seconds.items()}


def timed(contestants: dict[str, Contestant], threads: int, batch: int, rounds: int, mesh: Callable[[], None] | None) -> dict[str, float]:
    """Milliseconds a call by "name engine"."""
    torch.set_num_threads(threads)
    calls: dict[str, Callable[[], None]] = {}
    for name, contestant in contestants.items():
        images = contestant.images(batch)
        calls[f"{name} torch"] = lambda contestant=contestant, images=images: contestant.in_torch(images)
        calls[f"{name} ONNX"] = lambda contestant=contestant, array=images.numpy(): contestant.engines[threads].run(array)
        calls[f"{name} 8 bits"] = lambda contestant=contestant, array=images.numpy(): contestant.quantized[threads].run(array)
    if mesh and batch == 1:
        calls["mesh"] = mesh
    return medians(calls, rounds)


def table(contestants: dict[str, Contestant], rounds: int, mesh: Callable[[], None] | None) -> str:
    names = list(contestants)
    rows = [["", *(f"`{name}`" for name in names), "ratio", *(["MediaPipe FaceMesh"] if mesh else [])]]

    def row(title: str, values: list[float], form: str, other: str = "") -> None:
        rows.append([title, *(form.format(value) for value in values), f"{values[1] / values[0]:.1f}", *([other] if mesh else [])])

    both = list(contestants.values())
    row("parameters, millions", [contestant.parameters() / 1e6 for contestant in both], "{:.2f}")
    row("multiply-adds a face, millions", [contestant.multiply_adds() / 1e6 for contestant in both], "{:.0f}")
    row("ONNX file, MB", [contestant.bundle.onnx_path.stat().st_size / 1e6 for contestant in both], "{:.1f}")
    for threads in THREADS:
        for batch in BATCHES:
            found = timed(contestants, threads, batch, rounds, mesh)
            for engine, title in (("ONNX", "ONNX Runtime"), ("8 bits", "ONNX Runtime, ours in 8 bits"), ("torch", "torch")):
                values = [found[f"{name} {engine}"] / batch for name in names]
                other = f"{found['mesh']:.1f} ({found['mesh'] / values[0]:.2f} of ours)" if "mesh" in found and engine != "torch" else ""
                row(f"{title}, {threads} thread{'s' if threads > 1 else ''}, batch {batch}: ms a face", values, "{:.1f}", other)
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="build.py bench-network", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="turns that each contestant takes (default: %(default)s)")
    parser.add_argument("--weights", type=Path, help="model bundle to measure instead of the shipped one")
    parser.add_argument("--without-mediapipe", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        contestants = {"prn": Contestant(load_bundle(arguments.weights)), "resfcn256": Contestant(resfcn256_bundle(Path(folder)))}
        print(table(contestants, arguments.rounds, None if arguments.without_mediapipe else face_mesh()))


if __name__ == "__main__":
    main()
