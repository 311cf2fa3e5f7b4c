"""The face in Blender's scene: exactly over the photo, in metres, complete and named for an artist. Needs bpy."""

from pathlib import Path

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from mathutils.bvhtree import BVHTree

from exact_face import HEIGHT, NEAR, WIDTH, exact_face, skin_texture
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.capture import capture_image
from prn_blender.prn.head import build_head, head_of
from prn_blender.prn.head_topology import PARTS, load_head_topology
from prn_blender.prn.position_map import sample
from prn_blender.scene.face import build_face
from prn_blender.scene.frames import to_blender
from prn_blender.scene.head import SLOTS
from prn_blender.scene.stage import new_stage
from test_head import both, posed


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
@pytest.mark.parametrize("stride, lens", [(1, None), (2, None), (1, NEAR)])
def test_the_mesh_lies_over_the_face(scene, pose, stride, lens):
    face = exact_face(*pose, lens=lens)
    built = build_face(face, skin_texture(), scene, stride=stride)
    wanted = face.topology.grid(stride).sample(face.position_map)[::200, :2]
    np.testing.assert_allclose(on_the_photo(scene, built, vertices_of(built.mesh.data)[::200]), wanted, atol=0.05)
    background = built.camera.data.background_images[0]
    assert built.camera.data.show_background_images and tuple(background.image.size) == (WIDTH, HEIGHT)
    assert (scene.render.resolution_x, scene.render.resolution_y) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("lens", [None, NEAR])
def test_a_render_covers_the_face_of_the_photo(scene, lens):
    face = exact_face(20, lens=lens)
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


@pytest.mark.parametrize("lens", [None, NEAR])
def test_two_faces_of_one_photo_share_the_camera(scene, lens):
    near, far = exact_face(20, lens=lens), exact_face(-30, pixels_per_metre=800, place=(520, 330), lens=lens)
    first = build_face(near, skin_texture(), scene)
    second = build_face(far, skin_texture(), scene, beside=first.placement, camera=first.camera)
    assert second.camera == first.camera and second.collection != first.collection
    wanted = far.topology.grid(1).sample(far.position_map)[::500, :2]
    np.testing.assert_allclose(on_the_photo(scene, second, vertices_of(second.mesh.data)[::500]), wanted, atol=0.05)


# ---- the head --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head_texture():
    return np.full((256, 256, 3), (205, 160, 135), np.uint8)


def evaluated(built) -> np.ndarray:
    """The mesh's vertices with its shape keys as they are set."""
    piece = built.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get())
    return vertices_of(piece.data)


def test_head_is_complete_and_clean(scene, head_texture):
    built = build_face(exact_face(), head_texture, scene, topology="head")
    mesh, topology = built.mesh.data, load_head_topology()
    assert built.openings is None and not mesh.validate()
    assert (len(mesh.vertices), len(mesh.polygons)) == (topology.count, len(topology.quads))
    assert [material.name for material in mesh.materials] == ["Face Skin", "Eyes", "Cornea", "Teeth", "Gums", "Tongue", "Lashes"]
    assert {polygon.material_index for polygon in mesh.polygons} == set(range(len(mesh.materials)))
    assert all(mesh.polygons[index].use_smooth for index in (0, 5000, -1))
    keys = mesh.shape_keys.key_blocks
    assert [key.name for key in keys[1:]] == list(ARKIT_NAMES)
    groups = {group.name for group in built.mesh.vertex_groups}
    assert {"face", "scalp", "neck", "lips", "ear.L", "ear.R", "eye.L", "eye.R", "lids.L", "teeth.upper", "teeth.lower"} <= groups
    left = built.mesh.vertex_groups["eye.L"].index
    assert all(vertex.co.x > 0 for vertex in mesh.vertices if left in [group.group for group in vertex.groups])
    uvs = np.empty(2 * len(mesh.loops), np.float32)
    mesh.uv_layers["UVMap"].uv.foreach_get("vector", uvs)
    np.testing.assert_array_equal(uvs.reshape(-1, 4, 2), topology.texture[topology.corners])


