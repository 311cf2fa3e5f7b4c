"""What the network's maps do not follow is read from the skin: drawn takes whose brows move and whose maps' brows hardly do."""

from functools import lru_cache

import cv2
import numpy as np
import pytest

from exact_face import rotation_of
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.at_rest import compared_at_rest
from prn_blender.prn.crop import Crop
from prn_blender.prn.errors import CaptureCancelled
from prn_blender.prn.face_fit import load_shape_space
from prn_blender.prn.performance import SKIN, capture_performance
from prn_blender.prn.position_map import SIZE, load_topology
from prn_blender.prn.render import Picture
from prn_blender.prn.skin_motion import PICTURE, picture
from prn_blender.prn.take import Performance, Smoothing
from prn_blender.prn.take_recorder import Recorder
from prn_blender.prn.take_solve import solve
from prn_blender.prn.time_grid import TimeGrid
from prn_blender.prn.track import TrackedFace, TrackedFrame
from clips import portrait

COUNT, FPS = 24, 30.0
BROW, CORNERS = ARKIT_NAMES.index("browInnerUp"), [ARKIT_NAMES.index(f"mouthStretch{side}") for side in ("Left", "Right")]
READ = 0.5  # so much of a brow's motion is in the maps


@lru_cache(maxsize=1)
def drawn_take() -> tuple[np.ndarray, list[TrackedFrame]]:
    """(COUNT, 52) true weights, and frames that show them."""
    weights = np.zeros((COUNT, 52))
    weights[:, BROW] = 0.5 * np.clip(np.sin((np.arange(COUNT) - 5) / 12 * np.pi), 0, 1)
    weights[:, CORNERS] = 0.5 * np.clip(np.sin((np.arange(COUNT) - 10) / 10 * np.pi), 0, 1)[:, None]
    return weights, drawn(weights, READ)


def drawn(weights: np.ndarray, read: float) -> list[TrackedFrame]:
    """Frames 360 pixels high that show these weights (N, 52); their maps and expressions show a share of them, `read`."""
    space, topology, rng = load_shape_space(), load_topology(), np.random.default_rng(5)
    person = rng.normal(0, 0.5, space.identities)
    skin = np.clip(140 + 25 * cv2.GaussianBlur(rng.normal(0, 1, (512, 512, 3)), (0, 0), 2.5) / 0.11, 0, 255).astype(np.uint8)
    grid = topology.grid(2)
    frames = []
    for i in range(len(weights)):
        def posed(shown: np.ndarray) -> np.ndarray:
            small = space.offsets(np.concatenate([person, shown])).reshape(64, 64, 3)
            head = space.mean + cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            return (1000 * head @ rotation_of(4 * np.sin(i / 4), 3 * np.cos(i / 5)).T + [240 + i / 3, 170, 0]).astype(np.float32)
        crop = Crop(240 + i / 3, 170, 230)
        image = Picture(grid.sample(posed(weights[i])), grid.quads, 480, 360).textured(np.full((360, 480, 3), 60, np.uint8), grid.uvs, skin)
        guess = (read * weights[i]).astype(np.float32)
        frames.append(TrackedFrame(i, i / FPS, image, [TrackedFace(0, crop, crop.from_image(posed(guess)), guess, 0.0)], False))
    return frames


def solved(frames: list[TrackedFrame], quick: bool = False, **options) -> Performance:
    recorder = Recorder(load_shape_space(), skin=not quick)
    for frame in frames:
        recorder.add(frame, frame.faces[0])
    return solve(recorder, "the take", FPS, (480, 360), Smoothing(0, 0, 0), source_fps=FPS, **options)


def changed(frames: list[TrackedFrame], change) -> list[TrackedFrame]:
    """The same frames with other pictures."""
    return [TrackedFrame(frame.index, frame.time, change(frame.index, frame.image.copy()), frame.faces, frame.cut) for frame in frames]


def test_skin_tells_what_the_maps_lack():
    weights, frames = drawn_take()
    quick, followed = solved(frames, quick=True).weights, solved(frames).weights
    for shape in (BROW, CORNERS[0], CORNERS[1]):
        peak = weights[:, shape].argmax()
        assert quick[peak, shape] < 0.7 * weights[peak, shape]
        assert followed[peak, shape] > 0.65 * weights[peak, shape]
        assert np.corrcoef(followed[:, shape], weights[:, shape])[0, 1] > 0.95
    shapes = [BROW, *CORNERS]
    assert np.abs(followed - weights)[:, shapes].mean() < 0.6 * np.abs(quick - weights)[:, shapes].mean()
    assert np.delete(followed, shapes, 1).mean() < 0.003           # what does not move stays


