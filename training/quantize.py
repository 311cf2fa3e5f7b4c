"""Networks in 8-bit numbers, as videos run them: `python -m training.quantize --faces FOLDER` adds the shipped one's to its bundle.

Whole numbers take a processor half the time. Nothing is trained: weights and activations of the finished network are rounded, their
ranges found on what it was trained on (Nagel et al., "A white paper on neural network quantization", 2021). `build.py export` writes a
bundle without; `training.skin_reader` rounds the second network as it writes it.
"""
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from torch import nn

from prn_blender.prn.engine import in_bytes
from prn_blender.prn.network import INPUT_SIZE, PositionMapNetwork, Residual
from prn_blender.prn.weights import Bundle, load_bundle, load_tensors, write_bundle
from training.augment import Dice
from training.cache import default_cache
from training.export import export_onnx, in_halves, rounded_network
from training.kit import Kit
from training.photographs import PhotographBatches, Photographs

PICTURES = 256                  # that ranges are found on; as many others tell what rounding costs
TOGETHER = 32
WITHIN = 99.999                 # percent of the activations lie within the range, the others are cut off
TOLERANCE = 0.004               # of the crop, RMS
_LARGE = 20_000                 # numbers of weights that are no convolution's and worth storing as halves


def streams(network: PositionMapNetwork) -> Iterator[tuple[list[nn.BatchNorm2d], list[nn.Conv2d], list[nn.Module]]]:
    """The encoder's activations, one stream of channels after the other: the norms whose outputs are added to it, the convolutions that
    read it, and the modules that give it (after their ReLU)."""
    norms, readers, givers = [], [], []
    for layer in network.encoder:
        if isinstance(layer, Residual):
            yield [layer.first[1]], [layer.second[0]], [layer.first]
            norms.append(layer.second[1]), readers.append(layer.first[0]), givers.append(layer)
        else:
            if norms:
                yield norms, [*readers, layer[0]], givers
            norms, readers, givers = [layer[1]], [], [layer]
    yield norms, [*readers, network.code[0]], givers


@torch.no_grad()
def balance(network: PositionMapNetwork, images: torch.Tensor) -> None:
    """Bring the channels of each stream nearer to one range, by the root of what they differ by, since they will share the steps of one; what reads them undoes
    it, so that the network computes what it did (cross-layer equalization: Nagel et al., ICCV 2019). images: (N, 3, 192, 192)."""
    reach: dict[nn.Module, list[torch.Tensor]] = {}
    hooks = [giver.register_forward_hook(lambda giver, _, found: reach.setdefault(giver, []).append(found.amax((2, 3))))
             for *_, givers in streams(network) for giver in givers]
    for part in images.split(TOGETHER):
        network(part)
    for hook in hooks:
        hook.remove()
    for norms, readers, givers in streams(network):
        largest = torch.cat([found for giver in givers for found in reach[giver]]).quantile(0.99, dim=0) + 1e-6
        scale = (largest / largest.log().mean().exp()).sqrt().clamp(0.05, 20)
        for norm in norms:
            norm.weight /= scale
            norm.bias /= scale
        for convolution in readers:
            convolution.weight *= scale[:, None, None]


class _Calibration(CalibrationDataReader):
    def __init__(self, examples: list[dict[str, np.ndarray]]) -> None:
        self.left = iter(examples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


def in_8_bits(model: onnx.ModelProto, examples: list[dict[str, np.ndarray]], left_out: tuple[str, ...]) -> bytes:
    """The graph with its convolutions and ReLUs in 8 bits, but for those whose names begin so. examples: inputs to find the ranges on."""
    # With its ReLU a convolution's answer is rounded once, and no step is spent on what is below zero.
    rounded = [node.name for node in model.graph.node if node.op_type in ("Conv", "Relu") and not node.name.startswith(left_out)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        # Weights in 7 bits: processors without dot products of bytes add two products in 16, which 8 would overflow.
        quantize_static(model, path, _Calibration(examples), QuantFormat.QDQ, activation_type=QuantType.QUInt8, per_channel=True, reduce_range=True,
                        nodes_to_quantize=rounded, calibrate_method=CalibrationMethod.Percentile, extra_options={"CalibPercentile": WITHIN})
        model = onnx.load(path)
    # What is left of the trained weights was rounded to halves already.
    return in_halves(model, lambda values: values.ndim in (2, 3) and values.size > _LARGE)


def taking_bytes(model: onnx.ModelProto) -> bytes:
    """A graph in 8 bits of one picture, with bytes as they are for its input: what it would round each time is whole numbers already."""
    graph = model.graph
    image = graph.input[0]
    turned = next(node for node in graph.node if image.name in node.input)                      # coordinates last to coordinates first
    rounding = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == turned.output[0])
    scale = next(values for values in graph.initializer if values.name == rounding.input[1])
    if abs(255 * numpy_helper.to_array(scale) - 1) > 0.02:
        raise ValueError("The range of the pictures that were to find it is not 0 to 1.")
    scale.CopyFrom(numpy_helper.from_array(np.float32(1 / 255), scale.name))
    turned.output[0] = rounding.output[0]
    graph.node.remove(rounding)
    image.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def answers(graph: bytes, examples: list[dict[str, np.ndarray]]) -> list[list[np.ndarray]]:
    """The outputs of a graph for each of the examples."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return [session.run(None, example) for example in examples]


def face_network(bundle: Bundle, cache: Path, faces: Path) -> tuple[bytes, float]:
    """The first network with small maps in 8 bits, and the RMS distance of these from the exact ones', in crop units."""
    kit = Kit(cache)
    photographs = Photographs(faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, False)
    crops = PhotographBatches(photographs, torch.device("cpu")).batch(Dice(0), 2 * PICTURES, INPUT_SIZE)["image"]
    examples = [{"image": np.ascontiguousarray(part.permute(0, 2, 3, 1))} for part in crops.split(TOGETHER)]
    found_on, others = examples[:len(examples) // 2], examples[len(examples) // 2:]
    network = rounded_network(load_tensors(bundle))
    exact = export_onnx(network, halves=False, small=True)
    balance(network, crops[:PICTURES])
    int8 = in_8_bits(onnx.load_from_string(export_onnx(network, halves=False, small=True)), found_on, ("/expression/",))
    int8 = taking_bytes(onnx.load_from_string(int8))
    as_bytes = [{"image": in_bytes(other["image"])} for other in others]
    squares = [np.square(a - b).sum(-1).mean() for (a, _), (b, _) in zip(answers(exact, others), answers(int8, as_bytes))]
    return int8, float(np.sqrt(np.mean(squares)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--weights", type=Path, help="bundle to add it to instead of weights/")
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    bundle = load_bundle(arguments.weights)
    int8, off = face_network(bundle, arguments.cache, arguments.faces)
    if off > TOLERANCE:
        raise SystemExit(f"In 8 bits the maps are off by {100 * off:.2f} % of the crop: nothing was written.")
    metadata = {name: value for name, value in bundle.metadata.items() if name != "topology_version" and not name.endswith("_sha256")}
    write_bundle(bundle.onnx_path.parent, load_tensors(bundle), bundle.onnx_path.read_bytes(), metadata, int8=int8)
    print(f"wrote {bundle.onnx_path.parent}: {len(int8) / 1e6:.1f} MB, maps differ by {100 * off:.2f} % of the crop (RMS)")


if __name__ == "__main__":
    main()
