"""The command line's way for videos: `capture CLIP -o take.blend`. The request is parsed and checked by command_line.

video -> performance -> scene -> file, with a line of progress on stderr. Writes the .blend file, PC2 files beside it
where they are asked for, and the contact sheet.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .command_line import Stopwatch, quiet_stdout
from .prn.errors import CaptureError


class ProgressLine:
    """A line on the terminal that is written over; without a terminal, one line every tenth of the way."""

    def __init__(self) -> None:
        self.tenth = -1
        self.live = sys.stderr.isatty()

    def __call__(self, progress) -> None:
        if self.live:
            print(f"\r{progress}   ", end="", file=sys.stderr, flush=True)
        elif progress.fraction is not None and int(10 * progress.fraction) > self.tenth:
            self.tenth = int(10 * progress.fraction)
            print(progress, file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.live:
            print(file=sys.stderr)


def capture_take(request: argparse.Namespace) -> int:
    """The number of frames captured. Raises CaptureError for what is wrong with the request or the video, OSError if a file cannot be written."""
    if request.output.suffix.lower() != ".blend":
        raise CaptureError("A video becomes a .blend file: give the output that ending, and export other formats from it.")
    if request.face == "all":
        raise CaptureError("A video is captured one face at a time: give --face a number.")
    if request.surface == "raw":
        raise CaptureError("A performance always has the clean surface: leave --surface out.")
    if request.write:
        raise CaptureError("The outputs of --write are those of a photograph: leave --write out for a video.")
    if not request.camera:
        raise CaptureError("A performance always has the camera with its footage: leave --no-camera out.")
    stride = request.detail or 2
    watch = Stopwatch()
    from .prn.engine import OnnxEngine
    from .prn.performance import Smoothing, capture_performance
    from .prn.take_texture import make_take_skin, make_take_texture
    from .prn.weights import load_bundle
    watch.stage("start")
    engine = OnnxEngine(load_bundle(request.weights))
    line = ProgressLine()
    try:
        performance = capture_performance(
            request.input, face=1 if request.face == "largest" else request.face, fps=request.fps,
            smoothing=Smoothing(*request.smooth), neutral_frame=request.neutral,
            interocular=request.eye_distance / 1000, engine=engine, progress=line)
    finally:
        line.end()
    watch.stage("performance")
    texture = make_take_texture(performance, request.texture)
    skin = texture if request.topology != "head" else make_take_skin(performance, request.texture)
    watch.stage("texture")
    written = []
    if request.preview is not None:
        from .prn.contact_sheet import write_contact_sheet
        write_contact_sheet(request.preview, request.input, performance, texture)
        written.append(request.preview)
        watch.stage("contact sheet")

    with quiet_stdout():
        from .scene.export import export
        from .scene.footage import add_sound
        from .scene.performance import build_performance, cost
        from .scene.stage import match_time, new_stage
        scene = new_stage()
        match_time(scene, performance.fps, performance.start + len(performance))
        watch.stage("Blender")
        with tempfile.TemporaryDirectory(prefix=f".{request.output.stem}-", dir=request.output.parent) as folder:
            built = build_performance(performance, skin, scene, way=request.animation, topology=request.topology,
                                      stride=stride, source=request.input, folder=Path(folder), name=request.output.stem)
            if request.input.exists():
                add_sound(scene, request.input, scene.frame_start)
            for modifier in (modifier for piece in filter(None, (built.mesh, built.openings)) for modifier in piece.modifiers):
                modifier.filepath = "//" + Path(modifier.filepath).name
            watch.stage("scene")
            written += export(request.output, [built.mesh])
            for cache in built.files:
                os.replace(cache, request.output.parent / cache.name)
                written.append(request.output.parent / cache.name)
        watch.stage("file")

    print(f"{int(performance.seen.sum())} frames captured at {performance.fps:.5g} a second in {watch}")
    print(f"  {request.animation}: {cost(performance, stride, request.animation, request.topology)}")
    print(f"  at rest in frame {performance.neutral_frame}")
    if engine.bundle.research_only:
        print(f"weights: {engine.bundle.licence}")
    for warning in performance.warnings:
        print(warning)
    for path in written:
        print(f"wrote {path}")
    return int(performance.seen.sum())
