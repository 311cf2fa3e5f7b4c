"""The whole head of a captured face: hm08's skin from the crown to the neck's foot, eyes, teeth, tongue and lashes.

The position map has drawn the face on hm08, and the fit has told the person's identity and expression in hm08's own
basis; so the head is that basis on all of hm08's vertices (head_topology.py), plus what the map knows beyond it. The map's word (half of the
fit's low-passed residual) counts where the map sees: `trust`, 1 in the face, falling to 0 over the 22 mm inside the face's rim, little
on ears and under hair. From there it is carried on over the rest of the skin as the smoothest field that fades within 45 mm
(a screened bi-Laplacian on the mean head, solved in `training/head_kit.py` and shipped as a product of two matrices), so
that neither the surface nor its normals have a seam at the face's rim. numpy only.

Head frame as everywhere: metres, x to the viewer's right, y down, z away, origin midway between the eyeballs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .arkit import ARKIT_NAMES
from .capture import FaceCapture
from .errors import CaptureError
from .eyeball import LOOK, eyeball, turned
from .head_topology import HeadTopology, load_head_topology

# A residual where the expression moves the face may be the expression's own error: it is off by this share of its movement, while
# a person at rest differs from the shape space by about SPREAD metres.
EXPRESSION_ERROR, SPREAD = 2.0, 0.0015
# How far the map is believed beyond the shape space. On rendered people less would be nearer to the truth, and two photographs of one
# person would agree better; more keeps the head nearer to what the photograph shows.
BELIEVED = 0.5
TURNED = 55.0           # degrees of yaw beyond which a face shows one side only
AXIS = 0.07             # metres from the eyes back to the head's upright axis
SHOWN = -0.1, 0.4       # cosines to the camera from which a place is seen a little, and well
STEEP = 40.0            # degrees of pitch beyond which the head's proportions are guessed
HIDDEN_SIDE = 0.3       # of what makes the two sides differ so much stays where no photo tells
ACTIVE = 0.03           # weight from which a shape of the photo's expression counts


@dataclass(frozen=True)
class Head:
    """One person's head. Vertices are those of `HeadTopology`, head frame, metres, in the size of `FaceCapture.head_map`.

    vertices = neutral + sum of weights[k] * shapes[k]: the head as the photo shows it.
    """

    vertices: np.ndarray            # (V, 3) float32, as in the photo
    neutral: np.ndarray             # (V, 3) float32, the face at rest
    shapes: np.ndarray              # (52, V, 3) float32, the ARKit shapes of this person at weight 1
    weights: np.ndarray             # (52,) float32 0..1, the photo's expression
    identity: np.ndarray            # (120,) float32, standard deviations
    eyes: list[tuple[np.ndarray, float]]    # centre (3,) and radius of the eyeballs at rest, the viewer's left one first

    def without_lashes(self) -> Head:
        """The same head with V = `HeadTopology.bare` vertices."""
        bare = load_head_topology().bare
        return replace(self, vertices=self.vertices[:bare], neutral=self.neutral[:bare], shapes=self.shapes[:, :bare])


def doubt(capture: FaceCapture) -> str | None:
    """What of a head its photo cannot tell, in a sentence, or None if it shows enough."""
    if abs(capture.yaw) > TURNED:
        return (f"The face is turned by {abs(capture.yaw):.0f}°: the far side of the head is the mirror image of the near side, and "
                f"its width a guess; a photo from the front is more exact.")
    if abs(capture.pitch) > STEEP:
        return (f"The face looks {'up' if capture.pitch > 0 else 'down'} by {abs(capture.pitch):.0f}°: the height of the head is a "
                f"guess; a photo from the front is more exact.")
    return None


def build_head(capture: FaceCapture) -> Head:
    """The head of a captured face. Raises CaptureError if the weights in use have another topology than hm08."""
    capture.topology.require_hm08("The head")
    if capture.fit is None:
        raise CaptureError("The head needs a fitted face: capture the photo again.")
    fit = capture.fit
    return head_of(fit.identity, fit.expression, fit.residual, capture.metric, capture.yaw)


def head_of(identity: np.ndarray, weights: np.ndarray, residual: np.ndarray, metric: float = 1.0,
            yaw: float = 0.0) -> Head:
    """The head of an identity (120,) in standard deviations and ARKit weights (52,), in the fit's terms.

    residual (64, 64, 3): what the map shows beyond them, metres (`FaceFit.residual`). metric: the size (`FaceCapture.metric`).
    yaw: how far the face was turned, degrees (`FaceCapture.yaw`).
    """
    topology = load_head_topology()
    identity, weights = identity.astype(np.float32), weights.astype(np.float32).copy()
    beyond = topology.carried(BELIEVED * residual)
    active, shares = expression_shares(topology, weights, beyond[:topology.skin])
    offsets = np.tensordot(identity, topology.identity, 1) + beyond
    offsets[:topology.skin] -= np.tensordot(weights[active], shares, 1)
    topology.calm_ears(offsets)
    rows = evened(topology, topology.mean + offsets, yaw)
    movement = np.tensordot(weights[active], topology.expression[active, :topology.skin] + shares, 1)
    rows[:topology.skin] = topology.folds.taken_out(rows[:topology.skin], movement)
    neutral, shapes, eyes, closing = adapted(topology, rows * np.float32(metric), active, shares, metric)
    for number, factor in closing.items():
        weights[number] = min(1.0, weights[number] * factor)
    return Head(neutral + np.tensordot(weights, shapes, 1), neutral, shapes, weights, identity, eyes)


def adapted(topology: HeadTopology, rows: np.ndarray, numbers: np.ndarray, own: np.ndarray,
            metric: float) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, float]], dict[int, float]]:
    """Neutral (V, 3), ARKit shapes (52, V, 3), eyes, and what a person's blinks need their weights multiplied by.

    rows (H, 3): the person's hm08 rows at rest, metres. numbers (A,), own (A, skin, 3): what shapes of this person have beyond the
    shape space's, in the space's size; metric: how much larger the person is.
    """
    neutral = topology.mean_vertices * np.float32(metric) + topology.movements(rows - topology.mean * np.float32(metric))
    eyes = []
    for lids, part, (centre, radius) in zip(topology.lids, topology.eye_vertices, topology.eyes(rows)):
        centre = lids.seat(neutral, centre, radius)
        neutral[part] = centre + radius * eyeball().vertices
        pushed = np.zeros((topology.skin, 3), np.float32)
        pushed[lids.around] = lids.push(neutral[lids.around], centre, radius)
        neutral[:topology.skin] += pushed
        neutral[topology.lashes] += topology.hung(pushed)
        eyes.append((centre, radius))
    # A lid's corner may fold when it is pushed.
    smoothed = topology.folds.taken_out(neutral[:topology.skin] / np.float32(metric)) * np.float32(metric)
    neutral[topology.lashes] += topology.hung(smoothed - neutral[:topology.skin])
    neutral[:topology.skin] = smoothed
    shapes = topology.movement_of_expression * np.float32(metric)
    own = own * np.float32(metric)
    shapes[numbers, :topology.skin] += own
    shapes[numbers, topology.lashes] += topology.hung(own)
    closing = {lids.number: lids.close(neutral, shapes[lids.number], *eye) for lids, eye in zip(topology.lids, eyes)}
    for lids, eye in zip(topology.lids, eyes):
        lids.clear(neutral, shapes, *eye)
        changed = [lids.number, *lids.others]
        shapes[changed, topology.lashes] = topology.hung(shapes[changed])
    for part, (_, radius), side in zip(topology.eye_vertices, eyes, ("Right", "Left")):
        for way, degrees in LOOK.items():
            # The viewer's left eye is the person's right one, and looks in to the viewer's right.
            right = {"In": degrees, "Out": -degrees}.get(way, 0.0) * (1 if side == "Right" else -1)
            up = {"Up": degrees, "Down": -degrees}.get(way, 0.0)
            rest = eyeball().vertices
            shapes[ARKIT_NAMES.index(f"eyeLook{way}{side}"), part] = radius * (turned(rest, right, up) - rest)
    return neutral, shapes, eyes, closing


def evened(topology: HeadTopology, rows: np.ndarray, yaw: float) -> np.ndarray:
    """hm08 rows (H, 3) whose two sides agree as far as the photo cannot tell them apart.

    What the camera did not see is the mirror image of what it saw, more and more the further the face is turned away; the skull and the
    neck, which no photo shows, are even for the most part always.
    """
    # Which way a place looks, by where it is round the head's upright axis; positive yaw shows the camera the side at positive x.
    x, z = topology.mean[:, 0], topology.mean[:, 2]
    around = np.arctan2(x, AXIS - z)
    shown = np.clip((np.cos(around - np.deg2rad(yaw)) - SHOWN[0]) / (SHOWN[1] - SHOWN[0]), 0, 1)
    shown = (shown * shown * (3 - 2 * shown))[:, None]
    other = shown[topology.mirror]
    seen = (shown + 1e-3) / (shown + other + 2e-3)
    mirrored = rows[topology.mirror] * np.float32([-1, 1, 1])
    own = np.full((len(rows), 1), HIDDEN_SIDE, np.float32)
    own[:topology.skin, 0] += (1 - HIDDEN_SIDE) * topology.trust
    own *= 1 - np.abs(shown - other) * (1 - HIDDEN_SIDE)
    return (own * rows + (1 - own) * (seen * rows + (1 - seen) * mirrored)).astype(np.float32)


def expression_shares(topology: HeadTopology, weights: np.ndarray, beyond: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of the residual (skin, 3) is said to be the active ARKit shapes' own: their numbers (A,), and (A, skin, 3) at weight 1.

    Where the photo's expression moves the face much, what the map shows beyond it is more likely the expression's
    peculiarity than the person at rest. Each shape's part is in proportion to its share of the movement.
    """
    active = np.flatnonzero(weights > ACTIVE)
    squares = topology.squared_movement[active]
    energy = (weights[active, None] ** 2 * squares).sum(0)
    # No shape may be given more than the whole of it: a weak one would carry it on to many times as much at weight 1.
    shares = EXPRESSION_ERROR ** 2 * weights[active, None] * squares / (SPREAD ** 2 + EXPRESSION_ERROR ** 2 * energy)
    return active, np.minimum(shares, 1)[..., None] * beyond
