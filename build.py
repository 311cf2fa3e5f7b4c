#!/usr/bin/env python3
"""The one door: sets up what a command needs, then runs it.

    python3 build.py capture photo.jpg      a photograph to a textured face mesh
    python3 build.py capture clip.mp4       a video to an animated face
    python3 build.py test                   the whole test suite

Standard library only. Each purpose (capture, test, train) has a private virtual environment in a cache folder,
made on first use from pyproject.toml's dependency groups and made again when their pins change. Nothing is
installed anywhere else, except the Debian libraries that Blender's wheel needs, and those only as root.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PYTHON = (3, 11)  # bpy's wheels are built for this one
BPY_VERSIONS = ("4.2.23", "4.5.15", "5.0.1")


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


def say(text: str) -> None:
    """Progress goes to stderr: a command's stdout is the command's own."""
    print(text, file=sys.stderr, flush=True)


# ---- what a purpose needs ----------------------------------------------------------------------------------------


def requirements(groups: dict, name: str) -> list[str]:
    """The pins of one dependency group, its included groups first. A group that is not there is empty."""
    pins: list[str] = []
    for item in groups.get(name, []):
        pins += requirements(groups, item["include-group"]) if isinstance(item, dict) else [item]
    return pins


def replace_pin(pins: list[str], package: str, version: str) -> list[str]:
    return [f"{package}=={version}" if pin.split("==")[0] == package else pin for pin in pins]


def cache_folder() -> Path:
    if os.environ.get("PRN_CACHE"):
        return Path(os.environ["PRN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prn-face-capture"


# ---- Debian libraries --------------------------------------------------------------------------------------------


def missing_libraries(packages: list[str]) -> list[str]:
    """Which of the Debian packages are not installed. Systems without dpkg are taken as they are."""
    if not shutil.which("dpkg-query"):
        return []
    answer = subprocess.run(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages],
                            capture_output=True, text=True, check=False).stdout
    installed = {line.split()[0] for line in answer.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def install_libraries(packages: list[str]) -> None:
    missing = missing_libraries(packages)
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        raise SetupError(f"Blender's Python module needs system libraries; install them once, then run this again:\n"
                         f"  sudo {' '.join(command)}")
    say(f"Installing system libraries: {' '.join(missing)}")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    for step in (["apt-get", "update", "-q"], command):
        if subprocess.run(step, env=environment, stdout=sys.stderr, check=False).returncode:
            raise SetupError(f"This command failed, see its messages above: {' '.join(step)}")


# ---- the private environments ------------------------------------------------------------------------------------


def base_python() -> str:
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    name = "python%d.%d" % PYTHON
    found = shutil.which(name)
    if not found:
        raise SetupError(f"Python {PYTHON[0]}.{PYTHON[1]} is needed and {name} was not found: install it and run this again.")
    return found


def interpreter(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def locked(path: Path):
    """An open file that holds a lock until it is closed or the process dies: two first runs take turns."""
    handle = open(path, "w")
    if os.name != "nt":
        import fcntl
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up of the same environment is running; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def make_environment(folder: Path, pins: list[str], pins_without_dependencies: list[str]) -> None:
    say(f"Setting up {folder} (once; some minutes, 1-2 GB)")
    if folder.exists():
        shutil.rmtree(folder)  # an interrupted set-up
    created = subprocess.run([base_python(), "-m", "venv", str(folder)], stdout=sys.stderr, check=False)
    if created.returncode:
        raise SetupError("Python could not make a virtual environment; on Debian: sudo apt-get install python3.11-venv")
    pip = [str(interpreter(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
    for options, packages in ([], pins), (["--no-deps"], pins_without_dependencies):
        if not packages:
            continue
        say(f"Installing {', '.join(packages)}")
        if subprocess.run([*pip, *options, *packages], stdout=sys.stderr, check=False).returncode:
            raise SetupError("The packages above could not be installed; see pip's messages. Run the same command to try again.")


def environment_for(purpose: str, bpy_version: str | None = None) -> Path:
    """The interpreter of the purpose's environment, which is made first if it is not there.

    The folder's name ends in a hash of the pins, and a stamp is written into it last: changed pins or an
    interrupted set-up never leave a half-right environment behind.
    """
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)
    groups = project["dependency-groups"]
    pins, without = requirements(groups, purpose), requirements(groups, f"{purpose}-no-deps")
    if bpy_version:
        pins = replace_pin(pins, "bpy", bpy_version)
    debian = project["tool"]["prn"]["debian"]
    install_libraries(debian.get(purpose, debian["capture"]))

    digest = hashlib.sha256("\n".join([*pins, "", *without, "%d.%d" % PYTHON]).encode()).hexdigest()[:10]
    folder = cache_folder() / f"{purpose}-{digest}"
    stamp = folder / "ready"
    if not stamp.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            if not stamp.exists():
                make_environment(folder, pins, without)
                stamp.touch()
    return interpreter(folder)


# ---- commands ----------------------------------------------------------------------------------------------------


def run(python: Path, arguments: list[str]) -> int:
    """Runs the environment's Python in the user's folder with this repository importable; its exit status."""
    command = [str(python), "-P", *arguments]
    # Matrix products here are small: the threads of numpy's library for them wait for each other longer than they compute,
    # and take the cores from the network.
    environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": str(ROOT)}
    if os.name == "nt":
        return subprocess.run(command, env=environment, check=False).returncode
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # so that signals and exit status are the command's own


def capture(arguments: list[str]) -> int:
    on_cluster = any(argument.split("=")[0] == "--dask" for argument in arguments)
    return run(environment_for("dask" if on_cluster else "capture"), ["-m", "prn_blender.command_line", "capture", *arguments])


def render_over(arguments: list[str]) -> int:
    return run(environment_for("capture"), ["-m", "prn_blender.command_line", "render-over", *arguments])


def apply(arguments: list[str]) -> int:
    return run(environment_for("capture"), ["-m", "prn_blender.command_line", "apply", *arguments])


def dask_scheduler(arguments: list[str]) -> int:
    return run(environment_for("dask"), ["-m", "distributed.cli.dask_scheduler", *arguments])


def dask_worker(arguments: list[str]) -> int:
    return run(environment_for("dask"), ["-m", "distributed.cli.dask_worker", *arguments])


def test(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="build.py test", description="Run the whole suite, on up to four processors; other arguments go to "
                                     "pytest, which then runs as they say.")
    parser.add_argument("--bpy", choices=BPY_VERSIONS, help="run under this Blender instead of the pinned one")
    options, rest = parser.parse_known_args(arguments)
    # A file's tests stay together: they share what they captured.
    together = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile"]
    return run(environment_for("test", options.bpy), [str(ROOT / "tests" / "run.py"), *(rest or together)])


def matrix(arguments: list[str]) -> int:
    from addon_manifest import package as zips
    from tests.blender import matrix as blenders
    parser = argparse.ArgumentParser(prog="build.py matrix", description="Run the suite in every Blender; other arguments go to pytest.")
    parser.add_argument("--only", choices=(*BPY_VERSIONS, "real"), help="in this one")
    options, rest = parser.parse_known_args(arguments)
    results = [blenders.in_wheel(version, environment_for("test", version), rest)
               for version in BPY_VERSIONS if options.only in (None, version)]
    if options.only in (None, "real"):
        chroot = cache_folder() / blenders.SUITE
        try:
            blenders.make_chroot(chroot)
            package(["--platform", "linux-x64", "--python", zips.NEW])
            archive = ROOT / "dist" / zips.zip_name("linux-x64", zips.NEW)
            results += blenders.in_real_blender(chroot, archive, environment_for("test"), rest)
        except blenders.MatrixError as error:
            raise SetupError(str(error)) from None
    print(blenders.table(results))
    return 0 if all(result.passed for result in results) else 1


def package(arguments: list[str]) -> int:
    from addon_manifest import package as zips
    parser = argparse.ArgumentParser(prog="build.py package", description="Make the extension's zips, for installing in Blender.")
    parser.add_argument("--platform", choices=(*zips.PLATFORMS, "all"), default=this_platform(),
                        help="the machines to make it for (default: this one, %(default)s)")
    parser.add_argument("--python", choices=(zips.OLD, zips.NEW, "all"), default="all",
                        help=f"{zips.OLD} for Blender 4.2 to 5.0, {zips.NEW} for 5.1 on and for Linux distributions' own builds")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "dist", metavar="FOLDER", help="default: %(default)s")
    options = parser.parse_args(arguments)
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)
    groups = project["dependency-groups"]
    packed = project["tool"]["prn"]["wheels"]
    pins = [pin for pin in [*requirements(groups, "capture"), *requirements(groups, "capture-no-deps")]
            if pin.split("==")[0] in packed]
    interpreter = environment_for("capture")
    for platform in zips.PLATFORMS if options.platform == "all" else [options.platform]:
        for python in zips.PLATFORMS[platform].pythons:
            if options.python in ("all", python):
                try:
                    path = zips.package(platform, python, options.output, interpreter, pins, cache_folder() / "wheels")
                except zips.PackageError as error:
                    raise SetupError(str(error)) from None
                print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def this_platform() -> str:
    """This machine as Blender's manifests name it."""
    system = {"win32": "windows", "darwin": "macos"}.get(sys.platform, "linux")
    return f"{system}-{'arm64' if os.uname().machine == 'arm64' else 'x64'}" if os.name != "nt" else "windows-x64"


