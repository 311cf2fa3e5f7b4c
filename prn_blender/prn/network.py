"""The network: one face crop in, a UV position map and 52 ARKit weights out. It imports torch, as `resfcn256` and the torch engine do.

After Feng et al. (ECCV 2018), lighter and posed differently: it regresses the offset from the mean position map, with a
linear output, so that points outside the crop can be reached, and instead of deconvolutions it mixes learned UV
images: every coordinate of the map is a weighted sum of the same few smooth images. A capture does not need this
module: it runs the exported ONNX graph (`engine.py`).
"""
from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .face_fit import reading
from .position_map import SIZE
from .resfcn256 import ResFcn256
from .small_map import mean_in_crop

INPUT_SIZE = 192         # an open eye is seven pixels high in such a crop
DECODER_SIZE = 64       # the map is mixed at this size; it is smooth, so the rest is interpolation
IMAGES = 160            # learned UV images that every coordinate is mixed from
_PARTS = 4              # that a map's rows are enlarged in


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU; sizes are kept but for the stride."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False),
                         nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions round an identity (He et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(self.first(x)), inplace=True)


def light_encoder() -> nn.Sequential:
    """What a capture runs: (N, 3, 192, 192) -> (N, 256, 4, 4)."""
    return nn.Sequential(
        # All of the crop's detail at the cost of a crop of 128: lids and lips are a matter of single pixels.
        convolution(3, 24, size=5, stride=3),                               # 64
        convolution(24, 48, stride=2),                                      # 32
        convolution(48, 64, stride=2), Residual(64), Residual(64),          # 16
        convolution(64, 128, stride=2), Residual(128),                      # 8
        convolution(128, 256, stride=2), Residual(256))                     # 4


def wide_encoder() -> nn.Sequential:
    """A teacher for the light one, twelve times its work; never shipped: (N, 3, 192, 192) -> (N, 512, 3, 3)."""
    return nn.Sequential(
        convolution(3, 32, size=5, stride=2),                                                                       # 96
        convolution(32, 64, stride=2), Residual(64),                                                                # 48
        convolution(64, 128, stride=2), Residual(128), Residual(128),                                               # 24
        convolution(128, 256, stride=2), Residual(256), Residual(256),                                              # 12
        convolution(256, 512, stride=2), Residual(512), Residual(512),                                              # 6
        convolution(512, 512, stride=2))                                                                            # 3


# By name: the encoder, its last channels and their side, and the length of the code.
ENCODERS = {"light": (light_encoder, 256, 4, 512), "wide": (wide_encoder, 512, 3, 768)}


