"""Writes the scene or its faces to a file, in the format that the file's ending says. Touches bpy.ops and one folder.

Formats: .blend, .glb, .fbx, .obj, .usd (.usda, .usdc), .abc, .json, .csv; with the animation where the format has any, over the
scene's frame range. Nothing appears under the final name before it is complete.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from ..prn.errors import CaptureError
from ..prn.image_io import load_image
from ..prn.livelink import write_livelink
from ..prn.record import write_json
from . import versions
from .curves import write_curve
from .image import pack_image
from .record import record_of


def export(path: Path, faces: list[bpy.types.Object]) -> list[Path]:
    """Writes to path and returns every file that was written, the main one last.

    .blend holds the whole scene, the others hold the face meshes with their textures. The scene stays as it is but for
    the selection. Raises OSError when the folder cannot be written, CaptureError if this Blender lacks the format.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        main = Path(folder).absolute() / path.name  # Blender takes relative names from $PWD, which need not be true
        with contextlib.ExitStack() as as_exported:
            if path.suffix.lower() != ".blend":  # which holds the whole scene as it is
                as_exported.enter_context(shown(faces))
                as_exported.enter_context(still_textures(faces))
            bpy.context.view_layer.update()  # objects that were just linked cannot be selected before
            for piece in bpy.context.view_layer.objects:
                piece.select_set(piece in faces or piece.parent in faces)
            bpy.context.view_layer.objects.active = faces[0]
            WRITERS[path.suffix.lower()](main, faces)
        pieces = sorted((piece for piece in Path(folder).rglob("*") if piece.is_file()), key=lambda piece: piece == main)
        written = [path.parent / piece.relative_to(folder) for piece in pieces]
        for piece, final in zip(pieces, written):
            final.parent.mkdir(exist_ok=True)
            os.replace(piece, final)
    return written


@contextlib.contextmanager
def shown(faces: list[bpy.types.Object]):
    """The faces without the gaps of their takes, in which they are hidden and would be left out, or stand still from there on."""
    scene, muted, hidden = bpy.context.scene, [], []
    for piece in (piece for face in faces for piece in (face, *face.children)):
        if piece.animation_data and piece.animation_data.action:
            curves = [curve for curve in versions.curves_of(piece.animation_data.action, "OBJECT")
                      if curve.data_path in ("hide_viewport", "hide_render") and not curve.mute]
            for curve in curves:
                curve.mute = True
            muted += curves
            if curves:
                hidden.append((piece, piece.hide_viewport, piece.hide_render))
                piece.hide_viewport = piece.hide_render = False
    try:
        yield
    finally:
        for curve in muted:
            curve.mute = False
        for piece, viewport, render in hidden:
            piece.hide_viewport, piece.hide_render = viewport, render
        if muted:
            scene.frame_set(scene.frame_current)


def write_blend(path: Path, faces: list[bpy.types.Object]) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=True, copy=True)


def write_glb(path: Path, faces: list[bpy.types.Object]) -> None:
    """Relative shape keys become morph targets. Without their normals, which three quarters of the file would be."""
    with relative_keys(faces):
        bpy.ops.export_scene.gltf(filepath=str(path), export_format="GLB", use_selection=True, export_image_format="AUTO",
                                  export_animations=any(map(is_animated, faces)), export_animation_mode="ACTIVE_ACTIONS",
                                  export_morph_normal=False)


def write_fbx(path: Path, faces: list[bpy.types.Object]) -> None:
    with textures_beside(path, faces) as textures, relative_keys(faces):
        bpy.ops.export_scene.fbx(filepath=str(path), use_selection=True, object_types={"MESH"}, path_mode="COPY",
                                 embed_textures=True, mesh_smooth_type="FACE", bake_anim=any(map(is_animated, faces)),
                                 bake_anim_use_nla_strips=False, bake_anim_use_all_actions=False, bake_anim_simplify_factor=0.0)
    for texture in textures:
        texture.unlink()  # it is inside the file


def write_obj(path: Path, faces: list[bpy.types.Object]) -> None:
    """OBJ has no object transforms, so the heads are written upright and not turned as in the photo; nor has it animation."""
    poses = [face.matrix_world.copy() for face in faces]
    for face in faces:
        face.matrix_world = Matrix.Translation(face.matrix_world.translation)
    with textures_beside(path, faces):
        bpy.ops.wm.obj_export(filepath=str(path), export_selected_objects=True, path_mode="STRIP")
    for face, pose in zip(faces, poses):
        face.matrix_world = pose


def write_usd(path: Path, faces: list[bpy.types.Object]) -> None:
    if not bpy.app.build_options.usd:  # Linux distributions leave it out
        raise CaptureError("This Blender was built without USD: choose .glb, .fbx or .obj.")
    # Blend shapes are relative keys; everything else is written as the meshes that it makes, frame by frame.
    blend_shapes = all(keys.use_relative for keys in keys_of(faces))
    with textures_beside(path, faces):
        bpy.ops.wm.usd_export(filepath=str(path), selected_objects_only=True, relative_paths=True,
                              export_animation=any(map(is_animated, faces)), export_shapekeys=blend_shapes,
                              convert_world_material=False, **versions.usd_keeps_textures())


