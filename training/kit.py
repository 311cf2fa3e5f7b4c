"""The face kit as the trainer and the renderer use it: hm08's shape space from the chest up, and the map's texels on it."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from prn_blender.prn.position_map import SIZE, Topology, load_topology


class Kit:
    """Shape space in the head frame (metres) and what the map's texels, MediaPipe's points and landmarks are on it."""

    def __init__(self, cache: Path) -> None:
        """cache: the folder where `training.face_kit` wrote kit.npz. Raises FileNotFoundError if it has not run."""
        data = np.load(cache / "kit.npz")
        self.hm08_vertices: np.ndarray = data["hm08_vertices"]      # (V,) indices into hm08's vertices
        self.mean: np.ndarray = data["mean"]                        # (V, 3)
        self.identity = data["identity"].astype(np.float32)         # (120, V, 3), one standard deviation each
        self.expression = data["expression"].astype(np.float32)     # (52, V, 3), at weight 1
        self.scale = float(data["scale"])                           # metres per hm08 unit
        self.mediapipe: np.ndarray = data["mediapipe"]              # (478, 2) texel coordinates
        self.mediapipe_usable: np.ndarray = data["mediapipe_usable"]
        self.mediapipe_mirror: np.ndarray = data["mediapipe_mirror"]
        self.topology: Topology = load_topology()
        self.place = np.full(19158, -1)
        self.place[self.hm08_vertices] = np.arange(len(self.hm08_vertices))

    def basis_maps(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean (size, size, 3) and basis (172, size, size, 3) as position maps, metres: identity, then ARKit."""
        shipped = np.load(Path(__file__).parent.parent / "prn_blender/prn/hm08_face.npz")["hm08_vertices"]
        rows = self.place[shipped.astype(int)]
        step = SIZE // size

        def small(values: np.ndarray) -> np.ndarray:
            full = self.topology.map_of(values[rows])
            # As the fit reads them (`face_fit.reading`): at the cells' middles, which does not blur lids and lips.
            return cv2.resize(full, (size, size), interpolation=cv2.INTER_LINEAR)

        basis = np.concatenate([self.identity, self.expression])
        return small(self.mean), np.stack([small(component) for component in basis])
