"""The face's mesh datablock, filled in bulk. Touches bpy.data.meshes."""

import bpy
import numpy as np


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
