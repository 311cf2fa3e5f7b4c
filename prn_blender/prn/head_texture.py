"""The whole head's texture in hm08's own UV layout, in which every skin made for MakeHuman and MPFB lies.

The face is the photo's, by way of the position map's texture; lids, lips and everything else that the photo does not show
get the person's own skin: its colours grow over the mesh, not over the layout, so that they meet where islands of the layout
meet, and its mottles and grain are as strong as on the cheeks. numpy and OpenCV only; reads a capture, gives an array.

The texels' places are computed once, for a layout of COARSE texels a side, from `hm08_body.npz`; they vary so slowly that
larger textures take them from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from .capture import FaceCapture
from .fill import pull_push
from .openings import opening_texels
from .position_map import SIZE, Hm08Topology, load_topology, sample
from .render import draw
from .texture import inner_face, smooth_step, texture_and_knowledge

COARSE = 1024
MAP_SHARE = 4           # the map's texture is this much smaller than the head's: its texels then are as fine on the skin
RIM = 14.0              # texels of the map over which its face fades into what grows round it
SPREAD = 0.015          # how fast a colour that grows over the mesh goes back to the mean skin's, a step
ROUNDS = 120            # of the growing
HUE = 0.4               # how much of the photo's local hue grows on: light differs in strength more than in hue
MOTTLES = 40            # waves that the mottles are made of
# Colours of what the photo does not show, as shares of the person's skin's red, green and blue, so that they keep its light.
MOUTH, SOCKET, TONGUE = np.float32([0.55, 0.27, 0.27]), np.float32([0.85, 0.55, 0.52]), np.float32([0.80, 0.52, 0.54])


@dataclass(frozen=True)
class Layout:
    """hm08's head and neck in its UV layout, COARSE texels a side. Vertices are the head's, then the neck's."""

    places: np.ndarray      # (COARSE, COARSE, 2) float32 texel (column, row) of the position map; anything where it is not face
    face: np.ndarray        # (COARSE, COARSE) float32, 1 where it is the position map's face
    covered: np.ndarray     # (COARSE, COARSE) bool, where some quad lies
    corners: np.ndarray     # (n, 3) vertices of the triangle on each covered texel
    weights: np.ndarray     # (n, 3) float32 their weights
    mottles: np.ndarray     # (n, 1) float32, random smooth numbers of mean 0 and deviation 1
    fade: np.ndarray        # (V, 1) float32: 1 on the head, falling to 0 where the neck goes over into the body
    neighbours: np.ndarray  # (V, k) vertices that a side joins; V where there are fewer
    face_vertices: np.ndarray   # (f,) vertices on the position map
    face_places: np.ndarray     # (f, 2) and where
    inside: dict[str, np.ndarray]   # vertices of mouth and sockets that belong to nothing else
    tongue: np.ndarray      # vertices of the tongue


@lru_cache(maxsize=1)
def load_layout() -> Layout:
    folder = Path(__file__).parent
    body, face = np.load(folder / "hm08_body.npz"), np.load(folder / "hm08_face.npz")
    quads, uv, parts, islands = body["quads"].astype(int), body["uv"], body["parts"], body["islands"]
    positions = np.concatenate([body["bodies"][0], body["neck_base"]])
    number = np.arange(4 * len(quads)).reshape(-1, 4)
    triangles = np.concatenate([number[:, [0, 1, 2]], number[:, [0, 2, 3]]])
    flat = np.zeros((4 * len(quads), 3), np.float32)
    flat[:, :2] = uv.reshape(-1, 2) * (COARSE, -COARSE) + (-0.5, COARSE - 0.5)
    drawn = draw(flat, triangles, COARSE, COARSE)
    covered = drawn.covered
    corners, weights = quads.ravel()[triangles[drawn.triangle[covered]]], drawn.barycentric[covered]

    face_vertices, face_places = face["face_vertices"].astype(int), (face["face_uv"] * SIZE - 0.5).astype(np.float32)
    places, known = np.zeros((len(positions), 2), np.float32), np.zeros(len(positions), bool)
    places[face_vertices], known[face_vertices] = face_places, True
    on_face = known[corners].all(1) & (islands[drawn.triangle[covered] % len(quads)] == 0)
    on_layout = np.zeros((COARSE, COARSE), np.float32)
    on_layout[covered] = on_face
    layout_places = np.zeros((COARSE, COARSE, 2), np.float32)
    layout_places[covered] = np.einsum("nk,nkc->nc", weights, places[corners])

    skin = parts == 0
    def only(island: int) -> np.ndarray:
        return np.setdiff1d(quads[skin & (islands == island)], quads[skin & (islands == 0)])

    along = np.clip(1.25 * body["neck_shares"].astype(np.float32).sum(1) - 0.25, 0, 1)         # 0 at its last vertices
    fade = np.concatenate([np.ones(len(body["bodies"][0]), np.float32), along])[:, None]
    mottles = _mottles(np.einsum("nk,nkc->nc", weights, positions[corners])) * np.einsum("nk,nkc->nc", weights, fade[corners])
    return Layout(pull_push(layout_places, on_layout), on_layout, covered, corners, weights, mottles, fade,
                  _neighbours(quads[skin], len(positions)), face_vertices, face_places, {"mouth": only(2), "socket": only(3)},
                  np.unique(quads[~skin]))


