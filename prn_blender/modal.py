"""The bridge between a worker thread and Blender's window: the base of operators that take longer than a click.

In the window the work runs in a job, and this modal operator only looks at it ten times a second, shows its progress in
the status bar, and builds the result in small portions; Esc and the panel's Cancel stop it at once. Touches the window
manager's timers and handlers, and bpy data only through what the operators build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bpy
from bpy.app.handlers import persistent
from bpy.app.translations import pgettext_iface as iface_
from bpy.app.translations import pgettext_rpt as rpt_

from . import bug_report, dependencies
from .jobs import Job, stop_all
from .prn.errors import CaptureError

TICK = 0.1  # seconds between looks at the job
PORTION = 0.05  # seconds of building without letting the window live

_running: JobOperator | None = None


def running_job() -> Job | None:
    """The job of the operator that is working in the window now, for the panel."""
    return _running._job if _running else None


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def progress_text(job: Job) -> str:
    """The stage and the time left, as the panel and the status bar show them."""
    text = iface_(job.stage or job.title)
    left = job.seconds_left
    return text if left is None else iface_("{stage}, {time} left").format(stage=text, time=clock(left))


def draw_progress(layout: bpy.types.UILayout, job: Job) -> None:
    layout.progress(factor=job.fraction or 0.0, text=progress_text(job))


def draw_status(header, context) -> None:
    layout = header.layout
    job = running_job()
    if job:
        layout.label(text=iface_(job.title), icon="USER")
        row = layout.row()
        row.ui_units_x = 16
        draw_progress(row, job)
        layout.label(text="Cancel", icon="EVENT_ESC")


def redraw(context) -> None:
    """The panel in every window, and not the view beside it: a heavy scene takes long to draw."""
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if area.type == "VIEW_3D" and region.type == "UI":
                    region.tag_redraw()


class JobOperator:
    """Base class: `start` from invoke(), `run` from execute(). Subclasses say what is worked and built.

    build(context, result): a generator that makes the result part by part in the scene, and yields between the parts. While
    it is at work the window is drawn but takes no input, so that its references to bpy's data stay valid.
    """

    _job: Job | None = None
    _steps: Iterator | None = None
    _before = None  # the scene before building began
    _timer = None
    _shown: tuple = ()  # of the progress: what says the same need not be drawn again

    @classmethod
    def poll(cls, context) -> bool:
        problem = dependencies.known_problem()
        if problem:
            cls.poll_message_set(problem)
            return False
        if _running:
            cls.poll_message_set(rpt_("A capture is running: wait for it, or cancel it."))
            return False
        return True

    def build(self, context, result: Any) -> Iterator[None]:
        raise NotImplementedError

    # ---- in the window -----------------------------------------------------------------------------------------------

    def start(self, context, title: str, work: Callable[[Job], Any]) -> set[str]:
        """Begins the work; the operator's invoke() returns what this returns."""
        global _running
        self._job, self._steps = Job(title, guarded(work)), None
        self._timer = context.window_manager.event_timer_add(TICK, window=context.window)
        context.window_manager.modal_handler_add(self)
        context.workspace.status_text_set(draw_status)
        _running = self
        redraw(context)
        return {"RUNNING_MODAL"}

    def modal(self, context, event) -> set[str]:
        job = self._job
        if event.type == "ESC" and event.value == "PRESS":
            job.cancel()
        if job.cancelled:
            self._discard()
            self.report({"INFO"}, rpt_("Cancelled: the scene is as it was."))
            return self._end(context, {"CANCELLED"})
        go_on = {"PASS_THROUGH"} if self._steps is None else {"RUNNING_MODAL"}
        if event.type != "TIMER":
            return go_on
        shown = progress_text(job), round(100 * (job.fraction or 0.0))
        if shown != self._shown:
            self._shown = shown
            redraw(context)
            context.workspace.status_text_set(draw_status)  # the status bar is no area that could be tagged
        if not job.finished:
            return go_on
        if job.error is not None:
            tell(self, job.error, job.traceback)
            return self._end(context, {"CANCELLED"})
        try:
            if self._steps is None:
                self._steps = self._begin(context, job.result)
            if advance(self._steps):
                return {"RUNNING_MODAL"}
        except Exception as error:
            self._discard()
            tell(self, error)
            return self._end(context, {"CANCELLED"})
        return self._end(context, {"FINISHED"})

    def _begin(self, context, result: Any) -> Iterator[None]:
        from .scene.snapshot import Snapshot

        self._before = Snapshot(context.scene)
        return self.build(context, result)

    def _discard(self) -> None:
        """Takes out again what was built until now."""
        if self._steps is not None:
            self._steps.close()
            self._before.restore()

    def cancel(self, context) -> None:
        """Blender ends the operator: another file is opened, or the window is closed."""
        self._job.cancel()
        self._end(context, set())

    def _end(self, context, answer: set[str]) -> set[str]:
        global _running
        if _running is self:
            _running = None
        if self._timer is not None:
            context.window_manager.event_timer_remove(self._timer)
            self._timer = None
        if context.workspace:
            context.workspace.status_text_set(None)
        redraw(context)
        return answer

    # ---- without a window, and when an option is changed in the redo panel -------------------------------------------

    def run(self, context, work: Callable[[Any], Any]) -> set[str]:
        """The same at one go; the operator's execute() returns what this returns."""
        try:
            result = guarded(work)(Nobody())
            self._steps = self._begin(context, result)
            for _ in self._steps:
                pass
        except Exception as error:
            self._discard()
            tell(self, error)
            return {"CANCELLED"}
        return {"FINISHED"}


class Nobody:
    """Stands in for a job where nobody watches and nobody can cancel."""

    cancelled = False

    def report(self, stage: str = "", fraction: float | None = None) -> None:
        pass


def guarded(work: Callable) -> Callable:
    """The work, after a look at whether everything is there that it needs."""
    def work_if_possible(job):
        problem = dependencies.problem()
        if problem:
            raise CaptureError(problem)
        return work(job)
    return work_if_possible


def advance(steps: Iterator) -> bool:
    """Builds for a moment; whether there is more to build."""
    import time
    until = time.perf_counter() + PORTION
    for _ in steps:
        if time.perf_counter() > until:
            return True
    return False


def tell(operator: bpy.types.Operator, error: BaseException, trace: str = "") -> None:
    """An error as a report. What the user can mend is one sentence; anything else is a bug, and goes into the bug report."""
    if isinstance(error, CaptureError):
        operator.report({"ERROR"}, str(error))
        return
    bug_report.remember(error, trace)
    operator.report({"ERROR"}, rpt_("Something unexpected went wrong ({name}): press Copy Report in the add-on's preferences "
                                    "and send it to the add-on's makers.").format(name=type(error).__name__))


def stop() -> None:
    """Ends what is running, without a word."""
    global _running
    if _running:
        _running._job.cancel()
    _running = None
    stop_all()


@persistent
def before_loading(*_) -> None:
    """The scene that the result was meant for is going away."""
    if _running:
        _running._job.cancel()


def register() -> None:
    bpy.app.handlers.load_pre.append(before_loading)


def unregister() -> None:
    bpy.app.handlers.load_pre.remove(before_loading)
    stop()
