"""The add-on's preferences: which engine and weights, where the cache is, a report for bug reports. Registers them.

Touches the extension's user folder, and the clipboard when asked to.
"""

import shutil
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_rpt as rpt_
from bpy.props import EnumProperty, FloatProperty, StringProperty

from . import bug_report, dependencies
from .options import EYE_DISTANCE


def weights_changed(preferences, context) -> None:
    _status.clear()


class PRN_Preferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    engine: EnumProperty(
        name="Engine", description="What runs the neural network", update=weights_changed,
        items=(("ONNX", "ONNX Runtime", "On the CPU; comes with the extension"),
               ("TORCH", "PyTorch", "On a graphics card, where PyTorch is installed in Blender's Python")))
    device: EnumProperty(
        name="Device", description="Where PyTorch computes", update=weights_changed,
        items=(("AUTO", "Fastest", "CUDA or Metal where there is one, else the CPU"),
               ("CUDA", "CUDA", "An NVIDIA graphics card"), ("MPS", "Metal", "An Apple graphics processor"),
               ("CPU", "CPU", "The processor")))
    weights: StringProperty(name="Weights", subtype="DIR_PATH", update=weights_changed,
                            description="Folder with another network's prn.onnx and prn.safetensors; empty: the one that came with "
                                        "the extension")
    eye_distance: FloatProperty(default=63.0, **EYE_DISTANCE | {"description": "The scale of scenes that have none of their own: "
                                                                               "millimetres between the eyes' centres"})

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        problem = dependencies.known_problem()
        if problem:
            wrapped(layout, problem, "ERROR", 90)
        layout.prop(self, "engine")
        if self.engine == "TORCH":
            layout.prop(self, "device")
        status(layout, engine_status(self))
        layout.prop(self, "weights")
        status(layout, weights_status(self))
        layout.prop(self, "eye_distance")
        row = layout.row(align=True)
        row.label(text=rpt_("Cache: {size:.1f} MB in {folder}").format(size=folder_size(cache_folder()) / 1e6, folder=cache_folder()))
        row.operator("prn.clear_cache", text="Clear")
        layout.operator("prn.copy_report", icon="COPYDOWN")


def wrapped(layout, text: str, icon: str, width: int) -> None:
    """A long sentence as labels; Blender would cut it off at the panel's edge."""
    import textwrap

    column = layout.column(align=True)
    column.scale_y = 0.8
    for index, line in enumerate(textwrap.wrap(text, width)):
        column.label(text=line, icon=icon if index == 0 else "BLANK1", translate=False)


def status(layout, told: tuple[bool, str]) -> None:
    fine, text = told
    split = layout.split(factor=0.4)
    split.label(text="")
    wrapped(split, text, "CHECKMARK" if fine else "ERROR", 60)


def preferences(context) -> PRN_Preferences | None:
    """The add-on's preferences; None where the package was registered by hand and not enabled as an add-on."""
    addon = context.preferences.addons.get(__package__)
    return addon.preferences if addon else None


# ---- engine and weights ----------------------------------------------------------------------------------------------

_status: dict[str, tuple[bool, str]] = {}  # what was found out, until a choice changes: looking takes too long for drawing


def engine_choice(context):
    """The preferences' choice as plain data. Raises nothing; what cannot be had is said when it is opened."""
    from .prn.engine import EngineChoice

    chosen = preferences(context)
    if chosen is None:
        return EngineChoice()
    folder = Path(bpy.path.abspath(chosen.weights)) if chosen.weights else None
    if chosen.engine == "ONNX":
        return EngineChoice(weights=folder)
    return EngineChoice("torch", torch_device(chosen.device), folder)


def torch_device(device: str) -> str:
    from .prn.engine import torch_devices

    return (torch_devices() or ("cpu",))[0] if device == "AUTO" else device.lower()


def engine_status(chosen: PRN_Preferences) -> tuple[bool, str]:
    if "engine" not in _status:
        _status["engine"] = _engine_status(chosen)
    return _status["engine"]


