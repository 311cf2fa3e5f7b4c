"""The model bundle: a folder with `prn.safetensors` and `prn.onnx`, verified before anything of it is used.

The safetensors header is read by hand and holds the metadata, among them the hashes of all files' contents: no pickle
is ever loaded, and a damaged, truncated or foreign file is told apart. A bundle may have the network in 8-bit numbers as
well, `prn.int8.onnx`. One whose maps have another topology than the program's own brings it in `topology.npz`. Reads (and
for training writes) that folder only.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .crop import OUR_CROP, CropConvention
from .errors import CaptureError
from .position_map import HM08, SIZE, TOPOLOGY_VERSION, Topology, load_topology

SAFETENSORS_NAME = "prn.safetensors"
ONNX_NAME = "prn.onnx"
INT8_NAME = "prn.int8.onnx"
TOPOLOGY_NAME = "topology.npz"

_ITEM_SIZES = {"F16": 2, "F32": 4, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}
_REQUIRED = ("architecture", "topology_version", "input_size", "onnx_sha256", "tensors_sha256")
_DTYPES = {"F16": "<f2", "F32": "<f4"}  # what bundles of ours are written in
# A header of ours has about 30 kB; a length beyond this is not a header's.
_MAX_HEADER = 10_000_000

_INSTALL_AGAIN = "install the weights again"


@dataclass(frozen=True)
class Bundle:
    """A verified model bundle."""

    architecture: str
    topology_version: int
    input_size: int  # side of the crop that the network takes, pixels
    metadata: dict[str, str]  # everything the bundle says about itself: sources, licence, date, figures (JSON), ...
    onnx_path: Path
    int8_path: Path | None  # the same network quantized to 8 bits, if the bundle has it: half the time, a little less exact
    safetensors_path: Path
    topology_bytes: bytes | None  # topology.npz, verified; None where the maps have the program's own topology

    @cached_property
    def topology(self) -> Topology:
        """What the texels of this network's maps are."""
        return load_topology() if self.topology_bytes is None else _unpack(self.topology_bytes)

    @property
    def crop(self) -> CropConvention:
        """How the network wants a face to be cropped."""
        return CropConvention(**json.loads(self.metadata["crop"])) if "crop" in self.metadata else OUR_CROP

    @property
    def licence(self) -> str:
        """What the weights may be used for, in words that a user is shown."""
        return self.metadata.get("licence", "not stated")

    @property
    def research_only(self) -> bool:
        """Whether the weights, and what is made with them, must not be used commercially."""
        return self.metadata.get("research_only") == "true"


def default_folder() -> Path:
    """Where the shipped bundle is: inside the installed add-on, or beside the package in the repository."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


def load_bundle(folder: str | os.PathLike | None = None) -> Bundle:
    """Verify the bundle in a folder (default: the shipped one) and describe it.

    Raises CaptureError, in one sentence, if a file is missing, truncated, damaged, not one of ours, or made for another
    topology. Reads every byte of all files (about 0.05 s), and loads none of them into a network.
    """
    folder = default_folder() if folder is None else Path(folder)
    safetensors_path, onnx_path = folder / SAFETENSORS_NAME, folder / ONNX_NAME
    metadata = _verify_safetensors(_read(safetensors_path), f"The weights file '{safetensors_path}'")
    topology_bytes = None
    if "topology_sha256" in metadata:
        topology_bytes = _verified(folder / TOPOLOGY_NAME, metadata["topology_sha256"])
    elif metadata["topology_version"] != str(TOPOLOGY_VERSION):
        raise CaptureError(
            f"The weights file '{safetensors_path}' is made for topology version {metadata['topology_version']}, and "
            f"this program has version {TOPOLOGY_VERSION}: use the weights that came with the program."
        )
    _verified(onnx_path, metadata["onnx_sha256"])
    int8_path = None
    if "int8_sha256" in metadata:
        int8_path = folder / INT8_NAME
        _verified(int8_path, metadata["int8_sha256"])
    return Bundle(
        architecture=metadata["architecture"],
        topology_version=int(metadata["topology_version"]),
        input_size=int(metadata["input_size"]),
        metadata=metadata,
        onnx_path=onnx_path,
        int8_path=int8_path,
        safetensors_path=safetensors_path,
        topology_bytes=topology_bytes,
    )


def load_tensors(bundle: Bundle) -> dict[str, np.ndarray]:
    """The network's tensors by name, as float32. Raises CaptureError if the file has gone or changed since `load_bundle`."""
    content = _read(bundle.safetensors_path)
    _verify_safetensors(content, f"The weights file '{bundle.safetensors_path}'")
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    del header["__metadata__"]
    tensors = {}
    for name, described in header.items():
        start, stop = described["data_offsets"]
        values = np.frombuffer(content[8 + length + start : 8 + length + stop], _DTYPES[described["dtype"]])
        tensors[name] = values.reshape(described["shape"]).astype(np.float32)
    return tensors


