"""Work beside Blender's window: a thread that never touches bpy, watched by a modal operator that does.

A job reports how far it is, and stops at its next report once it is cancelled. Whoever cancels it need not wait: what it
still gives is not looked at. Knows nothing of Blender.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

_alive: set[Job] = set()


class Cancelled(Exception):
    """The job's own work is left by this when the job is cancelled."""


class Job:
    """One piece of work in a thread of its own, started at once.

    work: called with the job; it returns the result, calls `report` now and then, and must not touch bpy. title: what the
    work is, for the progress bar.
    """

    def __init__(self, title: str, work: Callable[[Job], Any]) -> None:
        self.title = title
        self.stage = ""
        self.fraction: float | None = None  # 0..1, or None while that is not known
        self.result: Any = None
        self.error: BaseException | None = None
        self.traceback = ""
        self.started = time.monotonic()
        self._work = work
        self._cancelled = threading.Event()
        self._finished = threading.Event()
        # A daemon: Blender must be able to quit in the middle of it.
        self._thread = threading.Thread(target=self._run, name=f"PRN {title}", daemon=True)
        _alive.add(self)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work(self)
        except Cancelled:
            pass
        except BaseException as error:  # the operator reports it, whatever it is
            self.error = error
            self.traceback = traceback.format_exc()
        finally:
            self._work = None
            _alive.discard(self)
            self._finished.set()

    def report(self, stage: str = "", fraction: float | None = None) -> None:
        """Called by the work. Raises Cancelled if nobody wants the result any more."""
        if self._cancelled.is_set():
            raise Cancelled
        self.stage = stage or self.stage
        self.fraction = self.fraction if fraction is None else fraction

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    def wait(self, seconds: float) -> bool:
        """Waits for the end of the work; whether it came."""
        return self._finished.wait(seconds)

    @property
    def seconds_left(self) -> float | None:
        """By the share that is done and the time it took, or None while that says nothing."""
        passed = time.monotonic() - self.started
        if not self.fraction or passed < 1:
            return None
        return passed * (1 - self.fraction) / self.fraction


def stop_all(seconds: float = 5.0) -> bool:
    """Cancels every job and waits for their threads; whether all have ended."""
    ending = list(_alive)
    for job in ending:
        job.cancel()
    until = time.monotonic() + seconds
    return all([job.wait(max(0.0, until - time.monotonic())) for job in ending])
