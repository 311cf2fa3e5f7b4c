"""LiveLink Face's CSV: the documented header, one row a frame, timecode, gaps, and one sentence for what is no recording."""

import csv
import math

import numpy as np
import pytest

from exact_face import exact_face
from prn_blender.prn import record
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.capture import angles
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.livelink import HEADER, eye_turns, read_livelink, timecode, write_livelink
from takes import BLINK, FPS, JAW, LEFT_LID, make_take, solve_take, talking

# As the app's recordings begin.
APP_HEADER = (
    "Timecode,BlendshapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,EyeWideLeft,"
    "EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,EyeWideRight,"
    "JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,"
    "MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,MouthStretchRight,"
    "MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,MouthLowerDownRight,"
    "MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,BrowOuterUpRight,"
    "CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,"
    "HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll")


@pytest.fixture(scope="module")
def gappy():
    """A take of 90 frames at 30 a second in which nobody is seen before frame 3, nor for 24 frames in the middle."""
    take = solve_take(make_take(count=90, missing=[0, 1, 2, *range(40, 64)]))
    take.length = 95
    return take


def test_the_header_is_the_apps():
    assert ",".join(HEADER) == APP_HEADER


def test_one_row_a_frame_as_the_csv_module_reads_it(tmp_path):
    take = talking()[1]
    write_livelink(tmp_path / "take.csv", record.of_take(take))
    with open(tmp_path / "take.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(take) and all(None not in row.values() and len(row) == 63 for row in rows)
    assert [rows[0]["Timecode"], rows[31]["Timecode"]] == ["00:00:00:00.000", "00:00:01:01.000"]
    assert {row["BlendshapeCount"] for row in rows} == {"61"}
    assert float(rows[BLINK]["EyeBlinkLeft"]) == pytest.approx(take.weights[BLINK, LEFT_LID], abs=1e-6)
    for name in ARKIT_NAMES:  # each under its own name, whatever the order
        column = [float(row[name[0].upper() + name[1:]]) for row in rows]
        np.testing.assert_allclose(column, take.weights[:, ARKIT_NAMES.index(name)], atol=1e-6)
    yaw = [math.degrees(float(row["HeadYaw"])) for row in rows]
    np.testing.assert_allclose(yaw, [angles(rotation)[0] for rotation in take.rotation], atol=1e-4)
    assert max(yaw) > 15


def test_what_is_written_is_read_back(tmp_path):
    take = talking()[1]
    write_livelink(tmp_path / "take.csv", record.of_take(take))
    back = read_livelink(tmp_path / "take.csv")
    np.testing.assert_allclose(back.seconds, np.arange(len(take)) / FPS, atol=1e-6)
    np.testing.assert_allclose(back.weights, take.weights, atol=1e-6)
    np.testing.assert_allclose(back.head, [angles(rotation) for rotation in take.rotation], atol=1e-4)
    assert back.seen.all() and back.turns and not back.missing


def test_frames_without_the_face_are_left_out_and_keep_their_time(tmp_path, gappy):
    write_livelink(tmp_path / "take.csv", record.of_take(gappy))
    lines = (tmp_path / "take.csv").read_text().splitlines()[1:]
    assert len(lines) == 95
    without = [number for number, line in enumerate(lines) if line.count(",") == 1]
    assert without == [0, 1, 2, *range(40, 64), *range(90, 95)] and all(lines[number].endswith(",0") for number in without)
    back = read_livelink(tmp_path / "take.csv")
    assert np.flatnonzero(~back.seen).tolist() == without and back.seconds[90] == pytest.approx(3.0)


def test_a_photograph_is_a_recording_of_one_frame(tmp_path):
    face = exact_face(25, -10)
    face.expression = np.linspace(0, 1, 52, dtype=np.float32)
    write_livelink(tmp_path / "photo.csv", record.of_photo(face))
    back = read_livelink(tmp_path / "photo.csv")
    np.testing.assert_allclose(back.weights, [face.expression], atol=1e-6)
    np.testing.assert_allclose(back.head, [angles(face.rotation)], atol=1e-4)
    face.expression = None
    with pytest.raises(CaptureError, match="this program's own weights only"):
        write_livelink(tmp_path / "other.csv", record.of_photo(face))
    assert [path.name for path in tmp_path.iterdir()] == ["photo.csv"]


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 59.94, 60, 12.5])
def test_timecodes_tell_the_time(tmp_path, fps):
    frames = np.arange(5 * math.ceil(fps))
    one = np.eye(3)[None].repeat(len(frames), 0)
    write_livelink(tmp_path / "take.csv", record.FaceRecord(
        fps, (10, 10), np.ones(len(frames), bool), np.zeros((len(frames), 68, 3)), one, np.zeros((len(frames), 2)),
        np.ones(len(frames)), np.zeros((len(frames), 52))))
    np.testing.assert_allclose(read_livelink(tmp_path / "take.csv").seconds, frames / fps, atol=0.001 / fps + 1e-4)


