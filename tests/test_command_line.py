"""The command line: the whole path with a stand-in network, and one sentence for every mistake. Needs bpy."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from bundles import write_constant_bundle
from prn_blender.prn.head_topology import load_head_topology
from prn_blender.prn.openings import opening_grid
from prn_blender.prn.position_map import load_topology

ROOT = Path(__file__).resolve().parent.parent
PORTRAIT = ROOT / "tests" / "data" / "astronaut.jpg"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A bundle whose network sees the mean face in every crop."""
    mean = load_topology().mean
    low, high = (edge(load_topology().landmarks_of(mean), 0) for edge in (np.min, np.max))
    side = 1.6 * np.sqrt((high - low)[0] * (high - low)[1])
    position_map = (mean - (low + high) / 2 * (1, 1, 0)) / side
    return write_constant_bundle(tmp_path_factory.mktemp("bundle") / "weights", position_map.astype(np.float32))


def capture(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    if "PRN_INSIDE_BLENDER" in os.environ:
        pytest.skip("starts a Python with the bpy module")
    return subprocess.run([sys.executable, "-P", "-m", "prn_blender.command_line", "capture", *map(str, arguments)],
                          cwd=cwd, env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True, text=True)


def refused(result: subprocess.CompletedProcess, status: int, says: str) -> None:
    assert result.returncode == status, result.stderr
    assert says in result.stderr and result.stderr.count("\n") == 1 and result.stderr.endswith(".\n")
    assert not result.stdout


def test_a_photo_becomes_a_blend_file_and_a_preview(tmp_path, weights):
    result = capture(PORTRAIT, "--weights", weights, "--preview", "look.png", cwd=tmp_path)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["astronaut.blend", "look.png"]
    first, *others = result.stdout.splitlines()
    assert first.startswith("1 face captured in ") and "network" in first and "texture" in first
    assert others[-2:] == ["wrote look.png", "wrote astronaut.blend"]
    preview = cv2.imread(str(tmp_path / "look.png"))
    height, width = preview.shape[:2]
    assert width == 7 * height and preview.std() > 20


def test_a_head_without_lashes_and_its_preview(tmp_path, weights):
    result = capture(PORTRAIT, "--weights", weights, "--topology", "head", "--no-lashes", "--texture", "512", "-o", "face.obj",
                     "--preview", "look.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "face.obj").read_text().splitlines()
    assert sum(line.startswith("v ") for line in lines) == load_head_topology().bare
    height, width = cv2.imread(str(tmp_path / "look.png")).shape[:2]
    assert width == 8 * height


def test_output_chooses_the_format(tmp_path, weights):
    (tmp_path / "out").mkdir()
    result = capture(PORTRAIT, "--weights", weights, "-o", "out/face.OBJ", "--surface", "raw", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["face.OBJ", "face.mtl", "face_texture.png"]


@pytest.mark.parametrize("arguments, says", [
    ([], "INPUT"),
    (["nowhere.jpg"], "'nowhere.jpg' does not exist"),
    (["."], "is a folder"),
    (["text.jpg"], "text.jpg"),
    (["empty.jpg"], "empty.jpg"),
    (["cut.jpg"], "cut.jpg"),
    (["dot.png"], "dot.png"),
    ([PORTRAIT, "-o", "face.stl"], "has an ending that is not known"),
    ([PORTRAIT, "-o", "face"], "has an ending that is not known"),
    ([PORTRAIT, "-o", "nowhere/face.glb"], "The folder 'nowhere' does not exist"),
    ([PORTRAIT, "-o", "folder.glb"], "is a folder"),
    ([PORTRAIT, "--preview", "look.jpg"], "has an ending that is not known"),
    ([PORTRAIT, "--preview", "nowhere/look.png"], "The folder 'nowhere' does not exist"),
    ([PORTRAIT, "--face", "0"], "'0' is not largest, all, or a number from 1"),
    ([PORTRAIT, "--face", "5"], "Face 5 was asked for, but only one face was found"),
    ([PORTRAIT, "--surface", "shiny"], "shiny"),
    ([PORTRAIT, "--eye-distance", "0"], "'0' is not a distance"),
    ([PORTRAIT, "--focal", "3"], "'3' is not a focal length"),
    ([PORTRAIT, "--texture", "2000"], "2000"),
    ([PORTRAIT, "--detail", "3"], "3"),
    ([PORTRAIT, "--colour"], "--colour"),
    ([PORTRAIT, "--weights", "nowhere"], "nowhere"),
])
def test_a_wrong_request_gets_one_sentence(tmp_path, weights, arguments, says):
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(PORTRAIT.read_bytes()[:9000])
    (tmp_path / "folder.glb").mkdir()
    cv2.imwrite(str(tmp_path / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    before = sorted(tmp_path.rglob("*"))
    known = [] if "--weights" in arguments else ["--weights", weights]
    refused(capture(*arguments, *known, cwd=tmp_path), 2, says)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_folder_that_cannot_be_written(tmp_path, weights):
    if not Path("/proc/self").exists():
        pytest.skip("a folder that nobody can write is only known on Linux")
    refused(capture(PORTRAIT, "--weights", weights, "-o", "/proc/self/face.glb", cwd=tmp_path), 2, "cannot be written")


def test_a_photo_without_a_face(tmp_path, weights):
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((300, 400, 3), 128, np.uint8))
    refused(capture("wall.png", "--weights", weights, cwd=tmp_path), 3, "No face found in 'wall.png'")
    assert [path.name for path in tmp_path.iterdir()] == ["wall.png"]


def test_a_damaged_bundle(tmp_path, weights):
    broken = tmp_path / "weights"
    broken.mkdir()
    for piece in weights.iterdir():
        (broken / piece.name).write_bytes(piece.read_bytes()[:-1])
    refused(capture(PORTRAIT, "--weights", broken, cwd=tmp_path), 2, "weights")


def test_help_starts_at_once(tmp_path):
    result = capture("--help", cwd=tmp_path)
    assert result.returncode == 0 and "--preview PNG" in result.stdout


def test_the_mesh_follows_the_options(tmp_path, weights):
    def vertices(*options) -> list[str]:
        assert capture(PORTRAIT, "--weights", weights, "-o", "face.obj", *options, cwd=tmp_path).returncode == 0
        return [line for line in (tmp_path / "face.obj").read_text().splitlines() if line.startswith("v ")]

    half = vertices("--detail", "2", "--texture", "512")
    assert cv2.imread(str(tmp_path / "face_texture.png")).shape == (512, 512, 3)
    loops = vertices("--topology", "loops", "--no-camera", "--eye-distance", "31.5")
    topology = load_topology()
    openings = len(opening_grid(topology).texel_coordinates)
    assert len(half) == len(topology.grid(2).texel_coordinates) + openings
    assert len(loops) == len(topology.loops().texel_coordinates) + openings
    # From ear to ear they are one face; the grid goes further down the neck.
    widths = [np.ptp([float(line.split()[1]) for line in lines]) for lines in (loops, half)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=2e-2)
    assert cv2.imread(str(tmp_path / "face_texture.png")).shape == (2048, 2048, 3)
