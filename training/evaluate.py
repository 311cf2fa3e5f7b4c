"""Measures a model bundle on photographs with known landmarks: `build.py evaluate --data FOLDER --json FILE`.

FOLDER holds `landmarks68.json`, a list of faces: image (path in FOLDER), source, convention, points (68 x [x, y, ...]
pixels, iBUG order) and, for the convention "3D projected", yaw_deg. NME = mean 2D distance of the points over
sqrt(width * height) of the box round the true ones, in percent. Reads FOLDER and the bundle, writes FILE.
Runs the network as a capture does, in ONNX Runtime; needs neither torch nor bpy.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from prn_blender.prn import face_fit
from prn_blender.prn.capture import fit_face
from prn_blender.prn.crop import crop_from_face_box, crop_from_landmark_box
from prn_blender.prn.detector import FaceBox
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.faces import find_faces
from prn_blender.prn.image_io import load_image
from prn_blender.prn.look import look_twice, run_network
from prn_blender.prn.position_map import SIZE, load_topology
from prn_blender.prn.weights import load_bundle

BINS = {"0-30": (0, 30), "30-60": (30, 60), "60-90": (60, np.inf)}
INNER = slice(17, 68)  # without the jaw line, which conventions draw differently
WAYS = ("box", "detector")
SURFACES = ("fitted", "raw")


@dataclass
class Face:
    """One face with its truth, and what was measured on it."""

    image: Path
    source: str
    points: np.ndarray  # (68, 2) pixels
    yaw: float | None  # degrees; None where the jaw line is drawn as a contour, so that only the inner points compare
    nme: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)  # (way, surface) -> all, inner; %
    roughness: dict[str, float] = field(default_factory=dict)  # surface -> degrees, from the true box
    found: FaceBox | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x_min, y_min, x_max, y_max of the true points."""
        return (*self.points.min(0), *self.points.max(0))

    @property
    def size(self) -> float:
        low, high = self.points.min(0), self.points.max(0)
        return float(np.sqrt(np.prod(high - low)))


def load_faces(folder: Path) -> list[Face]:
    """The faces of a folder with a landmarks68.json. Raises CaptureError, in one sentence, if it is not of that form."""
    path = folder / "landmarks68.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CaptureError(f"'{path}' does not exist: give a folder with photographs and a landmarks68.json.") from None
    except OSError as error:
        raise CaptureError(f"'{path}' cannot be read ({error.strerror}): check the file and its permissions.") from None
    except ValueError:
        raise CaptureError(f"'{path}' is not valid JSON: copy the evaluation folder again.") from None
    if not isinstance(entries, list) or not entries:
        raise CaptureError(f"'{path}' is not a list of faces: copy the evaluation folder again.")
    faces = []
    for number, entry in enumerate(entries):
        try:
            points = np.array([point[:2] for point in entry["points"]], np.float64)
            # A true 3D jaw line can be compared as a whole; without its yaw a face fits in no bin.
            yaw = float(entry["yaw_deg"]) if entry["convention"] == "3D projected" else None
            face = Face(folder / entry["image"], str(entry["source"]), points, yaw)
            if points.shape != (68, 2) or not np.isfinite(points).all() or face.size <= 0:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise CaptureError(
                f"Face {number} of '{path}' is not described as it should be: it needs image, source, convention, "
                f"68 points, and yaw_deg if the convention is '3D projected'."
            ) from None
        faces.append(face)
    return faces


def nme(points: np.ndarray, face: Face) -> tuple[float, float]:
    """NME in percent over all 68 points and over the inner 51, of predicted points (68, 2+)."""
    distance = np.linalg.norm(points[:, :2] - face.points, axis=1) / face.size * 100
    return float(distance.mean()), float(distance[INNER].mean())


def matching_box(boxes: list[FaceBox], face: Face) -> FaceBox | None:
    """The detected box that means this face: the one that overlaps its true box most, if that is enough."""
    x_min, y_min, x_max, y_max = face.box

    def overlap(box: FaceBox) -> float:
        width = min(box.x + box.width, x_max) - max(box.x, x_min)
        height = min(box.y + box.height, y_max) - max(box.y, y_min)
        common = max(width, 0) * max(height, 0)
        return common / (box.width * box.height + face.size**2 - common)

    def means(box: FaceBox) -> bool:
        inside = x_min < box.x + box.width / 2 < x_max and y_min < box.y + box.height / 2 < y_max
        alike = 0.4 < np.sqrt(box.width * box.height) / face.size < 2.5     # a face mirrored in sunglasses is another
        return (inside and alike) or overlap(box) > 0.3

    return max(filter(means, boxes), key=overlap, default=None)


