"""The suite inside a real Blender, on the installed extension: blender -b --python tests/blender/inside.py -- PYTEST'S ARGUMENTS

Tests import `prn_blender`; here that name means the extension as a user has installed it from its zip, so that nothing of
the repository but the tests takes part. Ends Blender with pytest's exit status.
"""

import importlib
import os
import pkgutil
import sys
import traceback
from pathlib import Path

import addon_utils

EXTENSION = "bl_ext.user_default.prn_face_capture"
TESTS = Path(__file__).resolve().parent.parent


def alias_extension() -> None:
    """Every module of the installed extension under the name that the tests know it by."""
    package = importlib.import_module(EXTENSION)
    sys.modules["prn_blender"] = package
    for found in pkgutil.walk_packages(package.__path__, f"{EXTENSION}."):
        try:
            module = importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name != "torch":  # which is not in the zip, and only the optional engine needs
                raise
            continue
        sys.modules["prn_blender" + found.name.removeprefix(EXTENSION)] = module


def main() -> int:
    sys.path.append(str(TESTS.parent / "packages"))  # pytest and what the tests need beside; Blender looks at no PYTHONPATH
    import pytest

    assert addon_utils.check(EXTENSION) == (True, True), "the extension is not installed and enabled"
    addon_utils.disable(EXTENSION)  # the tests register it themselves
    sys.path.insert(0, str(TESTS))
    alias_extension()
    os.environ["PRN_INSIDE_BLENDER"] = "1"
    return int(pytest.main([*sys.argv[sys.argv.index("--") + 1:]]))


if __name__ == "__main__":
    status = 1
    try:
        status = main()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
