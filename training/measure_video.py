"""Measures video performances against MediaPipe and against known truth: `build.py bench --clips FOLDER --json FILE`.

Steadiness: a photograph turned into a noisy, compressed, slowly drifting clip, on which nothing else may move. Truth: clips of
`training.synthetic_takes`, if there are any in --takes. Agreement: real clips in --clips, against MediaPipe's blendshape
scores. Speed: decoding to smoothed maps, in turns with MediaPipe's video mode, so that only the ratio counts.
Runs in the `bench` environment; writes FILE. Reads the clips and the shipped weights, or those of --weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.arkit import ARKIT_NAMES, MIRRORED
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.errors import CaptureError
from prn_blender.prn.image_io import load_image
from prn_blender.prn.inputs import MOVIES
from prn_blender.prn.performance import record
from prn_blender.prn.take import Performance, Smoothing
from prn_blender.prn.take_recorder import Recorder
from prn_blender.prn.take_solve import solve
from prn_blender.prn.video import open_video
from prn_blender.prn.weights import load_bundle

INTEROCULAR = 63.0  # mm, as everywhere
HIGH = 8.0  # Hz: what is faster is jitter
COMPARED = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight", "browInnerUp")
PHOTO = Path(__file__).parent.parent / "tests" / "data" / "astronaut.jpg"
# MediaPipe's points round each eye: outer and inner corner.
_EYES = ((33, 133), (362, 263))


# ---- clips -----------------------------------------------------------------------------------------------------------


def still_clip(path: Path, frames: int = 150, fps: float = 30.0) -> None:
    """The photograph as a 640x360 clip: drifting by a pixel in four seconds, with a camera's noise, compressed."""
    photo = load_image(PHOTO)
    scale = 1.55
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (640, 360))
    for i in range(frames):
        drift = np.sin(2 * np.pi * i / fps / 8)
        matrix = np.float32([[scale, 0, 320 - 224 * scale + drift], [0, scale, 150 - 110 * scale + 0.5 * drift]])
        frame = cv2.warpAffine(photo, matrix, (640, 360), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        writer.write(np.clip(frame + rng.normal(0, 5, frame.shape), 0, 255).astype(np.uint8)[..., ::-1])
    writer.release()


# ---- what is compared --------------------------------------------------------------------------------------------------


def tracked(path: Path, engine: OnnxEngine, quick: bool = False) -> tuple[Recorder, float]:
    """The longest track of a clip, recorded, and the clip's rate. quick: so that it is solved without following the skin."""
    video = open_video(path)
    recorders, _, _ = record(video, "largest", engine, quick=quick)
    if not recorders:
        raise CaptureError(f"No face found in '{path}': leave it out.")
    return max(recorders, key=lambda recorder: recorder.size), video.fps


def performed(recorder: Recorder, fps: float, smoothing: Smoothing = Smoothing()) -> Performance:
    return solve(recorder, "the clip", fps, (640, 360), smoothing)


def points_of(performance: Performance) -> np.ndarray:
    """(N, V, 3) millimetres in the image frame, scaled so that the head has its real size throughout."""
    vertices = performance.vertices(performance.topology.grid(4).sample)
    size = 1000 / np.median(performance.scale)
    return np.stack([size * performance.seen_at(i, vertices[i]) for i in range(len(performance))])


def mediapipe_points(path: Path) -> np.ndarray:
    """(N, 468, 3) MediaPipe FaceMesh's raw points in video mode, in millimetres by the eyes' distance."""
    import mediapipe

    found = []
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, refine_landmarks=False) as mesh:
        for frame in open_video(path):
            result = mesh.process(frame.image)
            height, width = frame.image.shape[:2]
            if result.multi_face_landmarks:
                points = result.multi_face_landmarks[0].landmark
                found.append([(point.x * width, point.y * height, point.z * width) for point in points])
    points = np.array(found)
    centres = [points[:, list(eye)].mean(1) for eye in _EYES]
    return points * INTEROCULAR / np.median(np.linalg.norm(centres[0] - centres[1], axis=1))


def high_passed(points: np.ndarray, fps: float) -> float:
    """RMS over vertices and frames of the part of the motion (N, V, C) that is faster than 8 Hz."""
    # There and back again, so that the ends meet: a jump between them would be fast motion that is not there.
    round_trip = np.concatenate([points, points[::-1]])
    spectrum = np.fft.rfft(round_trip - points.mean(0), axis=0)
    spectrum[np.fft.rfftfreq(len(round_trip), 1 / fps) <= HIGH] = 0
    fast = np.fft.irfft(spectrum, len(round_trip), axis=0)
    return float(np.sqrt((fast ** 2).sum(-1).mean()))


