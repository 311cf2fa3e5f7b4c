"""The same people at rest and with expressions, drawn, seen by the network and laid out as its maps are: what `training.skin_reader` learns from.

A shard `<cache>/same_person/NNNN.npz` holds 500 people (`training.drawing`). Of each: PICTURES pictures by one camera in one light, the first two of
them of the face at rest, and 13 pairs of these pictures with the skin's motion from the one to the other. Needs OpenGL as
`training.renderer` does.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.crop import SIDE_PER_LANDMARK_BOX, Crop, crop_from_landmarks
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.face_fit import in_head, load_shape_space, reading
from prn_blender.prn.skin_motion import flow, mean_picture, picture
from prn_blender.prn.skin_reader import laid_out
from prn_blender.prn.weights import load_bundle
from training.drawing import SHARD
from training.kit import Kit
from training.people import random_expression, random_shapes, random_speech
from training.photographs import Photographs
from training.renderer import MOST_HIDDEN, Renderer, hidden
from training.skin_reader import REST
from training.skins import NEARLY_CALM, make_skins, varied
from training.synthetic import MARGIN, Heads, random_background, rotation_of

PICTURES, PIXELS = 9, 320


class Studio(Renderer):
    """The same hair, glasses and hat in all pictures of a person: what one picture leaves off, all do."""

    bare = False

    def _dress(self, rng: np.random.Generator, shape: np.ndarray, wear: str | None) -> None:
        if not self.bare:
            super()._dress(rng, shape, wear)


class Thing:
    """A microphone, a hand: something shaded and grained before the lower half of a person's face, never quite in the same place."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.middle, self.axes = rng.uniform([0.25, 0.5], [0.75, 0.95]), rng.uniform([0.04, 0.05], [0.2, 0.3])
        self.angle, self.colour, self.dark = rng.uniform(0, 180), rng.integers(0, 256, 3), rng.uniform(0, 0.7)
        self.light, self.grain, self.stick = rng.uniform(-0.5, 0.5, 2), rng.uniform(0, 40), rng.random() < 0.5

    def put(self, rng: np.random.Generator, image: np.ndarray) -> None:
        """Draw it over a picture (S, S, 3) uint8."""
        size = len(image)
        middle, angle = (self.middle + rng.normal(0, 0.03, 2)) * size, np.radians(self.angle + rng.normal(0, 6))
        y, x = np.mgrid[:size, :size].astype(np.float32)
        x, y = x - middle[0], y - middle[1]
        along = (np.cos(angle) * x + np.sin(angle) * y) / (self.axes[0] * size)
        aside = (np.cos(angle) * y - np.sin(angle) * x) / (self.axes[1] * size)
        out = along * along + aside * aside
        shade = 1 - self.dark * np.clip((along - self.light[0]) ** 2 + (aside - self.light[1]) ** 2, 0, 1)
        cover = np.clip((1 - out) * min(self.axes) * size / 2, 0, 1)
        if self.stick:
            cover = np.maximum(cover, np.clip(self.axes[0] * size / 3 - np.abs(x), 0, 1) * (y > 0))
        grain = self.grain * rng.standard_normal((size, size, 1), np.float32)
        image[:] = np.clip(image + cover[..., None] * (self.colour * shade[..., None] + grain - image), 0, 255)


