"""The network: one face crop in, a UV position map and 52 ARKit weights out. Only this module and `resfcn256` import torch.

Encoder-decoder after Feng et al. (ECCV 2018), smaller and posed differently: it regresses the offset from the mean
position map, with a linear output, so that points outside the crop can be reached. A capture does not need this
module: it runs the exported ONNX graph (`engine.py`).
"""
from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .position_map import SIZE, Topology
from .resfcn256 import ResFcn256

INPUT_SIZE = 128
DECODER_SIZE = 64       # the map is decoded at this size; it is smooth, so the rest is interpolation


# Where the mean head lies in its crop, metres in the head frame: the crop's side and its centre's height. Constants of the
# trained weights, near what the 68 landmarks' box gives; they may not follow when a landmark is placed anew.
MEAN_CROP_SIDE, MEAN_CROP_CENTRE = 0.21910913, 0.04504143


def mean_in_crop(topology: Topology) -> np.ndarray:
    """(256, 256, 3) float32 mean position map seen from the front, in crop units, as a face in its own crop lies."""
    return ((topology.mean - np.float32([0, MEAN_CROP_CENTRE, 0])) / np.float32(MEAN_CROP_SIDE)).astype(np.float32)


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


class Upsampled(nn.Module):
    """Twice the size: resize, then convolve; transposed convolutions would leave a grid pattern in the surface."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = convolution(inputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))


class PositionMapNetwork(nn.Module):
    """`prn`: crops (N, 3, 128, 128) RGB 0..1 -> position maps (N, 3, 256, 256) in crop units, ARKit logits (N, 52).

    mean: (256, 256, 3) the mean position map in crop units.
    """

    def __init__(self, mean: np.ndarray, code: int = 512) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            convolution(3, 16, stride=2),                       # 64
            convolution(16, 48, stride=2), Residual(48),        # 32
            convolution(48, 96, stride=2), Residual(96),        # 16
            convolution(96, 192, stride=2), Residual(192), Residual(192),   # 8
            convolution(192, 256, stride=2), Residual(256))     # 4
        # The image and the map share no coordinates, so everything passes through one vector of the whole face.
        self.code = convolution_to_vector(256, code)
        self.spread = nn.Sequential(nn.Conv2d(code, 16 * 256, 1, bias=False), nn.PixelShuffle(4),
                                    nn.BatchNorm2d(256), nn.ReLU(inplace=True))
        self.decoder = nn.Sequential(
            Upsampled(256, 128), Residual(128),                 # 8
            Upsampled(128, 64), Residual(64),                   # 16
            Upsampled(64, 40),                                  # 32
            Upsampled(40, 24))                                  # 64
        self.head = nn.Conv2d(24, 3, 3, 1, 1)
        self.expression = nn.Sequential(nn.Conv2d(code, 128, 1), nn.ReLU(inplace=True), nn.Conv2d(128, 52, 1))
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)
        # Not a weight: it follows from the topology.
        self.register_buffer("mean", torch.from_numpy(np.ascontiguousarray(mean.transpose(2, 0, 1)))[None], persistent=False)
        self.register_buffer("enlarging", bicubic(SIZE), persistent=False)

    def offsets(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Offsets from the mean at the decoder's size (N, 3, 64, 64), and ARKit logits (N, 52)."""
        code = self.code(self.encoder(images))
        return self.head(self.decoder(self.spread(code))), self.expression(code).flatten(1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        offsets, logits = self.offsets(images)
        return self.mean + enlarged(offsets, self.enlarging), logits


def bicubic(size: int) -> torch.Tensor:
    """(size, 64) matrix that interpolates 64 values to `size` without a kink."""
    rows = F.interpolate(torch.eye(DECODER_SIZE)[None, None], size=(size, DECODER_SIZE), mode="bicubic", align_corners=False)
    return rows[0, 0]


def enlarged(offsets: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Offsets (N, 3, 64, 64) interpolated to (N, 3, size, size) by `bicubic(size)`.

    Two matrix products: ONNX Runtime's own cubic resize takes three times as long as the whole network.
    """
    return matrix @ offsets @ matrix.T


def convolution_to_vector(channels: int, code: int) -> nn.Sequential:
    """A 4x4 feature map to one vector: the convolution that sees all of it."""
    return nn.Sequential(nn.Conv2d(channels, code, 4, bias=False), nn.BatchNorm2d(code), nn.ReLU(inplace=True))


class Exported(nn.Module):
    """The network as the engines see it: images (N, S, S, 3) -> maps (N, 256, 256, 3), and ARKit weights (N, 52) if it has them."""

    def __init__(self, network: PositionMapNetwork | ResFcn256) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        position_map, logits = self.network(image.permute(0, 3, 1, 2))
        position_map = position_map.permute(0, 2, 3, 1)
        return (position_map,) if logits is None else (position_map, torch.sigmoid(logits))


# The networks by the name that a model bundle gives, made for its topology.
ARCHITECTURES = {"prn": lambda topology: PositionMapNetwork(mean_in_crop(topology)), "resfcn256": lambda topology: ResFcn256()}
