"""The head as an object: hm08's quads with its own UVs, a material a part, vertex groups.

Touches bpy.data.meshes, objects and materials. The mesh is the head at rest; `mesh.add_arkit_keys` gives it the photo's expression.
"""

from __future__ import annotations

import bpy
import numpy as np

from ..prn.colour import linear
from ..prn.head_topology import PARTS, load_head_topology
from .frames import to_blender
from .material import build_material

SLOTS = ("skin", "eyes", "cornea", "teeth", "gums", "tongue", "lashes")
SLOT_OF_PART = {"mouth": "skin", "sockets": "skin", "white": "eyes", "iris": "eyes", "pupil": "eyes"}
TITLES = {slot: slot.title() for slot in SLOTS} | {"skin": "Face Skin"}
# Linear base colour in full light, and roughness, of what the photo does not show.
LOOKS = {"tongue": ((0.45, 0.13, 0.13), 0.4), "teeth": ((0.72, 0.66, 0.54), 0.25), "gums": ((0.45, 0.13, 0.13), 0.4),
         "lashes": ((0.012, 0.009, 0.008), 0.7), "cornea": ((0.0, 0.0, 0.0), 0.02)}
CORNEA_ALPHA = 0.06


def build_head_mesh(name: str, neutral: np.ndarray, texture: bpy.types.Image, eyes: bpy.types.Image, white: float) -> bpy.types.Mesh:
    """The mesh of a head at rest. neutral (V, 3) head frame, metres, with or without lashes; texture in hm08's UV layout, eyes in the
    eyeball's; white: how bright a white thing is in the photo, 1 in full light."""
    topology = load_head_topology()
    shown = topology.quads_of(len(neutral))
    quads, part = topology.quads[shown], topology.part[shown]
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(neutral))
    mesh.vertices.foreach_set("co", np.ascontiguousarray(to_blender(neutral), np.float32).ravel())
    corners = np.ascontiguousarray(quads, np.int32).ravel()
    mesh.loops.add(len(corners))
    mesh.loops.foreach_set("vertex_index", corners)
    mesh.polygons.add(len(quads))
    mesh.polygons.foreach_set("loop_start", np.arange(0, len(corners), 4, dtype=np.int32))
    images = {"skin": texture, "eyes": eyes}
    slot_of_part = np.array([SLOTS.index(SLOT_OF_PART.get(name, name)) for name in PARTS], np.int32)[part]
    for slot in SLOTS[:slot_of_part.max() + 1]:     # lashes are the last
        mesh.materials.append(build_material(TITLES[slot], images[slot]) if slot in images else plain_material(slot, white))
    mesh.polygons.foreach_set("material_index", slot_of_part)
    layer = mesh.uv_layers.new(name="UVMap")
    layer.uv.foreach_set("vector", np.ascontiguousarray(topology.texture[topology.corners[shown]], np.float32).ravel())
    mesh.update(calc_edges=True)
    mesh.shade_smooth()
    return mesh


def plain_material(slot: str, white: float) -> bpy.types.Material:
    """What the photo does not show, in the photo's light, as skin and eyes are. white: as in `build_head_mesh`."""
    colour, roughness = LOOKS[slot]
    colour = [channel * float(linear(white)) for channel in colour]
    material = bpy.data.materials.new(TITLES[slot])
    material.use_nodes = True
    surface = material.node_tree.nodes["Principled BSDF"]
    surface.inputs["Base Color"].default_value = *colour, 1.0
    surface.inputs["Roughness"].default_value = roughness
    material.diffuse_color = *colour, 1.0
    if slot == "cornea":
        # Thin and clear: what refraction would do to the iris costs every renderer dear, and exporters do not know it.
        surface.inputs["Alpha"].default_value = material.diffuse_color[3] = CORNEA_ALPHA
        material.surface_render_method = "BLENDED"
    return material


def add_groups(head: bpy.types.Object) -> None:
    """Vertex groups of the regions that the head has; soft ones have weights."""
    for name, weights in load_head_topology().groups.items():
        weights = weights[:len(head.data.vertices)]
        if not weights.any():
            continue
        group = head.vertex_groups.new(name=name)
        steps = np.rint(weights * 20).astype(int)       # a call a weight, not one a vertex
        for step in np.unique(steps[steps > 0]):
            group.add(np.flatnonzero(steps == step).tolist(), step / 20, "REPLACE")