def write_abc(path: Path, faces: list[bpy.types.Object]) -> None:
    """Alembic holds meshes frame by frame, and neither materials nor textures: the texture lies beside it."""
    if not bpy.app.build_options.alembic:
        raise CaptureError("This Blender was built without Alembic: choose .glb or .fbx.")
    scene = bpy.context.scene
    first, last = (scene.frame_start, scene.frame_end) if any(map(is_animated, faces)) else (scene.frame_current,) * 2
    with textures_beside(path, faces):
        bpy.ops.wm.alembic_export(filepath=str(path), selected=True, start=first, end=last)


def write_records(path: Path, faces: list[bpy.types.Object]) -> None:
    write_json(path, [record_of(face) for face in faces])


def write_csv(path: Path, faces: list[bpy.types.Object]) -> None:
    write_livelink(path, record_of(faces[0]))


# ---- animation -----------------------------------------------------------------------------------------------------


def keys_of(faces: list[bpy.types.Object]) -> list[bpy.types.Key]:
    """The shape keys of the faces and of what stands in their eyes and mouths."""
    pieces = [piece for face in faces for piece in (face, *face.children) if piece.type == "MESH"]
    return [piece.data.shape_keys for piece in pieces if piece.data.shape_keys]


def is_animated(face: bpy.types.Object) -> bool:
    return plays_cache(face) or any(owner.animation_data and owner.animation_data.action for owner in (face, *keys_of([face])))


def plays_cache(face: bpy.types.Object) -> bool:
    return any(modifier.type == "MESH_CACHE" for modifier in face.modifiers)


@contextlib.contextmanager
def relative_keys(faces: list[bpy.types.Object]):
    """Absolute shape keys as relative ones that play the same, for formats that know no others; then the scene is as before.

    Raises CaptureError for a point cache, which these formats cannot hold.
    """
    if any(map(plays_cache, faces)):
        raise CaptureError("A point cache cannot be written in this format: capture with shape keys, or choose .abc or .usdc.")
    changed = []
    try:
        for keys in keys_of(faces):
            if not keys.use_relative:
                action = keys.animation_data.action
                curve = next(curve for curve in versions.curves_of(action, "KEY") if curve.data_path == "eval_time")
                changed.append((keys, action))
                versions.assign_action(keys, tent_action(keys, curve))
                keys.use_relative = True
        yield
    finally:
        for keys, action in changed:
            tents = keys.animation_data.action
            versions.assign_action(keys, action)
            bpy.data.actions.remove(tents)
            keys.use_relative = False


def tent_action(keys: bpy.types.Key, eval_time: bpy.types.FCurve) -> bpy.types.Action:
    """What an eval_time curve plays, as a value curve a key: each rises and falls between its neighbours' times."""
    scene = bpy.context.scene
    action = bpy.data.actions.new(f"{keys.name} Relative")
    channels = versions.Channels(action, "KEY")
    frames = np.arange(scene.frame_start, scene.frame_end + 1)
    times = np.array([eval_time.evaluate(frame) for frame in frames])
    places = np.array([block.frame for block in keys.key_blocks])
    for number in range(1, len(places)):
        values = np.interp(times, places, np.eye(len(places))[number])
        near = np.convolve(values > 0, np.ones(3), "same") > 0  # with a zero on either side
        near[[0, -1]] = True
        write_curve(channels, f'key_blocks["{keys.key_blocks[number].name}"].value', 0, "Frames", frames[near].astype(float),
                    values[near])
    return action


# ---- textures ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def still_textures(faces: list[bpy.types.Object]):
    """Textures that change from frame to frame as they are in the scene's frame: no other format than Blender's plays them."""
    playing = {node: node.image for face in faces for piece in (face, *face.children) for material in piece.data.materials
               for node in material.node_tree.nodes if node.type == "TEX_IMAGE" and node.image.source == "SEQUENCE"}
    try:
        for node, image in playing.items():
            first = Path(bpy.path.abspath(image.filepath))
            number = min(max(bpy.context.scene.frame_current - node.image_user.frame_start + 1, 1), node.image_user.frame_duration)
            node.image = pack_image("Face Texture.png", load_image(first.with_name(f"{first.stem[:-4]}{number:04d}{first.suffix}")))
        yield
    finally:
        for node, image in playing.items():
            still, node.image = node.image, image
            if still != image:
                bpy.data.images.remove(still)


@contextlib.contextmanager
def textures_beside(path: Path, faces: list[bpy.types.Object]):
    """The faces' packed textures as files beside `path`, named after it so that captures in one folder do not clash."""
    images = list(dict.fromkeys(node.image for face in faces for material in face.data.materials
                                for node in material.node_tree.nodes if node.type == "TEX_IMAGE"))
    names = [image.filepath_raw for image in images]
    textures = [path.with_name(f"{path.stem}_texture{number or ''}.png") for number in range(len(images))]
    for image, texture in zip(images, textures):
        texture.write_bytes(image.packed_file.data)
        image.filepath_raw = str(texture)
        image.unpack(method="REMOVE")
    try:
        yield textures
    finally:
        for image, name, texture in zip(images, names, textures):
            image.pack(data=texture.read_bytes(), data_len=texture.stat().st_size)
            image.filepath_raw = name


WRITERS = {".blend": write_blend, ".glb": write_glb, ".fbx": write_fbx, ".obj": write_obj, ".usd": write_usd, ".usda": write_usd,
           ".usdc": write_usd, ".abc": write_abc, ".json": write_records, ".csv": write_csv}