def _mottles(points: np.ndarray) -> np.ndarray:
    """(n, 1) random smooth numbers at points (n, 3) decimetres: waves of 4 to 20 millimetres in all directions."""
    rng = np.random.default_rng(2)
    direction = rng.standard_normal((3, MOTTLES))
    waves = direction / np.linalg.norm(direction, axis=0) * 2 * np.pi / np.exp(rng.uniform(np.log(0.04), np.log(0.20), MOTTLES))
    phases = (points.astype(np.float32) @ waves.astype(np.float32)) + rng.uniform(0, 2 * np.pi, MOTTLES).astype(np.float32)
    return (np.cos(phases).sum(1, keepdims=True) * np.sqrt(2 / MOTTLES)).astype(np.float32)


def _neighbours(quads: np.ndarray, count: int) -> np.ndarray:
    sides = np.unique(np.sort(np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)]), 1), axis=0)
    here, there = np.concatenate([sides, sides[:, ::-1]]).T
    order = np.argsort(here, kind="stable")
    here, there = here[order], there[order]
    degree = np.bincount(here, minlength=count)
    result = np.full((count, degree.max()), count)
    result[here, np.arange(len(here)) - (np.cumsum(degree) - degree)[here]] = there
    return result


def make_head_texture(face: FaceCapture, size: int = 2048) -> np.ndarray:
    """The texture of hm08's head, (size, size, 3) uint8 sRGB RGB, v up (row 0 is v = 1).

    What of the layout is not the head, the body, is filled with the neck's colour. Raises CaptureError if the capture's
    topology is not hm08's.
    """
    face.topology.require_hm08("The head's texture")
    return complete_head(*texture_and_knowledge(face, size_on_map(size)), size)


