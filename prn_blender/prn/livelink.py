"""LiveLink Face's CSV: a performance as the 61 numbers a frame that Unreal, Faceit and others read, written and read back.

Touches the file it is given; numpy and the csv module only. One row a frame: Timecode, BlendshapeCount, the 52 ARKit weights
in the app's order, then yaw, pitch and roll of the head and of both eyes, in radians. A frame without a face is a row that
ends after a count of 0, as the app itself writes it; readers leave such rows out.

Source of the layout: the header of the app's own recordings (Epic Games, Live Link Face for iOS).
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .arkit import ARKIT_NAMES
from .capture import angles
from .errors import CaptureError
from .record import FaceRecord
from .whole_file import whole_file

# The app's columns stand in ARKit's own order but for these two pairs, whose right one comes first.
_ORDER = [*ARKIT_NAMES]
for _left, _right in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
    _first = _ORDER.index(_left)
    _ORDER[_first:_first + 2] = [_right, _left]
SHAPES: tuple[str, ...] = tuple(_ORDER)
TURNS = tuple(f"{part}{axis}" for part in ("Head", "LeftEye", "RightEye") for axis in ("Yaw", "Pitch", "Roll"))
HEADER = ("Timecode", "BlendshapeCount", *(name[0].upper() + name[1:] for name in SHAPES), *TURNS)
COUNT = len(SHAPES) + len(TURNS)  # 61
APP_RATE = 60  # frames a second of the app, for recordings that do not tell theirs
# How far hm08's eyeballs turn under the ARKit shapes at weight 1, degrees, measured on its meshes: sideways, up, down.
_ASIDE, _UP, _DOWN = 15.0, 10.0, 11.0


@dataclass
class Recording:
    """What a LiveLink Face file holds. N rows, in time's order."""

    seconds: np.ndarray  # (N,) since the first row
    seen: np.ndarray  # (N,) bool: False where the file says that there was no face
    weights: np.ndarray  # (N, 52) in the order of ARKIT_NAMES; 0 where there was no face
    head: np.ndarray  # (N, 3) yaw, pitch, roll in degrees, signs as of `angles`; 0 where there was no face
    missing: list[str]  # ARKit shapes that the file has no column for
    turns: bool = True  # whether it has the head's motion


# ---- writing -----------------------------------------------------------------------------------------------------


def eye_turns(weights: np.ndarray) -> np.ndarray:
    """(N, 6) left eye's yaw, pitch, roll, then the right's, in degrees, of ARKit weights (N, 52).

    Signs are the head's: yaw to the viewer's left, pitch up. Roll is 0: eyes do not roll with their gaze.
    """
    def of(name: str) -> np.ndarray:
        return weights[:, ARKIT_NAMES.index(name)]
    none = np.zeros(len(weights))
    columns = []
    for side, outwards in (("Left", -1), ("Right", 1)):  # the person's left is the viewer's right
        columns += [outwards * _ASIDE * (of(f"eyeLookOut{side}") - of(f"eyeLookIn{side}")),
                    _UP * of(f"eyeLookUp{side}") - _DOWN * of(f"eyeLookDown{side}"), none]
    return np.stack(columns, 1)


def timecode(frame: int, fps: float) -> str:
    """HH:MM:SS:FF.fff of a frame. FF counts at the nearest whole rate; its fraction keeps the time true at 29.97 or 12.5."""
    rate = max(1, round(fps))
    thousandths = round(frame / fps * rate * 1000)
    second, part = divmod(thousandths, rate * 1000)
    return f"{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}:{part // 1000:02d}.{part % 1000:03d}"


def write_livelink(path: Path, record: FaceRecord) -> None:
    """Writes one row a frame of the record; never half a file.

    Raises CaptureError for a record without ARKit weights, OSError if the file cannot be written.
    """
    if record.weights is None:
        raise CaptureError("A LiveLink Face file is made of ARKit weights, which can be had with this program's own weights only: "
                           "use the weights that came with the program.")
    shapes = record.weights[:, [ARKIT_NAMES.index(name) for name in SHAPES]]
    head = np.array([angles(rotation) for rotation in record.rotation])
    values = np.hstack([shapes, np.radians(np.hstack([head, eye_turns(record.weights)]))])
    with whole_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        for frame, (there, row) in enumerate(zip(record.seen, values)):
            rows.writerow([timecode(frame, record.fps or APP_RATE), COUNT if there else 0, *(f"{value:.8f}" for value in row if there)])


