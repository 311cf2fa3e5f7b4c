"""Measures the whole head against the truth: distances by region, agreement of two photographs, clean quads, time.

`build.py measure-head --faces FOLDER`: people, cameras, light and skins are drawn from other seeds than training's, each person
twice: another pose, light and expression. The truth is the same shape space on all vertices of the head. The photographs of
FOLDER are only captured, to see whether every head comes out whole. Writes nothing but --json.
"""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from prn_blender.prn import face_fit
from prn_blender.prn.capture import angles, place_face
from prn_blender.prn.crop import crop_from_landmarks
from prn_blender.prn.detector import FaceBox
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.head import Head, build_head
from prn_blender.prn.head_topology import load_head_topology
from prn_blender.prn.look import look_twice
from prn_blender.prn.weights import load_bundle
from training.cache import default_cache
from training.evaluate import BINS
from training.kit import Kit
from training.measure import check_request, rounded, tell
from training.photographs import IBUG_FROM_MEDIAPIPE, Photographs
from training.synthetic import Heads

SEED = 2027
THIN = 0.02                     # of a quad's area on the mean head, below which it counts as degenerate
REGIONS = ("face", "scalp", "ears", "neck")


def region_weights() -> dict[str, np.ndarray]:
    """(skin,) bool for each region, and for all of the outer skin."""
    topology = load_head_topology()
    groups = {name: weights[:topology.skin] > 0.5 for name, weights in topology.groups.items()}
    regions = {"face": groups["face"], "scalp": groups["scalp"], "ears": groups["ear.L"] | groups["ear.R"], "neck": groups["neck"]}
    return regions | {"all": np.any(list(regions.values()), 0)}


def captured(image: np.ndarray, landmarks: np.ndarray, engine: OnnxEngine):
    """What `capture_image` makes of a face whose landmarks (68, 2) are known, so that no detector has to find it."""
    low, high = landmarks.min(0), landmarks.max(0)
    (crop,), maps, expressions = look_twice(image, [crop_from_landmarks(landmarks)], engine)
    return place_face(image, FaceBox(*low, *(high - low), 1.0), crop, maps[0], expressions[0], engine.topology, "fitted", 0.063, {})


