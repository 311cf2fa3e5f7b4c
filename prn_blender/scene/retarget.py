"""A performance onto another character: any mesh whose shape keys carry ARKit names, and a bone or object for its head.

Reads the performance's actions and writes new ones; the character's own actions stay in the file. Touches the target's
animation data and, where a multiplier asks for more than a shape key's range, that range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import bpy
import numpy as np

from ..prn.arkit import ARKIT_NAMES
from ..prn.errors import CaptureError
from . import versions
from .curves import continuous_quaternions, write_curve

_PLAIN = {name.lower(): name for name in ARKIT_NAMES}


@dataclass(frozen=True)
class Retargeted:
    """What a retarget made. missing: ARKit shapes that the performance moves and the target lacks."""

    expression: bpy.types.Action
    head: bpy.types.Action | None
    matched: dict[str, str]  # ARKit name -> the target's shape key
    missing: list[str]
    stretched: list[str] = field(default_factory=list)  # shape keys whose range was made larger


def arkit_name(key: str) -> str | None:
    """The ARKit shape that a shape key's name means, in any usual spelling; None if it means none.

    jawOpen, JawOpen, jaw_open, "Jaw Open", eyeBlinkLeft, eyeBlink_L, EyeBlink.l, left_eye_blink, head.eyeBlinkLeft; !ex-jawOpen, as MPFB
    names a character's expressions.
    """
    name = re.split(r"[/|:]", key)[-1].removeprefix("!ex-")
    for candidate in (name, re.sub(r"^\w+\.(?=\w{3})", "", name)):  # the second without the mesh's name before a dot
        side = re.sub(r"(?:[._\- ]([LRlr])|(?<=[a-z])([LR]))$",
                      lambda match: {"l": "Left", "r": "Right"}[(match[1] or match[2]).lower()], candidate)
        plain = re.sub(r"[^a-z0-9]", "", side.lower())
        for spelling in (plain, re.sub(r"^(left|right)(.+)$", r"\2\1", plain)):
            if spelling in _PLAIN:
                return _PLAIN[spelling]
    return None


def arkit_keys(target: bpy.types.Object) -> dict[str, str]:
    """The target's shape keys by the ARKit shape they mean; where two mean the same, the first."""
    blocks = target.data.shape_keys.key_blocks if getattr(target.data, "shape_keys", None) else []
    found: dict[str, str] = {}
    for block in blocks:
        shape = arkit_name(block.name)
        if shape:
            found.setdefault(shape, block.name)
    return found


def retarget(expression: bpy.types.Action, target: bpy.types.Object, *, shapes: Mapping[str, tuple[bool, float]] | None = None,
             multiplier: float = 1.0, head: bpy.types.Action | None = None, head_target: bpy.types.Object | None = None,
             bone: str = "", as_strip: bool = False) -> Retargeted:
    """Keys a performance onto the target's shape keys, and its head motion onto a bone or an object.

    expression, head: a performance's actions (`build_performance`). shapes: by ARKit name, whether a shape is used and its
    own multiplier, on top of `multiplier`; shapes that are not named are used. bone: of head_target, an armature. as_strip:
    new NLA tracks beside what is there, in place of the active actions. Raises CaptureError, and changes nothing, if target,
    bone or actions do not fit.
    """
    curves = {match[1]: curve for curve in versions.curves_of(expression, "KEY")
              if (match := re.fullmatch(r'key_blocks\["(\w+)"\]\.value', curve.data_path)) and match[1] in ARKIT_NAMES}
    if not curves:
        raise CaptureError(f"The action '{expression.name}' holds no ARKit weights: choose one that a capture made.")
    keys = arkit_keys(target)
    if not keys:
        raise CaptureError(f"'{target.name}' has no shape keys with ARKit names (as jawOpen or eyeBlink_L): choose a mesh that has.")
    pose = _pose_of(head) if head else None
    if head and head_target is None:
        raise CaptureError("The head's motion needs a bone or an object to move: choose one, or leave it out.")
    if bone and (head_target is None or head_target.type != "ARMATURE" or bone not in head_target.pose.bones):
        raise CaptureError(f"There is no bone '{bone}' in '{head_target.name if head_target else ''}': choose one of its bones.")

    chosen = {name: (shapes or {}).get(name, (True, 1.0)) for name in curves}
    matched = {name: keys[name] for name in curves if name in keys and chosen[name][0]}
    moving = [name for name, curve in curves.items() if any(abs(point.co[1]) > 0.01 for point in curve.keyframe_points)]
    action = bpy.data.actions.new(f"{target.name} {expression.name}")
    channels = versions.Channels(action, "KEY")
    stretched = []
    for name, key in matched.items():
        frames, values = _points(curves[name])
        values = values * multiplier * chosen[name][1]
        block = target.data.shape_keys.key_blocks[key]
        if values.max() > block.slider_max or values.min() < block.slider_min:  # Blender would cut the animation off there
            block.slider_max = min(10.0, max(block.slider_max, float(values.max())))
            block.slider_min = max(-10.0, min(block.slider_min, float(values.min())))
            stretched.append(key)
        quoted = bpy.utils.escape_identifier(key)
        write_curve(channels, f'key_blocks["{quoted}"].value', 0, "ARKit", frames, values)
    _play(target.data.shape_keys, action, as_strip)
    head_action = _retarget_head(head, pose, head_target, bone, as_strip) if head else None
    return Retargeted(action, head_action, matched, [name for name in moving if name not in keys], stretched)


