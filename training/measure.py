"""Measures what landmarks on photographs cannot: depth, expression, robustness, fairness: `build.py measure`.

--faces: the folder of training photographs, of which only those marked `validation` are looked at. --data: the evaluation
folder (`build.py evaluate`). Heads are rendered anew, with people, cameras and light drawn from other seeds than
training's and with skins from validation photographs; hair and glasses are the same few meshes as in training. Reads
the bundle and those folders, writes the drawn heads into the cache and the figures to --json.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np

from prn_blender.prn import face_fit
from prn_blender.prn.arkit import ARKIT_NAMES
from prn_blender.prn.capture import fit_face
from prn_blender.prn.crop import SIDE_PER_LANDMARK_BOX, Crop, crop_from_face_box, crop_from_landmark_box, crop_from_landmarks
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.faces import find_faces
from prn_blender.prn.image_io import load_image
from prn_blender.prn.look import look_twice, run_network
from prn_blender.prn.position_map import load_topology, sample
from prn_blender.prn.track import capture_video
from prn_blender.prn.weights import load_bundle
from training.cache import default_cache
from training.drawing import write_samples
from training.evaluate import BINS, Face, in_bin, load_faces, nme
from training.kit import Kit
from training.photographs import IBUG_FROM_MEDIAPIPE, Photographs

HEADS = 600
CAPTURED_EVERY = 10             # of the photographs kept out of training
LEANING = 0, 15, 30, 45, 60, 90, 135, 180                           # degrees
TIGHT = 1.6, 1.4, 1.25, 1.1
STILL, FOUND = 8, 20.0          # frames of a clip of one photograph; NME, %, beyond which something else was found than the face
# What is left of a photograph's light, and the haze's grey level besides.
DULL = {"a third of the light": (0.35, 0), "a sixth": (0.15, 0), "a twentieth": (0.05, 0), "haze, two fifths of the contrast": (0.4, 90),
        "a fifth": (0.2, 120), "a tenth": (0.1, 135)}
# The shapes whose scores are compared on photographs: those that MediaPipe's scorer is good at.
SCORED = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight", "browInnerUp")
EYES = (((159, 145), (158, 153), (160, 144)), (33, 133)), (((386, 374), (385, 380), (387, 373)), (362, 263))
MOUTH = ((13, 14), (82, 87), (312, 317)), (61, 291)
# The spreadsheet that FairFace's labels went through took two of its age groups for dates.
AGES = {"03-Sep": "3-9", "Oct-19": "10-19"}


# ---- rendered heads ----------------------------------------------------------------------------------------------


def held_out_heads(cache: Path, faces: Path, kit: Kit) -> dict[str, np.ndarray]:
    """HEADS heads that training never drew, from the cache or drawn now: plain, and again with glasses and with a beard."""
    path = cache / "heads_held_out.npz"
    if not path.exists():
        from training.synthetic import Heads      # opens an OpenGL context, which nothing else here needs
        validation = Photographs(faces, cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True)
        heads = Heads(cache, validation, kit, skins="skins_held_out.npy")
        drawn = []
        for number in range(HEADS):
            one = heads.one(np.random.default_rng([1009, number]))
            for wear in ("glasses", "beard"):
                one[wear] = heads.one(np.random.default_rng([1009, number]), wear=wear)["image"]
            drawn.append(one)
        write_samples(path, drawn)
    return dict(np.load(path))


class HeldOut:
    """The heads' true maps, in pixels of their pictures and in metres, and their crops."""

    def __init__(self, heads: dict[str, np.ndarray], kit: Kit) -> None:
        self.heads, topology = heads, kit.topology
        mean, basis = kit.basis_maps(128)
        self.mask = topology.mask.reshape(128, 2, 128, 2).all((1, 3))
        self.mean, self.basis = mean[self.mask], basis[:, self.mask]

    def truth(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Masked texels (M, 3) in the head frame (metres), and in the picture (pixels, z on the same scale)."""
        head = {key: value[index].astype(np.float64) for key, value in self.heads.items() if value.dtype == np.float32}
        shape = self.mean + np.tensordot(head["coefficients"], self.basis, 1)
        points = shape @ head["rotation"].T + head["translation"]
        scale = head["focal"] / head["translation"][2]
        flat = points[:, :2] / points[:, 2:] * head["focal"] + head["centre"]
        return shape, np.column_stack([flat, (points[:, 2] - head["translation"][2]) * scale])

    def crop(self, index: int) -> Crop:
        return crop_from_landmarks(self.heads["landmarks"][index])

    def small(self, position_map: np.ndarray) -> np.ndarray:
        """Masked texels (M, 3) of a predicted map (256, 256, 3)."""
        return position_map.reshape(128, 2, 128, 2, 3).mean((1, 3))[self.mask]


def millimetres_off(points: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(M,) how far points (M, 3) are off after the similarity that brings them nearest to a head's own (M, 3), metres."""
    scale, rotation, shift = face_fit.similarity(points, shape, np.ones(len(shape)))
    return 1000 * np.linalg.norm(scale * points @ rotation.T + shift - shape, axis=1)


def measure_heads(heads: dict[str, np.ndarray], kit: Kit, engine: OnnxEngine) -> dict[str, Any]:
    """Dense error by yaw bin, ARKit error, and what glasses and beards change."""
    held_out = HeldOut(heads, kit)
    rows, arkit = [], []
    worn: dict[str, list[float]] = {"image": [], "glasses": [], "beard": []}
    for index in range(len(heads["image"])):
        shape, picture = held_out.truth(index)
        crop = held_out.crop(index)
        size = np.sqrt(np.prod(np.ptp(heads["landmarks"][index], axis=0)))
        yaw = abs(np.rad2deg(np.arcsin(np.clip(heads["rotation"][index][0, 2], -1, 1))))
        for name in worn:
            raw, expression = (part[0] for part in engine.run(crop.cut(heads[name][index], engine.input_size)[None]))
            landmarks = crop.to_image(kit.topology.landmarks_of(raw))[:, :2]
            worn[name].append(100 * np.linalg.norm(landmarks - heads["landmarks"][index], axis=1).mean() / size)
            if name != "image":
                continue
            fit = fit_face(raw, expression, kit.topology)
            found = {"raw": raw, "fitted": fit.position_map}
            errors = {}
            for surface, position_map in found.items():
                points = held_out.small(crop.to_image(position_map)).astype(np.float64)
                offset = points - picture
                offset[:, 2] -= offset[:, 2].mean()
                millimetres = millimetres_off(points, shape)
                errors[surface] = (100 * np.linalg.norm(offset, axis=1).mean() / size, millimetres.mean(),
                                   np.percentile(millimetres, 95))
            rows.append((yaw, errors))
            arkit.append(np.abs(np.stack([expression, fit.expression]) - heads["coefficients"][index][-52:]))
    figures: dict[str, Any] = {}
    for surface in ("raw", "fitted"):
        figures[surface] = {}
        for name, (low, high) in {**BINS, "all": (-1, np.inf)}.items():
            chosen = np.array([errors[surface] for yaw, errors in rows if low < yaw <= high])
            figures[surface][name] = {"heads": len(chosen), "nme_3d": rounded(chosen[:, 0].mean()),
                                      "mm_mean": rounded(chosen[:, 1].mean()), "mm_95": rounded(chosen[:, 2].mean())}
    figures["arkit_mae"] = dict(zip(("network", "fitted"), map(rounded, np.mean(arkit, (0, 2)))))
    figures["worn"] = {"plain" if name == "image" else name: rounded(np.mean(values)) for name, values in worn.items()}
    return figures


# ---- photographs kept out of training ------------------------------------------------------------------------------


def opening(points: np.ndarray, pairs: tuple, corners: tuple[int, int]) -> float:
    """How far an eye or the mouth is open, as a share of its width, in three dimensions. points (478, 3)."""
    gap = np.mean([np.linalg.norm(points[a] - points[b]) for a, b in pairs])
    return gap / np.linalg.norm(points[corners[0]] - points[corners[1]])


def openings_of(points: np.ndarray) -> list[float]:
    """Both eyes and the mouth of (478, 3) points."""
    return [opening(points, *eye) for eye in EYES] + [opening(points, *MOUTH)]


def measure_photographs(photographs: Photographs, kit: Kit, engine: OnnxEngine) -> dict[str, Any]:
    """Against MediaPipe's points and scores: error by group, openings, expression weights. Raw map and fitted surface.

    Openings and scores are given for all photographs and for those within 20 degrees of frontal, where MediaPipe can be
    believed: of a profile it often says that the mouth is wide open when it is shut.
    """
    texels = kit.mediapipe.astype(np.float32)
    errors: dict[str, list[float]] = {"raw": [], "fitted": []}
    openings: dict[str, list[list[float]]] = {"raw": [], "fitted": [], "mediapipe": []}
    weights: dict[str, list[np.ndarray]] = {"network": [], "fitted": []}
    for index in range(len(photographs)):
        picture, truth = photographs.pixels[photographs.chosen[index]], photographs.points[index]
        crop = crop_from_landmarks(truth[IBUG_FROM_MEDIAPIPE])
        raw, expression = (part[0] for part in run_network(picture, [crop], engine))
        fit = fit_face(raw, expression, kit.topology)
        known = truth[photographs.usable, :2]
        extent = np.sqrt(np.prod(np.ptp(known, axis=0)))
        openings["mediapipe"].append(openings_of(truth))
        for surface, position_map in (("raw", raw), ("fitted", fit.position_map)):
            points = sample(crop.to_image(position_map), texels)
            found = np.linalg.norm(points[photographs.usable, :2] - known, axis=1)
            errors[surface].append(100 * found.mean() / extent)
            openings[surface].append(openings_of(points))
        weights["network"].append(expression)
        weights["fitted"].append(fit.expression)
    figures: dict[str, Any] = {"photographs": len(photographs)}
    figures["mediapipe_points"] = {surface: rounded(np.mean(values)) for surface, values in errors.items()}
    truth, scored = np.array(openings["mediapipe"]), photographs.expression_weight.sum(1) > 0
    for whom, chosen in (("all", np.ones(len(photographs), bool)), ("frontal", photographs.frontal > 0)):
        figures[whom] = {"photographs": int(chosen.sum())}
        for surface in ("raw", "fitted"):
            found = np.array(openings[surface])
            # Both eyes of all faces are one sample: the question is whether the map tells an open eye from a shut one.
            figures[whom][f"openings_{surface}"] = {
                "eye": rounded(correlation(found[chosen, :2].ravel(), truth[chosen, :2].ravel())),
                "mouth": rounded(correlation(found[chosen, 2], truth[chosen, 2]))}
        known = chosen & scored
        for source, values in weights.items():
            figures[whom][f"scores_{source}"] = {
                name: rounded(correlation(np.array(values)[known, k], photographs.expression[known, k]))
                for name in SCORED for k in [ARKIT_NAMES.index(name)]}
    raw = np.array(errors["raw"])
    figures["groups"] = {kind: {AGES.get(str(group), str(group)): {"photographs": int((labels == group).sum()),
                                                                  "error": rounded(raw[labels == group].mean())}
                                for group in np.unique(labels)} for kind, labels in photographs.groups.items()}
    return figures


# ---- photographs that lean, or are dark or hazy ----------------------------------------------------------------------


def measure_captured(photographs: Photographs, kit: Kit, engine: OnnxEngine,
                     change: Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """How many faces a capture finds and sees (error below 5 %) in changed photographs, in percent, and the mean error of these.

    Every CAPTURED_EVERY-th photograph, from the detector, against MediaPipe's points on the photograph as it is. change: makes of a number, a
    photograph (H, W, 3) and points (N, 2) a photograph and points.
    """
    texels, errors = kit.mediapipe.astype(np.float32)[photographs.usable], []
    for number, index in enumerate(range(0, len(photographs), CAPTURED_EVERY)):
        points = photographs.points[index, photographs.usable, :2]
        picture, truth = change(number, photographs.pixels[photographs.chosen[index]], points)
        boxes = find_faces(picture)
        error = np.inf
        if boxes:
            (crop,), maps, _ = look_twice(picture, [crop_from_face_box(boxes[0])], engine)
            found = sample(crop.to_image(maps[0]), texels)[:, :2]
            error = 100 * np.linalg.norm(found - truth, axis=1).mean() / np.sqrt(np.prod(np.ptp(points, axis=0)))
        errors.append(error)
    seen = np.array(errors) < 5
    return {"seen": rounded(100 * seen.mean()), "error": rounded(np.array(errors)[seen].mean())}


def leaning(picture: np.ndarray, points: np.ndarray, roll: float) -> tuple[np.ndarray, np.ndarray]:
    """A photograph (H, W, 3) turned by `roll` degrees, clockwise, with a border that nothing is lost in, and its points (N, 2)."""
    border = len(picture) // 4
    wide = cv2.copyMakeBorder(picture, *[border] * 4, cv2.BORDER_REFLECT_101)
    middle = (len(wide) - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), -roll, 1.0)
    return (cv2.warpAffine(wide, matrix, wide.shape[:2], borderMode=cv2.BORDER_REPLICATE),
            (points + border) @ matrix[:, :2].T + matrix[:, 2])


def measure_leaning(photographs: Photographs, kit: Kit, engine: OnnxEngine) -> dict[str, dict[str, float]]:
    """By degrees that a photograph is turned, to either side."""
    return {str(degrees): measure_captured(photographs, kit, engine, lambda number, picture, points: leaning(
        picture, points, degrees if number % 2 else -degrees)) for degrees in LEANING}


def dull(number: int, picture: np.ndarray, share: float, base: float) -> np.ndarray:
    """A photograph of which a share of the light is left, over that of haze, with a camera's noise."""
    noise = np.random.default_rng(number).normal(0, 1.5, picture.shape)
    return np.clip(share * picture + base + noise, 0, 255).astype(np.uint8)


def measure_dull(photographs: Photographs, kit: Kit, engine: OnnxEngine) -> dict[str, dict[str, float]]:
    """By what is done to a photograph's light."""
    return {name: measure_captured(photographs, kit, engine, lambda number, picture, points: (dull(number, picture, *light), points))
            for name, light in DULL.items()}


# ---- photographs that end near the face ---------------------------------------------------------------------------------


def tight(face: Face, size: float) -> tuple[np.ndarray, Crop, np.ndarray]:
    """A photograph cut to a square round the face, `size` of the landmarks' box; the face's crop in it; the square's corner (2,), pixels."""
    image, crop = load_image(face.image), crop_from_landmark_box(*face.box)
    centre, reach = np.array([crop.center_x, crop.center_y]), crop.side / SIDE_PER_LANDMARK_BOX * size / 2
    low, high = np.maximum(centre - reach, 0).astype(int), (centre + reach).astype(int)
    return np.ascontiguousarray(image[low[1]:high[1], low[0]:high[0]]), Crop(*(centre - low), crop.side), low


def measure_tight(faces: list[Face], engine: OnnxEngine, of_videos: OnnxEngine) -> dict[str, Any]:
    """Mean of the yaw bins' NME where a photograph is cut to a square round the face, by the square's side over the landmarks' box: of the fitted surface,
    crops from the true box; and of the map in the last of so many equal frames of a video, crops from our detector. How many that misses."""
    topology = load_topology()
    figures: dict[str, Any] = {"photograph": {}, "video": {}, "missed in the video": {}}
    for size in TIGHT:
        errors: dict[str, dict[str, list[float]]] = {"photograph": {}, "video": {}}
        missed = 0
        for face in faces:
            picture, crop, low = tight(face, size)
            maps, expression = run_network(picture, [crop], engine)
            found = {"photograph": crop.to_image(topology.landmarks_of(fit_face(maps[0], expression[0], topology).position_map))}
            *_, last = capture_video([picture] * STILL, engine=of_videos)
            if last.faces:
                found["video"] = last.faces[0].crop.to_image(topology.landmarks_of(last.faces[0].crop_map))
            off = {name: nme(points + (*low, 0), face)[0] for name, points in found.items()}
            if off.get("video", np.inf) > FOUND:
                off.pop("video", None)
                missed += 1
            yaw = next(name for name in BINS if in_bin(face, name))
            for name, error in off.items():
                errors[name].setdefault(yaw, []).append(error)
        for name, bins in errors.items():
            figures[name][str(size)] = rounded(np.mean([np.mean(values) for values in bins.values()]))
        figures["missed in the video"][str(size)] = missed
    return figures


# ---- disturbed photographs -----------------------------------------------------------------------------------------


def moved(rng: np.random.Generator, crop: Crop) -> Crop:
    """The crop with its scale off by up to 20 % and its place by up to 15 %."""
    shift = rng.uniform(-0.15, 0.15, 2) * crop.side / SIDE_PER_LANDMARK_BOX
    return Crop(crop.center_x + shift[0], crop.center_y + shift[1], crop.side * rng.uniform(0.8, 1.2))


def small_face(picture: np.ndarray) -> np.ndarray:
    """A crop as from a face 64 pixels large: the crop is 1.6 times the face."""
    side = round(64 * SIDE_PER_LANDMARK_BOX)
    return cv2.resize(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), picture.shape[:2])


