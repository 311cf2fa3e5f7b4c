"""Renders clips of talking heads whose every weight is known: `python -m training.synthetic_takes --faces FOLDER --out FOLDER`.

Writes take_NN.mp4 (640x360, 30 frames a second) and beside it take_NN.npz: weights (N, 52), rotations (N, 3, 3), blinks (frames
in which the lids are shut). For `build.py bench`; the network must never be trained on them. Needs the training cache.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from training.cache import default_cache
from training.kit import Kit
from training.photographs import Photographs
from training.renderer import PIXELS, Renderer
from training.synthetic import Heads, random_background, rotation_of
from training.talk import FPS, talk

FRAMES, WIDTH, HEIGHT = 240, 640, 360
SEED = 20261123                 # far from the training pictures' [7, shard]


class Studio(Renderer):
    """White light from above and one side, nothing over the face: what is measured is the face, not what hides it."""

    def _light(self, rng: np.random.Generator) -> None:
        for name, values in (("ambient", [0.5] * 3), ("sky", [0.2] * 3), ("up", [0.0, -1.0, 0.0]),
                             ("lights", [[-0.45, -0.5, -0.74], [0.8, -0.1, -0.6]]), ("light_colours", [[0.5] * 3, [0.12] * 3])):
            self.program[name].write(np.array(values, "f4").tobytes())

    def _dress(self, rng: np.random.Generator, shape: np.ndarray, wear: str | None) -> None:
        pass


def render(heads: Heads, number: int, out: Path) -> None:
    """One clip and its truth."""
    rng = np.random.default_rng([SEED, number])
    weights, blinks = talk(rng, FRAMES)
    person = rng.normal(0, 0.8, 120)
    step = np.arange(FRAMES)
    phase = rng.uniform(0, 2 * np.pi, 3)
    yaw, pitch, roll = (a * np.sin(2 * np.pi * step / p + f) for a, p, f in zip((18, 7, 5), (110, 83, 140), phase))
    rotations = np.stack([rotation_of(*angles) for angles in zip(yaw, pitch, roll)])
    distance = 1.2
    places = np.stack([0.03 * np.sin(2 * np.pi * step / 97), 0.015 * np.sin(2 * np.pi * step / 71), np.zeros(FRAMES)], 1)
    places = places + [0, 0.03, distance]
    focal = PIXELS * distance / 0.34
    skin = heads.skins[rng.integers(len(heads.skins))]
    look, behind = int(rng.integers(1 << 30)), random_background(rng, heads.photographs)
    wide = cv2.resize(behind, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    left = (WIDTH - HEIGHT) // 2
    square = cv2.resize(wide[:, left:left + HEIGHT], (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)
    writer = cv2.VideoWriter(str(out / f"take_{number:02d}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for i in range(FRAMES):
        shape = (heads.kit.mean.ravel() + np.concatenate([person, weights[i]]) @ heads.basis).reshape(-1, 3)
        # The same generator state for every frame: the same clothes and eyes.
        picture = heads.renderer.draw(np.random.default_rng(look), shape.astype(np.float32), rotations[i], places[i], focal,
                                      np.array([(PIXELS - 1) / 2] * 2), skin, square)
        frame = wide.copy()
        frame[:, left:left + HEIGHT] = cv2.resize(picture, (HEIGHT, HEIGHT), interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng([number, i]).normal(0, 2.0, frame.shape)
        writer.write(np.clip(frame + noise, 0, 255).astype(np.uint8)[..., ::-1])
    writer.release()
    np.savez(out / f"take_{number:02d}.npz", weights=weights, rotations=rotations, blinks=blinks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kit = Kit(arguments.cache)
    photographs = Photographs(arguments.faces, arguments.cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=False)
    heads = Heads(arguments.cache, photographs, kit, renderer=Studio)
    for number in range(arguments.count):
        render(heads, number, arguments.out)
        print(f"take {number}", flush=True)


if __name__ == "__main__":
    main()
