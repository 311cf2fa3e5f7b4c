"""The pieces that training is made of: people, augmentation, subdivision. The whole runs where its data is."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from prn_blender.prn import contact
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.blinks import LIDS
from prn_blender.prn.crop import Crop
from prn_blender.prn.image_io import load_image
from prn_blender.prn.look import VIEWS
from prn_blender.prn.position_map import load_topology
from training import augment, taught
from training.augment import Dice, compressed, crop_transforms, degraded, occluded, placed, warped
from training.people import random_expression, random_identity, random_shapes, random_speech
from training.photographs import PIXELS, PhotographBatches, upright_transforms
from training.subdivision import catmull_clark, smooth_texels
from training.uv_layout import boundary_loops, flatten, triangles_of

MACRO = [f"macrodetails/{race}-{gender}-{age}" for race in ("african", "asian", "caucasian")
         for gender in ("female", "male") for age in ("baby", "child", "young", "old")]


def square_grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (size * size, 3) of a flat square, z to the viewer, and its quads, counter-clockwise."""
    row, column = np.mgrid[:size, :size]
    points = np.stack([column, row, np.zeros_like(row)], -1).reshape(-1, 3) / (size - 1) - [0.5, 0.5, 0]
    a = (row[:-1, :-1] * size + column[:-1, :-1]).ravel()
    return points, np.stack([a, a + 1, a + size + 1, a + size], 1)


@pytest.mark.parametrize("seed", range(5))
def test_a_person_is_a_blend_of_corner_persons(seed):
    local = ["nose/nose-hump-incr", "nose/nose-hump-decr", "ears/l-ear-scale-incr", "ears/r-ear-scale-incr"]
    weights = random_identity(np.random.default_rng(seed), MACRO + local)
    assert sum(weights.get(name, 0) for name in MACRO) == pytest.approx(1, abs=1e-3)
    assert not {"nose/nose-hump-incr", "nose/nose-hump-decr"} <= weights.keys()
    assert all(value >= 0 for value in weights.values())


