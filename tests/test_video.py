"""Movies, sequences and iterables as frames with their times, and one sentence for what cannot be read."""

import cv2
import numpy as np
import pytest

from clips import portrait, turn_by_metadata, vary_rate, wall, write_movie
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.inputs import is_video
from prn_blender.prn.video import open_video


def stamped(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    return np.full((height, width, 3), 10 * number, np.uint8)


def numbers(video) -> list[int]:
    return [round(float(frame.image.mean()) / 10) for frame in video]


@pytest.mark.parametrize("name, size", [("clip.mp4", (64, 48)), ("clip.avi", (64, 48)), ("odd.mp4", (67, 51)), ("clip.mkv", (64, 48))])
def test_a_movies_frames_and_times(tmp_path, name, size):
    video = open_video(write_movie(tmp_path / name, [stamped(number, *size) for number in range(12)], 25))
    assert video.fps == pytest.approx(25) and video.count == 12
    frames = list(video)
    assert [frame.index for frame in frames] == list(range(12)) and not video.warnings
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / 25, atol=1e-3)
    # The encoder itself makes odd sizes even.
    assert abs(frames[3].image.shape[1] - size[0]) <= 1 and frames[3].image.mean() == pytest.approx(30, abs=4)


def test_colours_are_rgb(tmp_path):
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 250
    assert next(iter(open_video(write_movie(tmp_path / "red.mp4", [red] * 3)))).image.mean((0, 1))[0] > 200


def test_rotation_metadata_is_obeyed(tmp_path):
    picture = wall(96, 64)
    picture[:32] = 230  # bright above
    path = write_movie(tmp_path / "phone.mp4", [picture] * 4)
    turn_by_metadata(path)
    image = next(iter(open_video(path))).image
    assert image.shape == (96, 64, 3) and image[:, 32:].mean() > image[:, :32].mean() + 60  # now at the right


def test_variable_frame_rate_keeps_the_times(tmp_path):
    path = write_movie(tmp_path / "phone.mp4", [stamped(number) for number in range(10)], 25)
    vary_rate(path, 4, 3)
    times = [frame.time for frame in open_video(path)]
    np.testing.assert_allclose(np.diff(times), [0.12] * 4 + [0.04] * 5, atol=1e-3)


def test_a_truncated_movie_keeps_what_was_readable(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40)]
    path = write_movie(tmp_path / "cut.avi", frames)
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    video = open_video(path)
    count = len(list(video))
    assert 10 < count < 30
    if video.warnings:  # an AVI without its index may announce what is there
        assert f"{count} of" in video.warnings[0]


@pytest.mark.parametrize("form", ["folder", "hashes", "percent", "first picture"])
def test_a_sequence_of_pictures(tmp_path, form):
    for number in (7, 8, 10, 11):
        cv2.imwrite(str(tmp_path / f"shot2_{number:04d}.png"), stamped(number))
    source = {"folder": tmp_path, "hashes": tmp_path / "shot2_####.png", "percent": tmp_path / "shot2_%04d.png",
              "first picture": tmp_path / "shot2_0007.png"}[form]
    video = open_video(source, fps=10)
    frames = list(video)
    assert [frame.index for frame in frames] == [0, 1, 3, 4] and video.count == 5
    assert [round(frame.image.mean() / 10) for frame in frames] == [7, 8, 10, 11]
    assert frames[2].time == pytest.approx(0.3)
    assert "lacks 1 of its 5 pictures" in video.warnings[0]


def test_a_broken_picture_is_a_gap(tmp_path):
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"a{number}.png"), stamped(number))
    (tmp_path / "a2.png").write_bytes(b"no picture")
    video = open_video(tmp_path)
    assert numbers(video) == [0, 1, 3] and "a2.png" in video.warnings[0]


def test_dates_in_names_are_no_frame_numbers(tmp_path):
    for name in ("20231123.png", "20240101.png"):
        cv2.imwrite(str(tmp_path / name), stamped(1))
    video = open_video(tmp_path)
    assert [frame.index for frame in video] == [0, 1] and not video.warnings


def test_arrays_and_generators():
    assert numbers(open_video([stamped(1), stamped(2)])) == [1, 2]
    video = open_video(stamped(number) for number in range(3))
    assert video.count is None and numbers(video) == [0, 1, 2] and video.count == 3


def test_wrong_sources_get_one_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("this is no movie")
    (tmp_path / "empty.mov").touch()
    whole = write_movie(tmp_path / "whole.mp4", [portrait()] * 5).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:len(whole) // 2])
    write_movie(tmp_path / "dot.mp4", [np.zeros((8, 8, 3), np.uint8)] * 3)
    (tmp_path / "nothing").mkdir()
    for source, says in (("nowhere.mp4", "does not exist"), ("text.mp4", "not a movie"), ("empty.mov", "is empty"),
                         ("cut.mp4", "not a movie"), ("dot.mp4", "only 8 x 8"), ("nothing", "holds no pictures"),
                         ("a_###.png", "No pictures are named like")):
        with pytest.raises(CaptureError, match=says) as raised:
            open_video(tmp_path / source)
        assert str(raised.value).endswith(".") and "\n" not in str(raised.value)
    with pytest.raises(CaptureError, match="no frames"):
        open_video([])
    with pytest.raises(CaptureError, match="frames a second"):
        open_video([stamped(1)], fps=0)
    with pytest.raises(CaptureError, match="Frame 1 has shape"):
        list(open_video([stamped(1), np.zeros((4, 4), np.float32)]))


def test_what_is_a_video(tmp_path):
    assert is_video(tmp_path / "clip.MOV") and is_video(tmp_path / "a_####.png") and is_video(tmp_path / "a_%04d.png")
    assert not is_video(tmp_path / "photo_0001.jpg") and not is_video(tmp_path)
