"""Draws random heads with known shape, expression and camera: OpenGL through EGL, on a GPU or Mesa's software driver.

One `Renderer.draw` is one picture. Geometry comes from the face kit; hair, glasses and hats are MakeHuman's proxies
hung on it (vertex = sum of weights times base vertices, plus an offset; MakeHuman's .mhclo). Camera frame: x right,
y down, z away, metres; pixels with centres at integers.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import moderngl
import numpy as np

from training.hm08 import Hm08
from training.kit import Kit

PIXELS = 224
CHANGED, MOST_HIDDEN = 24, 0.5     # levels of a pixel that something covers; the share of the face that may be covered
SAMPLES = 4

_VERTEX = """
#version 330
uniform mat3 rotation; uniform vec3 translation; uniform float focal; uniform vec2 centre; uniform float pixels;
in vec3 position; in vec3 normal; in vec2 uv; in vec4 colour; in vec3 local;
out vec3 seen_normal; out vec3 seen; out vec2 at; out vec4 tint; out vec3 inside;
void main() {
    vec3 camera = rotation * position + translation;
    seen = camera; seen_normal = rotation * normal; at = uv; tint = colour; inside = local;
    // Pixel coordinates to clip space; y is flipped by reading the picture bottom up.
    vec2 pixel = (camera.xy * focal + (centre + 0.5) * camera.z) / pixels * 2.0 - camera.z;
    float near = 0.05, far = 20.0;
    gl_Position = vec4(pixel, (far + near) / (far - near) * camera.z - 2.0 * far * near / (far - near), camera.z);
}
"""
_FRAGMENT = """
#version 330
uniform sampler2D image; uniform int kind; uniform vec3 ambient; uniform vec3 sky; uniform vec3 up;
uniform vec3 lights[2]; uniform vec3 light_colours[2]; uniform float shine; uniform vec3 flat_skin; uniform vec3 tone;
uniform vec3 iris; uniform float pupil;
in vec3 seen_normal; in vec3 seen; in vec2 at; in vec4 tint; in vec3 inside;
out vec4 result;
void main() {
    vec3 normal = normalize(seen_normal);
    if (dot(normal, seen) > 0.0) normal = -normal;
    vec4 base = tint;
    float gloss = shine;
    if (kind == 0) {                        // skin: the photograph where the layout has it, flat skin elsewhere
        vec3 skin = mix(flat_skin, texture(image, at).rgb, tint.a);
        base = vec4(mix(skin, tint.rgb * tone, step(0.001, tint.r + tint.g + tint.b)), 1.0);
    } else if (kind == 1) {                 // hair, glasses, hats
        base = texture(image, at);
        if (base.a < 0.35) discard;
        base = vec4(clamp(base.rgb * tone, 0.0, 1.0), base.a);
    } else if (kind == 2) {                 // eyeball: iris and pupil by the angle from its axis
        float angle = acos(clamp(-normalize(inside).z, -1.0, 1.0));
        vec3 white = vec3(0.86, 0.82, 0.80) - 0.25 * smoothstep(0.6, 1.3, angle);
        vec3 ring = iris * (0.65 + 0.5 * sin(atan(inside.x, inside.y) * 23.0) * 0.25);
        vec3 coloured = mix(vec3(0.02), ring, smoothstep(pupil, pupil + 0.04, angle));
        base = vec4(mix(coloured, white, smoothstep(0.47, 0.53, angle)), 1.0);
        gloss = 0.9;
    }
    vec3 light = ambient + sky * (0.5 + 0.5 * dot(normal, up));
    vec3 view = normalize(-seen);
    float glint = 0.0;
    for (int i = 0; i < 2; i++) {
        float lit = max(dot(normal, lights[i]), 0.0);
        light += light_colours[i] * lit;
        glint += pow(max(dot(normal, normalize(lights[i] + view)), 0.0), 24.0) * lit * dot(light_colours[i], vec3(0.33));
    }
    result = vec4(base.rgb * light + gloss * glint, kind == 1 ? base.a : 1.0);
}
"""


@dataclass
class Part:
    """Triangles that are drawn with one texture: vertices follow the base by weights and offset."""

    corners: np.ndarray             # (n, 3) into the kit's vertices
    weights: np.ndarray             # (n, 3)
    offsets: np.ndarray             # (n, 3) head frame, metres
    uv: np.ndarray                  # (n, 2)
    triangles: np.ndarray           # (T, 3)
    image: np.ndarray               # (h, w, 4) uint8 RGBA

    def vertices(self, base: np.ndarray) -> np.ndarray:
        return (base[self.corners] * self.weights[..., None]).sum(1) + self.offsets


def read_proxy(path: Path, kit: Kit) -> Part | None:
    """A MakeHuman proxy in three.js JSON, format 3; None if it hangs on vertices outside the kit."""
    data = json.loads(path.read_text(encoding="utf-8"))
    corners = kit.place[np.array(data["ref_vIdxs"])]
    if (corners < 0).any():
        return None
    uvs = np.array(data["uvs"][0]).reshape(-1, 2)
    stream, position, polygons = data["faces"], 0, []
    while position < len(stream):
        kind = stream[position]
        count = 4 if kind & 1 else 3
        vertex = stream[position + 1:position + 1 + count]
        position += 1 + count + (1 if kind & 2 else 0) + (1 if kind & 4 else 0)
        texture = stream[position:position + count] if kind & 8 else vertex
        position += count if kind & 8 else 0
        position += (1 if kind & 16 else 0) + (count if kind & 32 else 0)
        position += (1 if kind & 64 else 0) + (count if kind & 128 else 0)
        polygons += [list(zip(vertex, texture))[k] for k in ((0, 1, 2) if count == 3 else (0, 1, 2, 0, 2, 3))]
    pairs, triangles = np.unique(np.array(polygons), axis=0, return_inverse=True)
    vertex = pairs[:, 0]
    image = cv2.imread(str(path.parent / data["materials"][0]["mapDiffuse"]), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGBA if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)
    image = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)
    uv = uvs[pairs[:, 1]] * [1, -1] + [0, 1]                # v down, as the image's rows
    return Part(corners[vertex], np.array(data["weights"], np.float32)[vertex],
                (np.array(data["offsets"], np.float32) * [1, -1, -1] * kit.scale).astype(np.float32)[vertex],
                uv.astype(np.float32), triangles.reshape(-1, 3).astype(np.int32), image)


class Renderer:
    """Holds the GL context, the head's fixed geometry and the proxies."""

    def __init__(self, kit: Kit, hm08: Hm08, proxies: Path, pixels: int = PIXELS, samples: int = SAMPLES) -> None:
        """pixels: side of the pictures. samples: of a pixel, for smooth edges; 0 is one."""
        self.kit, self.pixels = kit, pixels
        self.context = moderngl.create_context(standalone=True, backend="egl")
        self.program = self.context.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self.target = self.context.framebuffer(
            [self.context.renderbuffer((pixels, pixels), 4, samples=samples)],
            self.context.depth_renderbuffer((pixels, pixels), samples=samples))
        self.resolved = self.context.framebuffer([self.context.renderbuffer((pixels, pixels), 4)])
        self._body(hm08)
        self.hair, self.beards, self.extras = [], [], []
        for path in sorted(proxies.glob("hair/*/*.json")):
            part = read_proxy(path, kit)
            if part is not None:
                (self.beards if path.stem in ("Full_beard", "Moustache") else self.hair).append(part)
        for name in ("glasses", "fedora", "fedora_cocked", "Fishing_Hat_01"):
            path = proxies / f"clothes/{name}/{name}.json"
            part = read_proxy(path, kit) if path.exists() else None
            if part is not None:
                self.extras.append((name, part))
        self.brows = [part for path in sorted(proxies.glob("eyebrows/eyebrow0*/*.json"))
                      if (part := read_proxy(path, kit)) is not None]

    def _body(self, hm08: Hm08) -> None:
        """The head's own triangles with their UVs and paint; kinds 0 (skin) and 2 (eyeballs)."""
        kit = self.kit
        data = np.load(Path(__file__).parent.parent / "prn_blender/prn/hm08_face.npz")
        shipped = data["hm08_vertices"].astype(int)
        layout_uv = np.zeros((len(kit.mean), 2), np.float32)
        on_layout = np.zeros(len(kit.mean), bool)
        face = kit.place[shipped[data["face_vertices"].astype(int)]]
        layout_uv[face], on_layout[face] = data["face_uv"], True
        # The photograph fades into flat skin over the outermost vertices of the layout.
        fade = np.zeros(len(kit.mean), np.float32)
        fade[face] = np.clip(np.minimum.reduce([data["face_uv"][:, 0], 1 - data["face_uv"][:, 0],
                                                data["face_uv"][:, 1], 1 - data["face_uv"][:, 1]]) / 0.07 - 0.2, 0, 1)
        paint = np.zeros((len(kit.mean), 3), np.float32)
        whole = (kit.place[hm08.quads] >= 0).all(1)
        islands, head_island = hm08.islands, hm08.islands[hm08.head_quads[0]]
        for island in np.unique(islands[whole & (islands >= 0)]):
            quads = hm08.quads[(islands == island) & whole]
            height = hm08.vertices[quads].mean((0, 1))[1]
            count = len(quads)
            if island != head_island and height > 6.0:          # mouth cavity, eye sockets
                inner = np.setdiff1d(kit.place[np.unique(quads)], face)
                paint[inner] = (0.30, 0.10, 0.09) if count > 350 else (0.45, 0.22, 0.20)
        colours = {"helper-upper-teeth": (0.85, 0.82, 0.74), "helper-lower-teeth": (0.80, 0.77, 0.70),
                   "helper-tongue": (0.62, 0.30, 0.29)}
        skin = [hm08.quads[whole & (hm08.groups == "body")]]
        for group, colour in colours.items():
            quads = hm08.quads[whole & (hm08.groups == group)]
            paint[kit.place[np.unique(quads)]] = colour
            skin.append(quads)
        quads = kit.place[np.concatenate(skin)]
        self.skin = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
        eyes = kit.place[hm08.quads[np.isin(hm08.groups, ["helper-l-eye", "helper-r-eye"])]]
        self.eyes = np.concatenate([eyes[:, [0, 1, 2]], eyes[:, [0, 2, 3]]]).astype(np.int32)
        used = np.unique(self.eyes)
        local = np.zeros_like(kit.mean)
        for sign in (-1, 1):
            one = used[np.sign(kit.mean[used, 0]) == sign]
            local[one] = kit.mean[one] - kit.mean[one].mean(0)
        # Below the collar everything is cloth; its colour is the tint's multiplier.
        self.below_collar = kit.mean[:, 1] > 0.195
        self.layout_uv, self.local = layout_uv, local.astype(np.float32)
        self.paint = np.concatenate([paint, (fade * on_layout)[:, None]], 1).astype(np.float32)

    def _normals(self, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        a, b, c = vertices[triangles[:, 0]], vertices[triangles[:, 1]], vertices[triangles[:, 2]]
        faces = np.cross(b - a, c - a)
        result = np.stack([sum(np.bincount(triangles[:, k], faces[:, axis], len(vertices)) for k in range(3))
                           for axis in range(3)], 1)
        return (result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)).astype(np.float32)

    def _draw(self, kind: int, vertices: np.ndarray, normals: np.ndarray, uv: np.ndarray, colour: np.ndarray,
              local: np.ndarray, triangles: np.ndarray, image: np.ndarray | None) -> None:
        texture = None
        if image is not None:
            texture = self.context.texture(image.shape[1::-1], image.shape[2], np.ascontiguousarray(image).tobytes())
            texture.build_mipmaps()
            texture.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
            texture.use(0)
        self.program["kind"] = kind
        data = np.concatenate([vertices, normals, uv, colour, local], 1).astype(np.float32)
        buffer = self.context.buffer(data.tobytes())
        index = self.context.buffer(triangles.astype(np.int32).tobytes())
        array = self.context.vertex_array(
            self.program, [(buffer, "3f 3f 2f 4f 3f", "position", "normal", "uv", "colour", "local")], index)
        array.render(moderngl.TRIANGLES)
        for thing in (array, buffer, index, texture):
            if thing is not None:
                thing.release()

    def draw(self, rng: np.random.Generator, shape: np.ndarray, rotation: np.ndarray, translation: np.ndarray,
             focal: float, centre: np.ndarray, skin: np.ndarray, background: np.ndarray,
             features: np.ndarray | None = None, wear: str | None = None) -> np.ndarray:
        """One picture (pixels, pixels, 3) uint8 RGB of a head (V, 3) in the head frame, random in light and dress.

        skin: (256, 256, 3) texture on the UV layout. background: (pixels, pixels, 3).
        features: (K, 2) pixels of eyes, nose and mouth: hair that hides most of what they enclose is left off, for nobody
        could say what is under it. wear: "glasses" or "beard", put on besides what chance gives.
        """
        program = self.program
        for name, value in (("rotation", rotation.T.astype("f4").tobytes()), ("translation", translation.astype("f4")),
                            ("centre", centre.astype("f4"))):
            program[name].write(value if isinstance(value, bytes) else value.tobytes())
        program["focal"], program["pixels"] = float(focal), float(self.pixels)
        self._light(rng)
        self.target.use()
        self.context.clear(0, 0, 0, 0)
        self.context.enable(moderngl.DEPTH_TEST)
        self.context.disable(moderngl.BLEND)
        flat = skin[205:250, 60:196].reshape(-1, 3).mean(0) / 255
        program["flat_skin"].write(flat.astype("f4").tobytes())
        program["tone"].write(np.ones(3, "f4").tobytes())
        program["shine"] = float(rng.uniform(0, 0.25))
        normals = self._normals(shape, self.skin)
        paint = self.paint.copy()
        paint[self.below_collar, :3] = rng.uniform(0.03, 0.9, 3)
        paint[self.below_collar, 3] = 0
        self._draw(0, shape, normals, self.layout_uv, paint, self.local, self.skin, skin)
        program["iris"].write(np.array([(0.25, 0.14, 0.07), (0.35, 0.24, 0.12), (0.3, 0.45, 0.55), (0.35, 0.42, 0.28),
                                        (0.12, 0.07, 0.04)][rng.integers(5)], "f4").tobytes())
        program["pupil"] = float(rng.uniform(0.15, 0.3))
        eye_normals = self._normals(shape, self.eyes)
        self._draw(2, shape, eye_normals, self.layout_uv, paint, self.local, self.eyes, None)
        bare = None if features is None else self._picture()
        self._dress(rng, shape, wear)
        drawn = self._picture()
        if bare is not None and hidden(bare, drawn, features) > MOST_HIDDEN:
            drawn = bare
        share = drawn[..., 3:].astype(np.uint16)
        return ((drawn[..., :3] * share + background * (255 - share)) // 255).astype(np.uint8)

    def _picture(self) -> np.ndarray:
        """(pixels, pixels, 4) uint8 RGBA, what has been drawn so far."""
        self.context.copy_framebuffer(self.resolved, self.target)
        return np.frombuffer(self.resolved.read(components=4), np.uint8).reshape(self.pixels, self.pixels, 4)

    def _light(self, rng: np.random.Generator) -> None:
        def tinted(level: float) -> np.ndarray:
            return (level * np.exp(rng.normal(0, 0.07, 3))).astype("f4")
        self.program["ambient"].write(tinted(rng.uniform(0.35, 0.8)).tobytes())
        self.program["sky"].write(tinted(rng.uniform(0.05, 0.45)).tobytes())
        up = rng.normal(0, 0.5, 3) + [0, -1, 0]
        self.program["up"].write((up / np.linalg.norm(up)).astype("f4").tobytes())
        lights, colours = [], []
        for number in range(2):
            direction = rng.normal(0, 1, 3) + [0, -0.4, -0.8]
            lights.append(direction / np.linalg.norm(direction))
            colours.append(tinted(rng.uniform(0.0, 0.9 if number == 0 else 0.4)))
        self.program["lights"].write(np.array(lights, "f4").tobytes())
        self.program["light_colours"].write(np.array(colours, "f4").tobytes())

    def _dress(self, rng: np.random.Generator, shape: np.ndarray, wear: str | None) -> None:
        """Hair on most heads; now and then a beard, glasses, a hat."""
        parts: list[Part] = []
        if rng.random() < 0.87:
            parts.append(self.hair[rng.integers(len(self.hair))])
        if rng.random() < 0.10 and self.beards:
            parts.append(self.beards[rng.integers(len(self.beards))])
        if rng.random() < 0.25 and self.brows:
            parts.append(self.brows[rng.integers(len(self.brows))])
        for name, part in self.extras:
            if rng.random() < (0.14 if name == "glasses" else 0.02):
                parts.append(part)
        if wear is not None:
            parts.append({"beard": self.beards[0], **dict(self.extras)}[wear])
        self._put_on(parts, shape, np.exp(rng.normal(-0.2, 0.5)) * np.exp(rng.normal(0, 0.15, 3)))

    def _put_on(self, parts: list[Part], shape: np.ndarray, hair_tone: np.ndarray) -> None:
        self.program["shine"] = 0.1
        self.context.enable(moderngl.BLEND)
        self.context.blend_func = (moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA, moderngl.ONE, moderngl.ONE)
        for part in parts:
            vertices = part.vertices(shape)
            normals = vertices - vertices.mean(0)
            normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
            self.program["tone"].write(hair_tone.astype("f4").tobytes())
            blank = np.zeros((len(vertices), 7), np.float32)
            self._draw(1, vertices, normals, part.uv, blank[:, :4], blank[:, 4:], part.triangles, part.image)


def hidden(bare: np.ndarray, dressed: np.ndarray, features: np.ndarray) -> float:
    """The share of the pixels inside the hull of `features` (K, 2) that hair, hat or glasses changed."""
    inside = cv2.fillConvexPoly(np.zeros(bare.shape[:2], np.uint8), cv2.convexHull(np.int32(np.round(features))), 1) > 0
    changed = np.abs(dressed[inside].astype(np.int16) - bare[inside]).max(1, initial=0) > CHANGED
    return float(changed.mean()) if changed.size else 0.0