class PositionMapNetwork(nn.Module):
    """`prn`: crops (N, 3, 192, 192) RGB 0..1 -> position maps (N, 3, 256, 256) in crop units, ARKit logits (N, 52).

    mean: (256, 256, 3) the mean position map in crop units. encoder: a name in ENCODERS.
    """

    def __init__(self, mean: np.ndarray, encoder: str = "light") -> None:
        super().__init__()
        make, channels, side, code = ENCODERS[encoder]
        self.encoder = make()
        # The image and the map share no coordinates, so everything passes through one vector of the whole face.
        self.code = nn.Sequential(nn.Conv2d(channels, code, side, bias=False), nn.BatchNorm2d(code), nn.ReLU(inplace=True))
        # Position maps of heads in any pose are sums of few smooth images (linear shape space times affine camera), so
        # mixing them loses nothing, costs a hundredth of a convolutional decoder, and leaves no grid in the surface.
        self.mixture = nn.Linear(code, 3 * IMAGES)
        self.images = nn.Parameter(cosines(IMAGES))
        self.expression = nn.Sequential(nn.Linear(code, 128), nn.ReLU(inplace=True), nn.Linear(128, 52))
        nn.init.normal_(self.mixture.weight, std=1e-3)
        nn.init.zeros_(self.mixture.bias)
        # Not a weight: it follows from the topology.
        for name, values in (("mean", mean), ("small_mean", reading(mean))):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None], persistent=False)
        self.register_buffer("enlarging", bicubic(SIZE), persistent=False)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Crops (N, 3, 192, 192) to codes (N, C)."""
        return self.code(self.encoder(images)).flatten(1)

    def decode(self, code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes to offsets from the mean at the decoder's size (N, 3, 64, 64), and ARKit logits (N, 52)."""
        mixed = self.mixture(code).reshape(-1, 3, IMAGES) @ self.images.flatten(1)
        return mixed.reshape(-1, 3, DECODER_SIZE, DECODER_SIZE), self.expression(code)

    def small(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops (N, 3, 192, 192) to small maps (N, 3, 64, 64) in crop units (`small_map`), and ARKit logits (N, 52)."""
        offsets, logits = self.decode(self.encode(images))
        return self.small_mean + offsets, logits

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        offsets, logits = self.decode(self.encode(images))
        # The sum with coordinates last, as both its parts then lie in memory.
        found = self.mean.permute(0, 2, 3, 1) + enlarged(offsets, self.enlarging).permute(0, 2, 3, 1)
        return found.permute(0, 3, 1, 2), logits


def cosines(count: int) -> torch.Tensor:
    """(count, 64, 64) the lowest two-dimensional cosines, the finer the fainter: smooth images to begin with."""
    waves = torch.cos(torch.pi * torch.arange(DECODER_SIZE)[:, None] * (torch.arange(DECODER_SIZE) + 0.5) / DECODER_SIZE)
    pairs = sorted(((i, j) for i in range(32) for j in range(32)), key=lambda pair: pair[0] ** 2 + pair[1] ** 2)
    return torch.stack([waves[i][:, None] * waves[j] * 0.1 / (1 + (i * i + j * j) / 4) for i, j in pairs[:count]])


def bicubic(size: int) -> torch.Tensor:
    """(size, 64) matrix that interpolates 64 values to `size` without a kink."""
    rows = F.interpolate(torch.eye(DECODER_SIZE)[None, None], size=(size, DECODER_SIZE), mode="bicubic", align_corners=False)
    return rows[0, 0]


def enlarged(offsets: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Offsets (N, 3, 64, 64) interpolated to (N, 3, size, size) by `bicubic(size)`.

    Two matrix products: ONNX Runtime's own cubic resize takes three times as long as the whole network. Their result lies in
    memory as the engines give it, coordinates last: turning it round while it is small is cheap.
    """
    wide = (offsets @ matrix.T).permute(0, 2, 3, 1).flatten(2)
    # A row comes from its four neighbours, some rows from few: with all at once most of the work would be products with zeros.
    rows, few = len(matrix) // _PARTS, DECODER_SIZE // _PARTS
    parts = []
    for part in range(_PARTS):
        seen = slice(max(0, part * few - 2), (part + 1) * few + 2)
        parts.append(matrix[part * rows:(part + 1) * rows, seen] @ wide[:, seen])
    return torch.cat(parts, 1).unflatten(2, (len(matrix), 3)).permute(0, 3, 1, 2)


class Exported(nn.Module):
    """The network as the engines see it: images (N, S, S, 3) -> maps (N, 256, 256, 3), and ARKit weights (N, 52) if it has them.

    small: with small maps instead (N, 64, 64, 3), which a PositionMapNetwork has.
    """

    def __init__(self, network: PositionMapNetwork | ResFcn256, small: bool = False) -> None:
        super().__init__()
        self.network, self.small = network, small

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image = image.permute(0, 3, 1, 2)
        position_map, logits = self.network.small(image) if self.small else self.network(image)
        position_map = position_map.permute(0, 2, 3, 1)
        return (position_map,) if logits is None else (position_map, torch.sigmoid(logits))


# The networks by the name that a model bundle gives, made for its topology.
ARCHITECTURES = {"prn": lambda topology: PositionMapNetwork(mean_in_crop(topology)), "resfcn256": lambda topology: ResFcn256()}
