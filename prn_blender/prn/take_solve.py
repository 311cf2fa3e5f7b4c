"""The take's solve: a recorded track becomes one person's neutral, head motion and expression apart, smooth in time.

One identity and one neutral for the whole take; per frame the rigid head pose against that neutral, the ARKit-52 weights in
shapes adapted to the person, and what these shapes cannot say. numpy and OpenCV only, never bpy.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from .arkit import ARKIT_NAMES
from .at_rest import compared_at_rest
from .blinks import closed, completed
from .capture import INTEROCULAR
from .contact import close_lids, close_lips, part_lips
from .errors import NoFaceError
from .face_fit import GRID, ShapeSpace, reading, similarity
from .position_map import SIZE, Topology, load_topology
from .stored_offsets import metres
from .take import Performance, Smoothing, resized
from .take_recorder import Recorder
from .take_weights import identity_and_reading, with_skin
from .threads import in_blocks, one_thread_each
from .time_grid import TimeGrid, smoothed

CELLS = GRID * GRID
RESIDUAL = 32               # what the shapes lack is low-passed, so that a map of 32x32 holds all of it
_DETAILS, _SAMPLED = 24, 600    # of it so many principal directions are kept, found on so many frames
_ADAPTED = 12.0             # frames at full weight that a shape has to be seen before half of what it lacks is believed
_RIGID_MOVE = 0.0012        # metres that the ARKit shapes may move a point of the skull
_BONY = 0.05                # weights of the skull's parts below this would cost time and tell little
# A face at rest stays so for a second, more or less: half of it either side. What a frame's changes count for at most: in a
# take that never rests the least expression decides.
_ABOUT, _RESTLESS = 0.5, 0.8
_PARTS, _CANDIDATES = 24, 8  # of the whole take: of so many parts the calmest frame, and of so many of these the skin's reader says which is most at rest
_TURNED = 3.0               # what one turned to the side counts: of 30 degrees as much as weights of 0.4
_REST = 0.3                 # the most that a resting face's own weights may be, and still be called rest


@one_thread_each()
def solve(recorder: Recorder, name: str, fps: float, image_size: tuple[int, int], smoothing: Smoothing = Smoothing(),
          neutral_frame: int | None = None, warnings: list[str] | None = None,
          source_fps: float | None = None, interocular: float = INTEROCULAR,
          followed: Callable[[int, int], None] | None = None) -> Performance:
    """One identity, one neutral, per-frame pose and expression of a recorded track, smoothed, at `fps` frames a second.

    followed: called now and then with the number of frames in which the skin has been followed, and of all; what it raises ends the
    solve. Raises CaptureError if neutral_frame is not among the recorded frames.
    """
    space, topology = recorder.space, load_topology()
    warnings = list(warnings or [])
    recorder.finish()
    good = recorder.good()
    if len(good) < 2:
        raise NoFaceError(f"The face in {name} is never seen well enough: use a video in which it is larger, sharper or less hidden.")
    grid = TimeGrid(np.array(recorder.times)[good], fps, source_fps or fps)
    offsets = grid.resample(recorder.offsets(), good)
    right, prior = (grid.resample(np.array(values, np.float32)[good]) for values in (recorder.rights, recorder.expressions))
    scale, rotation, translation = recorder.resampled_poses(grid, good)

    identity, read, weights = identity_and_reading(space, right, prior, fps)
    known = space.small_mean + space.offsets(np.concatenate([identity, np.zeros(52)]))
    calm = _calmest(weights, recorder, grid, neutral_frame)
    if recorder.skin:
        candidates, unrest = _candidates(weights, grid, rotation)
        if neutral_frame is not None:
            candidates = candidates[:0]
        compared = compared_at_rest(recorder, good, grid, known, weights, calm, candidates, unrest)
        moved, weights = with_skin(compared, read, weights, followed)
        offsets = grid.resample(moved)
        calm = _calmest(weights, recorder, grid, neutral_frame)
    expressions = space.basis[space.identities:].reshape(52, CELLS, 3)

    beyond = _beyond_at_rest(space, offsets, known, expressions, weights, calm)
    blurred = space.low_pass(beyond)
    rest = space.sharp_at_rims(blurred, beyond)
    person = known + rest.reshape(-1, 3)

    # On the face's cells alone, in single precision, axis by axis: all that follows is matrix products over some frames.
    mean, steady, moves = (np.ascontiguousarray(values.reshape(-1, CELLS, 3)[:, space.cells].swapaxes(1, 2), np.float32)
                           for values in (space.small_mean, person, expressions))

    def explained(frames: np.ndarray, steady: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """(B, 3, cells) the person with each frame's expression."""
        return (weights[frames] @ moves.reshape(52, -1)).reshape(-1, *moves.shape[1:]) + steady

    # The skull's motion: rigid, against this person's own face, without what the expression explains.
    skull = _skull(space, topology)
    bony = np.flatnonzero(skull)
    skull, *bone = (values[..., bony] for values in (skull, mean, steady, moves))
    pose = [np.concatenate(found) for found in zip(*in_blocks(
        lambda frames: _rigid(explained(frames, *bone[1:]), metres(offsets[frames][..., bony]) + bone[0], skull),
        np.arange(len(offsets))))]
    translation = translation + scale[:, None] * (rotation @ pose[2][..., None])[..., 0]
    rotation = rotation @ pose[1]
    scale = scale * pose[0]

    believed = np.repeat(_living(topology), 3, 2)

    def residuals(frames: np.ndarray) -> np.ndarray:
        grown, turned, shifted = (found[frames].astype(np.float32) for found in pose)
        seen = metres(offsets[frames]) + (mean - shifted[..., None])
        residual = (turned / grown[:, None, None]).swapaxes(1, 2) @ seen - explained(frames, steady, moves)
        # Lids and lips move by the shapes: what single frames show beyond them there is noise for the most part.
        low = [space.low_pass(one.T) * believed for one in residual]
        return np.stack([cv2.resize(one, (RESIDUAL, RESIDUAL), interpolation=cv2.INTER_AREA).ravel() for one in low])

    details, detail_shapes = compressed(residuals, len(offsets))
    lacking, details = _learn(details, weights)
    lacking = (lacking @ detail_shapes).reshape(52, RESIDUAL, RESIDUAL, 3)
    shapes = expressions.reshape(52, GRID, GRID, 3) + np.stack([resized(shape, GRID) for shape in lacking])
    # What the face wears at rest belongs to the neutral, and the weights count from there.
    rest_weights = _rest_weights(weights, calm)
    person = person + np.tensordot(rest_weights, shapes.reshape(52, CELLS, 3), 1)
    shapes = shapes * (1 - rest_weights)[:, None, None, None]
    # Shut is shut, however narrow the eyes are at rest.
    weights = np.clip((closed(weights) - rest_weights) / (1 - rest_weights), 0, 1)

    rotation, translation, scale, weights, details = smoothed(grid, rotation, translation, scale, weights, details, smoothing)
    if recorder.lens:
        translation, growth = recorder.lens.brought(translation, translation[:, 2:])
        scale = scale * growth[:, 0]

    neutral = space.mean + resized((person - space.small_mean).reshape(GRID, GRID, 3), SIZE)
    landmarks = topology.landmarks_of(neutral)
    metric = interocular / float(np.linalg.norm(landmarks[36:42].mean(0) - landmarks[42:48].mean(0)))
    neutral = close_lips(neutral * np.float32(metric), topology)
    # As of a photograph: a head's mesh would fold over at the lips' corners.
    residual = reading(neutral) / np.float32(metric) - (known + (rest - blurred).reshape(-1, 3)).reshape(GRID, GRID, 3)
    shapes = close_lids(neutral, (shapes * metric).astype(np.float32), topology)
    weights = part_lips(completed(weights, fps), neutral, shapes, topology)
    return Performance(
        name=name, fps=fps, start=grid.start, image_size=image_size, seen=grid.seen, rotation=rotation,
        translation=translation, scale=scale / metric, weights=weights.astype(np.float32),
        details=details.astype(np.float32), neutral=neutral, shapes=shapes,
        detail_shapes=(detail_shapes.reshape(-1, RESIDUAL, RESIDUAL, 3) * metric).astype(np.float32),
        identity=identity.astype(np.float32), residual=residual.astype(np.float32), metric=metric,
        neutral_frame=int(np.round((grid.start + calm) * (source_fps or fps) / fps)),
        key_frames=recorder.key_frames(), warnings=warnings + grid.warnings(), topology=topology, lens=recorder.lens)


