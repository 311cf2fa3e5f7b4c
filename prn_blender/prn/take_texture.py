"""One texture from the best frames of a take. numpy and OpenCV only; reads key frames, gives an array.

The skin comes from the calmest frontal frame, what it does not show well from frames turned to either side, the inside of
the mouth from a frame in which it stands open.
"""

from __future__ import annotations

import cv2
import numpy as np

from .capture import INTEROCULAR, FaceCapture, place_face
from .detector import FaceBox
from .head_texture import complete_head, size_on_map
from .openings import opening_texels
from .position_map import SIZE, Topology
from .take import KeyFrame, Performance
from .texture import make_texture, texture_and_knowledge

_SIDE_GAIN = 0.15  # cosine by which a turned frame has to see a texel better than the frontal one


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
    front = front_capture(performance)
    texture, known = texture_and_knowledge(front, size)
    for side in ("left", "right"):
        if side in kinds:
            turned = key_capture(kinds[side], performance.topology)
            share = np.clip((turned.visibility - front.visibility - _SIDE_GAIN) / 0.2, 0, 1)
            beside, known_beside = texture_and_knowledge(turned, size)
            texture = laid_over(texture, beside, share, front.visibility * turned.visibility > 0.1)
            known = np.maximum(known, known_beside * share)
    if "mouth" in kinds:
        topology = front.topology
        rows = np.arange(SIZE)[:, None] > topology.landmarks[30, 1]  # the openings below the nose's tip
        inside = (opening_texels(topology) & rows).astype(np.float32)
        share = cv2.GaussianBlur(cv2.dilate(inside, np.ones((3, 3))), (0, 0), 0.8)
        texture = laid_over(texture, make_texture(key_capture(kinds["mouth"], performance.topology), size), share, None)
    return texture, known


def front_capture(performance: Performance) -> FaceCapture:
    """The take's frame that shows the face best from the front, as the capture of a photograph."""
    kinds = performance.key_frames
    return key_capture(kinds.get("front") or next(iter(kinds.values())), performance.topology)


def key_capture(key: KeyFrame, topology: Topology) -> FaceCapture:
    """A key frame as the capture of a photograph."""
    crop = key.face.crop
    box = FaceBox(crop.center_x - crop.side / 2, crop.center_y - crop.side / 2, crop.side, crop.side, 1.0)
    return place_face(key.image, box, crop, key.face.crop_map, key.face.expression, topology, "fitted",
                      INTEROCULAR, {})


def laid_over(below: np.ndarray, above: np.ndarray, share: np.ndarray, common: np.ndarray | None) -> np.ndarray:
    """Texture `above` over `below` by a share (256, 256), in the light of `below`, compared where both see (common)."""
    size = len(below)
    gain = np.ones(3, np.float32)
    if common is not None and common.any():
        small = [cv2.resize(texture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)[common].astype(np.float32)
                 for texture in (below, above)]
        gain = (np.median(small[0], 0) + 8) / (np.median(small[1], 0) + 8)
    share = cv2.resize(cv2.GaussianBlur(share.astype(np.float32), (0, 0), 2.0 if common is not None else 0.5),
                       (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.blendLinear(below, cv2.multiply(above, (*gain.tolist(), 0)), 1 - share, share)
