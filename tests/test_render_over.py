"""An edited texture back over the photo: only the edit, only where the camera sees it, and behind what hides the face."""

import cv2
import numpy as np
import pytest

from exact_face import NEAR, exact_face, skin_texture
from prn_blender.prn.openings import opening_grid, opening_vertices
from prn_blender.prn.render import triangulate
from prn_blender.prn.retexture import render_over
from prn_blender.scene.export import export
from prn_blender.scene.face import build_face
from prn_blender.scene.stage import new_stage
from prn_blender.scene.read_back import read_faces
from prn_blender import command_line

SIZE = 1024


def textures() -> tuple[np.ndarray, np.ndarray]:
    """The capture's texture, and the same with one blue cheek at each side and a green nose."""
    original = skin_texture(SIZE)
    edited = original.copy()
    for centre in (0.22, 0.78):
        cv2.circle(edited, (round(centre * SIZE), round(0.6 * SIZE)), SIZE // 12, (20, 40, 220), -1)
    cv2.circle(edited, (SIZE // 2, round(0.55 * SIZE)), SIZE // 24, (20, 200, 60), -1)
    return original, edited


def mesh_of(face) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The capture's vertices over its photo, triangles and UVs, eyes and mouth included."""
    grid, openings = face.topology.grid(1), opening_grid(face.topology)
    film = face.seen(opening_vertices(face.head_map, face.topology))
    quads = np.concatenate([grid.quads, openings.quads + len(grid.uvs)])
    return np.concatenate([grid.sample(face.position_map), film]), triangulate(quads), np.concatenate([grid.uvs, openings.uvs])


def blue(picture: np.ndarray) -> np.ndarray:
    picture = picture.astype(int)
    return (picture[..., 2] > picture[..., 0] + 80) & (picture[..., 2] > picture[..., 1] + 80)


@pytest.fixture(scope="module")
def original():
    return textures()[0]


def test_nothing_changed_changes_nothing(original):
    face = exact_face(30, texture=original)
    np.testing.assert_array_equal(render_over(face.image, *mesh_of(face), original, original), face.image)


def test_an_edit_is_seen_where_a_picture_drawn_with_it_has_it(original):
    edited = textures()[1]
    face, truth = exact_face(-20, 5, 8, texture=original), exact_face(-20, 5, 8, texture=edited)
    result = render_over(face.image, *mesh_of(face), edited, original)
    changed = (truth.image.astype(int) != face.image).any(-1)
    assert np.abs(result.astype(int) - truth.image)[changed].mean() < 4
    np.testing.assert_array_equal(result[~cv2.dilate(changed.astype(np.uint8), np.ones((7, 7))).astype(bool)],
                                  face.image[~cv2.dilate(changed.astype(np.uint8), np.ones((7, 7))).astype(bool)])


def test_the_far_cheek_stays_hidden(original):
    """Turned away by 60 degrees, only one of the two blue cheeks can be seen."""
    edited = textures()[1]
    front, side = exact_face(0, texture=original), exact_face(60, texture=original)
    both = blue(render_over(front.image, *mesh_of(front), edited, original))
    one = blue(render_over(side.image, *mesh_of(side), edited, original))
    assert cv2.connectedComponentsWithStats(both.astype(np.uint8))[0] - 1 == 2
    counts = cv2.connectedComponentsWithStats(one.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    assert counts.max() > 200 and counts.sum() - counts.max() < 0.1 * counts.max()


def test_hair_and_hands_stay_in_front(original):
    edited = textures()[1]
    face = exact_face(0, texture=original)
    places = np.argwhere(blue(render_over(face.image, *mesh_of(face), edited, original)))
    row, column = places[places[:, 1] < np.median(places[:, 1])].mean(0).astype(int)     # the middle of one cheek
    photo = face.image.copy()
    cv2.line(photo, (column - 30, row), (column + 30, row), (40, 25, 15), 12)
    result = render_over(photo, *mesh_of(face), edited, original)
    np.testing.assert_array_equal(result[row, column - 6:column + 7], photo[row, column - 6:column + 7])
    assert blue(result)[row - 12, column] and blue(result)[row + 12, column]
    assert blue(render_over(photo, *mesh_of(face), edited, original, in_front=False))[row, column]


def test_the_whole_texture_covers_the_face(original):
    face = exact_face(10, texture=original)
    other = np.full((256, 256, 3), (90, 140, 60), np.uint8)
    result = render_over(face.image, *mesh_of(face), other, original, whole=True)
    green = (np.abs(result.astype(int) - (90, 140, 60)) < 4).all(-1)
    assert green.mean() > 0.9 * (face.image != face.image[0, 0]).any(-1).mean()


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory):
    """A capture's .blend file, its photo and an edited texture."""
    folder = tmp_path_factory.mktemp("capture")
    face = exact_face(25, 8, -10, texture=original)
    built = build_face(face, original, new_stage())
    export(folder / "face.blend", [built.mesh])
    cv2.imwrite(str(folder / "photo.png"), face.image[..., ::-1])
    cv2.imwrite(str(folder / "edited.png"), textures()[1][..., ::-1])
    return folder, face


def test_the_file_gives_the_mesh_back_over_the_photo(saved, original):
    folder, face = saved
    meshes, aspect = read_faces(folder / "face.blend")
    height, width = face.image.shape[:2]
    assert aspect == pytest.approx(height / width) and len(meshes) == 2
    found = max(meshes, key=lambda mesh: len(mesh.vertices))
    truth = face.topology.grid(1).sample(face.position_map)
    uvs = face.topology.grid(1).uvs
    placed = found.vertices * width - (0.5, 0.5, 0)
    order = {tuple(key): place for key, place in zip(np.rint(uvs * 1e5).astype(int).tolist(), truth)}
    wanted = np.array([order[tuple(key)] for key in np.rint(found.uvs * 1e5).astype(int).tolist()])
    assert np.abs(placed[:, :2] - wanted[:, :2]).max() < 0.02
    depth = placed[:, 2] - wanted[:, 2]
    assert np.ptp(depth) < 0.05
    np.testing.assert_array_equal(found.texture, original)


def test_a_file_with_a_lens_gives_the_mesh_back_over_the_photo(original, tmp_path):
    face = exact_face(25, 8, -10, texture=original, lens=NEAR)
    built = build_face(face, original, new_stage())
    export(tmp_path / "face.blend", [built.mesh])
    meshes, _ = read_faces(tmp_path / "face.blend")
    found = max(meshes, key=lambda mesh: len(mesh.vertices))
    grid, width = face.topology.grid(1), face.image.shape[1]
    order = {tuple(key): place for key, place in zip(np.rint(grid.uvs * 1e5).astype(int).tolist(), grid.sample(face.position_map))}
    wanted = np.array([order[tuple(key)] for key in np.rint(found.uvs * 1e5).astype(int).tolist()])
    placed = found.vertices * width - (0.5, 0.5, 0)
    assert np.abs(placed[:, :2] - wanted[:, :2]).max() < 0.02
    # What hides what is the same: depths grow with each other.
    order = np.argsort(wanted[:, 2])
    assert (np.diff(placed[order, 2]) > -0.02).all() and np.ptp(placed[:, 2]) > 100
    edited = render_over(face.image, placed, found.triangles, found.uvs, textures()[1], original)
    drawn = exact_face(25, 8, -10, texture=textures()[1], lens=NEAR).image
    assert blue(edited).sum() > 0.9 * blue(drawn).sum() > 0


def test_the_command(saved, tmp_path, capsys):
    folder, face = saved
    arguments = ["render-over", str(folder / "photo.png"), str(folder / "face.blend"), str(folder / "edited.png")]
    assert command_line.main([*arguments, "-o", str(tmp_path / "over.png")]) == 0
    output = capsys.readouterr()
    assert "% of the photo changed" in output.out and output.out.count("\n") == 1
    result = cv2.imread(str(tmp_path / "over.png"))[..., ::-1]
    truth = exact_face(25, 8, -10, texture=textures()[1]).image
    assert np.abs(result.astype(int) - truth).mean() < 1 and blue(result).sum() > 200
    # The photo in another size than it was captured in.
    half = cv2.resize(face.image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "half.png"), half[..., ::-1])
    arguments[1] = str(tmp_path / "half.png")
    assert command_line.main([*arguments, "-o", str(tmp_path / "small.png")]) == 0
    small = cv2.imread(str(tmp_path / "small.png"))[..., ::-1]
    assert small.shape == half.shape and blue(small).sum() == pytest.approx(blue(result).sum() / 4, rel=0.15)


@pytest.mark.parametrize("change, says", [
    ({1: "nowhere.png"}, "'nowhere.png' does not exist"),
    ({1: "wide.png"}, "is not the photo that"),
    ({2: "nowhere.blend"}, "'nowhere.blend' is not a .blend file"),
    ({2: "broken.blend"}, "cannot be opened in Blender"),
    ({2: "empty.blend"}, "has no camera with a photo behind it"),
    ({3: "wide.png"}, "a face's texture is square"),
    ({5: "over.jpg"}, "has an ending that is not known"),
    ({5: "nowhere/over.png"}, "The folder 'nowhere' does not exist"),
])
def test_a_wrong_request_gets_one_sentence(saved, tmp_path, monkeypatch, capsys, change, says):
    import bpy
    folder, _ = saved
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("wide.png", np.zeros((60, 400, 3), np.uint8))
    (tmp_path / "broken.blend").write_text("this is no blend file")
    new_stage()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "empty.blend"), copy=True)
    before = sorted(tmp_path.iterdir())
    arguments = ["render-over", *(str(folder / name) for name in ("photo.png", "face.blend", "edited.png")), "-o", "over.png"]
    for place, value in change.items():
        arguments[place] = value
    capsys.readouterr()
    assert command_line.main(arguments) == 2
    output = capsys.readouterr()
    assert says in output.err and output.err.count("\n") == 1 and not output.out
    assert sorted(tmp_path.iterdir()) == before
