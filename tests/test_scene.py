"""The face in Blender's scene: exactly over the photo, in metres, complete and named for an artist. Needs bpy."""

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from exact_face import HEIGHT, WIDTH, exact_face, skin_texture
from prn_blender.scene.face import build_face
from prn_blender.scene.stage import new_stage


@pytest.fixture
def scene():
    return new_stage()


def vertices_of(mesh: bpy.types.Mesh) -> np.ndarray:
    coordinates = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", coordinates)
    return coordinates.reshape(-1, 3)


def on_the_photo(scene, built, points: np.ndarray) -> np.ndarray:
    """Pixels of the photo at which the camera sees points (N, 3) of the mesh."""
    bpy.context.view_layer.update()
    seen = [world_to_camera_view(scene, built.camera, built.mesh.matrix_world @ Vector(point)) for point in points]
    return np.array([[place.x * WIDTH - 0.5, (1 - place.y) * HEIGHT - 0.5] for place in seen])


@pytest.mark.parametrize("pose", [(0, 0, 0), (35, -20, 10), (-70, 10, -40)])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_mesh_lies_over_the_face(scene, pose, stride):
    face = exact_face(*pose)
    built = build_face(face, skin_texture(), scene, stride=stride)
    wanted = face.topology.grid(stride).sample(face.position_map)[::200, :2]
    np.testing.assert_allclose(on_the_photo(scene, built, vertices_of(built.mesh.data)[::200]), wanted, atol=0.05)
    background = built.camera.data.background_images[0]
    assert built.camera.data.show_background_images and tuple(background.image.size) == (WIDTH, HEIGHT)
    assert (scene.render.resolution_x, scene.render.resolution_y) == (WIDTH, HEIGHT)


def test_a_render_covers_the_face_of_the_photo(scene):
    face = exact_face(20)
    build_face(face, skin_texture(), scene)
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 1
    scene.cycles.use_denoising = False  # not every Blender has a denoiser
    scene.render.resolution_percentage = 25
    scene.render.filepath = bpy.app.tempdir + "render.png"
    bpy.ops.render.render(write_still=True)
    picture = bpy.data.images.load(scene.render.filepath)
    rendered = np.array(picture.pixels[:]).reshape(HEIGHT // 4, WIDTH // 4, 4)[::-1]
    face_in_photo = (face.image[2::4, 2::4, 0] > 80)
    assert ((rendered[..., 3] > 0.5) == face_in_photo).mean() > 0.99
    colours = rendered[..., :3][face_in_photo & (rendered[..., 3] > 0.99)] * 255
    photo = face.image[2::4, 2::4][face_in_photo & (rendered[..., 3] > 0.99)]
    assert np.median(np.abs(colours - photo)) < 25  # lit evenly it looks like its photo


def test_upright_in_metres(scene):
    built = build_face(exact_face(40, 20, 30), skin_texture(), scene)
    mesh = built.mesh.data
    vertices = vertices_of(mesh)
    width, depth, height = np.ptp(vertices, axis=0)
    assert 0.12 < width < 0.25 and 0.15 < height < 0.35
    tip = vertices[np.argmin(vertices[:, 1])]
    assert abs(tip[0]) < 0.005 and -0.15 < tip[1] < -0.02 and -0.06 < tip[2] < 0  # the nose: middle, forward, below the eyes
    np.testing.assert_allclose(built.mesh.matrix_world.to_scale(), 1, atol=1e-5)


def test_the_head_is_turned_as_in_the_photo(scene):
    built = build_face(exact_face(yaw=30), skin_texture(), scene)
    looks = built.mesh.matrix_world.to_3x3() @ Vector((0, -1, 0))
    # A positive angle about the image's downward axis brings the nose to the viewer's left.
    assert looks.x == pytest.approx(-np.sin(np.radians(30)), abs=1e-4) and looks.z == pytest.approx(0, abs=1e-4)


def test_mesh_is_complete_and_clean(scene):
    face = exact_face()
    built = build_face(face, skin_texture(), scene)
    mesh, grid = built.mesh.data, face.topology.grid(1)
    assert not mesh.validate()
    assert (len(mesh.vertices), len(mesh.polygons)) == (len(grid.texel_coordinates), len(grid.quads))
    assert all(mesh.polygons[index].use_smooth for index in (0, 1000, -1))
    assert mesh.polygons[len(mesh.polygons) // 2].normal.y < 0
    uvs = np.empty(2 * len(mesh.loops), np.float32)
    mesh.uv_layers["UVMap"].uv.foreach_get("vector", uvs)
    np.testing.assert_array_equal(uvs.reshape(-1, 4, 2), grid.uvs[grid.quads])


def test_names_material_and_packed_pictures(scene):
    built = build_face(exact_face(), skin_texture(), scene)
    assert built.collection.name == "Face" and built.collection.name in scene.collection.children
    assert {piece.name for piece in built.collection.objects} == {"Face", "Eyes and Mouth", "Face Camera"}
    assert scene.camera == built.camera
    material = built.mesh.active_material
    assert material.name == "Face Skin" and built.openings.active_material == material
    image = material.node_tree.nodes["Image Texture"].image
    assert image.packed_file and image.colorspace_settings.name == "sRGB" and tuple(image.size) == (512, 512)
    pixels = np.array(image.pixels[:]).reshape(512, 512, 4)[::-1, :, :3]
    np.testing.assert_allclose(pixels * 255, skin_texture(), atol=0.6)
    assert material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].is_linked
    assert built.camera.data.background_images[0].image.packed_file


def test_two_faces_of_one_photo_share_the_camera(scene):
    near, far = exact_face(20), exact_face(-30, pixels_per_metre=800, place=(520, 330))
    first = build_face(near, skin_texture(), scene)
    second = build_face(far, skin_texture(), scene, beside=first.placement, camera=first.camera)
    assert second.camera == first.camera and second.collection != first.collection
    wanted = far.topology.grid(1).sample(far.position_map)[::500, :2]
    np.testing.assert_allclose(on_the_photo(scene, second, vertices_of(second.mesh.data)[::500]), wanted, atol=0.05)
