"""PRN Face Capture: from a photograph to a face mesh in Blender. This file only registers the add-on.

`prn_blender.prn` is a library of its own: importing this package must not need bpy, so bpy comes in with register().
"""

_PARTS = ("modal", "preferences", "finding", "settings", "operators", "next_steps", "retarget", "panel", "blender_command")


def _parts() -> list:
    from importlib import import_module

    return [import_module(f".{name}", __package__) for name in _PARTS]


def register() -> None:
    for part in _parts():
        part.register()


def unregister() -> None:
    for part in reversed(_parts()):
        part.unregister()
