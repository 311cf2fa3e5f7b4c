"""A performance on other characters: names in any spelling, multipliers, strips, heads of bones and objects. Needs bpy."""

import math

import bpy
import numpy as np
import pytest
from mathutils import Vector

from exact_face import skin_texture
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.errors import CaptureError
from prn_blender.scene import versions
from prn_blender.scene.performance import build_performance
from prn_blender.scene.retarget import arkit_name, retarget
from prn_blender.scene.stage import match_time, new_stage
from takes import BLINK, JAW, LEFT_LID, talking


@pytest.fixture(scope="module")
def built():
    scene = new_stage()
    match_time(scene, 30.0, 60)
    return build_performance(talking()[1], skin_texture(), scene, way="arkit", stride=4)


def character(names, title: str = "Character") -> bpy.types.Object:
    mesh = bpy.data.meshes.new(title)
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    placed = bpy.data.objects.new(title, mesh)
    bpy.context.scene.collection.objects.link(placed)
    for name in ("Basis", *names):
        placed.shape_key_add(name=name, from_mix=False).value = 0.0  # Blender 5.0 begins at 1
    return placed


def at(frame: int, target: bpy.types.Object) -> dict[str, float]:
    bpy.context.scene.frame_set(bpy.context.scene.frame_start + frame)
    return {block.name: block.value for block in target.data.shape_keys.key_blocks}


@pytest.mark.parametrize("spelling, shape", [
    ("jawOpen", "jawOpen"), ("JawOpen", "jawOpen"), ("jaw_open", "jawOpen"), ("Jaw Open", "jawOpen"), ("JAW-OPEN", "jawOpen"),
    ("eyeBlinkLeft", "eyeBlinkLeft"), ("eyeBlink_L", "eyeBlinkLeft"), ("EyeBlink.R", "eyeBlinkRight"),
    ("eye_blink_left", "eyeBlinkLeft"), ("eyeBlinkR", "eyeBlinkRight"), ("left_eye_blink", "eyeBlinkLeft"),
    ("head.mouthSmileRight", "mouthSmileRight"), ("blendShape1.mouthSmile_R", "mouthSmileRight"),
    ("face:browInnerUp", "browInnerUp"), ("mouthLeft", "mouthLeft"), ("mouth_R", "mouthRight"), ("jaw_l", "jawLeft"),
    ("mouthFunnel", "mouthFunnel"), ("mouthUpperUpLeft", "mouthUpperUpLeft"),
    ("!ex-jawOpen", "jawOpen"), ("!ex-eyeBlinkLeft", "eyeBlinkLeft"), ("$md-$as-$fe-$yn", None),
    ("Basis", None), ("smile", None), ("jawOpenWide", None), ("Key 1", None), ("", None),
])
def test_spellings(spelling, shape):
    assert arkit_name(spelling) == shape


def test_every_arkit_name_in_every_style():
    for name in ARKIT_NAMES:
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
        short = name.replace("Left", "_L").replace("Right", "_R")
        assert arkit_name(name) == arkit_name(snake) == arkit_name(short) == arkit_name(name[0].upper() + name[1:]) == name


def test_the_performance_moves_another_mesh(built):
    target = character(["JawOpen", "eyeBlink_L", "eyeBlink_R", "smirk"])
    done = retarget(built.expression, target)
    assert done.matched == {"jawOpen": "JawOpen", "eyeBlinkLeft": "eyeBlink_L", "eyeBlinkRight": "eyeBlink_R"}
    assert "mouthSmileLeft" in done.missing and not done.stretched and done.head is None
    performance = talking()[1]
    for frame in (0, 10, BLINK, 50):
        values = at(frame, target)
        assert values["JawOpen"] == pytest.approx(performance.weights[frame, JAW], abs=0.006)
        assert values["eyeBlink_L"] == pytest.approx(performance.weights[frame, LEFT_LID], abs=0.006)
        assert values["smirk"] == 0


def test_multipliers_and_switches(built):
    target = character(["jawOpen", "eyeBlinkLeft", "mouthSmileLeft"])
    done = retarget(built.expression, target, multiplier=0.5, shapes={"jawOpen": (True, 3.0), "mouthSmileLeft": (False, 1.0)})
    performance = talking()[1]
    frame = int(np.argmax(performance.weights[:, JAW]))
    values = at(frame, target)
    assert values["jawOpen"] == pytest.approx(1.5 * performance.weights[frame, JAW], abs=0.01)
    assert at(BLINK, target)["eyeBlinkLeft"] == pytest.approx(0.5 * performance.weights[BLINK, LEFT_LID], abs=0.01)
    assert values["mouthSmileLeft"] == 0 and "mouthSmileLeft" not in done.matched
    assert done.stretched == (["jawOpen"] if 1.5 * performance.weights[:, JAW].max() > 1 else [])


