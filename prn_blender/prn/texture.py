"""The face's texture, taken from the photo through the position map and completed where the photo does not show it.

What the camera saw well is copied. What it did not see comes from the mirrored side of the face, in this side's light;
what neither side shows grows in from its surroundings. At the outline, where hair and background begin, only what has
the colour of this face's own skin is copied. numpy and OpenCV only; reads a capture, gives an array.
"""

from __future__ import annotations

import cv2
import numpy as np

from .capture import FaceCapture
from .fill import pull_push
from .openings import close_openings, opening_texels
from .position_map import SIZE, Topology
from .render import depth_buffer

SKIN_SAMPLES_FACING = 0.45  # a texel teaches the skin's colour when it faces the camera at least this much (cosine)
ABOVE_BROWS = 10  # texels from the landmarks of the brows to where the face's oval ends
BESIDE_CHEEKS = 0.72  # part of the half width between the landmarks beside the cheeks that is surely face
OUTLINE_SIZE = 192  # pixels of the small picture in which the outline is found
PROFILE = 40.0, 60.0  # degrees of yaw between which the face's middle is lost to the outline
MIDDLE = 0.8  # how far from the outline the middle then has to be, as a part of what the far cheek has to
MOUTH = 0.75  # of that distance is forgone on lips: nothing else of a profile shows their colour
LIPS = 0.7  # of what grows on lips is the lips' own colour: their corners, which a profile shows best, are the darkest of them
UNDER_NOSE = 8  # texels from the foot of the nose to where beards grow
DARKEST = 8.0  # added before logarithms of 0..255 colours: ratios in near-black shadows mean nothing


def make_texture(face: FaceCapture, size: int = 2048) -> np.ndarray:
    """The whole texture, (size, size, 3) uint8 sRGB RGB, in the topology's UV layout with v up (row 0 is v = 1)."""
    return texture_and_knowledge(face, size)[0]


