"""Where the eyes look and what colour they have, read from the photo: an iris is a dark disc of known size on a known globe.

The fitted head says where the eyeballs and the lids are in the photo; what is left to find is the disc within the opening that
stands out most from what is round it, in the red channel, where irises of every colour are darker than the white and than
skin. Its place on the globe is the gaze. What cannot be told (shut lids, few pixels, sunglasses, an eye turned away) is said, and
not guessed. numpy and OpenCV only.

Frames: image and head as in `FaceCapture`. Right and up are the viewer's, degrees against the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .arkit import ARKIT_NAMES
from .capture import FaceCapture
from .eye_texture import eye_texture
from .eyeball import IRIS, LOOK
from .head import Head, build_head
from .head_topology import load_head_topology

RADIUS = 48.0           # pixels of the eyeball's radius in the cut that is searched
SIZES = (0.9, 1.0, 1.15, 1.3)   # of the iris against the head's own: photos tell the head's size no better
FARTHEST = 42.0         # degrees that an eye turns at most
LEAST_PIXELS = 3.0      # radius of the eyeball in the photo, pixels; below it the iris is a dot
LEAST_SHOWN = 0.30      # part of the iris that has to lie between the lids
LEAST_CONTRAST = 0.10   # between iris and surroundings, as a part of the surroundings' brightness
FACING = 0.35           # cosine between the eye's axis at rest and the camera, below which the eye is turned away
BROWN = (74, 48, 33)    # most people's iris, for those that cannot be told
UPWARDS = 0.6           # of a reading up or down that is believed
APART = 18.0            # degrees that both eyes' readings may differ by: beyond it one of them is no iris
FULL_LIGHT = 190.0      # grey level of an eye's white, between lids that shade it, in a well exposed photo
LIT_SKIN = 0.4          # the strongest colour of the brightest skin is at least as bright in any photo that is not too dark
WHITE_LIKE_SKIN = 0.9   # of the brightest skin's strongest colour: how bright white is in its light
DARKEST, PALEST = 22.0, 190.0   # mean grey levels between which a reading is believed to be an iris


@dataclass(frozen=True)
class Eye:
    """What the photo shows of one eye."""

    seen: bool                      # whether the iris could be found
    right: float                    # degrees that it looks to the viewer's right, 0 if it is not seen
    up: float                       # degrees that it looks up
    iris: tuple[int, int, int]      # RGB; BROWN if it could not be told
    colour_seen: bool               # whether iris is the photo's
    light: float = 1.0              # how bright the white is in the photo, 1 for full light


UNSEEN = Eye(False, 0.0, 0.0, BROWN, False)


def read_eyes(face: FaceCapture, head: Head) -> list[Eye]:
    """The viewer's left eye and the right one."""
    topology = load_head_topology()
    return [_read(face, centre, radius, head.vertices[rims].reshape(-1, 3))
            for (centre, radius), rims in zip(head.eyes, topology.lid_rims)]


def seen_head(face: FaceCapture) -> tuple[Head, np.ndarray, float]:
    """The captured head with its eyes looking where the photo's do, their picture (`eye_texture`), and how bright a white thing, as teeth
    are, is in the photo, 1 in full light. Raises what `build_head` does."""
    head = build_head(face)
    eyes = read_eyes(face, head)
    gaze = gaze_of(eyes)
    light = light_of(eyes, face)
    # The whites of the eyes may lie in their sockets' shade, where teeth do not.
    return look(head, *gaze) if gaze else head, eye_texture(iris_of(eyes), light), max(light, WHITE_LIKE_SKIN * _brightest(_skin(face)))


def gaze_of(eyes: list[Eye]) -> tuple[float, float] | None:
    """Degrees to the viewer's right and up that both eyes look, or None if the photo does not tell.

    One direction for both: what two eyes differ by is the reading's error more than their convergence.
    """
    seen = [eye for eye in eyes if eye.seen]
    if not seen or max(eye.right for eye in seen) - min(eye.right for eye in seen) > APART:
        return None
    return sum(eye.right for eye in seen) / len(seen), UPWARDS * sum(eye.up for eye in seen) / len(seen)


