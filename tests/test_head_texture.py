"""The head's texture in hm08's UV layout: the photo where it shows, the person's skin everywhere else, no seam at any border."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from exact_face import exact_face, skin_texture
from prn_blender.prn import CaptureError, capture_image
from prn_blender.prn.head_topology import PARTS, load_head_topology
from prn_blender.prn.head_texture import load_layout, make_head_texture
from prn_blender.prn.position_map import Topology, sample

ASTRONAUT = Path(__file__).parent / "data" / "astronaut.jpg"
SIZE = 2048


@pytest.fixture(scope="module")
def texture():
    return make_head_texture(capture_image(ASTRONAUT)[0], SIZE)


def at(texture, uv):
    """The texture's colours (N, 3) at UVs (N, 2), v up, over a few texels, which takes half of the grain away."""
    smooth = cv2.GaussianBlur(texture.astype(np.float32), (0, 0), 0.6)
    return sample(smooth, (uv * (1, -1) + (0, 1)) * len(texture) - 0.5)


def test_face_is_the_photos():
    """A face painted with dots: the head shows them where hm08's UVs say."""
    shape = make_head_texture(exact_face(texture=skin_texture()), 2048)
    layout = load_layout()
    inner = (layout.face > 0) & (cv2.erode(layout.face, np.ones((5, 5))) > 0)
    rows, columns = np.nonzero(inner)
    places = layout.places[rows, columns]
    front = (np.abs(places - 128) < 45).all(1)
    wanted = sample(cv2.resize(skin_texture(), (256, 256), interpolation=cv2.INTER_AREA).astype(np.float32), places[front])
    small = cv2.resize(shape, (1024, 1024), interpolation=cv2.INTER_AREA).astype(np.float32)
    seen = small[rows[front], columns[front]]
    assert np.corrcoef(seen.ravel(), wanted.ravel())[0, 1] > 0.95
    assert np.abs(seen - wanted).mean() < 6


def test_no_seam_where_islands_meet(texture):
    """A vertex with several UVs has one colour: at the back of the head and round the neck, and nearly so on lips and lids."""
    topology = load_head_topology()
    skin = np.isin(topology.part, [PARTS.index(name) for name in ("skin", "mouth", "sockets")])
    pairs = np.unique(np.stack([topology.quads[skin].ravel(), topology.corners[skin].ravel()], 1), axis=0)
    vertices, first, count = np.unique(pairs[:, 0], return_index=True, return_counts=True)
    vertices, first = vertices[count > 1], first[count > 1]
    one, other = (at(texture, topology.texture[pairs[first + k, 1]]) for k in (0, 1))
    difference = np.abs(one - other).max(1)
    behind = topology.mean[vertices, 2] > 0.02
    assert behind.sum() > 30 and (~behind).sum() > 50
    assert np.median(difference[behind]) < 4 and difference[behind].max() < 12
    assert np.median(difference[~behind]) < 15


def test_scalp_and_neck_have_the_persons_skin(texture):
    topology = load_head_topology()
    y, z = topology.mean[:topology.skin, 1], topology.mean[:topology.skin, 2]
    uv = np.zeros((topology.skin, 2))
    skin = topology.part == PARTS.index("skin")
    uv[topology.quads[skin].ravel()] = topology.texture[topology.corners[skin].ravel()]
    cheeks = (np.abs(y - 0.035) < 0.01) & (np.abs(np.abs(topology.mean[:topology.skin, 0]) - 0.04) < 0.01) & (z < 0.02)
    cheek = np.median(at(texture, uv[cheeks]), 0)
    for part in ((y < -0.06) & (z > 0.1), (y > 0.12) & (z > 0.05)):
        colours = at(texture, uv[part])
        assert np.abs(colours.mean(0) - cheek).max() < 30
        assert 0.2 < colours.std(0).mean() < 15          # skin, and not one flat colour


def test_every_size_shows_the_same(texture):
    face = capture_image(ASTRONAUT)[0]
    small = make_head_texture(face, 512)
    assert small.shape == (512, 512, 3)
    reduced = cv2.resize(texture, (512, 512), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - reduced).mean() < 4


def test_other_topologies_are_refused():
    face = exact_face()
    face.topology = Topology("other", face.topology.mask, face.topology.landmarks, face.topology.landmarks, np.zeros((68, 3)))
    with pytest.raises(CaptureError, match="head's texture"):
        make_head_texture(face)
