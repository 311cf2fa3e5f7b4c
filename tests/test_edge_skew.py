"""Faces near a video's edge: their heads are those of crops without streaks, their expressions those of crops with them."""

import numpy as np

from clips import portrait
from prn_blender.prn import capture_video
from prn_blender.prn.crop import Crop
from prn_blender.prn.edge_skew import EdgeSkew
from prn_blender.prn.engine import open_engine
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.small_map import whole

WITHIN, BEYOND = Crop(50, 50, 40), Crop(10, 50, 40)
IMAGES = [np.zeros((100, 100, 3), np.uint8)] * 4
CHEEK, MOUTH = (40, 12), (44, 32)  # rows and columns of small maps


class Straight:
    """An engine that sees every head at 0, but for a mouth that it sees at -9."""

    input_size, topology = 32, load_topology()

    def __init__(self) -> None:
        self.passes = 0

    def run(self, pictures: np.ndarray) -> tuple[np.ndarray, None]:
        self.passes += 1
        maps = np.zeros((len(pictures), 64, 64, 3), np.float32)
        maps[:, MOUTH[0] - 2:MOUTH[0] + 3, MOUTH[1] - 2:MOUTH[1] + 3] = -9
        return maps, None


def taken_off(skew: EdgeSkew, values: list[float], crop: Crop, where: tuple[int, int] = CHEEK) -> tuple[list[float], int]:
    engine, maps = Straight(), np.ones((len(values), 64, 64, 3), np.float32) * np.float32(values)[:, None, None, None]
    skew.take_off(maps, IMAGES, [crop] * len(values), engine)
    return maps[:, *where, 0].round(4).tolist(), engine.passes


def test_within_the_picture_nothing_changes_and_nothing_is_looked_at():
    assert taken_off(EdgeSkew(), [1, 2, 3, 4], WITHIN) == ([1, 2, 3, 4], 0)


def test_near_the_edge_one_look_a_batch_tells_the_skew():
    skew = EdgeSkew()
    assert taken_off(skew, [3, 3, 3, 3], BEYOND) == ([0, 0, 0, 0], 2)
    # An expression in the middle of the next batch stays.
    assert taken_off(skew, [3, 5, 3, 3], BEYOND) == ([0, 2, 0, 0], 1)


def test_a_mouth_moves_as_one_with_what_is_round_it():
    assert taken_off(EdgeSkew(), [3, 5, 3, 3], BEYOND, MOUTH) == ([0, 2, 0, 0], 2)


def test_a_skew_that_changes_is_followed_from_frame_to_frame():
    skew = EdgeSkew()
    taken_off(skew, [4, 4, 4, 4], BEYOND)
    assert taken_off(skew, [0, 0, 0, 0], BEYOND) == ([-3.5, -3, -2.5, -2], 1)
    # A frame that is read again by itself has what was known last.
    assert taken_off(skew, [2], BEYOND) == ([0], 0)


def test_a_face_near_a_videos_edge():
    """Its head is that of a crop without streaks, its expression and its mouth's opening those of a crop with them."""
    frames = [portrait(150, 150, 75, 75, 1.1)] * 10
    engine, topology = open_engine(quantized=True), load_topology()
    column, row = (topology.landmarks[:17] // 4).astype(int).T  # the jaw

    def opening(small: np.ndarray) -> np.ndarray:
        upper, lower = topology.landmarks_of(whole(small))[[62, 66]]
        return (lower - upper)[:2]

    for frame in capture_video(frames):
        face, = frame.faces
        assert not face.crop.within(frame.image)
        (bare, streaky), (_, expression) = engine.run(np.stack([face.crop.shown(frame.image, engine.input_size, streaks) for streaks in (False, True)]))
        was, still = (np.linalg.norm((one - bare)[row, column], axis=1).mean() for one in (streaky, face.network_map))
        assert was > 0.004 and still < 0.2 * was
        was, still = (np.linalg.norm(opening(one) - opening(streaky)) for one in (bare, face.network_map))
        assert was > 0.005 and still < 0.5 * was
        np.testing.assert_allclose(face.expression, expression, atol=1e-5)