# ---- reading -----------------------------------------------------------------------------------------------------

_TIMECODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)$")


def read_livelink(path: Path, fps: float | None = None) -> Recording:
    """Reads a recording of the app, or of whoever writes like it; columns may stand in any order.

    fps: the rate that its timecodes count frames at; by default told by where they start again, or the app's 60. Raises
    CaptureError in one sentence for a file that is something else, or damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
    except OSError as error:
        raise CaptureError(f"'{path}' cannot be read ({error.strerror}): check the file's name and its permissions.") from None
    except (UnicodeDecodeError, csv.Error):
        raise CaptureError(f"'{path}' is not a text of comma-separated values: give a LiveLink Face recording.") from None
    names = [name.strip().lower() for name in rows[0][1]] if rows else []
    plain = {name: number for number, name in enumerate(names)}
    found = [name for name in ARKIT_NAMES if name.lower() in plain]
    if not {"timecode", "blendshapecount"} <= plain.keys() or not found:
        raise CaptureError(f"'{path}' is not a LiveLink Face recording: its first line must name the columns Timecode, "
                           f"BlendshapeCount, EyeBlinkLeft and so on.")
    codes, seen, weights, head = [], [], [], []
    turns = all(name.lower() in plain for name in TURNS[:3])
    for line, row in rows[1:]:
        match = _TIMECODE.match(row[plain["timecode"]].strip()) if len(row) > plain["timecode"] else None
        if not match:
            raise _damaged(path, line, "has no timecode as 01:02:03:04")
        hours, minutes, seconds, part = (float(piece) for piece in match.groups())
        codes.append((3600 * hours + 60 * minutes + seconds, part))
        there = bool(_number(path, line, row, plain["blendshapecount"]))
        values, turn = np.zeros(len(ARKIT_NAMES)), np.zeros(3)
        if there:
            for name in found:
                values[ARKIT_NAMES.index(name)] = _number(path, line, row, plain[name.lower()])
            turn = [math.degrees(_number(path, line, row, plain[name.lower()])) for name in TURNS[:3] if turns] or turn
        seen.append(there)
        weights.append(values)
        head.append(turn)
    if not any(seen):
        raise CaptureError(f"'{path}' has no frame with a face in it: record again.")
    seconds = _seconds(np.array(codes), fps)
    backwards = np.flatnonzero(np.diff(seconds) <= 0)
    if len(backwards):
        raise _damaged(path, rows[1:][backwards[0] + 1][0], "lies not after the one above it")
    return Recording(seconds, np.array(seen), np.array(weights), np.array(head, float),
                     [name for name in ARKIT_NAMES if name not in found], turns)


def _damaged(path: Path, line: int, what: str) -> CaptureError:
    return CaptureError(f"Line {line} of '{path}' {what}: export the recording again.")


def _number(path: Path, line: int, row: list[str], place: int) -> float:
    if place >= len(row):
        raise _damaged(path, line, f"ends after {len(row)} values")
    try:
        value = float(row[place])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _damaged(path, line, f"has '{row[place][:30]}' where a number should be")
    return value


def _seconds(codes: np.ndarray, fps: float | None) -> np.ndarray:
    """(N,) seconds since the first of timecodes (N, 2): whole seconds, and frames within the second."""
    whole, part = codes[:, 0].copy(), codes[:, 1]
    whole[1:] += 24 * 3600 * np.cumsum(np.diff(whole) < -12 * 3600)  # past midnight
    turned = np.flatnonzero(np.diff(whole) == 1)
    steps = np.diff(part)[np.diff(whole) == 0]
    if fps is None and len(turned) and len(steps):
        # Where a second begins the count goes on as it does elsewhere, had it not started again.
        fps = round(float(np.median(part[turned] - part[turned + 1])) + float(np.median(steps)))
    rate = max(1, round(fps or APP_RATE), math.floor(part.max()) + 1)
    seconds = whole + part / rate
    return seconds - seconds[0]