def test_prnet(arguments: list[str]) -> int:
    tests = [str(ROOT / "tests" / "test_prnet_parity.py"), "-m", "slow"]
    return run(environment_for("prnet"), [str(ROOT / "tests" / "run.py"), *tests, *arguments])


def train(arguments: list[str]) -> int:
    return run(environment_for("train"), ["-m", "training.train", *arguments])


def measure(arguments: list[str]) -> int:
    return run(environment_for("train"), ["-m", "training.measure", *arguments])


def measure_head(arguments: list[str]) -> int:
    return run(environment_for("train"), ["-m", "training.measure_head", *arguments])


def export(arguments: list[str]) -> int:
    return run(environment_for("train"), ["-m", "training.export", *arguments])


def convert_prnet(arguments: list[str]) -> int:
    return run(environment_for("prnet"), ["-m", "training.convert_prnet", *arguments])


def bench_network(arguments: list[str]) -> int:
    return run(environment_for("bench"), ["-m", "training.bench_network", *arguments])


def evaluate(arguments: list[str]) -> int:
    return run(environment_for("capture"), ["-m", "training.evaluate", *arguments])


def bench(arguments: list[str]) -> int:
    return run(environment_for("bench"), ["-m", "training.measure_video", *arguments])


def bench_blender(arguments: list[str]) -> int:
    return run(environment_for("capture"), ["-m", "training.measure_playback", *arguments])


