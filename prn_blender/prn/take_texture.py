"""One texture from the best frames of a take. numpy and OpenCV only; reads key frames, gives an array.

The skin comes from a calm and sharp frontal frame with little before the face; where a hand or a microphone is before it there, from another frontal one;
what none of them shows well from frames turned to either side, the inside of the mouth from a frame in which it stands open.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from .capture import INTEROCULAR, FaceCapture, place_face
from .detector import FaceBox
from .head_texture import complete_head, size_on_map
from .lens import Lens
from .openings import opening_texels
from .position_map import SIZE, Topology
from .take import KeyFrame, Performance
from .texture import DARKEST, connected, in_light, inner_face, light_between, make_texture, seen_colours, smooth_step, texture_and_knowledge

_SIDE_GAIN = 0.15  # cosine by which a turned frame has to see a texel better than the frontal one
_BARER = 5.0  # what the share of the face that is clear skin counts beside a key frame's merit: a tenth of it as much as twelve degrees of yaw
_ALIKE = 0.03  # of a crop's side: a blur in which all are equally sharp
_COVERED = 9  # texels: what is no wider and looks less like skin than in another frame is the rim of a brow or of a lip
_BARE = 0.3, 0.7  # how much more like skin another frame has to look there, to count, and to count alone
_UNLIKE = 0.15, 0.4  # of the logarithms of colours: where something covers one of two frames


def make_take_texture(performance: Performance, size: int = 2048) -> np.ndarray:
    """(size, size, 3) uint8 sRGB RGB in the topology's UV layout, as `make_texture` gives it."""
    return merged(performance, size)[0]


def make_take_skin(performance: Performance, size: int = 2048) -> np.ndarray:
    """(size, size, 3) uint8 sRGB RGB in hm08's own UV layout, for the head, as `make_head_texture` gives it."""
    performance.topology.require_hm08("The head's texture")
    return complete_head(*merged(performance, size_on_map(size)), size)


def merged(performance: Performance, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The texture in the map's layout, and how far each of its texels comes from the footage (256, 256)."""
    kinds = performance.key_frames
    front, *others = _fronts(performance)
    texture, known = texture_and_knowledge(front, size)
    texture = _bared(texture, front, others)
    for side in ("left", "right"):
        if side in kinds:
            turned = key_capture(kinds[side][0], performance.topology, performance.lens)
            share = np.clip((turned.visibility - front.visibility - _SIDE_GAIN) / 0.2, 0, 1)
            beside, known_beside = texture_and_knowledge(turned, size)
            both = (front.visibility * turned.visibility > 0.1).astype(np.float32)
            texture = laid_over(texture, in_light_of(texture, beside, both), share)
            known = np.maximum(known, known_beside * share)
    if "mouth" in kinds:
        topology = front.topology
        rows = np.arange(SIZE)[:, None] > topology.landmarks[30, 1]  # the openings below the nose's tip
        inside = (opening_texels(topology) & rows).astype(np.float32)
        teeth = make_texture(key_capture(kinds["mouth"][0], performance.topology, performance.lens), size)
        texture = laid_over(texture, teeth, cv2.dilate(inside, np.ones((3, 3))), 0.95)
    return texture, known


def front_capture(performance: Performance) -> FaceCapture:
    """The take's frame that shows the face best from the front, as the capture of a photograph."""
    return _fronts(performance)[0]


def key_capture(key: KeyFrame, topology: Topology, lens: Lens | None) -> FaceCapture:
    """A key frame as the capture of a photograph. lens: the whole frame's."""
    crop = key.face.crop
    box = FaceBox(crop.center_x - crop.side / 2, crop.center_y - crop.side / 2, crop.side, crop.side, 1.0)
    return place_face(key.image, box, crop, key.face.crop_map, key.face.expression, topology, "fitted",
                      INTEROCULAR, {}, lens=lens.cut_out(*key.corner) if lens else None)


def _fronts(performance: Performance) -> list[FaceCapture]:
    """The key frames from the front, the best one first, of which a hand or a microphone hides as little as possible."""
    topology = performance.topology
    keys = performance.key_frames.get("front") or next(iter(performance.key_frames.values()))
    captures = [key_capture(key, topology, performance.lens) for key in keys]
    if len(captures) > 1:
        inner = inner_face(topology)
        # Sharp skin looks less alike than blurred: compared is what is left of all when they are blurred.
        bare = [np.average(seen_colours(_blurred(capture), SIZE)[2], weights=inner) for capture in captures]
        best = int(np.argmax([key.merit + _BARER * share for key, share in zip(keys, bare)]))
        captures.insert(0, captures.pop(best))
    return captures


def _blurred(face: FaceCapture) -> FaceCapture:
    return replace(face, image=cv2.GaussianBlur(face.image, (0, 0), _ALIKE * face.crop.side))


def _bared(texture: np.ndarray, front: FaceCapture, others: list[FaceCapture]) -> np.ndarray:
    """The front's texture with skin of other frontal frames where something covers it in the front alone.

    What covers a face does not look like its skin; nor do brows, lips and beards, but these do so in all frames.
    """
    shown, _, clear = seen_colours(front, SIZE)
    for other in others:
        _, seen, bare = seen_colours(other, SIZE)
        more = cv2.morphologyEx(bare - clear, cv2.MORPH_OPEN, np.ones((_COVERED, _COVERED)))
        share = smooth_step(more, *_BARE)
        if share.max() < 1:
            continue
        colours = in_light_of(shown, seen_colours(other, len(texture))[0], clear * bare)
        # All that covers it, also where the other frame shows a lip there; but nothing that covers the other frame.
        unlike = np.abs(np.log((shown + DARKEST) / (_small(colours) + DARKEST))).max(-1)
        share = connected(smooth_step(unlike, *_UNLIKE) * seen * np.minimum(1, 1 + bare - clear), share)
        texture = laid_over(texture, colours, share)
        clear = clear + share * (bare - clear)
    return texture


def in_light_of(below: np.ndarray, above: np.ndarray, common: np.ndarray) -> np.ndarray:
    """The texture `above` in the light of `below`, compared where both show skin: common (256, 256), 0..1; (size, size, 3) uint8 as it is."""
    if common.max() < 0.5:
        return above
    small = [_small(texture) for texture in (below, above)]
    level = [np.median(texture[common > 0.5], 0) + DARKEST for texture in small]
    small[1] = in_light(small[1], np.log(level[0] / level[1]))
    light = light_between(*small, common) + np.log(level[0] / level[1])
    gain = cv2.resize(np.exp(light).astype(np.float32), above.shape[:2], interpolation=cv2.INTER_LINEAR)
    return cv2.add(cv2.multiply(above, gain, dtype=cv2.CV_32F), DARKEST * (gain - 1), dtype=cv2.CV_8U)  # as `in_light`, in a third of its time


def laid_over(below: np.ndarray, above: np.ndarray, share: np.ndarray, blur: float = 2.0) -> np.ndarray:
    """Texture `above` over `below` by a share (256, 256), which is blurred by so many texels of it."""
    share = cv2.resize(cv2.GaussianBlur(share.astype(np.float32), (0, 0), blur), below.shape[:2], interpolation=cv2.INTER_LINEAR)
    return cv2.blendLinear(below, above, 1 - share, share)


def _small(texture: np.ndarray) -> np.ndarray:
    return cv2.resize(texture, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32)