def test_expressions_are_possible_and_various():
    rng = np.random.default_rng(0)
    drawn = np.stack([random_expression(rng) for _ in range(400)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    index = {name: i for i, name in enumerate(ARKIT_NAMES)}
    assert (np.minimum(drawn[:, index["jawLeft"]], drawn[:, index["jawRight"]]) == 0).all()
    assert (drawn[:, index["eyeBlinkLeft"]] > 0.8).mean() > 0.05
    assert (drawn[:, index["jawOpen"]] > 0.4).mean() > 0.08
    assert (drawn > 0.05).any(0).all()                      # every shape is seen


def test_mouths_make_every_sound_and_faces_have_moods_meanwhile():
    rng = np.random.default_rng(5)
    drawn = np.stack([random_speech(rng) for _ in range(400)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    strongest = dict(zip(ARKIT_NAMES, drawn.max(0)))
    for name in ("jawOpen", "mouthFunnel", "mouthPucker", "mouthPressLeft", "mouthRollLower", "mouthUpperUpRight", "mouthSmileLeft", "mouthStretchLeft",
                 "mouthClose", "browInnerUp", "browDownLeft", "noseSneerRight", "eyeBlinkLeft"):
        assert strongest[name] > 0.25, name
    left, right = (drawn[:, ARKIT_NAMES.index(f"mouthSmile{side}")] for side in ("Left", "Right"))
    assert np.corrcoef(left, right)[0, 1] > 0.95
    down, _, press = np.corrcoef(drawn[:, [ARKIT_NAMES.index(name) for name in ("mouthLowerDownLeft", "jawOpen", "mouthPressLeft")]].T)[1]
    assert down > 0.3 and press < 0
    some = (np.stack([random_shapes(rng) for _ in range(100)]) > 0).sum(1)
    assert some.min() >= 1 and some.mean() < 12


def test_pictures_change_and_stay_pictures():
    dice = Dice(1)
    before = torch.rand(60, 3, 64, 64)
    for change in (degraded, lambda dice, images: occluded(dice, images, 1.0)):
        after = change(dice, before.clone())
        assert after.shape == before.shape and 0 <= after.min() and after.max() <= 1
        assert (after != before).flatten(1).any(1).all()


def test_a_crop_is_taken_round_the_face():
    points = torch.tensor([[40, 50], [140, 50], [40, 150], [140, 150.0]]).expand(300, 4, 2)
    placed_points = placed(points, crop_transforms(Dice(2), points, 128, 1.6), 128).numpy()
    centres, sizes = placed_points.mean(1), np.sqrt(np.ptp(placed_points, axis=1).prod(1))
    assert np.abs(centres.mean(0)).max() < 1.5 / 128
    assert np.median(sizes) == pytest.approx(1 / 1.6, rel=0.2)          # a turned square's box is larger


def test_pixels_and_points_move_together():
    """A white dot lies where the transform puts its point, turned, scaled and shifted."""
    points = torch.tensor([[60.0, 90], [150, 80], [70, 170], [140, 160]])
    pictures = torch.zeros(20, 224, 224, 3, dtype=torch.uint8)
    pictures[:, 118:123, 98:103] = 255
    transforms = crop_transforms(Dice(3), points.expand(20, 4, 2), 192, 1.6)
    images = warped(Dice(4), pictures, transforms, 192, bordered=0.0)
    where = (placed(torch.tensor([[[100.0, 120]]]).expand(20, 1, 2), transforms, 192)[:, 0].numpy() + 0.5) * 192 - 0.5
    steps = np.arange(192)
    for image, (x, y) in zip(images.mean(1).numpy(), where):
        assert (image.sum(0) @ steps / image.sum(), image.sum(1) @ steps / image.sum()) == pytest.approx((x, y), abs=0.1)


def test_pictures_end_as_a_captures_crops_do(monkeypatch):
    monkeypatch.setattr(augment, "STREAKED", 0.0)
    astronaut = load_image(Path(__file__).parent / "data" / "astronaut.jpg")[60:252, 120:312]
    crop = Crop(60, 100, 240, 15)
    turned, scale = crop.turn[:2, :2].T, 192 / crop.side
    there = np.column_stack([turned * scale, 95.5 - scale * turned @ (crop.center_x, crop.center_y)])
    found = warped(Dice(4), torch.from_numpy(astronaut.copy())[None], torch.tensor(there[None], dtype=torch.float32), 192, bordered=0.0)
    found, expected = found[0].permute(1, 2, 0).numpy() * 255, crop.pixels(astronaut, 192).astype(np.float32)
    assert np.abs(found - expected).mean() < 2.5 < np.abs(found - astronaut.mean((0, 1))).mean()


@pytest.mark.parametrize("quality", (20, 50, 80))
def test_compression_is_what_jpeg_does(quality):
    """Against libjpeg: much nearer to its picture than either is to the original."""
    astronaut = load_image(Path(__file__).parent / "data" / "astronaut.jpg")[60:252, 120:312]
    coded = cv2.imencode(".jpg", astronaut[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
    original = torch.from_numpy(np.ascontiguousarray(astronaut)).permute(2, 0, 1)[None].float() / 255
    found = compressed(original, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy() * 255
    rounding = 0.8                                          # libjpeg's planes are whole numbers
    assert np.abs(found - expected).mean() < 0.2 * np.abs(expected - astronaut).mean() + rounding


def test_a_teachers_answer_moves_with_the_crop():
    """A teacher that knows where each point is says the same as the points do, in crops turned, scaled, shifted and mirrored."""
    rng, count = np.random.default_rng(0), 6
    mirror = np.r_[np.arange(239, 478), np.arange(239)]             # of each point its partner
    points = (rng.normal(0, 30, (count, 478, 3)) + [PIXELS / 2, PIXELS / 2, 0]).astype(np.float32)
    own = upright_transforms(points, 1)
    known = np.einsum("nab,nkb->nka", own[:, :, :2], points[..., :2]) + own[:, None, :, 2]
    depth = points[..., 2] * own[:, 0, 0, None]
    # The map's first rows hold the points, in mirrored order from right to left.
    offsets = np.zeros((count, 3, 64, 64), np.float32)
    row, column = np.arange(239) // 32, np.arange(239) % 32
    for half, where in ((slice(0, 239), column), (slice(239, 478), 63 - column)):
        offsets[:, :2, row, where] = known[:, half].transpose(0, 2, 1)
        offsets[:, 2, row, where] = depth[:, half]

    class Made:
        pixels, chosen = np.zeros((count, PIXELS, PIXELS, 3), np.uint8), np.arange(count)
        trust, frontal, straight, expressive = np.ones((count, 478), np.float32), np.ones(count), np.ones(count), np.arange(2)
        expression = expression_weight = np.zeros((count, 52), np.float32)
        usable = np.arange(478)

        def __len__(self) -> int:
            return count

    made = Made()
    made.points, made.mirror = points, mirror
    batch = PhotographBatches(made, torch.device("cpu"), (offsets, np.zeros((count, 52), np.float16))).batch(Dice(5), 12, 192)
    said = batch["said_crop"][:, :, :2] @ batch["said_offsets"][:, :2].flatten(2) + batch["said_crop"][:, :, 2:]
    said = torch.cat([said, batch["said_offsets"][:, 2:].flatten(2) * batch["said_depth"][:, None, None]], 1).unflatten(2, (64, 64))
    for half, where in ((slice(0, 239), column), (slice(239, 478), 63 - column)):
        assert torch.allclose(said[:, :, row, where].transpose(1, 2), batch["points"][:, half, :3], atol=1e-4)


class DotFinder:
    """In a network's place: its map lies wholly at the bright dot of a picture, and only its first weight of a left side is 1."""

    mean = torch.zeros(1, 3, 256, 256)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def decode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        size = images.shape[2]
        place = (images[:, 0].flatten(1).argmax(1)[:, None] // torch.tensor([1, size]) % size + 0.5) / size - 0.5
        logits = torch.full((len(images), 52), -20.0)
        logits[:, LIDS[0]] = 20
        return torch.cat([place, torch.zeros(len(images), 1)], 1)[:, :, None, None].expand(-1, 3, 64, 64), logits


def test_a_teacher_sees_in_three_sizes_and_mirrored():
    """What it says of wider, narrower and mirrored crops comes back to the photograph's own."""
    size, dot = 192, np.array([60, 131])
    crops = []
    for wider in VIEWS:
        crop = np.zeros((1, size, size, 3), np.uint8)
        column, row = np.round((dot - (size - 1) / 2) / wider + (size - 1) / 2).astype(int)
        crop[0, row, column] = 255
        crops.append(torch.from_numpy(crop))
    offsets, scores = taught.seen(DotFinder(), crops)
    assert offsets.shape == (1, 3, 64, 64) and scores.shape == (1, 52)
    expected = (dot + 0.5) / size - 0.5
    assert torch.allclose(offsets[0, :2], torch.tensor(expected, dtype=torch.float32)[:, None, None], atol=0.003)
    assert scores[0, LIDS].tolist() == pytest.approx([0.5, 0.5], abs=1e-3)        # the mirror image's left is the right


def test_the_edges_of_a_shut_eye_lie_on_each_other():
    topology = load_topology()
    edges = [contact._facing(opening) for opening in contact._eyes_and_mouth(topology)[0]]
    left, right = (one.transpose(1, 0, 2) for one in edges)
    assert (left[:, :, 0].mean() > 127.5 > right[:, :, 0].mean()) and (left[0, :, 1] < left[1, :, 1]).all()      # the person's left; above, below

    def apart(head_map: np.ndarray, edges: np.ndarray) -> float:
        upper, lower = (head_map[rows, columns] for columns, rows in edges.transpose(0, 2, 1))
        return float(np.linalg.norm(upper - lower, axis=1).mean())

    before, after = topology.mean, contact.shut_eyes(topology.mean, np.array([1.0, 0.0]), topology)
    assert apart(before, left) > 0.005                                      # metres
    assert apart(after, left) < 0.1 * apart(before, left) and apart(after, right) == pytest.approx(apart(before, right), abs=1e-5)


def test_subdivision_keeps_what_is_flat():
    points, quads = square_grid(5)
    smooth, linear, finer = catmull_clark(quads, len(points))
    assert np.asarray(smooth.sum(1)).ravel() == pytest.approx(1)
    assert np.abs((smooth @ points)[:, 2]).max() == 0
    assert len(finer) == 4 * len(quads) and finer.max() < smooth.shape[0]
    assert np.abs((linear @ points)[:len(points)] - points).max() == 0


def test_subdivision_rounds_what_is_bent():
    points, quads = square_grid(5)
    points[:, 2] = np.abs(points[:, 0])                     # a roof
    smooth, *_ = catmull_clark(quads, len(points))
    ridge = np.abs(points[:, 0]) < 1e-9
    assert (smooth @ points)[:len(points)][ridge, 2].min() > 0.02


def test_texels_are_means_of_vertices():
    points, quads = square_grid(6)
    uv = points[:, :2] * [0.9, -0.9] + 0.5
    mask = np.zeros((32, 32), bool)
    mask[4:28, 4:28] = True
    corners, weights = smooth_texels(quads, uv, np.zeros((32, 32, 4), int), np.tile([1.0, 0, 0, 0], (32, 32, 1)), mask)
    assert weights.sum(-1) == pytest.approx(1, abs=1e-5)
    places = (uv[corners] * weights[..., None]).sum(2)[mask]
    row, column = np.nonzero(mask)
    assert np.abs(places * 32 - 0.5 - np.stack([column, row], 1)).max() < 0.6


def test_flattening_folds_nothing_and_keeps_the_mirror():
    points, quads = square_grid(9)
    points[:, 2] = 0.5 - 1.2 * (points[:, 0] ** 2 + points[:, 1] ** 2)         # a dome
    mirror = np.argmin(np.linalg.norm(points[:, None] * [-1, 1, 1] - points[None], axis=2), axis=1)
    triangles = triangles_of(quads, points)
    uv = flatten(points, triangles, np.ones(len(triangles)), boundary_loops(quads)[0], mirror, steps=60)
    a, b, c = (uv[triangles[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a) < 0).all()               # v points down
    assert uv.min() > 0 and uv.max() < 1
    # Nearly: the diagonals on the middle line have no mirror image; `design_layout` takes the mean of both sides.
    assert np.abs(uv[mirror] * [-1, 1] + [1, 0] - uv).max() < 0.04
