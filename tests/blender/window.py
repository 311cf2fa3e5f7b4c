"""What a user does in Blender's window, done by a script: blender --python tests/blender/window.py -- FOLDER

The extension is installed already. Opens the panel, captures a photo and a strip, cancels a capture, undoes, saves,
reopens, and pulls away what a capture needs while it runs. Takes screenshots on the way (xwd, xdotool and ImageMagick, in a
1600x1000 window) and writes them and result.txt into FOLDER. FOLDER holds photo.jpg and clip.avi.
"""

import importlib
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import bpy

FOLDER = Path(sys.argv[sys.argv.index("--") + 1])
EXTENSION = "bl_ext.user_default.prn_face_capture"
PHOTO, CLIP = FOLDER / "photo.jpg", FOLDER / "clip.avi"
TAB = 1309, 258  # where the sidebar's tab is in the window, pixels

modal = importlib.import_module(f"{EXTENSION}.modal")
finding = importlib.import_module(f"{EXTENSION}.finding")
stills = importlib.import_module(f"{EXTENSION}.stills")
results: list[str] = []


def window():
    return bpy.context.window_manager.windows[0]


def view():
    return next(area for area in window().screen.areas if area.type == "VIEW_3D")


def in_view():
    """Operators are called as from the 3D view, where the panel is."""
    area = view()
    return bpy.context.temp_override(window=window(), area=area,
                                     region=next(region for region in area.regions if region.type == "WINDOW"))


def click(x: int, y: int) -> None:
    subprocess.run(["xdotool", "mousemove", str(x), str(y), "sleep", "0.2", "click", "1"], check=True)


def press(key: str) -> None:
    subprocess.run(["xdotool", "mousemove", "600", "500", "sleep", "0.2", "key", key], check=True)


def shot(name: str) -> None:
    subprocess.run(f"xwd -root -silent | convert xwd:- '{FOLDER / name}.png'", shell=True, check=True)


def settings():
    return bpy.context.scene.prn


def faces() -> list[str]:
    return sorted(piece.name for piece in bpy.data.objects if "prn_capture" in piece)


def counts() -> tuple:
    return tuple(len(getattr(bpy.data, kind)) for kind in ("objects", "meshes", "images", "materials", "collections", "cameras"))


def check(what: str, truth: bool, detail: object = "") -> None:
    results.append(f"{'ok  ' if truth else 'FAIL'} {what}{f' ({detail})' if detail != '' else ''}")
    print(results[-1], flush=True)


def capture() -> None:
    with in_view():
        bpy.ops.prn.capture("INVOKE_DEFAULT")


def ended(limit: float = 120.0):
    """Waits in the window until no capture is running."""
    until = time.time() + limit
    while modal.running_job() and time.time() < until:
        yield 0.05


def looked(limit: float = 60.0):
    until = time.time() + limit
    yield 0.2
    while finding._job and time.time() < until:
        yield 0.05


def slowly(seconds: float):
    """A capture that takes this much longer, so that there is time to interfere with it."""
    real = stills._capture

    def slow(request, looked, *rest):
        time.sleep(seconds)
        return real(request, looked, *rest)
    return real, slow


def handlers() -> list[str]:
    """The extension's own; Blender's other add-ons add to theirs when scripts are reloaded."""
    return [f"{name} {function.__name__}" for name in dir(bpy.app.handlers) for function in
            (getattr(bpy.app.handlers, name) if isinstance(getattr(bpy.app.handlers, name), list) else ())
            if getattr(function, "__module__", "").startswith(EXTENSION)]


