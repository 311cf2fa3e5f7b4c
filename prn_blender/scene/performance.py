"""A performance into Blender's scene: an animated face over its footage, in the way the animator chose.

Four ways: absolute shape keys on one eval_time curve (a key a frame, plays fastest), relative shape keys, a PC2 file
through the Mesh Cache modifier (long takes), or the 52 ARKit shape keys with F-curves (to edit, and to hand on). Head motion
is always the object's own transform. Touches bpy through its neighbours, and writes PC2 files where it is told.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from ..prn.arkit import ARKIT_NAMES
from ..prn.frame_texture import FrameTextures
from ..prn.gaze import seen_head
from ..prn.head_topology import load_head_topology
from ..prn.head_take import HeadFrames
from ..prn.openings import opening_grid, opening_vertices
from ..prn.take import Performance, VertexFrames
from ..prn.take_texture import front_capture
from . import camera as cameras
from . import versions
from .curves import CONSTANT, continuous_quaternions, decimate, write_curve
from .face import FACTS, Placement, mesh_grid, placement_facts
from .footage import load_footage, show_behind
from .frames import TO_BLENDER, photo_to_world, to_blender
from .head import add_groups, build_head_mesh
from .image import pack_image
from .material import build_material, load_frame_textures, play_frame_textures
from .mesh import add_arkit_keys, build_mesh, set_key
from .stage import frame_photo

WAYS = ("absolute", "relative", "pc2", "arkit")
TOLERANCE = 0.004  # of an ARKit weight: a key is left out where the line between its neighbours is as near as this
KEY_SPACING = 10.0  # Blender puts absolute keys this many units of eval_time apart


@dataclass(frozen=True)
class BuiltPerformance:
    collection: bpy.types.Collection
    mesh: bpy.types.Object
    openings: bpy.types.Object | None  # what stands in eyes and mouth, a child of the mesh; None for what has its own, or none
    camera: bpy.types.Object
    texture: bpy.types.Image  # packed, or pictures outside, one a frame
    expression: bpy.types.Action | None  # the ARKit weights, whatever the way: what `retarget` hands on; None without any
    head: bpy.types.Action  # the head's motion
    files: list[Path]  # PC2 files beside the scene


def cost(performance: Performance, stride: int, way: str, topology: str = "grid", lashes: bool = True) -> str:
    """What a way costs, in a sentence to show before starting."""
    if topology == "head":
        count = load_head_topology().count if lashes else load_head_topology().bare
    else:
        count = len(mesh_grid(performance.topology, topology, stride).uvs) + len(opening_grid(performance.topology).uvs)
    frames = len(performance)
    if way == "arkit":
        return f"52 shape keys on {count} vertices: {52 * count * 12 / 1e6:.0f} MB, whatever the length."
    where = "in a file beside the scene" if way == "pc2" else "in the scene"
    return f"{frames} frames of {count} vertices: {count * 12 / 1e6:.2f} MB a frame, {frames * count * 12 / 1e6:.0f} MB {where}."


def build_performance(performance: Performance, texture: np.ndarray | bytes | FrameTextures, scene: bpy.types.Scene, *, way: str = "absolute",
                      topology: str = "grid", stride: int = 2, source: Path | None = None, folder: Path | None = None,
                      name: str = "Take", first: int | None = None, skipped: int = 0,
                      parent: bpy.types.Collection | None = None, lashes: bool = True) -> BuiltPerformance:
    """One collection with the animated face, its eyes and mouth, and the camera with the footage behind it.

    texture (N, N, 3) uint8 sRGB, or one a frame, written for the scene's rate. topology and stride: as for `build_face`. source: the movie or picture sequence to show
    behind the face. folder: where PC2 files go, named after `name`. first: the scene's frame on which frame 0 of the video
    lies, by default the scene's first; the scene's own rate and range stay as they are, see `stage.match_time`. skipped:
    frames of the source before the video's frame 0. parent: the collection to put it into, by default the scene's own. lashes:
    whether a head has any.
    Raises ValueError for another way, CaptureError, before it builds anything, for ARKit keys or loops that the topology lacks.
    """
    steps = performance_steps(performance, texture, scene, way=way, topology=topology, stride=stride, source=source,
                              folder=folder, name=name, first=first, skipped=skipped, parent=parent, lashes=lashes)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def performance_steps(performance: Performance, texture: np.ndarray | bytes | FrameTextures, scene: bpy.types.Scene, *, way: str,
                      topology: str, stride: int, source: Path | None, folder: Path | None, name: str, first: int | None,
                      skipped: int, parent: bpy.types.Collection | None, lashes: bool = True) -> Iterator[None]:
    """`build_performance` in portions of some milliseconds, for a window that has to live; its result is the return value."""
    if way not in WAYS:
        raise ValueError(f"way must be one of {WAYS}, not {way!r}")
    if way == "arkit":
        performance.topology.require_hm08("ARKit shape keys")
    if way == "pc2" and folder is None:
        raise ValueError("a folder is needed for the PC2 files")
    if topology == "loops":
        performance.topology.require_hm08("The hm08 face loops")
    if topology == "head":
        performance.topology.require_hm08("The whole head")
    width, height = performance.image_size
    first = scene.frame_start if first is None else first
    frames = scene_frames(performance, scene, first)
    collection = bpy.data.collections.new(name)
    (parent or scene.collection).children.link(collection)

    per_metre = float(np.median(performance.scale))
    middle = -photo_to_world(performance.translation[0], width, height, per_metre)  # the head begins at the world's origin
    footage = load_footage(source) if source else None
    placement = Placement(per_metre, tuple(middle), performance.lens.focal if performance.lens else None)
    camera = cameras.build_camera("Face Camera", footage, width, per_metre, middle, placement.focal)
    if footage:
        show_behind(camera, footage, source, first, performance.start + len(performance), skipped)
    collection.objects.link(camera)
    frame_photo(scene, camera, width, height)

    textures = texture if isinstance(texture, FrameTextures) else None
    image = load_frame_textures(textures) if textures else pack_image("Face Texture.png", texture)
    pieces = []
    files: list[Path] = []
    expression = expression_action(performance, frames, name) if len(performance.shapes) else None
    for placed, vertices in moving_pieces(performance, topology, stride, image, lashes):
        yield
        collection.objects.link(placed)
        if textures:
            play_frame_textures(placed, image, textures, first)
        if way == "pc2":
            path = Path(folder) / f"{name}_{placed.data.name.replace(' ', '_')}.pc2"
            yield from write_pc2(path, vertices)
            play_pc2(placed, path, frames)
            files.append(path)
        elif way == "arkit":
            add_arkit_keys(placed, vertices.neutral, vertices.shapes, np.zeros(len(ARKIT_NAMES)))
            versions.assign_action(placed.data.shape_keys, expression)
        else:
            yield from add_frame_keys(placed, vertices, frames, absolute=way == "absolute")
        pieces.append(placed)
    face, inner = pieces[0], pieces[1] if len(pieces) > 1 else None
    if inner:
        inner.parent = face
    if expression and way != "arkit":
        expression.use_fake_user = True
    if performance.gaps and inner:  # a child is not hidden with its parent
        gaps = bpy.data.actions.new(f"{name} Gaps")
        hide_in_gaps(versions.Channels(gaps, "OBJECT"), performance, frames)
        versions.assign_action(inner, gaps)
    head = animate_head(face, performance, frames, middle, name)
    face[FACTS] = placement_facts(placement, width, height) | {
        "frames": len(performance), "seen": float(performance.seen.mean()), "fps": performance.fps, "first": float(first),
        "start": performance.start, "length": max(performance.length, performance.start + len(performance)),
        "topology": performance.topology.name, "camera": camera, "head": head}
    if expression:
        face[FACTS]["expression"] = expression
    return BuiltPerformance(collection, face, inner, camera, image, expression, head, files)


def moving_pieces(performance: Performance, topology: str, stride: int, image: bpy.types.Image,
                  lashes: bool) -> Iterator[tuple[bpy.types.Object, VertexFrames]]:
    """The objects that a topology has, and their vertices in all frames in Blender's axes.

    In these axes from the beginning: turning the shapes once is cheaper than turning every frame.
    """
    if topology == "head":
        vertices = HeadFrames(performance, lashes)
        _, eyes, white = seen_head(front_capture(performance))
        head = bpy.data.objects.new("Face", build_head_mesh("Face", vertices.neutral, image, pack_image("Face Eyes.png", eyes), white))
        add_groups(head)
        yield head, vertices.turned_to(TO_BLENDER.astype(np.float32))
        return
    maps, material = performance.topology, build_material("Face Skin", image)
    grid, openings = mesh_grid(maps, topology, stride), opening_grid(maps)
    for title, piece, sample in (("Face", grid, grid.sample),
                                 ("Eyes and Mouth", openings, lambda head: opening_vertices(head, maps))):
        if not len(piece.quads):
            continue  # a topology without openings
        vertices = performance.vertices(lambda head, sample=sample: to_blender(sample(head)))
        placed = bpy.data.objects.new(title, build_mesh(title, vertices.neutral, piece.quads, piece.uvs))
        placed.data.materials.append(material)
        yield placed, vertices


def scene_frames(performance: Performance, scene: bpy.types.Scene, first: int) -> np.ndarray:
    """(N,) the scene's frames, not always whole, at which the performance's frames lie if its video begins at `first`."""
    rate = scene.render.fps / scene.render.fps_base
    return first + (performance.start + np.arange(len(performance))) * rate / performance.fps


def animate_head(face: bpy.types.Object, performance: Performance, frames: np.ndarray, middle: np.ndarray,
                 name: str) -> bpy.types.Action:
    """Keys the head's pose as the object's location, quaternion and scale, and hides the face in the gaps."""
    width, height = performance.image_size
    per_metre = float(np.median(performance.scale))
    rotations = TO_BLENDER @ performance.rotation @ TO_BLENDER.T
    locations = np.stack([middle + photo_to_world(place, width, height, per_metre) for place in performance.translation])
    face.rotation_mode = "QUATERNION"
    action = bpy.data.actions.new(f"{name} Head")
    channels = versions.Channels(action, "OBJECT")
    growth = performance.scale / per_metre
    for path, values in (("location", locations), ("rotation_quaternion", continuous_quaternions(rotations)),
                         ("scale", np.repeat(growth[:, None], 3, 1))):
        for index in range(values.shape[1]):
            write_curve(channels, path, index, "Head", frames, values[:, index])
    hide_in_gaps(channels, performance, frames)
    versions.assign_action(face, action)
    return action


def hide_in_gaps(channels: versions.Channels, performance: Performance, frames: np.ndarray) -> None:
    """Hides an object where the face was not seen."""
    if performance.seen.all():
        return
    changes = np.r_[0, np.flatnonzero(np.diff(performance.seen.astype(int))) + 1]
    for path in ("hide_viewport", "hide_render"):
        write_curve(channels, path, 0, "Gaps", frames[changes], 1.0 - performance.seen[changes], CONSTANT)


def expression_action(performance: Performance, frames: np.ndarray, name: str) -> bpy.types.Action:
    """The ARKit weights as an action for shape keys of these names, with only the keys that matter."""
    action = bpy.data.actions.new(f"{name} ARKit")
    channels = versions.Channels(action, "KEY")
    for number, shape in enumerate(ARKIT_NAMES):
        values = performance.weights[:, number].astype(np.float64)
        kept = decimate(values, TOLERANCE)
        write_curve(channels, f'key_blocks["{shape}"].value', 0, "ARKit", frames[kept], values[kept])
    return action


def add_frame_keys(face: bpy.types.Object, vertices: VertexFrames, frames: np.ndarray, absolute: bool) -> Iterator[None]:
    """A shape key a frame, made one a step: absolute keys under one eval_time curve, or relative ones, each with a curve of its own."""
    face.shape_key_add(name="Basis", from_mix=False)
    for number in range(len(vertices)):
        set_key(face.shape_key_add(name=f"Frame {number + 1:04d}", from_mix=False), vertices[number])
        yield
    keys = face.data.shape_keys
    action = bpy.data.actions.new(f"{face.name} Frames")
    channels = versions.Channels(action, "KEY")
    blocks = keys.key_blocks[1:]
    if absolute:
        keys.use_relative = False
        for block in keys.key_blocks:
            block.interpolation = "KEY_LINEAR"
        places = np.array([block.frame for block in blocks])
        ends = [0, -1] if len(places) > 1 else [0]
        write_curve(channels, "eval_time", 0, "Frames", frames[ends], places[ends])
    else:
        for number, block in enumerate(blocks):
            around = [index for index in (number - 1, number, number + 1) if 0 <= index < len(blocks)]
            write_curve(channels, f'key_blocks["{block.name}"].value', 0, "Frames", frames[around],
                        np.array([float(index == number) for index in around]))
    versions.assign_action(keys, action)


def write_pc2(path: Path, vertices: VertexFrames) -> Iterator[None]:
    """The vertices of all frames as a PC2 point cache, in Blender's axes, written one frame a step; never half a file under
    the final name."""
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with os.fdopen(handle, "wb") as file:
            count = len(vertices.neutral)
            file.write(struct.pack("<12siiffi", b"POINTCACHE2\0", 1, count, 0.0, 1.0, len(vertices)))
            for number in range(len(vertices)):
                file.write(np.ascontiguousarray(vertices[number], "<f4").tobytes())
                yield
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def play_pc2(face: bpy.types.Object, path: Path, frames: np.ndarray) -> None:
    modifier = face.modifiers.new("Performance", "MESH_CACHE")
    modifier.cache_format = "PC2"
    modifier.filepath = str(path)
    modifier.frame_start = float(frames[0])
    modifier.frame_scale = 1 / float(frames[1] - frames[0]) if len(frames) > 1 else 1.0
    modifier.interpolation = "LINEAR"
