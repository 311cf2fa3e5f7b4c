"""Whole folders: names, shards, what is finished, hostile files, and being killed at any moment. Needs bpy."""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from prn_blender import batch
from prn_blender.command_line import parse
from prn_blender.prn import CaptureError
from prn_blender.prn.image_io import load_image
from prn_blender.prn.weights import default_folder
from test_command_line import PORTRAIT, ROOT, capture, refused, weights  # noqa: F401 (a fixture)

KILLS = int(os.environ.get("PRN_KILLS", 2))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def targets(*inputs, ending: str = ".blend") -> dict[str, str]:
    return {str(item.source): str(item.target) for item in batch.items_of([str(text) for text in inputs], ending)}


# ---- names -------------------------------------------------------------------------------------------------------


def test_folders_globs_and_files_become_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "in/b.jpg", "in/a.PNG", "in/deep/c.mp4", "in/notes.txt", "in/.hidden.jpg", "in/.git/d.jpg", "e1.jpg", "e2.jpg")
    assert targets("in") == {"in/a.PNG": "a.blend", "in/b.jpg": "b.blend", "in/deep/c.mp4": "deep/c.blend"}
    assert targets("e*.jpg", "in/notes.txt", "gone.jpg", ending=".glb") == \
        {"e1.jpg": "e1.glb", "e2.jpg": "e2.glb", "in/notes.txt": "notes.glb", "gone.jpg": "gone.glb"}
    assert targets("in/b.jpg", "in") == {"in/b.jpg": "b.blend", "in/a.PNG": "a.blend", "in/deep/c.mp4": "deep/c.blend"}


def test_no_two_inputs_share_an_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "one/a.jpg", "one/a.png", "one/B.jpg", "one/b.png", "two/a.jpg", "two/c.jpg")
    found = targets("one", "two")
    assert found["one/a.jpg"] == "a.jpg.blend" and found["one/a.png"] == "a.png.blend" and found["two/c.jpg"] == "c.blend"
    assert len({name.lower() for name in found.values()}) == len(found) == 6


