"""The surfaces in eyes and mouth: three of them, on the rim, and behind lids and lips."""

import cv2
import numpy as np

from prn_blender.prn.openings import close_openings, opening_grid, opening_texels, opening_vertices
from prn_blender.prn.position_map import load_topology


def test_two_eyes_and_a_mouth():
    topology = load_topology()
    count, _ = cv2.connectedComponents(opening_texels(topology).astype(np.uint8))
    assert count - 1 == 3
    assert not (opening_texels(topology) & topology.mask).any()


def test_the_film_spans_the_rim_and_leaves_the_face_alone():
    topology = load_topology()
    spoiled = topology.mean.copy()
    spoiled[opening_texels(topology)] = 9.0  # what a network says there does not matter
    closed = close_openings(spoiled, topology)
    np.testing.assert_array_equal(closed[topology.mask], topology.mean[topology.mask])
    around = cv2.blur(closed, (3, 3))[opening_texels(topology)]
    assert np.abs(closed[opening_texels(topology)] - around).max() < 0.001  # smooth, and nothing of the 9.0


def test_mesh_faces_the_viewer():
    topology = load_topology()
    vertices, quads = opening_vertices(topology.mean, topology), opening_grid(topology).quads
    corners = vertices[quads]
    normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    middle = opening_grid(topology).sample(opening_texels(topology)[..., None].astype(np.float32))[quads, 0].all(1)
    assert (normals[middle, 2] < 0).mean() > 0.9
