"""Both engines give the same face: ONNX Runtime, which ships, and torch, which is the reference."""

from functools import partial

import numpy as np
import pytest

from prn_blender.prn import CaptureError, capture_image
from prn_blender.prn.crop import crop_from_landmark_box
from prn_blender.prn.engine import EngineChoice, OnnxEngine, TorchEngine, open_engine, torch_devices
from prn_blender.prn.image_io import load_image
from prn_blender.prn.small_map import whole
from prn_blender.prn.weights import load_bundle, load_tensors
from addon import PORTRAIT
from bundles import write_constant_bundle


needs_torch = pytest.mark.skipif(not torch_devices(), reason="torch is not installed")


@pytest.fixture(scope="module")
def crops():
    image = load_image(PORTRAIT)
    size = load_bundle().input_size
    face = crop_from_landmark_box(170, 60, 270, 180).cut(image, size)
    return np.stack([face, np.random.default_rng(0).random((size, size, 3)).astype(np.float32), np.zeros_like(face)])


@pytest.mark.parametrize("device", torch_devices())
def test_the_engines_agree(crops, device):
    """To a thousandth of the crop, on every device that this machine has."""
    bundle = load_bundle()
    maps, expression = OnnxEngine(bundle).run(crops)
    other_maps, other_expression = TorchEngine(bundle, device).run(crops)
    assert other_maps.dtype == np.float32 and other_maps.shape == maps.shape
    assert np.abs(maps - other_maps).max() < 1e-3
    assert np.abs(expression - other_expression).max() < 5e-3


def test_in_8_bits_the_network_says_nearly_the_same(crops):
    """Of a face; on noise, which the ranges of its activations were not made for, more may differ."""
    bundle = load_bundle()
    (maps, expression), (coarse_maps, coarse_expression) = (OnnxEngine(bundle, quantized=quantized).run(crops) for quantized in (False, True))
    assert not np.array_equal(maps, coarse_maps)
    assert np.sqrt(np.square(maps[0] - whole(coarse_maps[0])).sum(-1).mean()) < 4e-3
    assert np.abs(expression[0] - coarse_expression[0]).max() < 0.05


@pytest.mark.parametrize("opened", [OnnxEngine, partial(OnnxEngine, quantized=True), *([TorchEngine] if torch_devices() else [])])
def test_pictures_may_be_whole_numbers(opened, crops):
    engine, as_bytes = opened(load_bundle()), np.rint(255 * crops).astype(np.uint8)
    for one, other in zip(engine.run(as_bytes), engine.run(as_bytes.astype(np.float32) / 255)):
        assert np.abs(one - other).max() < 1e-5


@needs_torch
def test_a_capture_takes_either():
    faces = [capture_image(PORTRAIT, engine=open_engine(EngineChoice(kind, "cpu")))[0] for kind in ("onnx", "torch")]
    difference = np.abs(faces[0].position_map - faces[1].position_map).max() / faces[0].crop.side
    assert difference < 1e-3


@needs_torch
def test_an_engine_is_loaded_once():
    assert open_engine() is open_engine(EngineChoice())
    assert open_engine(quantized=True) is open_engine(EngineChoice(), quantized=True) is not open_engine()
    assert open_engine(EngineChoice("torch")) is open_engine(EngineChoice("torch"))


def test_a_device_that_is_not_there():
    with pytest.raises(CaptureError, match="device 'abacus' is not available"):
        TorchEngine(load_bundle(), "abacus")


@needs_torch
def test_tensors_of_another_architecture(tmp_path):
    bundle = load_bundle(write_constant_bundle(tmp_path, np.zeros((256, 256, 3))))
    assert {name: values.dtype for name, values in load_tensors(bundle).items()} == {"a": np.float32, "b": np.float32}
    with pytest.raises(CaptureError, match="architecture 'constant'"):
        TorchEngine(bundle)
