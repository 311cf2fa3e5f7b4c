"""Everything a capture knows, as files for other programs: `build.py capture --write NAME,...`, or `write_outputs`.

What the original PRN's demo writes, and a little more. Each writer puts one or a few files beside the capture, named after
it; all appear together and whole, or not at all. numpy and OpenCV only; never imports bpy. Formats: docs/prnet.md.

Frames as in `FaceCapture`: image (pixels, x right, y down, z away) and head (metres). OBJ and PLY have y up and z towards the
viewer instead, as programs expect them. Vertices are the texels on the face, row by row, in every file the same.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from .capture import FaceCapture
from .errors import CaptureError
from .mpfb_target import BODIES, likeness, target_offsets, target_text
from .openings import opening_grid, opening_vertices
from .position_map import SIZE, Topology, texels_to_uv
from .preview import wire_texture
from .render import Picture, draw_in_bands, triangulate
from .texture import make_texture

UP = np.float32([1, -1, -1])  # image frame -> y up, z towards the viewer: a turn, no mirroring
NOTHING = 1e10  # depth where there is no face, as in Blender's own depth passes
LINES = [(0, 17), (17, 22), (22, 27), (27, 31), (31, 36), (36, 42), (42, 48), (48, 60), (60, 68)]  # of the landmarks
CLOSED = {36, 42, 48, 60}  # those that begin a ring
OVERLAY_SIDE = 2048  # pixels at most


def write_outputs(out: str | os.PathLike, faces: FaceCapture | Sequence[FaceCapture], names: Sequence[str],
                  textures: Sequence[np.ndarray] | None = None) -> list[Path]:
    """Write some of OUTPUTS for one face or several; returns the files.

    out: the capture's file, whose folder and name the files take: face.blend gives face_landmarks.txt; of several faces the
    second's is face_2_landmarks.txt. textures (N, N, 3) uint8: made here if they are not given and needed. Existing files
    are replaced. Raises CaptureError for a name that is not known, OSError if the folder cannot be written.
    """
    check_names(names)
    faces = [faces] if isinstance(faces, FaceCapture) else list(faces)
    out = Path(out)
    with tempfile.TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent) as folder:
        for number, face in enumerate(faces):
            stem = Path(folder) / (out.stem if len(faces) == 1 else f"{out.stem}_{number + 1}")
            files = Files(face, stem, None if textures is None else textures[number])
            for name in dict.fromkeys(names):
                OUTPUTS[name](files)
        written = []
        for piece in sorted(Path(folder).iterdir()):
            written.append(out.parent / piece.name)
            os.replace(piece, written[-1])
    return written


def check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in OUTPUTS:
            raise CaptureError(f"'{name}' is not an output that can be written: choose from {', '.join(OUTPUTS)}.")


class Files:
    """One face and where its files go."""

    def __init__(self, face: FaceCapture, stem: Path, texture: np.ndarray | None) -> None:
        self.face = face
        self.stem = stem
        self._texture = texture

    def path(self, ending: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}_{ending}")

    @property
    def texture(self) -> np.ndarray:
        if self._texture is None:
            self._texture = make_texture(self.face)
        return self._texture

    def colours(self) -> np.ndarray:
        """(V, 3) uint8 RGB of the vertices."""
        return self.face.topology.vertices_of(cv2.resize(self.texture, (SIZE, SIZE), interpolation=cv2.INTER_AREA))

    def picture(self, ending: str, pixels: np.ndarray) -> None:
        """pixels (H, W) or (H, W, 3) RGB, uint8 or uint16, as PNG."""
        _encode(self.path(ending), pixels if pixels.ndim == 2 else pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])

    def floats(self, ending: str, values: np.ndarray) -> None:
        """values (H, W) or (H, W, 3) float32, as EXR."""
        os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"  # OpenCV asks for it, for the sake of files from strangers
        _encode(self.path(ending), values if values.ndim == 2 else values[..., ::-1],
                [cv2.IMWRITE_EXR_TYPE, cv2.IMWRITE_EXR_TYPE_FLOAT])

    def json(self, ending: str, content: dict) -> None:
        self.path(ending).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _encode(path: Path, pixels: np.ndarray, options: list[int]) -> None:
    """Encoded in memory: OpenCV's own writing fails on some names without a word."""
    path.write_bytes(cv2.imencode(path.suffix, pixels, options)[1].tobytes())


