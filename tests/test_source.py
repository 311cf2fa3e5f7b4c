"""The panel's sources: which picture lies at which frame. Strips are compared with what Blender itself renders. Needs bpy."""

from pathlib import Path

import bpy
import cv2
import numpy as np
import pytest

from addon import registered
from clips import write_movie
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.video import read_frame
from prn_blender.scene import source, versions

COUNT = 40


@pytest.fixture
def scene():
    with registered():
        scene = bpy.context.scene
        scene.render.fps = 25
        scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 64, 48, 100
        scene.view_settings.view_transform = "Standard"
        scene.frame_start, scene.frame_end = 1, 100
        yield scene


def new_effect(editor, name: str, kind: str, over=None):
    """An effect strip in channel 2 over another one, or 30 frames of an effect that needs none."""
    start, length = (over.frame_final_start, over.frame_final_duration) if over else (1, 30)
    strips = versions.sequencer_strips(editor)
    known = strips.bl_rna.functions["new_effect"].parameters.keys()
    options = {"length": length} if "length" in known else {"frame_end": start + length}
    if over:
        options["input1" if "input1" in known else "seq1"] = over
    return strips.new_effect(name=name, type=kind, channel=2, frame_start=start, **options)


def retime(strip, percent: float) -> None:
    """What an animator does with the strip in the sequencer: sets its speed."""
    window = bpy.context.window_manager.windows[0]
    area = window.screen.areas[0]
    area.type = "SEQUENCE_EDITOR"
    if hasattr(window.workspace, "sequencer_scene"):
        window.workspace.sequencer_scene = bpy.context.scene
    strip.select = True
    with bpy.context.temp_override(window=window, area=area, region=area.regions[-1]):
        assert bpy.ops.sequencer.retiming_segment_speed_set(speed=percent) == {"FINISHED"}


def numbered(index: int) -> np.ndarray:
    """A frame that tells its number by its grey."""
    return np.full((48, 64, 3), 20 + 5 * index, np.uint8)


@pytest.fixture(scope="module")
def movie(tmp_path_factory) -> Path:
    return write_movie(tmp_path_factory.mktemp("movie") / "grey.avi", [numbered(index) for index in range(COUNT)])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sequence")
    paths = [folder / f"shot_{number:04d}.png" for number in range(11, 11 + COUNT)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), numbered(index))
    return paths


def strips(scene):
    editor = scene.sequence_editor or scene.sequence_editor_create()
    return versions.sequencer_strips(editor)


def rendered(scene, frame: int) -> int:
    """The number of the frame that Blender shows at a scene frame."""
    scene.frame_set(frame)
    scene.render.filepath = bpy.app.tempdir + "shown.png"
    bpy.ops.render.render(write_still=True)
    return round((cv2.imread(scene.render.filepath)[20:28, 28:36].mean() - 20) / 5)


def shown(footage: source.Footage, frame: int) -> int:
    picture = footage.at(frame)
    return picture.frame if picture.frame is not None else int(picture.path.stem[-4:]) - 11


def compare(scene, frames, within: int = 0) -> None:
    scene.prn.source = "STRIP"
    footage = source.footage_of(scene, scene.prn)
    np.testing.assert_allclose([shown(footage, frame) for frame in frames], [rendered(scene, frame) for frame in frames],
                               atol=within)


def add_movie(scene, movie, frame=5):
    strip = strips(scene).new_movie("grey", str(movie), 1, frame)
    scene.sequence_editor.active_strip = strip
    return strip


def add_pictures(scene, pictures, frame=5):
    strip = strips(scene).new_image("shot", str(pictures[0]), 1, frame)
    for path in pictures[1:]:
        strip.elements.append(path.name)
    scene.sequence_editor.active_strip = strip
    return strip


@pytest.mark.parametrize("add", [add_movie, add_pictures])
def test_a_strip_where_it_lies(scene, movie, pictures, add):
    strip = add(scene, movie if add is add_movie else pictures)
    footage = source.of_strip(scene, None)
    assert footage.start == 5 and len(footage.pictures) == COUNT
    compare(scene, (5, 6, 20, 44))
    assert strip.frame_final_end == 45


@pytest.mark.parametrize("add", [add_movie, add_pictures])
def test_a_trimmed_and_moved_strip(scene, movie, pictures, add):
    strip = add(scene, movie if add is add_movie else pictures)
    strip.frame_offset_start, strip.frame_offset_end = 7, 10
    strip.frame_start = 30
    footage = source.of_strip(scene, None)
    assert footage.start == 37 and len(footage.pictures) == COUNT - 17
    compare(scene, (37, 45, 59))


@pytest.mark.parametrize("add", [add_movie, add_pictures])
def test_hard_trims_and_reversal(scene, movie, pictures, add):
    strip = add(scene, movie if add is add_movie else pictures)
    strip.animation_offset_start, strip.animation_offset_end = 4, 6
    compare(scene, (5, 10, 30))
    strip.use_reverse_frames = True
    compare(scene, (5, 10, 30))