def test_nothing_to_do_is_an_error(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(CaptureError, match="There is no photograph or movie in"):
        batch.items_of([str(tmp_path), str(tmp_path / "*.jpg")], ".blend")


def test_shards_part_the_inputs(tmp_path):
    touch(tmp_path, *(f"{number}.jpg" for number in range(10)))
    items = batch.items_of([str(tmp_path)], ".blend")
    parts = [items[part - 1::parts] for part, parts in (batch.shard_of(f"{i}/3") for i in (1, 2, 3))]
    assert sorted(sum(parts, []), key=str) == sorted(items, key=str) and {len(part) for part in parts} == {3, 4}
    for wrong in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(argparse.ArgumentTypeError):
            batch.shard_of(wrong)


@pytest.mark.parametrize("arguments, says", [
    (["a.jpg", "b.jpg"], "More than one input needs --out-dir"),
    (["a.jpg", "--resume"], "--resume needs --out-dir"),
    (["a.jpg", "--out-dir", "out", "-o", "b.glb"], "With --out-dir -o is only an ending"),
    (["a.jpg", "--out-dir", "out", "-o", ".stl"], "With --out-dir -o is only an ending"),
    (["a.jpg", "--out-dir", "out", "--preview", "look.png"], "--preview is for one input"),
    (["a.jpg", "--out-dir", "out", "--jobs", "0"], "'0' is not a number from 1"),
    (["a.jpg", "--out-dir", "out", "--shard", "3/2"], "'3/2' is not a part as 2/8"),
    (["a.jpg", "--out-dir", "file"], "'file' is a file"),
    (["a.jpg", "--out-dir", "out", "--report", "nowhere/r.jsonl"], "The folder 'nowhere' does not exist"),
    (["nothing", "--out-dir", "out"], "There is no photograph or movie in 'nothing'"),
])
def test_a_wrong_request_gets_one_sentence(tmp_path, arguments, says):
    touch(tmp_path, "file")
    (tmp_path / "nothing").mkdir()
    refused(capture(*arguments, cwd=tmp_path), 2, says)


# ---- workers that die --------------------------------------------------------------------------------------------

FRAIL = f"""
import json, os, sys
for line in sys.stdin:
    job = json.loads(line)
    if job["input"] == "crash":
        print("out of luck", file=sys.stderr, flush=True)
        os.kill(os.getpid(), 9)
    print("noise", flush=True)
    print({batch.ANSWER!r} + json.dumps({{"status": "ok", "process": os.getpid()}}), flush=True)
"""


def test_a_worker_that_dies_is_replaced(monkeypatch):
    monkeypatch.setattr(batch, "worker_command", lambda: [sys.executable, "-c", FRAIL])
    worker = batch.Worker(1)
    first = worker.do({"input": "a"})
    assert first["status"] == "ok" and worker.do({"input": "b"}) == first
    assert worker.do({"input": "crash"}) == {
        "status": "failed", "reason": "The worker was ended by signal 9 while it worked on this (it last said: out of luck)."}
    second = worker.do({"input": "c"})
    assert second["status"] == "ok" and second["process"] != first["process"]
    worker.stop()
    monkeypatch.setattr(batch, "RECYCLED", 1)       # a fresh one for each
    assert len({worker.do({"input": "d"})["process"] for _ in range(3)}) == 3


# ---- runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two small photographs with a face, and hostile files."""
    folder = tmp_path_factory.mktemp("photos")
    image = load_image(PORTRAIT)[:300, 60:400, ::-1]
    (folder / "more").mkdir()
    cv2.imwrite(str(folder / "a.png"), image)
    cv2.imwrite(str(folder / "more" / "b.png"), image[:, ::-1])
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    """All outputs by name, without the notes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and batch.NOTES not in path.parts}


@pytest.fixture(scope="module")
def whole(photos, weights, tmp_path_factory):  # noqa: F811
    """One run over everything: the folder of outputs, and what the run said."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(photos, folder / "in")
    (folder / "in" / "cut.jpg").write_bytes(PORTRAIT.read_bytes()[:9000])
    (folder / "in" / "text.png").write_text("no picture")
    cv2.imwrite(str(folder / "in" / "wall.png"), load_image(PORTRAIT)[:40, :40])
    result = capture("in", "gone.jpg", "--out-dir", "out", "-o", ".obj", "--write", "landmarks", "--weights", weights,
                     "--jobs", "2", "--report", "report.jsonl", cwd=folder)
    return folder, result


def test_one_bad_file_never_stops_the_others(whole):
    folder, result = whole
    assert result.returncode == 1
    assert sorted(everything(folder / "out")) == [
        "a.mtl", "a.obj", "a_landmarks.json", "a_landmarks.txt", "a_texture.png",
        "more/b.mtl", "more/b.obj", "more/b_landmarks.json", "more/b_landmarks.txt", "more/b_texture.png"]
    entries = {entry["input"]: entry for entry in map(json.loads, (folder / "report.jsonl").read_text().splitlines())}
    assert {name: entry["status"] for name, entry in entries.items()} == {
        "in/a.png": "ok", "in/more/b.png": "ok", "in/cut.jpg": "failed", "in/text.png": "failed", "in/wall.png": "failed",
        "gone.jpg": "failed"}
    assert entries["in/a.png"]["faces"] == entries["in/a.png"]["frames"] == 1 and entries["in/a.png"]["seconds"] > 0
    assert "truncated" in entries["in/cut.jpg"]["reason"] and "No face found" in entries["in/wall.png"]["reason"]
    assert "does not exist" in entries["gone.jpg"]["reason"]
    assert result.stderr.count("\n") == 4 and "in/cut.jpg: 'in/cut.jpg' is truncated" in result.stderr
    assert result.stdout.splitlines()[-1] == "2 captured, 0 finished before, 4 failed"


def test_resume_leaves_out_what_is_finished(whole, weights):  # noqa: F811
    folder, _ = whole
    options = ("--out-dir", "out", "-o", ".obj", "--write", "landmarks", "--weights", weights, "--resume")
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.obj")}
    result = capture("in/a.png", "in/more", *options, cwd=folder)
    assert result.returncode == 0 and result.stdout.splitlines()[-1].startswith("1 captured, 1 finished before")   # b: other name
    result = capture("in", *options, cwd=folder)
    assert result.stdout.splitlines()[-1] == "0 captured, 2 finished before, 3 failed"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # Other settings, another content, a file gone: not finished.
    request = argparse.Namespace(weights=weights, write=("landmarks",))
    item = batch.Item(folder / "in" / "a.png", Path("a.obj"))
    note = json.loads(batch.note_path(folder / "out", item).read_text())
    assert batch.is_finished(folder / "out", item, note["settings"])
    assert batch.settings_hash(request) != batch.settings_hash(argparse.Namespace(weights=weights, write=()))
    assert not batch.is_finished(folder / "out", item, batch.settings_hash(request))
    assert not batch.is_finished(folder / "out", batch.Item(PORTRAIT, Path("a.obj")), note["settings"])


@pytest.mark.parametrize("name", ["skin", "eyes"])
def test_other_weights_of_any_network_are_another_setting(weights, tmp_path, monkeypatch, name):  # noqa: F811
    shipped = batch.settings_hash(argparse.Namespace(weights=None))
    assert batch.settings_hash(argparse.Namespace(weights=None)) == shipped != batch.settings_hash(argparse.Namespace(weights=weights))
    shutil.copytree(default_folder(), tmp_path / "weights", ignore=shutil.ignore_patterns(name))
    shutil.copytree(weights, tmp_path / "weights" / name)
    monkeypatch.setattr("prn_blender.prn.weights.default_folder", lambda: tmp_path / "weights")
    assert batch.settings_hash(argparse.Namespace(weights=None)) != shipped


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's memory as Linux tells it")
def test_memory_stays_flat(photos, weights, tmp_path):  # noqa: F811
    """Of one worker over many inputs, in megabytes; docs/batch.md has a longer run."""
    request = parse([str(photos / "a.png"), "-o", ".obj", "--out-dir", str(tmp_path / "out"), "--weights", str(weights),
                     "--texture", "512", "--detail", "4"])
    (tmp_path / "out" / batch.NOTES).mkdir(parents=True)
    options = {name: str(value) if isinstance(value, Path) else value for name, value in vars(request).items()
               if name not in ("input", "output", "shard")}
    worker, used = batch.Worker(1), []
    for number in range(12):
        answer = worker.do({"options": options, "input": str(photos / "a.png"), "output": f"{number}.obj", "settings": "",
                            "folder": str(tmp_path / "out"), "note": str(tmp_path / "out" / batch.NOTES / f"{number}.json")})
        assert answer["status"] == "ok", answer
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        used.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
    worker.stop()
    assert max(used[4:]) - used[3] < 40, used


def test_killed_at_any_moment_and_resumed_it_is_the_same(photos, whole, weights, tmp_path):  # noqa: F811
    command = [sys.executable, "-P", "-m", "prn_blender.command_line", "capture", "in", "--out-dir", "out", "-o", ".obj",
               "--write", "landmarks", "--weights", str(weights), "--jobs", "2", "--resume"]
    shutil.copytree(photos, tmp_path / "in")
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    expected = everything(whole[0] / "out")
    expected = {name: content for name, content in expected.items() if name in
                {f"{stem}{end}" for stem in ("a", "more/b") for end in (".mtl", ".obj", "_landmarks.json", "_landmarks.txt",
                                                                       "_texture.png")}}
    moments = random.Random(5)
    for _ in range(KILLS):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.5, 12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        # Whatever is there under a final name is whole.
        for name, content in everything(tmp_path / "out").items() if (tmp_path / "out").exists() else ():
            assert content == expected[name]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert everything(tmp_path / "out") == expected
        assert not list((tmp_path / "out" / batch.NOTES).glob("making-*"))
