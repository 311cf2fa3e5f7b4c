"""The add-on: registers, unregisters, captures through its operator, and turns mistakes into reports. Needs bpy."""

import subprocess
import sys
import tomllib
from pathlib import Path

import bpy
import numpy as np
import pytest

import prn_blender
from bundles import write_constant_bundle
from prn_blender.prn import capture as capture_module
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.weights import load_bundle

ROOT = Path(__file__).resolve().parent.parent
PORTRAIT = ROOT / "tests" / "data" / "astronaut.jpg"


@pytest.fixture
def addon():
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    prn_blender.register()
    yield
    prn_blender.unregister()


@pytest.fixture
def network(tmp_path, monkeypatch):
    mean = load_topology().mean
    bundle = load_bundle(write_constant_bundle(tmp_path / "weights", (mean / 0.21).astype(np.float32)))
    engine = OnnxEngine(bundle)
    monkeypatch.setattr(capture_module, "_default_engine", lambda: engine)


def test_register_and_unregister_leave_nothing():
    for _ in range(2):
        prn_blender.register()
        assert hasattr(bpy.types, "PRN_OT_capture_image") and hasattr(bpy.types, "PRN_PT_capture")
        assert bpy.types.PRN_PT_capture.bl_category == "PRN Face"
        assert "UNDO" in bpy.types.PRN_OT_capture_image.bl_options
        prn_blender.unregister()
        assert not hasattr(bpy.types, "PRN_OT_capture_image") and not hasattr(bpy.types, "PRN_PT_capture")
        assert not hasattr(bpy.types.Scene, "prn_photo")


def test_the_button_builds_a_face(addon, network):
    bpy.context.scene.prn_photo = str(PORTRAIT)
    assert bpy.ops.prn.capture_image(filepath=bpy.context.scene.prn_photo) == {"FINISHED"}
    face = bpy.context.view_layer.objects.active
    assert face.name == "Face" and face.select_get()
    assert "Face" in bpy.data.collections and bpy.context.scene.camera.name == "Face Camera"


def test_a_second_capture_stands_beside_the_first(addon, network):
    for _ in range(2):
        bpy.ops.prn.capture_image(filepath=str(PORTRAIT))
    assert {"Face", "Face.001"} <= {collection.name for collection in bpy.data.collections}


@pytest.mark.parametrize("name", ["nowhere.jpg", ""])
def test_a_mistake_becomes_a_report(addon, network, tmp_path, name):
    with pytest.raises(RuntimeError) as caught:  # what an error report becomes in a script
        bpy.ops.prn.capture_image(filepath=str(tmp_path / name))
    assert "Traceback" not in str(caught.value) and str(caught.value).startswith("Error: ")
    assert not bpy.data.objects


def test_the_package_is_a_library_without_bpy():
    code = ("import sys; sys.modules['bpy'] = None; sys.path.insert(0, sys.argv[1]); import prn_blender.prn; "
            "from prn_blender.prn import capture_image; from prn_blender.prn import texture, preview, render; "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True)


def test_the_manifest_follows_the_platforms_rules():
    manifest = tomllib.loads((ROOT / "addon_manifest" / "blender_manifest.toml").read_text())
    assert manifest["schema_version"] == "1.0.0" and manifest["id"] == "prn_face_capture"
    assert manifest["name"] == "PRN Face Capture" and "blender" not in manifest["name"].lower()
    assert len(manifest["tagline"]) <= 64 and not manifest["tagline"].endswith(".")
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"] and manifest["blender_version_min"] == "4.2.0"
    assert all(len(reason) <= 64 and not reason.endswith(".") for reason in manifest["permissions"].values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert manifest["version"] == project["version"]
