"""The face's material: its texture on a Principled surface, the same in EEVEE and Cycles. Touches bpy.data.materials."""

import bpy


def build_material(name: str, texture: bpy.types.Image) -> bpy.types.Material:
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes = material.node_tree.nodes
    surface = nodes["Principled BSDF"]
    surface.inputs["Roughness"].default_value = 0.5
    # The photo's highlights are already in the texture.
    surface.inputs["Specular IOR Level"].default_value = 0.2
    picture = nodes.new("ShaderNodeTexImage")
    picture.image = texture
    picture.extension = "EXTEND"
    picture.location = surface.location.x - 320, surface.location.y
    material.node_tree.links.new(picture.outputs["Color"], surface.inputs["Base Color"])
    return material
