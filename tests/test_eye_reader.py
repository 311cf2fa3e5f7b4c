"""The third network, which reads how far eyes are open: what it is shown, lids and lips that go where they are wanted, and how it is trained."""

import argparse
import json
import re

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from clips import portrait
from exact_face import exact_face

from prn_blender.prn.capture import capture_image
from prn_blender.prn.contact import opened
from prn_blender.prn.crop import crop_from_landmarks, turn
from prn_blender.prn.engine import open_engine
from prn_blender.prn.eye_reader import EYE_PIXELS, INPUT, EyeReader, open_eye_reader, patches_of
from prn_blender.prn.look import run_network
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.weights import load_bundle
from training import eye_reader as trainer
from training.eye_reader import CUT_PIXELS, Patches, export, learn, seen

# The 68 landmarks of a mirrored face.
MIRRORED = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1), 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
            *range(54, 47, -1), *range(59, 54, -1), 64, 63, 62, 61, 60, 67, 66, 65]


@pytest.fixture(scope="module")
def face():
    return capture_image(portrait(x=150))[0]


@pytest.fixture(scope="module")
def landmarks(face):
    return face.topology.landmarks_of(face.position_map)[:, :2].astype(np.float64)


def test_patches_lie_on_the_eyes_and_turn_with_the_face(landmarks):
    eyes = patches_of(landmarks)
    assert eyes[0].center_x > eyes[1].center_x
    for crop, inside in zip(eyes, (slice(42, 48), slice(36, 42))):
        assert (np.abs(crop.from_image(np.pad(landmarks[inside], ((0, 0), (0, 1))))) < 0.4).all()
    for crop, same in zip(patches_of(landmarks @ turn(30)[:2, :2].T), eyes):
        # The box of a turned face is not the same, and with it the patches' size.
        assert abs(crop.roll - same.roll - 30) < 1e-6 and 0.8 < crop.side / same.side < 1.4
        np.testing.assert_allclose((crop.center_x, crop.center_y), turn(30)[:2, :2] @ (same.center_x, same.center_y), atol=1e-6)


def test_a_mirrored_face_is_read_mirrored(face, landmarks):
    mirrored = (landmarks * [-1, 1] + [face.image.shape[1] - 1, 0])[MIRRORED]
    reader = open_eye_reader()
    for found, other in zip(reader.read(face.image, landmarks), reader.read(np.ascontiguousarray(face.image[:, ::-1]), mirrored)):
        np.testing.assert_allclose(other, found[::-1], atol=0.01)


def test_open_eyes_are_read_and_lids_that_are_painted_over_them_too(face, landmarks):
    """The portrait looks into the camera."""
    reader = open_eye_reader()
    shown = reader.read(face.image, landmarks)[0]
    assert ((shown > 0.2) & (shown < 0.5)).all()
    painted = face.image.copy()
    lid = landmarks[42:48]
    skin = face.image[tuple(np.rint(landmarks[42:48].mean(0) + [0, 9]).astype(int)[::-1])].tolist()
    cv2.fillConvexPoly(painted, np.rint(np.concatenate([lid[:4], lid[4:] - [0, 1]]) * 16).astype(np.int32), skin, cv2.LINE_AA, 4)
    left, right = reader.read(painted, landmarks)[0]
    assert left < shown[0] - 0.04 and abs(right - shown[1]) < 0.01


def test_of_eyes_that_show_little_it_is_less_sure(face, landmarks):
    reader = open_eye_reader()
    assert (reader.read(cv2.GaussianBlur(face.image, (0, 0), 6), landmarks)[1] > 1.2 * reader.read(face.image, landmarks)[1]).all()


@pytest.mark.parametrize("roll, scale", [(0, 1.0), (40, 300.0)])
@pytest.mark.parametrize("wanted", [(0.25, 0.45, 0.1), (0.45, 0.3, 0.01)])
def test_lids_and_lips_go_where_they_are_wanted_in_any_frame(roll, scale, wanted):
    topology, reader = load_topology(), open_eye_reader()
    before = (scale * topology.mean @ turn(roll).T).astype(np.float32)
    after = opened(before, np.array(wanted), reader.measured, topology)
    np.testing.assert_allclose(reader.measured(after)[:2], wanted[:2], atol=0.01)
    # Lips that touch are as near as they get.
    assert abs(reader.measured(after)[2] - max(wanted[2], 0.025)) < 0.02
    moved = np.linalg.norm(after - before, axis=2) / scale
    assert 0.0005 < moved.max() < 0.008 and (moved[topology.mask] > 1e-6).mean() < 0.25
    # Along the head's upright axis, whichever way that lies.
    along = np.abs((after - before) @ turn(roll)[:, 1]) / scale
    assert along.max() > 0.8 * moved.max()


