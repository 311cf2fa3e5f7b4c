"""The network's forward pass in ONNX Runtime: face crops in, position maps and expression weights out.

Reads the bundle's ONNX file; needs no torch. One engine serves any number of pictures.
"""

from __future__ import annotations

import numpy as np
import onnxruntime

from .arkit import ARKIT_NAMES
from .errors import CaptureError
from .position_map import HM08, SIZE
from .weights import Bundle

_INPUT = "image"
_OUTPUTS = ["position_map", "expression"]


class OnnxEngine:
    """A network ready to run on the CPU.

    bundle: from `load_bundle`. threads: how many to use, or None to let ONNX Runtime decide.
    Raises CaptureError if the bundle's graph cannot be run, or has other inputs and outputs than a face network.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.bundle = bundle
        self.input_size = bundle.input_size
        self.topology = bundle.topology
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Idle threads that spin take the cores from the fit and from whatever else runs; waking them costs microseconds.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            # As bytes, not as a path: a graph that points to further files is then refused.
            self._session = onnxruntime.InferenceSession(
                bundle.onnx_path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's own classes derive from nothing narrower.
            raise CaptureError(
                f"The weights file '{bundle.onnx_path}' cannot be run ({type(error).__name__}): "
                f"install the weights again."
            ) from error
        inputs = [node.name for node in self._session.get_inputs()]
        outputs = [node.name for node in self._session.get_outputs()]
        self._outputs = [name for name in _OUTPUTS if name in outputs]
        # The fit in our own topology starts from the network's expression; other networks need not have one.
        needed = _OUTPUTS if self.topology.name == HM08 else _OUTPUTS[:1]
        if inputs != [_INPUT] or not set(needed) <= set(outputs):
            raise CaptureError(
                f"The weights file '{bundle.onnx_path}' is foreign, not a network for faces: "
                f"use the weights that came with the program."
            )

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """One forward pass.

        crops: (N, S, S, 3) float32 RGB in 0..1, S = `input_size`. Returns the position maps (N, 256, 256, 3) float32 in
        crop units and the ARKit weights (N, 52) float32 in 0..1, in the order of ARKIT_NAMES; None instead of these if
        the network has no such output.
        """
        found = self._session.run(self._outputs, {_INPUT: np.ascontiguousarray(crops, np.float32)})
        maps, expression = found if len(found) == 2 else (found[0], None)
        if maps.shape[1:] != (SIZE, SIZE, 3) or (expression is not None and expression.shape[1:] != (len(ARKIT_NAMES),)):
            raise CaptureError(
                f"The weights file '{self.bundle.onnx_path}' is foreign, its outputs have the wrong size: "
                f"use the weights that came with the program."
            )
        return maps, expression
