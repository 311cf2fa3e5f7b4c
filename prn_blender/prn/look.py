"""How the network looks at the faces of a photograph: each in several crops, a second time where its first map puts it, and all round
where that cannot be right; and each eye by itself. numpy only; reads pictures, runs the engine that it is given and the shipped network for eyes.

A network on hm08's layout, which is its own mirror image, sees every crop in three sizes, and each a second time mirrored, and the answers
are averaged: what a network makes of a face depends a little on how it is cut, and the face does not. How far the answers are
apart tells how sure it is. It has learned from heads that lean little, so that the second crop leans as the head does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .arkit import MIRRORED
from .contact import opened
from .crop import Crop, crop_from_landmarks, roll_of
from .engine import Engine
from .eye_reader import open_eye_reader
from .face_fit import pose_of
from .position_map import HM08

# The sizes in which a still's crop is seen, over its own.
VIEWS = (0.93, 1.0, 1.07)
# The views' landmarks are apart by so many percent of the face's size, on average, where it may lie elsewhere than its crop says: 0.5 of most
# photographs, 1.3 of one in a hundred, 1.5 to 2 of profiles. Then it is looked for all round. If so many of those looks, the first one again among
# them, put it where the first one did, within a share of its size, it is there; if not, the look is taken whose views agree best for the number of looks
# that say the same. Of 555 rendered heads kept out of training that the detector found, five were seen 10 to 30 % beside their place, with one
# witness, and all five gain; those that lay right had three at least.
_UNSURE, _WITNESSES, _ALIKE = 2.5, 3, 0.06
# A face that lies on its side or stands on its head is seen badly, too: from here on it is looked at turned by so many degrees as well, which counts
# if its views are apart by half as much.
_DOUBTFUL, _TURNED, _SURER = 1.5, (90.0, 180.0, 270.0), 0.5
# Where else it may be, over the crop's side: sizes, and how far beside.
_SIZES, _BESIDE = (0.7, 1.0, 1.4, 2.0), (-0.35, 0.0, 0.35)
# Whose face is found so must be the one that was looked for: its crop's middle lies so near the new one's, over the side of that.
_SAME = 0.4
# The first look counts half if its crop leans otherwise than the head by no more degrees than this, and nothing from the second on: told on
# photographs kept out of training, turned by 15, 30 and 45 degrees.
_LEANING = 15.0, 30.0
# A crop that leans otherwise than the head in it by more degrees is cut again, so often at most.
_ASLANT, _LOOKS = 15.0, 3

# How far off the openings of a map's eyes are (a standard deviation), against which those read from the picture by themselves are believed. Outwards from
# the left eye and the right (head frame), and the cosines to the camera from which each counts, and from which on fully.
_OWN_SPREAD = 0.042
_OUTWARDS = np.array([[0.35, 0, -0.94], [-0.35, 0, -0.94]])
_FACING = 0.2, 0.5


@dataclass(frozen=True)
class _Look:
    """What two looks at a face say."""

    crop: Crop
    position_map: np.ndarray  # (256, 256, 3) in units of that crop
    expression: np.ndarray  # (52,)
    landmarks: np.ndarray  # (68, 2) of that map, image frame
    apart: float  # how far the last look's views are apart, percent of the face's size


def look_twice(image: np.ndarray, crops: list[Crop], engine: Engine) -> tuple[list[Crop], np.ndarray, np.ndarray | None]:
    """Better crops of N faces, position maps (N, 256, 256, 3) in their units, and ARKit weights (N, 52), or None.

    A map says better where a face is, and how it leans, than a detector does: a network on hm08's layout sees each face again in the crop that the
    first map gives, which is the one returned, and of a head that leans little both answers count half. Where its views disagree about that, as when
    the detector has found a mouth and a hand, it looks all round; that is one photograph in some hundreds, and takes a second.
    """
    if engine.topology.name != HM08:
        return crops, *run_network(image, crops, engine)
    looks = [_surest(image, crop, engine) for crop in crops]
    maps = [_with_own_eyes(image, look, engine) for look in looks]
    return [look.crop for look in looks], np.stack(maps), np.stack([look.expression for look in looks])


def run_network(image: np.ndarray, crops: list[Crop], engine: Engine) -> tuple[np.ndarray, np.ndarray | None]:
    """Position maps (N, 256, 256, 3) in crop units and ARKit weights (N, 52), or None, of N crops of a picture, which stay where they are; a network on
    hm08's layout sees each of them twice as well, the second time leaning as the head does."""
    if engine.topology.name != HM08:
        return engine.run(np.stack([crop.cut(image, engine.input_size) for crop in crops]))
    looks = [_look(image, crop, engine, stay=True) for crop in crops]
    maps = [crop.from_image(look.crop.to_image(_with_own_eyes(image, look, engine))) for crop, look in zip(crops, looks)]
    return np.stack(maps), np.stack([look.expression for look in looks])


def doubtful(image: np.ndarray, crop: Crop, engine: Engine) -> bool:
    """Whether the views of a crop disagree so much, to a network on hm08's layout, that there may be no face in it, or elsewhere."""
    return _look(image, crop, engine).apart > _UNSURE