def test_teeth_stand_in_the_photos_light(scene, head_texture):
    def teeth(image):
        captured = exact_face()
        mesh = build_face(type(captured)(**{**captured.__dict__, "image": image}), head_texture, scene, topology="head").mesh.data
        surface = mesh.materials[SLOTS.index("teeth")].node_tree.nodes["Principled BSDF"]
        return np.array(surface.inputs["Base Color"].default_value[:3])

    lit = np.full_like(exact_face().image, 230)
    bright, dark = teeth(lit), teeth(lit // 10)
    assert 0.5 < bright[0] < 0.721 and bright[0] > bright[2]
    np.testing.assert_allclose(dark / bright, dark[0] / bright[0], rtol=1e-5)
    assert dark[0] < 0.1 * bright[0]


def test_head_without_lashes_is_the_beginning_of_one_with_them(scene, head_texture):
    whole = build_face(exact_face(), head_texture, scene, topology="head").mesh
    bare = build_face(exact_face(), head_texture, scene, topology="head", lashes=False).mesh
    topology, count = load_head_topology(), len(bare.data.vertices)
    assert len(whole.data.vertices) - count == topology.groups["lashes"].sum() and not bare.data.validate()
    np.testing.assert_array_equal(vertices_of(bare.data), vertices_of(whole.data)[:count])
    assert len(bare.data.polygons) == (topology.part != PARTS.index("lashes")).sum()
    assert {polygon.material_index for polygon in bare.data.polygons} == set(range(len(bare.data.materials)))
    assert [material.name.split(".")[0] for material in bare.data.materials] == [material.name for material in whole.data.materials][:-1]
    assert {group.name for group in whole.vertex_groups} - {group.name for group in bare.vertex_groups} == {"lashes"}
    assert [key.name for key in bare.data.shape_keys.key_blocks[1:]] == list(ARKIT_NAMES)


@pytest.mark.parametrize("lens", [None, NEAR])
def test_head_lies_over_the_face(scene, head_texture, lens):
    face = exact_face(35, -20, 10, lens=lens)
    built = build_face(face, head_texture, scene, topology="head")
    topology = load_head_topology()
    inner = topology.trusted[topology.trust[topology.trusted] > 0.99][::40]
    places = topology.trusted_uv[topology.trust[topology.trusted] > 0.99][::40] * 256 - 0.5
    wanted = sample(face.position_map, places)[:, :2]
    assert np.linalg.norm(on_the_photo(scene, built, vertices_of(built.mesh.data)[inner]) - wanted, axis=1).mean() < 1.5


def test_head_wears_the_photos_expression_and_rests_in_its_basis(scene, head_texture):
    face = capture_image(Path(__file__).parent / "data" / "astronaut.jpg")[0]
    built = build_face(face, head_texture, scene, topology="head")
    keys = built.mesh.data.shape_keys.key_blocks
    assert keys["mouthSmileLeft"].value > 0.2 and keys["jawOpen"].value < 0.9
    bpy.context.view_layer.update()
    head = build_head(face)
    inner = load_head_topology().trusted
    np.testing.assert_allclose(evaluated(built)[inner], to_blender(head.vertices)[inner], atol=2e-4)
    np.testing.assert_allclose(vertices_of(built.mesh.data)[inner], to_blender(head.neutral)[inner], atol=0.004)  # but for the gaze's lids


def test_a_face_turned_too_far_says_so(scene, head_texture):
    assert "mirror image" in build_face(exact_face(75), head_texture, scene, topology="head").mesh["prn_capture"]["doubt"]
    assert "doubt" not in build_face(exact_face(20), head_texture, scene, topology="head").mesh["prn_capture"]


COMBINATIONS = {
    "blink": both(eyeBlink=1.0), "blink and squint": both(eyeBlink=1.0, eyeSquint=1.0), "smile": both(mouthSmile=1.0),
    "jaw, smile and funnel": dict(jawOpen=0.7, mouthFunnel=0.5, **both(mouthSmile=0.6)), "pucker": {"mouthPucker": 1.0}}


def crossings(vertices: np.ndarray, quads: np.ndarray) -> int:
    """How many pairs of quads that have no corner in common go through each other."""
    tree = BVHTree.FromPolygons(vertices.tolist(), quads.tolist())
    pairs = np.array([pair for pair in tree.overlap(tree) if pair[0] < pair[1]], int).reshape(-1, 2)
    corners = quads[pairs]
    return int((~(corners[:, 0, :, None] == corners[:, 1, None, :]).any((1, 2))).sum())


@pytest.mark.parametrize("name", COMBINATIONS)
def test_skin_crosses_itself_no_more_than_the_base_mesh_does(name):
    """Against hm08 itself with the same shapes."""
    topology = load_head_topology()
    quads = topology.quads[(topology.quads < topology.skin).all(1)]
    weights = COMBINATIONS[name]
    base = topology.mean + sum(value * topology.expression[ARKIT_NAMES.index(shape)] for shape, value in weights.items())
    plain = head_of(np.zeros(120), np.zeros(52), np.zeros((64, 64, 3)))
    person = build_head(capture_image(Path(__file__).parent / "data" / "astronaut.jpg")[0])
    for head in (plain, person):
        # A person's lips touch a little differently.
        assert crossings(posed(head, **weights), quads) <= crossings(base, quads) + (0 if head is plain else 30)
