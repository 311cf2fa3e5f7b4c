"""A talking clip made of one photograph, for docs/take.jpg: `python -m training.photo_take --out clip.mp4`.

The astronaut of the tests (NASA, public domain), captured, and drawn with known ARKit weights and head motion: nobody is shown
who did not agree to it. Needs the capture environment; writes one movie.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.capture import capture_image
from prn_blender.prn.face_fit import GRID, load_shape_space
from prn_blender.prn.openings import opening_grid, opening_vertices
from prn_blender.prn.position_map import SIZE
from prn_blender.prn.render import Picture
from prn_blender.prn.texture import make_texture
from training.talk import FPS, talk, turned

PHOTO = Path(__file__).parent.parent / "tests" / "data" / "astronaut.jpg"
FRAMES, WIDTH, HEIGHT = 120, 640, 360


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    face, space = capture_image(PHOTO)[0], load_shape_space()
    texture = cv2.resize(make_texture(face), (1024, 1024), interpolation=cv2.INTER_AREA)
    shapes = space.basis[space.identities:].reshape(52, GRID, GRID, 3)
    grid, openings = face.topology.grid(1), opening_grid(face.topology)
    quads = np.concatenate([grid.quads, openings.quads + len(grid.uvs)])
    uvs = np.concatenate([grid.uvs, openings.uvs])
    weights, _ = talk(np.random.default_rng(4), FRAMES)
    backdrop = cv2.resize(np.uint8([[[96, 110, 120]], [[60, 66, 74]]]), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    writer = cv2.VideoWriter(str(arguments.out), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    for i in range(FRAMES):
        moved = np.tensordot(weights[i].astype(np.float32), shapes, 1)
        head = face.head_map + cv2.resize(moved, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        vertices = np.concatenate([grid.sample(head), opening_vertices(head, face.topology)])
        angles = 16 * np.sin(i / 19), 5 * np.sin(i / 13), 3 * np.sin(i / 23)
        seen = 1250 * vertices @ turned(*angles).T + (320 + 12 * np.sin(i / 17), 160, 0)
        frame = Picture(seen, quads, WIDTH, HEIGHT).textured(backdrop, uvs, texture)
        noise = np.random.default_rng(i).normal(0, 2.0, frame.shape)
        writer.write(np.clip(frame + noise, 0, 255).astype(np.uint8)[..., ::-1])
    writer.release()


if __name__ == "__main__":
    main()
