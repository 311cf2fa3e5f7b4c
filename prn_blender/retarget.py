"""The operator that puts a captured performance onto another character. A façade over scene/retarget.py.

Touches bpy's registration, one collection property of the scene (what is on, and how strong), and the chosen target.
"""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, CollectionProperty, EnumProperty, FloatProperty, StringProperty

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


_CLASSES = (PRN_PG_shape_strength, PRN_OT_retarget)


def register() -> None:
    for part in _CLASSES:
        bpy.utils.register_class(part)


def unregister() -> None:
    for part in reversed(_CLASSES):
        bpy.utils.unregister_class(part)