# ---- meshes ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def dense_mesh(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
    """Quads (F, 4) into the vertices of `vertices_of`, counter-clockwise from outside, and their UVs (V, 2), v up."""
    mask = topology.mask
    number = np.cumsum(mask.ravel()).reshape(mask.shape) - 1
    row, column = np.nonzero(mask[:-1, :-1] & mask[1:, :-1] & mask[1:, 1:] & mask[:-1, 1:])
    quads = np.stack([number[row, column], number[row + 1, column], number[row + 1, column + 1], number[row, column + 1]], 1)
    rows, columns = np.nonzero(mask)
    return quads.astype(np.int32), texels_to_uv(np.stack([columns, rows], 1).astype(np.float32))


def seen_vertices(face: FaceCapture) -> np.ndarray:
    """(V,) bool: whether the camera sees the vertex, inside the picture and not hidden by another part of the face."""
    places = face.topology.vertices_of(face.position_map)[:, :2]
    height, width = face.image.shape[:2]
    inside = ((places > -0.5) & (places < (width - 0.5, height - 0.5))).all(1)
    return inside & (face.topology.vertices_of(face.visibility) > 0)


def solid(face: FaceCapture) -> tuple[np.ndarray, np.ndarray]:
    """The face with its eyes and mouth filled: vertices (V, 3) in the image frame and quads (F, 4)."""
    grid, openings = face.topology.grid(1), opening_grid(face.topology)
    film = face.seen(opening_vertices(face.head_map, face.topology))
    return (np.concatenate([grid.sample(face.position_map), film]).astype(np.float32),
            np.concatenate([grid.quads, openings.quads + len(grid.uvs)]))


def obj_text(vertices: np.ndarray, quads: np.ndarray, *, colours: np.ndarray | None = None, uvs: np.ndarray | None = None,
             material: str = "") -> str:
    """An OBJ of vertices (V, 3), quads (F, 4), colours (V, 3) uint8 as 0..1 behind the coordinates, uvs (V, 2)."""
    lines = [f"mtllib {material}.mtl\n"] if material else []
    if colours is None:
        lines += ["v %.5f %.5f %.5f\n" % tuple(row) for row in vertices.tolist()]
    else:
        lines += ["v %.5f %.5f %.5f %.4f %.4f %.4f\n" % tuple(row) for row in np.hstack([vertices, colours / 255]).tolist()]
    corners = (quads + 1).tolist()
    if uvs is None:
        lines += ["f %d %d %d %d\n" % tuple(row) for row in corners]
    else:
        lines += ["vt %.6f %.6f\n" % tuple(row) for row in uvs.tolist()]
        lines += ["usemtl Face\n"] + ["f %d/%d %d/%d %d/%d %d/%d\n" % (a, a, b, b, c, c, d, d) for a, b, c, d in corners]
    return "".join(lines)


def ply_bytes(vertices: np.ndarray, colours: np.ndarray, triangles: np.ndarray) -> bytes:
    """A binary PLY of vertices (V, 3), colours (V, 3) uint8 and triangles (T, 3)."""
    rows = np.zeros(len(vertices), [("place", "<f4", 3), ("colour", "u1", 3)])
    rows["place"], rows["colour"] = vertices, colours
    faces = np.zeros(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}",
              *(f"property float {axis}" for axis in "xyz"), *(f"property uchar {colour}" for colour in ("red", "green", "blue")),
              f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    return "\n".join(header).encode() + rows.tobytes() + faces.tobytes()


# ---- the writers -------------------------------------------------------------------------------------------------


def write_landmarks(files: Files) -> None:
    face = files.face
    points = face.topology.landmarks_of(face.position_map)
    np.savetxt(files.path("landmarks.txt"), points, "%.4f")
    files.json("landmarks.json", {
        "convention": "iBUG 68; pixels of the photo: x right, y down, z away from the camera, pixel centres at integers",
        "image_size": list(face.image.shape[1::-1]), "landmarks": np.round(points, 4).tolist(),
        "head_landmarks_metres": np.round(face.topology.landmarks_of(face.head_map), 6).tolist()})


