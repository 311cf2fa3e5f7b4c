"""A batch on a Dask cluster: hands jobs to a scheduler, and does them in worker processes there. Imports distributed only here.

Each Dask worker keeps workers of its own (batch.Worker), so that a crash costs one input and not the Dask worker. Input and
output lie on storage that all machines share under the same names. Reads and writes nothing itself.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from .batch import Worker
from .prn.errors import CaptureError

PATIENCE = "20s"  # for the scheduler to answer

_idle: list[Worker] = []
_lock = threading.Lock()


def capture_on_worker(job: dict) -> dict:
    """One job's answer, on a Dask worker. A worker that is asked for several at a time has as many processes."""
    from distributed import get_worker
    with _lock:
        worker = _idle.pop() if _idle else Worker(max(1, (os.cpu_count() or 1) // get_worker().state.nthreads))
    try:
        return worker.do(job)
    finally:
        with _lock:
            _idle.append(worker)


def run_on_cluster(address: str, jobs: dict[str, dict], add: Callable[[str, dict], None]) -> None:
    """Has the cluster do jobs (by name), and calls add with each name and answer as it comes.

    A job whose Dask worker is lost goes to another one. Raises CaptureError if the package is missing or no scheduler answers.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise CaptureError("--dask needs the package 'distributed', which this Python has not: install it there, or leave --dask "
                           "out and use --jobs.") from None
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError):
        raise CaptureError(f"No Dask scheduler answers at '{address}': start one, and give its address as tcp://HOST:PORT.") from None
    with client:
        if not client.scheduler_info()["workers"]:
            print("The cluster has no workers yet: waiting for the first.", file=sys.stderr, flush=True)
        # Impure: the same input may be asked for again on purpose.
        names = {client.submit(capture_on_worker, job, pure=False): name for name, job in jobs.items()}
        for future in as_completed(list(names), loop=client.loop):
            error = future.exception()
            if error is None:
                answer = future.result()
            else:
                answer = {"status": "failed", "reason": f"The cluster could not do this ({type(error).__name__}: "
                                                        f"{str(error).splitlines()[0][:200] if str(error) else 'no reason given'})."}
            add(names.pop(future), answer)
            future.release()
