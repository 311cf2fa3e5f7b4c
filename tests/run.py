"""Runs the suite with the interpreter it is started with, then leaves without Python's clean-up.

bpy 4.2 can crash and 4.5 can hang while the interpreter shuts down, after every test has passed; os._exit keeps
the suite's own result as the exit status. Arguments are pytest's.
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    os.chdir(ROOT)
    status = int(pytest.main(sys.argv[1:]))
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    os._exit(main())
