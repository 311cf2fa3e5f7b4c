"""A texture a frame: the right frame's colours in the right picture, on the disk and in Blender's material. Needs bpy."""

from pathlib import Path

import bpy
import cv2
import numpy as np
import pytest

from clips import portrait
from prn_blender.prn.errors import CaptureCancelled, CaptureError
from prn_blender.prn.frame_texture import FrameTextures, frames_shown, nearest, write_frame_textures
from prn_blender.prn.performance import capture_performance
from prn_blender.prn.position_map import SIZE
from prn_blender.prn.video import VideoFrame, open_video
from prn_blender.scene.export import export
from prn_blender.scene.performance import build_performance
from prn_blender.scene.stage import match_time, new_stage
from takes import make_take, solve_take, talking

COUNT, PAINTED = 10, 6


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """A portrait that gets a green cheek from one frame on."""
    pictures = [portrait(x=150 + step) for step in range(COUNT)]
    for step in range(PAINTED, COUNT):
        cv2.circle(pictures[step], (150 + step - 22, 138), 7, (20, 200, 40), -1)
    return pictures


@pytest.fixture(scope="module")
def performance(frames):
    return capture_performance(frames, fps=24)


def green_cheek(path: Path) -> bool:
    """Whether the viewer's left half of a face's middle has anything green."""
    picture = cv2.resize(cv2.imread(str(path)), (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(int)
    middle = picture[60:200, 30:128]
    return bool((middle[..., 1] > middle[..., [0, 2]].max(-1) + 40).sum() > 20)


def test_each_picture_shows_its_own_frame(frames, performance, tmp_path):
    folder, said = tmp_path / "take_texture", []
    textures = write_frame_textures(performance, open_video(frames), folder, 512, announce=said.append)
    assert textures == FrameTextures(folder / "take_texture_0001.jpg", len(performance), performance.start)
    pictures = sorted(folder.iterdir())
    assert [path.name for path in pictures] == [f"take_texture_{number:04d}.jpg" for number in range(1, len(performance) + 1)]
    painted = [green_cheek(path) for path in pictures]
    assert painted == [performance.start + i >= PAINTED for i in range(len(performance))]
    assert len(said) == 1 and "512 x 512 pixels: about" in said[0] and f"{len(performance)} frames" in said[0]
    # Half the rate, into the same folder: nothing of the longer sequence stays.
    textures = write_frame_textures(performance, open_video(frames), folder, 256, rate=12.0)
    assert textures.count == len(list(folder.iterdir())) < len(pictures) and not list(tmp_path.glob(".*"))


def test_the_head_has_them_in_its_own_layout(frames, performance, tmp_path):
    part = [step for step in range(COUNT) if step in (PAINTED - 1, PAINTED)]
    textures = write_frame_textures(performance, open_video(frames), tmp_path / "head", 512, "head")
    plain, painted = (cv2.imread(str(tmp_path / "head" / f"head_{step - performance.start + 1:04d}.jpg")).astype(int) for step in part)
    change = np.abs(painted - plain).max(-1) > 60
    assert textures.count == len(performance) and 10 < change.sum() < 0.02 * change.size


def test_what_stops_it_leaves_nothing_behind(frames, performance, tmp_path, monkeypatch):
    def cancel(progress):
        if progress.done == 2:
            raise CaptureCancelled("The capture was cancelled.")

    with pytest.raises(CaptureCancelled):
        write_frame_textures(performance, open_video(frames), tmp_path / "take", 256, progress=cancel)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(CaptureError, match="only 0 MB are free in"):
        write_frame_textures(performance, open_video(frames), tmp_path / "take", 256)
    assert not list(tmp_path.iterdir())


def test_frames_of_a_scene_with_another_rate():
    performance = solve_take(make_take(missing=range(15)))  # 45 frames at 30 a second, from frame 15
    assert frames_shown(performance, 30.0)[0] == 15
    np.testing.assert_array_equal(frames_shown(performance, 30.0)[1], np.arange(45))
    start, shown = frames_shown(performance, 60.0)
    assert start == 30 and len(shown) == 89 and (np.diff(shown) <= 1).all() and (shown[0], shown[-1]) == (0, 44)
    start, shown = frames_shown(performance, 24.0)
    assert start == 12 and len(shown) == 37 and (np.diff(shown)[:-1] >= 1).all() and (shown[0], shown[-1]) == (0, 44)


def test_the_nearest_frame_is_taken():
    video = [VideoFrame(i, time, np.full((1, 1, 3), i)) for i, time in enumerate((0.0, 0.1, 0.25, 0.3))]
    assert [int(picture[0, 0, 0]) for picture in nearest(video, np.array([0.0, 0.04, 0.16, 0.2, 0.29, 0.5]))] == [0, 0, 1, 2, 3, 3]


@pytest.mark.parametrize("topology", ["grid", "head"])
def test_the_material_plays_them(tmp_path, topology):
    _, performance = talking()
    for number, colour in enumerate(((0, 0, 255), (0, 255, 0), (255, 0, 0)), 1):  # red, green, blue
        cv2.imwrite(str(tmp_path / f"plain_{number:04d}.jpg"), np.full((64, 64, 3), colour, np.uint8))
    scene = new_stage()
    match_time(scene, 30.0, 60)
    built = build_performance(performance, FrameTextures(tmp_path / "plain_0001.jpg", 3, 4), scene, way="arkit", topology=topology,
                              stride=4)
    assert built.texture.source == "SEQUENCE" and not built.texture.packed_file
    scene.world = bpy.data.worlds.new("White")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = 1, 1, 1, 1
    scene.render.engine, scene.cycles.samples = "CYCLES", 4
    scene.cycles.use_denoising = False  # not every Blender has a denoiser
    scene.render.resolution_x, scene.render.resolution_y = 64, 48
    scene.render.film_transparent = True
    camera = built.camera.data
    camera.show_background_images = False
    scene.render.filepath = str(tmp_path / "look.png")
    for frame, channel in ((scene.frame_start + 4, 2), (scene.frame_start + 5, 1), (scene.frame_start + 6, 0), (scene.frame_start + 30, 0)):
        scene.frame_set(frame)
        bpy.ops.render.render(write_still=True)
        pixels = cv2.imread(scene.render.filepath, cv2.IMREAD_UNCHANGED)
        colours = pixels[pixels[..., 3] > 250][:, :3].astype(int)
        assert np.median(colours, 0).argmax() == channel, frame  # behind the last picture it stands
    # Other formats get the texture of the scene's frame.
    scene.frame_set(scene.frame_start + 5)
    for ending, files in ((".glb", 1), (".obj", 3)):
        written = export(tmp_path / f"still{ending}", [built.mesh])
        assert len(written) >= files and built.texture.source == "SEQUENCE" and "SEQUENCE" in {
            node.image.source for node in built.mesh.data.materials[0].node_tree.nodes if node.type == "TEX_IMAGE"}
    np.testing.assert_allclose(cv2.imread(str(tmp_path / "still_texture.png"))[0, 0], (0, 255, 0), atol=3)
