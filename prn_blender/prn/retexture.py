"""An edited texture back over the photo: what was painted on the UV map, seen from where the photographer stood.

The mesh is drawn through the capture's camera, so that what lies behind the nose or on the far cheek stays hidden. Only what
differs from the capture's own texture is put over the photo, and only where the photo shows that texture: hair, hands and
glasses, which the texture has not, stay in front. numpy and OpenCV only; arrays in, array out.
"""

from __future__ import annotations

import cv2
import numpy as np

from .render import draw
from .texture import smooth_step

SMOOTH = 2  # the mesh is drawn this many times as large, for clean edges
ROWS = 256  # of the photo in one go
UNCHANGED, CHANGED = 2.0, 12.0  # grey levels that a texel may differ by and not be an edit; from which it is wholly one
SHOWN, HIDDEN = 22.0, 55.0  # grey levels between photo and texture up to which the photo shows it; from which it does not


def render_over(photo: np.ndarray, vertices: np.ndarray, triangles: np.ndarray, uvs: np.ndarray, texture: np.ndarray,
                original: np.ndarray | None = None, *, whole: bool = False, in_front: bool = True) -> np.ndarray:
    """The photo (H, W, 3) uint8 RGB with the edited texture on the face.

    vertices (V, 3): image frame, pixels of this photo, z away; triangles (T, 3), counter-clockwise from outside; uvs (V, 2),
    v up. texture (N, N, 3) uint8 RGB. original: the texture before it was edited, any size; without it the whole texture is
    put over the photo. whole: also what has not changed. in_front: keep in front what the photo shows instead of the face.
    """
    height, width = photo.shape[:2]
    texture = texture.astype(np.float32)
    weight = np.ones(texture.shape[:2], np.float32)
    before = texture
    if original is not None:
        before = cv2.resize(original, texture.shape[1::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
        weight = weight if whole else smooth_step(np.abs(texture - before).max(-1), UNCHANGED, CHANGED)
    layers = np.dstack([texture * weight[..., None], weight])

    # Only the part of the photo that the face covers is worked on.
    low = np.clip(np.floor(vertices[:, :2].min(0)) - 1, 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(vertices[:, :2].max(0)) + 2, low + 1, (width, height)).astype(int)
    window = slice(low[1], high[1]), slice(low[0], high[0])
    large = ((vertices - (*low, 0) + (0.5, 0.5, 0)) * SMOOTH - (0.5, 0.5, 0)).astype(np.float32)
    first, second, third = (large[triangles[:, corner], :2] for corner in range(3))
    edge, other = second - first, third - first
    triangles = triangles[edge[:, 0] * other[:, 1] - edge[:, 1] * other[:, 0] < 0]      # to the camera: y runs down
    layers, before = (_as_coarse_as_seen(layer, large, triangles, uvs) for layer in (layers, before))

    part = photo[window].astype(np.float32)
    colours, shown = _drawn(large, triangles, uvs, layers, before, part.shape[1], part.shape[0])
    if original is not None and in_front:
        cover = shown[..., 3:]
        strange = np.abs(shown[..., :3] / np.maximum(cover, 0.05) - part).max(-1)
        size = float(np.ptp(vertices[:, 0]))
        strange = cv2.GaussianBlur(strange, (0, 0), max(0.6, size / 400))       # single pores and lashes hide nothing
        face = (1 - smooth_step(strange, SHOWN, HIDDEN)) * (cover[..., 0] > 0)
        # What is left of it at the outline, where the surface is a little too wide, are slivers over the background.
        reach = 2 * max(1, round(size / 150)) + 1
        face = cv2.morphologyEx(face, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
        colours *= (face * _not_specks(face > 0.3))[..., None]
    result = photo.copy()
    result[window] = np.clip(np.rint(part * (1 - colours[..., 3:]) + colours[..., :3]), 0, 255)
    return result


def _not_specks(inside: np.ndarray) -> np.ndarray:
    """inside (H, W) bool without its small pieces: skin-coloured things in hair and background are no face."""
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    areas = statistics[:, cv2.CC_STAT_AREA]
    areas[0] = 0
    return (areas > 0.05 * areas.max())[labels]


def _drawn(large: np.ndarray, triangles: np.ndarray, uvs: np.ndarray, layers: np.ndarray, before: np.ndarray, width: int,
           height: int) -> tuple[np.ndarray, np.ndarray]:
    """What the mesh shows of `layers` (…, 4), and of `before` (…, 3) with how much of the pixel it covers: (height, width, 4) each.

    A band of rows at a time, so that memory stays bounded.
    """
    colours, shown = (np.zeros((height, width, 4), np.float32) for _ in range(2))
    low, high = large[triangles, 1].min(1), large[triangles, 1].max(1)
    for top in range(0, height, ROWS):
        bottom = min(top + ROWS, height)
        part = triangles[(high >= top * SMOOTH - 1) & (low <= bottom * SMOOTH)]
        drawn = draw(large - np.float32([0, top * SMOOTH, 0]), part, width * SMOOTH, (bottom - top) * SMOOTH)
        places = drawn.interpolate(part, uvs.astype(np.float32))
        pixels = np.zeros((*drawn.depth.shape, 4), np.float32)
        for target, layer in ((colours, layers), (shown, np.dstack([before, np.ones(before.shape[:2], np.float32)]))):
            pixels[drawn.covered] = _looked_up(layer, places)
            target[top:bottom] = cv2.resize(pixels, (width, bottom - top), interpolation=cv2.INTER_AREA)
    return colours, shown


def _as_coarse_as_seen(layers: np.ndarray, large: np.ndarray, triangles: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """The layers made as small as the face is drawn: looked up from finer ones, the picture would glitter."""
    def area(points: np.ndarray) -> float:
        a, b, c = (points[triangles[:, corner], :2] for corner in range(3))
        return float(np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum())

    shrink = np.sqrt(area(large) / max(area(uvs) * layers.shape[0] * layers.shape[1], 1e-9))
    if shrink >= 0.7:
        return layers
    size = [max(16, round(side * float(shrink))) for side in layers.shape[1::-1]]
    return cv2.resize(layers, size, interpolation=cv2.INTER_AREA)


def _looked_up(layers: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """(N, C) layers (H, W, C) at UVs (N, 2)."""
    height, width = layers.shape[:2]
    places = (uvs * (width, -height) + (-0.5, height - 0.5)).astype(np.float32)
    # remap takes at most 32767 rows and none of 0: one long list of places is folded.
    folded = np.zeros((len(places) // 1024 + 1, 1024, 2), np.float32).reshape(-1, 2)
    folded[:len(places)] = places
    values = cv2.remap(layers, folded.reshape(-1, 1024, 2), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return values.reshape(-1, layers.shape[2])[:len(places)]
