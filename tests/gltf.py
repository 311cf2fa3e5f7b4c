"""The Khronos glTF validator from npm, kept in the cache folder. Needs node and npm; who lacks them skips, and is told why."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import build

VERSION = "2.0.0-dev.3.10"
SCRIPT = """
const validator = require('gltf-validator'), fs = require('fs');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1]))).then(report => console.log(JSON.stringify(report)));
"""


def validated(path: Path) -> dict:
    """The validator's report on a file."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not (node and npm):
        pytest.skip("the Khronos validator needs node and npm, which are not here")
    folder = build.cache_folder() / f"gltf-validator-{VERSION}"
    if not (folder / "node_modules" / "gltf-validator" / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--silent", "--no-save", "--prefix", str(folder), f"gltf-validator@{VERSION}"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("npm could not fetch the Khronos validator")
    answer = subprocess.run([node, "-e", SCRIPT, str(path)], capture_output=True, text=True, check=True,
                            env=dict(os.environ, NODE_PATH=str(folder / "node_modules")))
    return json.loads(answer.stdout)