@pytest.mark.parametrize("add", [add_movie, add_pictures])
@pytest.mark.parametrize("percent", [200, 50, 80])
def test_a_retimed_strip(scene, movie, pictures, add, percent):
    """Twice as fast, half as fast and slower, as the sequencer's retiming does it."""
    strip = add(scene, movie if add is add_movie else pictures)
    if not hasattr(strip, "retiming_keys"):
        pytest.skip("this Blender retimes no image strips")
    retime(strip, percent)
    end = strip.frame_final_end
    assert end - 5 == pytest.approx(COUNT * 100 / percent, abs=2)
    # Since 5.0 Blender steps through a retimed strip unevenly: some pictures twice, others not at all.
    compare(scene, [5, 6, 9, (5 + end) // 2, end - 3], within=int(bpy.app.version >= (5, 0, 0)))


def test_a_movie_of_another_rate(scene, movie):
    """The movie has 25 frames a second, the scene 50: Blender shows each frame twice where the strip follows the scene."""
    scene.render.fps = 50
    add_movie(scene, movie)
    compare(scene, (5, 6, 7, 8, 20, 40))


@pytest.mark.parametrize("control, factor", [("MULTIPLY", 2.0), ("MULTIPLY", 0.5), ("STRETCH", None)])
def test_a_speed_strip(scene, movie, control, factor):
    strip = add_movie(scene, movie)
    speed = new_effect(scene.sequence_editor, "Speed", "SPEED", strip)
    speed.speed_control = control
    if factor:
        speed.speed_factor = factor
    scene.sequence_editor.active_strip = speed
    compare(scene, (5, 6, 10, 20))


def test_what_cannot_be_followed_is_said(scene, movie):
    strip = add_movie(scene, movie)
    speed = new_effect(scene.sequence_editor, "Speed", "SPEED", strip)
    speed.speed_control = "FRAME_NUMBER"
    scene.sequence_editor.active_strip = speed
    with pytest.raises(CaptureError, match="set it to Multiply or Stretch"):
        source.of_strip(scene, None)
    speed.speed_control = "MULTIPLY"
    speed.keyframe_insert("speed_factor", frame=1)
    with pytest.raises(CaptureError, match="animated"):
        source.of_strip(scene, None)


def test_no_strip_or_the_wrong_one(scene):
    scene.prn.source = "STRIP"
    assert "Select a movie or image strip" in source.missing(scene, scene.prn)
    colour = new_effect(scene.sequence_editor_create(), "Colour", "COLOR")
    scene.sequence_editor.active_strip = colour
    assert "neither a movie nor an image" in source.missing(scene, scene.prn)
    with pytest.raises(CaptureError, match="neither a movie nor an image"):
        source.footage_of(scene, scene.prn)


def test_a_single_picture_as_a_long_strip(scene, pictures):
    strip = add_pictures(scene, pictures[7:8])
    strip.frame_final_duration = 30
    footage = source.of_strip(scene, None)
    assert len(footage.pictures) == 30 and {picture.path for picture in footage.pictures} == {pictures[7]}


def test_a_movie_clip(scene, movie, pictures):
    scene.prn.source = "CLIP"
    assert "Choose a movie clip" in source.missing(scene, scene.prn)
    scene.prn.clip = bpy.data.movieclips.load(str(movie))
    scene.prn.clip.frame_start, scene.prn.clip.frame_offset = 10, 3
    footage = source.footage_of(scene, scene.prn)
    assert footage.start == 10 and shown(footage, 10) == 3 and shown(footage, 12) == 5
    scene.prn.clip = bpy.data.movieclips.load(str(pictures[0]))
    footage = source.footage_of(scene, scene.prn)
    assert len(footage.pictures) == COUNT and shown(footage, 3) == 2


def test_files(scene, movie, pictures):
    scene.frame_start = 101
    for kind, path in (("MOVIE", movie), ("SEQUENCE", pictures[3])):
        scene.prn.source, scene.prn.path = kind, ""
        assert source.missing(scene, scene.prn).startswith("Choose")
        scene.prn.path = str(path)
        footage = source.footage_of(scene, scene.prn)
        assert footage.start == 101 and len(footage.pictures) == COUNT and shown(footage, 111) == 10
        assert shown(footage, 1) == 0 and shown(footage, 999) == COUNT - 1
        scene.prn.path = str(path.with_name("nowhere" + path.suffix))
        with pytest.raises(CaptureError, match="does not exist"):
            source.footage_of(scene, scene.prn)


def test_single_frames_are_read(movie):
    assert [round((read_frame(movie, index).mean() - 20) / 5) for index in (0, 17, COUNT - 1)] == [0, 17, COUNT - 1]
    with pytest.raises(CaptureError, match="has no frame 41"):
        read_frame(movie, COUNT)
