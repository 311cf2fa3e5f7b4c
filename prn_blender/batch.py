"""Many inputs in one go: `capture INPUT... --out-dir DIR`, unattended.

Inputs are files, folders and globs. Each becomes one file in DIR; worker processes (batch_worker.py) do the work, so that
nothing that goes wrong with one input stops the others. Finished inputs are remembered in DIR/.prn-capture by the hash of
their content and of the settings. Reads names and those notes; writes notes and the report. Imports nothing heavy.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .prn.errors import CaptureError
from .prn.inputs import MOVIES, PICTURES

NOTES = ".prn-capture"  # folder in the output folder
RECYCLED = 40  # inputs after which a worker makes way for a fresh one: whatever Blender keeps of each is then gone
ANSWER = "@prn "  # begins the lines of a worker's that are meant for us
# What does not change an output, and so is no part of the settings that a finished input is remembered with.
_NOT_SETTINGS = ("input", "inputs", "output", "out_dir", "jobs", "dask", "resume", "shard", "report", "weights")


@dataclass(frozen=True)
class Item:
    """One input and the file it becomes, below the output folder."""

    source: Path
    target: Path


def items_of(inputs: list[str], ending: str) -> list[Item]:
    """The inputs' files in a fixed order, each with its output's name relative to the output folder.

    A folder gives every photograph and movie in it and below it, and keeps its structure; a glob what it matches. Two inputs
    that would get the same name keep their whole names. Raises CaptureError if there is none.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            for piece in sorted(path.rglob("*")):
                relative = piece.relative_to(path)
                if piece.suffix.lower() in PICTURES + MOVIES and piece.is_file() \
                        and not any(part.startswith(".") for part in relative.parts):
                    found.setdefault(piece, relative)
        elif not path.exists() and glob.has_magic(text):
            for piece in sorted(glob.glob(text, recursive=True)):
                if os.path.isfile(piece):
                    found.setdefault(Path(piece), Path(Path(piece).name))
        else:
            found.setdefault(path, Path(path.name))
    if not found:
        raise CaptureError(f"There is no photograph or movie in {', '.join(map(repr, inputs))}: check the names.")
    wanted = Counter(str(relative.with_suffix(ending)).lower() for relative in found.values())
    items, taken = [], set()
    for source, relative in found.items():
        target = relative.with_suffix(ending)
        if wanted[str(target).lower()] > 1:
            target = relative.with_name(relative.name + ending)
        number = 1
        while str(target).lower() in taken:  # the same name in two folders that were given
            number += 1
            target = relative.with_name(f"{relative.name}_{number}{ending}")
        taken.add(str(target).lower())
        items.append(Item(source, target))
    return items


def shard_of(text: str) -> tuple[int, int]:
    """"2/8": the second of eight parts, (2, 8)."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a part as 2/8, from 1/8 to 8/8")
    return int(part), int(parts)


# ---- what is finished --------------------------------------------------------------------------------------------


def content_hash(path: Path) -> str:
    """SHA-256 of a file's content. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settings_hash(request: argparse.Namespace) -> str:
    """Hash of everything that an output depends on beside its input: the options, and all networks' weights by their content."""
    from .prn.weights import default_folder, load_bundle
    options = {name: str(value) for name, value in sorted(vars(request).items()) if name not in _NOT_SETTINGS}
    bundles = {"weights": load_bundle(request.weights)} | {name: load_bundle(default_folder() / name) for name in ("skin", "eyes")}
    options |= {name: [value for key, value in sorted(bundle.metadata.items()) if key.endswith("_sha256")] for name, bundle in bundles.items()}
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()


def note_path(folder: Path, item: Item) -> Path:
    return folder / NOTES / f"{'+'.join(item.target.parts)}.json"


def is_finished(folder: Path, item: Item, settings: str) -> bool:
    """Whether the item was finished with this content and these settings and its files are still there, whole."""
    try:
        note = json.loads(note_path(folder, item).read_text(encoding="utf-8"))
        return (note["settings"] == settings and note["input"] == content_hash(item.source)
                and all((folder / name).stat().st_size == size for name, size in note["files"].items()))
    except (OSError, ValueError, KeyError, TypeError):
        return False


# ---- workers -----------------------------------------------------------------------------------------------------


def worker_command() -> list[str]:
    """How to start a worker: this Blender if we run in one, otherwise this Python."""
    blender = getattr(sys.modules.get("bpy"), "app", None)
    if blender is not None and blender.binary_path:
        code = f"import runpy; runpy.run_module({__package__!r} + '.batch_worker', run_name='__main__')"
        return [blender.binary_path, "-b", "--python-expr", code]
    return [sys.executable, "-P", "-m", f"{__package__}.batch_worker"]


