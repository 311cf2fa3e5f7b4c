"""What a made-up face says over time: ARKit weights of speech, moods and blinks. Pure numbers."""
from __future__ import annotations

import cv2
import numpy as np

from prn_blender.prn.arkit import ARKIT_NAMES

FPS = 30.0
# Mouth shapes of speech as ARKit weights, roughly: open vowels, rounded ones, closed lips, teeth on lip, wide ones.
VISEMES = [
    {"jawOpen": 0.55, "mouthLowerDownLeft": 0.3, "mouthLowerDownRight": 0.3},
    {"jawOpen": 0.3, "mouthFunnel": 0.6},
    {"mouthPucker": 0.7, "jawOpen": 0.1},
    {"mouthPressLeft": 0.4, "mouthPressRight": 0.4, "mouthRollLower": 0.2, "mouthRollUpper": 0.2},
    {"jawOpen": 0.12, "mouthRollLower": 0.4, "mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3},
    {"jawOpen": 0.2, "mouthStretchLeft": 0.5, "mouthStretchRight": 0.5},
    {"jawOpen": 0.25, "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5},
    {},
]
MOODS = [{"mouthSmileLeft": 0.6, "mouthSmileRight": 0.6, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4},
         {"browInnerUp": 0.8, "browOuterUpLeft": 0.5, "browOuterUpRight": 0.5},
         {"browDownLeft": 0.7, "browDownRight": 0.7, "noseSneerLeft": 0.2, "noseSneerRight": 0.2}, {}]


def put(weights: np.ndarray, shapes: dict[str, float], envelope: np.ndarray) -> None:
    """Adds shapes over time: weights (N, 52), envelope (N,) 0..1."""
    for name, value in shapes.items():
        column = ARKIT_NAMES.index(name)
        weights[:, column] = np.maximum(weights[:, column], value * envelope)


def talk(rng: np.random.Generator, frames: int) -> tuple[np.ndarray, list[int]]:
    """(frames, 52) weights of somebody who talks, feels and blinks, and the frames of the blinks; starts at rest."""
    weights, step = np.zeros((frames, 52)), np.arange(frames)
    at = 20.0
    while at < frames - 10:
        length = rng.uniform(5, 9)      # frames from one sound to the next
        bump = np.clip(1 - np.abs(step - at) / length, 0, 1)
        put(weights, VISEMES[rng.integers(len(VISEMES))], bump * bump * (3 - 2 * bump) * rng.uniform(0.6, 1))
        at += length
    for start in range(40, frames, 60):
        hold = 1 / (1 + np.exp(-(step - start) / 3)) * 1 / (1 + np.exp((step - start - 35) / 3))
        put(weights, MOODS[rng.integers(len(MOODS))], hold * rng.uniform(0.6, 1))
    blinks = list(range(int(rng.integers(25, 45)), frames - 5, 47))
    for blink in blinks:                # three frames to close, four to open
        lids = np.where(step <= blink, 1 - (blink - step) / 3, 1 - (step - blink - 1) / 4).clip(0, 1)
        put(weights, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, lids)
    return weights, blinks


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) head to camera, degrees: turn about y, then nod about x, then tilt about z."""
    rotation = np.eye(3)
    for axis, angle in ((1, yaw), (0, pitch), (2, roll)):
        vector = np.zeros(3)
        vector[axis] = np.radians(angle)
        rotation = cv2.Rodrigues(vector)[0] @ rotation
    return rotation
