"""Colours as a file means them, in sRGB: of movies and HEIC pictures by their tags, of photographs by their ICC profile.

OpenCV's decoder takes every YCbCr for BT.601's, and everything for sRGB: high-definition video comes out with reds too
dull and greens too bright, HDR video and a phone's wide colours come out grey. Numbers are those of ITU-T H.273;
BT.601, BT.709, BT.2020, BT.2100; IEC 61966-2-1 (sRGB); ICC.1:2022 (profiles of three primaries and three curves).
Imports only numpy, OpenCV and `boxes`; touches nothing.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .boxes import Tags

BT709, UNSPECIFIED, BT601 = 1, 2, 6
_PQ, _HLG = 16, 18
_WIDE = {9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),       # BT.2020
         12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))}      # Display P3
_SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_D65 = (0.3127, 0.3290)
# Of red and blue in the luma, by the number of the matrix.
_LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}

# HDR is shown as an SDR screen can: what is as bright as paper (203 cd/m2: ITU-R BT.2408) becomes nearly white, what is brighter is
# pressed into the rest.
_PAPER, _KNEE = 203.0, 0.75

_D50_TO_SRGB = np.linalg.inv([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]])
_ROWS = 256                     # of a photograph that are converted at a time
_STEPS = 1 << 14                # of linear light, of which sRGB's curve is tabulated


@dataclass(frozen=True)
class Correction:
    """From what OpenCV decodes to sRGB: nothing, or a matrix, and for some a curve and a second matrix after it."""

    first: np.ndarray | None = None     # (3, 4) from BGR to RGB, 0..255
    curve: np.ndarray | None = None     # (256, 1) uint8, of each of R, G and B
    second: np.ndarray | None = None    # (3, 3)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR to (H, W, 3) uint8 RGB in sRGB."""
        if self.first is None:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        image = cv2.transform(image, self.first)
        if self.curve is not None:
            image = cv2.LUT(image, self.curve)
        return image if self.second is None else cv2.transform(image, self.second)


@lru_cache(16)
def correction(tags: Tags, taken_for_limited: bool) -> Correction:
    """What sets the colours of decoded pictures right.

    taken_for_limited: whether the decoder took black and white for 16 and 235 whatever the tags say.
    """
    # Back to YCbCr, there to the range in which it was written, and read by its own matrix.
    wider = tags.full and taken_for_limited
    to_written = np.diag([219 / 255, 224 / 255, 224 / 255]) if wider else np.eye(3)
    to_rgb = _from_ycc(tags.matrix if tags.matrix in _LUMA else BT601) @ to_written @ np.linalg.inv(_from_ycc(BT601))
    first = np.column_stack([to_rgb[:, ::-1], np.full(3, 16 if wider else 0)]).astype(np.float32)
    if tags.transfer not in (_PQ, _HLG) and tags.primaries not in _WIDE:
        return Correction() if np.allclose(to_rgb, np.eye(3)) else Correction(first)
    curve, second = _shown(tags.primaries, tags.transfer)
    return Correction(first, curve, second.astype(np.float32))


def _from_ycc(matrix: int) -> np.ndarray:
    """(3, 3) from Y, Cb, Cr to R, G, B."""
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    return np.array([[1, 0, 2 * (1 - red)], [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green], [1, 2 * (1 - blue), 0]])


def _to_srgb_primaries(primaries: int) -> np.ndarray:
    """(3, 3) from these primaries to sRGB's, of linear light; both have the same white."""
    return np.linalg.inv(_to_xyz(_SRGB)) @ _to_xyz(_WIDE.get(primaries, _SRGB))


def _to_xyz(primaries: tuple) -> np.ndarray:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*primaries, _D65)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def shown(signal: np.ndarray, primaries: int, transfer: int) -> np.ndarray:
    """Signals (..., 3) in 0..1, as sRGB 0..1: what `correction` comes near to in fewer steps."""
    if transfer == _HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal ** 2 / 3, (np.exp((signal - c) / a) + b) / 12)
        luma = scene @ [0.2627, 0.6780, 0.0593]
        light = 1000 / _PAPER * np.maximum(luma, 1e-9)[..., None] ** 0.2 * scene
    elif transfer == _PQ:
        power = np.maximum(signal, 0) ** (1 / 78.84375)
        light = 10000 / _PAPER * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    else:
        light = linear(signal)
    light = np.maximum(light @ _to_srgb_primaries(primaries).T, 0)
    if transfer in (_PQ, _HLG):
        beyond = np.maximum(light - _KNEE, 0)
        light = np.minimum(light, _KNEE) + (1 - _KNEE) * (1 - np.exp(-beyond / (1 - _KNEE)))
    return _encoded(np.minimum(light, 1))


