"""The second network: a face against itself at rest; the bundle it comes in, and how it is trained."""

import argparse
import shutil

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from prn_blender.prn import engine
from prn_blender.prn.arkit import ARKIT_NAMES, MIRRORED
from prn_blender.prn.engine import open_engine
from prn_blender.prn.crop import crop_from_face_box
from prn_blender.prn.detector import detect_faces
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.eye_reader import EyeReader
from prn_blender.prn.face_fit import in_head, load_shape_space, reading
from prn_blender.prn.skin_motion import WINDOW, flow, picture
from prn_blender.prn.skin_reader import OF_REST, SkinReader, laid_out, open_skin_reader
from prn_blender.prn.weights import default_folder, load_bundle, load_tensors, write_bundle
from training import skin_reader as trainer
from training.skin_reader import REST, Pairs, SkinNetwork, begun, export, judge, learn, mean_of
from clips import portrait


def seen(image: np.ndarray) -> dict[str, np.ndarray]:
    """What the reader is given of a picture, without what compares it with another."""
    engine, space = open_engine(), load_shape_space()
    crop = crop_from_face_box(detect_faces(image)[0], engine.bundle.crop)
    maps, weights = engine.run(crop.cut(image, engine.input_size)[None])
    everything = reading(maps[0]).reshape(1, -1, 3)
    *pose, _, _ = space.align(everything, weights)
    offsets = (in_head(everything, *pose) - space.small_mean)[0, space.cells].T
    return {"laid out": picture(image, crop, maps[0]), "map": laid_out(offsets, space), "weights": weights[0], "rotation": pose[1][0, :2].ravel()}


def compared(shown: dict, rest: dict) -> tuple[np.ndarray, np.ndarray]:
    motion, unlike = flow(rest["laid out"], shown["laid out"])
    frames = {"picture": shown["laid out"][WINDOW], "motion": motion, "unlike": unlike} | {name: shown[name] for name in OF_REST[1:]}
    at_rest = {"picture": rest["laid out"][WINDOW]} | {name: rest[name] for name in OF_REST[1:]}
    change, spread = open_skin_reader().read({name: values[None] for name, values in frames.items()}, at_rest)
    return change[0], spread[0]


def test_a_face_does_not_differ_from_itself():
    rest, moved = seen(portrait(x=150)), seen(portrait(x=156))
    for shown in (rest, moved):
        change, spread = compared(shown, rest)
        assert change.shape == spread.shape == (52,) and np.abs(change).max() < 0.1 and np.abs(change).mean() < 0.02
        assert (spread > 0).all()


def test_frames_are_read_alike_alone_and_together():
    rest, shown = seen(portrait(x=150)), seen(portrait(x=156))
    motion, unlike = flow(rest["laid out"], shown["laid out"])
    frames = {"picture": shown["laid out"][WINDOW], "motion": motion, "unlike": unlike} | {name: shown[name] for name in OF_REST[1:]}
    at_rest = {"picture": rest["laid out"][WINDOW]} | {name: rest[name] for name in OF_REST[1:]}
    three, _ = open_skin_reader().read({name: np.stack([values] * 3) for name, values in frames.items()}, at_rest)
    assert np.abs(three - compared(shown, rest)[0]).max() < 1e-4


def test_of_a_face_that_shows_nothing_it_is_less_sure():
    rest = seen(portrait(x=150))
    blank = rest | {"laid out": np.full_like(rest["laid out"], 90)}
    assert compared(blank, blank)[1].mean() > 2 * compared(rest, rest)[1].mean()


def test_what_has_moved_is_found_and_the_rest_is_alike():
    rng = np.random.default_rng(0)
    skin = cv2.GaussianBlur(rng.normal(128, 400, (128, 128)), (0, 0), 3).clip(0, 255).astype(np.uint8)
    moved = cv2.warpAffine(skin, np.float32([[1, 0, 1.5], [0, 1, -1]]), (128, 128), borderMode=cv2.BORDER_REFLECT)
    motion, unlike = flow(skin, moved)
    assert motion.shape == (56, 48, 2) and unlike.shape == (56, 48)
    inner = slice(6, -6), slice(6, -6)
    assert np.abs(motion[inner] - [1.5, -1]).mean() < 0.15 and np.abs(unlike[inner]).mean() < 2
    assert np.abs(flow(skin, skin)[0]).max() == 0