def roughness(grid: np.ndarray, mask: np.ndarray) -> float:
    """How bumpy a surface is: RMS angle in degrees between its normals and those of the same map, slightly blurred.

    grid (64, 64, 3): a map as `face_fit.reading` reads it, in any frame; mask (64, 64) bool. The blur has a sigma of one
    texel and knows the mask; counted where the mask goes on for three texels to every side.
    """
    share = mask.astype(np.float64)
    blurred = cv2.GaussianBlur(grid * share[..., None], (0, 0), 1)
    blurred /= np.maximum(cv2.GaussianBlur(share, (0, 0), 1), 1e-9)[..., None]
    counted = cv2.erode(mask.astype(np.uint8), np.ones((7, 7)), borderValue=0).astype(bool)
    cosine = (_normals(grid) * _normals(blurred)).sum(-1)[counted]
    return float(np.rad2deg(np.sqrt(np.mean(np.arccos(np.clip(cosine, -1, 1)) ** 2))))


def true_roughness(people: int = 100) -> float:
    """The mean roughness of random people's true maps: faces of the shape space, each with a few ARKit shapes at work."""
    space = face_fit.load_shape_space()
    mean, mask = face_fit.reading(space.mean), grid_mask()
    rng = np.random.default_rng(0)
    shapes = len(space.basis) - space.identities
    values = []
    for _ in range(people):
        expression = rng.uniform(0, 1, shapes) * (rng.random(shapes) < 0.1)
        coefficients = np.concatenate([rng.normal(size=space.identities), expression])
        values.append(roughness(mean + space.offsets(coefficients).reshape(mean.shape), mask))
    return float(np.mean(values))


def grid_mask() -> np.ndarray:
    """(64, 64) bool: the cells of `face_fit.reading` that lie wholly on the face."""
    step = SIZE // face_fit.GRID
    return load_topology().mask.reshape(face_fit.GRID, step, face_fit.GRID, step).all((1, 3))


def _normals(position_map: np.ndarray) -> np.ndarray:
    down, right = np.gradient(position_map, axis=(0, 1))
    normals = np.cross(right, down)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


