"""The suite in every Blender there is to test: `build.py matrix`. Standard library only.

Under each bpy wheel in an environment of its own; and in a real Blender, into which the zip is installed as a user would:
the suite inside `blender -b`, and tests/blender/window.py in its window. The real one is Debian's, in a folder of its own
(chroot), which takes root and debootstrap, or the one given.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
SUITE = "trixie"  # its Blender is 4.3, the first of Debian's that knows extensions
DEBIAN = ("blender", "python3-numpy", "xvfb", "xauth", "x11-apps", "xdotool", "imagemagick", "libgl1-mesa-dri")
PACKAGES = ("pytest==9.2.0", "onnx==1.23.2", "safetensors==0.8.0")
# What needs torch, build.py or an interpreter with the bpy module is for the wheels alone.
FOREIGN = re.compile(r"^(import|from) (torch|training|build)\b|sys\.executable", re.MULTILINE)
KNOWS = "needs_interpreter"  # a file that says so skips such tests by itself


class MatrixError(Exception):
    """A Blender could not be had or prepared; the message says what to do."""


@dataclass(frozen=True)
class Result:
    where: str
    told: str  # the last line of its report
    passed: bool


def in_wheel(version: str, interpreter: Path, arguments: list[str]) -> Result:
    done = subprocess.run([str(interpreter), "-P", str(TESTS / "run.py"), *arguments], text=True, stdout=subprocess.PIPE,
                          env=dict(os.environ, PYTHONPATH=str(TESTS.parent)), check=False)
    print(done.stdout, file=sys.stderr)
    return Result(f"bpy {version}", last_line(done.stdout), done.returncode == 0)


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if re.search(r"passed|failed|expected|error", line)]
    return re.sub(r"^[= ]+|[= ]+$", "", lines[-1]) if lines else "no result"


# ---- a real Blender --------------------------------------------------------------------------------------------------


def make_chroot(folder: Path) -> None:
    """Debian with its Blender and a display without a screen, in a folder; made once (1.8 GB)."""
    if (folder / "ready").exists():
        return
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise MatrixError("A real Blender to test in is made with debootstrap, as root: apt-get install debootstrap.")
    if not (folder / "etc" / "debian_version").exists():
        run(["debootstrap", "--variant=minbase", SUITE, str(folder)])
    run(["chroot", str(folder), "apt-get", "install", "-y", "--no-install-recommends", *DEBIAN],
        env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
    (folder / "ready").touch()


def run(command: list[str], **options) -> None:
    if subprocess.run(command, stdout=sys.stderr, check=False, **options).returncode:
        raise MatrixError(f"This command failed, see its messages above: {' '.join(command)}")


def in_real_blender(chroot: Path, archive: Path, interpreter: Path, arguments: list[str]) -> list[Result]:
    """The suite and the window in the chroot's Blender, with the extension installed from the zip.

    archive: the zip for the chroot's Python. interpreter: one with pip, numpy and OpenCV.
    """
    work = chroot / "under_test"
    shutil.rmtree(work, ignore_errors=True)
    window = work / "window"
    window.mkdir(parents=True)
    shutil.copytree(TESTS, work / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(TESTS.parent / "pyproject.toml", work)
    shutil.copytree(TESTS.parent / "addon_manifest", work / "addon_manifest", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(archive, work)
    shutil.copy2(TESTS / "data" / "astronaut.jpg", window / "photo.jpg")
    run([str(interpreter), "-c", "from pathlib import Path; from clips import portrait, write_movie; write_movie("
         f"Path({str(window / 'clip.avi')!r}), [portrait(640, 480, x=320 + 2 * i, y=250, size=2.0) for i in range(40)])"],
        env=dict(os.environ, PYTHONPATH=f"{TESTS}{os.pathsep}{TESTS.parent}"))
    python = subprocess.run(["chroot", str(chroot), "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                            capture_output=True, text=True, check=True).stdout.strip()
    run([str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(work / "packages"),
         "--only-binary=:all:", f"--python-version={python}", "--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64",
         "--no-deps", *PACKAGES, "iniconfig", "packaging", "pluggy", "pygments", "protobuf", "typing_extensions", "ml_dtypes"])
    run(inside(chroot, "blender", "--command", "extension", "install-file", "-r", "user_default", "-e", f"/under_test/{archive.name}"))

    files = sorted(path.name for path in TESTS.glob("test_*.py") if not is_foreign(path))
    suite = subprocess.run(
        inside(chroot, "blender", "-b", "--python", "/under_test/tests/blender/inside.py", "--",
               *[f"/under_test/tests/{name}" for name in files], "-p", "no:cacheprovider", *arguments),
        text=True, stdout=subprocess.PIPE, check=False)
    print(suite.stdout, file=sys.stderr)
    run(inside(chroot, "xvfb-run", "-a", "-s", "-screen 0 1600x1000x24 +extension GLX", "blender", "--window-geometry", "0", "0",
               "1600", "1000", "--python", "/under_test/tests/blender/window.py", "--", "/under_test/window"))
    told = (window / "result.txt").read_text() if (window / "result.txt").exists() else "the window gave no result"
    print(told, file=sys.stderr)
    version = subprocess.run(inside(chroot, "blender", "--version"), capture_output=True, text=True, check=False).stdout
    name = f"{version.splitlines()[0] if version else 'Blender'}, installed zip"
    return [Result(name, last_line(suite.stdout), suite.returncode == 0),
            Result(f"{name}, in the window", last_line(told), "FAIL" not in told and "as expected" in told)]


def is_foreign(test: Path) -> bool:
    text = test.read_text(encoding="utf-8")
    return bool(FOREIGN.search(text)) and KNOWS not in text


def inside(chroot: Path, *command: str) -> list[str]:
    return ["chroot", str(chroot), "env", "HOME=/root", "LIBGL_ALWAYS_SOFTWARE=1", *command]


def table(results: list[Result]) -> str:
    lines = ["| where | result |", "|---|---|"]
    return "\n".join(lines + [f"| {result.where} | {'' if result.passed else '**failed**: '}{result.told} |" for result in results])
