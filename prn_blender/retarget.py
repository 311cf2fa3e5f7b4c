"""The operators that put a captured performance, or a LiveLink Face recording, onto a character. Façades over scene/retarget.py.

Touch bpy's registration, one collection property of the scene (what is on, and how strong), and the chosen target.
"""

from __future__ import annotations

import bpy
from bpy.app.translations import pgettext_rpt as rpt_
from bpy.props import BoolProperty, CollectionProperty, EnumProperty, FloatProperty, StringProperty
from bpy_extras.io_utils import ImportHelper

from .prn.arkit import ARKIT_NAMES
from .next_steps import FACTS
from .prn.errors import CaptureError


class PRN_PG_shape_strength(bpy.types.PropertyGroup):
    """One ARKit shape's part in a retarget; `name` is the shape's."""

    use: BoolProperty(name="Use", description="Key this shape on the target", default=True)
    strength: FloatProperty(name="Strength", description="Multiplier of this shape", default=1.0, min=0.0, soft_max=2.0)


class PRN_OT_retarget(bpy.types.Operator):
    """Key a captured performance onto another mesh, whose shape keys carry ARKit names"""

    bl_idname = "prn.retarget"
    bl_label = "Retarget Performance"
    bl_options = {"REGISTER", "UNDO"}

    target: StringProperty(name="Target", description="Mesh to animate; none is the active one")
    expression: StringProperty(name="Expression", description="The capture's action with the ARKit weights")
    head: StringProperty(name="Head Motion", description="The capture's action with the head's motion; none leaves it out")
    head_target: StringProperty(name="Head Object", description="Object or armature that takes the head's motion")
    bone: StringProperty(name="Head Bone", description="Bone of the armature that takes the head's turn")
    multiplier: FloatProperty(name="Strength", description="Multiplier of all shapes", default=1.0, min=0.0, soft_max=2.0)
    place: EnumProperty(name="Place", description="Where the new keys go", items=[
        ("ACTION", "Action", "In place of the active action, which stays in the file"),
        ("NLA", "NLA Strip", "On a new NLA track, beside what is there"),
    ])
    shapes: CollectionProperty(type=PRN_PG_shape_strength, name="Shapes", description="Each shape's part in it")

    def invoke(self, context, event):
        from .scene.retarget import arkit_keys

        # A character chosen together with the capture, or the only other one there is.
        characters = [piece for piece in (*context.selected_objects, *context.scene.objects)
                      if piece.type == "MESH" and FACTS not in piece and arkit_keys(piece)
                      and not (piece.parent and FACTS in piece.parent)]
        if not self.target and characters:
            self.target = characters[0].name
        if not self.expression:
            self.expression = next((action.name for action in bpy.data.actions if action.name.endswith(" ARKit")), "")
        if not self.shapes:
            for name in ARKIT_NAMES:
                self.shapes.add().name = name
        return context.window_manager.invoke_props_dialog(self, width=420)

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.prop_search(self, "target", context.scene, "objects")
        layout.prop_search(self, "expression", bpy.data, "actions")
        layout.prop(self, "multiplier")
        layout.prop_search(self, "head", bpy.data, "actions")
        layout.prop_search(self, "head_target", bpy.data, "objects")
        holder = bpy.data.objects.get(self.head_target)
        if holder and holder.type == "ARMATURE":
            layout.prop_search(self, "bone", holder.data, "bones")
        layout.prop(self, "place")
        grid = layout.grid_flow(columns=2, row_major=True)
        grid.use_property_split = False
        for shape in self.shapes:
            row = grid.row(align=True)
            row.prop(shape, "use", text="")
            part = row.row()
            part.enabled = shape.use
            part.prop(shape, "strength", text=shape.name)

    def execute(self, context):
        from .scene.retarget import retarget

        target = bpy.data.objects.get(self.target) if self.target else context.active_object
        expression, head = bpy.data.actions.get(self.expression), bpy.data.actions.get(self.head)
        try:
            if target is None or target.type != "MESH":
                raise CaptureError(f"'{self.target}' is no mesh to animate: choose a mesh with ARKit shape keys.")
            if expression is None:
                raise CaptureError(f"There is no action '{self.expression}': choose the capture's ARKit action.")
            if self.head and head is None:
                raise CaptureError(f"There is no action '{self.head}': choose the capture's head action.")
            done = retarget(expression, target, multiplier=self.multiplier, head=head, bone=self.bone,
                            head_target=bpy.data.objects.get(self.head_target), as_strip=self.place == "NLA",
                            shapes={shape.name: (shape.use, shape.strength) for shape in self.shapes})
        except CaptureError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        said = f"{len(done.matched)} of 52 shapes keyed on '{target.name}'"
        if done.missing:
            said += f"; it has no key for {', '.join(done.missing[:8])}{' ...' if len(done.missing) > 8 else ''}"
        self.report({"WARNING"} if done.missing else {"INFO"}, said)
        return {"FINISHED"}