def _with_own_eyes(image: np.ndarray, look: _Look, engine: Engine) -> np.ndarray:
    """A look's map (256, 256, 3) with eyes as far open as they are read by themselves, where they face the camera."""
    reader, topology = open_eye_reader(), engine.topology
    _, rotation, _ = pose_of(look.position_map, topology)
    read, spread = reader.read(image, look.landmarks)
    share = _OWN_SPREAD**2 / (_OWN_SPREAD**2 + spread**2)
    faces_it = np.clip((-(_OUTWARDS @ rotation[2]) - _FACING[0]) / (_FACING[1] - _FACING[0]), 0, 1)
    wanted = reader.measured(look.position_map)
    wanted[:2] += faces_it * share * (read - wanted[:2])
    return opened(look.position_map, wanted, reader.measured, topology)


def _surest(image: np.ndarray, crop: Crop, engine: Engine) -> _Look:
    look = _look(image, crop, engine)
    if look.apart > _DOUBTFUL:
        best = min((_look(image, replace(crop, roll=crop.roll + roll), engine) for roll in _TURNED), key=lambda one: one.apart)
        if _same(crop, best.crop) and best.apart < _SURER * look.apart:
            look = best
    if look.apart <= _UNSURE:
        return look
    others = [other for other in (_look(image, beside, engine) for beside in _all_round(crop)) if _same(crop, other.crop)]

    def witnesses(look: _Look) -> int:
        return sum(_alike(look, other) for other in others)

    if not others or witnesses(look) >= _WITNESSES:
        return look
    return min(others, key=lambda one: one.apart / witnesses(one))


def _all_round(crop: Crop) -> Iterator[Crop]:
    for size in _SIZES:
        for x in _BESIDE:
            for y in _BESIDE:
                yield Crop(crop.center_x + x * crop.side, crop.center_y + y * crop.side, crop.side * size, crop.roll)


def _same(crop: Crop, found: Crop) -> bool:
    return max(abs(found.center_x - crop.center_x), abs(found.center_y - crop.center_y)) < _SAME * found.side


def _alike(one: _Look, other: _Look) -> bool:
    """Whether two looks put the face in the same place."""
    return np.linalg.norm(one.landmarks - other.landmarks, axis=1).mean() <= _ALIKE * np.sqrt(np.prod(np.ptp(one.landmarks, axis=0)))


def _look(image: np.ndarray, crop: Crop, engine: Engine, stay: bool = False) -> _Look:
    """Two looks, the second one where the first one puts the face, or, to stay, at the same crop leaning."""
    first, expression, apart = _averaged(image, crop, engine)
    again, second, weights = crop, first, expression
    for _ in range(_LOOKS):
        own = _own_crop(again, second, engine)
        # A map of something else than a face may ask for anything.
        if not 0.5 < own.side / crop.side < 2 or (again is not crop and abs(_between(own.roll, again.roll)) < _ASLANT):
            break
        again = replace(crop, roll=own.roll) if stay else own
        second, weights, apart = _averaged(image, again, engine)
    share = 0.5 * float(np.clip((_LEANING[1] - abs(_between(again.roll, crop.roll))) / (_LEANING[1] - _LEANING[0]), 0, 1))
    position_map = share * again.from_image(crop.to_image(first)) + (1 - share) * second
    landmarks = again.to_image(engine.topology.landmarks_of(position_map))[:, :2]
    return _Look(again, position_map, share * expression + (1 - share) * weights, landmarks, apart)


def _own_crop(crop: Crop, position_map: np.ndarray, engine: Engine) -> Crop:
    """The crop that a map (256, 256, 3), in units of the one that it was seen in, asks for."""
    _, rotation, _ = pose_of(position_map, engine.topology)
    return crop_from_landmarks(crop.to_image(engine.topology.landmarks_of(position_map)), engine.bundle.crop, roll_of(crop.turn @ rotation))


def _between(one: float, other: float) -> float:
    """The angle between two, degrees, -180 to 180."""
    return (one - other + 180) % 360 - 180


def _averaged(image: np.ndarray, crop: Crop, engine: Engine) -> tuple[np.ndarray, np.ndarray, float]:
    """The mean map (256, 256, 3), in units of the given crop, and ARKit weights (52,) of its views; how far their landmarks are apart, percent of the
    face's size."""
    cut = np.stack([replace(crop, side=crop.side * size).cut(image, engine.input_size) for size in VIEWS])
    maps, expressions = engine.run(np.concatenate([cut, cut[:, :, ::-1]]))
    straight, mirrored = np.split(maps, 2)
    views = np.stack([straight, mirrored[:, :, ::-1] * np.float32([-1, 1, 1])], 1) * np.float32(VIEWS)[:, None, None, None, None]
    landmarks = engine.topology.landmarks_of(views)[..., :2]
    middle = landmarks.mean((0, 1))
    size = np.sqrt(np.prod(np.ptp(middle, axis=0)))
    apart = 100 * float(np.linalg.norm(landmarks - middle, axis=-1).mean() / max(size, 1e-6))
    weights = np.concatenate([expressions[:len(cut)], expressions[len(cut):, list(MIRRORED)]])
    return views.mean((0, 1)), weights.mean(0), apart
