"""What an artist does with a captured face next: look through its camera, export it, paint its texture.

Touches the view, the modes and one file that the user names.
"""

from pathlib import Path

import bpy
from bpy.app.translations import pgettext_rpt as rpt_
from bpy.props import EnumProperty, StringProperty
from bpy_extras.io_utils import ExportHelper

from .prn.errors import CaptureError

FACTS = "prn_capture"  # as in scene/face.py, which may not be imported before the dependencies are known to be there
FORMATS = (("GLB", ".glb", "glTF", "One file with mesh, texture, shape keys and animation, for games and the web"),
           ("FBX", ".fbx", "FBX", "One file with mesh, texture, shape keys and animation, for most other programs"),
           ("OBJ", ".obj", "OBJ", "The mesh as it is now, upright, with its texture beside it"),
           ("USD", ".usdc", "USD", "The mesh and its animation, with its texture beside it"),
           ("ABC", ".abc", "Alembic", "The mesh frame by frame, with its texture beside it"),
           ("CSV", ".csv", "LiveLink Face", "The 52 ARKit weights and the head's turn, as Unreal and Faceit read them"),
           ("JSON", ".json", "JSON", "68 landmarks, the head's pose and the ARKit weights of every frame"))
ENDINGS = tuple(ending for _, ending, *_ in FORMATS) + (".usd", ".usda")


def captured_face(context) -> bpy.types.Object | None:
    """The active object if it is a captured face, or belongs to one."""
    piece = context.active_object
    while piece is not None and FACTS not in piece:
        piece = piece.parent
    return piece


class FaceOperator:
    """Base class of what needs a captured face."""

    @classmethod
    def poll(cls, context) -> bool:
        if captured_face(context) is None:
            cls.poll_message_set(rpt_("Select a captured face."))
            return False
        return True


def camera_of(face: bpy.types.Object) -> bpy.types.Object | None:
    camera = face[FACTS].get("camera")
    return camera if camera and camera.name in bpy.context.scene.objects else None


class PRN_OT_look_through_camera(FaceOperator, bpy.types.Operator):
    """Look through the camera that saw the face, with the photo behind it"""

    bl_idname = "prn.look_through_camera"
    bl_label = "Look Through Camera"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context):
        if not super().poll(context):
            return False
        if camera_of(captured_face(context)) is None:
            cls.poll_message_set(rpt_("This face has no camera: capture it with the option Camera."))
            return False
        return True

    def execute(self, context):
        from .scene.stage import frame_photo

        camera = camera_of(captured_face(context))
        photo = camera.data.background_images[0].image if camera.data.background_images else None
        if photo and all(photo.size):
            frame_photo(context.scene, camera, *photo.size)
        context.scene.camera = camera
        for area in context.screen.areas if context.screen else []:
            if area.type == "VIEW_3D":
                area.spaces.active.region_3d.view_perspective = "CAMERA"
        return {"FINISHED"}


class PRN_OT_export_face(FaceOperator, bpy.types.Operator, ExportHelper):
    """Write the face with its texture to a file for another program"""

    bl_idname = "prn.export_face"
    bl_label = "Export Face"
    bl_options = {"REGISTER"}

    filename_ext = ".glb"
    filter_glob: StringProperty(default=";".join(f"*{ending}" for ending in ENDINGS), options={"HIDDEN"})
    format: EnumProperty(name="Format", description="What kind of file is written", items=tuple((name, label, text) for name, _, label, text in FORMATS))

    def check(self, context):
        self.filename_ext = next(ending for name, ending, *_ in FORMATS if name == self.format)
        return ExportHelper.check(self, context)

    def execute(self, context):
        from .scene.export import export

        path = Path(bpy.path.abspath(self.filepath))
        if path.suffix.lower() not in ENDINGS:
            self.report({"ERROR"}, rpt_("'{name}' has an ending that is not known: use one of {endings}."
                                        ).format(name=path.name, endings=", ".join(ENDINGS)))
            return {"CANCELLED"}
        if context.mode != "OBJECT":
            bpy.ops.object.mode_set(mode="OBJECT")
        selected, active = list(context.selected_objects), context.view_layer.objects.active
        try:
            written = export(path, [captured_face(context)])
        except CaptureError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        except (OSError, RuntimeError) as error:
            self.report({"ERROR"}, rpt_("'{name}' could not be written ({reason}): choose another folder or format.").format(
                name=path.name, reason=str(error).strip().splitlines()[-1]))
            return {"CANCELLED"}
        finally:
            for piece in context.view_layer.objects:
                piece.select_set(piece in selected)
            context.view_layer.objects.active = active
        self.report({"INFO"}, rpt_("Wrote {names}").format(names=", ".join(piece.name for piece in written)))
        return {"FINISHED"}


class PRN_OT_edit_texture(FaceOperator, bpy.types.Operator):
    """Paint on the face's texture, in the 3D view"""

    bl_idname = "prn.edit_texture"
    bl_label = "Edit Texture"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context):
        face = captured_face(context)
        if context.mode != "OBJECT":
            bpy.ops.object.mode_set(mode="OBJECT")
        for piece in context.selected_objects:
            piece.select_set(False)
        face.select_set(True)
        context.view_layer.objects.active = face
        bpy.ops.object.mode_set(mode="TEXTURE_PAINT")
        for area in context.screen.areas if context.screen else []:
            if area.type == "VIEW_3D" and area.spaces.active.shading.type == "SOLID":
                area.spaces.active.shading.color_type = "TEXTURE"
            elif area.type == "IMAGE_EDITOR":
                area.spaces.active.image = face.active_material.node_tree.nodes["Image Texture"].image
        return {"FINISHED"}


CLASSES = (PRN_OT_look_through_camera, PRN_OT_export_face, PRN_OT_edit_texture)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