def steadiness(engine: OnnxEngine, folder: Path) -> dict:
    """Jitter in mm on the still clip."""
    path = folder / "still.mp4"
    still_clip(path)
    recorder, fps = tracked(path, engine)
    table = {}
    for name, smoothing in (("raw", Smoothing(0, 0, 0)), ("smoothed", Smoothing())):
        points = points_of(performed(recorder, fps, smoothing))
        table[name] = {"image plane": high_passed(points[..., :2], fps), "space": high_passed(points, fps)}
    points = mediapipe_points(path)
    table["MediaPipe raw"] = {"image plane": high_passed(points[..., :2], fps), "space": high_passed(points, fps)}
    return table


def lag_of(signal: np.ndarray, truth: np.ndarray) -> float:
    """Frames by which the signal (N,) comes late, from the peak of the cross-correlation, to parts of a frame."""
    a, b = signal - signal.mean(), truth - truth.mean()
    lags = np.arange(-4, 5)
    values = np.array([(a[max(0, lag):len(a) + min(0, lag)] * b[max(0, -lag):len(b) - max(0, lag)]).sum() for lag in lags])
    best = int(np.clip(values.argmax(), 1, len(lags) - 2))
    left, middle, right = values[best - 1:best + 2]
    return float(lags[best] + 0.5 * (left - right) / (left - 2 * middle + right))


def truth(engine: OnnxEngine, takes: Path) -> dict:
    """Weights, lag and amplitude on rendered takes, and what MediaPipe's blendshapes do there."""
    rows, found, raw, plain, real, theirs = [], [], [], [], [], []
    blinks_kept, blinks_true, lags = [], [], []
    for path in sorted(takes.glob("take_*.mp4")):
        known = np.load(path.with_suffix(".npz"))
        recorder, fps = tracked(path, engine)
        smooth, rough = performed(recorder, fps), performed(recorder, fps, Smoothing(0, 0, 0))
        part = slice(smooth.start, smooth.start + len(smooth))
        true = known["weights"][part]
        plain.append(performed(*tracked(path, engine, quick=True)).weights)
        found.append(smooth.weights), raw.append(rough.weights), real.append(true)
        scores = mediapipe_scores(path)
        theirs.append(np.where(np.isnan(scores[part]), 0, scores[part]))
        jaw = ARKIT_NAMES.index("jawOpen")
        lags.append((lag_of(smooth.weights[:, jaw], rough.weights[:, jaw]), lag_of(smooth.weights[:, jaw], true[:, jaw])))
        for lid in ("eyeBlinkLeft", "eyeBlinkRight"):
            column = ARKIT_NAMES.index(lid)
            for blink in known["blinks"] - smooth.start:
                around = slice(max(0, blink - 4), blink + 6)
                if rough.weights[around, column].max(initial=0) > 0.2:
                    blinks_kept.append(smooth.weights[around, column].max() / rough.weights[around, column].max())
                blinks_true.append(smooth.weights[around, column].max(initial=0))
        turn = np.einsum("nij,nij->n", smooth.rotation, known["rotations"][part])
        rows.append(float(np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1))).mean()))
    found, raw, plain, real, theirs = (np.concatenate(values) for values in (found, raw, plain, real, theirs))
    used = np.argsort(-real.mean(0))[:10]
    moving = [number for number in range(52) if real[:, number].std() > 0.05]

    def correlations(values: np.ndarray) -> dict[str, float]:
        return {ARKIT_NAMES[n]: float(np.corrcoef(values[:, n], real[:, n])[0, 1]) if values[:, n].std() > 0 else 0.0
                for n in moving}

    figures = {}
    for whose, values in (("", found), (" of --quick", plain), (" of MediaPipe", theirs)):
        each = correlations(values)
        figures |= {
            f"mean absolute error{whose}": float(np.abs(values - real).mean()),
            f"mean absolute error{whose}, ten most used": float(np.abs(values - real)[:, used].mean()),
            f"correlation{whose}": each, f"correlation{whose}, mean": float(np.mean(list(each.values()))),
            f"correlation{whose}, mean of the ten most used": float(np.mean([each[ARKIT_NAMES[n]] for n in used if ARKIT_NAMES[n] in each]))}
    return figures | {
        "blink depth kept by smoothing": float(np.mean(blinks_kept)) if blinks_kept else None,
        "blink depth kept by smoothing, least": float(np.min(blinks_kept)) if blinks_kept else None,
        "blink depth of 1": float(np.mean(blinks_true)),
        "lag of smoothing, frames": float(np.mean([lag for lag, _ in lags])),
        "lag against truth, frames": float(np.mean([lag for _, lag in lags])),
        "head turn, mean error in degrees": float(np.mean(rows)),
        "amplitude kept by smoothing": {ARKIT_NAMES[n]: float((found[:, n] @ raw[:, n]) / max((raw[:, n] ** 2).sum(), 1e-9))
                                        for n in moving},
    }