def _calmest(weights: np.ndarray, recorder: Recorder, grid: TimeGrid, chosen: int | None) -> int:
    """The frame of the grid in which the face is at rest: the chosen one, or one whose weights are small, and stay as they are."""
    if chosen is not None:
        return recorder.place_of(chosen, grid, len(weights))
    strength, changes = _unrest(weights, grid)
    return int(np.argmin(strength + changes))


def _candidates(weights: np.ndarray, grid: TimeGrid, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames of the grid in which the face may be at rest, each from another part of the take, and of all frames (N,) what speaks against them
    besides: a face that changes, and one that is turned away, with which few others can be compared. rotation (N, 3, 3): of the head."""
    strength, changes = _unrest(weights, grid)
    unrest = changes + _TURNED * (1 - rotation[:, 2, 2])
    parts = np.array_split(strength + unrest, min(_PARTS, len(weights)))
    starts = np.cumsum([0, *map(len, parts[:-1])])
    chosen = starts + [part.argmin() for part in parts]
    chosen = chosen[np.argsort([part.min() for part in parts])[:_CANDIDATES]]
    return chosen[grid.seen[chosen]], unrest


def _unrest(weights: np.ndarray, grid: TimeGrid) -> tuple[np.ndarray, np.ndarray]:
    """(N,) twice, how much a face does and how much that changes about each frame; infinite where it is not seen."""
    weights = weights[:, [not name.startswith("eyeLook") for name in ARKIT_NAMES]]
    around = max(1, int(round(0.1 * grid.fps)))
    steady = np.convolve(np.pad(weights.sum(1), around, mode="edge"), np.ones(2 * around + 1) / (2 * around + 1), "valid")
    return np.where(grid.seen, steady, np.inf), np.minimum(_changes(weights, grid), _RESTLESS)


def _changes(weights: np.ndarray, grid: TimeGrid) -> np.ndarray:
    """(N,) how much the weights (N, C) of the frames about each differ from its own, summed; infinite where half of these are not seen."""
    count, reach = len(weights), max(1, int(round(_ABOUT * grid.fps)))
    total, seen = np.zeros((2, count))
    for step in range(1, reach + 1):
        difference = np.abs(weights[step:] - weights[:-step]).sum(1)
        for here, there in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            total[here] += np.where(grid.seen[there], difference, 0)
            seen[here] += grid.seen[there]
    return np.where(seen >= min(reach, (count - 1) / 2), total / np.maximum(seen, 1), np.inf)


def _rest_weights(weights: np.ndarray, calm: int) -> np.ndarray:
    """(52,) what the weights are at rest, which is then zero by definition; strong ones are no rest but a face made."""
    rest = np.median(weights[max(0, calm - 2):calm + 3], 0)
    # What most of the take lies below is no rest either: the one frame would cut the motion off.
    rest = np.minimum(np.minimum(rest, np.quantile(weights, 0.15, axis=0)), _REST)
    rest[[index for index, name in enumerate(ARKIT_NAMES) if name.startswith("eyeLook")]] = 0
    return rest


def _beyond_at_rest(space: ShapeSpace, offsets: np.ndarray, person: np.ndarray, expressions: np.ndarray,
                      weights: np.ndarray, calm: int) -> np.ndarray:
    """(cells, 3) what the calm frames show of the person that the identity lacks."""
    quiet = weights.sum(1)
    likely = np.exp(-(quiet - quiet[calm]).clip(0) / 0.5)
    chosen = np.argsort(-likely)[:60]
    share = (likely[chosen] / likely[chosen].sum()).astype(np.float32)
    face = (person + np.tensordot(share @ weights[chosen], expressions, 1))[space.cells] - space.small_mean[space.cells]
    difference = np.tensordot(share, metres(offsets[chosen]), 1).T - face
    # The alignments' own error must not become part of the person.
    difference -= np.average(difference, axis=0, weights=space.cell_weights)
    return difference.astype(np.float32)


def _skull(space: ShapeSpace, topology: Topology) -> np.ndarray:
    """(cells,) weights of the parts that move with the skull: nose bridge, brow ridge, temples, cheekbones; 0 for most of the rest."""
    moves = np.sqrt((space.basis[space.identities:].reshape(52, CELLS, 3)[:, space.cells] ** 2).sum(2)).max(0)
    step = SIZE // GRID
    left_out = np.zeros((SIZE, SIZE), bool)
    for region in ("ears", "neck", "forehead"):  # cartilage, muscle, hair
        left_out |= topology.regions[region]
    left_out = left_out.reshape(GRID, step, GRID, step).any((1, 3)).ravel()[space.cells]
    weights = 1 / (1 + (moves / _RIGID_MOVE) ** 2)
    return np.where(left_out | (weights < _BONY), 0, weights).astype(np.float32)


def _living(topology: Topology) -> np.ndarray:
    """(64, 64, 1) how far what a part does beyond the shapes is believed: ears and scalp only seem to move, under hair and
    in perspective, and lids would be kept from closing by maps that do not close them."""
    share = np.ones((SIZE, SIZE), np.float32)
    for region in ("ears", "forehead", "eye_left", "eye_right"):
        share[topology.regions[region]] = 0.2
    share[topology.regions["neck"]] = 0.5
    return cv2.GaussianBlur(cv2.resize(share, (GRID, GRID), interpolation=cv2.INTER_AREA), (0, 0), 2.0)[..., None]


def _rigid(source: np.ndarray, target: np.ndarray, skull: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The small similarities (B,), (B, 3, 3), (B, 3) from the person's head, source (B, 3, cells), to where the frames' first
    alignment put it, target; robust (Cauchy)."""
    trust = skull
    for _ in range(3):
        grown, turned, shifted = similarity(source.swapaxes(1, 2), target.swapaxes(1, 2), trust)
        away = target - (grown[:, None, None] * turned).astype(np.float32) @ source - shifted[..., None].astype(np.float32)
        distance = np.sqrt(np.square(away, out=away).sum(1))
        spread = (1.4826 * np.median(distance[:, skull > 0.3], axis=1) + 1e-6).astype(np.float32)
        trust = skull / (1 + np.square(distance / (2 * spread[:, None])))
    return grown, turned, shifted


def compressed(rows: Callable[[np.ndarray], np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, K) coefficients and (K, C) principal directions of count rows; rows gives those of some numbers (B,) as (B, C)."""
    few = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(int))
    sampled = np.concatenate(in_blocks(rows, few))
    # By the products of the rows with each other: there are fewer of them than of columns.
    _, vectors = np.linalg.eigh((sampled @ sampled.T).astype(np.float64))
    directions = np.linalg.qr(sampled.T @ vectors[:, :-_DETAILS - 1:-1].astype(np.float32))[0].T
    if len(few) == count:
        return sampled @ directions.T, directions
    return np.concatenate(in_blocks(lambda numbers: rows(numbers) @ directions.T, np.arange(count))), directions


def _learn(details: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(52, K) what each shape lacks on this person, by ridge regression over the take, and the details left (N, K)."""
    lacking = np.linalg.solve(weights.T @ weights + _ADAPTED * np.eye(52), weights.T @ details)
    return lacking, details - weights @ lacking
