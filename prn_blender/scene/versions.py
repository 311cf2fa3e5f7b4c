"""The one file that knows how Blender's versions differ. Reads bpy.app.version, touches nothing."""

import math

import bpy


def usd_keeps_textures() -> dict:
    """Arguments that make the USD exporter refer to texture files where they are, and copy none."""
    if bpy.app.version >= (4, 5, 0):
        return {"export_textures_mode": "KEEP"}
    return {"export_textures": False}


def is_animated(owner: bpy.types.bpy_struct, name: str) -> bool:
    """Whether a property of something in a scene (a strip, say) has an F-curve, in any kind of action."""
    animation = owner.id_data.animation_data
    if animation is None or animation.action is None:
        return False
    path = owner.path_from_id(name)
    return any(curve.data_path == path for curve in fcurves_of(animation.action))


def fcurves_of(action: bpy.types.Action) -> list[bpy.types.FCurve]:
    """All curves of an action, in layers and slots (4.4 on) or not."""
    if hasattr(action, "layers"):
        return [curve for layer in action.layers for strip in layer.strips for bag in strip.channelbags for curve in bag.fcurves]
    return list(action.fcurves)


def speed_strip_frame(place: float) -> int:
    """The frame that a Speed Control strip shows at a place between two: until 4.2 the one before, then the nearest."""
    return math.floor(place + 0.5 if bpy.app.version >= (4, 3, 0) else place)


# How a file name's property tells that it may begin with "//", which 4.5 introduced.
RELATIVE_PATH = {"options": {"PATH_SUPPORTS_BLEND_RELATIVE"}} if bpy.app.version >= (4, 5, 0) else {}


class Channels:
    """The F-curves by which an action moves datablocks of one kind ("OBJECT", "KEY"), whatever they are kept in.

    Since 4.4 an action has slots, layers and strips, and a datablock is bound to a slot; before, it was a flat list.
    """

    def __init__(self, action: bpy.types.Action, id_type: str) -> None:
        self.bag = None
        if hasattr(action, "slots"):
            slot = _slot(action, id_type) or action.slots.new(id_type, action.name)
            layer = action.layers[0] if action.layers else action.layers.new("Layer")
            strip = layer.strips[0] if layer.strips else layer.strips.new(type="KEYFRAME")
            self.bag = strip.channelbag(slot, ensure=True)
            self.curves = self.bag.fcurves
        else:
            action.id_root = id_type
            self.curves = action.fcurves

    def new(self, path: str, index: int, group: str) -> bpy.types.FCurve:
        if self.bag is None:
            return self.curves.new(path, index=index, action_group=group)
        curve = self.curves.new(path, index=index)
        curve.group = self.bag.groups.get(group) or self.bag.groups.new(group)
        return curve


def _slot(action: bpy.types.Action, id_type: str):
    return next((slot for slot in action.slots if slot.target_id_type == id_type), None)


def assign_action(datablock: bpy.types.ID, action: bpy.types.Action) -> None:
    """Lets the action move the datablock, in place of the one that did."""
    animation = datablock.animation_data or datablock.animation_data_create()
    animation.action = action
    if hasattr(action, "slots"):
        animation.action_slot = _slot(action, datablock.id_type)


def curves_of(action: bpy.types.Action, id_type: str) -> list[bpy.types.FCurve]:
    """All F-curves of an action for datablocks of a kind ("OBJECT", "KEY")."""
    if not hasattr(action, "slots"):
        return list(action.fcurves) if action.id_root in (id_type, "") else []
    bags = [bag for layer in action.layers for strip in layer.strips for bag in strip.channelbags]
    return [curve for bag in bags if bag.slot.target_id_type == id_type for curve in bag.fcurves]


def bind_strip(strip: bpy.types.NlaStrip, action: bpy.types.Action, id_type: str) -> None:
    """An NLA strip plays the slot of its action that fits the datablock's kind."""
    if hasattr(action, "slots"):
        strip.action_slot = _slot(action, id_type)


def sequencer_strips(editor: bpy.types.SequenceEditor):
    """The sequencer's strips: `sequences` until 4.3, `strips` since."""
    return editor.strips if hasattr(editor, "strips") else editor.sequences