def write_vertices(files: Files) -> None:
    np.save(files.path("vertices.npy"), files.face.topology.vertices_of(files.face.position_map).astype(np.float32))


def write_obj(files: Files) -> None:
    """As the photo shows it, in pixels: once with colours at the vertices, once with the texture."""
    face = files.face
    quads, uvs = dense_mesh(face.topology)
    vertices = (face.topology.vertices_of(face.position_map) - (0, face.image.shape[0] - 1, 0)) * UP
    files.path("colours.obj").write_text(obj_text(vertices, quads, colours=files.colours()))
    textured = files.path("textured.obj")
    textured.write_text(obj_text(vertices, quads, uvs=uvs, material=textured.stem))
    textured.with_suffix(".mtl").write_text(f"newmtl Face\nKd 1 1 1\nKs 0 0 0\nmap_Kd {textured.stem}.png\n")
    files.picture("textured.png", files.texture)


def write_obj_front(files: Files) -> None:
    """The upright head, in metres, with colours at the vertices."""
    face = files.face
    vertices = face.topology.vertices_of(face.head_map) * UP
    files.path("front.obj").write_text(obj_text(vertices, dense_mesh(face.topology)[0], colours=files.colours()))


def write_mesh(files: Files) -> None:
    """The whole face as PLY, in pixels as the photo shows it."""
    face = files.face
    vertices = (face.topology.vertices_of(face.position_map) - (0, face.image.shape[0] - 1, 0)) * UP
    triangles = triangulate(dense_mesh(face.topology)[0])
    files.path("mesh.ply").write_bytes(ply_bytes(vertices, files.colours(), triangles))


def write_mesh_cropped(files: Files) -> None:
    """The same, cut down to what the photo shows."""
    face = files.face
    seen = seen_vertices(face)
    vertices = (face.topology.vertices_of(face.position_map) - (0, face.image.shape[0] - 1, 0)) * UP
    triangles = triangulate(dense_mesh(face.topology)[0])
    triangles = triangles[seen[triangles].all(1)]
    kept, triangles = np.unique(triangles, return_inverse=True)
    files.path("mesh_cropped.ply").write_bytes(ply_bytes(vertices[kept], files.colours()[kept], triangles.reshape(-1, 3)))


def write_depth(files: Files) -> None:
    face = files.face
    height, width = face.image.shape[:2]
    vertices, quads = solid(face)
    depth = draw_in_bands(vertices, triangulate(quads), width, height).depth
    covered = np.isfinite(depth)
    near, far = (float(depth[covered].min()), float(depth[covered].max())) if covered.any() else (0.0, 0.0)
    files.floats("depth.exr", np.where(covered, depth, NOTHING).astype(np.float32))
    share = (far - np.where(covered, depth, far)) / max(far - near, 1e-6)
    files.picture("depth.png", np.where(covered, np.rint(1 + share * 65534), 0).astype(np.uint16))
    files.json("depth.json", {
        "convention": "depth.exr: z in pixels of the photo, away from the camera, 1e10 where there is no face; depth.png: "
                      "65535 at near, 1 at far, in between linear, 0 where there is no face",
        "near": near, "far": far, "pixels_per_metre": face.pixels_per_metre})


def write_pose(files: Files) -> None:
    face = files.face
    matrix = np.column_stack([face.pixels_per_metre * face.rotation, face.translation])
    np.savetxt(files.path("pose.txt"), matrix, "%.8f")
    files.json("pose.json", {
        "convention": "matrix (3x4): point of the upright head (metres, x to the viewer's right, y down, z into the head, origin "
                      "between the eyes) -> pixels of the photo (x right, y down, z away); angles in degrees: yaw positive to the "
                      "viewer's left, pitch up, roll clockwise; rotation = Rx(-pitch) Ry(yaw) Rz(roll); with a focal (pixels) x and y then "
                      "come nearer to the picture's middle, by focal / (focal + z)",
        "matrix": matrix.tolist(), "yaw": face.yaw, "pitch": face.pitch, "roll": face.roll,
        "rotation": face.rotation.tolist(), "translation": face.translation.tolist(),
        "pixels_per_metre": face.pixels_per_metre, "focal": face.lens.focal if face.lens else None,
        "image_size": list(face.image.shape[1::-1])})


def write_uv_position(files: Files) -> None:
    files.floats("uv_position.exr", files.face.position_map.astype(np.float32))


