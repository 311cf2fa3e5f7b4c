"""Writes the scene or its faces to a file, in the format that the file's ending says. Touches bpy.ops and one folder.

Formats: .blend, .glb, .fbx, .obj, .usd (.usda, .usdc). Nothing appears under the final name before it is complete.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import bpy
from mathutils import Matrix

from ..prn.errors import CaptureError
from . import versions


def export(path: Path, faces: list[bpy.types.Object]) -> list[Path]:
    """Writes to path and returns every file that was written, the main one last.

    .blend holds the whole scene, the others hold the face meshes with their textures. The scene stays as it is but for
    the selection. Raises OSError when the folder cannot be written, CaptureError if this Blender lacks the format.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        main = Path(folder).absolute() / path.name  # Blender takes relative names from $PWD, which need not be true
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


def write_blend(path: Path, faces: list[bpy.types.Object]) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=True, copy=True)


def write_glb(path: Path, faces: list[bpy.types.Object]) -> None:
    bpy.ops.export_scene.gltf(filepath=str(path), export_format="GLB", use_selection=True, export_image_format="AUTO")


def write_fbx(path: Path, faces: list[bpy.types.Object]) -> None:
    with textures_beside(path, faces) as textures:
        bpy.ops.export_scene.fbx(filepath=str(path), use_selection=True, object_types={"MESH"}, path_mode="COPY",
                                 embed_textures=True, mesh_smooth_type="FACE", bake_anim=False)
    for texture in textures:
        texture.unlink()  # it is inside the file


def write_obj(path: Path, faces: list[bpy.types.Object]) -> None:
    """OBJ has no object transforms, so the heads are written upright and not turned as in the photo."""
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
    with textures_beside(path, faces):
        bpy.ops.wm.usd_export(filepath=str(path), selected_objects_only=True, relative_paths=True,
                              convert_world_material=False, **versions.usd_keeps_textures())


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


WRITERS = {".blend": write_blend, ".glb": write_glb, ".fbx": write_fbx, ".obj": write_obj,
           ".usd": write_usd, ".usda": write_usd, ".usdc": write_usd}
