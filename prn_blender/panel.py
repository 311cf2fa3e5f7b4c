"""The add-on's one panel, in the 3D view's sidebar: a picture to choose and the button that captures it.

Touches bpy's registration and one scene property, the chosen file.
"""

import bpy
from bpy.props import StringProperty


class PRN_PT_capture(bpy.types.Panel):
    bl_label = "PRN Face Capture"
    bl_idname = "PRN_PT_capture"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "PRN Face"

    def draw(self, context):
        layout = self.layout
        layout.prop(context.scene, "prn_photo", text="")
        row = layout.row()
        row.enabled = bool(context.scene.prn_photo)
        row.operator("prn.capture_image", icon="USER").filepath = context.scene.prn_photo


def register() -> None:
    bpy.types.Scene.prn_photo = StringProperty(
        name="Photo", description="Photograph to capture the face from", subtype="FILE_PATH")
    bpy.utils.register_class(PRN_PT_capture)


def unregister() -> None:
    bpy.utils.unregister_class(PRN_PT_capture)
    del bpy.types.Scene.prn_photo
