"""A LiveLink Face recording onto a character of a .blend file: `build.py apply TAKE.csv CHARACTER.blend -o OUT.blend`.

Reads the two, writes a third, whole or not at all. The work is scene/livelink.py's and scene/retarget.py's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import bpy

from .prn.errors import CaptureError
from .prn.livelink import read_livelink
from .prn.whole_file import whole_file
from .scene.livelink import recorded_actions
from .scene.retarget import Retargeted, arkit_keys, retarget


def arguments_for(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.description = "Key a LiveLink Face recording onto the ARKit shape keys of a character."
    parser.add_argument("recording", type=Path, metavar="TAKE.csv", help="recording of the app, or what capture -o take.csv wrote")
    parser.add_argument("character", type=Path, metavar="CHARACTER.blend", help="file with a mesh that has ARKit shape keys")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.blend", help="file to write")
    parser.add_argument("--target", metavar="OBJECT", help="the mesh (default: every mesh with ARKit shape keys)")
    parser.add_argument("--head", metavar="OBJECT", help="object or armature that takes the head's turn (default: none)")
    parser.add_argument("--bone", metavar="BONE", default="", help="bone of the armature that takes it")
    parser.add_argument("--fps", type=float, help="rate that the recording's timecodes count at (default: as they tell, or 60)")
    return parser


def apply_recording(request: argparse.Namespace) -> list[Retargeted]:
    """What was keyed, a mesh each. Raises CaptureError, with nothing written, if the recording or the character does not fit."""
    recording = read_livelink(request.recording, request.fps)
    try:
        bpy.ops.wm.open_mainfile(filepath=str(request.character.absolute()))
    except RuntimeError:
        raise CaptureError(f"'{request.character}' is not a .blend file that this Blender can open: check the file.") from None
    scene = bpy.context.scene
    if request.target:
        targets = [named(request.target)]
    else:
        targets = [piece for piece in scene.objects if piece.type == "MESH" and arkit_keys(piece)]
    if not targets:
        raise CaptureError(f"No mesh in '{request.character}' has shape keys with ARKit names (as jawOpen or eyeBlink_L): give a "
                           f"character that has.")
    expression, head = recorded_actions(recording, scene, request.recording.stem)
    holder = named(request.head) if request.head else None
    if holder and head is None:
        raise CaptureError(f"'{request.recording}' does not tell how the head turns: leave --head out.")
    done = [retarget(expression, target, head=head if holder and target is targets[0] else None, head_target=holder, bone=request.bone)
            for target in targets]
    last = recording.seconds[-1] * scene.render.fps / scene.render.fps_base
    scene.frame_end = max(scene.frame_start, scene.frame_start + round(float(last)))
    with whole_file(request.output) as unfinished:
        bpy.ops.wm.save_as_mainfile(filepath=str(unfinished.absolute()), compress=True, copy=True)
    return done


def named(name: str) -> bpy.types.Object:
    found = bpy.context.scene.objects.get(name)
    if found is None:
        raise CaptureError(f"There is no object '{name}' in the scene: check its name.")
    return found