@pytest.mark.parametrize("name, reader", [("skin", SkinReader), ("eyes", EyeReader)])
@pytest.mark.parametrize("change, says", [("missing", "is missing: install the weights again"), ("damaged", "is damaged"), ("foreign", "is foreign")])
def test_a_wrong_file_is_told_in_a_sentence(tmp_path, monkeypatch, change, says, name, reader):
    folder = tmp_path / name
    shutil.copytree(default_folder() / name, folder)
    if change == "missing":
        (folder / "prn.onnx").unlink()
    elif change == "damaged":
        (folder / "prn.onnx").write_bytes(b"no graph")
    else:
        shutil.copytree(default_folder(), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("skin", "eyes"))
    monkeypatch.setattr(engine, "default_folder", lambda: tmp_path)
    with pytest.raises(CaptureError, match=says) as caught:
        reader()
    assert "\n" not in str(caught.value)


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Pairs:
    """People drawn by nobody: noise, of which the skin's motion tells one weight."""
    rng, people, pictures = np.random.default_rng(2), 40, 9
    weights = rng.uniform(0, 1, (people, pictures, 52)).astype(np.float16)
    weights[:, :2] = 0
    numbers = np.array([(REST, other) for other in range(2, pictures)] + [(0, 1)])
    motion = rng.normal(0, 0.1, (people, len(numbers), 56, 48, 2)).astype(np.float16)
    motion[..., 1] += 2 * weights[:, numbers[:, 1], ARKIT_NAMES.index("jawOpen")][:, :, None, None]   # jawOpen, of which both halves have the same
    path = tmp_path_factory.mktemp("people") / "0000.npz"
    np.savez(path, pictures=rng.integers(0, 255, (people, pictures, 128, 128), np.uint8), weights=weights,
             maps=rng.normal(0, 0.001, (people, pictures, 28, 24, 3)).astype(np.float16), network=rng.uniform(0, 1, weights.shape).astype(np.float16),
             rotations=np.tile(np.eye(3)[:2].ravel(), (people, pictures, 1)).astype(np.float16), pairs=np.tile(numbers, (people, 1, 1)).astype(np.int8),
             motion=motion, unlike=np.zeros(motion.shape[:-1], np.int8))
    return Pairs([path])


def test_pairs_are_mirrored_as_a_whole(pairs, monkeypatch):
    monkeypatch.setattr(trainer, "MIXED", 0.0)
    index = torch.arange(0, pairs.count, 7)
    plain, true = pairs.batch(index)
    drawn, changed = pairs.batch(index, torch.Generator().manual_seed(0))
    hit = (drawn["motion"] != plain["motion"]).flatten(1).any(1)
    assert 0.3 < hit.float().mean() < 0.7
    assert torch.equal(changed[hit], true[hit][:, MIRRORED]) and torch.equal(changed[~hit], true[~hit])
    assert torch.equal(drawn["motion"][hit][..., 0], -plain["motion"][hit].flip(2)[..., 0])
    assert torch.equal(drawn["motion"][hit][..., 1], plain["motion"][hit].flip(2)[..., 1])
    assert torch.equal(drawn["rest_map"][hit][..., 0], -plain["rest_map"][hit].flip(2)[..., 0])
    assert torch.equal(drawn["rest_picture"][hit], plain["rest_picture"][hit].flip(2))
    first = pairs.people["pictures"][0, :2].float().mean(0)[WINDOW]
    assert torch.equal(plain["rest_picture"][0], first)
    assert true[0].sum() > 10 and torch.equal(true[0], pairs.people["weights"][0, 2].float())


