"""LiveLink Face recordings onto characters: in the scene, by the operator, on the command line. Needs bpy."""

import os
import subprocess
import sys

import bpy
import numpy as np
import pytest

from addon import registered
from exact_face import exact_face, skin_texture
from prn_blender.prn import record
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.livelink import read_livelink, write_livelink
from prn_blender.scene import versions
from prn_blender.scene.face import build_face
from prn_blender.scene.frames import TO_BLENDER
from prn_blender.scene.livelink import recorded_actions
from prn_blender.scene.stage import match_time, new_stage
from takes import BLINK, make_take, solve_take, talking
from test_addon import refused as refused_here
from test_command_line import ROOT
from test_retarget import at, character


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "take.csv"
    write_livelink(path, record.of_take(talking()[1]))
    return path


def test_a_recording_plays_what_was_recorded(recording):
    scene = new_stage()
    match_time(scene, 30.0, 60)
    with registered():
        bpy.context.scene.render.fps = 30
        target = character([name[0].upper() + name[1:] for name in ARKIT_NAMES])
        bpy.context.view_layer.objects.active = target
        assert bpy.ops.prn.import_livelink(filepath=str(recording), turn_object=True) == {"FINISHED"}
        take = talking()[1]
        for frame in (0, BLINK, 45):
            values = at(frame, target)
            for number, name in enumerate(ARKIT_NAMES):
                assert values[name[0].upper() + name[1:]] == pytest.approx(take.weights[frame, number], abs=0.002)
            turned = np.array(target.matrix_world.to_3x3())
            np.testing.assert_allclose(turned, TO_BLENDER @ take.rotation[frame] @ TO_BLENDER.T, atol=1e-3)


def test_timecode_is_honoured_in_the_scenes_rate(recording):
    scene = new_stage()
    scene.render.fps, scene.frame_start = 24, 101
    expression, head = recorded_actions(read_livelink(recording), scene, "take")
    curves = versions.curves_of(expression, "KEY")
    blink = next(curve for curve in curves if "eyeBlinkLeft" in curve.data_path)
    assert blink.evaluate(101 + BLINK * 24 / 30) == pytest.approx(talking()[1].weights[BLINK, ARKIT_NAMES.index("eyeBlinkLeft")], abs=0.01)
    assert versions.curves_of(head, "OBJECT")[0].range()[1] == pytest.approx(101 + 59 * 24 / 30, abs=0.01)


def test_what_was_not_seen_is_held(tmp_path):
    take = solve_take(make_take(count=90, missing=range(40, 64)))
    write_livelink(tmp_path / "take.csv", record.of_take(take))
    scene = new_stage()
    match_time(scene, 30.0, 90)
    expression, _ = recorded_actions(read_livelink(tmp_path / "take.csv"), scene, "take")
    jaw = next(curve for curve in versions.curves_of(expression, "KEY") if "jawOpen" in curve.data_path)
    last = take.weights[39, ARKIT_NAMES.index("jawOpen")]
    assert [jaw.evaluate(1 + frame) for frame in (39, 50, 63)] == pytest.approx([last] * 3, abs=0.003)
    assert jaw.evaluate(1 + 64) == pytest.approx(take.weights[64, ARKIT_NAMES.index("jawOpen")], abs=0.003)


def test_onto_a_photographs_face(recording):
    with registered():
        face = build_face(exact_face(), skin_texture(), bpy.context.scene, topology="loops", shapes=True).mesh
        bpy.context.view_layer.objects.active = face
        assert bpy.ops.prn.import_livelink(filepath=str(recording)) == {"FINISHED"}
        action = face.data.shape_keys.animation_data.action
        assert face["prn_capture"]["expression"] == action and face.children[0].data.shape_keys.animation_data.action


def test_mistakes_are_told_and_leave_nothing(recording, tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with registered():
        mesh = character(["smile"])
        bpy.context.view_layer.objects.active = mesh
        refused_here(lambda: bpy.ops.prn.import_livelink(filepath=str(recording)), "no shape keys with ARKit names")
        refused_here(lambda: bpy.ops.prn.import_livelink(filepath=str(tmp_path / "bad.csv")), "not a LiveLink Face recording")
        assert not bpy.data.actions
        bpy.context.view_layer.objects.active = None
        assert not bpy.ops.prn.import_livelink.poll()


def apply(*arguments, cwd) -> subprocess.CompletedProcess:
    if "PRN_INSIDE_BLENDER" in os.environ:
        pytest.skip("starts a Python with the bpy module")
    return subprocess.run([sys.executable, "-P", "-m", "prn_blender.command_line", "apply", *map(str, arguments)],
                          cwd=cwd, env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True, text=True)


@pytest.fixture(scope="module")
def blend(tmp_path_factory):
    path = tmp_path_factory.mktemp("character") / "hero.blend"
    new_stage()
    character(["jawOpen", "eyeBlink_L", "eyeBlink_R"], "Hero")
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    return path


def test_on_the_command_line(recording, blend, tmp_path):
    result = apply(recording, blend, "--head", "Hero", "-o", "out.blend", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "3 of 52 shapes keyed" in result.stdout and result.stdout.endswith("wrote out.blend\n")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "out.blend"))
    scene, hero = bpy.context.scene, bpy.data.objects["Hero"]
    rate = scene.render.fps / scene.render.fps_base
    assert scene.frame_end == scene.frame_start + round(59 / 30 * rate)
    scene.frame_set(scene.frame_start + round(BLINK / 30 * rate))
    assert hero.data.shape_keys.key_blocks["eyeBlink_L"].value > 0.5
    assert abs(hero.matrix_world.to_euler().z) > 0.01


@pytest.mark.parametrize("arguments, says", [
    (["gone.csv", "{blend}", "-o", "out.blend"], "cannot be read"),
    (["{take}", "gone.blend", "-o", "out.blend"], "'gone.blend' does not exist"),
    (["{take}", "{take}", "-o", "out.blend"], "is not a .blend file that this Blender can open"),
    (["{take}", "{blend}", "-o", "out.blend", "--target", "Nobody"], "There is no object 'Nobody'"),
    (["{take}", "{blend}", "-o", "out.blend", "--head", "Hero", "--bone", "neck"], "There is no bone 'neck'"),
    (["{take}", "{blend}", "-o", "out.fbx"], "has an ending that is not known"),
])
def test_mistakes_on_the_command_line(recording, blend, tmp_path, arguments, says):
    result = apply(*(text.format(take=recording, blend=blend) for text in arguments), cwd=tmp_path)
    assert result.returncode == 2 and says in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert not list(tmp_path.iterdir())
