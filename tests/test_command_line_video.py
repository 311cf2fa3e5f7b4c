"""A movie on the command line: the whole way with the shipped network, and one sentence for every mistake. Needs bpy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import bpy
import cv2
import pytest

from clips import portrait, wall, write_movie
from gltf import validated
from prn_blender.prn.livelink import read_livelink

ROOT = Path(__file__).resolve().parent.parent


def capture(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-P", "-m", "prn_blender.command_line", "capture", *map(str, arguments)],
                          cwd=cwd, env=dict(os.environ, PYTHONPATH=str(ROOT)), capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("movies")
    write_movie(folder / "clip.mp4", [portrait(x=150 + step) for step in range(12)], 25)
    write_movie(folder / "empty.mp4", [wall()] * 6, 25)
    (folder / "text.mp4").write_text("this is no movie")
    for step in range(4):
        cv2.imwrite(str(folder / f"shot_{step + 1:03d}.png"), portrait()[..., ::-1])
    return folder


@pytest.mark.slow
def test_a_movie_becomes_a_blend_file_and_a_contact_sheet(folder, tmp_path):
    result = capture(folder / "clip.mp4", "--animation", "pc2", "--preview", "look.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "12 frames captured at 25 a second" in result.stdout and "frame 12 of 12" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip.blend", "clip_Eyes_and_Mouth.pc2", "clip_Face.pc2", "look.png"]
    assert cv2.imread(str(tmp_path / "look.png")).std() > 20
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "clip.blend"))
    scene = bpy.context.scene
    assert (scene.render.fps, scene.frame_end - scene.frame_start + 1) == (25, 12)
    cache = bpy.data.objects["Face"].modifiers[0].filepath
    assert cache == "//clip_Face.pc2" and Path(bpy.path.abspath(cache)).exists()
    assert {"clip ARKit", "clip Head"} <= {action.name for action in bpy.data.actions}


@pytest.mark.slow
def test_a_movie_with_a_texture_a_frame(folder, tmp_path):
    result = capture(folder / "clip.mp4", "-o", "take.blend", "--texture-frames", "--texture", "512", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "A texture for each of 12 frames, 512 x 512 pixels: about" in result.stderr and "wrote take_texture" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["take.blend", "take_texture"]
    assert len(list((tmp_path / "take_texture").iterdir())) == 12
    (tmp_path / "elsewhere").mkdir()
    for name in ("take.blend", "take_texture"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "elsewhere" / "take.blend"))
    texture = bpy.data.images["Face Texture"]
    assert texture.source == "SEQUENCE" and texture.filepath == "//take_texture/take_texture_0001.jpg"
    assert Path(bpy.path.abspath(texture.filepath)).exists()


def test_a_movie_becomes_a_recording_with_a_row_a_frame(folder, tmp_path):
    """Without Blender, and so soon."""
    result = capture(folder / "clip.mp4", "-o", "take.csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len((tmp_path / "take.csv").read_text().splitlines()) == 13 and read_livelink(tmp_path / "take.csv", 25).seen.all()
    assert "frame 12 of 12" in result.stderr and "skin of frame 12 of 12" in result.stderr


def test_a_quick_recording_does_not_follow_the_skin(folder, tmp_path):
    result = capture(folder / "clip.mp4", "-o", "take.csv", "--quick", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "frame 12 of 12" in result.stderr and "skin" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".glb", ".json"])
def test_a_movie_in_other_formats(folder, tmp_path, ending):
    result = capture(folder / "clip.mp4", "-o", f"take{ending}", "--detail", "4", "--texture", "512", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"take{ending}"]
    if ending == ".json":
        assert len(json.loads((tmp_path / "take.json").read_text(encoding="utf-8"))["frames"]) == 12
    else:
        assert validated(tmp_path / "take.glb")["issues"]["numErrors"] == 0


@pytest.mark.slow
def test_a_sequence_by_its_pattern(folder, tmp_path):
    result = capture(folder / "shot_###.png", "--animation", "arkit", "--fps", "12", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["shot.blend"]


@pytest.mark.parametrize("arguments, status, says", [
    (["nowhere.mp4"], 2, "'nowhere.mp4' does not exist"),
    (["nowhere_##.png"], 2, "No pictures are named like"),
    (["text.mp4"], 2, "not a movie that can be read"),
    (["empty.mp4"], 3, "No face found in 'empty.mp4'"),
    (["clip.mp4", "-o", "take.obj"], 2, "An OBJ file holds no motion"),
    (["clip.mp4", "-o", "take.glb", "--animation", "pc2"], 2, "A PC2 point cache belongs to a .blend file"),
    (["clip.mp4", "-o", "take.glb", "--texture-frames"], 2, "Textures that change from frame to frame belong to a .blend file"),
    (["clip.mp4", "--shapes"], 2, "--shapes is for photographs"),
    (["clip.mp4", "--face", "all"], 2, "one face at a time"),
    (["clip.mp4", "--surface", "raw"], 2, "leave --surface out"),
    (["clip.mp4", "--smooth", "1,2"], 2, "'1,2' is not three numbers"),
    (["clip.mp4", "--animation", "alembic"], 2, "alembic"),
    (["clip.mp4", "--neutral", "900"], 2, "Frame 900 cannot be the neutral one"),
    (["clip.mp4", "--fps", "0"], 2, "frames a second"),
])
def test_a_wrong_request_gets_one_sentence(folder, arguments, status, says):
    before = sorted(path.name for path in folder.iterdir())
    result = capture(*arguments, cwd=folder)
    assert result.returncode == status, result.stderr
    said = [line for line in result.stderr.splitlines() if not line.startswith("frame ")]
    assert len(said) == 1 and says in said[0] and said[0].endswith(".") and not result.stdout
    assert sorted(path.name for path in folder.iterdir()) == before
