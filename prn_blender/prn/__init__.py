"""Face capture as a library: photographs and videos in, position maps out. Never imports bpy nor torch.

    from prn_blender.prn import capture_image
    face = capture_image("portrait.jpg")[0]

Names are loaded on first use, so that importing this package costs nothing.
"""

import importlib

_EXPORTS = {
    "ARKIT_NAMES": "arkit",
    "CaptureCancelled": "errors",
    "CaptureError": "errors",
    "EngineChoice": "engine",
    "FaceCapture": "capture",
    "NoFaceError": "errors",
    "OUTPUTS": "outputs",
    "OnnxEngine": "engine",
    "TorchEngine": "engine",
    "capture_image": "capture",
    "capture_video": "track",
    "load_bundle": "weights",
    "write_outputs": "outputs",
    "open_engine": "engine",
    "torch_devices": "engine",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_EXPORTS[name]}", __name__), name)
