"""The face's material: its texture on a Principled surface, the same in EEVEE and Cycles. Touches bpy.data.materials and images."""

from __future__ import annotations

import bpy

from ..prn.frame_texture import FrameTextures


def load_frame_textures(textures: FrameTextures) -> bpy.types.Image:
    """The pictures as one image datablock that plays them where a material is told to; the files stay outside."""
    image = bpy.data.images.load(str(textures.first.absolute()))
    image.source = "SEQUENCE"
    image.name = "Face Texture"
    return image


def play_frame_textures(placed: bpy.types.Object, image: bpy.types.Image, textures: FrameTextures, first: int) -> None:
    """Lets the object's materials play the image, with the video's beginning at the scene's frame `first`."""
    for node in (node for material in placed.data.materials for node in material.node_tree.nodes):
        if node.type == "TEX_IMAGE" and node.image == image:
            node.image_user.frame_start = first + textures.start
            node.image_user.frame_duration = textures.count
            node.image_user.use_auto_refresh = True


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
