"""The figures of `evaluate` are what their definitions say, on data whose errors are known; wrong data gets a sentence."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from bundles import eyes_unread, write_constant_bundle  # noqa: F401
from prn_blender.prn import face_fit
from prn_blender.prn.crop import Crop, crop_from_landmark_box
from prn_blender.prn.detector import FaceBox
from prn_blender.prn.position_map import load_topology
from training import evaluate

PHOTO = Path(__file__).parent / "data" / "astronaut.jpg"


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """A position map in crop units whose 68 landmarks' box is just the one that its crop is made from."""
    topology = load_topology()
    points = topology.landmarks_of(topology.mean)[:, :2]
    low, high = points.min(0), points.max(0)
    side = 1.6 * np.sqrt(np.prod(high - low))
    return ((topology.mean - [*(low + high) / 2, 0]) / side).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, truth) -> Path:
    return write_constant_bundle(tmp_path_factory.mktemp("weights"), truth)


def face_points(truth: np.ndarray) -> np.ndarray:
    """The landmarks (68, 2) that the constant network gives round the astronaut's face."""
    return Crop(224, 120, 150).to_image(load_topology().landmarks_of(truth))[:, :2]


def write_data(folder: Path, faces: list[dict]) -> Path:
    folder.mkdir(exist_ok=True)
    shutil.copy(PHOTO, folder / "astronaut.jpg")
    cv2.imwrite(str(folder / "wall.jpg"), np.full((512, 512, 3), 170, np.uint8))
    (folder / "landmarks68.json").write_text(json.dumps(faces))
    return folder


def entry(points: np.ndarray, **changes) -> dict:
    face = {"image": "astronaut.jpg", "source": "made", "convention": "3D projected", "yaw_deg": 5.0, "pitch_deg": 0.0,
            "roll_deg": 0.0, "points": [[*point, 0.0] for point in points.tolist()]}
    return {**face, **changes}


def run(data: Path, weights: Path, out: Path) -> dict:
    assert evaluate.main(["--data", str(data), "--json", str(out), "--weights", str(weights)]) == 0
    return json.loads(out.read_text())


def test_figures_of_known_errors(tmp_path, weights, truth, capsys, eyes_unread):  # noqa: F811
    points = face_points(truth)
    size = np.sqrt(np.prod(points.max(0) - points.min(0)))
    # Two points moved within the box, so that the crop stays the same: one of the jaw line, one of the mouth.
    off = points.copy()
    off[4, 0] += 0.1 * size
    off[60, 1] += 0.2 * size
    faces = [
        entry(points),
        entry(off, yaw_deg=-45.0),
        entry(points, yaw_deg=-80.0, image="wall.jpg"),
        entry(off, source="drawn", convention="2D contour"),
    ]
    del faces[3]["yaw_deg"]
    figures = run(write_data(tmp_path / "data", faces), weights, tmp_path / "figures.json")

    assert figures["faces"] == 3
    box = figures["raw"]["box"]
    assert box["0-30"] == pytest.approx(0, abs=0.01)
    assert box["30-60"] == pytest.approx(30 / 68, abs=0.01)
    assert box["60-90"] == pytest.approx(0, abs=0.01)
    assert box["mean"] == pytest.approx(10 / 68, abs=0.01)
    assert box["inner51"] == pytest.approx(20 / 51 / 3, abs=0.01)
    # The mean face is in the shape space, so that the fit leaves it as it is.
    assert figures["box"]["mean"] == pytest.approx(box["mean"], abs=0.05)

    found = figures["detector"]
    assert found["missed"] == 1 and found["missed_by_bin"] == {"0-30": 0, "30-60": 0, "60-90": 1}
    assert found["60-90"] is None and found["mean"] is None and 0 < found["0-30"] < 20
    assert set(found) - {"missed", "missed_by_bin"} == set(figures["box"]) == {*evaluate.BINS, "mean", "inner51"}

    others = figures["others"]["drawn"]
    assert others["faces"] == 1 and others["detector"]["missed"] == 0
    assert others["box"]["raw_inner51"] == pytest.approx(20 / 51, abs=0.01)
    assert set(figures["roughness"]) == {"raw", "fitted", "true"}
    printed = capsys.readouterr().out
    assert "fitted, box" in printed and "raw, detector" in printed and "drawn, 1 faces" in printed


