"""Draws docs/faces.png: twelve rendered heads with the predicted map on them, the best, median and worst of 300.

    python -m training.faces_picture --faces FOLDER [-o docs/faces.png]

The people do not exist: shapes are random, and each skin is the mean of six unwrapped ones, so that no photograph is shown. Reads
the cache and the bundle, writes the picture.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.look import run_network
from prn_blender.prn.preview import wire_texture
from prn_blender.prn.render import Picture
from prn_blender.prn.weights import load_bundle
from training.arguments import about_faces
from training.kit import Kit
from training.measure import HeldOut
from training.photographs import Photographs
from training.synthetic import Heads

HEADS, PANEL, BLEND = 300, 240, 6


def main() -> None:
    parser = about_faces(__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent.parent / "docs/faces.png")
    arguments = parser.parse_args()
    kit, engine = Kit(arguments.cache), OnnxEngine(load_bundle(arguments.weights))
    validation = Photographs(arguments.faces, arguments.cache, kit.mediapipe_usable, kit.mediapipe_mirror, validation=True)
    heads = Heads(arguments.cache, validation, kit, skins="skins_held_out.npy")
    rng = np.random.default_rng(0)
    skins = heads.skins
    heads.skins = np.stack([skins[rng.choice(len(skins), BLEND, replace=False)].mean(0) for _ in range(40)]).astype(np.uint8)
    heads.photographs = None            # backgrounds are gradients
    drawn = [heads.one(np.random.default_rng([2003, number])) for number in range(HEADS)]
    held_out = HeldOut({key: np.stack([one[key] for one in drawn]) for key in drawn[0]}, kit)
    maps, errors = [], []
    for index, one in enumerate(drawn):
        crop = held_out.crop(index)
        position_map = crop.to_image(run_network(one["image"], [crop], engine)[0][0])
        points = kit.topology.landmarks_of(position_map)[:, :2]
        errors.append(100 * np.linalg.norm(points - one["landmarks"], axis=1).mean() / np.sqrt(np.prod(np.ptp(one["landmarks"], axis=0))))
        maps.append(position_map)
    order = np.argsort(errors)
    middle = len(order) // 2
    rows = []
    for chosen in (order[:4], order[middle - 2:middle + 2], order[-4:]):
        panels = []
        for index in chosen:
            scale = PANEL / drawn[index]["image"].shape[0]
            photo = cv2.resize(drawn[index]["image"], (PANEL, PANEL), interpolation=cv2.INTER_CUBIC)
            grid = kit.topology.grid(2)
            picture = Picture(grid.sample(maps[index]) * scale, grid.quads, PANEL, PANEL)
            over = cv2.addWeighted(photo, 0.55, picture.textured(photo, grid.uvs, wire_texture()), 0.45, 0)
            cv2.putText(over, f"{errors[index]:.1f} %", (6, PANEL - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
            panels += [photo, over]
        rows.append(np.concatenate(panels, 1))
    cv2.imwrite(str(arguments.output), np.concatenate(rows)[..., ::-1])
    print(f"best {errors[order[0]]:.2f}, median {errors[order[middle]]:.2f}, worst {errors[order[-1]]:.2f} % of {HEADS}")


if __name__ == "__main__":
    main()