def mediapipe_scores(path: Path) -> np.ndarray:
    """(N, 52) MediaPipe's blendshape scores of a clip's frames in video mode, NaN where it sees no face; tongueOut is always 0."""
    from training.mediapipe_again import as_image, landmarker, scores_of

    with landmarker("VIDEO") as marker:
        found = [scores_of(marker.detect_for_video(as_image(frame.image), int(frame.time * 1000))) for frame in open_video(path)]
    return np.array([np.full(len(ARKIT_NAMES), np.nan) if scores is None else scores for scores in found])


def mediapipe_runs(path: Path) -> np.ndarray:
    """(N, RUNS, 52) MediaPipe's blendshape scores of each frame by itself, asked again and again: the first of it as it is, the second of its
    mirror image; NaN where it sees no face."""
    from training.mediapipe_again import as_image, asked, landmarker, scores_of

    rng = np.random.default_rng(0)
    with landmarker("IMAGE") as marker:
        return np.array([asked(lambda shown: scores_of(marker.detect(as_image(shown))), frame.image, MIRRORED, rng) for frame in open_video(path)])


def agreement(engine: OnnxEngine, clips: list[Path]) -> dict:
    """On each real clip the correlation of ours with MediaPipe's scores in video mode, and with the median of its runs on single frames, and of one of
    these with the one on the mirror image; None for a shape that does not move there."""
    table = {}
    for path in clips:
        recorder, fps = tracked(path, engine)
        performance, video, runs = performed(recorder, fps), mediapipe_scores(path), mediapipe_runs(path)
        span = slice(performance.start, performance.start + len(performance))
        straight, mirrored = runs[span, 0], runs[span, 1]
        compared = {"video mode": (performance.weights, video[span]), "median": (performance.weights, np.nanmedian(runs[span], 1)),
                    "MediaPipe, mirrored": (straight, mirrored)}
        table[path.name] = {}
        for name in COMPARED:
            column = ARKIT_NAMES.index(name)
            moves = np.nanstd(video[span][performance.seen[:len(video[span])], column]) > 0.05
            table[path.name][name] = {how: _correlation(one[:, column], other[:, column], performance.seen) for how, (one, other) in compared.items()} \
                if moves else None
    return table


def _correlation(one: np.ndarray, other: np.ndarray, seen: np.ndarray) -> float | None:
    """Of the frames that were seen by all; a movie may end before its last announced one."""
    one, other, seen = (values[:min(len(one), len(other))] for values in (one, other, seen))
    known = seen & ~np.isnan(one) & ~np.isnan(other)
    return float(np.corrcoef(one[known], other[known])[0, 1]) if one[known].std() > 0 else None


def speed(engine: OnnxEngine, path: Path, rounds: int = 5) -> dict:
    """Frames a second of both on one clip, in turns; medians."""
    import mediapipe

    def ours(quick: bool) -> int:
        recorder, fps = tracked(path, engine, quick)
        return len(performed(recorder, fps))

    def theirs(refine: bool) -> int:
        count = 0
        with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, refine_landmarks=refine) as mesh:
            for frame in open_video(path):
                mesh.process(frame.image)
                count += 1
        return count

    mine = {"ours, decode to smoothed maps": lambda: ours(False), "ours, --quick": lambda: ours(True)}
    others = {"MediaPipe, video mode": lambda: theirs(False), "MediaPipe, video mode, refined": lambda: theirs(True)}
    rates: dict[str, list[float]] = {name: [] for name in mine | others}
    for _ in range(rounds):
        for name, run in (mine | others).items():
            started = time.perf_counter()
            count = run()
            rates[name].append(count / (time.perf_counter() - started))
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    ratios = {f"{one} / {other}": float(np.median(np.array(rates[one]) / np.array(rates[other]))) for one in mine for other in others}
    return {"frames a second": medians, "ratios": ratios}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--clips", type=Path, help="folder of movies of faces, to compare with MediaPipe's scores")
    parser.add_argument("--takes", type=Path, help="folder of training.synthetic_takes")
    parser.add_argument("--weights", type=Path, help="model bundle to use instead of the shipped one")
    parser.add_argument("--only", choices=("steadiness", "truth", "agreement", "speed"), action="append")
    options = parser.parse_args(arguments)
    wanted = options.only or ["steadiness", "truth", "agreement", "speed"]
    clips = sorted(path for path in options.clips.iterdir() if path.suffix.lower() in MOVIES) if options.clips else []
    try:
        engine = OnnxEngine(load_bundle(options.weights), quantized=True)
        results = {}
        with tempfile.TemporaryDirectory() as folder:
            if "steadiness" in wanted:
                results["steadiness, mm"] = steadiness(engine, Path(folder))
            if "truth" in wanted and options.takes:
                results["truth"] = truth(engine, options.takes)
            if "agreement" in wanted and clips:
                results["agreement with MediaPipe"] = agreement(engine, clips)
            if "speed" in wanted:
                path = Path(folder) / "still.mp4"
                still_clip(path, 240)
                results["speed"] = speed(engine, path)
    except CaptureError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    text = json.dumps(results, indent=1)
    options.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