def size_on_map(size: int) -> int:
    """The side of the map's texture that is fine enough for a head's texture of this side."""
    return max(size // MAP_SHARE, SIZE)


def complete_head(of_map: np.ndarray, known: np.ndarray, size: int) -> np.ndarray:
    """A head's texture (size, size, 3) from one in the map's layout (N, N, 3), uint8 RGB both.

    known (256, 256): how far each texel of the map comes from the photo, as `texture_and_knowledge` gives it.
    """
    layout, topology = load_layout(), load_topology()
    small = cv2.resize(of_map, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    shown = shown_of(topology, known)
    clear = clear_skin(topology, known)
    skin = np.median(small[clear], 0).astype(np.float32) if clear.sum() > 200 else np.median(small[topology.mask], 0)

    colours = vertex_colours(layout, small.astype(np.float32), shown, skin)
    tint = mottle_strength(small, clear)
    coarse = np.zeros((COARSE, COARSE, 3), np.float32)
    coarse[layout.covered] = np.einsum("nk,nkc->nc", layout.weights, colours[layout.corners]) + layout.mottles * tint
    coarse = pull_push(coarse, layout.covered)
    near = cv2.blur(layout.covered.astype(np.float32), (33, 33))[..., None]     # the islands' margins
    coarse = np.where(near > 0, coarse, skin)

    share = cv2.remap(shown, layout.places, None, cv2.INTER_LINEAR) * layout.face
    texture = np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR) + 0.5, 0, 255).astype(np.uint8)
    grain = grain_tile(of_map, clear)
    repeats = size // len(grain)
    texture = cv2.add(texture, np.tile(grain, (repeats, repeats, 1)), dtype=cv2.CV_8U)

    # The photo's part: only a window of the layout has any.
    rows, columns = (np.flatnonzero((share > 0).any(axis)) for axis in (1, 0))
    window = tuple(slice(part[0] // 2 * 2, part[-1] // 2 * 2 + 2) for part in (rows, columns))  # even: textures may be smaller
    large = tuple(slice(part.start * size // COARSE, part.stop * size // COARSE) for part in window)
    shape = large[1].stop - large[1].start, large[0].stop - large[0].start
    share = cv2.resize(share[window], shape, interpolation=cv2.INTER_LINEAR)[..., None]
    places = cv2.resize(layout.places[window], shape, interpolation=cv2.INTER_LINEAR)
    places = (places + 0.5) * (len(of_map) / SIZE) - 0.5
    photo = cv2.remap(of_map, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    texture[large] = np.rint(photo * share + texture[large] * (1 - share))
    return texture


def shown_of(topology: Hm08Topology, known: np.ndarray) -> np.ndarray:
    """How far the head takes each texel of the map's texture (256, 256): all of its face, and at its rim what is known."""
    filled = (topology.mask | opening_texels(topology)).astype(np.uint8)
    inside = cv2.distanceTransform(np.pad(filled, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return smooth_step(inside, 2, RIM) * np.maximum(smooth_step(known, 0.1, 0.8), inner_face(topology))


def clear_skin(topology: Hm08Topology, known: np.ndarray) -> np.ndarray:
    """(256, 256) bool: cheeks and forehead, as far as the photo shows them."""
    regions = topology.regions
    features = np.any([regions[name] for name in ("eye_left", "eye_right", "mouth", "ears", "neck")], 0)
    return topology.mask & ~features & (known > 0.9) & (topology.mean[..., 2] < 0.03)


def vertex_colours(layout: Layout, small: np.ndarray, shown: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """(V, 3) a colour for every vertex: the map's where it shows, and from there on grown over the mesh.

    Growing solves a screened Laplace equation by Jacobi's method: colours spread to their neighbours and go back to the mean
    skin's (3,) with distance. small (256, 256, 3) the map's texture.
    """
    count = len(layout.neighbours)
    smooth = cv2.GaussianBlur(small, (0, 0), 2.5)
    brightness = smooth.mean(-1, keepdims=True) / skin.mean()
    smooth = HUE * smooth + (1 - HUE) * brightness * skin
    # Into the mouth and behind the lids their own colours go on.
    regions = load_topology().regions
    features = np.any([regions[name] for name in ("eye_left", "eye_right", "mouth")], 0)
    features = cv2.dilate(features.astype(np.uint8), np.ones((9, 9))) > 0
    smooth = np.where(features[..., None], cv2.GaussianBlur(small, (0, 0), 0.8), smooth)
    wanted, pull = np.tile(skin.astype(np.float32), (count, 1)), np.full(count, SPREAD, np.float32)
    wanted[layout.face_vertices] = sample(smooth, layout.face_places)
    pull[layout.face_vertices] += 60 * sample(shown[..., None], layout.face_places)[:, 0] ** 2
    for name, colour, force in (("mouth", MOUTH, 0.6), ("socket", SOCKET, 0.3)):
        wanted[layout.inside[name]], pull[layout.inside[name]] = skin * colour, force
    degree = (layout.neighbours < count).sum(1)
    right, share = wanted * pull[:, None], (1 / (degree + pull))[:, None].astype(np.float32)
    grown = np.concatenate([wanted, np.zeros((1, 3), np.float32)])
    for _ in range(ROUNDS):
        grown[:count] = (grown[layout.neighbours].sum(1) + right) * share
    grown = skin + (grown[:count] - skin) * layout.fade
    grown[layout.tongue] = skin * TONGUE
    return grown


def mottle_strength(small: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """(3,) how much the clear skin's colour varies over some millimetres, grey levels."""
    band = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 1.5) - cv2.GaussianBlur(small.astype(np.float32), (0, 0), 5)
    if not clear.any():
        return np.zeros(3, np.float32)
    return np.clip(0.6 * np.median(np.abs(band[clear]), 0), 0, 3).astype(np.float32)


def grain_tile(of_map: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """(512, 512, 3) int16 noise as strong as the clear skin's finest detail; it can be laid edge to edge."""
    grey = cv2.cvtColor(of_map, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey -= cv2.GaussianBlur(grey, (0, 0), 2.5)
    detail = np.abs(grey[cv2.resize(clear.astype(np.uint8), grey.shape, interpolation=cv2.INTER_NEAREST) > 0])
    strength = 1.4826 * np.median(detail) if len(detail) else 0.0
    noise = np.tile(np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32), (3, 3))
    noise = (cv2.GaussianBlur(noise, (0, 0), 1.0) - cv2.GaussianBlur(noise, (0, 0), 2.5))[512:1024, 512:1024]
    return np.repeat(np.rint(noise * (strength / noise.std())).astype(np.int16)[..., None], 3, -1)
