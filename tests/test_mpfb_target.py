"""Likeness and expression as MakeHuman targets: read back by the format's own rules, and put onto the body they are for."""

from pathlib import Path

import numpy as np
import pytest

from prn_blender.prn import capture_image, write_outputs
from prn_blender.prn.face_fit import similarity
from prn_blender.prn.head import build_head
from prn_blender.prn.head_topology import load_head_topology
from prn_blender.prn.mpfb_target import AXES, BODIES, VERTICES, likeness, load_body, target_offsets

ASTRONAUT = Path(__file__).parent / "data" / "astronaut.jpg"


@pytest.fixture(scope="module")
def face():
    return capture_image(ASTRONAUT)[0]


@pytest.fixture(scope="module")
def head(face):
    return likeness(face)


def read(path):
    """As MPFB's reader has it: '#' and '"' begin comments, four fields a line with one blank between, indices from 0."""
    offsets = np.zeros((VERTICES, 3))
    seen = set()
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if not line or line[0] in '#"':
            continue
        vertex, x, y, z = line.split(" ")
        assert int(vertex) not in seen
        seen.add(int(vertex))
        offsets[int(vertex)] = float(x), float(y), float(z)
    return offsets


def test_files_say_what_was_computed(face, head, tmp_path):
    written = {path.name for path in write_outputs(tmp_path / "face.blend", face, ["mpfb-target"])}
    assert written == {"face_likeness.target", "face_likeness_woman.target", "face_likeness_man.target", "face_expression.target"}
    at_rest, expression = target_offsets(*head)
    assert np.abs(read(tmp_path / "face_likeness.target") - at_rest).max() < 1.1e-4
    assert np.abs(read(tmp_path / "face_expression.target") - expression).max() < 1.1e-4
    assert np.abs(read(tmp_path / "face_likeness_man.target") - target_offsets(*head, "man")[0]).max() < 1.1e-4
    assert np.abs(expression).max() > 0.02  # she smiles


@pytest.mark.parametrize("body", BODIES)
def test_body_gets_the_persons_head(head, body):
    table = load_body()
    at_rest, expression = target_offsets(*head, body)
    put = table.shapes[body] + at_rest[table.head]
    scale, rotation, translation = similarity(head[0] * AXES, put, np.ones(len(put)))
    assert np.abs(scale * (head[0] * AXES) @ rotation.T + translation - put).max() < 1e-6
    smiling = put + expression[table.head]
    if body == "base":
        assert np.abs(scale * (head[1] * AXES) @ rotation.T + translation - smiling).max() < 1e-6
    assert 8 < scale < 12  # as large as the body's own head: about ten decimetres a metre


def test_only_head_and_neck_move_and_nothing_tears(head):
    table = load_body()
    at_rest, _ = target_offsets(*head)
    still = np.setdiff1d(np.arange(VERTICES), np.concatenate([table.head, table.neck]))
    assert not at_rest[still].any()
    # The neck lets go gradually: from the head's last rows downwards the displacements only shrink to nothing.
    size = np.linalg.norm(at_rest, axis=1)
    rows = size[table.head[table.last_rows]]
    assert size[table.neck].max() < 1.3 * rows.max() and np.median(size[table.neck]) < 0.6 * np.median(rows)


def test_eyeballs_go_where_the_head_has_them(face, head):
    table, topology = load_body(), load_head_topology()
    put = table.shapes["base"] + target_offsets(*head)[0][table.head]
    place = np.zeros(VERTICES, int)
    place[table.head] = np.arange(len(table.head))
    scale, rotation, translation = similarity(head[0] * AXES, put, np.ones(len(put)))
    for (centre, radius), (wanted, size) in zip(topology.eyes(put[place[topology.hm08_vertices]]), build_head(face).eyes):
        assert np.linalg.norm(scale * (wanted * AXES) @ rotation.T + translation - centre) < 0.02
        assert radius == pytest.approx(scale * size, rel=0.05)
