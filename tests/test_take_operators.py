"""Performances through the add-on's operators: from files, strips and clips to animated faces. Needs bpy."""

from pathlib import Path

import bpy
import numpy as np
import pytest

from addon import PORTRAIT, registered
from clips import portrait, write_movie
from prn_blender import options, takes
from prn_blender.footage import Footage, Picture
from prn_blender.jobs import Job
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.head_topology import load_head_topology
from prn_blender.prn.openings import opening_grid
from prn_blender.prn.position_map import load_topology
from prn_blender.scene import versions
from test_addon import refused

COUNT = 12


@pytest.fixture(scope="module")
def movie(tmp_path_factory) -> Path:
    frames = [portrait(320, 240, x=150 + 2 * index) for index in range(COUNT)]
    return write_movie(tmp_path_factory.mktemp("take") / "take.avi", frames, fps=24.0)


@pytest.fixture
def scene():
    with registered():
        bpy.context.scene.render.fps = 24
        bpy.context.scene.frame_start, bpy.context.scene.frame_end = 1, 100
        yield bpy.context.scene


def test_a_movie_becomes_an_animated_face(scene, movie, monkeypatch):
    assert bpy.ops.prn.capture_video(filepath=str(movie), topology="GRID", take_detail="QUARTER", texture_size="512") == {"FINISHED"}
    face = bpy.context.active_object
    assert face["prn_capture"]["frames"] == COUNT and face["prn_capture"]["seen"] == 1
    keys = face.data.shape_keys
    assert not keys.use_relative and len(keys.key_blocks) == COUNT + 1
    assert len(face.data.vertices) == options.VERTICES["QUARTER"]
    head = versions.curves_of(face.animation_data.action, "OBJECT")
    assert head[0].range()[0] == 1 and head[0].range()[1] == COUNT
    # The portrait moves to the right by 2 pixels a frame.
    at = {curve.array_index: curve for curve in head if curve.data_path == "location"}[0]
    assert at.evaluate(COUNT) > at.evaluate(1)
    assert scene.camera.data.background_images[0].image.source == "MOVIE"
    assert (scene.render.fps, scene.frame_end) == (24, 100)  # never changed without asking
    # Another way of building does not begin with the video anew.
    monkeypatch.setattr(takes, "capture_performance", None)
    assert bpy.ops.prn.capture_video(filepath=str(movie), way="ARKIT", topology="LOOPS", match_time=True) == {"FINISHED"}
    face = bpy.context.active_object
    assert [block.name for block in face.data.shape_keys.key_blocks] == ["Basis", *ARKIT_NAMES]
    assert len(face.data.vertices) == options.VERTICES["LOOPS"] and scene.frame_end == COUNT
    assert face["prn_capture"]["expression"] == face.data.shape_keys.animation_data.action


def test_a_texture_a_frame(scene, movie):
    # The scene stays at its own rate: twice the movie's.
    scene.render.fps = 48
    assert bpy.ops.prn.capture_video(filepath=str(movie), way="ARKIT", texture_size="512", texture_frames=True, quick=True) == {"FINISHED"}
    face = bpy.context.active_object
    node = next(node for node in face.data.materials[0].node_tree.nodes if node.type == "TEX_IMAGE")
    assert node.image.source == "SEQUENCE" and node.image_user.frame_start == scene.frame_start
    first = Path(bpy.path.abspath(node.image.filepath))
    assert first.exists() and len(list(first.parent.iterdir())) == node.image_user.frame_duration == 2 * COUNT - 1


def test_a_strip_where_it_lies(scene, movie, tmp_path):
    """Trimmed, moved and saved: the take begins where the strip does, and the files are relative."""
    (tmp_path / "take.avi").write_bytes(movie.read_bytes())
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    scene = bpy.context.scene
    strip = versions.sequencer_strips(scene.sequence_editor_create()).new_movie("take", str(tmp_path / "take.avi"), 1, 20)
    strip.frame_offset_start = 3
    scene.sequence_editor.active_strip = strip
    settings = scene.prn
    settings.source, settings.whole, settings.way, settings.topology = "STRIP", "TAKE", "PC2", "LOOPS"
    assert bpy.ops.prn.capture() == {"FINISHED"}
    face = bpy.context.active_object
    assert face["prn_capture"]["frames"] == COUNT - 3
    assert versions.curves_of(face.animation_data.action, "OBJECT")[0].range()[0] == 23
    assert face.modifiers[0].frame_start == 23
    assert face.modifiers[0].filepath.startswith("//") and Path(bpy.path.abspath(face.modifiers[0].filepath)).is_file()
    background = scene.camera.data.background_images[0]
    assert background.image.filepath == "//take.avi"
    assert (background.image_user.frame_start, background.image_user.frame_offset) == (23, 3)
    # One frame of it instead.
    settings.whole = "STILL"
    scene.frame_set(25)
    assert bpy.ops.prn.capture() == {"FINISHED"} and bpy.context.active_object.data.shape_keys is None