def aligned(points: np.ndarray, truth: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Points (N, 3) brought onto the truth by the similarity that fits the chosen ones best: a photo tells no size."""
    scale, rotation, shift = face_fit.similarity(points[chosen], truth[chosen], np.ones(int(chosen.sum())))
    return scale * points @ rotation.T + shift


def measure_people(heads: Heads, engine: OnnxEngine, people: int) -> dict[str, Any]:
    """Distances to the truth in millimetres by region and yaw, of sides, and between two photographs of each person."""
    topology, regions = load_head_topology(), region_weights()
    skin, everything = topology.skin, regions["all"]
    basis = np.concatenate([topology.identity, topology.expression])[:, :skin]
    mean, mirror = topology.mean[:skin], topology.mirror[:skin]
    rows, alone, agreement, strangers, sides = [], [], [], [], []
    before: Head | None = None
    for number in range(people):
        rng = np.random.default_rng([SEED, number])
        person = rng.normal(0, 1, 120) * rng.uniform(0.5, 1.2), int(rng.integers(len(heads.skins)))
        pair = []
        for _ in range(2):
            one = heads.one(rng, person=person)
            face = captured(one["image"], one["landmarks"], engine)
            head = build_head(face)
            truth = mean + np.tensordot(one["coefficients"], basis, 1)
            found = aligned(head.vertices[:skin], truth, everything)
            distance = 1000 * np.linalg.norm(found - truth, axis=1)
            plain = 1000 * np.linalg.norm(aligned(mean, truth, everything) - truth, axis=1)
            by_face = aligned(head.vertices[:skin], truth, regions["face"])
            alone.append(1000 * np.linalg.norm(by_face - truth, axis=1)[regions["face"]].mean())
            rows.append((abs(angles(one["rotation"])[0]), distance, plain))
            sides.append(1000 * np.abs(lopsided(found, mirror) - lopsided(truth, mirror))[everything].mean())
            pair.append(head)
        at_rest = [head.neutral[:skin] for head in pair]
        agreement.append([1000 * np.linalg.norm(aligned(*at_rest, chosen) - at_rest[1], axis=1)[chosen].mean()
                          for chosen in (regions["face"], everything)])
        if before is not None:
            chosen = regions["face"]
            strangers.append(1000 * np.linalg.norm(aligned(before.neutral[:skin], at_rest[0], chosen) - at_rest[0], axis=1)[chosen].mean())
        before = pair[0]
    figures: dict[str, Any] = {"people": people}
    for name, (low, high) in {**BINS, "all": (-1, np.inf)}.items():
        chosen = [row for row in rows if low < row[0] <= high]
        figures[name] = {"pictures": len(chosen)} | {
            region: {"mean": rounded(np.mean([row[1][mask].mean() for row in chosen])),
                     "95th": rounded(np.mean([np.percentile(row[1][mask], 95) for row in chosen])),
                     "mean head": rounded(np.mean([row[2][mask].mean() for row in chosen]))}
            for region, mask in regions.items()}
    figures["face, brought onto the face alone"] = rounded(np.mean(alone))
    figures["sides"] = rounded(np.mean(sides))
    face, whole = np.array(agreement).T
    figures["agreement"] = {"face": rounded(face.mean()), "whole head": rounded(whole.mean()), "face, 95th": rounded(np.percentile(face, 95)),
                            "face, two strangers": rounded(np.mean(strangers))}
    return figures


def lopsided(points: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(N,) metres by which the two sides of points (N, 3) differ, after the best mirror plane is found."""
    other = points[mirror] * [-1, 1, 1]
    scale, rotation, shift = face_fit.similarity(other, points, np.ones(len(points)))
    return np.linalg.norm(other @ rotation.T * scale + shift - points, axis=1)


class Quads:
    """Which quads of a head have turned over or shrunk to nothing, compared with the mean head."""

    def __init__(self) -> None:
        topology = load_head_topology()
        self.quads = topology.quads
        sides = np.sort(np.stack([self.quads, np.roll(self.quads, -1, 1)], -1), -1).reshape(-1, 2)
        _, same = np.unique(sides, axis=0, return_inverse=True)
        order = np.argsort(same.ravel(), kind="stable")
        both = np.flatnonzero(np.diff(same.ravel()[order]) == 0)
        self.pairs = np.stack([order[both], order[both + 1]], 1) // 4
        self.area, self.fold = self._look(topology.mean_vertices)
        # Where lids close their edges fold onto each other.
        self.open = ~np.isin(self.quads, topology.lid_rims).any(1)

    def _look(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Areas (F,) and, for each pair of neighbours, the cosine between their normals."""
        corners = vertices[self.quads].astype(np.float64)
        normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        area = np.linalg.norm(normals, axis=1)
        normals /= np.maximum(area, 1e-15)[:, None]
        return area, (normals[self.pairs[:, 0]] * normals[self.pairs[:, 1]]).sum(1)

    def bad(self, vertices: np.ndarray, lids: bool) -> tuple[int, int]:
        """How many quads have folded onto a neighbour (by more than 150 degrees where the mean head has less than 90), and how many
        are degenerate. lids: whether the edges of the lids count."""
        area, fold = self._look(vertices)
        counted = self.open | lids
        return (int(((fold < -0.866) & (self.fold > 0) & counted[self.pairs].all(1)).sum()),
                int(((area < THIN * self.area) & counted).sum()))


def measure_photographs(photographs: Photographs, engine: OnnxEngine, count: int) -> dict[str, Any]:
    """Bad quads of heads of so many random photographs, at rest and as in the photo; and how long a head takes."""
    quads, rng = Quads(), np.random.default_rng(SEED)
    folded = degenerate = heads_with = 0
    seconds: dict[str, list[float]] = {"head": [], "network": []}
    for index in rng.permutation(len(photographs.points))[:count]:
        landmarks = photographs.points[index][IBUG_FROM_MEDIAPIPE, :2]
        started = time.perf_counter()
        face = captured(np.ascontiguousarray(photographs.pixels[photographs.chosen[index]]), landmarks, engine)
        between = time.perf_counter()
        head = build_head(face)
        seconds["head"].append(time.perf_counter() - between)
        seconds["network"].append(between - started)
        found = np.array([quads.bad(head.neutral, lids=True), quads.bad(head.vertices, lids=False)])
        folded, degenerate = folded + found[:, 0].sum(), degenerate + found[:, 1].sum()
        heads_with += bool(found.any())
    return {"photographs": count, "folded": int(folded), "degenerate": int(degenerate), "heads with any": int(heads_with),
            "head_ms": rounded(1000 * np.median(seconds["head"])), "network_and_fit_ms": rounded(1000 * np.median(seconds["network"]))}


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py measure-head", description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--people", type=int, default=150, help="how many people to draw, twice each (default 150)")
    parser.add_argument("--photographs", type=int, default=1000, help="how many photographs to look at (default 1000)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="model bundle instead of the shipped one")
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    try:
        check_request(options)
        engine = OnnxEngine(load_bundle(options.weights))
        engine.topology.require_hm08("The head")
    except CaptureError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    cv2.setNumThreads(1)
    kit = Kit(options.cache)
    validation = Photographs(options.faces, options.cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True)
    figures: dict[str, Any] = {}
    if options.people:
        figures["people"] = measure_people(Heads(options.cache, validation, kit, skins="skins_held_out.npy"), engine, options.people)
    if options.photographs:
        everyone = Photographs(options.faces, options.cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=False)
        figures["photographs"] = measure_photographs(everyone, engine, options.photographs)
    tell(figures, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
