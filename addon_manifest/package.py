"""Makes the extension's zips: `build.py package`. Standard library only; pip and Blender's packager run beside it.

A zip holds the add-on's code, the weights and the wheels that Blender's Python lacks, for one platform and one Python
version, so that installing and capturing need no network. Reads the repository, writes the zips and a cache of wheels.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "addon_manifest" / "blender_manifest.toml"
MAX_BYTES = 120_000_000
OLD, NEW = "3.11", "3.13"  # the Python of Blender 4.2 to 5.0, and that of 5.1 on and of Linux distributions' builds
FIRST_WITH_NEW = "5.1.0"


@dataclass(frozen=True)
class Platform:
    """One kind of machine, as Blender's manifest, pip's tags and the pins know it."""

    blender: str
    tags: tuple[str, ...]
    pythons: tuple[str, ...] = (OLD, NEW)
    pins: tuple[tuple[str, str], ...] = ()  # package and version, where the usual one has no wheel


PLATFORMS = {
    "linux-x64": Platform("linux-x64", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")),
    "windows-x64": Platform("windows-x64", ("win_amd64",)),
    "macos-arm64": Platform("macos-arm64", tuple(f"macosx_{major}_0_arm64" for major in (14, 13, 12, 11))),
    # The last ONNX Runtime and the last Blender (4.5) for Intel Macs.
    "macos-x64": Platform("macos-x64", tuple(f"macosx_{major}_0_x86_64" for major in (13, 12, 11)), (OLD,),
                          (("onnxruntime", "1.23.2"),)),
}


class PackageError(Exception):
    """A zip could not be made; the message says why."""


def zip_name(platform: str, python: str) -> str:
    version = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))["version"]
    return f"prn_face_capture-{version}-{platform}{'' if python == OLD else f'-python{python}'}.zip"


def package(platform: str, python: str, out: Path, interpreter: Path, pins: list[str], cache: Path) -> Path:
    """Makes and validates one zip, and returns its path.

    interpreter: a Python that has pip and bpy. pins: "package==version" of the wheels that go in. cache: where
    downloaded wheels are kept. Raises PackageError if a wheel cannot be had, the zip is not valid, or it is too large.
    """
    target = PLATFORMS[platform]
    versions = dict(target.pins)
    pins = [f"{name}=={versions.get(name, version)}" for name, version in (pin.split("==") for pin in pins)]
    with tempfile.TemporaryDirectory(prefix="prn-package-") as folder:
        source = Path(folder) / "prn_face_capture"
        copy_code(source)
        wheels = [download(pin, target, python, interpreter, cache) for pin in pins]
        (source / "wheels").mkdir()
        for wheel in wheels:
            os.link(wheel, source / "wheels" / wheel.name) if same_device(wheel, source) else shutil.copy2(wheel, source / "wheels")
        (source / "blender_manifest.toml").write_text(
            manifest(target.blender, python, [wheel.name for wheel in wheels]), encoding="utf-8")
        unfinished = Path(folder) / zip_name(platform, python)
        extension(interpreter, "build", "--source-dir", str(source), "--output-filepath", str(unfinished))
        extension(interpreter, "validate", str(unfinished))
        size = unfinished.stat().st_size
        if size > MAX_BYTES:
            raise PackageError(f"{unfinished.name} has {size / 1e6:.0f} MB, and {MAX_BYTES / 1e6:.0f} MB are allowed.")
        out.mkdir(parents=True, exist_ok=True)
        final = out / unfinished.name
        part = final.with_suffix(".part")
        shutil.move(unfinished, part)
        os.replace(part, final)
    return final


def same_device(path: Path, other: Path) -> bool:
    return path.stat().st_dev == other.stat().st_dev


def copy_code(source: Path) -> None:
    """The add-on as Blender expects it: the package's files at the top, the weights inside."""
    shutil.copytree(ROOT / "prn_blender", source, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    shutil.copytree(ROOT / "weights", source / "weights", ignore=shutil.ignore_patterns(".*"))
    # The small networks are run from their ONNX graphs alone; only training begins with their tensors.
    for path in (source / "weights").glob("*/*.safetensors"):
        without_tensors(path)
    shutil.copy2(ROOT / "LICENSE", source)


def without_tensors(path: Path) -> None:
    """Leaves of a bundle's safetensors file what it says about itself, as `weights.load_bundle` verifies it."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    metadata = json.loads(content[8:8 + length])["__metadata__"] | {"tensors_sha256": hashlib.sha256(b"").hexdigest()}
    header = json.dumps({"__metadata__": metadata}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def download(pin: str, target: Platform, python: str, interpreter: Path, cache: Path) -> Path:
    """The wheel of one package for a platform and a Python version, from the cache or from pip."""
    folder = cache / f"{target.blender}-{python}" / pin
    found = list(folder.glob("*.whl"))
    if not found:
        command = [str(interpreter), "-m", "pip", "download", "--disable-pip-version-check", "--no-deps",
                   "--only-binary=:all:", "--implementation=cp", f"--python-version={python}", f"--dest={folder}"]
        command += [f"--platform={tag}" for tag in target.tags]
        if subprocess.run([*command, pin], stdout=sys.stderr, check=False).returncode:
            raise PackageError(f"There is no wheel of {pin} for {target.blender} and Python {python}; see pip's messages above.")
        found = list(folder.glob("*.whl"))
    return found[0]


def manifest(platform: str, python: str, wheels: list[str]) -> str:
    """The manifest of one zip: the common one and what only this platform has."""
    lines = [f'platforms = ["{platform}"]', "wheels = ["]
    lines += [f'  "./wheels/{name}",' for name in wheels] + ["]"]
    if python == OLD:
        lines.insert(0, f'blender_version_max = "{FIRST_WITH_NEW}"')
    text = MANIFEST.read_text(encoding="utf-8")
    head, tail = text.split("# Written here by build.py package", 1)
    return head + "\n".join(lines) + "\n" + tail.partition("\n")[2]


def extension(interpreter: Path, *arguments: str) -> None:
    """Runs `blender --command extension`; Blender's Python module has it as a script of its own."""
    code = ("import pathlib, importlib.util as util\n"
            "print(next(pathlib.Path(util.find_spec('bpy').origin).parent.glob('*/scripts/addons_core/bl_pkg')))")
    packager = subprocess.run([str(interpreter), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    result = subprocess.run([str(interpreter), f"{packager}/cli/blender_ext.py", *arguments], capture_output=True,
                            text=True, check=False)
    if result.returncode:
        raise PackageError(f"Blender's packager refuses the extension:\n{result.stdout}{result.stderr}")
