"""Measures what it is worth to know a photo's lens, on rendered heads that are seen from a known distance.

    python -m training.measure_lens --faces FOLDER

Prints for each distance, with the lens unknown and known: millimetres off after similarity alignment (mean of all masked texels), degrees that the
head's turn is off, and the head's height and its nose's width over its width, in percent of the true ones: mean, and root mean square. Skins are
of photographs kept out of training. `lens.BELIEVED` was chosen so, with other seeds. Reads the cache and the bundle.
"""
from __future__ import annotations

import numpy as np

from prn_blender.prn.capture import place_face
from prn_blender.prn.crop import crop_from_landmarks
from prn_blender.prn.detector import FaceBox
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.lens import BELIEVED, Lens
from prn_blender.prn.look import run_network
from prn_blender.prn.weights import load_bundle
from training.arguments import about_faces
from training.kit import Kit
from training.measure import millimetres_off
from training.photographs import Photographs
from training.synthetic import Heads

DISTANCES = 0.3, 0.4, 0.5, 0.7, 1.0, 2.0    # metres
COUNT, MOST_YAW = 80, 35.0


def proportions(landmarks: np.ndarray) -> np.ndarray:
    """(2,) a head's height from the nose's root to the chin, and its nose's width, over its width; landmarks (68, 3)."""
    def apart(first: int, second: int) -> float:
        return float(np.linalg.norm(landmarks[first] - landmarks[second]))
    return np.array([apart(27, 8), apart(31, 35)]) / apart(2, 14)


def main() -> None:
    arguments = about_faces(__doc__).parse_args()
    kit, engine = Kit(arguments.cache), OnnxEngine(load_bundle(arguments.weights))
    held_out = Photographs(arguments.faces, arguments.cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True)
    heads = Heads(arguments.cache, held_out, kit, skins="skins_held_out.npy")
    topology, (mean, basis) = kit.topology, kit.basis_maps(256)
    for distance in DISTANCES:
        rows: dict[str, list] = {"unknown": [], "known": []}
        number = 0
        while len(rows["known"]) < COUNT:
            number += 1
            head = heads.one(np.random.default_rng([4021, int(1000 * distance), number]), distance=distance)
            if abs(np.degrees(np.arcsin(np.clip(head["rotation"][0, 2], -1, 1)))) > MOST_YAW:
                continue
            truth = mean + np.tensordot(head["coefficients"], basis, 1)
            crop = crop_from_landmarks(head["landmarks"])
            maps, expressions = run_network(head["image"], [crop], engine)
            far = place_face(head["image"], FaceBox(0, 0, 1, 1, 1), crop, maps[0], expressions[0], topology, "fitted", 0.063, {})
            lens = Lens(float(head["focal"]) / BELIEVED, tuple(head["centre"].astype(float)))
            near = place_face(head["image"], far.box, crop, maps[0], expressions[0], topology, "fitted", 0.063, {}, lens=lens)
            for name, face in (("unknown", far), ("known", near)):
                points, shape = (positions[topology.mask].astype(np.float64) for positions in (face.head_map, truth))
                off = millimetres_off(points, shape).mean()
                turn = np.degrees(np.arccos(np.clip((np.trace(face.rotation.T @ head["rotation"]) - 1) / 2, -1, 1)))
                share = proportions(topology.landmarks_of(face.head_map)) / proportions(topology.landmarks_of(truth)) - 1
                rows[name].append([off, turn, *(100 * share)])
        for name, values in rows.items():
            off, turn, tall, broad = np.array(values).T
            print(f"{distance:.1f} m, lens {name}: {off.mean():.2f} mm, {turn.mean():.1f}°, height over width {tall.mean():+.1f} % "
                  f"({np.sqrt(np.square(tall).mean()):.1f}), nose {broad.mean():+.1f} % ({np.sqrt(np.square(broad).mean()):.1f})", flush=True)


if __name__ == "__main__":
    main()
