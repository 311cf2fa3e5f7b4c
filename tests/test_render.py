"""The rasteriser: exact depths, nothing behind shows, no cracks, and fast enough for every capture."""

import time

import numpy as np
import pytest

from prn_blender.prn.position_map import load_topology
from prn_blender.prn.render import Picture, depth_buffer, triangulate, vertex_normals


def slope(size: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A grid of vertices at places x places, z = 2 x + y, and its quads, wound to face the camera."""
    x, y = np.meshgrid(places, places)
    vertices = np.stack([x, y, 2 * x + y], -1).reshape(-1, 3)
    index = np.arange(len(places) ** 2).reshape(len(places), -1)
    quads = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1).reshape(-1, 4)
    return vertices, quads


def test_depth_is_the_surfaces():
    vertices, quads = slope(64, np.linspace(9.7, 50.2, 23))
    depth = depth_buffer(vertices, quads, 64, 64)
    rows, columns = np.nonzero(np.isfinite(depth))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 50, 10, 50)
    assert len(rows) == 41 * 41  # no cracks between the triangles
    np.testing.assert_allclose(depth[rows, columns], 2 * columns + rows, atol=0.02)


def test_the_nearer_surface_wins():
    vertices, quads = slope(64, np.array([10.0, 50.0]))
    nearer = vertices * (1, 1, 0) + (20, 0, -7)
    depth = depth_buffer(np.concatenate([vertices, nearer]), np.concatenate([quads, quads + len(vertices)]), 64, 64)
    assert depth[30, 40] == -7 and depth[30, 60] == -7
    assert depth[30, 20] == pytest.approx(70, abs=0.01)


def test_what_lies_outside_the_buffer_is_left_out():
    vertices, quads = slope(64, np.array([-1000.0, 1000.0]))
    assert np.isfinite(depth_buffer(vertices, quads, 20, 10)).all()
    assert not np.isfinite(depth_buffer(vertices + (5000, 0, 0), quads, 20, 10)).any()


def test_normals_point_out_of_the_face():
    topology = load_topology()
    grid = topology.grid(2)
    normals = vertex_normals(grid.sample(topology.mean), grid.quads)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    nose = np.argmin(grid.sample(topology.mean)[:, 2])
    assert normals[nose, 2] < -0.8


def test_texture_comes_out_where_it_was_put_and_back_sides_do_not_show():
    vertices, quads = slope(64, np.linspace(8, 56, 9))
    uvs = np.stack([(vertices[:, 0] - 8) / 48, 1 - (vertices[:, 1] - 8) / 48], 1)
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:, :32] = 255, 0, 0
    backdrop = np.full((64, 64, 3), 9, np.uint8)
    picture = Picture(vertices, quads, 64, 64).textured(backdrop, uvs, texture)
    assert tuple(picture[32, 20]) == (255, 0, 0) and tuple(picture[32, 45]) == (0, 0, 0) and tuple(picture[2, 2]) == (9, 9, 9)
    assert (Picture(vertices, quads[:, ::-1], 64, 64).textured(backdrop, uvs, texture) == 9).all()


def test_a_face_is_fast():
    topology = load_topology()
    grid = topology.grid(2)
    vertices = grid.sample(topology.mean) * 1000 + (128, 100, 0)
    triangulate(grid.quads)
    seconds = []
    for _ in range(5):
        started = time.process_time()
        depth_buffer(vertices, grid.quads, 256, 256)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.12  # 0.03 alone on the machine