def test_of_another_person_one_gets_looks_and_shape_but_no_motion(pairs, monkeypatch):
    monkeypatch.setattr(trainer, "_lit", lambda pictures, generator: pictures)
    drawn = {}
    for share in (0.0, 0.5):
        monkeypatch.setattr(trainer, "MIXED", share)
        drawn[share], true = pairs.batch(torch.arange(40), torch.Generator().manual_seed(0))
        drawn[share]["true"] = true
    own, mixed = drawn.values()
    for name in ("true", "motion", "weights", "rest_weights", "rotation", "rest_rotation"):
        assert torch.equal(own[name], mixed[name])
    for name in ("picture", "map"):
        assert (own[f"rest_{name}"] - mixed[f"rest_{name}"]).abs().mean() > 0.05 * own[f"rest_{name}"].std()
    assert torch.allclose(own["map"] - own["rest_map"], mixed["map"] - mixed["rest_map"], atol=1e-6)
    # Of skin that does not move, both pictures get the same.
    still = dict(own, motion=torch.zeros_like(own["motion"]), picture=own["rest_picture"])
    still = trainer._mixed(still, torch.Generator().manual_seed(0))
    assert torch.allclose(still["picture"], still["rest_picture"], atol=0.02) and not torch.allclose(still["picture"], own["picture"], atol=1)


def test_the_mean_of_two_networks_lies_between_them():
    one, other = SkinNetwork(), SkinNetwork()
    before = {name: values.clone() for name, values in one.state_dict().items()}
    mean = mean_of(one, other).state_dict()
    for name, values in one.state_dict().items():
        assert torch.equal(values, before[name])
        assert not values.is_floating_point() or torch.allclose(mean[name], (values + other.state_dict()[name]) / 2)


def test_the_trainer_learns_and_what_it_writes_is_read_alike(pairs, tmp_path):
    options = argparse.Namespace(minutes=0.1, rate=2e-3, batch=32)
    network, count = learn(SkinNetwork(), pairs, pairs, tmp_path / "kept.pt", options)
    assert count >= 32 and (tmp_path / "kept.pt").is_file()
    assert "correlation" in judge(network, pairs)
    export(network, tmp_path / "skin", count, 40, pairs)
    bundle = load_bundle(tmp_path / "skin")
    assert bundle.architecture == "skin" and bundle.metadata["pairs"] == str(count)
    inputs, _ = pairs.batch(torch.arange(5))
    with torch.no_grad():
        expected = network.eval()(**inputs)[0].numpy()
    with torch.no_grad():
        assert torch.allclose(begun(tmp_path / "skin").eval()(**inputs)[0], network(**inputs)[0], atol=1e-4)
    found = onnxruntime.InferenceSession(bundle.onnx_path.read_bytes()).run(["change"], {name: values.numpy() for name, values in inputs.items()})[0]
    assert np.sqrt(np.square(found - expected).mean()) < 0.01       # in 8 bits
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_a_layer_with_more_inputs_than_before_begins_with_nothing_for_these(pairs, tmp_path):
    network = SkinNetwork().eval()
    layer = network.fine[0][0].weight
    with torch.no_grad():
        layer[:, 4:] = 0
    export(network, tmp_path / "now", 0, 0, pairs)
    now = load_bundle(tmp_path / "now")
    tensors = load_tensors(now)
    tensors["fine.0.0.weight"] = tensors["fine.0.0.weight"][:, :4]
    write_bundle(tmp_path / "before", {name: values.astype(np.float16) for name, values in tensors.items()}, now.onnx_path.read_bytes(),
                 {name: now.metadata[name] for name in ("architecture", "input_size", "licence", "date")} | {"sources": []})
    inputs, _ = pairs.batch(torch.arange(5))
    with torch.no_grad():
        assert torch.equal(begun(tmp_path / "before").eval()(**inputs)[0], begun(tmp_path / "now").eval()(**inputs)[0])


def test_another_networks_weights_are_no_beginning():
    with pytest.raises(CaptureError, match="another network"):
        begun(default_folder())