@pytest.mark.parametrize("yaw, name", [(0, "0-30"), (-30, "0-30"), (30.1, "30-60"), (-60, "30-60"), (89, "60-90"),
                                       (-105, "60-90")])
def test_every_yaw_is_in_one_bin(yaw, name):
    face = evaluate.Face(Path("x"), "made", np.zeros((68, 2)), float(yaw))
    assert [bin for bin in evaluate.BINS if evaluate.in_bin(face, bin)] == [name]


def test_which_box_means_a_face():
    face = evaluate.Face(Path("x"), "made", np.array([[100, 100], [200, 200]] * 34, float), 0.0)
    far, around, close = FaceBox(0, 0, 90, 90, 1), FaceBox(60, 60, 180, 180, 1), FaceBox(95, 85, 110, 120, 1)
    assert evaluate.matching_box([far, around, close], face) is close
    assert evaluate.matching_box([far], face) is None
    assert evaluate.matching_box([], face) is None
    # A box whose centre is not inside, but which covers enough.
    aside = FaceBox(145, 145, 120, 50, 1)
    assert evaluate.matching_box([aside], face) is None
    assert evaluate.matching_box([FaceBox(100, 151, 100, 100, 1)], face) is not None


def test_roughness():
    mask = evaluate.grid_mask()
    rows, columns = np.mgrid[:64, :64].astype(float)
    flat = np.stack([columns, rows, np.zeros((64, 64))], 2)
    assert evaluate.roughness(flat, mask) == pytest.approx(0, abs=1e-6)
    smooth = face_fit.reading(load_topology().mean)
    rng = np.random.default_rng(0)
    spread = np.linalg.norm(np.diff(smooth, axis=0), axis=-1).mean()
    bumpy = smooth + rng.normal(0, 0.2 * spread, smooth.shape)
    assert 2 < evaluate.roughness(smooth, mask) < 8
    assert evaluate.roughness(bumpy, mask) > evaluate.roughness(smooth, mask) + 3
    # Neither the frame nor the scale of a map matters.
    turned = 37 * smooth @ cv2.Rodrigues(np.array([0.3, -0.8, 0.2]))[0].T + 5
    assert evaluate.roughness(turned, mask) == pytest.approx(evaluate.roughness(smooth, mask))
    assert evaluate.roughness(smooth, mask) < evaluate.true_roughness(20) < 9


def test_nme_follows_its_definition(truth):
    points = face_points(truth)
    face = evaluate.Face(Path("x"), "made", points.astype(float), 0.0)
    crop = crop_from_landmark_box(*face.box)
    # sqrt(w h) of the box, not its side: the crop is 1.6 times that.
    assert evaluate.nme(points + [0.016 * crop.side / 1.6, 0], face) == pytest.approx((1.6, 1.6))


@pytest.mark.parametrize(
    "content, says",
    [
        (None, "does not exist"),
        ("{", "not valid JSON"),
        ("[]", "not a list of faces"),
        ("{}", "not a list of faces"),
        ("[3]", "Face 0"),
        ('[{"image": "astronaut.jpg"}]', "Face 0"),
    ],
)
def test_wrong_data(tmp_path, weights, content, says, capsys):
    if content is not None:
        (tmp_path / "landmarks68.json").write_text(content)
    refused(tmp_path, weights, says, capsys)


@pytest.mark.parametrize("change", [{"points": [[1, 2]] * 67}, {"points": [["a", "b"]] * 68}, {"yaw_deg": None},
                                    {"points": [[1, 2]] * 68}, {"image": None}])
def test_wrong_faces(tmp_path, weights, truth, change, capsys):
    points = face_points(truth)
    refused(write_data(tmp_path, [entry(points), {**entry(points), **change}]), weights, "Face 1", capsys)


def test_a_photograph_that_is_missing(tmp_path, weights, truth, capsys):
    data = write_data(tmp_path, [entry(face_points(truth), image="nobody.jpg")])
    refused(data, weights, "nobody.jpg' does not exist", capsys)


def test_weights_that_are_missing(tmp_path, truth, capsys):
    refused(write_data(tmp_path, [entry(face_points(truth))]), tmp_path, "prn.safetensors' is missing", capsys)


def refused(data: Path, weights: Path, says: str, capsys) -> None:
    out = data / "figures.json"
    assert evaluate.main(["--data", str(data), "--json", str(out), "--weights", str(weights)]) == 2
    message = capsys.readouterr().err.strip()
    assert says in message and "\n" not in message and message.endswith(".")
    assert not out.exists()