COMMANDS = {
    "capture": (capture, "a photograph to a face mesh: build.py capture INPUT [-o OUT] [--preview PNG]"),
    "render-over": (render_over, "an edited texture back over the photo: build.py render-over PHOTO CAPTURE TEXTURE -o PNG"),
    "apply": (apply, "a LiveLink Face recording onto a character: build.py apply TAKE.csv CHARACTER.blend -o OUT.blend"),
    "dask-scheduler": (dask_scheduler, "begin a cluster for capture --dask: build.py dask-scheduler [its own options]"),
    "dask-worker": (dask_worker, "join a cluster: build.py dask-worker tcp://HOST:PORT --nthreads 1 [its own options]"),
    "test": (test, "run the whole test suite: build.py test [--bpy VERSION] [pytest's arguments]"),
    "matrix": (matrix, "run the suite in every Blender: build.py matrix [--only VERSION|real]"),
    "package": (package, "make the extension's zips: build.py package [--platform PLATFORM|all]"),
    "test-prnet": (test_prnet, "compare resfcn256 with TensorFlow on a real checkpoint (slow; installs TensorFlow)"),
    "evaluate": (evaluate, "measure the shipped weights: build.py evaluate --data FOLDER --json FILE"),
    "bench-network": (bench_network, "our network beside PRNet's and MediaPipe: size, work and time in one table"),
    "bench": (bench, "measure videos against MediaPipe: build.py bench --json FILE [--clips FOLDER] [--takes FOLDER]"),
    "bench-blender": (bench_blender, "building and playing a performance in Blender: build.py bench-blender --json FILE"),
    "measure": (measure, "measure depth, expression, robustness and fairness: build.py measure --faces FOLDER --data FOLDER"),
    "measure-head": (measure_head, "measure the whole head against the truth: build.py measure-head --faces FOLDER"),
    "train": (train, "train the network, or go on training it: build.py train --faces FOLDER --minutes N"),
    "convert-prnet": (convert_prnet, "PRNet's own weights to a bundle: build.py convert-prnet --checkpoint PREFIX --uv-data DIR -o BUNDLE"),
    "export": (export, "write weights/ from the last training checkpoint"),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="build.py", description="PRN Face Capture: one door to everything.", formatter_class=argparse.RawTextHelpFormatter,
        epilog="commands:\n" + "\n".join(f"  {name:<15}{text}" for name, (_, text) in COMMANDS.items())
               + "\n\n'build.py COMMAND --help' tells a command's options.")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="what to do, see below")
    options = parser.parse_args(arguments[:1])
    try:
        return COMMANDS[options.command][0](arguments[1:])
    except SetupError as error:
        say(f"build.py: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
