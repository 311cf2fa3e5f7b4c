"""From a photograph to faces: the only door that the add-on and the command line use.

image -> box -> crop -> network -> position map -> fit -> pose and visibility. Never imports bpy nor torch.
Reads the picture and the weights; writes nothing.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np

from . import face_fit
from .blinks import closed, shut
from .contact import shut_eyes
from .crop import Crop, crop_from_face_box
from .detector import FaceBox
from .engine import Engine, open_engine
from .errors import CaptureError, NoFaceError
from .faces import find_faces
from .image_io import MIN_SIDE, Photograph, load_photograph
from .lens import Lens, lens_of, seen_through
from .look import look_twice
from .position_map import HM08, SIZE, Topology
from .render import depth_buffer, vertex_normals

# The usual distance between the eyes' centres of an adult, metres: one photograph cannot tell how large a head is.
INTEROCULAR = 0.063
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)  # of the 68 landmarks
# The visibility's z-buffer has this many pixels on the face's longer side: about a millimetre each.
_BUFFER_SIZE = 192


@dataclass
class FaceCapture:
    """One captured face.

    Image frame: pixels, x right, y down, z away from the camera in the same scale, pixel centres at integers.
    Head frame: metres, upright head seen from the front: x to the viewer's right, y down, z into the head, origin
    midway between the eyes. `seen` tells where its points appear.
    """

    image: np.ndarray  # (H, W, 3) uint8 RGB: what all pixel coordinates refer to
    box: FaceBox  # where the face was found, image frame
    crop: Crop  # the square that the network saw, image frame
    position_map: np.ndarray  # (256, 256, 3) float32, image frame: the chosen surface
    raw_position_map: np.ndarray  # (256, 256, 3) float32, image frame: as the networks gave it
    expression: np.ndarray | None  # (52,) float32 in 0..1, in the order of ARKIT_NAMES, shut eyes shut; None from weights without it
    rotation: np.ndarray  # (3, 3) float64
    translation: np.ndarray  # (3,) float64, pixels
    pixels_per_metre: float
    head_map: np.ndarray  # (256, 256, 3) float32, head frame: position_map with the lens and the head's pose taken off
    visibility: np.ndarray  # (256, 256) float32 in 0..1: cosine to the camera, 0 where another part hides it
    yaw: float  # degrees; positive when the face is turned to the viewer's left
    pitch: float  # degrees; positive when it looks up
    roll: float  # degrees; positive when it leans clockwise as the viewer sees it
    seconds: dict[str, float]  # how long each stage took
    topology: Topology
    fit: face_fit.FaceFit | None = None  # in crop units, not yet of the interocular's size; None with another topology
    metric: float = 1.0  # how much larger the head is made than the fit has it: the interocular's size
    surface: Literal["fitted", "raw"] = "raw"  # which surface position_map is
    licence: str = ""  # of the weights, for a person to read: what may be done with this capture
    lens: Lens | None = None  # of the camera; None: far away

    def seen(self, points: np.ndarray) -> np.ndarray:
        """Where points (..., 3) of the head frame appear, image frame: pixels_per_metre * rotation @ point + translation, through the lens."""
        return seen_through(self.lens, points, self.pixels_per_metre, self.rotation, self.translation)


def capture_image(
    source: str | os.PathLike | np.ndarray | Photograph,
    *,
    faces: Literal["largest", "all"] | int = "largest",
    surface: Literal["fitted", "raw"] = "fitted",
    interocular: float = INTEROCULAR,
    focal: float | None = None,
    boxes: list[FaceBox] | None = None,
    engine: Engine | None = None,
) -> list[FaceCapture]:
    """Capture the faces of a photograph.

    source: a file, read or not, or an array (H, W, 3) uint8 RGB. faces: the largest, all of them (largest first), or the number of
    one, counted from the largest, which is 1. surface: "fitted" is clean, "raw" is what the networks gave; weights with
    another topology than the program's own always give it raw, because the fit's shape space is hm08's.
    interocular: the real distance between the eyes' centres in metres, which sets the scale. focal: the lens's focal
    length in millimetres, equivalent to a 36 x 24 mm frame's; by default what the file tells, and if it does not, if the
    source is an array, and with another topology, the camera is taken to be far away. boxes: where the faces are, if
    `find_faces` has told already. engine: the network to use; by default the shipped weights, loaded once.
    Raises NoFaceError if there is no face, CaptureError if the picture, the weights or the face's number are wrong.
    """
    if surface not in ("fitted", "raw"):
        raise ValueError(f"surface must be 'fitted' or 'raw', not {surface!r}")
    if faces not in ("largest", "all") and (not isinstance(faces, int) or faces < 1):
        raise ValueError(f"faces must be 'largest', 'all' or a number from 1, not {faces!r}")
    started = time.perf_counter()
    photograph, name = _photograph(source)
    image, focal = photograph.image, focal or photograph.focal
    loaded = time.perf_counter()
    boxes = _choose(find_faces(image) if boxes is None else boxes, faces, name)
    detected = time.perf_counter()
    engine = engine or open_engine()
    crops, maps, expressions = look_twice(image, [crop_from_face_box(box, engine.bundle.crop) for box in boxes], engine)
    predicted = time.perf_counter()
    seconds = {"load": loaded - started, "detect": detected - loaded, "network": predicted - detected}
    lens = lens_of(focal, *image.shape[1::-1]) if focal and engine.topology.name == HM08 else None
    return [
        place_face(image, box, crop, position_map, expression, engine.topology, surface, interocular, seconds,
                   engine.bundle.licence, lens)
        for box, crop, position_map, expression in zip(boxes, crops, maps, repeat(None) if expressions is None else expressions)
    ]


def _photograph(source: str | os.PathLike | np.ndarray | Photograph) -> tuple[Photograph, str]:
    """The photograph, and what to call it in a message."""
    if isinstance(source, Photograph):
        return source, "the picture"
    if not isinstance(source, np.ndarray):
        return load_photograph(source), f"'{Path(source)}'"
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or min(source.shape[:2]) < MIN_SIDE:
        raise CaptureError(
            f"The picture has shape {source.shape} and type {source.dtype}: give an array (height, width, 3) of "
            f"uint8 RGB with at least {MIN_SIDE} pixels a side."
        )
    return Photograph(source, None), "the picture"


def _choose(boxes: list[FaceBox], faces: str | int, name: str) -> list[FaceBox]:
    if not boxes:
        raise NoFaceError(
            f"No face found in {name}: use a photograph in which the face is well lit and at least 40 "
            f"pixels wide."
        )
    if faces == "all":
        return boxes
    number = 1 if faces == "largest" else faces
    if number > len(boxes):
        found = "only one face was" if len(boxes) == 1 else f"only {len(boxes)} faces were"
        raise CaptureError(
            f"Face {number} was asked for, but {found} found in {name}: choose a number from 1 to {len(boxes)}."
        )
    return [boxes[number - 1]]


def fit_face(raw_map: np.ndarray, expression: np.ndarray, topology: Topology) -> face_fit.FaceFit:
    """The fit of a map (256, 256, 3) of hm08's topology and its ARKit weights (52,), eyes shut that the network is sure of."""
    return face_fit.fit(shut_eyes(raw_map, shut(expression), topology), closed(expression))