def test_a_map_that_is_open_as_far_as_it_should_be_stays(face):
    reader, before = open_eye_reader(), face.raw_position_map
    np.testing.assert_allclose(opened(before, reader.measured(before), reader.measured, face.topology), before, atol=1e-3)


def test_a_stills_eyes_are_open_as_they_are_read_and_a_profiles_as_its_map_says(face, landmarks, monkeypatch):
    engine, reader = open_engine(), open_eye_reader()

    def openings(image: np.ndarray, crop, read: float, spread: float) -> np.ndarray:
        monkeypatch.setattr(EyeReader, "read", lambda *_: (np.full(2, read), np.full(2, spread)))
        return reader.measured(run_network(image, [crop], engine)[0][0])

    crop = crop_from_landmarks(landmarks)
    unsure = openings(face.image, crop, 0.3, 1e6)
    for read in (0.4, 0.22):
        found = openings(face.image, crop, read, 1e-6)
        np.testing.assert_allclose(found[:2], read, atol=0.02)
        np.testing.assert_allclose(found[2], unsure[2], atol=0.01)
    assert (np.abs(unsure[:2] - 0.22) > 0.02).all() and (unsure > 0.03).all()
    profile = exact_face(85)
    crop = crop_from_landmarks(profile.topology.landmarks_of(profile.position_map))
    # The far eye faces away from the camera.
    wide, narrow = (openings(profile.image, crop, read, 1e-6) for read in (0.6, 0.1))
    assert min(np.abs(wide - narrow)[:2]) < 0.01


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def eyes() -> Patches:
    """Eyes of nobody: dark slits in skin, which are open as far as they are high."""
    rng, count = np.random.default_rng(0), 240
    openings = rng.uniform(0.0, 0.5, count).astype(np.float32)
    pictures = rng.normal(150, 5, (count, CUT_PIXELS, CUT_PIXELS, 3)).clip(0, 255).astype(np.uint8)
    for picture, opening in zip(pictures, openings):
        cv2.ellipse(picture, (CUT_PIXELS // 2,) * 2, (16, max(1, round(opening * 16))), 0, 0, 360, (40, 30, 30), -1)
    return Patches(torch.from_numpy(pictures), torch.from_numpy(openings), torch.zeros(count, 3), torch.ones(count, 2))


def test_the_trainer_learns_and_what_it_writes_is_read_alike(eyes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer, "JUDGED", 24)
    network = learn(eyes, eyes, eyes, argparse.Namespace(epochs=8, batch=16, rate=2e-3, seed=0))
    told = [float(value) for value in re.findall(r"0\.\d{4}", capsys.readouterr().out.splitlines()[-1])]
    assert len(told) == 2 and min(told) > 0.9, told
    export(network, tmp_path / "eyes", np.arange(956.0).reshape(478, 2) / 4, {"photographs": 96, "heads": 120})
    bundle = load_bundle(tmp_path / "eyes")
    assert bundle.architecture == "eyes" and json.loads(bundle.metadata["learned"]) == {"photographs": 96, "heads": 120}
    assert np.array(json.loads(bundle.metadata["across"])).shape == (3, 3, 2, 2)
    given = eyes.pictures[:6, 12:-12, 12:-12]
    with torch.no_grad():
        expected = [part.numpy() for part in network.eval()(given)]
    for one, other in zip(onnxruntime.InferenceSession(bundle.onnx_path.read_bytes()).run(None, {INPUT: given.numpy()}), expected):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_a_batch_is_moved_and_lit_anew_each_time(eyes):
    one, other = (seen(eyes.pictures[:8], torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert one.shape == (8, EYE_PIXELS, EYE_PIXELS, 3) and not torch.allclose(one, other, atol=5)
    assert 100 < one.mean() < 180
