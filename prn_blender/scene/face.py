"""A captured face into Blender's scene: the one call that builds everything. Touches bpy through its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix

from ..prn.capture import FaceCapture
from ..prn.openings import opening_grid, opening_vertices
from . import camera as cameras
from .frames import head_matrix, photo_to_world, to_blender
from .image import pack_image
from .material import build_material
from .mesh import build_mesh
from .stage import frame_photo


@dataclass(frozen=True)
class BuiltFace:
    collection: bpy.types.Collection
    mesh: bpy.types.Object
    openings: bpy.types.Object | None  # what stands in eyes and mouth, a child of the mesh; None if the topology has none
    camera: bpy.types.Object


def build_face(capture: FaceCapture, texture: np.ndarray, scene: bpy.types.Scene, *, stride: int = 1,
               camera: bpy.types.Object | None = None) -> BuiltFace:
    """One collection "Face" with the mesh, posed as in the photo, the photo's eyes and mouth, and the camera that saw it.

    The mesh is upright, in metres, facing -Y; the object's transform is the head's pose. texture (N, N, 3) uint8 sRGB.
    stride 1, 2 or 4 is the level of detail. camera: that of another face of the same photo, which is then used again;
    heads that are further away in the photo stay behind their picture by their object's scale.
    """
    height, width = capture.image.shape[:2]
    collection = bpy.data.collections.new("Face")
    scene.collection.children.link(collection)

    if camera is None:  # the first face's head is the world's origin
        middle = -photo_to_world(capture.translation, width, height, capture.pixels_per_metre)
        photo = pack_image("Face Photo.jpg", capture.image)
        camera = cameras.build_camera("Face Camera", photo, width, capture.pixels_per_metre, middle)
        collection.objects.link(camera)
        frame_photo(scene, camera, width, height)
    pixels_per_metre = width / camera.data.ortho_scale
    middle = np.array([camera.location.x, 0.0, camera.location.z])

    topology = capture.topology
    material = build_material("Face Skin", pack_image("Face Texture.png", texture))
    grid = topology.grid(stride)
    face = bpy.data.objects.new("Face", build_mesh("Face", to_blender(grid.sample(capture.head_map)), grid.quads, grid.uvs))
    face.matrix_world = Matrix(head_matrix(
        capture.rotation, capture.pixels_per_metre / pixels_per_metre,
        middle + photo_to_world(capture.translation, width, height, pixels_per_metre)))
    face["weights_licence"] = capture.licence  # in the object's custom properties: what may be done with this mesh
    grid, openings = opening_grid(topology), None
    if len(grid.quads):
        openings = bpy.data.objects.new("Eyes and Mouth", build_mesh(
            "Eyes and Mouth", to_blender(opening_vertices(capture.head_map, topology)), grid.quads, grid.uvs))
        openings.parent = face
    for piece in filter(None, (face, openings)):
        piece.data.materials.append(material)
        collection.objects.link(piece)
    return BuiltFace(collection, face, openings, camera)
