"""One picture to captured faces: the work that the operators and the panel's thumbnail give to a thread. Never imports bpy.

The last picture, its faces and its captures are kept, so that looking at the faces first, changing an option in the redo
panel, or capturing the next face of the same photo does not begin anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from .footage import Picture
from .prn.capture import FaceCapture, capture_image
from .prn.detector import FaceBox
from .prn.engine import EngineChoice, open_engine
from .prn.errors import NoFaceError
from .prn.faces import find_faces
from .prn.image_io import Photograph, load_photograph
from .prn.skin import make_skin
from .prn.video import read_frame

Report = Callable[[str, float], None]


@dataclass(frozen=True)
class StillRequest:
    picture: Picture
    face: int = 1  # counted from the largest; 0 is all
    surface: str = "fitted"
    interocular: float = 0.063  # metres
    focal: float = 0.0  # millimetres, equivalent to a 36 x 24 mm frame's; 0: what the file tells
    topology: str = "grid"  # whose UV layout the texture is in
    texture_size: int = 2048
    engine: EngineChoice = EngineChoice()


@dataclass(frozen=True)
class Looked:
    """A picture and where its faces are."""

    photograph: Photograph
    boxes: list[FaceBox]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Still:
    """A captured face with its pictures as files' contents: Blender then only has to load them."""

    capture: FaceCapture
    number: int  # counted from the largest
    texture: bytes  # PNG
    photo: bytes  # JPEG
    seconds: dict[str, float]


class Kept:
    """The last few results of a function, by what they were made from. Safe to use from several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._results: dict = {}
        self._lock = threading.Lock()

    def get(self, key, make: Callable):
        with self._lock:
            if key in self._results:
                return self._results[key]
        result = make()
        with self._lock:
            self._results[key] = result
            while len(self._results) > self._size:
                del self._results[next(iter(self._results))]
        return result

    def clear(self) -> None:
        with self._lock:
            self._results.clear()


_looked, _captured, _textured = Kept(1), Kept(2), Kept(4)


def forget() -> None:
    """Lets go of the pictures that are kept."""
    for kept in (_looked, _captured, _textured):
        kept.clear()


def look(picture: Picture, report: Report = lambda stage, fraction: None) -> Looked:
    """The picture and its faces, largest first; there may be none. Raises CaptureError if it cannot be read."""
    return _looked.get(_key(picture), partial(_look, picture, report))


def _look(picture: Picture, report: Report) -> Looked:
    report("Reading the picture", 0.0)
    started = time.perf_counter()
    photograph = load_photograph(picture.path) if picture.frame is None else Photograph(read_frame(picture.path, picture.frame), None)
    loaded = time.perf_counter()
    report("Looking for faces", 0.1)
    boxes = find_faces(photograph.image)
    return Looked(photograph, boxes, {"load": loaded - started, "detect": time.perf_counter() - loaded})


def capture_still(request: StillRequest, report: Report = lambda stage, fraction: None) -> list[Still]:
    """The faces that are asked for, the largest first. report may raise, to stop the work.

    Raises NoFaceError or another CaptureError, in one sentence.
    """
    looked = look(request.picture, report)
    if not looked.boxes:
        raise NoFaceError(f"No face found in {request.picture}: use a picture in which the face is well lit and "
                          f"at least 40 pixels wide.")
    report("Capturing the face", 0.5)
    key = _key(request.picture), replace(request, texture_size=0, topology="")
    captures, photo = _captured.get(key, partial(_capture, request, looked))
    stills = []
    for index, capture in enumerate(captures):
        report("Making the texture", 0.6 + 0.4 * index / len(captures))
        texture, seconds = _textured.get((key, index, request.topology == "head", request.texture_size),
                                          partial(_texture, capture, request.topology, request.texture_size))
        number = index + 1 if request.face == 0 else request.face
        stills.append(Still(capture, number, texture, photo, capture.seconds | looked.seconds | {"texture": seconds}))
    report("Building the face", 1.0)
    return stills


def _capture(request: StillRequest, looked: Looked) -> tuple[list[FaceCapture], bytes]:
    captures = capture_image(looked.photograph, faces=request.face or "all", surface=request.surface, boxes=looked.boxes,
                             interocular=request.interocular, focal=request.focal or None, engine=open_engine(request.engine))
    return captures, encode(".jpg", looked.photograph.image)


def _texture(capture: FaceCapture, topology: str, size: int) -> tuple[bytes, float]:
    started = time.perf_counter()
    return encode(".png", make_skin(capture, topology, size)), time.perf_counter() - started


def encode(ending: str, pixels: np.ndarray) -> bytes:
    """pixels (H, W, 3) uint8 RGB as the content of a .png or .jpg file."""
    return cv2.imencode(ending, pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def thumbnail(looked: Looked, size: int) -> np.ndarray:
    """(size, size, 3) uint8 RGB: the picture, fitted in, with its faces framed and numbered from the largest."""
    image = looked.photograph.image
    height, width = image.shape[:2]
    scale = size / max(height, width)
    small = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))),
                       interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    result = np.full((size, size, 3), 40, np.uint8)
    left, top = (size - small.shape[1]) // 2, (size - small.shape[0]) // 2
    result[top:top + small.shape[0], left:left + small.shape[1]] = small
    unit = size / 256
    for number, box in reversed(list(enumerate(looked.boxes, 1))):
        x0, y0 = round(left + box.x * scale), round(top + box.y * scale)
        x1, y1 = round(x0 + box.width * scale), round(y0 + box.height * scale)
        cv2.rectangle(result, (x0, y0), (x1, y1), (255, 176, 46), max(1, round(2 * unit)), cv2.LINE_AA)
        (text_width, text_height), _ = cv2.getTextSize(str(number), cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, max(1, round(2 * unit)))
        pad = round(4 * unit)
        cv2.rectangle(result, (x0, y0), (x0 + text_width + 2 * pad, y0 + text_height + 2 * pad), (255, 176, 46), cv2.FILLED)
        cv2.putText(result, str(number), (x0 + pad, y0 + pad + text_height), cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, (20, 20, 20),
                    max(1, round(2 * unit)), cv2.LINE_AA)
    return result


def file_state(path: Path) -> tuple | None:
    """What a file's content hangs on; another one once the file has changed or gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def _key(picture: Picture) -> tuple:
    return picture, file_state(picture.path)
