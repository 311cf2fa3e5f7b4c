"""The preview: a row a face, each panel showing what it is for."""

import cv2
import numpy as np

from exact_face import exact_face, skin_texture
from prn_blender.prn.preview import PANEL, preview_row, write_preview


def test_panels_show_photo_mesh_texture_and_clay():
    row = preview_row(exact_face(20), skin_texture())
    assert row.shape == (PANEL, 7 * PANEL, 3) and row.dtype == np.uint8
    photo, over, front, left, right, clay, _ = np.split(row.astype(int), 7, axis=1)
    middle = np.s_[PANEL // 2 - 40:PANEL // 2 + 40, PANEL // 2 - 40:PANEL // 2 + 40]
    assert np.abs(photo - over)[middle].mean() > 20  # the mesh is drawn over the photo
    assert np.abs(photo - over)[:10, :10].max() == 0  # and nothing where there is no mesh
    assert (front[middle][..., 0] - front[middle][..., 2]).mean() > 40  # skin
    assert np.ptp(clay[middle], axis=-1).mean() < 12  # grey
    mirrored = np.abs(left - right[:, ::-1])[middle].mean()
    assert mirrored < 6 < np.abs(left - right)[middle].mean()  # turned by the same angle, both ways


def test_a_row_a_face_and_nothing_half_written(tmp_path):
    path = tmp_path / "look.png"
    write_preview(path, [exact_face(0), exact_face(40)], [skin_texture()] * 2)
    assert cv2.imread(str(path)).shape == (2 * PANEL, 7 * PANEL, 3)
    assert list(tmp_path.iterdir()) == [path]