def iris_of(eyes: list[Eye]) -> tuple[int, int, int]:
    """RGB of both irises: the mean of those that were seen, or BROWN."""
    seen = [eye.iris for eye in eyes if eye.colour_seen]
    return tuple(int(round(value)) for value in np.mean(seen, 0)) if seen else BROWN


def light_of(eyes: list[Eye], face: FaceCapture) -> float:
    """How bright the photo is, at most 1: by the whites of its eyes, or where they cannot be told by its skin; at least 0.55, but in a photo
    that is too dark for skin of any colour in the light."""
    seen = [eye.light for eye in eyes if eye.colour_seen]
    skin = _skin(face)
    light = float(np.mean(seen)) if seen else float(np.clip(0.45 + skin.mean() / 255, 0.55, 1.0))
    return light * min(1.0, _brightest(skin) / LIT_SKIN)


def _skin(face: FaceCapture) -> np.ndarray:
    """(n, 3) uint8 pixels of the face that the photo shows; white ones if it shows none."""
    places = face.position_map[face.visibility > 0.5][::7, :2]
    if not len(places):
        return np.full((1, 3), 255, np.uint8)
    return cv2.remap(face.image, places[None].astype(np.float32), None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)[0]


def _brightest(skin: np.ndarray) -> float:
    """The strongest colour of the brightest of these pixels (n, 3), 0 to 1."""
    return float(np.quantile(skin.max(1), 0.95)) / 255


def look(head: Head, right: float, up: float) -> Head:
    """The head with its eyes looking to the viewer's right and up, degrees.

    The ARKit weights of the gaze change and the eyeballs turn; the lids, which the photo shows as they are, stay: what the
    weights would move them by is taken off the neutral head.
    """
    weights = head.weights.copy()
    for side, outwards in (("Left", 1), ("Right", -1)):
        for way, degrees in {"Out": right * outwards, "In": -right * outwards, "Up": up, "Down": -up}.items():
            weights[ARKIT_NAMES.index(f"eyeLook{way}{side}")] = np.clip(degrees / LOOK[way], 0, 1)
    moved = np.tensordot(weights - head.weights, head.shapes, 1)
    for part in load_head_topology().eye_vertices:
        moved[part] = 0
    neutral = head.neutral - moved
    return replace(head, neutral=neutral, weights=weights, vertices=neutral + np.tensordot(weights, head.shapes, 1))