def test_the_active_action_is_kept(built):
    target = character(["jawOpen"])
    old = bpy.data.actions.new("Old")
    versions.Channels(old, "KEY").new('key_blocks["jawOpen"].value', 0, "x")
    versions.assign_action(target.data.shape_keys, old)
    done = retarget(built.expression, target)
    assert target.data.shape_keys.animation_data.action == done.expression != old and old.use_fake_user


def test_as_an_nla_strip(built):
    target = character(["jawOpen"])
    retarget(built.expression, target, as_strip=True)
    animation = target.data.shape_keys.animation_data
    assert animation.action is None and len(animation.nla_tracks) == 1
    performance = talking()[1]
    for frame in (0, 10, 30):
        assert at(frame, target)["jawOpen"] == pytest.approx(performance.weights[frame, JAW], abs=0.006)


def looks(rotation) -> Vector:
    """Where a head that looks along -Y at rest looks."""
    return rotation @ Vector((0, -1, 0))


def armature() -> bpy.types.Object:
    """A standing character's armature, itself turned, with a head bone that points up and is rolled."""
    data = bpy.data.armatures.new("Rig")
    rig = bpy.data.objects.new("Rig", data)
    bpy.context.scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    bone = data.edit_bones.new("head")
    bone.head, bone.tail, bone.roll = (0, 0, 1.5), (0, 0.05, 1.7), 0.4
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig


@pytest.mark.parametrize("as_strip", [False, True])
def test_the_head_turns_a_bone(built, as_strip):
    rig = armature()
    done = retarget(built.expression, character(["jawOpen"]), head=built.head, head_target=rig, bone="head", as_strip=as_strip)
    bone, at_rest = rig.pose.bones["head"], rig.data.bones["head"].matrix_local.to_3x3()
    assert done.head
    for frame in (0, 15, 45):
        bpy.context.scene.frame_set(bpy.context.scene.frame_start + frame)
        bpy.context.view_layer.update()
        turned = bone.matrix.to_3x3() @ at_rest.inverted()  # what the bone does to what hangs on it
        wanted = looks(built.mesh.matrix_world.to_3x3().normalized())
        assert looks(turned).angle(wanted) < math.radians(0.5)
        assert (bone.matrix.translation - rig.data.bones["head"].matrix_local.translation).length < 1e-5


def test_the_head_moves_an_object(built):
    empty = bpy.data.objects.new("Empty", None)
    bpy.context.scene.collection.objects.link(empty)
    empty.location = 2, 3, 4
    retarget(built.expression, character(["jawOpen"]), head=built.head, head_target=empty)
    bpy.context.scene.frame_set(bpy.context.scene.frame_start + 15)
    bpy.context.view_layer.update()
    assert looks(empty.matrix_world.to_3x3()).angle(looks(built.mesh.matrix_world.to_3x3().normalized())) < 0.01
    moved = empty.location - Vector((2, 3, 4)) - built.mesh.location
    bpy.context.scene.frame_set(bpy.context.scene.frame_start)
    assert (moved + built.mesh.location).length < 1e-4


def test_what_does_not_fit_is_refused_and_changes_nothing(built):
    plain, empty_action = character(["smirk"], "Plain"), bpy.data.actions.new("Nothing")
    good, before = character(["jawOpen"]), len(bpy.data.actions)
    for arguments, says in (
        (dict(expression=built.expression, target=plain), "'Plain' has no shape keys with ARKit names"),
        (dict(expression=empty_action, target=good), "'Nothing' holds no ARKit weights"),
        (dict(expression=built.expression, target=good, head=empty_action, head_target=plain), "'Nothing' holds no head motion"),
        (dict(expression=built.expression, target=good, head=built.head), "needs a bone or an object"),
        (dict(expression=built.expression, target=good, head=built.head, head_target=plain, bone="neck"), "no bone 'neck'"),
    ):
        with pytest.raises(CaptureError, match=says):
            retarget(**arguments)
    assert len(bpy.data.actions) == before and good.data.shape_keys.animation_data is None


def test_the_operator(built):
    from prn_blender import retarget as operators

    operators.register()
    try:
        target = character(["jawOpen", "EyeBlink_L"])
        bpy.context.view_layer.objects.active = target
        shapes = [{"name": "jawOpen", "use": False, "strength": 1.0}]
        assert bpy.ops.prn.retarget(expression=built.expression.name, shapes=shapes) == {"FINISHED"}
        assert at(BLINK, target)["EyeBlink_L"] > 0.8 and at(10, target)["jawOpen"] == 0
        with pytest.raises(RuntimeError, match="There is no action 'nowhere'"):
            bpy.ops.prn.retarget(expression="nowhere")
    finally:
        operators.unregister()
