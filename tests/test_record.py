"""The JSON of landmarks and pose: of photographs and takes, in one form, true to the capture."""

import json

import numpy as np
import pytest

from exact_face import NEAR, exact_face
from prn_blender.prn import record
from takes import NEAR as NEAR_CLIP
from takes import talking


def posed(entry: dict, size: list[int]) -> np.ndarray:
    """(68, 3) the head's landmarks carried to the picture by the pose, as the conventions say."""
    points = entry["pixels_per_metre"] * np.array(entry["head_landmarks"]) @ np.array(entry["rotation"]).T + entry["translation"]
    if "focal" in entry:
        middle = (np.array(size) - 1) / 2
        points[:, :2] = middle + (points[:, :2] - middle) * entry["focal"] / (entry["focal"] + points[:, 2:])
    return points


def test_a_photograph(tmp_path):
    faces = [exact_face(20, 5), exact_face(-30), exact_face(-30, lens=NEAR)]
    record.write_json(tmp_path / "faces.json", [record.of_photo(face) for face in faces])
    told = json.loads((tmp_path / "faces.json").read_text(encoding="utf-8"))
    assert told["fps"] is None and len(told["frames"]) == 3 and told["image_size"] == list(faces[0].image.shape[1::-1])
    for number, (face, entry) in enumerate(zip(faces, told["frames"]), 1):
        assert entry["face"] == number and entry["yaw"] == pytest.approx(face.yaw, abs=1e-3)
        np.testing.assert_allclose(np.array(entry["landmarks"])[:, :2], face.topology.landmarks_of(face.position_map)[:, :2], atol=0.01)
        assert entry.get("focal") == (NEAR.focal if face.lens else None)
        np.testing.assert_allclose(posed(entry, told["image_size"]), entry["landmarks"], atol=0.01)


@pytest.mark.parametrize("lens", [None, NEAR_CLIP])
def test_a_take_has_a_record_a_frame(tmp_path, lens):
    take = talking(lens)[1]
    record.write_json(tmp_path / "take.json", [record.of_take(take)])
    told = json.loads((tmp_path / "take.json").read_text(encoding="utf-8"))
    assert len(told["frames"]) == len(take) and told["fps"] == take.fps
    entry = told["frames"][17]
    assert entry["frame"] == 17 and entry["seconds"] == pytest.approx(17 / take.fps, abs=1e-5)
    np.testing.assert_allclose(entry["arkit"], take.weights[17], atol=1e-5)
    head = take.topology.landmarks_of(take.head_map(17))
    np.testing.assert_allclose(np.array(entry["landmarks"])[:, :2], take.seen_at(17, head)[:, :2], atol=0.02)
    np.testing.assert_allclose(posed(entry, told["image_size"]), entry["landmarks"], atol=0.01)


def test_frames_outside_the_take_are_told_as_not_seen(tmp_path):
    take = talking()[1]
    take.length, kept = len(take) + 2, take.length
    try:
        record.write_json(tmp_path / "take.json", [record.of_take(take)])
    finally:
        take.length = kept
    frames = json.loads((tmp_path / "take.json").read_text(encoding="utf-8"))["frames"]
    assert [entry["seen"] for entry in frames[-3:]] == [True, False, False] and "landmarks" not in frames[-1]
