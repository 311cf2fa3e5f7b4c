"""A LiveLink Face recording as a performance's two actions, ready for `retarget`. Makes actions, touches nothing else."""

from __future__ import annotations

import bpy
import cv2
import numpy as np

from ..prn.arkit import ARKIT_NAMES
from ..prn.livelink import Recording
from . import versions
from .curves import continuous_quaternions, decimate, write_curve
from .frames import TO_BLENDER

TOLERANCE = 0.001  # of a weight: a key is left out where the line between its neighbours is as near as this


def recorded_actions(recording: Recording, scene: bpy.types.Scene, name: str) -> tuple[bpy.types.Action, bpy.types.Action | None]:
    """The expression's action and the head's, if the recording has one, from the scene's first frame on and in its rate.

    Frames without a face hold what was last seen, as in a capture. Shapes that the recording lacks get no curve.
    """
    frames = scene.frame_start + recording.seconds * scene.render.fps / scene.render.fps_base
    first = int(np.argmax(recording.seen))
    held = np.maximum.accumulate(np.where(recording.seen, np.arange(len(frames)), first))
    expression = bpy.data.actions.new(f"{name} ARKit")
    channels = versions.Channels(expression, "KEY")
    for number, shape in enumerate(ARKIT_NAMES):
        if shape not in recording.missing:
            values = recording.weights[held, number]
            kept = decimate(values, TOLERANCE, frames)
            write_curve(channels, f'key_blocks["{shape}"].value', 0, "ARKit", frames[kept], values[kept])
    expression.use_fake_user = True
    if not recording.turns:
        return expression, None
    head = bpy.data.actions.new(f"{name} Head")
    channels = versions.Channels(head, "OBJECT")
    turns = continuous_quaternions(np.array([TO_BLENDER @ rotation_of(turn) @ TO_BLENDER.T for turn in recording.head[held]]))
    for index in range(4):
        write_curve(channels, "rotation_quaternion", index, "Head", frames, turns[:, index])
    for index in range(3):  # a recording tells no places
        write_curve(channels, "location", index, "Head", frames[:1], np.zeros(1))
    head.use_fake_user = True
    return expression, head


def rotation_of(turn: np.ndarray) -> np.ndarray:
    """(3, 3) head to image of yaw, pitch, roll in degrees, as `angles` tells them."""
    yaw, pitch, roll = np.radians(turn)
    nodded, turned, tilted = (cv2.Rodrigues(np.array(axis, float))[0] for axis in ((-pitch, 0, 0), (0, yaw, 0), (0, 0, roll)))
    return nodded @ turned @ tilted
