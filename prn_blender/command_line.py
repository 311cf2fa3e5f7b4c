"""The command line: `python -m prn_blender.command_line capture INPUT`, which `build.py capture` runs.

Checks the request before anything heavy is imported, then picture -> faces -> scene -> file. Reads the picture and the
weights, writes the output and the preview. A mistake of the user's gets one sentence on stderr: exit status 2 for a
wrong request, 3 for no face found.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .batch import shard_of
from .prn.boxes import LEAST_FOCAL, MOST_FOCAL
from .prn.errors import CaptureError
from .prn.inputs import is_video

# The names in prn/outputs.py, told here so that a request is checked before anything heavy is imported.
WRITE = ("landmarks", "vertices", "obj", "obj-front", "mesh", "mesh-cropped", "depth", "pose", "uv-position", "uv-texture",
         "visibility", "mask", "overlay", "mpfb-target")
TEXTURE_SIZES = (512, 1024, 2048, 4096)
ENDINGS = (".blend", ".glb", ".fbx", ".obj", ".usd", ".usda", ".usdc", ".abc", ".json", ".csv")
RECORDS = (".json", ".csv")  # what holds no mesh, and needs no Blender
SHAPED = (".glb", ".fbx")  # what has the ARKit shape keys unless they are refused


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise CaptureError(f"{message[0].upper()}{message[1:]}: '{self.prog} --help' shows the options.")


def which_faces(text: str) -> str | int:
    if text in ("largest", "all"):
        return text
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not largest, all, or a number from 1")


def what_to_write(text: str) -> tuple[str, ...]:
    names = WRITE if text == "all" else tuple(text.split(","))
    for name in names:
        if name not in WRITE:
            raise argparse.ArgumentTypeError(f"'{name}' is not an output that can be written, choose from {', '.join(WRITE)}")
    return names


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1")
    return int(text)


def smoothing_strengths(text: str) -> tuple[float, ...]:
    try:
        strengths = tuple(float(part) for part in text.split(","))
    except ValueError:
        strengths = ()
    if len(strengths) != 3 or not all(0 <= strength <= 10 for strength in strengths):
        raise argparse.ArgumentTypeError(f"'{text}' is not three numbers from 0 to 10, as in 1,1,0.5")
    return strengths


def millimetres(least: float, most: float, what: str) -> Callable[[str], float]:
    """What reads an argument that is a length."""
    def read(text: str) -> float:
        try:
            length = float(text)
        except ValueError:
            length = 0.0
        if not least <= length <= most:
            raise argparse.ArgumentTypeError(f"'{text}' is not a {what} between {least:g} and {most:g} millimetres")
        return length
    return read


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(prog="capture", description="Make a textured face mesh from a photograph.")
    parser.add_argument("inputs", metavar="INPUT", nargs="+",
                        help="photograph with a face in it, or a video; with --out-dir any number of them, of folders and globs")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path,
                        help=f"file to write, its ending chooses the format: {', '.join(ENDINGS)} "
                             "(default: INPUT's name with .blend, in the current folder)")
    parser.add_argument("--preview", metavar="PNG", type=Path, help="also write a picture to judge the result by")
    parser.add_argument("--write", metavar="NAME,...", type=what_to_write, default=(),
                        help=f"also write these beside OUT, named after it: {', '.join(WRITE)}; or all")
    parser.add_argument("--face", metavar="largest|all|N", type=which_faces, default="largest",
                        help="which faces: the largest (default), all, or the Nth largest")
    parser.add_argument("--surface", choices=("fitted", "raw"), default="fitted",
                        help="the clean surface (default), or the network's own")
    parser.add_argument("--topology", choices=("grid", "loops", "head"), default="grid",
                        help="the position map's grid (default), hm08's face with loops round eyes and mouth, or its whole head "
                             "with eyes, teeth, neck and the 52 ARKit shape keys")
    parser.add_argument("--no-lashes", dest="lashes", action="store_false", help="leave out the head's lashes")
    parser.add_argument("--detail", type=int, choices=(1, 2, 4), default=None,
                        help="texels of the grid a vertex: 1 is finest (default: 1 for a photograph, 2 for a video)")
    parser.add_argument("--texture", metavar="SIZE", type=int, choices=TEXTURE_SIZES, default=2048,
                        help="the texture's side in pixels: 512, 1024, 2048 (default) or 4096")
    parser.add_argument("--shapes", action=argparse.BooleanOptionalAction, default=None,
                        help="the 52 ARKit shape keys on a photograph's face, set to its expression (default: in .glb and .fbx)")
    parser.add_argument("--no-camera", dest="camera", action="store_false", help="leave out the camera with the photo")
    parser.add_argument("--eye-distance", metavar="MM", type=millimetres(1, 10_000, "distance"), default=63.0,
                        help="how far the eyes' centres are apart in reality, which sets the scale (default: 63)")
    parser.add_argument("--focal", metavar="MM", type=millimetres(LEAST_FOCAL, MOST_FOCAL, "focal length"), default=None,
                        help="the lens's focal length, as told for a full-frame camera: sets right what a near camera makes narrow "
                             "(default: what the file tells; without that, and with 500 or more, the camera is far away)")
    many = parser.add_argument_group("many inputs")
    many.add_argument("--out-dir", metavar="DIR", type=Path,
                      help="folder for one file an input, named after it; -o then is only the ending: -o .glb (default .blend)")
    many.add_argument("--jobs", metavar="N", type=positive, default=1, help="processes to work with (default 1)")
    many.add_argument("--dask", metavar="tcp://HOST:PORT", help="have a Dask cluster do the work, instead of processes here")
    many.add_argument("--resume", action="store_true", help="leave out what was finished with the same content and settings")
    many.add_argument("--shard", metavar="I/N", type=shard_of, help="only the Ith of N parts, for a render farm's array job")
    many.add_argument("--report", metavar="JSONL", type=Path, help="a line of JSON for each input")
    video = parser.add_argument_group("a video as INPUT (a movie, or a sequence's pattern as shot_####.png)")
    video.add_argument("--animation", choices=("absolute", "relative", "pc2", "arkit"), default=None,
                       help="shape keys under one eval_time curve (default), relative ones, a PC2 point cache beside the "
                            "file, or the 52 ARKit shape keys with their curves (default in .glb and .fbx)")
    video.add_argument("--texture-frames", action="store_true",
                       help="a texture for every frame, as pictures beside the .blend file, instead of one for the whole take")
    video.add_argument("--fps", type=float, help="frames a second of the animation (default: the video's)")
    video.add_argument("--neutral", metavar="FRAME", type=int, help="the video's frame, from 0, in which the face is at rest")
    video.add_argument("--smooth", metavar="HEAD,FACE,EYES", type=smoothing_strengths, default=(1.0, 1.0, 1.0),
                       help="strengths of the smoothing, 0 is none (default 1,1,1)")
    video.add_argument("--quick", action="store_true",
                       help="three fifths of the time: without following the skin, so that small expressions come out weaker")
    parser.add_argument("--weights", metavar="FOLDER", type=Path, help="model bundle to use instead of the shipped one")
    request = parser.parse_args(arguments)
    if request.out_dir is None:
        several = [f"--{name}" for name in ("dask", "resume", "shard", "report") if getattr(request, name)]
        if len(request.inputs) > 1 or several:
            raise CaptureError(f"{several[0] if several else 'More than one input'} needs --out-dir: give the folder to write to.")
    request.input = Path(request.inputs[0])
    return request


def check_target(path: Path, endings: tuple[str, ...], option: str) -> None:
    """Raises CaptureError if a file cannot be written there."""
    if path.suffix.lower() not in endings:
        raise CaptureError(f"{option} '{path}' has an ending that is not known: use one of {', '.join(endings)}.")
    if path.is_dir():
        raise CaptureError(f"{option} '{path}' is a folder: give the name of a file.")
    if not path.parent.is_dir():
        raise CaptureError(f"The folder '{path.parent}' does not exist: create it, or choose another place for {option}.")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError:
        raise CaptureError(f"The folder '{path.parent}' cannot be written: choose another place for {option}.") from None


def check_request(request: argparse.Namespace) -> None:
    if request.input.is_dir():
        raise CaptureError(f"'{request.input}' is a folder: give --out-dir as well to capture every photograph and movie in it, "
                           f"or the pattern of a sequence's names, as shot_####.png.")
    if not request.input.exists() and not is_video(request.input):
        raise CaptureError(f"'{request.input}' does not exist: check the name of the photograph.")
    if request.output is None:
        stem = re.sub(r"[#%].*", "", request.input.stem).rstrip("._-") or "take"
        request.output = Path(f"{stem}.blend" if is_video(request.input) else request.input.with_suffix(".blend").name)
    check_target(request.output, ENDINGS, "the output")
    if request.preview is not None:
        check_target(request.preview, (".png",), "the preview")


@contextlib.contextmanager
def quiet_stdout():
    """Blender's exporters print from C and Python alike; what is printed here is for the log, not for the user."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class Stopwatch:
    """Seconds per stage, in the order the stages ran."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = self.last = time.perf_counter()

    def stage(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    def stages(self, seconds: dict[str, float]) -> None:
        """Takes over the stages that something else has measured since the last one."""
        self.seconds |= seconds
        self.last = time.perf_counter()

    def __str__(self) -> str:
        total = time.perf_counter() - self.started
        return f"{total:.1f} s: " + ", ".join(f"{name} {value:.2f}" for name, value in self.seconds.items())


def capture(arguments: list[str]) -> int | None:
    request = parse(arguments)
    if request.out_dir is not None:
        return capture_many(request)
    check_request(request)
    capture_request(request)


def capture_many(request: argparse.Namespace) -> int:
    from . import batch
    ending = ".blend" if request.output is None else str(request.output).lower()
    if ending not in ENDINGS:
        raise CaptureError(f"With --out-dir -o is only an ending, one of {', '.join(ENDINGS)}, and not '{request.output}'.")
    if request.preview is not None:
        raise CaptureError("--preview is for one input: use --write overlay to have a picture of each.")
    items = batch.items_of(request.inputs, ending)
    check_folder(request.out_dir)
    if request.report is not None:
        check_target(request.report, (".jsonl", ".json", ".txt"), "the report")
    return batch.run(request, items)


def check_folder(folder: Path) -> None:
    """Raises CaptureError if files cannot be written there, or it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except FileExistsError:
        raise CaptureError(f"'{folder}' is a file: give a folder for --out-dir.") from None
    except OSError:
        raise CaptureError(f"The folder '{folder}' cannot be written: choose another place for --out-dir.") from None


