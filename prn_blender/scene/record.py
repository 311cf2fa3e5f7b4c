"""A captured face of the scene as a record of landmarks, pose and ARKit weights, as it stands there now, edits and all.

Reads the face's mesh, its animation and what its capture noted (`FACTS`); steps through the scene's frames and puts the
scene back to where it was.
"""

from __future__ import annotations

import bpy
import numpy as np

from ..prn.arkit import ARKIT_NAMES
from ..prn.errors import CaptureError
from ..prn.head_topology import load_head_topology
from ..prn.lens import Lens
from ..prn.position_map import HM08, cross, load_topology, texels_to_uv
from ..prn.record import FaceRecord
from . import versions
from .face import FACTS
from .frames import TO_BLENDER


def record_of(face: bpy.types.Object) -> FaceRecord:
    """The face over its take, or as a photograph. Raises CaptureError if it was captured with weights of another topology.

    Landmarks lie where the mesh's UVs say, so that any level of detail has them, the coarser the less exact.
    """
    facts = face[FACTS]
    if facts.get("topology", HM08) != HM08:
        raise CaptureError(f"'{face.name}' was captured with weights of another topology, whose landmarks its mesh does not tell: "
                           f"write the file with `capture -o` instead.")
    corners, shares = landmark_places(face.data)
    width, height = (int(side) for side in facts["image_size"])
    per_metre, middle = float(facts["pixels_per_metre"]), np.array(facts["middle"])
    scene, fps = bpy.context.scene, facts.get("fps")
    count = int(facts["length"]) if fps else 1
    record = FaceRecord(fps, (width, height), np.ones(count, bool), np.zeros((count, 68, 3)), np.zeros((count, 3, 3)),
                        np.zeros((count, 2)), np.zeros(count), np.zeros((count, len(ARKIT_NAMES))),
                        Lens.over(facts["focal"], width, height) if facts.get("focal") else None)
    rate = scene.render.fps / scene.render.fps_base
    hidden = next((curve for curve in versions.curves_of(face.animation_data.action, "OBJECT") if curve.data_path == "hide_render"),
                  None) if fps and face.animation_data and face.animation_data.action else None
    kept = scene.frame_current, scene.frame_subframe
    for frame in range(count):
        if fps:
            place = float(facts["first"]) + frame * rate / fps
            scene.frame_set(int(np.floor(place)), subframe=place - np.floor(place))
        seen = face.evaluated_get(bpy.context.evaluated_depsgraph_get())
        points = np.empty(3 * len(seen.data.vertices), np.float32)
        seen.data.vertices.foreach_get("co", points)
        matrix = np.array(seen.matrix_world)
        scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
        record.seen[frame] = not (hidden and hidden.evaluate(scene.frame_current_final))
        record.head_landmarks[frame] = (points.reshape(-1, 3)[corners] * shares[..., None]).sum(1) @ TO_BLENDER
        record.rotation[frame] = TO_BLENDER.T @ (matrix[:3, :3] / scale) @ TO_BLENDER
        right, _, up = matrix[:3, 3] - middle
        record.translation[frame] = right * per_metre + (width - 1) / 2, -up * per_metre + (height - 1) / 2
        record.scale[frame] = per_metre * scale
        record.weights[frame] = weights_now(face)
    scene.frame_set(kept[0], subframe=kept[1])
    if fps:
        inside = np.arange(count) - int(facts["start"])
        record.seen &= (inside >= 0) & (inside < int(facts["frames"]))
    return record


def weights_now(face: bpy.types.Object) -> np.ndarray:
    """(52,) the face's ARKit weights at the scene's frame: its shape keys', its expression action's, or the photo's."""
    blocks = face.data.shape_keys.key_blocks if face.data.shape_keys else {}
    if all(name in blocks for name in ARKIT_NAMES):
        return np.array([blocks[name].value for name in ARKIT_NAMES])
    facts, scene = face[FACTS], bpy.context.scene
    if facts.get("expression"):
        curves = {curve.data_path: curve for curve in versions.curves_of(facts["expression"], "KEY")}
        return np.array([curves[f'key_blocks["{name}"].value'].evaluate(scene.frame_current_final) for name in ARKIT_NAMES])
    return np.array(facts.get("expression_weights", np.zeros(len(ARKIT_NAMES))))


def landmark_places(mesh: bpy.types.Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (68, 3) and shares (68, 3) of them that make the 68 landmarks, by the mesh's UVs."""
    mesh.calc_loop_triangles()
    loops, vertices = np.empty((2, 3 * len(mesh.loop_triangles)), np.int32)
    mesh.loop_triangles.foreach_get("loops", loops)
    mesh.loop_triangles.foreach_get("vertices", vertices)
    triangles = vertices.reshape(-1, 3)
    if len(mesh.materials) > 1:  # a whole head, whose UVs are hm08's own: its skin knows where it lies on the map
        head = load_head_topology()
        places = np.full((len(mesh.vertices), 2), np.nan)
        places[head.trusted] = head.trusted_uv * (1, -1) + (0, 1)
        corners_at = places[triangles]
    else:
        uvs = np.empty(2 * len(mesh.loops), np.float32)
        mesh.uv_layers[0].uv.foreach_get("vector", uvs)
        corners_at = uvs.reshape(-1, 2)[loops.reshape(-1, 3)].astype(float)
    a, b, c = np.moveaxis(corners_at, 1, 0)
    area = cross(b - a, c - a)
    known = np.abs(area) > 1e-12  # NaN is not
    a, b, c, area, triangles = a[known], b[known], c[known], area[known], triangles[known]
    corners, shares = [], []
    for place in texels_to_uv(load_topology().landmarks):
        second, third = cross(place - a, c - a) / area, cross(b - a, place - a) / area
        inside = np.stack([1 - second - third, second, third], 1)
        # The triangle it lies in; for one in an opening of a coarse mesh the nearest, a little beyond its edge.
        outside = np.maximum(0, -inside.min(1)) * np.sqrt(np.abs(area))
        best = int(np.argmin(outside))
        corners.append(triangles[best])
        shares.append(inside[best])
    return np.array(corners), np.array(shares)
