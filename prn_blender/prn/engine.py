"""The network's forward pass in ONNX Runtime: face crops in, position maps and expression weights out.

Reads the bundle's ONNX file; needs no torch. One engine serves any number of pictures.
"""

from __future__ import annotations

import numpy as np
import onnxruntime

from .arkit import ARKIT_NAMES
from .errors import CaptureError
from .position_map import SIZE
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
        if inputs != [_INPUT] or not set(_OUTPUTS) <= set(outputs):
            raise CaptureError(
                f"The weights file '{bundle.onnx_path}' is foreign, not a network for faces: "
                f"use the weights that came with the program."
            )

    def run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One forward pass.

        crops: (N, S, S, 3) float32 RGB in 0..1, S = `input_size`. Returns the position maps (N, 256, 256, 3) float32 in
        crop units and the ARKit weights (N, 52) float32 in 0..1, in the order of ARKIT_NAMES.
        """
        maps, expression = self._session.run(_OUTPUTS, {_INPUT: np.ascontiguousarray(crops, np.float32)})
        if maps.shape[1:] != (SIZE, SIZE, 3) or expression.shape[1:] != (len(ARKIT_NAMES),):
            raise CaptureError(
                f"The weights file '{self.bundle.onnx_path}' is foreign, its outputs have the wrong size: "
                f"use the weights that came with the program."
            )
        return maps, expression
