"""A take whose truth is known: a person of the shape space who turns the head, talks and blinks, as tracked frames."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from exact_face import rotation_of
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.crop import Crop
from prn_blender.prn.face_fit import load_shape_space
from prn_blender.prn.lens import Lens
from prn_blender.prn.position_map import SIZE
from prn_blender.prn.take import Performance, Smoothing
from prn_blender.prn.take_recorder import Recorder
from prn_blender.prn.take_solve import solve
from prn_blender.prn.track import TrackedFace, TrackedFrame

FPS = 30.0
IMAGE = np.full((240, 320, 3), 90, np.uint8)
NEAR = Lens(200.0, (159.5, 119.5))  # from 40 cm: a metre has 495 pixels
BLINK = 20  # the frame in which the eyes are shut
JAW, LEFT_LID, RIGHT_LID, SMILE = (ARKIT_NAMES.index(name) for name in
                                   ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft"))


@dataclass(frozen=True)
class Take:
    frames: list[TrackedFrame]
    weights: np.ndarray  # (N, 52)
    rotations: np.ndarray  # (N, 3, 3)
    places: np.ndarray  # (N, 2) pixels


def make_take(count: int = 60, noise: float = 0.0, seed: int = 0, still: bool = False, missing=(), lids=None,
              lens: Lens | None = None) -> Take:
    """noise: metres, standard deviation of smooth errors that differ from frame to frame. missing: frames without a face. lids (N,): how
    far they are shut, if it is not a blink. lens: that all is seen through."""
    space, rng = load_shape_space(), np.random.default_rng(seed)
    person = rng.normal(0, 0.8, space.identities)
    step = np.arange(count)
    weights = np.zeros((count, 52))
    places = np.tile([160.0, 120.0], (count, 1))
    rotations = np.tile(np.eye(3), (count, 1, 1))
    if not still:
        weights[:, JAW] = 0.35 - 0.35 * np.cos(step / count * 6 * np.pi)
        weights[:, SMILE] = 0.3 - 0.3 * np.cos(step / count * 2 * np.pi)
        weights[:, LEFT_LID] = weights[:, RIGHT_LID] = np.clip(1 - np.abs(step - BLINK) / 4, 0, 1)  # of a quarter of a second
        places[:, 0] += 20 * np.sin(step / count * 2 * np.pi)
        rotations = np.array([rotation_of(20 * np.sin(t / count * 2 * np.pi), 6 * np.cos(t / count * 2 * np.pi)) for t in step])
    if lids is not None:
        weights[:, LEFT_LID] = weights[:, RIGHT_LID] = lids
    frames = []
    for i in step:
        small = space.offsets(np.concatenate([person, weights[i]])).reshape(64, 64, 3)
        head = space.mean + cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        if noise:
            rough = cv2.GaussianBlur(rng.normal(0, 1, (64, 64, 3)).astype(np.float32), (0, 0), 4)
            head = head + cv2.resize(rough * (noise / rough.std()), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        crop = Crop(*places[i], 110.0)
        seen = (4.5 * head @ rotations[i].T).astype(np.float32)
        if lens:
            seen = crop.from_image(lens.seen(crop.to_image(seen)))
        guess = np.clip(weights[i] + rng.normal(0, 0.05 if noise else 1e-9, 52), 0, 1).astype(np.float32)
        faces = [] if i in missing else [TrackedFace(0, crop, seen, guess, 0.0)]
        frames.append(TrackedFrame(int(i), i / FPS, IMAGE, faces, False))
    return Take(frames, weights, rotations, places)


def solve_take(take: Take, lens: Lens | None = None, **options) -> Performance:
    recorder = Recorder(load_shape_space(), lens=lens)
    for frame in take.frames:
        for face in frame.faces:
            recorder.add(frame, face)
    return solve(recorder, "the take", options.pop("fps", FPS), (320, 240), source_fps=FPS, **options)


@lru_cache(maxsize=3)
def talking(lens: Lens | None = None) -> tuple[Take, Performance]:
    """A noisy take and what became of it, for tests that only look."""
    take = make_take(noise=0.0008, lens=lens)
    return take, solve_take(take, lens)


def unsmoothed(take: Take) -> Performance:
    return solve_take(take, smoothing=Smoothing(0, 0, 0))
