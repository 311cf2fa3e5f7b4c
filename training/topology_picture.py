"""Draws `docs/topology.png`: the mean face in clay, its quads in UV, the landmarks and the weight mask of the loss.

`python -m training.topology_picture`
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.position_map import SIZE, Topology, load_topology
from prn_blender.prn.render import Picture

PANEL = 512
TARGET = Path(__file__).parent.parent / "docs/topology.png"


def turned_clay(topology: Topology, yaw: float) -> np.ndarray:
    """The mean face (PANEL, PANEL, 3) uint8, the finest grid, turned about the vertical."""
    grid = topology.grid(1)
    turn = cv2.Rodrigues(np.radians([0.0, yaw, 0.0]))[0]
    points = grid.sample(topology.mean) @ turn.T
    middle = (points.min(0) + points.max(0)) / 2
    placed = (points - middle) * PANEL / 0.25 + [PANEL / 2, PANEL / 2, 0]
    picture = Picture(placed.astype(np.float32), grid.quads, PANEL, PANEL)
    return picture.clay(np.full((PANEL, PANEL, 3), 40, np.uint8))


def layout(topology: Topology) -> np.ndarray:
    """hm08's quads where they lie in UV, and the position map's own texels at every eighth."""
    panel = np.full((PANEL, PANEL, 3), 255, np.uint8)
    panel[cv2.resize(topology.mask.astype(np.uint8), (PANEL, PANEL), interpolation=cv2.INTER_NEAREST) == 0] = 205
    grid = topology.loops()
    corners = (grid.texel_coordinates + 0.5) * PANEL / SIZE
    for quad in grid.quads:
        cv2.polylines(panel, [np.round(corners[quad] * 16).astype(np.int32)], True, (70, 70, 70), 1, cv2.LINE_AA, 4)
    return panel


def landmarks(topology: Topology) -> np.ndarray:
    """The mean position map as colours with the 68 landmarks."""
    low, high = topology.mean[topology.mask].min(0), topology.mean[topology.mask].max(0)
    colours = np.clip((topology.mean - low) / (high - low), 0, 1) * 200 + 20
    colours[~topology.mask] = 40
    panel = cv2.resize(colours.astype(np.uint8), (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)
    for number, place in enumerate((topology.landmarks + 0.5) * PANEL / SIZE):
        x, y = np.round(place).astype(int)
        cv2.circle(panel, (int(x), int(y)), 3, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.putText(panel, str(number), (int(x) + 4, int(y) - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (255, 255, 255), 1, cv2.LINE_AA)
    return panel


def weights(topology: Topology) -> np.ndarray:
    """The loss's weights: neck 0, face 3, features 4, landmarks 16."""
    shades = {0.0: 60, 3.0: 120, 4.0: 185, 16.0: 255}
    panel = np.zeros((SIZE, SIZE), np.uint8)
    for value, tone in shades.items():
        panel[(topology.weights == value) & topology.mask] = tone
    return cv2.resize(np.repeat(panel[..., None], 3, 2), (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)


def main() -> None:
    topology = load_topology()
    upper = [turned_clay(topology, 0), turned_clay(topology, -45), turned_clay(topology, -85)]
    lower = [layout(topology), landmarks(topology), weights(topology)]
    sheet = np.concatenate([np.concatenate(upper, 1), np.concatenate(lower, 1)])
    TARGET.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(TARGET), sheet[..., ::-1])


if __name__ == "__main__":
    main()