def _shown(primaries: int, transfer: int) -> tuple[np.ndarray, np.ndarray]:
    """`shown` as a curve that is exact for greys, (256, 1) uint8, and a matrix after it that is fitted to what skin and most things have."""
    grey = np.arange(256) / 255
    curve = shown(np.repeat(grey[:, None], 3, 1), primaries, transfer).mean(1)
    dice = np.random.default_rng(0)
    level = dice.uniform(0.05, 0.8, (4000, 1))
    signals = np.clip(level * (1 + dice.uniform(-0.3, 0.3, (4000, 3))), 0, 1)
    signals[::2] = -np.sort(-signals[::2], 1)                       # half of them reddish, as skin is
    after = shown(signals, primaries, transfer)
    usual = (after.min(1) > 0.35 * after.max(1)) & (after.max(1) < 0.97)
    before, after = np.interp(signals[usual], grey, curve), after[usual]
    # Rows that sum to 1 leave greys grey: only how far the others lie from green is free.
    matrix = np.empty((3, 3))
    for row in range(3):
        matrix[row, [0, 2]] = np.linalg.lstsq(before[:, [0, 2]] - before[:, 1:2], after[:, row] - before[:, 1], rcond=None)[0]
        matrix[row, 1] = 1 - matrix[row, 0] - matrix[row, 2]
    return np.rint(curve * 255).astype(np.uint8)[:, None], matrix


def linear(signal: np.ndarray) -> np.ndarray:
    return np.where(signal <= 0.04045, signal / 12.92, ((np.maximum(signal, 0) + 0.055) / 1.055) ** 2.4)


def _encoded(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


# ---- ICC profiles ----------------------------------------------------------------------------------------------------


def from_profile(image: np.ndarray, profile: bytes) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB whose numbers a profile explains, in sRGB; the same array where that makes no difference, or where the
    profile is damaged or of a kind that is not read here (tables instead of curves, grey, CMYK)."""
    try:
        understood = _three_curves(profile)
    except (struct.error, IndexError, ValueError, ZeroDivisionError):
        understood = None
    if understood is None:
        return image
    curves, matrix = understood
    probe = np.stack(np.meshgrid(*[np.arange(0, 256, 51, dtype=np.uint8)] * 3), -1).reshape(-1, 1, 3)
    if np.abs(_converted(probe, curves, matrix).astype(int) - probe).max() <= 2:
        return image                                                # it is sRGB, as nearly all are
    result = np.empty_like(image)
    for first in range(0, len(image), _ROWS):
        result[first:first + _ROWS] = _converted(image[first:first + _ROWS], curves, matrix)
    return result


def _converted(image: np.ndarray, curves: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    light = cv2.transform(cv2.LUT(np.ascontiguousarray(image), curves), matrix)
    return _srgb_table()[(np.clip(light, 0, 1) * (_STEPS - 1) + 0.5).astype(np.uint16)]


@lru_cache(1)
def _srgb_table() -> np.ndarray:
    return np.rint(255 * _encoded(np.arange(_STEPS) / (_STEPS - 1))).astype(np.uint8)


def _three_curves(profile: bytes) -> tuple[np.ndarray, np.ndarray] | None:
    """(256, 1, 3) linear light of each value of R, G and B, and (3, 3) from that to sRGB's primaries. None for other kinds of profiles."""
    if profile[16:20] != b"RGB " or profile[20:24] != b"XYZ ":
        return None
    tags = {}
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        name, start, length = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        tags[name] = profile[start:start + length]
    if b"A2B0" in tags or not all(tags.get(bytes([letter]) + rest) for letter in b"rgb" for rest in (b"XYZ", b"TRC")):
        return None
    columns = [np.array(struct.unpack_from(">3i", tags[bytes([letter]) + b"XYZ"], 8)) / 65536 for letter in b"rgb"]
    with np.errstate(all="ignore"):
        curves = np.stack([_curve(tags[bytes([letter]) + b"TRC"]) for letter in b"rgb"], -1)
    if not ((np.diff(curves, axis=0) >= 0).all() and (curves[-1] > 0.5).all()):     # NaN is neither
        return None
    return curves[:, None].astype(np.float32), (_D50_TO_SRGB @ np.stack(columns, 1)).astype(np.float32)


def _curve(tag: bytes) -> np.ndarray:
    """(256,) what a profile's curve makes of 0..1."""
    x = np.arange(256) / 255
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count < 2:
            return x ** (struct.unpack_from(">H", tag, 12)[0] / 256) if count else x
        values = np.array(struct.unpack_from(f">{count}H", tag, 12)) / 65535
        return np.interp(x, np.linspace(0, 1, count), values)
    if tag[:4] != b"para":
        raise ValueError
    (kind,) = struct.unpack_from(">H", tag, 8)
    g, a, b, c, d, e, f = np.array(struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12) + (0,) * 6)[:7] / 65536
    # Types 0 to 4 (ICC.1, 10.18): those with fewer numbers are the last one with the rest as here.
    if kind == 0:
        return x ** g
    bend = d if kind >= 3 else -b / a
    above = np.maximum(a * x + b, 0) ** g + (c if kind == 2 else e)
    below = np.full_like(x, c) if kind == 2 else c * x + f if kind >= 3 else np.zeros_like(x)
    return np.where(x >= bend, above, below)
