"""Pictures of whole heads without Blender: what is in front is drawn, with its own texture."""

from pathlib import Path

import cv2
import numpy as np

from exact_face import exact_face
from prn_blender.prn.eye_texture import eye_texture
from prn_blender.prn.head_topology import load_head_topology
from prn_blender.prn.head_preview import VIEWS, head_pictures, head_row, write_head_preview
from prn_blender.prn.preview import PANEL


def test_a_head_has_skin_and_eyes_from_the_front_and_no_eyes_from_behind():
    topology = load_head_topology()
    skin = np.full((64, 64, 3), (200, 60, 60), np.uint8)
    eyes = eye_texture((40, 90, 200))
    textured, clay = head_pictures(topology.mean_vertices, skin, eyes, 0.9, 0, 120, 150)
    assert textured.shape == clay.shape == (150, 120, 3)
    covered = clay.std(-1) + np.abs(clay.astype(int) - 52).max(-1) > 8
    assert 0.25 < covered.mean() < 0.7
    mirrored = covered[:, ::-1]
    assert (covered != mirrored).mean() < 0.02                      # the mean head, seen from the front
    bluish = (textured[..., 2].astype(int) > textured[..., 0] + 10) & covered
    assert 4 < bluish.sum() < 200                                   # two irises
    behind, _ = head_pictures(topology.mean_vertices, skin, eyes, 0.9, 180, 120, 150)
    assert not (behind[..., 2].astype(int) > behind[..., 0] + 10).any()
    assert (behind[..., 0].astype(int) > behind[..., 2] + 60).mean() > 0.2


def test_the_preview_shows_photo_mesh_and_the_head_from_three_sides():
    skin = np.full((256, 256, 3), (200, 60, 60), np.uint8)
    row = head_row(exact_face(20), skin)
    assert row.shape == (PANEL, (2 + 2 * len(VIEWS)) * PANEL, 3) and row.dtype == np.uint8
    photo, over, front, turned, profile, *clay = np.split(row.astype(int), 2 + 2 * len(VIEWS), axis=1)
    assert (np.abs(photo - over).max(-1) > 20).mean() > 0.03        # wires
    covered = [np.abs(view - row[0, -1]).max(-1) > 12 for view in (front, turned, profile)]
    widths = [np.ptp(np.flatnonzero(shown[:PANEL // 2].any(0))) for shown in covered]
    assert widths[2] > 1.08 * widths[0]                             # a head is deeper than wide
    red = [(view[..., 0] - view[..., 2] > 60).mean() for view in (front, turned, profile, *clay)]
    assert min(red[:3]) > 0.2 and max(red[3:]) == 0
    bare = np.split(head_row(exact_face(20), skin, lashes=False).astype(int), 2 + 2 * len(VIEWS), axis=1)
    assert 20 < (np.abs(front - bare[2]).max(-1) > 10).sum() < 3000 and np.array_equal(over, bare[1])


def test_a_row_a_head_and_nothing_half_written(tmp_path: Path):
    path, skin = tmp_path / "look.png", np.full((256, 256, 3), (200, 60, 60), np.uint8)
    write_head_preview(path, [exact_face(0), exact_face(40)], [skin] * 2, lashes=False)
    assert cv2.imread(str(path)).shape == (2 * PANEL, 8 * PANEL, 3) and list(tmp_path.iterdir()) == [path]