def capture_request(request: argparse.Namespace) -> dict[str, int]:
    """One input that has been checked: how many faces and frames were captured."""
    if is_video(request.input):
        from .command_line_video import capture_take
        return {"faces": 1, "frames": capture_take(request)}
    watch = Stopwatch()

    from .prn.capture import capture_image
    from .prn.engine import OnnxEngine
    from .prn.head import doubt
    from .prn.position_map import HM08
    from .prn.record import of_photo
    from .prn.skin import make_skin
    from .prn.texture import make_texture
    from .prn.weights import load_bundle
    watch.stage("start")
    engine = OnnxEngine(load_bundle(request.weights), int(os.environ.get("PRN_THREADS", 0)) or None)
    watch.stage("weights")
    faces = capture_image(request.input, faces=request.face, surface=request.surface,
                          interocular=request.eye_distance / 1000, focal=request.focal, engine=engine)
    watch.stages(faces[0].seconds)
    ending = request.output.suffix.lower()
    shapes = (ending in SHAPED and engine.topology.name == HM08) if request.shapes is None else request.shapes
    if shapes:
        engine.topology.require_hm08("ARKit shape keys")
    if ending == ".csv" and len(faces) > 1:
        raise CaptureError("A LiveLink Face file holds one face: give --face a number.")
    skins, textures = [], []
    if ending not in RECORDS or request.preview is not None:
        skins = textures = [make_skin(face, request.topology, request.texture) for face in faces]
    if request.write and (request.topology == "head" or not textures):
        # The outputs are of the position map, whatever the mesh.
        textures = [make_texture(face, request.texture) for face in faces]
    watch.stage("texture")

    written = []
    if request.preview is not None:
        if request.topology == "head":
            from .prn.head_preview import write_head_preview
            write_head_preview(request.preview, faces, skins, request.lashes)
        else:
            from .prn.preview import write_preview
            write_preview(request.preview, faces, skins)
        written.append(request.preview)
        watch.stage("preview")
    if request.write:
        from .prn.outputs import write_outputs
        # "all" is all that these weights can give.
        names = [name for name in request.write if request.write != WRITE or name != "mpfb-target" or engine.topology.name == HM08]
        written += write_outputs(request.output, faces, names, textures)
        watch.stage("outputs")

    if ending in RECORDS:
        write_record(request.output, [of_photo(face) for face in faces])
        written.append(request.output)
        watch.stage("file")
    else:
        written += build_and_export(request, faces, skins, shapes, watch)

    print(f"{len(faces)} {'face' if len(faces) == 1 else 'faces'} captured in {watch}")
    for face in faces:
        print(f"  yaw {face.yaw:.0f}°, pitch {face.pitch:.0f}°, roll {face.roll:.0f}°")
        if request.topology == "head" and doubt(face):
            print(f"  {doubt(face)}")
    if engine.bundle.research_only:
        print(f"weights: {engine.bundle.licence}")
    if engine.topology.name != HM08:
        print("surface raw: the clean surface can be had with this program's own weights only")
    for path in written:
        print(f"wrote {path}")
    return {"faces": len(faces), "frames": 1}