class Worker:
    """One worker process, started when it is first needed, again after a crash and after every RECYCLED inputs."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.process: subprocess.Popen | None = None
        self.done = 0

    def do(self, job: dict) -> dict:
        """The worker's answer to a job: {"status": "ok" | "failed", ...}."""
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith(ANSWER):
                    self.done += 1
                    if self.done >= RECYCLED:
                        self.stop()
                    return json.loads(line[len(ANSWER):])
        except OSError:
            pass  # it has died between two jobs; what it said last tells why
        return {"status": "failed", "reason": self.last_words()}

    def start(self) -> None:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PRN_THREADS")
        environment = dict(os.environ, **{name: str(self.threads) for name in names})
        self.log = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(worker_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                        text=True, errors="replace", env=environment)
        self.done = 0

    def last_words(self) -> str:
        status = self.process.wait()
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        self.process = None
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"The worker {how} while it worked on this" + (f" (it last said: {lines[-1][:200]})." if lines else ".")

    def stop(self) -> None:
        """Without a job a worker ends as soon as nobody can give it one."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()
            self.process = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


# ---- the run -----------------------------------------------------------------------------------------------------


class Report:
    """Tells how far things are: lines in the report file, a bar on a terminal, lines elsewhere."""

    def __init__(self, path: Path | None, count: int) -> None:
        self.file = open(path, "w", encoding="utf-8") if path else None
        self.count = count
        self.failures: list[dict] = []
        self.finished = self.skipped = 0
        self.started = time.perf_counter()
        self.live = sys.stderr.isatty()

    def add(self, entry: dict) -> None:
        self.finished += 1
        self.skipped += entry["status"] == "skipped"
        if entry["status"] == "failed":
            self.failures.append(entry)
        if self.file:
            self.file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self.file.flush()
        if self.live:
            self.bar()
        elif entry["status"] != "skipped":
            counts = ", ".join(f"{entry[name]} {name[:-1] if entry[name] == 1 else name}" for name in ("faces", "frames"))
            what = entry.get("reason") or f"{counts}, {entry['seconds']:.1f} s"
            print(f"[{self.finished}/{self.count}] {entry['input']}: {what}", flush=True)

    def bar(self) -> None:
        worked = self.finished - self.skipped
        seconds = time.perf_counter() - self.started
        left = f", {(self.count - self.finished) * seconds / worked:.0f} s left" if worked else ""
        full = round(30 * self.finished / self.count)
        failed = f", {len(self.failures)} failed" if self.failures else ""
        print(f"\r[{'#' * full}{'.' * (30 - full)}] {self.finished}/{self.count}{failed}{left}    ", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.live:
            print(file=sys.stderr)
        if self.file:
            self.file.close()


def run(request: argparse.Namespace, items: list[Item]) -> int:
    """Capture all items with the parsed options; the exit status: 0 if all went well, 1 if some failed.

    Raises CaptureError if the weights are wrong, OSError if the output folder or the report cannot be written.
    """
    settings = settings_hash(request)  # wrong weights get one sentence now, and not one for each input
    folder = request.out_dir
    (folder / NOTES).mkdir(exist_ok=True)
    if request.shard:
        part, parts = request.shard
        items = items[part - 1::parts]
    report = Report(request.report, len(items))
    options = {name: value if isinstance(value, (int, float, str, type(None), list, tuple)) else str(value)
               for name, value in vars(request).items() if name not in ("input", "output", "shard")}
    if request.weights:
        options["weights"] = str(request.weights.absolute())

    def job_of(item: Item) -> dict:
        source, out_dir = item.source, folder
        if request.dask:  # whose workers have other working folders
            source, out_dir = source.absolute(), folder.absolute()
        return {"options": options, "input": str(source), "output": str(item.target), "folder": str(out_dir),
                "note": str(note_path(out_dir, item)), "settings": settings}

    try:
        if request.dask:
            capture_on_cluster(request, items, settings, job_of, report)
        else:
            capture_here(request, items, settings, job_of, report)
    finally:
        report.close()
    done = len(items) - len(report.failures) - report.skipped
    print(f"{done} captured, {report.skipped} finished before, {len(report.failures)} failed")
    for entry in report.failures:
        print(f"{entry['input']}: {entry['reason']}", file=sys.stderr)
    return 1 if report.failures else 0


def entry_of(item: Item, folder: Path) -> dict:
    return {"input": str(item.source), "output": str(folder / item.target)}


SKIPPED = {"status": "skipped", "reason": "finished before"}


def capture_here(request: argparse.Namespace, items: list[Item], settings: str, job_of: Callable[[Item], dict],
                 report: Report) -> None:
    """All items by worker processes of this machine, each fed by a thread."""
    folder = request.out_dir
    jobs: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[dict] = queue.SimpleQueue()

    def work(worker: Worker) -> None:
        while (item := jobs.get()) is not None:
            started = time.perf_counter()
            entry = entry_of(item, folder)
            if request.resume and is_finished(folder, item, settings):
                answers.put(entry | SKIPPED)
                continue
            answer = worker.do(job_of(item))
            answers.put(entry | {"frames": 0, "faces": 0} | answer | {"seconds": round(time.perf_counter() - started, 2)})
        worker.stop()

    count = min(request.jobs, max(len(items), 1))
    workers = [Worker(max(1, (os.cpu_count() or 1) // count)) for _ in range(count)]
    for item in [*items, *[None] * count]:
        jobs.put(item)
    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            report.add(answers.get())
        for thread in threads:
            thread.join()
    except BaseException:
        for worker in workers:
            worker.kill()
        raise


def capture_on_cluster(request: argparse.Namespace, items: list[Item], settings: str, job_of: Callable[[Item], dict],
                       report: Report) -> None:
    """All items by the workers of a Dask cluster. Raises CaptureError if there is none."""
    from .batch_dask import run_on_cluster
    open_items = {}
    for item in items:
        if request.resume and is_finished(request.out_dir, item, settings):
            report.add(entry_of(item, request.out_dir) | SKIPPED)
        else:
            open_items[str(item.target)] = item

    def add(name: str, answer: dict) -> None:
        report.add(entry_of(open_items[name], request.out_dir) | {"frames": 0, "faces": 0, "seconds": 0.0} | answer)
    run_on_cluster(request.dask, {name: job_of(item) for name, item in open_items.items()}, add)
