"""Measures a performance in Blender: `build.py bench-blender --json FILE`. Building keys beside a bare loop, and playing them.

240 frames of a made-up take on the 1/2 grid. Building is compared with shape_key_add and foreach_set of ready coordinates,
as scripts do it (on `data`), in the same run, in turns, medians of processor time; playing is a frame_set with the evaluated mesh, under -b. Needs bpy; writes FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import bpy
import numpy as np

from prn_blender.prn.face_fit import GRID, load_shape_space
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.take import Performance
from prn_blender.prn.take_solve import RESIDUAL
from prn_blender.scene import performance as scenes
from prn_blender.scene.frames import to_blender
from prn_blender.scene.mesh import build_mesh
from prn_blender.scene.stage import match_time, new_stage

FRAMES, FPS, ROUNDS = 240, 24.0, 5


def made_up() -> Performance:
    """A take without a video behind it: the mean head and waves of weights."""
    space, topology, rng = load_shape_space(), load_topology(), np.random.default_rng(0)
    waves = np.sin(np.arange(FRAMES)[:, None] / FPS * rng.uniform(1, 12, 52) + rng.uniform(0, 6, 52))
    return Performance(
        name="made up", fps=FPS, start=0, image_size=(640, 360), seen=np.ones(FRAMES, bool),
        rotation=np.tile(np.eye(3), (FRAMES, 1, 1)), translation=np.tile([320.0, 180.0, 0], (FRAMES, 1)),
        scale=np.full(FRAMES, 1500.0), weights=(0.3 + 0.3 * waves).astype(np.float32),
        details=rng.normal(0, 0.01, (FRAMES, 24)).astype(np.float32), neutral=topology.mean,
        shapes=space.basis[space.identities:].reshape(52, GRID, GRID, 3),
        detail_shapes=rng.normal(0, 0.02, (24, RESIDUAL, RESIDUAL, 3)).astype(np.float32), identity=None, residual=None,
        metric=1.0, neutral_frame=0, key_frames={}, warnings=[], topology=topology)


def empty_face(performance: Performance) -> bpy.types.Object:
    grid = performance.topology.grid(2)
    face = bpy.data.objects.new("Face", build_mesh("Face", to_blender(grid.sample(performance.neutral)), grid.quads, grid.uvs))
    bpy.context.scene.collection.objects.link(face)
    return face


def build_times(performance: Performance) -> dict:
    """Seconds (of the processor, both run on one core) of the face's keys as we build them, and of the bare loop over the same coordinates."""
    grid = performance.topology.grid(2)
    frames = 1.0 + np.arange(FRAMES)

    def sample(head_map: np.ndarray) -> np.ndarray:
        return to_blender(grid.sample(head_map))

    vertices = performance.vertices(sample)
    ready = [vertices[frame].ravel().copy() for frame in range(FRAMES)]
    ours, bare = [], []
    for _ in range(ROUNDS):
        new_stage()
        face = empty_face(performance)
        started = time.process_time()
        for _ in scenes.add_frame_keys(face, performance.vertices(sample), frames, absolute=True):
            pass
        ours.append(time.process_time() - started)
        new_stage()
        face = empty_face(performance)
        started = time.process_time()
        face.shape_key_add(name="Basis", from_mix=False)
        for number, coordinates in enumerate(ready):
            face.shape_key_add(name=f"Frame {number + 1:04d}", from_mix=False).data.foreach_set("co", coordinates)
        bare.append(time.process_time() - started)
    return {"ours, s": float(np.median(ours)), "bare loop, s": float(np.median(bare)),
            "ratio": float(np.median(np.array(ours) / np.array(bare)))}


def play_times(performance: Performance, way: str, folder: Path) -> float:
    """Median milliseconds of a frame."""
    scene = new_stage()
    match_time(scene, FPS, FRAMES)
    built = scenes.build_performance(performance, np.full((64, 64, 3), 128, np.uint8), scene, way=way, stride=2, folder=folder)
    times = []
    for frame in range(scene.frame_start, scene.frame_start + 120):
        started = time.perf_counter()
        scene.frame_set(frame)
        built.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.vertices[0].co
        times.append(time.perf_counter() - started)
    return float(np.median(times) * 1000)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench-blender", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    options = parser.parse_args(arguments)
    performance = made_up()
    with tempfile.TemporaryDirectory() as folder:
        results = {"Blender": bpy.app.version_string, "building 240 frames on the 1/2 grid": build_times(performance),
                   "playing, ms a frame": {way: play_times(performance, way, Path(folder)) for way in scenes.WAYS}}
    text = json.dumps(results, indent=1)
    options.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # bpy can hang or crash while the interpreter shuts down
