"""The one door: pins by purpose, environments that are whole or absent, exit statuses that pass through."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def build(tmp_path, monkeypatch):
    """build.py as a module, with an empty cache and no Debian libraries missing."""
    specification = importlib.util.spec_from_file_location("build", ROOT / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setenv("PRN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "install_libraries", lambda packages: None)
    return module


def door(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(ROOT / "build.py"), *arguments], env=dict(os.environ, **environment),
                          capture_output=True, text=True)


def test_help_lists_the_commands():
    result = door("--help")
    assert result.returncode == 0
    for command in ("capture", "test", "evaluate", "train"):
        assert f"\n  {command} " in result.stdout
    assert door("fly").returncode == 2 and door().returncode == 2


def test_groups_include_others_and_every_package_is_pinned(build):
    import tomllib
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    test = build.requirements(groups, "test")
    assert set(build.requirements(groups, "capture")) < set(test)
    assert not any(pin.startswith("torch") for pin in build.requirements(groups, "capture"))
    assert all("==" in pin for name in groups for pin in build.requirements(groups, name))
    assert build.replace_pin(["bpy==4.5.15", "numpy==1.26.4"], "bpy", "5.0.1") == ["bpy==5.0.1", "numpy==1.26.4"]


def test_an_environment_is_made_once_and_again_when_interrupted(build, monkeypatch, capsys):
    made = []

    def fails(folder, pins, without):
        folder.mkdir()
        raise build.SetupError("no network")

    monkeypatch.setattr(build, "make_environment", fails)
    with pytest.raises(build.SetupError):
        build.environment_for("capture")

    monkeypatch.setattr(build, "make_environment", lambda folder, *_: (folder.mkdir(exist_ok=True), made.append(folder)))
    first = build.environment_for("capture")
    assert build.environment_for("capture") == first and len(made) == 1
    other = build.environment_for("capture", "5.0.1")
    assert other != first and len(made) == 2


def test_missing_libraries_are_named_in_one_line(build, monkeypatch, capsys):
    specification = importlib.util.spec_from_file_location("build", ROOT / "build.py")
    fresh = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(fresh)
    monkeypatch.setattr(fresh, "missing_libraries", lambda packages: ["libfoo1", "libbar2"])
    monkeypatch.setattr(fresh.os, "geteuid", lambda: 1000)
    assert fresh.main(["capture", "photo.jpg"]) == 1
    assert "  sudo apt-get install -y --no-install-recommends libfoo1 libbar2\n" in capsys.readouterr().err


def test_exit_status_and_folder_are_the_commands_own(build, tmp_path):
    """With an environment that is there already, the door only dispatches, and quickly."""
    environment = build.cache_folder()
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import build; from pathlib import Path; "
            "build.install_libraries = lambda packages: None; "
            "build.make_environment = lambda folder, *_: ((folder / 'bin').mkdir(parents=True), "
            "(folder / 'bin' / 'python').symlink_to(sys.executable)); "
            "sys.exit(build.main(['capture', 'nowhere.jpg']))")
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code, str(ROOT)], cwd=tmp_path, capture_output=True, text=True,
                            env=dict(os.environ, PRN_CACHE=str(environment)))
    assert result.returncode == 2 and "'nowhere.jpg' does not exist" in result.stderr
    assert time.perf_counter() - started < 3