def write_bundle(
    folder: str | os.PathLike, tensors: dict[str, np.ndarray], onnx: bytes, metadata: dict[str, Any], *,
    topology: Topology | None = None, halves: bool = True, int8: bytes | None = None,
) -> None:
    """Write a bundle: each file appears whole under its name or not at all.

    tensors: stored as float16, or as float32 if not `halves`. topology: if it is not the program's own. onnx: the exported model's bytes. int8: those of the
    quantized one, without which a former one goes away. metadata: at least architecture and input_size, and
    what a user should know (sources, licence, date, figures); values that are no strings are stored as JSON. The
    topology version and the hashes are added here. Raises OSError if the folder cannot be written.
    """
    header: dict[str, Any] = {}
    parts = []
    offset = 0
    for name, tensor in sorted(tensors.items()):
        content = np.ascontiguousarray(tensor, np.dtype("<f2" if halves else "<f4")).tobytes()
        header[name] = {"dtype": "F16" if halves else "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
        parts.append(content)
    data = b"".join(parts)
    described = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    described["topology_version"] = str(TOPOLOGY_VERSION)
    described["onnx_sha256"] = hashlib.sha256(onnx).hexdigest()
    described["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    if int8 is not None:
        described["int8_sha256"] = hashlib.sha256(int8).hexdigest()
    packed = None if topology is None or topology.name == HM08 else _pack(topology)
    if packed is not None:
        described["topology_sha256"] = hashlib.sha256(packed).hexdigest()
    encoded = json.dumps({"__metadata__": described, **header}).encode()
    encoded += b" " * (-len(encoded) % 8)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if packed is not None:
        _write(folder / TOPOLOGY_NAME, packed)
    if int8 is not None:
        _write(folder / INT8_NAME, int8)
    _write(folder / ONNX_NAME, onnx)
    _write(folder / SAFETENSORS_NAME, struct.pack("<Q", len(encoded)) + encoded + data)
    if int8 is None:
        (folder / INT8_NAME).unlink(missing_ok=True)


def _pack(topology: Topology) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, name=np.array(topology.name), mask=topology.mask, landmarks=topology.landmarks,
                        reference_texels=topology.reference_texels, reference_points=topology.reference_points)
    return stream.getvalue()


def _unpack(content: bytes) -> Topology:
    """The topology of a bundle. Raises CaptureError if the content is whole and yet no topology."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as data:
            topology = Topology(str(data["name"]), data["mask"].astype(bool), data["landmarks"].astype(np.float32),
                                data["reference_texels"].astype(np.float32), data["reference_points"].astype(np.float32))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        topology = None
    points = 0 if topology is None else len(topology.reference_points)
    if (points < 4 or topology.mask.shape != (SIZE, SIZE) or not topology.mask.any() or topology.landmarks.shape != (68, 2)
            or topology.reference_texels.shape != (points, 2) or topology.reference_points.shape != (points, 3)):
        raise CaptureError(f"The {TOPOLOGY_NAME} of the weights is foreign, it describes no face: {_INSTALL_AGAIN}.")
    return topology


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp's files are for their owner alone; a bundle is for everybody who may read its folder.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _verified(path: Path, sha256: str) -> bytes:
    """A file's bytes. Raises CaptureError if they are not those that the bundle tells the hash of."""
    content = _read(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CaptureError(f"The weights file '{path}' is damaged, or does not belong to the {SAFETENSORS_NAME} beside it: {_INSTALL_AGAIN}.")
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CaptureError(f"The weights file '{path}' is missing: {_INSTALL_AGAIN}.") from None
    except OSError as error:
        raise CaptureError(
            f"The weights file '{path}' cannot be read ({error.strerror}): check the file and its permissions."
        ) from None


def _verify_safetensors(content: bytes, name: str) -> dict[str, str]:
    """The metadata of a safetensors file of ours. Raises CaptureError if anything about it is wrong."""
    foreign = CaptureError(f"{name} is foreign, not one made for this program: use the weights that came with it.")
    truncated = CaptureError(f"{name} is truncated, its end is missing: {_INSTALL_AGAIN}.")
    damaged = CaptureError(f"{name} is damaged: {_INSTALL_AGAIN}.")

    if len(content) < 9:
        raise truncated
    (length,) = struct.unpack_from("<Q", content)
    if length > _MAX_HEADER or content[8:9] != b"{":
        raise foreign
    if 8 + length > len(content):
        raise truncated
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        raise damaged from None
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or any(not isinstance(metadata.get(key), str) for key in _REQUIRED):
        raise foreign
    end = 0
    for tensor in header.values():
        try:
            start, stop = tensor["data_offsets"]
            size = _ITEM_SIZES[tensor["dtype"]] * math.prod(tensor["shape"])
        except (KeyError, TypeError, ValueError):
            raise damaged from None
        if start != end or stop - start != size:
            raise damaged
        end = stop
    data = memoryview(content)[8 + length :]
    if len(data) < end:
        raise truncated
    if hashlib.sha256(data).hexdigest() != metadata["tensors_sha256"] or not metadata["input_size"].isdecimal():
        raise damaged
    return metadata