def place_face(
    image: np.ndarray,
    box: FaceBox,
    crop: Crop,
    raw_crop_map: np.ndarray,
    expression: np.ndarray | None,
    topology: Topology,
    surface: str,
    interocular: float,
    seconds: dict[str, float],
    licence: str = "",
    lens: Lens | None = None,
) -> FaceCapture:
    """From what the network says about one crop to the finished capture."""
    started = time.perf_counter()
    raw_map = flat_map = crop.to_image(raw_crop_map)
    if lens:
        flat_map = lens.flattened(raw_map)
        raw_crop_map = crop.from_image(flat_map)
    fit = None
    if topology.name == HM08:
        # The raw surface takes its pose from the fit as well: it knows what in a face is identity, expression and pose.
        fit = fit_face(raw_crop_map, expression, topology)
        expression = closed(expression)
        scale, rotation, translation = fit.scale, fit.rotation, fit.translation
        if surface == "fitted":
            flat_map = crop.to_image(fit.position_map)
    else:
        surface = "raw"
        scale, rotation, translation = face_fit.pose_of(raw_crop_map, topology)
    scale, rotation, translation = scale * crop.side, crop.turn @ rotation, crop.to_image(translation).astype(np.float64)
    fitted = time.perf_counter()

    position_map = flat_map
    if lens:
        # The head's origin into the plane z = 0: how far it is follows from its size.
        depth = float(translation[2])
        flat_map, _ = lens.brought(flat_map, depth)
        translation, growth = lens.brought(translation, depth)
        position_map, scale = lens.seen(flat_map), scale * growth
    head_map = ((flat_map - translation) @ rotation / scale).astype(np.float32)
    landmarks = topology.landmarks_of(head_map)
    eyes_apart = np.linalg.norm(landmarks[_LEFT_EYE].mean(0) - landmarks[_RIGHT_EYE].mean(0))
    to_metric = interocular / float(eyes_apart)
    yaw, pitch, roll = angles(rotation)
    visibility = visibility_of(position_map, topology)
    ended = time.perf_counter()
    return FaceCapture(
        image=image,
        box=box,
        crop=crop,
        position_map=position_map,
        raw_position_map=raw_map,
        expression=None if expression is None else np.asarray(expression, np.float32),
        rotation=np.asarray(rotation, np.float64),
        translation=translation,
        pixels_per_metre=float(scale / to_metric),
        head_map=head_map * np.float32(to_metric),
        visibility=visibility,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        seconds=seconds | {"fit": fitted - started, "visibility": ended - fitted},
        topology=topology,
        fit=fit,
        metric=to_metric,
        surface=surface,
        licence=licence,
        lens=lens,
    )