def write_record(path: Path, records: list) -> None:
    """`FaceRecord`s as JSON, or one of them as LiveLink Face's CSV, by the ending."""
    from .prn.livelink import write_livelink
    from .prn.record import write_json
    if path.suffix.lower() == ".csv":
        write_livelink(path, records[0])
    else:
        write_json(path, records)


def build_and_export(request: argparse.Namespace, faces: list, skins: list, shapes: bool, watch: Stopwatch) -> list[Path]:
    """Photographed faces through Blender's scene into the output; the files that were written."""
    with quiet_stdout():
        from .scene.export import export
        from .scene.face import build_face
        from .scene.stage import new_stage
        scene = new_stage()
        watch.stage("Blender")
        built = []
        for face, skin in zip(faces, skins):
            built.append(build_face(
                face, skin, scene, topology=request.topology, stride=request.detail or 1, with_camera=request.camera,
                beside=built[0].placement if built else None, camera=built[0].camera if built else None, shapes=shapes,
                lashes=request.lashes))
        watch.stage("scene")
        written = export(request.output, [face.mesh for face in built])
        watch.stage("file")
    return written


def render_over(arguments: list[str]) -> None:
    from . import render_over as command
    request = command.arguments_for(Parser(prog="render-over")).parse_args(arguments)
    check_target(request.output, (".png",), "the picture")
    with quiet_stdout():
        changed = command.render_over(request.photo, request.capture, request.texture, request.output, whole=request.whole,
                                      over_all=request.over_all)
    print(f"wrote {request.output}: {100 * changed:.1f} % of the photo changed")


def apply(arguments: list[str]) -> None:
    from . import apply_recording as command
    request = command.arguments_for(Parser(prog="apply")).parse_args(arguments)
    check_target(request.output, (".blend",), "the output")
    if not request.character.is_file():
        raise CaptureError(f"'{request.character}' does not exist: check the name of the character's file.")
    with quiet_stdout():
        done = command.apply_recording(request)
    for result in done:
        print(f"{len(result.matched)} of 52 shapes keyed by '{result.expression.name}'"
              + (f"; no key for {', '.join(result.missing)}" if result.missing else ""))
    print(f"wrote {request.output}")


COMMANDS = {"capture": capture, "render-over": render_over, "apply": apply}


def main(arguments: list[str]) -> int:
    parser = Parser(prog="prn_blender", description="PRN Face Capture.")
    parser.add_argument("command", choices=COMMANDS)
    try:
        status = COMMANDS[parser.parse_args(arguments[:1]).command](arguments[1:])
    except CaptureError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"Could not write the result: {error.strerror or error}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status or 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # bpy can hang or crash while the interpreter shuts down
