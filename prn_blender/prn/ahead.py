"""Work done ahead in a thread of its own, so that one core reads and decodes while another one computes. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The items in their order, up to `count` of them made before they are asked for.

    What goes wrong in making an item is raised where it is asked for. Closing this iterator ends the thread and closes the
    items' own iterator.
    """
    ready: SimpleQueue = SimpleQueue()  # of items and errors; an error is the last
    room, ended = Semaphore(count), Event()

    def make() -> None:
        source = iter(items)
        try:
            while room.acquire() and not ended.is_set():
                ready.put((next(source), None))
        except BaseException as error:  # whatever it is, the one who asks has to hear of it
            ready.put((None, error))
        finally:
            if hasattr(source, "close"):
                source.close()

    # A daemon: a program must be able to quit in the middle of it.
    thread = Thread(target=make, name="PRN ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.release()
            yield item
            del item  # so that it lives no longer than the one who asked for it wants
    finally:
        ended.set()
        room.release()
        thread.join()
