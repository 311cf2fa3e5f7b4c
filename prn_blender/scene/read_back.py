"""A capture's .blend file read back: its faces as they lie over the photo. Touches bpy: opens the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bpy
import cv2
import numpy as np

from ..prn.errors import CaptureError


_BEGINNINGS = b"BLENDER", b"\x28\xb5\x2f\xfd", b"\x1f\x8b"  # of .blend files: plain, and packed by newer and older versions


@dataclass(frozen=True)
class PlacedMesh:
    """One textured mesh as the capture's camera sees it."""

    vertices: np.ndarray  # (V, 3) parts of the photo's width: x right and y down from the photo's corner, z away
    triangles: np.ndarray  # (T, 3) into the vertices
    uvs: np.ndarray  # (V, 2), v up
    texture: np.ndarray | None  # (N, N, 3) uint8 RGB, as it is in the file


def read_faces(path: Path) -> tuple[list[PlacedMesh], float]:
    """The faces of a capture's file, and its photo's height over its width.

    Opens the file in Blender. Modifiers and shape keys count as they stand; what is hidden in renders is left out.
    Raises CaptureError if it is no .blend file, or no capture.
    """
    foreign = CaptureError(f"'{path}' cannot be opened in Blender: give the .blend file that the capture wrote.")
    with open(path, "rb") as file:
        if not file.read(7).startswith(_BEGINNINGS):
            raise foreign
    try:
        bpy.ops.wm.open_mainfile(filepath=str(path.absolute()), load_ui=False)
    except RuntimeError:
        raise foreign from None
    scene = bpy.context.scene
    camera = scene.camera
    if camera is None or camera.data.type not in ("ORTHO", "PERSP") or not camera.data.background_images:
        raise CaptureError(f"'{path}' has no camera with a photo behind it: give the .blend file that the capture wrote.")
    width, height = scene.render.resolution_x, scene.render.resolution_y
    graph = bpy.context.evaluated_depsgraph_get()
    meshes = []
    for piece in scene.objects:
        image = _texture(piece) if piece.type == "MESH" and not piece.hide_render else None
        if image is not None:
            meshes.append(_placed(piece.evaluated_get(graph), camera, height / width, image))
    if not meshes:
        raise CaptureError(f"'{path}' has no face with a texture in it: give the .blend file that the capture wrote.")
    return meshes, height / width


def _texture(piece: bpy.types.Object) -> bpy.types.Image | None:
    material = piece.active_material
    if material is None or not material.use_nodes or not piece.data.uv_layers:
        return None
    return next((node.image for node in material.node_tree.nodes if node.type == "TEX_IMAGE" and node.image), None)


def _placed(piece: bpy.types.Object, camera: bpy.types.Object, aspect: float, image: bpy.types.Image) -> PlacedMesh:
    mesh = piece.to_mesh()
    mesh.calc_loop_triangles()
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", points)
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    triangles = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("loops", triangles)
    uvs = np.empty(len(mesh.loops) * 2, np.float32)
    mesh.uv_layers.active.uv.foreach_get("vector", uvs)
    slots = np.empty(len(mesh.loop_triangles), np.int32)
    mesh.loop_triangles.foreach_get("material_index", slots)
    matrix = np.array(camera.matrix_world.normalized().inverted() @ piece.matrix_world)
    seen = points.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
    placed = _projected(seen, camera) * (1, -1, -1) + (0.5, aspect / 2, 0)
    piece.to_mesh_clear()
    # A corner each: at a seam one vertex has several UVs.
    return PlacedMesh(placed[corners].astype(np.float32), triangles.reshape(-1, 3)[slots == piece.active_material_index], uvs.reshape(-1, 2), _pixels(image))


def _projected(seen: np.ndarray, camera: bpy.types.Object) -> np.ndarray:
    """Points (V, 3) before the camera, in its axes, in widths of its picture; a lens's depths so that flat surfaces stay flat."""
    if camera.data.type == "ORTHO":
        return seen / camera.data.ortho_scale
    zoom = camera.data.lens / camera.data.sensor_width
    distance, usual = np.maximum(-seen[:, 2:], 1e-6), max(camera.location.length, 1e-6)
    return zoom * np.concatenate([seen[:, :2] / distance, usual / distance - 1], 1)


def _pixels(image: bpy.types.Image) -> np.ndarray | None:
    """An image's own 8-bit RGB pixels, (H, W, 3), packed or from its file; None if neither can be read."""
    if image.packed_file:
        data = np.frombuffer(image.packed_file.data, np.uint8)
    else:
        path = Path(bpy.path.abspath(image.filepath))
        if not path.is_file():
            return None
        data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return None if pixels is None else np.ascontiguousarray(pixels[..., ::-1])
