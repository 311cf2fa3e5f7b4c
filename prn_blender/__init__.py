"""PRN Face Capture: from a photograph to a face mesh in Blender. This file only registers the add-on.

`prn_blender.prn` is a library of its own: importing this package must not need bpy, so bpy comes in with register().
"""


def register() -> None:
    from . import operators, panel, retarget

    operators.register()
    retarget.register()
    panel.register()


def unregister() -> None:
    from . import operators, panel, retarget

    panel.unregister()
    retarget.unregister()
    operators.unregister()