def test_the_face_moves_as_its_skin_does():
    """In shape, whatever the weights: the brow's landmarks, over the picture."""
    weights, frames = drawn_take()
    top = int(weights[:, BROW].argmax())

    def rise(performance: Performance) -> float:
        points = [performance.topology.landmarks_of(performance.head_map(i))[[20, 21, 22, 23], 1].mean() for i in (0, top)]
        return (points[0] - points[1]) / performance.metric

    space = load_shape_space()
    shape = cv2.resize(space.basis[space.identities + BROW].reshape(64, 64, 3), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    true = -0.5 * load_topology().landmarks_of(shape)[[20, 21, 22, 23], 1].mean()
    assert rise(solved(frames)) == pytest.approx(true, rel=0.3)
    assert rise(solved(frames, quick=True)) < 0.65 * true


def test_a_face_that_only_seems_to_be_at_rest_is_not_compared_with():
    """The maps and the first network say that nothing ever moves; the skin shows that it does, in the half in which rest was looked for."""
    weights = np.zeros((40, 52))
    weights[:24, [BROW, *CORNERS]] = 0.6 * np.clip((24 - np.arange(24)) / 6, 0, 1)[:, None]
    recorder = Recorder(load_shape_space())
    for frame in drawn(weights, 0):
        recorder.add(frame, frame.faces[0])
    recorder.finish()
    good, nothing = np.arange(len(weights)), np.zeros((len(weights), 52))
    given = recorder, good, TimeGrid(np.array(recorder.times), FPS, FPS), recorder.space.small_mean, nothing, 6
    found = compared_at_rest(*given, np.arange(2, 40, 4), np.zeros(len(weights)))
    assert found.calm >= 24
    assert np.abs(weights[found.calm]).max() == 0
    assert compared_at_rest(*given, np.arange(0), np.zeros(len(weights))).calm == 6


def test_light_that_changes_is_no_motion():
    weights, frames = drawn_take()
    lit = changed(frames, lambda i, image: np.clip(image * (0.75 + 0.02 * i), 0, 255).astype(np.uint8))
    assert np.abs(solved(lit).weights - solved(frames).weights).mean() < 0.01


def test_what_hides_the_skin_is_not_taken_for_it():
    _, frames = drawn_take()
    rng = np.random.default_rng(0)

    def hand(i: int, image: np.ndarray) -> np.ndarray:
        if i >= 8:
            image[90:160, 170:300] = cv2.resize(rng.integers(0, 255, (9, 13, 3), np.uint8), (130, 70), interpolation=cv2.INTER_NEAREST)
        return image

    hidden, quick = solved(changed(frames, hand)).weights, solved(frames, quick=True).weights
    assert np.abs(hidden - quick)[:, BROW].max() < 0.25


def test_plain_skin_and_a_grey_picture_change_nothing():
    _, frames = drawn_take()
    plain = changed(frames, lambda i, image: np.full_like(image, 128))
    quick, followed = solved(frames, quick=True), solved(plain)
    # What is left is how far the network's own weights are trusted beside the skin.
    assert np.abs(followed.weights - quick.weights).mean() < 0.01


def test_a_picture_is_laid_out_as_the_map_however_large_the_frame():
    image = cv2.resize(np.random.default_rng(1).integers(0, 255, (30, 40, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    middle = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    flat = np.dstack([*np.meshgrid(middle, middle), np.zeros((SIZE, SIZE))]).astype(np.float32)  # each texel at its own place
    crop = Crop(320, 240, 256)
    small = picture(image, crop, flat)
    assert small.shape == (PICTURE, PICTURE)
    expected = cv2.cvtColor(crop.cut(image, PICTURE), cv2.COLOR_RGB2GRAY) * 255
    assert np.abs(small - expected).mean() < 3
    leaning = Crop(325, 236, 240, 25)
    assert np.abs(picture(image, leaning, leaning.from_image(crop.to_image(flat))).astype(float) - small).mean() < 0.5
    large = picture(cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR), Crop(1281.5, 961.5, 1024), flat)
    assert np.abs(large.astype(float) - small).mean() < 2


def test_progress_goes_on_while_the_skin_is_followed_and_it_can_be_cancelled():
    frames, calls = [portrait(x=150 + step) for step in range(20)], []
    capture_performance(frames, progress=calls.append)
    assert [call.doing for call in calls[-2:]] == [SKIN, SKIN] and calls[-1].fraction == 1
    assert str(calls[-1]).startswith("skin of frame 20 of 20")
    with pytest.raises(CaptureCancelled):
        capture_performance(frames, progress=calls.append, cancelled=lambda: calls[-1].doing == SKIN)
