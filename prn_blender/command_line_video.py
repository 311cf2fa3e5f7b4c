"""The command line's way for videos: `capture CLIP -o take.blend`. The request is parsed and checked by command_line.

video -> performance -> scene -> file, with a line of progress on stderr; what holds no mesh needs no scene. Writes the
output, PC2 files and a folder of textures beside a .blend file where they are asked for, and the contact sheet.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from .command_line import RECORDS, SHAPED, Stopwatch, quiet_stdout, write_record
from .prn.errors import CaptureError


class ProgressLine:
    """A line on the terminal that is written over; without a terminal, one line every tenth of the way."""

    def __init__(self) -> None:
        self.tenth, self.doing = -1, ""
        self.live = sys.stderr.isatty()

    def __call__(self, progress) -> None:
        if progress.doing != self.doing:
            self.tenth, self.doing = -1, progress.doing
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
    ending = request.output.suffix.lower()
    if ending == ".obj":
        raise CaptureError("An OBJ file holds no motion: give a video's output another ending, as .glb, .fbx, .usdc or .abc.")
    if request.animation == "pc2" and ending != ".blend":
        raise CaptureError("A PC2 point cache belongs to a .blend file: give the output that ending, or leave --animation out.")
    if request.texture_frames and ending != ".blend":
        raise CaptureError("Textures that change from frame to frame belong to a .blend file: give the output that ending, or leave "
                           "--texture-frames out.")
    if request.shapes is not None:
        raise CaptureError("--shapes is for photographs: give --animation arkit for a video.")
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
    from .prn.performance import capture_performance
    from .prn.position_map import HM08
    from .prn.take import Smoothing
    from .prn.take_texture import make_take_skin, make_take_texture
    from .prn.weights import load_bundle
    watch.stage("start")
    engine = OnnxEngine(load_bundle(request.weights), quantized=True)
    own = engine.topology.name != HM08
    way = request.animation or ("arkit" if ending in SHAPED and not own else "absolute")
    for wanted, what in ((way == "arkit", "ARKit shape keys"), (ending == ".csv", "A LiveLink Face file"),
                         (request.topology == "loops", "The hm08 face loops"), (request.topology == "head", "The whole head")):
        if wanted:
            engine.topology.require_hm08(what)  # before the work, and not after it
    line = ProgressLine()
    try:
        performance = capture_performance(
            request.input, face=1 if request.face == "largest" else request.face, fps=request.fps,
            smoothing=Smoothing(*request.smooth), neutral_frame=request.neutral,
            interocular=request.eye_distance / 1000, focal=request.focal, quick=request.quick, engine=engine, progress=line)
    finally:
        line.end()
    watch.stage("performance")
    skin = None
    if ending not in RECORDS or request.preview is not None:
        make = make_take_skin if request.topology == "head" else make_take_texture
        skin = make(performance, request.texture)
        watch.stage("texture")
    written = []
    if request.texture_frames:
        from .prn.frame_texture import write_frame_textures
        from .prn.video import open_video
        folder = request.output.with_name(f"{request.output.stem}_texture")
        try:
            skin = write_frame_textures(performance, open_video(request.input), folder, request.texture, request.topology,
                                        announce=lambda text: print(text, file=sys.stderr, flush=True), progress=line)
        finally:
            line.end()
        written.append(folder)
        watch.stage("textures")
    if request.preview is not None:
        from .prn.contact_sheet import write_contact_sheet
        write_contact_sheet(request.preview, request.input, performance, skin, request.topology, request.lashes)
        written.append(request.preview)
        watch.stage("contact sheet")
    if ending in RECORDS:
        from .prn.record import of_take
        write_record(request.output, [of_take(performance)])
        written.append(request.output)
        watch.stage("file")
    else:
        written += build_and_export(request, performance, skin, way, stride, watch)

    print(f"{int(performance.seen.sum())} frames captured at {performance.fps:.5g} a second in {watch}")
    if ending not in RECORDS:
        from .scene.performance import cost
        print(f"  {way}: {cost(performance, stride, way, request.topology, request.lashes)}")
    print(f"  at rest in frame {performance.neutral_frame}")
    if engine.bundle.research_only:
        print(f"weights: {engine.bundle.licence}")
    for warning in performance.warnings:
        print(warning)
    for path in written:
        print(f"wrote {path}")
    return int(performance.seen.sum())


def build_and_export(request: argparse.Namespace, performance, skin, way: str, stride: int, watch: Stopwatch) -> list[Path]:
    """A performance through Blender's scene into the output; the files that were written."""
    with quiet_stdout():
        from .scene.export import export
        from .scene.footage import add_sound
        from .scene.performance import build_performance
        from .scene.stage import match_time, new_stage
        scene = new_stage()
        if request.output.suffix.lower() != ".blend":
            scene.frame_start = 0  # other formats count time, which begins at 0 with the video
        match_time(scene, performance.fps, performance.start + len(performance))
        watch.stage("Blender")
        with tempfile.TemporaryDirectory(prefix=f".{request.output.stem}-", dir=request.output.parent) as folder:
            built = build_performance(performance, skin, scene, way=way, topology=request.topology, stride=stride,
                                      source=request.input, folder=Path(folder), name=request.output.stem, lashes=request.lashes)
            if request.input.exists():
                add_sound(scene, request.input, scene.frame_start)
            for modifier in (modifier for piece in filter(None, (built.mesh, built.openings)) for modifier in piece.modifiers):
                modifier.filepath = "//" + Path(modifier.filepath).name
            if request.texture_frames:
                built.texture.filepath = f"//{skin.first.parent.name}/{skin.first.name}"
            watch.stage("scene")
            written = export(request.output, [built.mesh])
            for cache in built.files:
                os.replace(cache, request.output.parent / cache.name)
                written.append(request.output.parent / cache.name)
        watch.stage("file")
    return written