def jpeg(picture: np.ndarray) -> np.ndarray:
    coded = cv2.imencode(".jpg", (picture[..., ::-1] * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255


def side_light(picture: np.ndarray) -> np.ndarray:
    """Six times as bright on one side as on the other."""
    ramp = np.exp(np.linspace(-0.9, 0.9, picture.shape[1], dtype=np.float32))
    return np.clip(picture * ramp[None, :, None], 0, 1)


def grey(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture.mean(2, keepdims=True), 3, 2)


def hand(picture: np.ndarray) -> np.ndarray:
    """The chin and one half of the mouth covered by something of the face's own colour."""
    size = len(picture)
    colour = np.median(picture[size * 2 // 5:size * 3 // 5, size * 2 // 5:size * 3 // 5].reshape(-1, 3), 0)
    covered = picture.copy()
    cv2.ellipse(covered, (round(size * 0.40), round(size * 0.74)), (round(size * 0.17), round(size * 0.11)), -20, 0, 360,
                colour.tolist(), -1, cv2.LINE_AA)
    return covered


DISTURBANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "64-pixel face": small_face, "JPEG quality 20": jpeg, "light from the side": side_light, "grey": grey, "hand": hand}


def measure_disturbed(faces: list[Face], engine: OnnxEngine) -> dict[str, float]:
    """NME of the fitted surface on all 68 points of the faces with a true jaw line, crops from the true box."""
    rng, topology = np.random.default_rng(0), load_topology()
    errors: dict[str, list[float]] = {}
    for face in faces:
        image = load_image(face.image)
        crop = crop_from_landmark_box(*face.box)
        shifted = moved(rng, crop)
        clean = crop.cut(image, engine.input_size)
        pictures = {"clean": (crop, clean), "crop off by 20 % and 15 %": (shifted, shifted.cut(image, engine.input_size)),
                    **{name: (crop, change(clean).astype(np.float32)) for name, change in DISTURBANCES.items()}}
        for name, (used, picture) in pictures.items():
            raw, expression = (part[0] for part in engine.run(picture[None]))
            points = used.to_image(topology.landmarks_of(fit_face(raw, expression, topology).position_map))
            errors.setdefault(name, []).append(nme(points, face)[0])
    return {name: rounded(np.mean(values)) for name, values in errors.items()}


# ---- all of it -----------------------------------------------------------------------------------------------------


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def rounded(value: float) -> float:
    return round(float(value), 3)


def check_request(options: argparse.Namespace) -> None:
    """Raises CaptureError, before anything is measured, if the photographs, the face kit or the place of --json are missing."""
    if not (options.faces / "points.npz").is_file():
        raise CaptureError(f"'{options.faces}' holds no points.npz: give a folder as docs/training.md describes.")
    if not (options.cache / "kit.npz").is_file():
        raise CaptureError(f"'{options.cache}' holds no face kit: run build.py train once, which makes it.")
    if options.json is not None and not options.json.resolve().parent.is_dir():
        raise CaptureError(f"The folder '{options.json.parent}' does not exist: create it, or choose another place.")


def tell(figures: dict[str, Any], path: Path | None) -> None:
    """Print the figures, and write them to a file if one is wanted."""
    text = json.dumps(figures, indent=2)
    if path is not None:
        path.write_text(text + "\n", encoding="utf-8")
    print(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="build.py measure", description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--data", type=Path, required=True, help="folder with photographs and a landmarks68.json")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="model bundle instead of the shipped one")
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args()
    try:
        check_request(options)
        evaluated = [face for face in load_faces(options.data) if face.yaw is not None]
        engine = OnnxEngine(load_bundle(options.weights))
    except CaptureError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    kit = Kit(options.cache)
    validation = Photographs(options.faces, options.cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True)
    figures = {"heads": measure_heads(held_out_heads(options.cache, options.faces, kit), kit, engine),
               "photographs": measure_photographs(validation, kit, engine),
               "leaning": measure_leaning(validation, kit, engine), "dull": measure_dull(validation, kit, engine),
               "tight": measure_tight(evaluated, engine, OnnxEngine(engine.bundle, quantized=True)),
               "disturbed": measure_disturbed(evaluated, engine)}
    tell(figures, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
