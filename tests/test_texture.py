"""The texture against a face whose texture is known: right where the photo shows it, clean where it does not."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from exact_face import BACKGROUND, HEIGHT, WIDTH, exact_face, skin_texture
from prn_blender.prn.fill import pull_push
from prn_blender.prn.texture import beard_of, lips_of, make_texture

SIZE = 512


def difference(texture: np.ndarray) -> np.ndarray:
    """(256, 256) largest difference from the known texture over the channels, at texel size."""
    small = cv2.resize(texture, (256, 256), interpolation=cv2.INTER_AREA).astype(float)
    known = cv2.resize(skin_texture(), (256, 256), interpolation=cv2.INTER_AREA).astype(float)
    return np.abs(small - known).max(-1)


@pytest.mark.parametrize("yaw", [0, 30, -50])
def test_what_the_photo_shows_is_copied(yaw):
    face = exact_face(yaw)
    wrong = difference(make_texture(face, SIZE))
    seen = cv2.erode(face.visibility, np.ones((7, 7))) > 0.6
    assert seen.sum() > 5000
    # A texel of the far cheek may be a third of a pixel of the photo: dots are blurred, tones are not.
    assert np.median(wrong[seen]) < 3 and np.percentile(wrong[seen], 90) < 12


@pytest.mark.parametrize("yaw", [0, 35, -60])
def test_no_background_on_the_skin(yaw):
    face = exact_face(yaw)
    texture = cv2.resize(make_texture(face, SIZE), (256, 256), interpolation=cv2.INTER_AREA).astype(int)
    greenness = texture[..., 1] - texture[..., 0]  # skin: about -45; background: +180
    assert greenness[face.topology.mask].max() < 0


@pytest.mark.parametrize("yaw", [-65, 70])
def test_a_profiles_middle_has_nothing_of_the_background(yaw):
    """Where the surface is a little off, as a network's is, the outline in the photo lies beside the face's middle."""
    face = exact_face(yaw)
    off = np.float32([np.sign(-yaw) * 0.02 * np.ptp(face.position_map[face.topology.mask][:, 1]), 0, 0])
    texture = make_texture(replace(face, position_map=face.position_map + off), 256).astype(int)
    middle = np.s_[50:230, 108:148]
    greenness = (texture[..., 1] - texture[..., 0])[middle]
    assert greenness[face.topology.mask[middle]].max() < 0


@pytest.mark.parametrize("yaw", [70, -80])
def test_a_profiles_lips_meet_in_the_middle(yaw):
    painted, topology = skin_texture(256), exact_face().topology
    red = lips_of(topology) > 0
    painted[red] = 190, 50, 60
    texture = make_texture(exact_face(yaw, texture=painted), 256).astype(int)
    middle = (lips_of(topology) > 0.8) & topology.mask & (np.abs(np.arange(256) - 127.5) < 12)
    redness = texture[..., 0] - texture[..., 1]     # skin: about 45
    assert np.median(redness[middle]) > 80


@pytest.mark.parametrize("yaw", [70, -80])
def test_a_profiles_beard_covers_the_chin(yaw):
    painted, topology = skin_texture(256), exact_face().topology
    painted[beard_of(topology) > 0.1] = 45, 32, 26
    texture = make_texture(exact_face(yaw, texture=painted), 256).astype(int)
    chin = (beard_of(topology) > 0.8) & topology.mask
    bearded = texture.mean(-1)[chin] < 90           # skin: about 165
    assert chin.sum() > 1000 and bearded.mean() > 0.9


def test_the_hidden_side_comes_from_the_mirror():
    face = exact_face(50)
    side = np.s_[60:200, 30:70], np.s_[60:200, 186:226]
    hidden = side[0] if face.visibility[side[0]].mean() < face.visibility[side[1]].mean() else side[1]
    assert face.visibility[hidden].mean() < 0.25
    assert np.median(difference(make_texture(face, SIZE))[hidden]) < 8


def test_light_from_one_side_leaves_no_seam():
    face = exact_face(40)
    shade = np.linspace(0.45, 1.1, WIDTH)[None, :, None]
    lit = np.clip(face.image * shade, 0, 255).astype(np.uint8)
    face.image[:] = lit
    texture = cv2.resize(make_texture(face, SIZE), (256, 256), interpolation=cv2.INTER_AREA)
    tone = cv2.GaussianBlur(texture.astype(np.float32).mean(-1), (0, 0), 4)
    steps = np.abs(np.diff(tone, axis=1))[90:190, 40:216]
    assert steps.max() < 6  # grey levels from one texel to the next; the sides differ by up to 70


def test_hair_beside_the_face_is_not_skin():
    face = exact_face(0)
    rows = np.mgrid[:HEIGHT, :WIDTH][0]
    forehead = face.position_map[np.argmax(face.topology.mask[:, 128]) + 30, 128, 1]
    face.image[rows < forehead] = 45, 30, 22
    texture = cv2.resize(make_texture(face, SIZE), (256, 256), interpolation=cv2.INTER_AREA)
    assert texture[face.topology.mask].min(0)[0] > 100  # dots are about 150, hair is 45


def test_a_face_cut_off_by_the_photo_is_completed():
    face = exact_face(0, place=(20.0, 200.0))  # the middle line is at the left edge
    texture = make_texture(face, SIZE)
    assert np.median(difference(texture)[60:200, 40:216]) < 6


def test_grown_skin_is_as_grainy_as_the_photo():
    def grain(face):
        grey = cv2.cvtColor(make_texture(face, SIZE), cv2.COLOR_RGB2GRAY).astype(np.float32)
        return (grey - cv2.GaussianBlur(grey, (0, 0), 3))[10:40, 200:300].std()  # the crown, which no photo shows

    smooth = grain(exact_face(0, pitch=-20, pixels_per_metre=3000, place=(320, 240)))
    face = exact_face(0, pitch=-20, pixels_per_metre=3000, place=(320, 240))
    face.image[:] = np.clip(face.image + np.random.default_rng(0).normal(0, 12, (HEIGHT, WIDTH, 1)), 0, 255)
    assert 1.5 * smooth < grain(face) < 12


def test_a_large_photo_gives_the_same_texture():
    face = exact_face(20)
    large = replace(face, image=cv2.resize(face.image, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC),
                    position_map=(face.position_map + (0.5, 0.5, 0)) * 8 - (0.5, 0.5, 0))
    both = [make_texture(capture, 256).astype(int) for capture in (face, large)]
    assert np.percentile(np.abs(both[0] - both[1])[face.visibility > 0.5], 95) < 8


def test_size_and_type():
    texture = make_texture(exact_face(10))
    assert texture.shape == (2048, 2048, 3) and texture.dtype == np.uint8


def test_pull_push_keeps_what_is_known_and_fills_smoothly():
    values = np.zeros((64, 64, 1), np.float32)
    values[:, 40:] = 10
    weights = np.zeros((64, 64), np.float32)
    weights[:, :20] = weights[:, 40:] = 1
    filled = pull_push(values, weights)[..., 0]
    assert (filled[:, :20] == 0).all() and (filled[:, 40:] == 10).all()
    assert (np.diff(filled[32]) > -0.5).all() and 0 < filled[32, 30] < 10


def test_background_is_seen_by_the_test():
    assert (exact_face(0).image[2, 2] == BACKGROUND).all()
