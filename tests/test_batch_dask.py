"""A batch on a Dask cluster: a scheduler and two workers as processes of their own, one of which is killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from prn_blender import batch
from prn_blender.batch_dask import run_on_cluster
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.image_io import load_image
from test_command_line import PORTRAIT, ROOT, capture, refused, weights  # noqa: F401 (a fixture)

pytest.importorskip("distributed", reason="the optional package distributed is not here")
INPUTS = 8


@pytest.fixture
def cluster(tmp_path):
    """The scheduler's address, and the processes of two workers."""
    if "PRN_INSIDE_BLENDER" in os.environ:
        pytest.skip("starts a Python with the bpy module")
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    told = tmp_path / "scheduler.json"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment, "cwd": tmp_path}
    running = [subprocess.Popen([sys.executable, "-P", "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                                 "--no-dashboard", "--scheduler-file", str(told)], **quiet)]
    try:
        until = time.monotonic() + 120
        while not told.exists() and time.monotonic() < until:
            time.sleep(0.1)
        address = json.loads(told.read_text())["address"]
        running += [subprocess.Popen([sys.executable, "-P", "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
                                      "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path / f"worker{number}")], **quiet)
                    for number in (1, 2)]
        yield address, running[1:]
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_worker_is_killed_and_every_output_is_there_once(cluster, weights, tmp_path):  # noqa: F811
    address, workers = cluster
    folder = tmp_path / "shared"
    (folder / "in").mkdir(parents=True)
    image = load_image(PORTRAIT)[:300, 60:400, ::-1]
    for number in range(INPUTS):
        cv2.imwrite(str(folder / "in" / f"{number}.png"), cv2.convertScaleAbs(image, alpha=0.7 + 0.05 * number))
    (folder / "in" / "text.png").write_text("no picture")
    command = [sys.executable, "-P", "-m", "prn_blender.command_line", "capture", "in", "--out-dir", "out", "-o", ".json",
               "--write", "visibility", "--weights", str(weights), "--dask", address, "--resume", "--report"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    run = subprocess.Popen([*command, "first.jsonl"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           text=True)
    while run.poll() is None and len(list((folder / "out").glob("*.json"))) < 2:
        time.sleep(0.05)
    workers[0].send_signal(signal.SIGKILL)
    said, errors = run.communicate(timeout=300)
    assert said, errors
    assert run.returncode == 1 and said.splitlines()[-1] == f"{INPUTS} captured, 0 finished before, 1 failed", errors
    entries = [json.loads(line) for line in (folder / "first.jsonl").read_text().splitlines()]
    assert sorted(entry["input"] for entry in entries) == sorted([*(f"in/{number}.png" for number in range(INPUTS)), "in/text.png"])
    assert {entry["input"]: entry["status"] for entry in entries}["in/text.png"] == "failed"
    # What the cluster made is what this machine makes alone, and nothing is left lying about.
    alone = capture("in", "--out-dir", "alone", "-o", ".json", "--write", "visibility", "--weights", weights, cwd=folder)
    assert alone.returncode == 1
    assert outputs(folder / "out") == outputs(folder / "alone") and len(outputs(folder / "out")) == 3 * INPUTS
    assert not list((folder / "out" / batch.NOTES).glob("making-*"))
    again = subprocess.run([*command, "again.jsonl"], cwd=folder, env=environment, capture_output=True, text=True)
    assert again.stdout.splitlines()[-1] == f"0 captured, {INPUTS} finished before, 1 failed", again.stderr


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_nobody_at_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr("prn_blender.batch_dask.PATIENCE", "1s")
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        with pytest.raises(CaptureError, match=f"No Dask scheduler answers at '{address}'") as told:
            run_on_cluster(address, {}, lambda name, answer: None)
        assert "\n" not in str(told.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(CaptureError, match="--dask needs the package 'distributed'"):
        run_on_cluster("tcp://127.0.0.1:9", {}, lambda name, answer: None)


def test_it_needs_a_folder(tmp_path):
    refused(capture("a.jpg", "--dask", "tcp://127.0.0.1:9", cwd=tmp_path), 2, "--dask needs --out-dir")