def _points(curve: bpy.types.FCurve) -> tuple[np.ndarray, np.ndarray]:
    """Frames and values (N,) of a curve's keys."""
    points = np.empty(2 * len(curve.keyframe_points), np.float32)
    curve.keyframe_points.foreach_get("co", points)
    return points[::2].astype(np.float64), points[1::2].astype(np.float64)


def _pose_of(head: bpy.types.Action) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames (N,), rotations (N, 3, 3) and locations (N, 3) of a head action."""
    from mathutils import Quaternion

    curves = {(curve.data_path, curve.array_index): curve for curve in versions.curves_of(head, "OBJECT")}
    needed = [("rotation_quaternion", index) for index in range(4)] + [("location", index) for index in range(3)]
    if any(curve not in curves for curve in needed):
        raise CaptureError(f"The action '{head.name}' holds no head motion: choose one that a capture made.")
    frames, _ = _points(curves["rotation_quaternion", 0])
    values = np.array([[curves[curve].evaluate(frame) for curve in needed] for frame in frames])
    rotations = np.array([Quaternion(turn).normalized().to_matrix() for turn in values[:, :4]])
    return frames, rotations, values[:, 4:]


def _retarget_head(head: bpy.types.Action, pose: tuple[np.ndarray, np.ndarray, np.ndarray], target: bpy.types.Object,
                   bone: str, as_strip: bool) -> bpy.types.Action:
    """A bone takes the turn alone: where a head is, its body says. An object takes the way it went as well."""
    frames, rotations, locations = pose
    action = bpy.data.actions.new(f"{target.name} {head.name}")
    channels = versions.Channels(action, "OBJECT")
    if bone:
        # The turn about the world's axes, in the axes of the bone at rest.
        rest = np.array((target.matrix_world.to_3x3().normalized() @ target.data.bones[bone].matrix_local.to_3x3()))
        rotations = rest.T @ rotations @ rest
        target.pose.bones[bone].rotation_mode = "QUATERNION"
        path = f'pose.bones["{bpy.utils.escape_identifier(bone)}"].'
    else:
        rest = np.array(target.matrix_world.to_3x3().normalized())
        rotations = rotations @ rest
        target.rotation_mode = "QUATERNION"
        path = ""
        places = np.array(target.location) + locations - locations[0]
        for index in range(3):
            write_curve(channels, "location", index, "Head", frames, places[:, index])
    turns = continuous_quaternions(rotations)
    for index in range(4):
        write_curve(channels, f"{path}rotation_quaternion", index, "Head", frames, turns[:, index])
    _play(target, action, as_strip)
    return action


def _play(datablock: bpy.types.ID, action: bpy.types.Action, as_strip: bool) -> None:
    """The action in place of the active one, which stays in the file, or as a strip on an NLA track of its own."""
    animation = datablock.animation_data or datablock.animation_data_create()
    if not as_strip:
        if animation.action:
            animation.action.use_fake_user = True
        versions.assign_action(datablock, action)
        return
    track = animation.nla_tracks.new()
    track.name = action.name
    first = action.frame_range[0]
    strip = track.strips.new(action.name, int(np.floor(first)), action)
    versions.bind_strip(strip, action, datablock.id_type)
    strip.frame_start = first
    strip.extrapolation = "NOTHING"
