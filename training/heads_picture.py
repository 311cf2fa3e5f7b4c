"""Draws docs/heads.jpg: twenty-four heads captured from portraits of people who do not exist.

    python -m training.heads_picture --faces FOLDER [-o docs/heads.jpg]

For each the portrait, then the head from the front, turned and in profile, with its texture and in clay. The portraits are the
first ones in which a face is found; none is picked by its result. Reads the cache and the bundle, writes the picture.
"""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.capture import capture_image
from prn_blender.prn.engine import OnnxEngine
from prn_blender.prn.errors import NoFaceError
from prn_blender.prn.gaze import seen_head
from prn_blender.prn.head_preview import head_pictures
from prn_blender.prn.head_texture import make_head_texture
from prn_blender.prn.weights import load_bundle
from training.arguments import about_faces
from training.portraits import Portraits

HEADS, COLUMNS = 24, 2
WIDTH, HEIGHT = 132, 166
DEGREES = (0, 40, 90)


def row(image: np.ndarray, engine: OnnxEngine) -> np.ndarray:
    """(HEIGHT, 7 WIDTH, 3) one person. Raises NoFaceError."""
    face = capture_image(image, engine=engine)[0]
    head, *eyes = seen_head(face)
    texture = make_head_texture(face, 2048)
    views = [head_pictures(head.vertices, texture, *eyes, degrees, WIDTH, HEIGHT) for degrees in DEGREES]
    height = round(WIDTH * image.shape[0] / image.shape[1])
    photo = np.full((HEIGHT, WIDTH, 3), 52, np.uint8)
    top = (HEIGHT - height) // 2
    photo[top:top + height] = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
    return np.concatenate([photo, *(textured for textured, _ in views), *(clay for _, clay in views)], 1)


def main() -> None:
    parser = about_faces(__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent.parent / "docs/heads.jpg")
    arguments = parser.parse_args()
    portraits, engine = Portraits(arguments.cache, arguments.faces), OnnxEngine(load_bundle(arguments.weights))
    rows, number = [], 0
    while len(rows) < HEADS:
        try:
            rows.append(row(portraits.one(np.random.default_rng([2007, number])).image, engine))
        except NoFaceError:
            print(f"no face in portrait {number}")
        number += 1
    sheet = np.concatenate([np.concatenate(rows[first:first + COLUMNS], 1) for first in range(0, HEADS, COLUMNS)])
    cv2.imwrite(str(arguments.output), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
