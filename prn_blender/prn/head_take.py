"""The whole head over a take: a performance's person and expressions on the topology `head`. numpy only, touches no file.

The identity, the neutral and the ARKit shapes are the take's own; the eyes turn by the eyeLook weights, teeth and tongue go
with the jaw. What a take knows beyond the ARKit shapes goes onto the skin.
"""

from __future__ import annotations

import numpy as np

from .face_fit import GRID, load_shape_space
from .head import adapted, evened
from .head_topology import load_head_topology
from .take import Performance, VertexFrames, resized


class HeadFrames(VertexFrames):
    """A performance's heads as a sequence of N arrays (V, 3) float32, head frame, metres, each computed when asked.

    V as in `HeadTopology`: `count`, or `bare` without lashes.
    """

    def __init__(self, performance: Performance, lashes: bool = True) -> None:
        self.performance = performance
        topology, space = load_head_topology(), load_shape_space()
        rows = topology.mean + np.tensordot(performance.identity, topology.identity, 1) + topology.carried(performance.residual)
        known = space.basis[space.identities:].reshape(-1, GRID, GRID, 3)
        own = np.stack([topology.over_skin(shape / np.float32(performance.metric) - base)
                        for shape, base in zip(performance.shapes, known)])
        # The take's shapes close the lids at weight 1 already, as the head's do.
        rows = evened(topology, rows, 0.0)
        rows[:topology.skin] = topology.folds.taken_out(rows[:topology.skin])
        self.neutral, self.shapes, _, _ = adapted(topology, rows * np.float32(performance.metric), np.arange(len(own)), own,
                                                  performance.metric)
        details = np.zeros((len(performance.detail_shapes), *self.neutral.shape), np.float32)
        for detail, shape in zip(details, performance.detail_shapes):
            detail[:topology.skin] = topology.over_skin(resized(shape, GRID))
            detail[topology.lashes] = topology.hung(detail)
        if not lashes:
            self.neutral, self.shapes, details = (points[..., :topology.bare, :] for points in (self.neutral, self.shapes, details))
        self._keep(np.concatenate([self.shapes, details]))

    def turned_to(self, axes: np.ndarray) -> HeadFrames:
        """Itself, in other axes: points are multiplied by axes.T, (3, 3)."""
        self.neutral, self.shapes = self.neutral @ axes.T, self.shapes @ axes.T
        self._keep(self._flat.reshape(-1, *self.neutral.shape) @ axes.T)
        return self