def _engine_status(chosen: PRN_Preferences) -> tuple[bool, str]:
    if dependencies.problem():
        return False, dependencies.problem()
    if chosen.engine == "ONNX":
        import onnxruntime

        return True, rpt_("Ready: ONNX Runtime {version} on the CPU").format(version=onnxruntime.__version__)
    from .prn.engine import torch_devices

    if not torch_devices():
        return False, rpt_("PyTorch is not installed in Blender's Python: choose ONNX Runtime, which needs nothing more.")
    device = torch_device(chosen.device)
    if device not in torch_devices():
        return False, rpt_("PyTorch has no device '{device}' here: choose one of {devices}.").format(
            device=device, devices=", ".join(torch_devices()))
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else device.upper()
    return True, rpt_("Ready: PyTorch {version} on {device}").format(version=torch.__version__, device=name)


def weights_status(chosen: PRN_Preferences) -> tuple[bool, str]:
    if "weights" not in _status:
        _status["weights"] = _weights_status(chosen)
    return _status["weights"]


def _weights_status(chosen: PRN_Preferences) -> tuple[bool, str]:
    if dependencies.problem():
        return False, dependencies.problem()
    from .prn.errors import CaptureError
    from .prn.weights import load_bundle

    try:
        bundle = load_bundle(Path(bpy.path.abspath(chosen.weights)) if chosen.weights else None)
    except CaptureError as error:
        return False, str(error)
    whose = rpt_("The extension's own") if not chosen.weights else rpt_("Your own")
    text = rpt_("{whose}, complete and undamaged: architecture {name}, licence {licence}.").format(
        whose=whose, name=bundle.architecture, licence=bundle.licence)
    return True, f"{text} {rpt_('For research only.')}" if bundle.research_only else text


# ---- cache -----------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where the add-on may keep what it can make again. The folder need not exist."""
    try:
        return Path(bpy.utils.extension_path_user(__package__, path="cache"))
    except ValueError:  # not installed as an extension
        return Path(bpy.utils.user_resource("DATAFILES")) / "prn_face_capture" / "cache"


def folder_size(folder: Path) -> int:
    """Bytes in a folder; 0 if it does not exist."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0


class PRN_OT_clear_cache(bpy.types.Operator):
    """Delete what the add-on has kept to be faster the next time, on disk and in memory"""

    bl_idname = "prn.clear_cache"
    bl_label = "Clear Cache"
    bl_options = {"INTERNAL"}

    def execute(self, context):
        folder = cache_folder()
        size = folder_size(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if not dependencies.problem():
            from . import stills, takes

            stills.forget()
            takes.forget()
        self.report({"INFO"}, rpt_("Cleared {size:.1f} MB").format(size=(size - folder_size(folder)) / 1e6))
        return {"FINISHED"}


class PRN_OT_copy_report(bpy.types.Operator):
    """Copy what a bug report should say about this Blender, this machine and the last error to the clipboard"""

    bl_idname = "prn.copy_report"
    bl_label = "Copy Report"
    bl_options = {"INTERNAL"}

    def execute(self, context):
        chosen = preferences(context)
        engine = engine_status(chosen)[1] if chosen else "not enabled as an add-on"
        weights = weights_status(chosen)[1] if chosen else "not enabled as an add-on"
        context.window_manager.clipboard = bug_report.text(engine, weights, version())
        self.report({"INFO"}, rpt_("The report is in the clipboard: paste it into your bug report."))
        return {"FINISHED"}


def version() -> str:
    """The add-on's version, from its manifest."""
    import tomllib

    here = Path(__file__).parent
    for manifest in (here / "blender_manifest.toml", here.parent / "addon_manifest" / "blender_manifest.toml"):
        if manifest.is_file():
            return tomllib.loads(manifest.read_text(encoding="utf-8"))["version"]
    return "unknown"


CLASSES = (PRN_Preferences, PRN_OT_clear_cache, PRN_OT_copy_report)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
    _status.clear()
