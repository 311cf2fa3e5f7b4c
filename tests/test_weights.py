"""A bundle is verified before use: every kind of damage gets one sentence, and nothing foreign is ever run."""

import hashlib
import json
import pickle
import struct

import numpy as np
import pytest
import safetensors.numpy

from bundles import constant_network, write_constant_bundle
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.face_fit import reading
from prn_blender.prn.position_map import SIZE, TOPOLOGY_VERSION
from prn_blender.prn.weights import load_bundle, write_bundle


@pytest.fixture(scope="module")
def position_map() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, (SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, position_map):
    return write_constant_bundle(tmp_path / "weights", position_map, np.linspace(0, 1, 52))


def refused(folder, says: str) -> None:
    with pytest.raises(CaptureError, match=says) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert caught.value.exit_status == 2
    assert message.endswith(".") and "\n" not in message and "weights" in message


def rewrite(folder, change) -> None:
    """Put prn.safetensors through change(header, data) -> (header, data)."""
    path = folder / "prn.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header, data = change(json.loads(content[8 : 8 + length]), content[8 + length :])
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def test_what_is_written_is_read(folder):
    bundle = load_bundle(folder)
    assert (bundle.architecture, bundle.topology_version, bundle.input_size) == ("constant", TOPOLOGY_VERSION, 128)
    assert json.loads(bundle.metadata["figures"]) == {"mean": 5.5}
    assert bundle.onnx_path.is_file() and bundle.safetensors_path.is_file()
    assert {path.name for path in folder.iterdir()} == {"prn.onnx", "prn.safetensors"}