def texture_and_knowledge(face: FaceCapture, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`make_texture`, and how far each texel of the map comes from the photo, from either side: (256, 256) float32 in 0..1."""
    picture, places, colours, direct, skin = _looked_up(face, size)
    mirror = direct[:, ::-1] * (1 - direct)
    clear = direct * skin
    light = light_between(colours, colours[:, ::-1], clear * clear[:, ::-1])

    mirrored = np.clip(in_light(colours[:, ::-1], light), 0, 255)
    known = direct + mirror
    seen = (colours * direct[..., None] + mirrored * mirror[..., None]) / np.maximum(known, 1e-3)[..., None]
    skin = np.minimum(1, skin * direct + skin[:, ::-1] * mirror)
    grown = pull_push(seen, skin ** 2)  # only clear skin may grow: a little hair at the border would spread far
    # In a profile a beard grows from the beard, and lips grow together in the middle, without the shadow between them.
    beard, lips = beard_of(face.topology), lips_of(face.topology)
    shut = 1 - cv2.dilate(opening_texels(face.topology).astype(np.float32), np.ones((5, 5)))
    for region, source, share in ((beard, beard, 1.0), (lips, lips * shut, LIPS)):
        grown += share * region[..., None] * (pull_push(seen, np.maximum((source * known) ** 2, 1e-4 * skin ** 2)) - grown)

    # The same sum at the texture's own size; only the photo has detail, the rest is smooth.
    def large(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values.astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)

    fine = sample_picture(picture, places, size)
    grain = skin_grain(fine, large(skin) > 0.95)
    direct, mirror = large(direct)[..., None], large(mirror)[..., None]
    texture = in_light(fine[:, ::-1], large(light)) * mirror
    texture += (large(grown) + grain) * (1 - direct - mirror)
    texture += fine * direct
    return np.clip(texture + 0.5, 0, 255, out=texture).astype(np.uint8), known


def seen_colours(face: FaceCapture, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the photo alone shows: a colour for each texel (size, size, 3), uint8 sRGB RGB in the topology's UV layout, and how far
    it is this face's, and clear skin of it, (256, 256) each, float32 in 0..1."""
    picture, places, _, direct, skin = _looked_up(face, size)
    return np.clip(sample_picture(picture, places, size) + 0.5, 0, 255).astype(np.uint8), direct, direct * skin


def _looked_up(face: FaceCapture, size: int) -> tuple[np.ndarray, ...]:
    """The part of the photo for a texture of this size, the texels' places in it, their colours, and `trust`'s answer on them."""
    surface = close_openings(face.position_map, face.topology)
    surface = pull_push(surface, face.topology.mask | opening_texels(face.topology))
    picture, places = cut_out(face.image, surface[..., :2], size)
    colours = sample_picture(picture, places, SIZE)
    return picture, places, colours, *trust(face, surface, colours, places, picture)


def cut_out(image: np.ndarray, places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the photo that the face covers, no finer than the texture can hold, and the places in it.

    places (256, 256, 2) x, y in pixels of the image. Returns the picture and places in pixels of that picture.
    """
    height, width = image.shape[:2]
    low = np.clip(np.floor(places.min((0, 1))) - 4, 0, (width - 2, height - 2)).astype(int)
    high = np.clip(np.ceil(places.max((0, 1))) + 5, low + 2, (width, height)).astype(int)
    picture = image[low[1]:high[1], low[0]:high[0]]
    step = np.median(np.linalg.norm(np.diff(places, axis=1), axis=-1)) * SIZE / size  # photo pixels a texel
    shrink = np.array([1.0, 1.0])
    if step > 1.5:
        smaller = np.maximum(np.round(np.array(picture.shape[1::-1]) / step), 2).astype(int)
        shrink = smaller / picture.shape[1::-1]
        picture = cv2.resize(picture, smaller.tolist(), interpolation=cv2.INTER_AREA)
    return picture, ((places - low + 0.5) * shrink - 0.5).astype(np.float32)


def sample_picture(picture: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """The picture's colours at the places (256, 256, 2), brought to (size, size, 3) texels, float32 0..255."""
    if size != SIZE:
        places = cv2.resize(places, (size, size), interpolation=cv2.INTER_LINEAR)
    return cv2.remap(picture, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def trust(face: FaceCapture, surface: np.ndarray, colours: np.ndarray, places: np.ndarray,
          picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each texel's colour in the photo is this face's, and how far it looks like skin.

    Each (256, 256) float32 in 0..1. To be trusted a texel has to face the camera, lie inside the photo, and towards the
    outline look like skin.
    """
    mask = face.topology.mask
    normals = normals_of(surface)
    facing = facing_camera(face, normals)
    inside = ((places > -0.5) & (places < np.array(picture.shape[1::-1]) - 0.5)).all(-1)
    inside = cv2.erode(inside.astype(np.float32), np.ones((5, 5)))
    # The more the head is turned, the further a small error of the pose carries the far cheek into the background; its
    # colours are better taken from the near one. The face's middle has no other side to take them from.
    beside = np.abs(np.arange(SIZE) - (SIZE - 1) / 2) / (SIZE / 2)
    turned = abs(np.sin(np.radians(face.yaw))) * smooth_step(beside, 0.06, 0.3)
    # In a profile the middle is the outline itself: what is smeared along it is worse than what grows in from both sides.
    turned = np.maximum(turned, MIDDLE * smooth_step(np.abs(face.yaw), *PROFILE))
    turned = turned * (1 - MOUTH * lips_of(face.topology))
    inner = inner_face(face.topology) * smooth_step(from_outline(face), 0.01 + 0.04 * turned, 0.04 + 0.08 * turned)
    skin = skin_likeness(colours, normals, facing * mask * inside, inner)
    trusted = smooth_step(facing, 0.22, 0.5) * inside * (inner + (1 - inner) * skin)
    return np.clip(cv2.GaussianBlur(trusted, (0, 0), 1.0), 0, 1), np.clip(cv2.erode(skin, np.ones((9, 9))), 0, 1)


def inner_face(topology: Topology) -> np.ndarray:
    """1 within the face's oval, falling to 0 at its outline, (256, 256) float32.

    The oval is spanned by the landmarks of jaw and brows. In it brows, beards, moles and make-up belong to the face. Beside
    the cheeks it keeps a distance: there hair hangs, and a surface that is a little too wide reaches the background.
    """
    jaw, brows = topology.landmarks[:17].copy(), topology.landmarks[17:27] - (0, ABOVE_BROWS)
    beside = np.r_[0:7, 10:17]
    middle = (SIZE - 1) / 2
    jaw[beside, 0] = middle + (jaw[beside, 0] - middle) * BESIDE_CHEEKS
    oval = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(oval, cv2.convexHull(np.round(np.concatenate([jaw, brows])).astype(np.int32)), 1)
    return smooth_step(cv2.distanceTransform(oval, cv2.DIST_L2, 5), 2, 12)


def lips_of(topology: Topology) -> np.ndarray:
    """1 on the lips and between them, falling to 0 at their rim, (256, 256) float32."""
    lips = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(lips, cv2.convexHull(np.round(topology.landmarks[48:60]).astype(np.int32)), 1)
    return smooth_step(cv2.distanceTransform(lips, cv2.DIST_L2, 5), 1, 5)


def beard_of(topology: Topology) -> np.ndarray:
    """1 where a beard grows within the face's oval, moustache and all, falling to 0 towards cheeks and lips, (256, 256) float32."""
    nose = topology.landmarks[33, 1]
    below = smooth_step(np.arange(SIZE, dtype=np.float32), nose, nose + UNDER_NOSE)
    return inner_face(topology) * (1 - lips_of(topology)) * below[:, None]


def from_outline(face: FaceCapture) -> np.ndarray:
    """How far each texel lies inside the face's outline in the photo, as a part of the face's size, (256, 256) float32.

    Near the outline a small error of the surface already shows the background.
    """
    grid = face.topology.grid(2)
    vertices = grid.sample(face.position_map)
    low, high = vertices[:, :2].min(0), vertices[:, :2].max(0)
    scale = (OUTLINE_SIZE - 7) / (high - low).max()
    depth = depth_buffer((vertices - (*low, 0)) * scale + (3, 3, 0), grid.quads, OUTLINE_SIZE, OUTLINE_SIZE)
    contours, _ = cv2.findContours(np.isfinite(depth).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    covered = cv2.drawContours(np.zeros(depth.shape, np.uint8), contours, -1, 1, cv2.FILLED)  # eyes and mouth as well
    distance = cv2.distanceTransform(covered, cv2.DIST_L2, 5) / OUTLINE_SIZE
    places = ((face.position_map[..., :2] - low) * scale + 3).astype(np.float32)
    return cv2.remap(distance, places, None, cv2.INTER_LINEAR)


def normals_of(surface: np.ndarray) -> np.ndarray:
    """(256, 256, 3) unit normals of a position map, smoothed over a few texels; negative z faces the camera."""
    surface = cv2.GaussianBlur(surface, (0, 0), 2.0)
    normals = np.cross(np.gradient(surface, axis=0), np.gradient(surface, axis=1))
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)


def facing_camera(face: FaceCapture, normals: np.ndarray) -> np.ndarray:
    """The visibility, softened, and carried into eyes and mouth: (256, 256) float32 in 0..1.

    An eye or a mouth is in sight where most of what surrounds it is.
    """
    mask, opening = face.topology.mask.astype(np.float32), opening_texels(face.topology)
    seen = cv2.GaussianBlur((face.visibility > 0).astype(np.float32), (0, 0), 8) / cv2.GaussianBlur(mask, (0, 0), 8).clip(0.01)
    around = np.clip(-normals[..., 2], 0, 1) * smooth_step(seen, 0.3, 0.6)
    facing = np.where(opening, around, pull_push(face.visibility[..., None], mask)[..., 0])
    return cv2.GaussianBlur(facing.astype(np.float32), (0, 0), 1.5)


def skin_likeness(colours: np.ndarray, normals: np.ndarray, facing: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """How well each texel's colour fits this face's skin under this photo's light, (256, 256) float32 in 0..1.

    The skin's colour is a linear function of the normal (light from one side plus light all round), fitted to the inner
    face by least squares that drop brows, lips and shadows as outliers.
    """
    lab = cv2.cvtColor(colours.clip(0, 255) / 255, cv2.COLOR_RGB2LAB)
    design = np.concatenate([np.ones_like(normals[..., :1]), normals], -1)
    teachers = (inner > 0.5) & (facing > SKIN_SAMPLES_FACING)
    if teachers.sum() < 500:  # a profile, or a face cut off by the picture's edge
        teachers = facing > 0.2
    known, wanted = design[teachers], lab[teachers]
    keep = np.ones(len(known), bool)
    for _ in range(5):
        # Ridge: where all teachers face one way, the light's direction is not determined and must not run away.
        light = np.linalg.solve(known[keep].T @ known[keep] + 0.02 * keep.sum() * np.diag([0, 1, 1, 1]),
                                known[keep].T @ wanted[keep])
        residual = wanted - known @ light
        centre = np.median(residual[keep], 0)
        spread = 1.4826 * np.median(np.abs(residual[keep] - centre), 0) + (2.0, 1.0, 1.0)
        keep = (np.abs(residual - centre) < 2.5 * spread).all(1)
    distance = np.linalg.norm((lab - design @ light - centre) / spread, axis=-1)
    likeness = 1 - smooth_step(distance, 2.0, 3.5)
    # Single hairs over skin: a texel among strangers is a stranger.
    likeness = cv2.erode(likeness, np.ones((9, 9)))
    return cv2.GaussianBlur(connected(likeness, inner * smooth_step(facing, 0.2, 0.5)), (0, 0), 1.5)


def connected(values: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """What of the values a path from the seeds reaches, where a path is as good as its worst texel.

    (256, 256) float32 each. Skin-coloured things beyond the hair are not this face's skin.
    """
    allowed = np.maximum(values, seeds)
    reached = seeds
    while True:
        grown = np.minimum(cv2.dilate(reached, np.ones((3, 3))), allowed)
        if (grown == reached).all():
            return np.minimum(reached, values)
        reached = grown


def light_between(colours: np.ndarray, others: np.ndarray, both: np.ndarray) -> np.ndarray:
    """Logarithm of the factor that brings the light of other colours to that of these, (256, 256, 3) each.

    both (256, 256): how far either shows skin. Measured there, carried on smoothly to everywhere else.
    """
    one, other = (np.log(cv2.GaussianBlur(seen, (0, 0), 3).clip(0, 255) + DARKEST) for seen in (colours, others))
    difference = np.clip(one - other, -1, 1)
    grey = difference.mean(-1, keepdims=True)
    difference = pull_push(grey + 0.3 * (difference - grey), both)  # light differs in strength more than in hue
    return cv2.GaussianBlur(difference, (0, 0), 8)


def in_light(colours: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Colours in the light that `light_between` gives."""
    return (colours + DARKEST) * np.exp(light) - DARKEST


def skin_grain(fine: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Noise as strong and as fine as the photo's own skin, (size, size, 1): what has grown would look like wax without.

    fine (size, size, 3) the photo's colours, skin (size, size) bool where they are clear skin.
    """
    size = len(fine)
    width = size / 400
    grey = cv2.cvtColor(fine, cv2.COLOR_RGB2GRAY)
    grey -= cv2.GaussianBlur(grey, (0, 0), 2 * width)
    detail = np.abs(grey[::3, ::3][skin[::3, ::3]])
    strength = 1.4826 * np.median(detail) if len(detail) else 0.0
    noise = np.random.default_rng(0).standard_normal((size // 2, size // 2), np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), width)
    noise -= cv2.GaussianBlur(noise, (0, 0), 2 * width)
    noise *= strength / noise.std()
    return np.block([[noise, noise[:, ::-1]], [noise[::-1], noise[::-1, ::-1]]])[..., None]


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    share = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return share * share * (3 - 2 * share)