class People:
    """Draws random people one after the other."""

    def __init__(self, cache: Path, photographs: Photographs, kit: Kit, held_out: bool) -> None:
        """photographs: where skins and backgrounds come from; held_out: people have these skins as they are, in training ones that nobody has."""
        self.varies, skins = not held_out, "skins_held_out.npy" if held_out else "skins_nearly_calm.npy"
        if not held_out:
            make_skins(kit, photographs, cache / skins, NEARLY_CALM)
        # Without several samples a pixel it takes half the time; most pictures are made smaller.
        self.heads = Heads(cache, photographs, kit, skins, lambda *given: Studio(*given, PIXELS, samples=0))
        self.renderer = self.heads.renderer
        self.engine, self.space = OnnxEngine(load_bundle()), load_shape_space()

    def one(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A person: `pictures` (9, 128, 128) laid out, `maps` (9, 28, 24, 3) as `laid_out` gives them, `network` (9, 52) its ARKit weights, `weights`
        (9, 52) the true ones, `rotations` (9, 6); `pairs` (13, 2) numbers of pictures, with `motion` (13, 56, 48, 2) and `unlike`
        (13, 56, 48; half grey levels)."""
        weights = self._expressions(rng)
        images, crops = zip(*self._shots(rng, weights))
        cut = np.stack([crop.cut(image, self.engine.input_size) for crop, image in zip(crops, images)])
        maps, network = self.engine.run(cut)
        readings = np.stack([reading(one).reshape(-1, 3) for one in maps])
        *poses, _, _ = self.space.align(readings, network)
        offsets = (in_head(readings, *poses) - self.space.small_mean)[:, self.space.cells].swapaxes(1, 2)
        pictures = np.stack([picture(*shot) for shot in zip(images, crops, maps)])
        pairs = np.concatenate([[(REST, other) for other in range(2, PICTURES)], [(0, 1), (1, 0)],
                                [(rng.integers(2), rng.integers(2, PICTURES)) for _ in range(2)],
                                rng.integers(2, PICTURES, (2, 2))])
        moved = [flow(mean_picture(pictures[:2]) if first == REST else pictures[first], pictures[second]) for first, second in pairs]
        return {"pictures": pictures, "maps": laid_out(offsets, self.space).astype(np.float16),
                "network": network.astype(np.float16), "weights": weights.astype(np.float16),
                "rotations": poses[1][:, :2].reshape(PICTURES, 6).astype(np.float16), "pairs": pairs.astype(np.int8),
                "motion": np.stack([motion for motion, _ in moved]).astype(np.float16),
                "unlike": np.stack([np.clip(2 * unlike, -127, 127) for _, unlike in moved]).astype(np.int8)}

    def _expressions(self, rng: np.random.Generator) -> np.ndarray:
        rest = np.zeros(len(ARKIT_NAMES), np.float32)
        if rng.random() < 0.4:          # few faces at rest are hm08's
            rest[rng.choice(len(rest), 3)] = rng.uniform(0, 0.2, 3)
        kinds = rng.choice([random_expression, random_shapes, random_speech], PICTURES - 2, p=[0.25, 0.3, 0.45])
        return np.stack([rest, rest, *(kind(rng) for kind in kinds)])

    def _shots(self, rng: np.random.Generator, weights: np.ndarray):
        """The pictures (S, S, 3) of one camera, and where the face lies in each."""
        heads = self.heads
        if self.varies:
            skin = varied(heads.skins, rng)
        else:
            skin = heads.skins[rng.integers(len(heads.skins))]
            if rng.random() < 0.5:
                skin = skin[:, ::-1]
        identity = rng.normal(0, 1, 120) * rng.uniform(0.5, 1.2)
        look, behind = int(rng.integers(1 << 30)), random_background(rng, heads.photographs)
        behind = cv2.resize(behind, (PIXELS, PIXELS), interpolation=cv2.INTER_CUBIC)
        turn = np.array([np.clip(rng.normal(0, 16), -45, 45), rng.normal(0, 7), rng.normal(0, 5)])
        distance = np.exp(rng.uniform(np.log(0.5), np.log(3)))
        size = max(48, round(PIXELS * rng.uniform(0.3, 1) ** 0.6))
        blur, noise = rng.uniform(0, 1.2) * (rng.random() < 0.6), rng.uniform(0, 5)
        quality = int(rng.uniform(35, 96)) if rng.random() < 0.8 else None
        restless = 5 if rng.random() < 0.5 else 16
        self.renderer.bare, focal = rng.random() < 0.15, None
        before = Thing(rng) if rng.random() < 0.2 else None
        for number, shown in enumerate(weights):
            swing = np.array([1, 0.45, 0.35]) * (0 if number == 0 else 5 if number == 1 else restless)
            rotation = rotation_of(*rng.normal(turn, swing))
            translation = np.array([rng.normal(0, 0.04), rng.normal(0, 0.04), 1]) * distance
            coefficients = np.concatenate([identity, shown]).astype(np.float32)
            seen = (heads.landmark_mean.ravel() + coefficients @ heads.landmark_basis).reshape(68, 3) @ rotation.T + translation
            flat = seen[:, :2] / seen[:, 2:]
            low, high = flat.min(0), flat.max(0)
            focal = focal or PIXELS / (MARGIN * SIDE_PER_LANDMARK_BOX * np.sqrt(np.prod(high - low)))
            centre = (PIXELS - 1) / 2 - focal * (low + high) / 2
            landmarks = flat * focal + centre
            shape = (heads.kit.mean.ravel() + coefficients @ heads.basis).reshape(-1, 3)
            # The same generator state for every picture: the same light, clothes and hair.
            draw = lambda: self.renderer.draw(np.random.default_rng(look), shape, rotation, translation, focal, centre, skin, behind)
            image = draw()
            if number == 0 and not self.renderer.bare:
                self.renderer.bare, dressed = True, image
                image = draw()
                if hidden(image, dressed, landmarks[17:]) <= MOST_HIDDEN:
                    self.renderer.bare, image = False, dressed
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            if before and rng.random() < 0.7:
                before.put(rng, image)
            if blur:
                image = cv2.GaussianBlur(image, (0, 0), blur)
            image = image * (1 + rng.normal(0, 0.03)) + rng.standard_normal(image.shape, np.float32) * noise
            image = np.clip(image, 0, 255).astype(np.uint8)
            if quality:
                image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
            crop = crop_from_landmarks(((landmarks + 0.5) * size / PIXELS - 0.5).astype(np.float32))
            x, y = rng.normal([crop.center_x, crop.center_y], 0.02 * crop.side)
            yield image, Crop(x, y, crop.side * np.exp(rng.normal(0, 0.04))).snapped(self.engine.input_size)


def maker(cache: Path, faces: Path):
    """Draws shards of people to learn from (`training.drawing`)."""
    return _maker(cache, faces, False)


def held_out_maker(cache: Path, faces: Path):
    """Draws shards of other people, with skins that training never saw."""
    return _maker(cache, faces, True)


def _maker(cache: Path, faces: Path, held_out: bool):
    kit = Kit(cache)
    photographs = Photographs(faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, held_out)
    people = People(cache, photographs, kit, held_out)

    def shard(number: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng([1013 if held_out else 13, number])
        return [people.one(rng) for _ in range(SHARD)]

    return shard
