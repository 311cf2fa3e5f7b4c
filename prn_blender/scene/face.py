"""A captured face into Blender's scene: the one call that builds everything. Touches bpy through its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import bpy
import numpy as np
from mathutils import Matrix

from ..prn.capture import FaceCapture
from ..prn.gaze import seen_head
from ..prn.head import doubt
from ..prn.openings import opening_grid, opening_vertices
from ..prn.photo_shapes import photo_shapes, shape_vertices
from ..prn.position_map import Grid, Topology
from . import camera as cameras
from .frames import head_matrix, photo_to_world, to_blender
from .head import add_groups, build_head_mesh
from .image import pack_image
from .material import build_material
from .mesh import add_arkit_keys, build_mesh
from .stage import frame_photo

FACTS = "prn_capture"  # the face object's custom property that tells where it comes from


@dataclass(frozen=True)
class Placement:
    """How a photo lies in the world: the plane of its faces is XZ."""

    pixels_per_metre: float
    middle: tuple[float, float, float]  # of the photo, metres
    focal: float | None = None  # pixels; None: seen from far away


@dataclass(frozen=True)
class BuiltFace:
    collection: bpy.types.Collection
    mesh: bpy.types.Object
    openings: bpy.types.Object | None  # what stands in eyes and mouth, a child of the mesh; None if there is none, as in a head
    camera: bpy.types.Object | None
    placement: Placement


def build_face(capture: FaceCapture, texture: np.ndarray | bytes, scene: bpy.types.Scene, *, topology: str = "grid",
               stride: int = 1, with_camera: bool = True, parent: bpy.types.Collection | None = None,
               beside: Placement | None = None, camera: bpy.types.Object | None = None,
               photo: bytes | None = None, shapes: bool = False, lashes: bool = True) -> BuiltFace:
    """One collection "Face" with the mesh, posed as in the photo, the photo's eyes and mouth, and the camera that saw it.

    The mesh is upright, in metres, facing -Y; the object's transform is the head's pose. texture (N, N, 3) uint8 sRGB, or
    a PNG file's content. topology: "grid" is the position map's, of which stride 1, 2 or 4 is the level of detail;
    "loops" is hm08's face, "head" hm08's head with eyes, teeth and ARKit shape keys, whose texture lies in hm08's own UV layout
    (`head_texture`). parent: the collection to put it into, by default the scene's own.
    with_camera: a camera that sees the photo, which the scene then renders through, in the photo's resolution.
    beside: the placement of another face of the same photo, which stays where it is, and camera: its camera, which is used
    again; heads that are further away in the photo stay behind their picture by their object's scale.
    photo: the photo's JPEG file's content, where it is there already. shapes: with the 52 ARKit shape keys, set to the photo's
    own expression; a head always has them. lashes: whether a head has any. Raises CaptureError, before it builds anything, if the capture's topology has no
    "loops", no "head" or no shapes.
    """
    head, eyes, white = seen_head(capture) if topology == "head" else (None, None, None)
    if head and not lashes:
        head = head.without_lashes()
    grid = None if head else mesh_grid(capture.topology, topology, stride)
    known = photo_shapes(capture) if shapes and not head else None
    height, width = capture.image.shape[:2]
    collection = bpy.data.collections.new("Face")
    (parent or scene.collection).children.link(collection)

    # The first face's head is the world's origin.
    placement = beside or Placement(capture.pixels_per_metre, tuple(
        -photo_to_world(capture.translation, width, height, capture.pixels_per_metre)), capture.lens.focal if capture.lens else None)
    if camera is None and with_camera:
        background = pack_image("Face Photo.jpg", photo or capture.image)
        camera = cameras.build_camera("Face Camera", background, width, placement.pixels_per_metre, placement.middle, placement.focal)
        collection.objects.link(camera)
        frame_photo(scene, camera, width, height)

    image = pack_image("Face Texture.png", texture)
    openings = None
    if head:
        face = bpy.data.objects.new("Face", build_head_mesh("Face", head.neutral, image, pack_image("Face Eyes.png", eyes), white))
        add_groups(face)
        add_arkit_keys(face, to_blender(head.neutral), to_blender(head.shapes), head.weights)
    else:
        face, openings = build_mask(capture, grid, build_material("Face Skin", image), known)
    face.matrix_world = Matrix(head_matrix(
        capture.rotation, capture.pixels_per_metre / placement.pixels_per_metre,
        np.array(placement.middle) + photo_to_world(capture.translation, width, height, placement.pixels_per_metre)))
    face["weights_licence"] = capture.licence  # in the object's custom properties: what may be done with this mesh
    for piece in filter(None, (face, openings)):
        collection.objects.link(piece)
    face[FACTS] = facts(capture) | placement_facts(placement, width, height)
    if head and doubt(capture):
        face[FACTS]["doubt"] = doubt(capture)
    if camera is not None:
        face[FACTS]["camera"] = camera
    return BuiltFace(collection, face, openings, camera, placement)


def build_mask(capture: FaceCapture, grid: Grid, material: bpy.types.Material,
               known: tuple[np.ndarray, np.ndarray] | None) -> tuple[bpy.types.Object, bpy.types.Object | None]:
    """The face, and as its child what stands in eyes and mouth, or None if the topology has no openings.

    known: the face at rest and its shapes (`photo_shapes`), for shape keys.
    """
    def piece(name: str, own: Grid, sample: Callable[[np.ndarray], np.ndarray]) -> bpy.types.Object:
        if known is None:
            made = bpy.data.objects.new(name, build_mesh(name, to_blender(sample(capture.head_map)), own.quads, own.uvs))
        else:
            rest, offsets = (to_blender(points) for points in shape_vertices(*known, sample))
            made = bpy.data.objects.new(name, build_mesh(name, rest, own.quads, own.uvs))
            add_arkit_keys(made, rest, offsets, capture.expression)
        made.data.materials.append(material)
        return made

    face, inner = piece("Face", grid, grid.sample), opening_grid(capture.topology)
    if not len(inner.quads):
        return face, None
    openings = piece("Eyes and Mouth", inner, lambda head: opening_vertices(head, capture.topology))
    openings.parent = face
    return face, openings


def mesh_grid(topology: Topology, name: str, stride: int) -> Grid:
    """The mesh of a topology's name, "grid" or "loops"; only the grid has levels of detail."""
    return topology.loops() if name == "loops" else topology.grid(stride)


def placement_facts(placement: Placement, width: int, height: int) -> dict[str, float | list[float]]:
    """How the world is brought back to the picture's pixels."""
    known = {"image_size": [width, height], "pixels_per_metre": placement.pixels_per_metre, "middle": list(placement.middle)}
    return known if placement.focal is None else known | {"focal": placement.focal}


def facts(capture: FaceCapture) -> dict[str, float | str | list[float]]:
    """What the panel tells of a face: pixels, degrees, the detector's confidence in 0..1; its topology's name; and the ARKit
    weights of the photo, where the network gives them."""
    size = np.ptp(capture.topology.landmarks_of(capture.position_map)[:, :2], axis=0)
    found = {"face_pixels": float(np.sqrt(size.prod())), "yaw": capture.yaw, "pitch": capture.pitch, "roll": capture.roll,
             "confidence": capture.box.confidence, "topology": capture.topology.name}
    return found if capture.expression is None else found | {"expression_weights": capture.expression.tolist()}
