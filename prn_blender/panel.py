"""The panel in the 3D view's sidebar, from the source at the top to the captured face's next steps. Only draws."""

import bpy
from bpy.app.translations import pgettext_iface as iface_

from . import dependencies
from .finding import found_in
from .modal import draw_progress, running_job
from .next_steps import FACTS, captured_face
from .operators import draw_result, draw_take
from .preferences import wrapped

FILES = ("IMAGE", "MOVIE", "SEQUENCE")


class Sidebar:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "PRN Face"


def characters(context) -> int:
    """About how many characters a line of the sidebar has."""
    return max(24, int(context.region.width / (7.2 * context.preferences.system.ui_scale)) - 5)


class PRN_PT_capture(Sidebar, bpy.types.Panel):
    bl_idname = "PRN_PT_capture"
    bl_label = "PRN Face Capture"

    def draw(self, context):
        layout = self.layout
        problem = dependencies.known_problem()
        if problem:
            wrapped(layout.box(), problem, "ERROR", characters(context))
            return
        settings = context.scene.prn
        layout.prop(settings, "source", text="")
        draw_source(layout, context, settings)
        draw_faces(layout, context, settings)
        job = running_job()
        if job:
            draw_progress(layout, job)
            layout.operator("prn.cancel", icon="X")
        else:
            column = layout.column()
            column.scale_y = 1.6
            column.operator("prn.capture", text=button_text(settings), icon="USER")


def is_take(settings) -> bool:
    return settings.source != "IMAGE" and settings.whole == "TAKE"


def button_text(settings) -> str:
    if is_take(settings):
        return "Capture Performance"
    return "Capture All Faces" if settings.face == 0 else "Capture Face"


def draw_source(layout, context, settings) -> None:
    from .scene.source import active_strip, missing

    if settings.source in FILES:
        layout.prop(settings, "path", text="")
    elif settings.source == "CLIP":
        layout.template_ID(settings, "clip", open="clip.open")
    else:
        strip = active_strip(context.scene)
        if strip:
            layout.label(text=strip.name, icon="SEQUENCE", translate=False)
    if settings.source != "IMAGE":
        layout.row().prop(settings, "whole", expand=True)
    reason = missing(context.scene, settings)
    if reason:
        wrapped(layout, reason, "INFO", characters(context))


def draw_faces(layout, context, settings) -> None:
    """The thumbnail with its numbered faces, and the choice among them."""
    from .scene.source import missing

    if missing(context.scene, settings):
        return
    found = found_in(settings)
    box = layout.box()
    if found is None:
        box.operator("prn.find_faces", icon="VIEWZOOM")
        return
    if found.looking:
        box.label(text="Looking for faces...", icon="TIME")
        return
    if found.icon:
        box.template_icon(icon_value=found.icon, scale=max(6.0, context.region.width / context.preferences.system.ui_scale / 20 - 3.5))
    if found.problem:
        wrapped(box, found.problem, "ERROR", characters(context) - 3)
    if found.faces > 1:
        row = box.row(align=True)
        for number in range(1, found.faces + 1):
            row.operator("prn.choose_face", text=str(number), depress=settings.face == number).face = number
        if not is_take(settings):
            row.operator("prn.choose_face", text="All", depress=settings.face == 0).face = 0
    if settings.source != "IMAGE" or found.problem:
        text = iface_("Look Again") if settings.source == "IMAGE" else iface_("Frame {frame}: Look Again").format(
            frame=context.scene.frame_current)
        box.operator("prn.find_faces", text=text, icon="FILE_REFRESH", translate=False)


class PRN_PT_result(Sidebar, bpy.types.Panel):
    bl_idname = "PRN_PT_result"
    bl_parent_id = "PRN_PT_capture"
    bl_label = "Result"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context):
        return not dependencies.known_problem()

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        settings = context.scene.prn
        (draw_take if is_take(settings) else draw_result)(layout, settings)
        layout.prop(settings, "collection")


class PRN_PT_face(Sidebar, bpy.types.Panel):
    """What is known of the captured face that is selected, and what to do with it"""

    bl_idname = "PRN_PT_face"
    bl_label = "Captured Face"

    @classmethod
    def poll(cls, context):
        return captured_face(context) is not None

    def draw(self, context):
        layout = self.layout
        face = captured_face(context)
        facts = face[FACTS]
        column = layout.column(align=True)
        for name, text in told(facts, len(face.data.vertices) if face.type == "MESH" else 0):
            row = column.row()
            row.label(text=name)
            right = row.row()
            right.alignment = "RIGHT"
            right.label(text=text, translate=False)
        if facts.get("face_pixels", 80) < 80:
            wrapped(layout, iface_("The face is small in the picture: a closer photo gives a sharper texture."), "INFO",
                    characters(context))
        elif "doubt" in facts:
            wrapped(layout, facts["doubt"], "INFO", characters(context))
        elif abs(facts.get("yaw", 0)) > 50:
            wrapped(layout, iface_("The face is turned far to the side: a photo from the front is more exact."), "INFO",
                    characters(context))
        column = layout.column(align=True)
        column.operator("prn.look_through_camera", icon="VIEW_CAMERA")
        column.operator("prn.edit_texture", icon="TPAINT_HLT")
        column.operator("prn.export_face", icon="EXPORT")
        if face.data.shape_keys:
            column.operator("prn.import_livelink", icon="IMPORT")
        if "expression" in facts:
            column.operator("prn.retarget", icon="ARMATURE_DATA")
        else:
            column.operator("prn.add_shapes", icon="SHAPEKEY_DATA")


def told(facts, vertices: int) -> list[tuple[str, str]]:
    """Names and values of a captured face's facts."""
    if "frames" in facts:
        return [("Frames", f"{facts['frames']}"), ("Frames a second", f"{facts['fps']:.5g}"),
                ("Face seen in", f"{100 * facts['seen']:.0f} %"), ("Vertices", f"{vertices:,}")]
    lines = [("Face in the photo", f"{facts['face_pixels']:.0f} px"),
             ("Turned to the side", f"{facts['yaw']:.0f}°"),
             ("Confidence", f"{100 * facts['confidence']:.0f} %"),
             ("Vertices", f"{vertices:,}")]
    if "seconds" in facts:
        lines.insert(3, ("Time", f"{facts['seconds']:.1f} s"))
    return lines


CLASSES = (PRN_PT_capture, PRN_PT_result, PRN_PT_face)
register, unregister = bpy.utils.register_classes_factory(CLASSES)
