"""The face's mesh datablock and its ARKit shape keys, filled in bulk. Touches bpy.data.meshes and the object it is given."""

import bpy
import numpy as np

from ..prn.arkit import ARKIT_NAMES


def build_mesh(name: str, vertices: np.ndarray, quads: np.ndarray, uvs: np.ndarray) -> bpy.types.Mesh:
    """vertices (V, 3) metres in Blender's axes; quads (F, 4), counter-clockwise from outside; uvs (V, 2)."""
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(vertices))
    mesh.vertices.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())
    corners = np.ascontiguousarray(quads, np.int32).ravel()
    mesh.loops.add(len(corners))
    mesh.loops.foreach_set("vertex_index", corners)
    mesh.polygons.add(len(quads))
    mesh.polygons.foreach_set("loop_start", np.arange(0, len(corners), 4, dtype=np.int32))
    layer = mesh.uv_layers.new(name="UVMap")
    layer.uv.foreach_set("vector", np.ascontiguousarray(uvs[corners], np.float32).ravel())
    mesh.update(calc_edges=True)
    mesh.shade_smooth()
    return mesh


def set_key(block: bpy.types.ShapeKey, vertices: np.ndarray) -> None:
    """The vertices (V, 3) of a shape key, by the accessor that copies them in one piece: `data` goes through them one by one."""
    block.points.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())


def add_arkit_keys(face: bpy.types.Object, neutral: np.ndarray, shapes: np.ndarray, weights: np.ndarray) -> None:
    """The neutral (V, 3) and 52 relative shape keys with ARKit's names; shapes (52, V, 3) offsets, weights (52,) their values."""
    face.shape_key_add(name="Basis", from_mix=False)
    for shape, offsets, weight in zip(ARKIT_NAMES, shapes, weights):
        block = face.shape_key_add(name=shape, from_mix=False)
        block.value = weight  # Blender 5.0 begins at 1
        set_key(block, neutral + offsets)
