"""How the network looks at the faces of a photograph: each in several crops, a second time where its first map puts it, and all round
where that cannot be right. numpy only; reads pictures and runs the engine that it is given.

A network on hm08's layout, which is its own mirror image, sees every crop in three sizes, and each a second time mirrored, and the answers
are averaged: what a network makes of a face depends a little on how it is cut, and the face does not. How far the answers are
apart tells how sure it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .arkit import MIRRORED
from .crop import Crop, crop_from_landmarks
from .engine import Engine
from .position_map import HM08

# The sizes in which a still's crop is seen, over its own.
VIEWS = (0.93, 1.0, 1.07)
# The views' landmarks are apart by so many percent of the face's size, on average, where it lies elsewhere than its crop says: 0.5 of most
# photographs, 1.3 of one in a hundred, 1.5 to 2 of profiles. Of 300 rendered heads kept out of training five were above it, and all gained by another
# search, of those from 2 on below it none; of 1,200 photographs one was, and is no better.
_UNSURE = 2.5
# Where else it may be, over the crop's side: sizes, and how far beside.
_SIZES, _BESIDE = (0.7, 1.0, 1.4, 2.0), (-0.35, 0.0, 0.35)
# Whose face is found so must be the one that was looked for: its crop's middle lies so near the new one's, over the side of that.
_SAME = 0.4


@dataclass(frozen=True)
class _Look:
    """What two looks at a face say."""

    crop: Crop
    position_map: np.ndarray  # (256, 256, 3) in units of that crop
    expression: np.ndarray  # (52,)
    apart: float  # how far the last look's views are apart, percent of the face's size


def look_twice(image: np.ndarray, crops: list[Crop], engine: Engine) -> tuple[list[Crop], np.ndarray, np.ndarray | None]:
    """Better crops of N faces, position maps (N, 256, 256, 3) in their units, and ARKit weights (N, 52), or None.

    A map says better where a face is than a detector does: a network on hm08's layout sees each face again in the crop that the
    first map's landmarks give, which is the one returned, and both answers count half. Where its views disagree about that, as when the detector has
    found a mouth and a hand, it looks all round, and the crop whose views agree best is taken; that is one photograph in some hundreds, and takes a second.
    """
    if engine.topology.name != HM08:
        return crops, *run_network(image, crops, engine)
    looks = [_surest(image, crop, engine) for crop in crops]
    return [look.crop for look in looks], np.stack([look.position_map for look in looks]), np.stack([look.expression for look in looks])


def run_network(image: np.ndarray, crops: list[Crop], engine: Engine) -> tuple[np.ndarray, np.ndarray | None]:
    """Position maps (N, 256, 256, 3) in crop units and ARKit weights (N, 52), or None, of N crops of a picture; of a network on hm08's layout the
    means of its views."""
    if engine.topology.name != HM08:
        return engine.run(np.stack([crop.cut(image, engine.input_size) for crop in crops]))
    found = [_averaged(image, crop, engine) for crop in crops]
    return np.stack([position_map for position_map, *_ in found]), np.stack([expression for _, expression, _ in found])


def _surest(image: np.ndarray, crop: Crop, engine: Engine) -> _Look:
    look = _look(image, crop, engine)
    if look.apart <= _UNSURE:
        return look
    others = [_look(image, other, engine) for other in _all_round(crop)]
    return min([look, *(other for other in others if _same(crop, other.crop))], key=lambda one: one.apart)


def _all_round(crop: Crop) -> Iterator[Crop]:
    for size in _SIZES:
        for x in _BESIDE:
            for y in _BESIDE:
                yield Crop(crop.center_x + x * crop.side, crop.center_y + y * crop.side, crop.side * size)


def _same(crop: Crop, found: Crop) -> bool:
    return max(abs(found.center_x - crop.center_x), abs(found.center_y - crop.center_y)) < _SAME * found.side


def _look(image: np.ndarray, crop: Crop, engine: Engine) -> _Look:
    first, expression, _ = _averaged(image, crop, engine)
    placed = crop.to_image(first)
    again = crop_from_landmarks(engine.topology.landmarks_of(placed), engine.bundle.crop)
    # A map of something else than a face may ask for anything.
    if not 0.5 < again.side / crop.side < 2:
        again = crop
    second, weights, apart = _averaged(image, again, engine)
    return _Look(again, (again.from_image(placed) + second) / 2, (expression + weights) / 2, apart)


def _averaged(image: np.ndarray, crop: Crop, engine: Engine) -> tuple[np.ndarray, np.ndarray, float]:
    """The mean map (256, 256, 3), in units of the given crop, and ARKit weights (52,) of its views; how far their landmarks are apart, percent
    of the face's size."""
    cut = np.stack([Crop(crop.center_x, crop.center_y, crop.side * size).cut(image, engine.input_size) for size in VIEWS])
    maps, expressions = engine.run(np.concatenate([cut, cut[:, :, ::-1]]))
    straight, mirrored = np.split(maps, 2)
    views = np.stack([straight, mirrored[:, :, ::-1] * np.float32([-1, 1, 1])], 1) * np.float32(VIEWS)[:, None, None, None, None]
    landmarks = engine.topology.landmarks_of(views)[..., :2]
    middle = landmarks.mean((0, 1))
    size = np.sqrt(np.prod(np.ptp(middle, axis=0)))
    apart = 100 * float(np.linalg.norm(landmarks - middle, axis=-1).mean() / max(size, 1e-6))
    weights = np.concatenate([expressions[:len(cut)], expressions[len(cut):, list(MIRRORED)]])
    return views.mean((0, 1)), weights.mean(0), apart
