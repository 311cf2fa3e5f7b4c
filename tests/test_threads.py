"""While a take is made the libraries underneath use one thread each; afterwards they are as they were, however the makings overlap."""

import threading

import cv2
import numpy as np
from threadpoolctl import threadpool_info

from prn_blender.prn.stored_offsets import STORED, metres, stored
from prn_blender.prn.threads import one_thread_each


def numbers() -> list[int]:
    """Threads of OpenCV and of each BLAS."""
    return [cv2.getNumThreads(), *(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")]


def test_one_each_and_back_again():
    before = numbers()
    with one_thread_each():
        assert set(numbers()) == {1}
        with one_thread_each():
            assert set(numbers()) == {1}
        assert set(numbers()) == {1}
    assert numbers() == before


def test_an_error_leaves_them_as_they_were():
    before = numbers()

    @one_thread_each()
    def fails() -> None:
        assert set(numbers()) == {1}
        raise ValueError

    for _ in range(2):
        try:
            fails()
        except ValueError:
            pass
    assert numbers() == before


def test_the_last_of_two_that_overlap_restores_them():
    before, first_is_in, second_is_in = numbers(), threading.Event(), threading.Event()

    def first() -> None:
        with one_thread_each():
            first_is_in.set()
            second_is_in.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    first_is_in.wait(10)
    with one_thread_each():
        second_is_in.set()
        thread.join()
        assert set(numbers()) == {1}
    assert numbers() == before


def test_offsets_are_stored_to_a_hundredth_of_a_millimetre():
    offsets = np.random.default_rng(0).normal(0, 0.03, (4, 3, 500)).astype(np.float32)
    kept = stored(offsets)
    assert kept.dtype == STORED and kept.nbytes == offsets.nbytes / 2
    assert metres(kept).dtype == np.float32 and np.abs(metres(kept) - offsets).max() < 5.1e-6
    assert np.allclose(metres(stored(np.float32([1, -1]))), [0.32767, -0.32767])        # farther than any head
