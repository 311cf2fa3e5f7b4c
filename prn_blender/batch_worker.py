"""A worker of a batch: reads jobs as JSON lines, captures each, answers in lines that begin with batch.ANSWER.

Each job's files are made in a folder of their own and moved beside their final neighbours when they are whole, the note
that it is finished last: ended at any moment, the job is either finished or not begun. Ends at once when its starter does.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from .batch import ANSWER, NOTES, content_hash
from .prn.errors import CaptureError


def capture_job(job: dict) -> dict:
    """One job's answer. Raises CaptureError or OSError if it cannot be done."""
    from .command_line import capture_request

    started = time.perf_counter()
    folder, target = Path(job["folder"]), Path(job["output"])
    source = Path(job["input"])
    options = {name: Path(value) if name == "weights" and value else value for name, value in job["options"].items()}
    digest = content_hash(source) if source.is_file() else None
    # Of its own, even if two machines of a cluster should both be at this input, the one taken for dead.
    workplace = Path(tempfile.mkdtemp(prefix=workplaces(target), dir=folder / NOTES))
    try:
        summary = capture_request(argparse.Namespace(**options, input=source, output=workplace / target.name))
        final = (folder / target).parent
        final.mkdir(parents=True, exist_ok=True)
        # The main file last, so that whoever waits for it finds the others there.
        pieces = sorted((piece for piece in workplace.rglob("*") if piece.is_file()), key=lambda piece: piece.name == target.name)
        files = {}
        for piece in pieces:
            place = final / piece.relative_to(workplace)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(piece, place)
            files[str(place.relative_to(folder))] = place.stat().st_size
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    for left in (folder / NOTES).iterdir():  # by a run that was ended
        if left.name.startswith(workplaces(target)):
            shutil.rmtree(left, ignore_errors=True)
    note = Path(job["note"])
    unfinished = note.with_name(f"{note.name}.part")
    unfinished.write_text(json.dumps({"input": digest, "settings": job["settings"], "files": files}), encoding="utf-8")
    os.replace(unfinished, note)
    return {"status": "ok", "frames": summary["frames"], "faces": summary["faces"], "seconds": round(time.perf_counter() - started, 2)}


def workplaces(target: Path) -> str:
    """How the names of the folders begin in which a target's files are made."""
    return f"making-{'+'.join(target.parts)}@"


def answer(job: dict) -> dict:
    try:
        return capture_job(job)
    except CaptureError as error:
        return {"status": "failed", "reason": str(error)}
    except OSError as error:
        return {"status": "failed", "reason": f"A file could not be read or written: {error.strerror or error}."}
    except Exception as error:  # whatever it is, it is this input's failure and not the batch's
        import traceback
        traceback.print_exc()
        return {"status": "failed", "reason": f"The program failed on this ({type(error).__name__}: {error}), please report it."}


def main() -> None:
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    mouth = os.fdopen(os.dup(1), "w", encoding="utf-8")

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(line)
        os._exit(0)  # nobody is there to give a job, nor to hear of this one

    threading.Thread(target=listen, daemon=True).start()
    # Only answers go to the starter; everything else that is printed on the way goes nowhere.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    while True:
        mouth.write(f"{ANSWER}{json.dumps(answer(json.loads(jobs.get())))}\n")
        mouth.flush()


if __name__ == "__main__":
    main()
