"""Which faces the panel's source shows: found in a thread, drawn as a numbered thumbnail. Touches a preview icon only."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import bpy.utils.previews
from bpy.app.translations import pgettext_rpt as rpt_

from . import dependencies
from .jobs import Job
from .modal import TICK, redraw, running_job
from .prn.errors import CaptureError

SIZE = 320  # pixels of the thumbnail


@dataclass
class Found:
    """What is known about the source that was looked at last."""

    source: tuple
    frame: int
    faces: int = 0
    problem: str = ""
    icon: int = 0
    looking: bool = True


_found: Found | None = None
_job: Job | None = None
_previews = None


def source_key(settings) -> tuple:
    from .scene.source import active_strip

    strip = active_strip(settings.id_data) if settings.source == "STRIP" else None
    return (settings.id_data.name, settings.source, settings.path if settings.source in ("IMAGE", "MOVIE", "SEQUENCE") else "",
            settings.clip.name if settings.clip else "", strip.name if strip else "")


def found_in(settings) -> Found | None:
    """What was found in the settings' source, or None if nobody has looked yet."""
    return _found if _found and _found.source == source_key(settings) else None


def look_again(context) -> None:
    """Looks at a source that was just chosen, where there is a window to show it in."""
    global _found
    _found = None
    if _job:
        _job.cancel()
    from .scene.source import missing

    settings = context.scene.prn
    if bpy.app.background or not context.window or running_job() or missing(context.scene, settings):
        return
    bpy.ops.prn.find_faces("INVOKE_DEFAULT")


class PRN_OT_find_faces(bpy.types.Operator):
    """Look for faces in the source, at the current frame"""

    bl_idname = "prn.find_faces"
    bl_label = "Find Faces"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, context) -> bool:
        from .scene.source import missing

        reason = dependencies.known_problem() or missing(context.scene, context.scene.prn)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def prepare(self, context):
        """The settings' source and its picture at the current frame; None after telling what is wrong with it."""
        global _found
        from .scene.source import footage_of

        scene = context.scene
        _found = Found(source_key(scene.prn), scene.frame_current)
        try:
            problem = dependencies.problem()
            if problem:
                raise CaptureError(problem)
            return footage_of(scene, scene.prn).at(scene.frame_current)
        except CaptureError as error:
            _found.problem, _found.looking = str(error), False
            return None

    def invoke(self, context, event):
        global _job
        if _job:
            _job.cancel()
        picture = self.prepare(context)
        if picture is None:
            redraw(context)
            return {"CANCELLED"}
        self._mine = _job = Job("Finding faces", lambda job: numbered(picture, job.report))
        self._timer = context.window_manager.event_timer_add(TICK, window=context.window)
        context.window_manager.modal_handler_add(self)
        redraw(context)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        job = self._mine
        if job is not _job or job.cancelled:
            return self.end(context)
        if event.type != "TIMER" or not job.finished:
            return {"PASS_THROUGH"}
        if not _found.looking:  # Blender needs a second look at a panel that has grown, to put what is below it in its place
            return self.end(context)
        if isinstance(job.error, CaptureError):
            _found.problem = str(job.error)
        elif job.error:
            from . import bug_report
            bug_report.remember(job.error, job.traceback)
            _found.problem = rpt_("The picture could not be searched for faces.")
        else:
            show(*job.result)
        _found.looking = False
        redraw(context)
        return {"PASS_THROUGH"}

    def end(self, context):
        global _job
        if self._mine is _job:
            _job = None
            if _found:
                _found.looking = False
        self._mine.cancel()
        context.window_manager.event_timer_remove(self._timer)
        redraw(context)
        return {"FINISHED"}

    def cancel(self, context):
        self.end(context)

    def execute(self, context):
        picture = self.prepare(context)
        if picture is None:
            self.report({"ERROR"}, _found.problem)
            return {"CANCELLED"}
        try:
            show(*numbered(picture, lambda *_: None))
        except CaptureError as error:
            _found.problem = str(error)
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        finally:
            _found.looking = False
        self.report({"INFO"}, rpt_("Faces found: {count}").format(count=_found.faces))
        return {"FINISHED"}


def numbered(picture, report):
    """For a thread: the thumbnail as Blender's pixels, (SIZE * SIZE * 4,) float32, and the number of faces."""
    import numpy as np

    from .stills import look, thumbnail

    looked = look(picture, report)
    pixels = np.ones((SIZE, SIZE, 4), np.float32)
    pixels[..., :3] = thumbnail(looked, SIZE)[::-1] / np.float32(255)
    return pixels.ravel(), len(looked.boxes)


def show(pixels, faces: int) -> None:
    """Makes the thumbnail an icon for the panel."""
    _previews.clear()
    preview = _previews.new("found")
    preview.image_size = SIZE, SIZE
    preview.image_pixels_float.foreach_set(pixels)
    _found.icon, _found.faces = preview.icon_id, faces
    if not faces:
        _found.problem = rpt_("No face found: use a picture in which the face is well lit and at least 40 pixels wide.")


def register() -> None:
    global _previews
    _previews = bpy.utils.previews.new()
    bpy.utils.register_class(PRN_OT_find_faces)


def unregister() -> None:
    global _previews, _found, _job
    if _job:
        _job.cancel()
    _found = _job = None
    bpy.utils.unregister_class(PRN_OT_find_faces)
    bpy.utils.previews.remove(_previews)
    _previews = None
