"""The head as an object: hm08's quads with its own UVs, a material a part, vertex groups, ARKit shape keys.

Touches bpy.data.meshes, objects and materials. At rest in its Basis; the photo's expression is set in the keys' values.
"""

from __future__ import annotations

import bpy
import numpy as np

from ..prn.arkit import ARKIT_NAMES
from ..prn.head import PARTS, load_head_topology
from .frames import to_blender
from .material import build_material

SLOTS = ("skin", "tongue", "teeth", "gums", "lashes", "white", "iris", "pupil", "cornea")  # mouth and sockets are skin
TITLES = {"skin": "Face Skin", "white": "Eye White", "iris": "Eye Iris", "pupil": "Eye Pupil", "cornea": "Eye Cornea"}
# Linear base colour and roughness of what the photo does not show.
LOOKS = {"tongue": ((0.45, 0.13, 0.13), 0.4), "teeth": ((0.72, 0.66, 0.54), 0.25), "gums": ((0.45, 0.13, 0.13), 0.4),
         "lashes": ((0.012, 0.009, 0.008), 0.7), "white": ((0.75, 0.72, 0.68), 0.3), "iris": ((0.10, 0.055, 0.03), 0.5),
         "pupil": ((0.002, 0.002, 0.002), 0.5), "cornea": ((0.0, 0.0, 0.0), 0.02)}
CORNEA_ALPHA = 0.06


def build_head_mesh(name: str, neutral: np.ndarray, texture: bpy.types.Image) -> bpy.types.Mesh:
    """The mesh of a head at rest. neutral (V, 3) head frame, metres; texture in hm08's UV layout."""
    topology = load_head_topology()
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(neutral))
    mesh.vertices.foreach_set("co", np.ascontiguousarray(to_blender(neutral), np.float32).ravel())
    corners = np.ascontiguousarray(topology.quads, np.int32).ravel()
    mesh.loops.add(len(corners))
    mesh.loops.foreach_set("vertex_index", corners)
    mesh.polygons.add(len(topology.quads))
    mesh.polygons.foreach_set("loop_start", np.arange(0, len(corners), 4, dtype=np.int32))
    for slot in SLOTS:
        mesh.materials.append(build_material(TITLES["skin"], texture) if slot == "skin" else part_material(slot))
    slot_of_part = np.array([SLOTS.index(part) if part in SLOTS else 0 for part in PARTS], np.int32)
    mesh.polygons.foreach_set("material_index", slot_of_part[topology.part])
    layer = mesh.uv_layers.new(name="UVMap")
    layer.uv.foreach_set("vector", np.ascontiguousarray(topology.texture[topology.corners], np.float32).ravel())
    mesh.update(calc_edges=True)
    mesh.shade_smooth()
    return mesh


def part_material(part: str) -> bpy.types.Material:
    colour, roughness = LOOKS[part]
    material = bpy.data.materials.new(TITLES.get(part, part.title()))
    material.use_nodes = True
    surface = material.node_tree.nodes["Principled BSDF"]
    surface.inputs["Base Color"].default_value = *colour, 1.0
    surface.inputs["Roughness"].default_value = roughness
    material.diffuse_color = *colour, 1.0
    if part == "cornea":
        # Thin and clear: what refraction would do to the iris costs every renderer dear, and exporters do not know it.
        surface.inputs["Alpha"].default_value = material.diffuse_color[3] = CORNEA_ALPHA
        material.surface_render_method = "BLENDED"
    return material


def add_groups(head: bpy.types.Object) -> None:
    """Vertex groups of the regions; soft ones have weights."""
    for name, weights in load_head_topology().groups.items():
        group = head.vertex_groups.new(name=name)
        steps = np.rint(weights * 20).astype(int)       # a call a weight, not one a vertex
        for step in np.unique(steps[steps > 0]):
            group.add(np.flatnonzero(steps == step).tolist(), step / 20, "REPLACE")


def add_shape_keys(head: bpy.types.Object, neutral: np.ndarray, shapes: np.ndarray, values: np.ndarray) -> None:
    """The Basis and the 52 ARKit shape keys. neutral (V, 3), shapes (52, V, 3) head frame, metres; values (52,)."""
    head.shape_key_add(name="Basis", from_mix=False)
    for name, shape, value in zip(ARKIT_NAMES, shapes, values):
        block = head.shape_key_add(name=name, from_mix=False)
        block.data.foreach_set("co", np.ascontiguousarray(to_blender(neutral + shape), np.float32).ravel())
        block.value = float(value)
