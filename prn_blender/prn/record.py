"""What is known of a face in every frame, apart from its mesh: landmarks, pose, ARKit weights; and its JSON file.

The one form that photographs, performances and Blender's scene bring it into, for the files that hold it (JSON here,
LiveLink Face's CSV in livelink.py). numpy only; touches the file it is given.

Frames: image (pixels of the photo or video, x right, y down, pixel centres at integers; z away from the camera in the same
scale, counted from the head's origin, because an orthographic camera tells no distance) and head (metres, as `FaceCapture`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .arkit import ARKIT_NAMES
from .capture import FaceCapture, angles
from .lens import Lens, seen_through
from .take import Performance
from .whole_file import whole_file

CONVENTIONS = {
    "landmarks": "iBUG 68, pixels of the picture: x right, y down, pixel centres at integers; z away from the camera in the same "
                 "scale, 0 at the head's origin",
    "head_landmarks": "the same points on the upright head, metres: x to the viewer's right, y down, z into the head, origin between "
                      "the eyes",
    "pose": "picture point = pixels_per_metre * rotation * head point + translation; rotation = Rx(-pitch) Ry(yaw) Rz(roll), degrees: "
            "yaw positive to the viewer's left, pitch up, roll clockwise; with a focal, x and y of the picture point then come nearer to the "
            "picture's middle, by focal / (focal + z)",
    "arkit": "weights 0 to 1 in the order of arkit_names",
}


@dataclass
class FaceRecord:
    """One face over N frames; a photograph is one frame."""

    fps: float | None  # None for a photograph
    image_size: tuple[int, int]  # width, height, pixels
    seen: np.ndarray  # (N,) bool: False where the face was not seen, and where nothing else here counts
    head_landmarks: np.ndarray  # (N, 68, 3) head frame, metres
    rotation: np.ndarray  # (N, 3, 3) head to image
    translation: np.ndarray  # (N, 2) pixels: where the head's origin appears
    scale: np.ndarray  # (N,) pixels per metre
    weights: np.ndarray | None  # (N, 52) in the order of ARKIT_NAMES; None where the network gives none
    lens: Lens | None = None  # of the camera; None: far away

    def landmarks(self, frame: int) -> np.ndarray:
        """(68, 3) image frame."""
        return seen_through(self.lens, self.head_landmarks[frame], self.scale[frame], self.rotation[frame],
                            np.array([*self.translation[frame], 0.0]))


def of_photo(face: FaceCapture) -> FaceRecord:
    return FaceRecord(None, face.image.shape[1::-1], np.array([True]), face.topology.landmarks_of(face.head_map)[None],
                      face.rotation[None], face.translation[None, :2], np.array([face.pixels_per_metre]),
                      None if face.expression is None else face.expression[None], face.lens)


def of_take(take: Performance) -> FaceRecord:
    """Every frame of the video, from its first to its last, whether the face is seen in it or not."""
    count = max(take.length, take.start + len(take))
    # Where the performance has no frame its nearest one stands, and is marked as not seen.
    place = np.clip(np.arange(count) - take.start, 0, len(take) - 1)
    inside = place == np.arange(count) - take.start
    landmarks = take.vertices(take.topology.landmarks_of)
    return FaceRecord(take.fps, take.image_size, take.seen[place] & inside,
                      np.stack([landmarks[frame] for frame in range(len(take))])[place], take.rotation[place],
                      take.translation[place, :2], take.scale[place],
                      take.weights[place] if take.weights.shape[1] else None, take.lens)


def write_json(path: Path, records: Sequence[FaceRecord]) -> None:
    """Writes the faces' records, one line of text a face and frame; never half a file. Raises OSError."""
    first = records[0]
    head = {"format": "PRN Face Capture record", "version": 1, "fps": first.fps, "image_size": [int(side) for side in first.image_size],
            "conventions": CONVENTIONS, "arkit_names": ARKIT_NAMES if first.weights is not None else []}
    lines = [json.dumps(_entry(record, number, frame), ensure_ascii=False)
             for frame in range(len(first.seen)) for number, record in enumerate(records, 1)]
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(head, indent=1)[:-2] + ',\n "frames": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n", encoding="utf-8")


def _entry(record: FaceRecord, number: int, frame: int) -> dict:
    entry = {"frame": frame, "face": number, "seen": bool(record.seen[frame])}
    if record.fps:
        entry["seconds"] = round(frame / record.fps, 6)
    if not record.seen[frame]:
        return entry
    yaw, pitch, roll = angles(record.rotation[frame])
    entry |= {"yaw": round(yaw, 4), "pitch": round(pitch, 4), "roll": round(roll, 4),
              "rotation": np.round(record.rotation[frame], 8).tolist(),
              "translation": [*np.round(record.translation[frame], 4).tolist(), 0.0],
              "pixels_per_metre": round(float(record.scale[frame]), 4),
              "landmarks": np.round(record.landmarks(frame), 4).tolist(),
              "head_landmarks": np.round(record.head_landmarks[frame], 6).tolist()}
    if record.lens:
        entry["focal"] = round(record.lens.focal, 4)
    if record.weights is not None:
        entry["arkit"] = np.round(record.weights[frame].astype(float), 6).tolist()
    return entry
