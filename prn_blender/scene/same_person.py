"""Shape keys for a face that was captured from a photo, out of a video of the same person. Touches the face's mesh."""

from __future__ import annotations

import bpy
import numpy as np

from ..prn.arkit import ARKIT_NAMES
from ..prn.errors import CaptureError
from ..prn.head_topology import load_head_topology
from ..prn.take import Performance
from ..prn.position_map import STRIDES, Grid, Topology
from . import versions
from .face import FACTS
from .frames import to_blender
from .mesh import set_key
from .performance import expression_action, scene_frames


def grid_of(mesh: bpy.types.Mesh, topology: Topology) -> Grid:
    """The grid that a captured mesh was built as. Raises CaptureError if it has been remodelled since."""
    for grid in (*(topology.grid(stride) for stride in STRIDES), topology.loops()):
        if (len(grid.uvs), len(grid.quads)) == (len(mesh.vertices), len(mesh.polygons)):
            return grid
    raise CaptureError(f"The mesh of '{mesh.name}' has not the vertices any more that it was captured with: capture the face again.")


def head_keys(face: bpy.types.Object) -> bool:
    """Whether the face is a head, which has ARKit shape keys from the beginning."""
    keys, topology = face.data.shape_keys, load_head_topology()
    return len(face.data.vertices) in (topology.count, topology.bare) and keys is not None and set(ARKIT_NAMES) <= set(keys.key_blocks.keys())


def add_shapes(face: bpy.types.Object, performance: Performance, scene: bpy.types.Scene, name: str) -> bpy.types.Action:
    """Gives a captured face the 52 ARKit shape keys of a performance, and its motion; returns the expression's action.

    The Basis becomes the face at rest, without the photo's own expression as the network saw it; the face as it was in the
    photo stays as the key "Photo". A head keeps its own shape keys and gets the motion. Raises CaptureError, before anything is changed, for a mesh that is not a captured one or
    has shape keys already.
    """
    if face[FACTS].get("topology", performance.topology.name) != performance.topology.name:
        raise CaptureError(f"'{face.name}' was captured with weights of another topology, which ARKit shape keys do not fit: "
                           f"capture it with the weights that came with the program.")
    if head_keys(face):
        expression = expression_action(performance, scene_frames(performance, scene, scene.frame_start), name)
        versions.assign_action(face.data.shape_keys, expression)
        return expression
    if face.data.shape_keys:
        raise CaptureError(f"'{face.name}' has shape keys already: remove them, or capture the face again.")
    grid = grid_of(face.data, performance.topology)
    shapes = to_blender(performance.vertices(grid.sample).shapes)
    photo = np.empty(3 * len(face.data.vertices), np.float32)
    face.data.vertices.foreach_get("co", photo)
    photo = photo.reshape(-1, 3)
    weights = np.array(face[FACTS].get("expression_weights", [0.0] * len(ARKIT_NAMES)), np.float32)
    rest = photo - np.tensordot(weights, shapes, 1)

    face.data.vertices.foreach_set("co", np.ascontiguousarray(rest, np.float32).ravel())
    face.shape_key_add(name="Basis", from_mix=False)
    for shape, offset in zip(("Photo", *ARKIT_NAMES), (photo - rest, *shapes)):
        set_key(face.shape_key_add(name=shape, from_mix=False), rest + offset)
    expression = expression_action(performance, scene_frames(performance, scene, scene.frame_start), name)
    versions.assign_action(face.data.shape_keys, expression)
    return expression