def test_timecodes_past_an_hour_and_past_midnight(tmp_path):
    assert timecode(30 * 3661 + 7, 30) == "01:01:01:07.000"
    rows = ["23:59:59:58.250", "23:59:59:59.250", "00:00:00:00.250", "00:00:00:01.250"]
    (tmp_path / "night.csv").write_text("Timecode,BlendShapeCount,JawOpen\n" + "".join(f"{code},1,0.5\n" for code in rows))
    back = read_livelink(tmp_path / "night.csv")
    np.testing.assert_allclose(back.seconds, np.arange(4) / 60, atol=1e-6)
    assert len(back.missing) == 51 and not back.turns


def test_a_rate_that_is_told_counts(tmp_path):
    (tmp_path / "short.csv").write_text("Timecode,BlendShapeCount,JawOpen\n00:00:00:00,1,0\n00:00:00:10,1,1\n")
    assert read_livelink(tmp_path / "short.csv").seconds[1] == pytest.approx(10 / 60)  # the app's own
    assert read_livelink(tmp_path / "short.csv", 25).seconds[1] == pytest.approx(10 / 25)


def test_eyes_turn_to_where_they_look():
    weights = np.zeros((3, 52))
    weights[0, ARKIT_NAMES.index("eyeLookOutLeft")] = weights[0, ARKIT_NAMES.index("eyeLookInRight")] = 1  # to the person's left
    weights[1, ARKIT_NAMES.index("eyeLookUpLeft")] = 1
    weights[2, ARKIT_NAMES.index("eyeLookDownRight")] = 1
    left, right, up, down = *eye_turns(weights)[0, [0, 3]], eye_turns(weights)[1, 1], eye_turns(weights)[2, 4]
    assert left == right == -15 and up == 10 and down == -11  # yaw is positive to the viewer's left


HEAD = "Timecode,BlendshapeCount,JawOpen\n"


@pytest.mark.parametrize("content, says", [
    (None, "cannot be read"),
    (b"\xff\xd8\xff\xe0", "not a text"),
    (b"", "not a LiveLink Face recording"),
    (b"a,b,c\n1,2,3\n", "its first line must name"),
    (b"Timecode,BlendshapeCount,Nose\n00:00:00:00,1,0\n", "not a LiveLink Face recording"),
    (HEAD.encode(), "no frame with a face"),
    ((HEAD + "00:00:00:00,0\n").encode(), "no frame with a face"),
    ((HEAD + "now,1,0.5\n").encode(), "Line 2 of .* has no timecode"),
    ((HEAD + "00:00:00:00,1,0.5\n00:00:00:01,1\n").encode(), "Line 3 of .* ends after 2 values"),
    ((HEAD + "00:00:00:00,1,wide\n").encode(), "has 'wide' where a number should be"),
    ((HEAD + "00:00:00:00,1,nan\n").encode(), "has 'nan' where a number should be"),
    ((HEAD + "00:00:00:05,1,0\n00:00:00:03,1,0\n").encode(), "Line 3 of .* lies not after"),
])
def test_what_is_no_recording_gets_one_sentence(tmp_path, content, says):
    path = tmp_path / "bad.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CaptureError, match=says) as told:
        read_livelink(path)
    assert str(told.value).endswith(".") and "\n" not in str(told.value)


def test_the_jaw_moves():
    assert talking()[1].weights[:, JAW].max() > 0.4  # or the tests above would compare nothing with nothing