def story():
    bpy.context.preferences.view.show_splash = False
    view().spaces.active.show_region_ui = True
    yield 5                                     # a busy machine is slow to draw the sidebar
    click(*TAB)
    yield 1.5
    shot("panel-empty")

    # ---- a photo -----------------------------------------------------------------------------------------------------
    settings().path = str(PHOTO)
    yield from looked()
    yield 1
    found = finding.found_in(settings())
    check("the thumbnail appears by itself", bool(found and found.faces == 1 and found.icon), found and found.problem)
    shot("panel-before")
    before = counts()
    real, stills._capture = slowly(3)
    ticks, started = 0, time.time()
    capture()
    yield 0.1
    for _ in ended():
        ticks += 1
        if ticks == 6:
            shot("panel-during")
        yield 0.05
    seconds = time.time() - started
    stills._capture = real
    check("the window lives during a capture", ticks > 15, f"{ticks} looks in {seconds:.1f} s")
    yield 1.5
    check("a photo becomes a face", faces() == ["Face"] and bpy.context.object.name == "Face", faces())
    shot("panel-after")
    with in_view():
        bpy.ops.prn.look_through_camera()
    yield 1.5
    shot("camera")
    view().spaces.active.region_3d.view_perspective = "PERSP"

    # ---- undo, redo, redo panel --------------------------------------------------------------------------------------
    with in_view():
        bpy.ops.ed.undo()  # called by a script, looking through the camera made no step of its own
    yield 0.3
    check("undo takes the face away", not faces() and counts()[0] == before[0], counts())
    with in_view():
        bpy.ops.ed.redo()
    yield 0.3
    check("redo brings it back", faces() == ["Face"], faces())

    # ---- cancelling --------------------------------------------------------------------------------------------------
    bpy.data.objects["Face"].hide_set(True)  # drawn without a graphics card, a head takes longer than what is measured
    yield 1
    started = time.time()
    with in_view():
        bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=1)
    drawing = time.time() - started
    for how in ("Esc", "the button", "a quick Esc"):
        stills.forget()
        real, stills._capture = slowly(3)
        before = counts()
        capture()
        yield 0.05 if how == "a quick Esc" else 1.0
        check(f"a capture runs, before {how}", modal.running_job() is not None)
        started = time.time()
        if how == "the button":
            with in_view():
                bpy.ops.prn.cancel()
        else:
            press("Escape")
            started += 0.2  # the mouse's way
        yield from ended(5)
        seconds = time.time() - started
        stills._capture = real
        yield 0.5
        # Blender looks at no key while it draws, and without a graphics card on a busy machine that takes its time.
        check(f"{how} stops a capture within half a second, beside drawing the window once", seconds < 0.5 + drawing,
              f"{seconds:.2f} s, of which drawing {drawing:.2f} s")
        check(f"{how} leaves the scene as it was", counts() == before, (before, counts()))

    # ---- a strip -----------------------------------------------------------------------------------------------------
    scene = bpy.context.scene
    editor = scene.sequence_editor_create()
    strip = getattr(editor, "strips", None) or editor.sequences
    strip = strip.new_movie("clip", str(CLIP), 1, 10)
    strip.frame_offset_start = 5
    editor.active_strip = strip
    scene.frame_set(20)
    settings().source = "STRIP"
    yield from looked()
    yield 1
    shot("panel-strip")
    settings().whole = "STILL"
    stills.forget()
    capture()
    yield from ended()
    yield 0.5
    check("a strip's frame becomes a face", len(faces()) == 2, faces())
    settings().whole, settings().take_detail = "TAKE", "QUARTER"
    before = counts()
    capture()
    yield 1.5
    with in_view():
        bpy.ops.prn.cancel()
    yield from ended(10)
    yield 0.5
    check("a strip's performance can be cancelled half-way", counts() == before, (before, counts()))
    capture()
    ticks = 0
    for _ in ended(300):
        ticks += 1
        if ticks == 6:
            shot("panel-performance")
        yield 0.05
    yield 0.5
    take = bpy.context.object
    check("a strip becomes a performance", "frames" in take.get("prn_capture", {}) and take["prn_capture"]["frames"] == 35, take.name)
    shot("performance")

    # ---- saving and opening ------------------------------------------------------------------------------------------
    bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "saved.blend"))
    settings().source = "IMAGE"
    settings().path = str(PHOTO)
    check("the path is relative to the saved file", settings().path == "//photo.jpg", settings().path)
    bpy.ops.wm.save_mainfile()
    yield 0.5
    bpy.ops.wm.read_homefile()
    yield 0.5
    bpy.ops.wm.open_mainfile(filepath=str(FOLDER / "saved.blend"))
    yield 1
    check("the saved file has faces and settings", len(faces()) == 3 and settings().path == "//photo.jpg", faces())
    check("its pictures are packed", all(image.packed_file for image in bpy.data.images if image.source == "FILE" and image.users and image.name != "Render Result"))

    # ---- what a capture needs is pulled away -------------------------------------------------------------------------
    stills.forget()
    real, stills._capture = slowly(3)
    capture()
    yield 0.8
    bpy.ops.wm.read_homefile()
    yield 0.5
    check("another file can be opened during a capture", modal.running_job() is None and not faces())
    yield 4
    check("nothing of it appears in the other file", not faces() and counts()[0] == 3, counts())

    settings().collection = bpy.data.collections.new("Cast")
    bpy.context.scene.collection.children.link(settings().collection)
    settings().path = str(PHOTO)
    yield from looked()
    stills.forget()
    capture()
    yield 0.8
    for piece in list(bpy.data.objects):
        bpy.data.objects.remove(piece)
    bpy.data.collections.remove(bpy.data.collections["Cast"])
    yield from ended()
    yield 0.3
    check("its collection and all objects can be deleted during a capture", faces() == ["Face"], faces())

    copy = FOLDER / "copy.jpg"
    copy.write_bytes(PHOTO.read_bytes())
    settings().path = str(copy)
    yield from looked()
    stills.forget()
    gone = threading.Event()
    real_look, stills._look = stills._look, lambda *arguments: (gone.wait(60), real_look(*arguments))[1]
    before = counts()
    capture()
    yield 0.5
    copy.unlink()
    gone.set()
    yield from ended()
    stills._look, stills._capture = real_look, real
    yield 0.3
    check("the photo can be deleted during a capture", counts() == before, counts())

    # ---- scripts -----------------------------------------------------------------------------------------------------
    before = handlers()
    for _ in range(3):
        bpy.ops.script.reload()
        yield 0.5
    check("scripts can be reloaded", hasattr(bpy.context.scene, "prn") and handlers() == before, (before, handlers()))
    import addon_utils
    for _ in range(50):
        addon_utils.disable(EXTENSION)
        addon_utils.enable(EXTENSION)
    yield 0.5
    workers = [thread.name for thread in threading.enumerate() if thread.name.startswith("PRN") and "dependencies" not in thread.name]
    check("fifty times off and on leave no handlers and no threads", handlers() == before and not workers, workers)
    settings().path = str(PHOTO)
    yield from looked()
    before = len(faces())
    capture()
    yield from ended()
    yield 0.3
    check("and it still captures", len(faces()) == before + 1, faces())


def main() -> None:
    steps = story()

    def go():
        try:
            return next(steps)
        except StopIteration:
            finish()
        except Exception:
            results.append(f"FAIL {traceback.format_exc()}")
            finish()

    def finish() -> None:
        failed = sum(line.startswith("FAIL") for line in results)
        results.append(f"{len(results) - failed} of {len(results)} as expected")
        (FOLDER / "result.txt").write_text("\n".join(results) + "\n")
        print(results[-1], flush=True)
        bpy.ops.wm.quit_blender()
    bpy.app.timers.register(go, first_interval=3, persistent=True)


main()
