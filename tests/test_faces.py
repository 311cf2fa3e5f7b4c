"""Which boxes are faces: the real network judges the astronaut, her sleeve and the rocket behind her."""

from dataclasses import replace

import numpy as np
import pytest

from clips import PORTRAIT
from prn_blender.prn import faces
from prn_blender.prn.capture import capture_image
from prn_blender.prn.detector import FaceBox, detect_faces
from prn_blender.prn.image_io import load_image

SLEEVE, ROCKET = FaceBox(60, 330, 130, 160, 0.95), FaceBox(390, 20, 90, 120, 0.93)


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return load_image(PORTRAIT)


@pytest.fixture(scope="module")
def face(astronaut) -> FaceBox:
    return detect_faces(astronaut)[0]


def found(monkeypatch, image: np.ndarray, boxes: list[FaceBox]) -> list[FaceBox]:
    monkeypatch.setattr(faces, "detect_faces", lambda *_, **__: boxes)
    return faces.find_faces(image)


def test_what_only_the_detector_takes_for_a_face_is_left_out(monkeypatch, astronaut, face):
    assert found(monkeypatch, astronaut, [SLEEVE, ROCKET, face]) == [face]


def test_a_face_of_which_the_detector_is_not_sure_stays_a_face(monkeypatch, astronaut, face):
    unsure = replace(face, confidence=0.91)
    assert found(monkeypatch, astronaut, [SLEEVE, unsure]) == [unsure]


def test_what_is_found_alone_is_not_doubted(monkeypatch, astronaut):
    assert found(monkeypatch, astronaut, [SLEEVE]) == [SLEEVE]
    assert found(monkeypatch, astronaut, [SLEEVE, ROCKET]) == [SLEEVE, ROCKET]


def test_the_largest_face_is_a_face(monkeypatch, astronaut, face):
    monkeypatch.setattr(faces, "detect_faces", lambda *_, **__: [SLEEVE, face])
    capture, = capture_image(astronaut)
    assert capture.box == face
