"""`resfcn256`: the network of the original PRN, so that PRNet's released weights can be used. Imports torch.

Feng et al., "Joint 3D Face Reconstruction and Dense Alignment with Position Map Regression Network" (ECCV 2018), as its
authors released it for TensorFlow. Layer for layer the same, TensorFlow's "SAME" padding of even kernels included, where
the odd pixel goes to the right and below. Same interface as the network in `network.py`; there is no expression output.
"""
from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .position_map import SIZE

INPUT_SIZE = 256
FIRST_WIDTH = 16
# (channels, stride) of the ten residual blocks, 256 -> 8, and of the seventeen transposed convolutions, 8 -> 256.
BLOCKS = ((32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
DECODER = ((512, 1), (256, 2), (256, 1), (256, 1), (128, 2), (128, 1), (128, 1), (64, 2), (64, 1), (64, 1),
           (32, 2), (32, 1), (16, 2), (16, 1), (3, 1), (3, 1), (3, 1))
KERNEL = 4
EPSILON, MOMENTUM = 1e-3, 1e-3      # tf.slim's defaults; torch's momentum is one minus TensorFlow's decay of 0.999
REACH = 1.1                         # the sigmoid's 1 stands for 1.1 crop sides


class Convolution(nn.Module):
    """Convolution without a bias, padded as TensorFlow's SAME, and batch norm; ReLU if wanted."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        # SAME: as many zeros as make the output ceil(input / stride), the odd one after the picture.
        zeros = size - stride if size > 1 else 0
        self.padding = (zeros // 2, zeros - zeros // 2) * 2
        self.convolution = nn.Conv2d(inputs, outputs, size, stride, bias=False)
        self.norm = nn.BatchNorm2d(outputs, EPSILON, MOMENTUM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.convolution(F.pad(x, self.padding) if any(self.padding) else x)))


class Block(nn.Module):
    """1x1 to half the channels, 4x4, 1x1 back, beside a plain 1x1 where the shape changes; then batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut = (nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride != 1 or inputs != outputs
                         else nn.Identity())
        self.narrow = Convolution(inputs, outputs // 2, 1)
        self.middle = Convolution(outputs // 2, outputs // 2, KERNEL, stride)
        self.widen = nn.Conv2d(outputs // 2, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, EPSILON, MOMENTUM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.widen(self.middle(self.narrow(x))) + self.shortcut(x)))


class TransposedConvolution(nn.Module):
    """4x4 transposed convolution without a bias, cropped as TensorFlow's SAME, and batch norm. No activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(inputs, outputs, KERNEL, stride, padding=1, bias=False)
        self.surplus = stride == 1      # 4 - 1 = 3 rows too many: one goes before, two after
        self.norm = nn.BatchNorm2d(outputs, EPSILON, MOMENTUM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        return self.norm(x[:, :, :-1, :-1] if self.surplus else x)


class ResFcn256(nn.Module):
    """`resfcn256`: crops (N, 3, 256, 256) RGB 0..1 -> position maps (N, 3, 256, 256) in crop units, and no expression (None)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Convolution(3, FIRST_WIDTH, KERNEL)
        widths = [FIRST_WIDTH, *(width for width, _ in BLOCKS)]
        self.blocks = nn.ModuleList(Block(inputs, outputs, stride) for inputs, (outputs, stride) in zip(widths, BLOCKS))
        widths = [widths[-1], *(width for width, _ in DECODER)]
        self.decoder = nn.ModuleList(
            TransposedConvolution(inputs, outputs, stride) for inputs, (outputs, stride) in zip(widths, DECODER))

    def sigmoids(self, images: torch.Tensor) -> torch.Tensor:
        """The graph's own output: (N, 3, 256, 256) in 0..1; times 256 x 1.1 it is PRNet's crop pixels, z to the camera."""
        x = self.first(images)
        for block in self.blocks:
            x = block(x)
        *layers, last = self.decoder
        for layer in layers:
            x = F.relu(layer(x))
        return torch.sigmoid(last(x))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        # PRNet's pixel centres are at integers and its z grows towards the camera; ours are a crop's share, z away.
        edge = (0.5 / SIZE - 0.5) * images.new_tensor([1.0, 1.0, 0.0])[:, None, None]
        return self.sigmoids(images) * (REACH * images.new_tensor([1.0, 1.0, -1.0])[:, None, None]) + edge, None
