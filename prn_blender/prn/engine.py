"""The network's forward pass: face crops in, position maps and expression weights out. Two engines, one interface.

ONNX Runtime runs the bundle's graph and is what ships; torch runs the bundle's tensors where the user's Python has it,
on CUDA, Metal or the CPU. Neither is imported before it is asked for. One engine serves any number of pictures.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from .arkit import ARKIT_NAMES
from .errors import CaptureError
from .position_map import HM08, SIZE, Topology
from .small_map import SMALL
from .weights import Bundle, default_folder, load_bundle, load_tensors

if TYPE_CHECKING:
    import onnxruntime

_INPUT = "image"
_OUTPUTS = ["position_map", "expression"]
_OWN_WEIGHTS = "use the weights that came with the program"


class Engine(Protocol):
    """A network ready to run."""

    bundle: Bundle
    input_size: int  # side of the crops that it takes, pixels
    topology: Topology  # of the maps that it gives
    map_size: int  # their side: 256, or 64 where they are small ones (small_map.py)

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """One forward pass.

        crops: (N, S, S, 3) RGB, float32 in 0..1 or uint8, S = `input_size`. Returns the position maps (N, M, M, 3) float32, M = `map_size`, in
        crop units and the ARKit weights (N, 52) float32 in 0..1, in the order of ARKIT_NAMES; None instead of these if
        the network has no such output.
        """


class OnnxEngine:
    """A network ready to run on the CPU, in ONNX Runtime.

    bundle: from `load_bundle`. threads: how many to use, or None to let ONNX Runtime decide. quantized: the network in 8 bits if
    the bundle has it, as videos want it: half the time, small maps, and errors of a fifth of a percent of the crop, which differ from frame
    to frame (docs/video-measured.md). Raises CaptureError if the bundle's graph cannot be run, or has other inputs and outputs than a face network.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None, quantized: bool = False) -> None:
        import onnxruntime

        self.bundle = bundle
        self.input_size = bundle.input_size
        self.topology = bundle.topology
        path = (quantized and bundle.int8_path) or bundle.onnx_path
        self.map_size = SIZE if path == bundle.onnx_path else SMALL
        try:
            # As bytes, not as a path: a graph that points to further files is then refused.
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own classes derive from nothing narrower.
            raise CaptureError(
                f"The weights file '{path}' cannot be run ({type(error).__name__}): "
                f"install the weights again."
            ) from error
        inputs = [node.name for node in self._session.get_inputs()]
        outputs = [node.name for node in self._session.get_outputs()]
        self._outputs = [name for name in _OUTPUTS if name in outputs]
        # The fit in our own topology starts from the network's expression; other networks need not have one.
        needed = _OUTPUTS if self.topology.name == HM08 else _OUTPUTS[:1]
        if inputs != [_INPUT] or not set(needed) <= set(outputs):
            raise CaptureError(f"The weights file '{path}' is foreign, not a network for faces: {_OWN_WEIGHTS}.")
        self._path = path
        # A network in 8 bits takes pictures as they are.
        self._bytes = self._session.get_inputs()[0].type == "tensor(uint8)"

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Engine.run`."""
        crops = in_bytes(crops) if self._bytes else in_floats(crops)
        found = self._session.run(self._outputs, {_INPUT: np.ascontiguousarray(crops)})
        maps, expression = found if len(found) == 2 else (found[0], None)
        if maps.shape[1:] != (self.map_size, self.map_size, 3) or (expression is not None and expression.shape[1:] != (len(ARKIT_NAMES),)):
            raise CaptureError(
                f"The weights file '{self._path}' is foreign, its outputs have the wrong size: {_OWN_WEIGHTS}."
            )
        return maps, expression


def open_small_network(name: str, inputs: tuple[str, ...], threads: int | None = None) -> tuple[onnxruntime.InferenceSession, Bundle]:
    """One of the shipped networks beside the first, ready to run, and its bundle. inputs: its own. threads: as in `OnnxEngine`.

    Raises CaptureError if `weights/<name>` is missing, damaged, or a network with other inputs.
    """
    import onnxruntime

    bundle = load_bundle(default_folder() / name)
    session = onnxruntime.InferenceSession(bundle.onnx_path.read_bytes(), _options(threads), providers=["CPUExecutionProvider"])
    if {node.name for node in session.get_inputs()} != set(inputs):
        raise CaptureError(f"The weights file '{bundle.onnx_path}' is foreign, not a network for {name}: {_OWN_WEIGHTS}.")
    return session, bundle


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Idle threads that spin take the cores from the fit and from whatever else runs; waking them costs microseconds.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


class TorchEngine:
    """A network ready to run in torch, on a device of `torch_devices()`.

    Raises CaptureError if torch or the device is not there, or the bundle's tensors are not those of its architecture.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        if device not in torch_devices():
            raise CaptureError(
                f"PyTorch with the device '{device}' is not available in this Python: "
                f"choose another device, or ONNX Runtime, which needs nothing installed."
            )
        import torch

        from .network import ARCHITECTURES, Exported

        self.bundle = bundle
        self.input_size = bundle.input_size
        self.topology = bundle.topology
        self.map_size = SIZE
        self.device = device
        self._torch = torch
        foreign = CaptureError(
            f"The weights file '{bundle.safetensors_path}' is foreign, not of the architecture '{bundle.architecture}' "
            f"that this program knows: {_OWN_WEIGHTS}."
        )
        if bundle.architecture not in ARCHITECTURES:
            raise foreign
        network = ARCHITECTURES[bundle.architecture](bundle.topology)
        tensors = {name: torch.from_numpy(values) for name, values in load_tensors(bundle).items()}
        try:
            missing, unexpected = network.load_state_dict(tensors, strict=False)
        except RuntimeError:  # torch's word for tensors of other shapes
            raise foreign from None
        # Batch norms count their training steps, which only training needs.
        if unexpected or not all(name.endswith("num_batches_tracked") for name in missing):
            raise foreign
        self._network = Exported(network).eval().to(device)

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `Engine.run`."""
        torch = self._torch
        # TensorFloat-32 would cost three digits, more than the engines may differ.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found = self._network(torch.from_numpy(np.ascontiguousarray(in_floats(crops))).to(self.device))
        maps, expression = found if isinstance(found, tuple) else (found, None)
        return maps.float().cpu().numpy(), None if expression is None else expression.float().cpu().numpy()


def in_floats(crops: np.ndarray) -> np.ndarray:
    """Pictures as float32 in 0..1."""
    return crops * np.float32(1 / 255) if crops.dtype == np.uint8 else np.asarray(crops, np.float32)


def in_bytes(crops: np.ndarray) -> np.ndarray:
    """Pictures as uint8."""
    return crops if crops.dtype == np.uint8 else np.rint(np.clip(crops, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class EngineChoice:
    """Which network runs where. weights: a bundle's folder, or None for the shipped one."""

    kind: Literal["onnx", "torch"] = "onnx"
    device: str = "cpu"  # one of torch_devices(); ONNX Runtime has the CPU only
    weights: Path | None = None


def open_engine(choice: EngineChoice | None = None, quantized: bool = False) -> Engine:
    """The engine of a choice, by default the shipped one; the last two are kept. quantized: as in `OnnxEngine`; torch computes as always.
    Raises CaptureError as the engines do."""
    choice = choice or EngineChoice()
    return _open_engine(choice, quantized and choice.kind == "onnx")


@lru_cache(maxsize=2)
def _open_engine(choice: EngineChoice, quantized: bool) -> Engine:
    bundle = load_bundle(choice.weights)
    return TorchEngine(bundle, choice.device) if choice.kind == "torch" else OnnxEngine(bundle, quantized=quantized)


@lru_cache(maxsize=1)
def torch_devices() -> tuple[str, ...]:
    """The devices that torch can use in this Python, the fastest first; none without torch. The first call imports torch."""
    if importlib.util.find_spec("torch") is None:
        return ()
    try:
        import torch
    except Exception:  # a broken installation is the same as none
        return ()
    found = ["cuda"] if torch.cuda.is_available() else []
    found += ["mps"] if torch.backends.mps.is_available() else []
    return (*found, "cpu")
