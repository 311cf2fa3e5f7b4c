"""A face whose every number is known: the mean face, painted with a known texture and drawn into a photo of its own."""

import cv2
import numpy as np

from prn_blender.prn.capture import FaceCapture
from prn_blender.prn.crop import Crop
from prn_blender.prn.detector import FaceBox
from prn_blender.prn.face_fit import FaceFit
from prn_blender.prn.lens import Lens
from prn_blender.prn.openings import opening_grid, opening_vertices
from prn_blender.prn.position_map import load_topology
from prn_blender.prn.render import Picture, depth_buffer, vertex_normals

BACKGROUND = (20, 200, 40)  # a green that no skin has
WIDTH, HEIGHT = 640, 480
NEAR = Lens(525.0, ((WIDTH - 1) / 2, (HEIGHT - 1) / 2))     # from 35 cm, at the 1,500 pixels a metre below


def rotation_of(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Turned about the upright axis, then nodded, then tilted; degrees."""
    turned, _ = cv2.Rodrigues(np.array([0, np.radians(yaw), 0]))
    nodded, _ = cv2.Rodrigues(np.array([np.radians(pitch), 0, 0]))
    tilted, _ = cv2.Rodrigues(np.array([0, 0, np.radians(roll)]))
    return tilted @ nodded @ turned


def skin_texture(size: int = 512) -> np.ndarray:
    """A mirror-symmetric skin: one tone, slowly varying, with dots that show whether something has moved."""
    rows, columns = np.mgrid[:size, :size] / size
    waves = 12 * np.cos(2 * np.pi * 3 * (columns - 0.5)) + 8 * np.cos(2 * np.pi * 2 * rows)
    dots = -50.0 * ((np.abs((columns - 0.5) % 0.125 - 0.0625) < 0.006) & (np.abs(rows % 0.125 - 0.0625) < 0.006))
    return np.clip(np.array([205.0, 160, 135]) + (waves + dots)[..., None], 0, 255).astype(np.uint8)


def exact_face(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, *, pixels_per_metre: float = 1500.0,
               place: tuple[float, float] = (300.0, 200.0), texture: np.ndarray | None = None, lens: Lens | None = None) -> FaceCapture:
    """The capture of the mean face seen at these angles, through a lens; its photo is drawn from the same geometry."""
    topology = load_topology()
    rotation, translation = rotation_of(yaw, pitch, roll), np.array([*place, 0.0])

    def seen(points: np.ndarray) -> np.ndarray:
        flat = (pixels_per_metre * points @ rotation.T + translation).astype(np.float32)
        return lens.seen(flat) if lens else flat

    grid, openings = topology.grid(1), opening_grid(topology)
    vertices = np.concatenate([seen(grid.sample(topology.mean)), seen(opening_vertices(topology.mean, topology))])
    quads = np.concatenate([grid.quads, openings.quads + len(grid.uvs)])
    image = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    image = Picture(vertices, quads, WIDTH, HEIGHT).textured(
        image, np.concatenate([grid.uvs, openings.uvs]), skin_texture() if texture is None else texture)

    own = vertices[:len(grid.uvs)]
    facing = np.clip(-vertex_normals(own, grid.quads)[:, 2], 0, 1)
    depth = depth_buffer(own, grid.quads, WIDTH, HEIGHT)
    column, row = np.clip(np.rint(own[:, :2]).astype(int), 0, (WIDTH - 1, HEIGHT - 1)).T
    hidden = own[:, 2] > depth[row, column] + 4
    visibility = np.zeros((256, 256), np.float32)
    texels = grid.texel_coordinates.astype(int)
    visibility[texels[:, 1], texels[:, 0]] = np.where(hidden, 0, facing)

    low, high = own.min(0), own.max(0)
    position_map = seen(topology.mean)
    return FaceCapture(
        image=image, box=FaceBox(low[0], low[1], *(high - low)[:2], 1.0), crop=Crop(*place, 1.6 * (high - low)[0]),
        position_map=position_map, raw_position_map=position_map, expression=np.zeros(52, np.float32),
        rotation=rotation, translation=translation, pixels_per_metre=pixels_per_metre, head_map=topology.mean,
        visibility=visibility, yaw=yaw, pitch=pitch, roll=roll, seconds={}, topology=topology,
        fit=FaceFit(position_map, topology.mean, rotation, pixels_per_metre, translation, np.zeros(120), np.zeros(52),
                    np.zeros((64, 64, 3), np.float32)), lens=lens)
