"""Fits where on the UV map the 68 iBUG landmarks lie: an annotation convention, not an accuracy.

`python -m training.landmarks --data FOLDER` runs the bundle on the faces of FOLDER that are annotated in 3D (format of
`training.evaluate`), and moves each landmark, near where it was, to the texel whose projection is nearest to the
annotations on the whole; left and right together, so that the set stays mirror-symmetric. Writes
`prn_blender/prn/landmarks68.json`. Run once per annotation convention, and named in the model card.
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from prn_blender.prn.capture import fit_face
from prn_blender.prn.crop import crop_from_landmark_box
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.image_io import load_image
from prn_blender.prn.look import run_network
from prn_blender.prn.position_map import SIZE, load_topology
from prn_blender.prn.weights import load_bundle
from training.evaluate import load_faces

REACH = 45                      # texels a landmark may move from where it is
PARTNERS = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38,
            37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
TARGET = Path(__file__).parent.parent / "prn_blender/prn/landmarks68.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    topology = load_topology()
    engine = OnnxEngine(load_bundle(arguments.weights))
    maps, truths, sizes, sides = [], [], [], []
    for face in load_faces(arguments.data):
        if face.yaw is None:
            continue
        crop = crop_from_landmark_box(*face.box)
        raw, expression = run_network(load_image(face.image), [crop], engine)
        maps.append(crop.to_image(fit_face(raw[0], expression[0], topology).position_map)[..., :2].astype(np.float32))
        truths.append(face.points)
        sizes.append(face.size)
        sides.append(abs(face.yaw))
    maps, truths, sizes, sides = np.stack(maps), np.stack(truths), np.array(sizes), np.array(sides)
    # Each third of the yaws counts alike: the convention has to hold from the side too.
    bins = np.digitize(sides, [30, 60])
    weights = 1 / np.bincount(bins)[bins] / sizes

    def cost(landmark: int, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        error = np.linalg.norm(maps[:, rows, columns] - truths[:, landmark, None, :], axis=-1)
        return weights @ error

    texels = topology.landmarks.copy()
    columns, rows = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    for landmark, partner in enumerate(PARTNERS):
        if partner < landmark:
            continue
        near = (np.hypot(columns - texels[landmark, 0], rows - texels[landmark, 1]) <= REACH) & topology.mask
        if partner == landmark:
            near &= (columns == 127) | (columns == 128)
        column, row = columns[near], rows[near]
        total = cost(landmark, column, row) + cost(partner, SIZE - 1 - column, row)
        best = int(total.argmin())
        texels[landmark] = (127.5 if partner == landmark else column[best], row[best])
        texels[partner] = (SIZE - 1 - texels[landmark, 0], row[best])
    TARGET.write_text(json.dumps({"order": "iBUG 68", "coordinates": "texels (column, row), centres at integers",
                                  "texels": [[round(float(v), 2) for v in texel] for texel in texels]}) + "\n")
    print(f"largest move {np.linalg.norm(texels - topology.landmarks, axis=1).max():.0f} texels")


if __name__ == "__main__":
    main()
