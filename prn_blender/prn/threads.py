"""One thread each for the libraries underneath while a take is made. Touches OpenCV's and BLAS's settings, for as long as it takes.

A take's pictures and matrices are small and many, and its own threads share them out; the libraries' threads would only spin where
these work, which costs a third of the time on two processors, and more on many.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from threading import Lock

import cv2
from threadpoolctl import ThreadpoolController

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
