"""One thread each for the libraries underneath while a take is made, and portions of its frames for all processors. Touches OpenCV's and BLAS's
settings, for as long as it takes.

A take's pictures and matrices are small and many, and its own threads share them out; the libraries' threads would only spin where
these work, which costs a third of the time on two processors, and more on many.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any

import cv2
import numpy as np
from threadpoolctl import ThreadpoolController

BLOCK = 16                  # frames that are computed together: a matrix product over some costs little more than for one

_lock = Lock()
_inside = 0                 # how many are in it at once, in whatever threads
_restore = ExitStack()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Within it OpenCV and BLAS use the thread that calls them; when the last one leaves it, they are as they were. Serves as a decorator, too."""
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _restore.callback(cv2.setNumThreads, cv2.getNumThreads())
            cv2.setNumThreads(1)
            _restore.enter_context(_libraries().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _restore.close()


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()       # looks through all that is loaded, which takes some milliseconds


def in_blocks(function: Callable[[np.ndarray], Any], frames: np.ndarray, report: Callable[[int], None] | None = None) -> list[Any]:
    """What a function gives for portions of the frames' numbers, in their order; each processor works on one, and on as many as the others.

    report: called, in this thread, with the number of frames that are done; what it raises ends the work.
    """
    processors = os.cpu_count() or 1
    rounds = -(-len(frames) // (BLOCK * processors))
    portions = np.array_split(frames, max(1, min(rounds * processors, len(frames))))
    hands, found = ThreadPoolExecutor(processors, "PRN solve"), []
    try:
        for done, values in zip(np.cumsum([len(portion) for portion in portions]), hands.map(function, portions)):
            found.append(values)
            if report:
                report(int(done))
    finally:
        hands.shutdown(cancel_futures=True)
    return found
