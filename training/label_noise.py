"""How well MediaPipe agrees with itself, and ours with it when it is asked again: the yardstick for "how well do ours agree with MediaPipe's".

`python -m training.label_noise --faces FOLDER`, in the `bench` environment, asks MediaPipe again about photographs kept out of training
(`mediapipe_again`), and prints how the openings of eyes and mouth (the ratios of `training.measure`, ours of the raw map) and the
blendshape scores correlate: the labels with the run on the mirror image, ours with the labels, and ours with the median of all runs.
Reads FOLDER and the shipped weights, writes nothing.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import mediapipe
import numpy as np

from prn_blender.prn.arkit import ARKIT_NAMES, MIRRORED
from prn_blender.prn.crop import crop_from_landmarks
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.look import run_network
from prn_blender.prn.position_map import sample
from prn_blender.prn.weights import load_bundle
from training.cache import default_cache
from training.kit import Kit
from training.measure import SCORED, correlation, openings_of
from training.mediapipe_again import as_image, asked, landmarker, scores_of
from training.photographs import IBUG_FROM_MEDIAPIPE, Photographs

BORDER = 40         # pixels that are put round a photograph: MediaPipe finds no face that touches the edge
SURE = 0.3          # MediaPipe's confidence from which a face is one: they all are
SWAPPED = 1, 0, 2   # the openings of a mirrored face


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    kit, rng, engine = Kit(arguments.cache), np.random.default_rng(0), OnnxEngine(load_bundle())
    photographs = Photographs(arguments.faces, arguments.cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True)
    scored, texels = photographs.expression_weight.sum(1) > 0, kit.mediapipe.astype(np.float32)
    columns = [ARKIT_NAMES.index(name) for name in SCORED]
    label, ours, again = [], [], []
    count = min(arguments.count, len(photographs))
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=SURE) as mesh, \
            landmarker("IMAGE", SURE) as marker:
        def points_of(picture: np.ndarray) -> list[float] | None:
            found = mesh.process(picture).multi_face_landmarks
            return openings_of(np.array([[point.x, point.y, point.z] for point in found[0].landmark]) * len(picture)) if found else None

        for index in range(count):
            picture, truth = photographs.pixels[photographs.chosen[index]], photographs.points[index]
            crop = crop_from_landmarks(truth[IBUG_FROM_MEDIAPIPE])
            raw, expression = (part[0] for part in run_network(picture, [crop], engine))
            scores = photographs.expression[index] if scored[index] else np.full(len(ARKIT_NAMES), np.nan)
            label.append([*openings_of(truth), *scores[columns]])
            ours.append([*openings_of(sample(crop.to_image(raw), texels)), *expression[columns]])
            bordered = cv2.copyMakeBorder(picture, *[BORDER] * 4, cv2.BORDER_REPLICATE)
            again.append(np.concatenate([asked(points_of, bordered, SWAPPED, rng), asked(
                lambda shown: scores_of(marker.detect(as_image(shown))), bordered, MIRRORED, rng)[:, columns]], 1))
    found = ~np.isnan(again).all(1).any(1)       # by both of its models, in some run
    label, ours, again, frontal = (np.array(values)[found] for values in (label, ours, again, photographs.frontal[:count] > 0))
    mirrored, median = again[:, 1], np.nanmedian(again, 1)
    for who, chosen in (("all", np.ones(len(label), bool)), ("frontal", frontal)):
        print(f"{who}, {chosen.sum()} photographs: labels with MediaPipe's mirrored run, ours with the labels, ours with the median of its runs")
        # Both eyes of all faces are one sample, as in training.measure.
        for name, part in (("eye opening", [0, 1]), ("mouth opening", [2]), *((name, [3 + place]) for place, name in enumerate(SCORED))):
            values = [source[chosen][:, part].ravel() for source in (label, mirrored, ours, median)]
            known = ~np.isnan(values).any(0)
            told, flipped, said, steady = (value[known] for value in values)
            print(f"  {name}: {correlation(told, flipped):.3f}, {correlation(said, told):.3f}, {correlation(said, steady):.3f} ({known.sum()})")


if __name__ == "__main__":
    main()