def measure(faces: list[Face], engine: OnnxEngine) -> dict[str, list[float]]:
    """Fill in each face's figures. Returns the seconds that detection (an image), network (a face, both ways) and fit took."""
    topology, mask = load_topology(), grid_mask()
    seconds: dict[str, list[float]] = {"detect": [], "network": [], "fit": []}
    by_image: dict[Path, list[Face]] = {}
    for face in faces:
        by_image.setdefault(face.image, []).append(face)
    for done, (path, present) in enumerate(by_image.items()):
        image = load_image(path)
        started = time.perf_counter()
        boxes = find_faces(image)
        seconds["detect"].append(time.perf_counter() - started)
        for face in present:
            face.found = matching_box(boxes, face)
            started = time.perf_counter()
            crop = crop_from_landmark_box(*face.box)
            seen = {"box": ([crop], *run_network(image, [crop], engine))}
            if face.found is not None:
                seen["detector"] = look_twice(image, [crop_from_face_box(face.found, engine.bundle.crop)], engine)
            seconds["network"].append(time.perf_counter() - started)
            for way, ((crop,), maps, expressions) in seen.items():
                started = time.perf_counter()
                surfaces = {"fitted": fit_face(maps[0], expressions[0], topology).position_map, "raw": maps[0]}
                seconds["fit"].append(time.perf_counter() - started)
                for surface, position_map in surfaces.items():
                    face.nme[way, surface] = nme(crop.to_image(topology.landmarks_of(position_map)), face)
                    if way == "box":
                        face.roughness[surface] = roughness(face_fit.reading(position_map), mask)
        if sys.stderr.isatty():
            print(f"\r{done + 1} of {len(by_image)} photographs", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return seconds


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def in_bin(face: Face, name: str) -> bool:
    low, high = BINS[name]
    return low < abs(face.yaw) <= high or (low == 0 and face.yaw == 0)


def summarise_bins(faces: list[Face], way: str, surface: str) -> dict[str, Any]:
    """NME by yaw bin, the mean of the bins, the inner 51 points, and for the detector the misses."""
    key = way, surface
    measured = [face for face in faces if key in face.nme]
    bins = {name: _mean([face.nme[key][0] for face in measured if in_bin(face, name)]) for name in BINS}
    figures: dict[str, Any] = dict(bins)
    figures["mean"] = _mean(list(bins.values())) if None not in bins.values() else None
    figures["inner51"] = _mean([face.nme[key][1] for face in measured])
    if way == "detector":
        missed = {name: sum(face.found is None and in_bin(face, name) for face in faces) for name in BINS}
        figures["missed"] = sum(missed.values())
        figures["missed_by_bin"] = missed
    return figures


def summarise_boxes(faces: list[Face]) -> dict[str, list[float]] | None:
    """How the detector's boxes lie to the true ones: mean and deviation of size ratio and centre (in true sizes)."""
    rows = []
    for face in faces:
        if face.found is not None:
            box = face.found
            center = np.array([box.x + box.width / 2, box.y + box.height / 2])
            truth = (face.points.min(0) + face.points.max(0)) / 2
            rows.append([np.sqrt(box.width * box.height) / face.size, *(center - truth) / face.size])
    if not rows:
        return None
    mean, deviation = np.mean(rows, 0), np.std(rows, 0)
    names = ("size_ratio", "center_x", "center_y")
    return {name: [round(float(mean[i]), 3), round(float(deviation[i]), 3)] for i, name in enumerate(names)}


def summarise(faces: list[Face], seconds: dict[str, list[float]], engine: OnnxEngine) -> dict[str, Any]:
    """All figures as the JSON file holds them. Top level and `others` are of the default, the fitted surface."""
    whole = [face for face in faces if face.yaw is not None]
    figures: dict[str, Any] = {"faces": len(whole)}
    for way in WAYS:
        figures[way] = summarise_bins(whole, way, "fitted")
    figures["raw"] = {way: summarise_bins(whole, way, "raw") for way in WAYS}
    figures["roughness"] = {surface: _mean([face.roughness[surface] for face in whole]) for surface in SURFACES}
    figures["roughness"]["true"] = round(true_roughness(), 3)
    figures["detected_boxes"] = summarise_boxes(whole)
    figures["others"] = {}
    for source in sorted({face.source for face in faces if face.yaw is None}):
        group = [face for face in faces if face.yaw is None and face.source == source]
        others: dict[str, Any] = {"faces": len(group)}
        for way in WAYS:
            inner = {s: _mean([face.nme[way, s][1] for face in group if (way, s) in face.nme]) for s in SURFACES}
            others[way] = {"inner51": inner["fitted"], "raw_inner51": inner["raw"]}
        others["detector"]["missed"] = sum(face.found is None for face in group)
        figures["others"][source] = others
    figures["milliseconds"] = {stage: round(float(np.median(times)) * 1000, 2) for stage, times in seconds.items()}
    figures["weights"] = {key: engine.bundle.metadata.get(key) for key in ("architecture", "date", "tensors_sha256")}
    return figures


def table(figures: dict[str, Any]) -> str:
    """The figures as a person reads them."""

    def cell(value: Any) -> str:
        return f"{'-' if value is None else format(value, '.2f') if isinstance(value, float) else value:>8}"

    columns = [*BINS, "mean", "inner51", "missed"]
    lines = [f"NME of {figures['faces']} faces, %".ljust(24) + "".join(f"{column:>8}" for column in columns)]
    for surface, group in (("fitted", figures), ("raw", figures["raw"])):
        for way in WAYS:
            lines.append(f"  {surface}, {way}".ljust(24) + "".join(cell(group[way].get(c, "")) for c in columns))
    missed = ", ".join(f"{name}: {count}" for name, count in figures["detector"]["missed_by_bin"].items())
    lines.append(f"missed by the detector   {missed}")
    if figures["detected_boxes"]:
        parts = [f"{name} {mean:.3f} ± {by:.3f}" for name, (mean, by) in figures["detected_boxes"].items()]
        lines.append(f"its boxes to the true    {', '.join(parts)}")
    parts = [f"{surface} {cell(value).strip()}" for surface, value in figures["roughness"].items()]
    lines.append(f"roughness, degrees       {', '.join(parts)}")
    for source, others in figures["others"].items():
        found = others["detector"]
        lines.append(
            f"{source}, {others['faces']} faces, inner51".ljust(25)
            + f"box {cell(others['box']['inner51']).strip()}, detector {cell(found['inner51']).strip()}, "
            f"missed {found['missed']}"
        )
    lines.append("milliseconds, median     " + ", ".join(f"{s} {t:.1f}" for s, t in figures["milliseconds"].items()))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="evaluate", description="Measure a model bundle on known landmarks.")
    parser.add_argument("--data", type=Path, required=True, help="folder with photographs and a landmarks68.json")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="model bundle instead of the shipped one")
    options = parser.parse_args(arguments)
    try:
        if options.json is not None and not options.json.resolve().parent.is_dir():
            raise CaptureError(f"The folder '{options.json.parent}' does not exist: create it, or choose another place.")
        faces = load_faces(options.data)
        engine = OnnxEngine(load_bundle(options.weights))
        figures = summarise(faces, measure(faces, engine), engine)
        if options.json is not None:
            try:
                options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
            except OSError as error:
                raise CaptureError(f"'{options.json}' cannot be written ({error.strerror}): choose another place.")
    except CaptureError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
