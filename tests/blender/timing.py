"""How long the first and the second capture of a large photo take, step by step: python tests/blender/timing.py [PHOTO]

Runs with the bpy module or as `blender -b --python tests/blender/timing.py -- [PHOTO]`, in a fresh process, on the repository's
package or the installed extension. Without a photo it makes one of 12 megapixels from the portrait of the tests. Seconds on the clock
and, as other work on the machine does not change them much, seconds of processor time.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def passed(since) -> tuple[float, float]:
    return time.perf_counter() - since[0], time.process_time() - since[1]


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def large_photo(folder: str) -> str:
    import cv2
    import numpy as np

    portrait = cv2.imread(str(ROOT / "tests" / "data" / "astronaut.jpg"))
    photo = cv2.resize(portrait, (3464, 3464), interpolation=cv2.INTER_CUBIC)
    noise = np.random.default_rng(0).normal(0, 3, photo.shape)
    path = str(Path(folder) / "photo.jpg")
    cv2.imwrite(path, np.clip(photo + noise, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return path


def main(arguments: list[str]) -> None:
    import bpy

    with tempfile.TemporaryDirectory() as folder:
        if arguments:
            photo = arguments[0]
        else:  # in another process, so that the first capture finds nothing loaded
            photo = str(Path(folder) / "photo.jpg")
            code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import timing; timing.large_photo({folder!r})"
            os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code)
        if not hasattr(bpy.types, "PRN_OT_capture_image"):
            sys.path.insert(0, str(ROOT))
            import prn_blender
            prn_blender.register()
        start = now()
        bpy.ops.prn.capture_image(filepath=photo, topology="GRID")
        report("first capture", passed(start))
        stills = next(module for name, module in sys.modules.items() if name.endswith("prn_face_capture.stills") or name == "prn_blender.stills")
        for title in ("second capture, of the same photo read anew", "third"):
            stills.forget()
            start = now()
            bpy.ops.prn.capture_image(filepath=photo, topology="GRID")
            report(title, passed(start))
            kept = next(iter(stills._looked._results.values())), next(iter(stills._captured._results.values()))[0][0]
            steps = {**kept[1].seconds, **kept[0].seconds, "texture": next(iter(stills._textured._results.values()))[1]}
            print("   " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in steps.items()) + "  (on the clock)")
        start = now()
        bpy.ops.prn.capture_image(filepath=photo, topology="LOOPS")
        report("another option in the redo panel", passed(start))


def report(title: str, spent: tuple[float, float]) -> None:
    print(f"{title}: {spent[0]:.2f} s on the clock, {spent[1]:.2f} s of processor time", flush=True)


if __name__ == "__main__":
    main(sys.argv[sys.argv.index("--") + 1:] if "--" in sys.argv else sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