def write_uv_texture(files: Files) -> None:
    files.picture("uv_texture.png", files.texture)


def write_visibility(files: Files) -> None:
    face = files.face
    files.picture("visibility.png", np.rint(face.visibility * 255).astype(np.uint8))
    np.save(files.path("visibility.npy"), seen_vertices(face))


def write_mask(files: Files) -> None:
    face = files.face
    height, width = face.image.shape[:2]
    vertices, quads = solid(face)
    files.picture("mask.png", draw_in_bands(vertices, triangulate(quads), width, height).covered.astype(np.uint8) * 255)
    seen = np.zeros((SIZE, SIZE), np.uint8)
    seen[face.topology.mask] = seen_vertices(face) * 255
    files.picture("uv_mask.png", seen)


def write_mpfb_target(files: Files) -> None:
    """The likeness for hm08's base mesh and for MPFB's average woman and man, and the expression, which goes on top of each."""
    head = likeness(files.face)
    for body in BODIES:
        at_rest, expression = target_offsets(*head, body)
        name = "likeness.target" if body == "base" else f"likeness_{body}.target"
        files.path(name).write_text(target_text(at_rest, "a person's head, from a photograph; goes onto: " + body))
        if body == "base":
            files.path("expression.target").write_text(target_text(expression, "the photograph's expression, on that head"))


def write_overlay(files: Files) -> None:
    files.picture("overlay.png", overlay(files.face))


def overlay(face: FaceCapture) -> np.ndarray:
    """The photo (H, W, 3) uint8 with the mesh, the 68 landmarks and the head's box over it, at most 2048 pixels a side."""
    scale = min(1.0, OVERLAY_SIDE / max(face.image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in face.image.shape[:2])
    photo = cv2.resize(face.image, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else face.image.copy()

    def placed(points: np.ndarray) -> np.ndarray:
        return ((points + (0.5, 0.5, 0)) * scale - (0.5, 0.5, 0)).astype(np.float32)

    grid = face.topology.grid(2)
    vertices = placed(grid.sample(face.position_map))
    # Only the part round the face is drawn: the picture may be much larger.
    low = np.clip(np.floor(vertices[:, :2].min(0)) - 2, 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(vertices[:, :2].max(0)) + 3, low + 1, (width, height)).astype(int)
    part = photo[low[1]:high[1], low[0]:high[0]]
    meshed = Picture(vertices - (*low, 0), grid.quads, *(high - low)).textured(part, grid.uvs, wire_texture())
    part[:] = cv2.addWeighted(part, 0.6, meshed, 0.4, 0)

    thick = max(1, round(np.ptp(vertices[:, 0]) / 250))

    def line(points: np.ndarray, colour: tuple[int, int, int], closed: bool) -> None:
        cv2.polylines(photo, [np.rint(points[:, :2] * 16).astype(np.int32)], closed, colour, thick, cv2.LINE_AA, shift=4)

    corners = np.array([[x, y, z] for z in (-0.055, 0.09) for x, y in ((-0.08, -0.1), (0.08, -0.1), (0.08, 0.12), (-0.08, 0.12))])
    box = placed(face.seen(corners))
    line(box[4:], (40, 130, 60), True)
    for corner in range(4):
        line(box[[corner, corner + 4]], (40, 160, 70), False)
    line(box[:4], (60, 230, 90), True)
    points = placed(face.topology.landmarks_of(face.position_map))
    for first, last in LINES:
        line(points[first:last], (255, 255, 255), first in CLOSED)
    for x, y in np.rint(points[:, :2] * 16).astype(int):
        cv2.circle(photo, (int(x), int(y)), 16 * thick, (255, 60, 60), -1, cv2.LINE_AA, shift=4)
    return photo


OUTPUTS: dict[str, Callable[[Files], None]] = {
    "landmarks": write_landmarks, "vertices": write_vertices, "obj": write_obj, "obj-front": write_obj_front,
    "mesh": write_mesh, "mesh-cropped": write_mesh_cropped, "depth": write_depth, "pose": write_pose,
    "uv-position": write_uv_position, "uv-texture": write_uv_texture, "visibility": write_visibility, "mask": write_mask,
    "overlay": write_overlay, "mpfb-target": write_mpfb_target,
}