def angles(rotation: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a head's rotation (3, 3), signs and order as in AFLW2000-3D.

    Yaw is positive when the face is turned to the viewer's left, pitch when it looks up, roll when it leans clockwise
    as the viewer sees it; rotation = pitch about x, after yaw about y, after roll about z.
    """
    yaw = np.arcsin(np.clip(rotation[0, 2], -1, 1))
    pitch = np.arctan2(rotation[1, 2], rotation[2, 2])
    roll = np.arctan2(-rotation[0, 1], rotation[0, 0])
    return float(np.rad2deg(yaw)), float(np.rad2deg(pitch)), float(np.rad2deg(roll))


def visibility_of(position_map: np.ndarray, topology: Topology) -> np.ndarray:
    """(256, 256) float32: the cosine between surface and camera, 0 where it is turned away, hidden, or no face."""
    grid = topology.grid(1)
    vertices = grid.sample(position_map)
    normals = vertex_normals(vertices, grid.quads)
    facing = np.clip(-normals[:, 2], 0, 1)

    low, high = vertices.min(0), vertices.max(0)
    pixels = _BUFFER_SIZE / max(high[0] - low[0], high[1] - low[1], 1e-6)
    coarse = topology.grid(2)
    shift = np.array([low[0], low[1], 0])
    depth = depth_buffer((coarse.sample(position_map) - shift) * pixels, coarse.quads, _BUFFER_SIZE, _BUFFER_SIZE)
    placed = (vertices - shift) * pixels
    column, row = np.clip(np.rint(placed[:, :2]).astype(int), 0, _BUFFER_SIZE - 1).T
    # Within the rounding to a pixel a surface may fall away as much as it is inclined.
    slope = np.sqrt(1 - facing**2) / np.maximum(facing, 0.1)
    hidden = placed[:, 2] > depth[row, column] + 1.5 + slope

    visibility = np.zeros((SIZE, SIZE), np.float32)
    visibility[grid.cells[:, 1], grid.cells[:, 0]] = np.where(hidden, 0, facing)
    return visibility