def test_a_clip(scene, movie):
    settings = scene.prn
    settings.source, settings.clip, settings.take_detail = "CLIP", bpy.data.movieclips.load(str(movie)), "QUARTER"
    settings.clip.frame_start = 5
    assert bpy.ops.prn.capture() == {"FINISHED"}
    head = versions.curves_of(bpy.context.active_object.animation_data.action, "OBJECT")[0]
    assert head.range()[0] == 5


def test_shape_keys_for_a_photo_of_the_same_person(scene, movie):
    bpy.ops.prn.capture_image(filepath=str(PORTRAIT), topology="LOOPS", texture_size="512")
    face = bpy.context.active_object
    before = np.empty(3 * len(face.data.vertices), np.float32)
    face.data.vertices.foreach_get("co", before)
    assert bpy.ops.prn.add_shapes(filepath=str(movie)) == {"FINISHED"}
    blocks = face.data.shape_keys.key_blocks
    assert [block.name for block in blocks] == ["Basis", "Photo", *ARKIT_NAMES]
    as_in_photo = np.empty_like(before)
    blocks["Photo"].data.foreach_get("co", as_in_photo)
    np.testing.assert_allclose(as_in_photo, before, atol=1e-6)
    jaw, basis = np.empty_like(before), np.empty_like(before)
    blocks["jawOpen"].data.foreach_get("co", jaw)
    blocks["Basis"].data.foreach_get("co", basis)
    assert 0.005 < np.abs(jaw - basis).max() < 0.06  # the chin goes down by centimetres
    assert face.data.shape_keys.animation_data.action == face["prn_capture"]["expression"]
    refused(lambda: bpy.ops.prn.add_shapes(filepath=str(movie)), "has shape keys already")
    refused(lambda: bpy.ops.prn.add_shapes(filepath=str(movie), target="Nobody"), "'Nobody' is gone")
    bpy.context.view_layer.objects.active = None
    assert not bpy.ops.prn.add_shapes.poll()


def test_mistakes_are_told_before_any_work(scene, movie, tmp_path):
    refused(lambda: bpy.ops.prn.capture_video(filepath=str(tmp_path / "nowhere.mp4")), "does not exist")
    refused(lambda: bpy.ops.prn.capture_video(filepath=str(movie), face=0), "choose its number")
    refused(lambda: bpy.ops.prn.capture_video(filepath=str(movie), face=3), "Face 3 was asked for")
    refused(lambda: bpy.ops.prn.capture_video(source="STRIP"), "Select a movie or image strip")
    assert not bpy.data.objects and not bpy.data.actions


def test_a_cancelled_take_ends_soon_and_gives_nothing(scene, movie):
    job = Job("Take", lambda job: takes.capture_take(takes.TakeRequest(movie, interocular=0.05), job))
    job.cancel()
    assert job.wait(20) and job.result is None and job.error is None


def test_footage_is_read_in_its_order(movie):
    """Forwards, standing still, and backwards."""
    pictures = tuple(Picture(movie, index) for index in (4, 5, 5, 8, 2, 3))
    video = takes.footage_video(Footage(movie, pictures, 1), 24.0)
    images = [frame.image for frame in video]
    straight = [frame.image for frame in takes.open_video(movie)]
    for image, picture in zip(images, pictures):
        differences = [np.abs(image.astype(int) - other).mean() for other in straight]
        assert int(np.argmin(differences)) == picture.frame
    assert len(images) == video.count == 6


def test_the_costs_that_are_told_are_true():
    topology = load_topology()
    for name, stride in options.STRIDES.items():
        assert options.VERTICES[name] == len(topology.grid(stride).uvs)
    assert options.VERTICES["LOOPS"] == len(topology.loops().uvs) and options.OPENINGS == len(opening_grid(topology).uvs)
    head = load_head_topology()
    assert (options.VERTICES["HEAD"], options.LASHES) == (head.count, head.count - head.bare)
