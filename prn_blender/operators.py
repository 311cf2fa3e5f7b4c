"""The add-on's operators: a façade that captures a picture and hands the faces to scene/.

Touches bpy's current scene through scene/ alone; what a user can get wrong becomes a report, never a traceback.
"""

import bpy
from bpy.props import StringProperty

from .prn.errors import CaptureError


class PRN_OT_capture_image(bpy.types.Operator):
    """Make a textured face mesh from the photograph"""

    bl_idname = "prn.capture_image"
    bl_label = "Capture Face"
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(name="Photo", description="Photograph with a face in it", subtype="FILE_PATH")

    def invoke(self, context, event):
        if self.filepath:
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context):
        # Here, not at the top: registering the add-on must not load the inference runtime.
        from .prn.capture import capture_image
        from .prn.texture import make_texture
        from .scene.face import build_face

        try:
            face = capture_image(bpy.path.abspath(self.filepath))[0]
        except CaptureError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        built = build_face(face, make_texture(face), context.scene)
        if context.view_layer.objects.active:
            context.view_layer.objects.active.select_set(False)
        built.mesh.select_set(True)
        context.view_layer.objects.active = built.mesh
        self.report({"INFO"}, f"Captured {built.mesh.name}: {len(built.mesh.data.vertices)} vertices")
        return {"FINISHED"}


def register() -> None:
    bpy.utils.register_class(PRN_OT_capture_image)


def unregister() -> None:
    bpy.utils.unregister_class(PRN_OT_capture_image)
