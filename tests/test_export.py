"""Every format: written whole, read back with its geometry and its texture. Needs bpy."""

import bpy
import numpy as np
import pytest

from exact_face import exact_face, skin_texture
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.head_topology import load_head_topology
from prn_blender.scene.export import export
from prn_blender.scene.face import build_face
from prn_blender.scene.stage import new_stage

IMPORTERS = {
    ".glb": lambda path: bpy.ops.import_scene.gltf(filepath=path),
    ".fbx": lambda path: bpy.ops.import_scene.fbx(filepath=path),
    ".obj": lambda path: bpy.ops.wm.obj_import(filepath=path),
    ".usd": lambda path: bpy.ops.wm.usd_import(filepath=path),
    ".usda": lambda path: bpy.ops.wm.usd_import(filepath=path),
    ".usdc": lambda path: bpy.ops.wm.usd_import(filepath=path),
    ".blend": lambda path: bpy.ops.wm.open_mainfile(filepath=path),
}


def endings_here() -> list[str]:
    """Linux distributions build Blender without USD."""
    return [ending for ending in IMPORTERS if bpy.app.build_options.usd or not ending.startswith(".usd")]


@pytest.mark.parametrize("ending", endings_here())
def test_what_is_written_is_read_back(tmp_path, ending):
    face = exact_face(30)
    built = build_face(face, skin_texture(), new_stage(), stride=4)
    path = tmp_path / f"Jane Doe{ending}"
    written = export(path, [built.mesh])
    assert written[-1] == path and sorted(written) == sorted(piece for piece in tmp_path.rglob("*") if piece.is_file())
    assert built.mesh.active_material.node_tree.nodes["Image Texture"].image.packed_file  # the scene stays as it was

    new_stage()
    IMPORTERS[ending](str(path))
    bpy.context.view_layer.update()
    mesh = next(piece for piece in bpy.data.objects if piece.type == "MESH" and piece.name.startswith("Face"))
    assert len(mesh.data.polygons) in (len(face.topology.grid(4).quads), 2 * len(face.topology.grid(4).quads))
    assert len([piece for piece in bpy.data.objects if piece.type == "MESH"]) == 2
    corners = np.array([mesh.matrix_world @ vertex.co for vertex in mesh.data.vertices])
    assert 0.15 < np.ptp(corners[:, 2]) < 0.35  # metres, and upright in Blender again
    turned = mesh.matrix_world.to_3x3().normalized().to_euler().z
    assert abs(np.degrees(turned)) == pytest.approx(0 if ending == ".obj" else 30, abs=0.1)
    images = [node.image for slot in mesh.material_slots for node in slot.material.node_tree.nodes if node.type == "TEX_IMAGE"]
    assert images and all(image.has_data or image.pixels[0] >= 0 for image in images)
    assert tuple(images[0].size) == (512, 512)


def test_two_captures_in_one_folder_keep_their_own_textures(tmp_path):
    built = build_face(exact_face(), skin_texture(), new_stage(), stride=4)
    first = export(tmp_path / "first.obj", [built.mesh])
    second = export(tmp_path / "second.obj", [built.mesh])
    assert not set(first) & set(second)


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    from prn_blender.scene import export as module

    def fails(path, faces):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(module.WRITERS, ".glb", fails)
    built = build_face(exact_face(), skin_texture(), new_stage(), stride=4)
    with pytest.raises(OSError):
        export(tmp_path / "face.glb", [built.mesh])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [ending for ending in endings_here() if ending in (".glb", ".obj", ".fbx")])
def test_a_head_is_read_back_with_its_parts(tmp_path, ending):
    built = build_face(exact_face(30), skin_texture(256), new_stage(), topology="head")
    built.mesh.data.shape_keys.key_blocks["jawOpen"].value = 1.0
    count = len(built.mesh.data.polygons)
    path = tmp_path / f"head{ending}"
    export(path, [built.mesh])
    new_stage()
    IMPORTERS[ending](str(path))
    mesh = next(piece for piece in bpy.data.objects if piece.type == "MESH")
    assert len(mesh.data.polygons) in (count, 2 * count) and len(mesh.material_slots) == 7
    images = {node.image for slot in mesh.material_slots for node in slot.material.node_tree.nodes if node.type == "TEX_IMAGE"}
    assert len(images) == 2 and all(image.pixels[0] >= 0 for image in images)
    if ending == ".obj":  # which has no shape keys: the mesh is written as it stands, with its mouth open
        tongue, topology = mesh.data.vertices[load_head_topology().skin + 1], load_head_topology()
        assert -(mesh.matrix_world @ tongue.co).z > topology.mean[topology.skin + 1, 1] + 0.005
    else:
        assert {key.name for key in mesh.data.shape_keys.key_blocks} >= set(ARKIT_NAMES)