def test_the_file_is_what_the_safetensors_library_reads(folder):
    tensors = safetensors.numpy.load_file(folder / "prn.safetensors")
    assert tensors["b"].dtype == np.float16
    np.testing.assert_array_equal(tensors["b"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(tensors["a"], np.ones(4))


def test_the_engine_runs_any_number_of_crops(folder, position_map):
    engine = OnnxEngine(load_bundle(folder), threads=1)
    maps, expression = engine.run(np.zeros((3, engine.input_size, engine.input_size, 3), np.float32))
    assert maps.shape == (3, SIZE, SIZE, 3) and maps.dtype == np.float32
    np.testing.assert_array_equal(maps[2], position_map)
    np.testing.assert_allclose(expression, np.tile(np.linspace(0, 1, 52), (3, 1)), atol=1e-6)


def test_missing(folder, tmp_path):
    refused(tmp_path / "nowhere", "prn.safetensors' is missing")
    (folder / "prn.onnx").unlink()
    refused(folder, "prn.onnx' is missing")


def test_every_truncation(folder):
    path = folder / "prn.safetensors"
    content = path.read_bytes()
    for kept in [*range(0, 12), *range(12, len(content), 41), len(content) - 1]:
        path.write_bytes(content[:kept])
        refused(folder, "truncated")


def test_every_flipped_byte(folder):
    path = folder / "prn.safetensors"
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    # Anywhere in the header's frame and in the tensors; within the metadata's own words nothing could tell.
    for place in [*range(8), *range(8 + length, len(content))]:
        flipped = bytearray(content)
        flipped[place] ^= 0x40
        path.write_bytes(flipped)
        refused(folder, "damaged|truncated|foreign")


def test_flipped_byte_of_the_network(folder):
    path = folder / "prn.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(folder, "prn.onnx' is damaged")


def test_truncated_network(folder):
    path = folder / "prn.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    refused(folder, "prn.onnx' is damaged")


def test_a_quantized_network_is_verified_as_well_and_goes_with_the_weights_it_is_of(folder, position_map):
    path, bundle = folder / "prn.int8.onnx", load_bundle(folder)
    assert bundle.int8_path is None and not path.exists()
    small = np.round(reading(position_map), 1)
    coarse = constant_network(small, np.zeros(52))
    metadata = {"architecture": "constant", "input_size": "128"}
    write_bundle(folder, {}, bundle.onnx_path.read_bytes(), metadata, int8=coarse)
    bundle = load_bundle(folder)
    assert bundle.int8_path == path
    crops = np.zeros((1, 128, 128, 3), np.float32)
    exact, quantized = (OnnxEngine(bundle, 1, quantized=quantized).run(crops)[0][0] for quantized in (False, True))
    np.testing.assert_array_equal(exact, position_map)
    np.testing.assert_array_equal(quantized, small)
    path.write_bytes(coarse[:-1])
    refused(folder, "prn.int8.onnx' is damaged")
    path.unlink()
    refused(folder, "prn.int8.onnx' is missing")
    path.write_bytes(coarse)
    write_bundle(folder, {}, bundle.onnx_path.read_bytes(), metadata)
    assert load_bundle(folder).int8_path is None and not path.exists()


def test_the_network_of_other_weights(folder, tmp_path, position_map):
    other = write_constant_bundle(tmp_path / "other", position_map + 1)
    (folder / "prn.onnx").write_bytes((other / "prn.onnx").read_bytes())
    refused(folder, "does not belong")


def test_a_pickle_renamed_is_never_loaded(folder, tmp_path):
    witness = tmp_path / "loaded"

    class Trap:
        def __reduce__(self):
            return (open, (str(witness), "w"))

    for protocol in (0, 2, 5):
        (folder / "prn.safetensors").write_bytes(pickle.dumps(Trap(), protocol) + b"\0" * 100)
        refused(folder, "foreign")
    assert not witness.exists()


@pytest.mark.parametrize("length", [2**63, 2**40, 100_000_000])
def test_a_huge_header_length(folder, length):
    path = folder / "prn.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused(folder, "foreign")


@pytest.mark.parametrize("content", [b"PK\3\4" + b"\0" * 60, b"version https://git-lfs" + b" " * 60, b"\0" * 200])
def test_other_files(folder, content):
    (folder / "prn.safetensors").write_bytes(content)
    refused(folder, "foreign")


def test_a_folder_instead_of_a_file(folder):
    (folder / "prn.safetensors").unlink()
    (folder / "prn.safetensors").mkdir()
    refused(folder, "cannot be read")


def test_safetensors_of_another_program(folder):
    (folder / "prn.safetensors").write_bytes(safetensors.numpy.save({"a": np.ones(4, np.float32)}))
    refused(folder, "foreign")


def test_another_topology(folder):
    def change(header, data):
        header["__metadata__"]["topology_version"] = "99"
        return header, data

    rewrite(folder, change)
    refused(folder, "topology version 99")


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F16", "shape": [4], "data_offsets": [0, 80]},
        {"dtype": "F16", "shape": [4], "data_offsets": [-8, 0]},
        {"dtype": "F16", "shape": [5], "data_offsets": [0, 8]},
        {"dtype": "pickle", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F16", "shape": None, "data_offsets": [0, 8]},
        {"dtype": "F16", "shape": [4], "data_offsets": "0"},
        {},
        None,
        7,
    ],
)
def test_tensors_out_of_bounds(folder, tensor):
    rewrite(folder, lambda header, data: ({**header, "a": tensor}, data))
    refused(folder, "damaged")


@pytest.mark.parametrize("metadata", [None, [], "text", {}, {"architecture": "prn"}])
def test_metadata_that_is_not_ours(folder, metadata):
    rewrite(folder, lambda header, data: ({**header, "__metadata__": metadata}, data))
    refused(folder, "foreign")


@pytest.mark.parametrize("header", [b"{'a': 1}", b'{"a":\xff}', b'{"a":' + b"[" * 100_000])
def test_a_header_that_is_no_json(folder, header):
    (folder / "prn.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    refused(folder, "damaged")


def test_a_failed_writing_leaves_the_old_bundle(folder, monkeypatch, position_map):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr("prn_blender.prn.weights.os.replace", fail)
    with pytest.raises(OSError):
        write_constant_bundle(folder, position_map + 1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "onnx, says",
    [
        (b"no network at all", "cannot be run"),
        (constant_network(np.zeros((SIZE, SIZE, 3)), np.zeros(52), "pixels"), "not a network for faces"),
        (constant_network(np.zeros((64, 64, 3)), np.zeros(52)), "wrong size"),
    ],
)
def test_networks_of_another_kind(tmp_path, onnx, says):
    write_bundle(tmp_path, {}, onnx, {"architecture": "other", "input_size": "64"})
    bundle = load_bundle(tmp_path)
    assert hashlib.sha256(bundle.onnx_path.read_bytes()).hexdigest() == bundle.metadata["onnx_sha256"]
    with pytest.raises(CaptureError, match=says):
        OnnxEngine(bundle, threads=1).run(np.zeros((1, 64, 64, 3), np.float32))
