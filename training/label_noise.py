"""How well MediaPipe's points agree with themselves: the yardstick for "how well do ours agree with MediaPipe's".

`python -m training.label_noise --faces FOLDER`, in the `bench` environment, runs MediaPipe FaceMesh again on photographs kept
out of training: mirrored, and shifted, turned and compressed a little. It prints how the openings of eyes and mouth (the ratios
of `training.measure`) correlate with those of the labels. Reads FOLDER, writes nothing.
"""
from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import mediapipe
import numpy as np

from training.cache import default_cache
from training.kit import Kit
from training.measure import EYES, MOUTH, correlation, opening
from training.photographs import Photographs

BORDER = 40         # pixels that are put round a photograph: MediaPipe finds no face that touches the edge


def mirrored(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(picture[:, ::-1])


def moved(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by some 6 degrees, a tenth larger or smaller, shifted by some 6 pixels, JPEG quality 60."""
    middle = len(picture) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), rng.normal(0, 6), np.exp(rng.normal(-0.1, 0.1)))
    matrix[:, 2] += rng.normal(0, 6, 2)
    turned = cv2.warpAffine(picture, matrix, picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    coded = cv2.imencode(".jpg", turned[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


# What is done to a photograph, and which of MediaPipe's eyes is then the person's first one.
CHANGES: dict[str, tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], slice]] = {
    "mirrored": (mirrored, slice(None, None, -1)), "moved and compressed": (moved, slice(None))}


def openings(points: np.ndarray, order: slice = slice(None)) -> list[float]:
    """Both eyes and the mouth of (478, 3) points."""
    return [opening(points, *eye) for eye in EYES[order]] + [opening(points, *MOUTH)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=Path, required=True, help="folder of photographs (docs/training.md)")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--cache", type=Path, default=default_cache())
    arguments = parser.parse_args()
    kit, rng = Kit(arguments.cache), np.random.default_rng(0)
    photographs = Photographs(arguments.faces, arguments.cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True)
    rows: dict[str, list[tuple[list[float], list[float]]]] = {name: [] for name in CHANGES}
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3) as mesh:
        for index in range(min(arguments.count, len(photographs))):
            picture = cv2.copyMakeBorder(photographs.pixels[photographs.chosen[index]], *[BORDER] * 4, cv2.BORDER_REPLICATE)
            for name, (change, order) in CHANGES.items():
                found = mesh.process(change(picture, rng)).multi_face_landmarks
                if found:
                    points = np.array([[point.x, point.y, point.z] for point in found[0].landmark]) * len(picture)
                    rows[name].append((openings(photographs.points[index]), openings(points, order)))
    for name, pairs in rows.items():
        label, again = np.array(pairs).transpose(1, 0, 2)
        print(f"{name}: eye {correlation(label[:, :2].ravel(), again[:, :2].ravel()):.3f}, "
              f"mouth {correlation(label[:, 2], again[:, 2]):.3f} ({len(pairs)} photographs)")


if __name__ == "__main__":
    main()