class PRN_OT_import_livelink(bpy.types.Operator, ImportHelper):
    """Key a LiveLink Face recording onto the active mesh's ARKit shape keys, from the scene's first frame on"""

    bl_idname = "prn.import_livelink"
    bl_label = "LiveLink Face Recording"
    bl_options = {"REGISTER", "UNDO"}

    filename_ext = ".csv"
    filter_glob: StringProperty(default="*.csv", options={"HIDDEN"})
    fps: FloatProperty(name="Frame Rate", default=0.0, min=0.0, max=240.0,
                       description="Rate that the timecodes count at; 0: as they tell themselves, or the app's 60")
    turn_object: BoolProperty(name="Turn the Object", default=False, description="Key the head's turn on the mesh's object as well")

    @classmethod
    def poll(cls, context):
        if context.active_object is None or context.active_object.type != "MESH":
            cls.poll_message_set(rpt_("Select a mesh with ARKit shape keys."))
            return False
        return True

    def execute(self, context):
        from pathlib import Path

        from .scene.livelink import recorded_actions
        from .prn.livelink import read_livelink
        from .scene.retarget import arkit_keys, retarget

        target, path = context.active_object, Path(bpy.path.abspath(self.filepath))
        # What stands in a captured face's eyes and mouth moves with it.
        targets = [target, *(piece for piece in target.children if piece.type == "MESH" and arkit_keys(piece))]
        actions = []
        try:
            recording = read_livelink(path, self.fps or None)
            if not arkit_keys(target):
                raise CaptureError(f"'{target.name}' has no shape keys with ARKit names (as jawOpen or eyeBlink_L): choose a mesh that has.")
            actions = [action for action in recorded_actions(recording, context.scene, path.stem) if action]
            head = actions[1] if self.turn_object and len(actions) > 1 else None
            done = [retarget(actions[0], piece, head=head if piece is target else None, head_target=target) for piece in targets]
        except CaptureError as error:
            bpy.data.batch_remove(actions)
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        if FACTS in target:
            target[FACTS]["expression"] = done[0].expression
        self.report({"INFO"}, rpt_("{shapes} of 52 shapes keyed, {frames} frames").format(
            shapes=len(done[0].matched), frames=len(recording.seconds)))
        for what, names in (("has no key for", done[0].missing), ("has no recording of", recording.missing)):
            if names:
                self.report({"WARNING"}, f"'{target.name}' {what} {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}")
        return {"FINISHED"}


def menu(self, context) -> None:
    self.layout.operator(PRN_OT_import_livelink.bl_idname, text="LiveLink Face (.csv)")


_CLASSES = (PRN_PG_shape_strength, PRN_OT_retarget, PRN_OT_import_livelink)


def register() -> None:
    for part in _CLASSES:
        bpy.utils.register_class(part)
    bpy.types.TOPBAR_MT_file_import.append(menu)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(menu)
    for part in reversed(_CLASSES):
        bpy.utils.unregister_class(part)
