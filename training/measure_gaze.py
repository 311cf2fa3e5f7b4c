"""Measures the gaze that `prn_blender.prn.gaze` reads, on portraits of people who do not exist and whose gaze is known.

    python -m training.measure_gaze --faces FOLDER

Prints the mean error and its spread to the side and upwards, against looking straight ahead. Reads the cache and the bundle.
"""
from __future__ import annotations

import numpy as np

from prn_blender.prn.capture import capture_image
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.errors import NoFaceError
from prn_blender.prn.gaze import gaze_of, read_eyes
from prn_blender.prn.head import build_head
from prn_blender.prn.weights import load_bundle
from training.arguments import about_faces
from training.portraits import Portraits

COUNT = 60


def main() -> None:
    arguments = about_faces(__doc__).parse_args()
    portraits, engine = Portraits(arguments.cache, arguments.faces), OnnxEngine(load_bundle(arguments.weights))
    read, true = [], []
    for number in range(COUNT):
        portrait = portraits.one(np.random.default_rng([2008, number]))
        try:
            face = capture_image(portrait.image, engine=engine)[0]
        except NoFaceError:
            continue
        gaze = gaze_of(read_eyes(face, build_head(face)))
        if gaze:
            read.append(gaze)
            true.append(portrait.gaze.mean(0))
    read, true = np.array(read), np.array(true)
    print(f"read in {len(read)} of {COUNT} portraits")
    for axis, name in enumerate(("to the side", "upwards")):
        error = read[:, axis] - true[:, axis]
        print(f"{name}: mean error {np.abs(error).mean():.1f}° (looking ahead: {np.abs(true[:, axis]).mean():.1f}°), "
              f"of which {error.mean():+.1f}° always and {error.std():.1f}° by chance; correlation {np.corrcoef(read[:, axis], true[:, axis])[0, 1]:.2f}")


if __name__ == "__main__":
    main()
