"""A network in 8 bits says nearly what it says exactly; that its channels are balanced before changes nothing by itself."""

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from prn_blender.prn.crop import crop_from_landmark_box  # noqa: E402
from prn_blender.prn.image_io import load_image  # noqa: E402
from prn_blender.prn.network import INPUT_SIZE  # noqa: E402
from prn_blender.prn.small_map import SMALL  # noqa: E402
from prn_blender.prn.weights import load_bundle, load_tensors  # noqa: E402
from training.export import export_onnx, rounded_network  # noqa: E402
from training.quantize import answers, balance, in_8_bits, streams, taking_bytes  # noqa: E402
from addon import PORTRAIT  # noqa: E402


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """(32, 3, 192, 192) a face, cut a little otherwise each time."""
    image, rng = load_image(PORTRAIT), np.random.default_rng(0)
    boxes = np.array([170, 60, 270, 180]) + rng.normal(0, 5, (32, 4))
    cut = np.stack([crop_from_landmark_box(*box).cut(image, INPUT_SIZE) for box in boxes])
    return torch.from_numpy(cut.astype(np.float32)).permute(0, 3, 1, 2)


def spread(network, images) -> float:
    """How far apart the largest activations of a stream's channels are, a mean over the streams of the standard deviation of their logarithms."""
    found = []
    for *_, givers in streams(network):
        reach = []
        hook = givers[-1].register_forward_hook(lambda module, _, output: reach.append(output.amax((0, 2, 3))))
        with torch.no_grad():
            network(images)
        hook.remove()
        found.append(torch.log(reach[0] + 1e-3).std().item())
    return float(np.mean(found))


def test_balancing_changes_no_answer_and_brings_the_channels_together(crops):
    network = rounded_network(load_tensors(load_bundle()))
    before, apart = network(crops[:4]), spread(network, crops)
    balance(network, crops)
    for one, other in zip(before, network(crops[:4])):
        assert torch.allclose(one, other, atol=1e-4)
    assert spread(network, crops) < 0.7 * apart


def test_in_8_bits(crops):
    exact = export_onnx(rounded_network(load_tensors(load_bundle())), halves=False)
    images = [{"image": part.permute(0, 2, 3, 1).contiguous().numpy()} for part in crops.split(8)]
    int8 = in_8_bits(onnx.load_from_string(exact), images[:2], ("/network/expression/", "/network/encoder/encoder.0/"))
    graph = onnx.load_from_string(int8).graph
    from_bytes = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] not in from_bytes] == ["/network/encoder/encoder.0/encoder.0.0/Conv"]
    assert len(int8) < 0.6 * len(exact)
    for (one, _), (other, _) in zip(answers(exact, images[2:]), answers(int8, images[2:])):
        distance = np.sqrt(np.square(one - other).sum(-1).mean())
        assert 1e-5 < distance < 4e-3
    assert onnxruntime.InferenceSession(int8).get_inputs()[0].shape[1:] == [INPUT_SIZE, INPUT_SIZE, 3]


def test_a_graph_that_takes_bytes_says_the_same(crops):
    network = rounded_network(load_tensors(load_bundle()))
    noise = np.random.default_rng(0).random((8, INPUT_SIZE, INPUT_SIZE, 3), np.float32)          # of all levels, so that the range is 0 to 1
    as_bytes = np.rint(255 * crops[:8].permute(0, 2, 3, 1).contiguous().numpy()).astype(np.uint8)
    rounding = in_8_bits(onnx.load_from_string(export_onnx(network, halves=False, small=True)), [{"image": noise}], ())
    bare = taking_bytes(onnx.load_from_string(rounding))
    assert len([node for node in onnx.load_from_string(bare).graph.node if node.op_type == "QuantizeLinear"]) == \
        len([node for node in onnx.load_from_string(rounding).graph.node if node.op_type == "QuantizeLinear"]) - 1
    (one, _), (other, _) = *answers(rounding, [{"image": as_bytes / np.float32(255)}]), *answers(bare, [{"image": as_bytes}])
    assert one.shape[1:] == (SMALL, SMALL, 3)
    assert np.sqrt(np.square(one - other).sum(-1).mean()) < 2e-3