def _read(face: FaceCapture, centre: np.ndarray, radius: float, lids: np.ndarray) -> Eye:
    """centre (3,), radius: the eyeball; lids (n, 3): points of its lids' rims; head frame."""
    pixels = face.pixels_per_metre * radius
    if pixels < LEAST_PIXELS or face.rotation[2, 2] < FACING:
        return UNSEEN
    middle = face.seen(centre)
    scale, half = RADIUS / pixels, int(1.5 * RADIUS)
    to_cut = np.array([[scale, 0, half - scale * middle[0]], [0, scale, half - scale * middle[1]]])
    size = (2 * half + 1, 2 * half + 1)
    cut = cv2.warpAffine(_smaller(face.image, scale), _for_smaller(to_cut, scale), size,
                         flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    placed = face.seen(lids)[:, :2] @ to_cut[:, :2].T + to_cut[:, 2]
    opening = np.zeros(size, np.float32)
    cv2.fillConvexPoly(opening, cv2.convexHull(np.rint(placed).astype(np.int32)), 1.0)
    found = _find(cut[..., 0], opening, face.rotation)
    if found is None:
        return UNSEEN
    place, iris_radius = found
    flat = (place - half) / RADIUS
    on_globe = np.append(flat, -np.sqrt(max(np.cos(IRIS) ** 2 - flat @ flat, 0.0)))
    x, y, z = on_globe @ face.rotation
    colour, light = _colour(cut, opening, place, iris_radius)
    return Eye(True, float(np.degrees(np.arctan2(x, -z))), float(np.degrees(np.arctan2(-y, np.hypot(x, z)))),
               colour or BROWN, colour is not None, light)


def _smaller(image: np.ndarray, scale: float) -> np.ndarray:
    """The image made as small as a cut at this scale needs it: sampled at single pixels, a large photo would be noise."""
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 0.7 else image


def _for_smaller(transform: np.ndarray, scale: float) -> np.ndarray:
    if scale >= 0.7:
        return transform
    result = transform.copy()
    result[:, :2] /= scale
    result[:, 2] += transform[:, :2] @ np.array([0.5 / scale - 0.5, 0.5 / scale - 0.5])
    return result


def _find(red: np.ndarray, opening: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Centre (2,) and radius of the iris in a cut round the eyeball, or None."""
    red = cv2.GaussianBlur(red, (0, 0), 1.5)
    half = len(red) // 2
    # Where the iris can be: no further from the axis at rest than an eye turns.
    rest = -rotation[:2, 2] * np.cos(IRIS) * RADIUS + half
    rows, columns = np.mgrid[:len(red), :len(red)]
    reach = np.hypot(columns - rest[0], rows - rest[1]) < np.sin(np.radians(FARTHEST)) * RADIUS
    reach &= np.hypot(columns - half, rows - half) < 0.93 * RADIUS * np.cos(IRIS)
    best, answer = LEAST_CONTRAST, None
    for size in SIZES:
        radius = size * np.sin(IRIS) * RADIUS
        inner, shown = _mean_under(red, opening, radius, 0.0)
        outer, around = _mean_under(red, opening, 1.7 * radius, 1.12 * radius)
        contrast = (outer - inner) / np.maximum(outer, 20.0) * np.sqrt(np.clip(shown, 0, 1))
        contrast[~reach | (shown < LEAST_SHOWN) | (around < 0.15)] = -1
        row, column = np.unravel_index(np.argmax(contrast), contrast.shape)
        if contrast[row, column] > best:
            best, answer = contrast[row, column], (np.array([column, row], float), radius)
    return answer


def _mean_under(values: np.ndarray, share: np.ndarray, radius: float, hole: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean of values within a ring round every pixel, counting `share`, and how much of the ring counts."""
    reach = int(np.ceil(radius))
    rows, columns = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    distance = np.hypot(rows, columns)
    kernel = ((distance <= radius) & (distance >= hole)).astype(np.float32)
    kernel /= kernel.sum()
    counted = cv2.filter2D(share, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    return cv2.filter2D(values * share, -1, kernel, borderType=cv2.BORDER_CONSTANT) / np.maximum(counted, 1e-4), counted


def _colour(cut: np.ndarray, opening: np.ndarray, place: np.ndarray, radius: float) -> tuple[tuple[int, int, int] | None, float]:
    """The iris' RGB in full light without pupil, highlights and the lids' shadow, or None if that is no colour of an iris; and
    the light of the white beside it."""
    rows, columns = np.mgrid[:len(cut), :len(cut)]
    distance = np.hypot(columns - place[0], rows - place[1]) / radius
    inside = cv2.erode(opening, np.ones((5, 5))) > 0
    ring = cut[inside & (distance > 0.45) & (distance < 0.88)]
    white = cut[inside & (distance > 1.25)]
    if len(ring) < 60 or len(white) < 40:
        return None, 1.0
    grey = ring.mean(1)
    # Highlights are the brightest, lashes and the lid's shadow the darkest.
    kept = ring[(grey >= np.quantile(grey, 0.25)) & (grey <= np.quantile(grey, 0.75))]
    light = np.quantile(white.mean(1), 0.7)
    colour = np.median(kept, 0) * np.clip(200 / max(light, 1.0), 1.0, 1.8)      # lids shade what is between them
    if not DARKEST < colour.mean() < PALEST or colour.mean() > 0.85 * max(light, 120.0):
        return None, 1.0
    return tuple(int(round(value)) for value in np.clip(colour, 0, 255)), float(np.clip(light / FULL_LIGHT, 0.55, 1.0))
