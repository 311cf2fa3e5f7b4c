"""Pictures of whole heads without Blender: what is in front is drawn, with its own texture."""

import numpy as np

from prn_blender.prn.eye_texture import eye_texture
from prn_blender.prn.head import load_head_topology
from prn_blender.prn.head_preview import head_pictures


def test_a_head_has_skin_and_eyes_from_the_front_and_no_eyes_from_behind():
    topology = load_head_topology()
    skin = np.full((64, 64, 3), (200, 60, 60), np.uint8)
    eyes = eye_texture((40, 90, 200))
    textured, clay = head_pictures(topology.mean_vertices, skin, eyes, 0, 120, 150)
    assert textured.shape == clay.shape == (150, 120, 3)
    covered = clay.std(-1) + np.abs(clay.astype(int) - 52).max(-1) > 8
    assert 0.25 < covered.mean() < 0.7
    mirrored = covered[:, ::-1]
    assert (covered != mirrored).mean() < 0.02                      # the mean head, seen from the front
    bluish = (textured[..., 2].astype(int) > textured[..., 0] + 10) & covered
    assert 4 < bluish.sum() < 200                                   # two irises
    behind, _ = head_pictures(topology.mean_vertices, skin, eyes, 180, 120, 150)
    assert not (behind[..., 2].astype(int) > behind[..., 0] + 10).any()
    assert (behind[..., 0].astype(int) > behind[..., 2] + 60).mean() > 0.2
