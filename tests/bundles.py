"""Makes small model bundles for the tests: real files of the real format, with a network that needs no training."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prn_blender.prn.eye_reader import EyeReader
from prn_blender.prn.position_map import Topology
from prn_blender.prn.weights import write_bundle


@pytest.fixture
def eyes_unread(monkeypatch):
    """The photograph's own eyes count for nothing, as those of a map that has nothing to do with it must."""
    monkeypatch.setattr(EyeReader, "read", lambda *_: (np.zeros(2), np.full(2, 1e9)))


def constant_network(position_map: np.ndarray, expression: np.ndarray | None, input_name: str = "image") -> bytes:
    """An ONNX model that gives the same position map (256, 256, 3) and expression (52,), if any, for every crop."""
    nodes = [
        # 0 for each picture of the batch, whatever it shows, to spread the constants over the batch.
        helper.make_node("ReduceMean", [input_name, "axes"], ["brightness"], keepdims=1),
        helper.make_node("Mul", ["brightness", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "map"], ["position_map"]),
        helper.make_node("Squeeze", ["zeros", "last"], ["flat"]),
        helper.make_node("Add", ["flat", "weights"], ["expression"]),
    ]
    outputs = {"position_map": position_map, "expression": expression}
    if expression is None:
        del outputs["expression"], nodes[3:]
    constants = {
        "axes": np.array([1, 2, 3]),
        "last": np.array([2, 3]),
        "zero": np.array(0, np.float32),
        "map": position_map.astype(np.float32),
    }
    if expression is not None:
        constants["weights"] = expression.astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["n", "s", "s", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *value.shape]) for name, value in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def write_constant_bundle(folder: Path, position_map: np.ndarray, expression: np.ndarray | None = None,
                          topology: Topology | None = None) -> Path:
    """A bundle whose network gives this position map (crop units) for every crop; of a topology other than hm08, if given."""
    if topology is not None:
        write_bundle(folder, {"a": np.ones(4)}, constant_network(position_map, None), {
            "architecture": "constant", "input_size": "128", "licence": "Research only", "research_only": "true",
            "crop": {"side": 1.606, "mean": "arithmetic"}}, topology=topology)
        return folder
    expression = np.zeros(52) if expression is None else expression
    tensors = {"b": np.arange(6.0).reshape(2, 3), "a": np.ones(4)}
    write_bundle(
        folder,
        tensors,
        constant_network(position_map, expression),
        {"architecture": "constant", "input_size": "128", "licence": "CC0-1.0", "figures": {"mean": 5.5}},
    )
    return folder
