"""What happens to pictures between the face and the file: crop, colour, blur, noise, compression, something in the way.

Whole batches at once in torch, so that the same code keeps a GPU busy and runs on a CPU. Pictures are (N, 3, S, S) float in
0..1; all chance comes from a `Dice`. `crop_transforms` and `warped` move pixels, and the labels follow their transforms; the
others leave every point where it is.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from prn_blender.prn.crop import BLUR, FADE


STREAKED = 0.08         # of pictures


class Dice:
    """Chance on one device."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, deviation: float, *shape: int) -> torch.Tensor:
        return deviation * torch.randn(shape, generator=self.generator, device=self.device)

    def below(self, end: int, count: int) -> torch.Tensor:
        """(count,) whole numbers from 0 to end - 1."""
        return torch.randint(end, (count,), generator=self.generator, device=self.device)

    def some(self, share: float, count: int) -> torch.Tensor:
        """Which of `count` things it hits, each with the chance `share`: their numbers."""
        return self.hits(share, count).nonzero()[:, 0]

    def hits(self, share: float, count: int) -> torch.Tensor:
        """(count,) bool, each true with the chance `share`."""
        return torch.rand(count, generator=self.generator, device=self.device) < share


def crop_transforms(dice: Dice, points: torch.Tensor, size: int, side_per_box: float) -> torch.Tensor:
    """(N, 2, 3) affine from picture pixels to a `size` crop round a face, jittered as detectors do and turned in the plane.

    points (N, K, 2): what the crop's box is taken from. Pixel centres at integers on both sides.
    """
    count = len(points)
    angle = torch.deg2rad(dice.normal(1, count) * torch.where(dice.hits(0.08, count), 40.0, 11.0))
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    turned = points @ rotation.transpose(1, 2)
    low, high = turned.amin(1), turned.amax(1)
    box = (high - low).prod(1).sqrt()
    scale = size / (side_per_box * box * torch.exp(dice.normal(0.10, count)))
    centre = (low + high) / 2 + dice.normal(0.06, count, 2) * box[:, None]
    return torch.cat([rotation * scale[:, None, None], ((size - 1) / 2 - scale[:, None] * centre)[..., None]], 2)


def placed(points: torch.Tensor, transforms: torch.Tensor, size: int) -> torch.Tensor:
    """Picture pixels (N, K, 2) to crop units, by transforms to a `size` crop."""
    return (points @ transforms[:, :, :2].transpose(1, 2) + transforms[:, None, :, 2] + 0.5) / size - 0.5


def warped(dice: Dice, pictures: torch.Tensor, transforms: torch.Tensor, size: int, bordered: float) -> torch.Tensor:
    """Pictures (N, H, W, 3) uint8 RGB through transforms (N, 2, 3) of pixels: (N, 3, size, size) float.

    Beyond a picture's edge they end as `prn_blender.prn.crop` ends them; or, as pictures do that somebody has widened, with the chance
    `bordered` in one colour, and with the chance STREAKED in streaks of their border's pixels.
    """
    count, height, width = pictures.shape[:3]
    # Crop to picture in grid_sample's units, in which a picture reaches from -1 to 1.
    inverse = torch.linalg.inv(transforms[:, :, :2])
    reach = pictures.new_tensor([width, height], dtype=torch.float32) / 2
    middle = (inverse @ ((size - 1) / 2 - transforms[:, :, 2:]))[..., 0] + 0.5
    theta = torch.cat([inverse * (size / 2) / reach[:, None], (middle / reach - 1)[..., None]], 2)
    source = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    pictures = pictures.permute(0, 3, 1, 2).float() / 255
    images = F.grid_sample(pictures, source, mode="bilinear", padding_mode="reflection", align_corners=False)
    # How far beyond the picture a pixel lies, in sides of the crop.
    beyond = ((source.abs() - 1).clamp_min(0) * reach).norm(dim=-1) * torch.linalg.det(transforms[:, :, :2]).abs().sqrt()[:, None, None] / size
    images = torch.lerp(images, _much_blurred(images, BLUR), (beyond / FADE).clamp_max(1)[:, None])
    chosen = dice.some(STREAKED, count)
    if len(chosen):
        images[chosen] = F.grid_sample(pictures[chosen], source[chosen], mode="bilinear", padding_mode="border", align_corners=False)
    chosen = dice.some(bordered, count)
    if len(chosen):
        colours = dice.uniform(0, 1, len(chosen), 3, 1, 1) * dice.hits(0.5, len(chosen))[:, None, None, None]
        outside = (source[chosen].abs() > 1).any(-1)[:, None]
        images[chosen] = torch.where(outside, colours, images[chosen])
    return images


def _much_blurred(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """Blurred by a Gaussian of this standard deviation, in the pictures' sides: it holds all in a few pixels."""
    few = 32
    small = _blurred(F.interpolate(images, (few, few), mode="area"), images.new_full((len(images),), deviation * few))
    return F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)


def occluded(dice: Dice, images: torch.Tensor, share: float) -> torch.Tensor:
    """Cover part of some of these pictures: a piece of another or a flat colour, as an ellipse, a bar or the picture's edge."""
    count, _, size, _ = images.shape
    chosen = dice.some(share, count)
    if not len(chosen):
        return images
    number = len(chosen)
    steps = (torch.arange(size, device=images.device) + 0.5) / size
    y, x = steps[None, :, None], steps[None, None, :]

    def each(values: torch.Tensor) -> torch.Tensor:
        return values[:, None, None]

    angle = each(dice.uniform(0, torch.pi, number))
    dx, dy = x - each(dice.uniform(0.1, 0.9, number)), y - each(dice.uniform(0.1, 0.9, number))
    along, across = dx * torch.cos(angle) + dy * torch.sin(angle), dy * torch.cos(angle) - dx * torch.sin(angle)
    # Distances from the middle, 1 at the edge; the soft edge makes them a mask.
    ellipse = ((along / each(dice.uniform(0.06, 0.24, number))) ** 2 + (across / each(dice.uniform(0.06, 0.24, number))) ** 2).sqrt()
    bar = across.abs() / each(dice.uniform(0.02, 0.07, number))
    side = each(dice.below(4, number))
    inwards = torch.where(side == 0, x, torch.where(side == 1, 1 - x, torch.where(side == 2, y, 1 - y)))
    edge = inwards.expand(number, size, size) / each(dice.uniform(0.08, 0.3, number))
    kind = each(dice.uniform(0, 1, number))
    distance = torch.where(kind < 0.5, ellipse, torch.where(kind < 0.8, bar, edge))
    soft = each(dice.uniform(0.02, 0.3, number))
    mask = ((1 - distance) / soft + 0.5).clamp(0, 1)[:, None]
    others = images[dice.below(count, number)].flip(3)
    colours = dice.uniform(0, 1, number, 3, 1, 1)
    cover = torch.where(dice.hits(0.6, number)[:, None, None, None], others, colours)
    images[chosen] = images[chosen] * (1 - mask) + cover * mask
    return images


def degraded(dice: Dice, images: torch.Tensor) -> torch.Tensor:
    """Change exposure and colour, and lose detail, as cameras and file formats do. Works on the given pictures themselves."""
    images = _coloured(dice, images)
    count = len(images)
    kind = dice.uniform(0, 1, count)
    for number, side in enumerate(SMALLER):                                     # a quarter: fewer pixels
        chosen = ((kind >= 0.25 * number / len(SMALLER)) & (kind < 0.25 * (number + 1) / len(SMALLER))).nonzero()[:, 0]
        _change(images, chosen, lambda some: F.interpolate(F.interpolate(some, (round(side * some.shape[2]),) * 2, mode="area"), some.shape[2:],
                                                           mode="bilinear", align_corners=False))
    _change(images, ((kind >= 0.25) & (kind < 0.4)).nonzero()[:, 0], lambda some: _blurred(some, dice.uniform(0.4, 1.6, len(some))))
    _change(images, dice.some(0.08, count), lambda some: _moved(dice, some))
    _change(images, dice.some(0.2, count), lambda some: _noisy(dice, some))
    _change(images, dice.some(0.2, count), lambda some: compressed(some, dice.uniform(12, 80, len(some))))
    return images


SMALLER = (0.25, 0.32, 0.4, 0.5, 0.63, 0.8)       # of a picture's side


def _change(images: torch.Tensor, chosen: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change these of the pictures, if there are any."""
    if len(chosen):
        images[chosen] = change(images[chosen])


def _noisy(dice: Dice, images: torch.Tensor) -> torch.Tensor:
    level = dice.uniform(2 / 255, 14 / 255, len(images), 1, 1, 1)
    return (images + level * dice.normal(1, *images.shape)).clamp(0, 1)


def _lit_from_a_side(dice: Dice, images: torch.Tensor) -> torch.Tensor:
    count, _, size, _ = images.shape
    angle, depth = dice.uniform(0, 2 * torch.pi, count, 1, 1, 1), dice.uniform(0.3, 1.2, count, 1, 1, 1)
    ramp = torch.linspace(-1, 1, size, device=images.device)
    slope = torch.cos(angle) * ramp + torch.sin(angle) * ramp[:, None]
    return (images * torch.exp(depth * slope)).clamp(0, 1)


def _coloured(dice: Dice, images: torch.Tensor) -> torch.Tensor:
    count, _, size, _ = images.shape
    gamma = torch.exp(dice.normal(0.28, count, 1, 1, 1))
    contrast, brightness = torch.exp(dice.normal(0.2, count, 1)), dice.normal(0.08, count, 1)
    balance = torch.exp(dice.normal(0.09, count, 3))
    contrast = contrast * torch.where(dice.hits(0.08, count)[:, None], dice.uniform(0.2, 0.6, count, 1), 1.0)     # dark
    kind = dice.uniform(0, 1, count)                         # grey, or of another saturation, or left as it is
    colour = torch.where(kind < 0.12, 0.0, torch.where(kind < 0.38, dice.uniform(0.4, 1.5, count), 1.0))[:, None, None]
    grey = images.new_tensor(_TO_YCC[0]).expand(3, 3)
    saturation = grey + (torch.eye(3, device=images.device) - grey) * colour
    # ((x ** gamma - 0.45) * contrast + 0.45 + brightness) * balance, after it the saturation: one matrix and one offset.
    matrix = saturation * (contrast * balance)[:, None]
    offset = (saturation @ ((0.45 - 0.45 * contrast + brightness) * balance)[..., None])
    images = torch.baddbmm(offset, matrix, images.pow_(gamma).flatten(2)).clamp_(0, 1).unflatten(2, (size, size))
    _change(images, dice.some(0.12, count), lambda some: _lit_from_a_side(dice, some))
    return images


def _blurred(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur, a sigma (N,) in pixels for each."""
    reach = 4
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True))[..., None, None, None]
    size = images.shape[2]
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    rows = sum(padded[:, :, k:k + size] * weights[:, k] for k in range(2 * reach + 1))
    return sum(rows[..., k:k + size] * weights[:, k] for k in range(2 * reach + 1))


def _moved(dice: Dice, images: torch.Tensor) -> torch.Tensor:
    """Motion blur along a line of 3 to 10 pixels."""
    count, _, size, _ = images.shape
    angle, length = dice.uniform(0, torch.pi, count), dice.uniform(3, 10, count) / size * 2
    way = torch.stack([torch.cos(angle), torch.sin(angle)], 1) * length[:, None]
    still = torch.eye(2, 3, device=images.device).expand(count, 2, 3)
    result = torch.zeros_like(images)
    shares = torch.linspace(-0.5, 0.5, 7)
    for share in shares.tolist():
        theta = torch.cat([still[:, :, :2], share * way[..., None]], 2)
        result += F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), padding_mode="border",
                                align_corners=False)
    return result / len(shares)


# JPEG's example tables (ITU-T T.81, annex K.1), which most encoders scale by their quality.
_LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87,
         80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92,
         95, 98, 112, 100, 103, 99)
_CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66) + 38 * (99,)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def compressed(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """What JPEG at a quality (N,) from 1 to 100 leaves of pictures: blocks of 8, chroma at half the size.

    images (N, 3, S, S) with S a multiple of 16. The tables' scale is libjpeg's.
    """
    device = images.device
    to_ycc = torch.tensor(_TO_YCC, device=device)
    ycc = torch.einsum("ab,nbhw->nahw", to_ycc, images * 255) - torch.tensor([128.0, 0, 0], device=device)[:, None, None]
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None, None, None, None] / 100
    frequency, place = torch.arange(8, device=device)[:, None], torch.arange(8, device=device)
    dct = torch.cos((2 * place + 1) * frequency * torch.pi / 16) / 2
    dct[0] /= 2 ** 0.5

    def coded(plane: torch.Tensor, table: tuple[int, ...]) -> torch.Tensor:
        count, channels, height, width = plane.shape
        blocks = plane.reshape(count, channels, height // 8, 8, width // 8, 8).permute(0, 1, 2, 4, 3, 5)
        steps = (torch.tensor(table, device=device, dtype=torch.float32).reshape(8, 8) * scale).clamp(1, 255)
        blocks = dct.T @ (torch.round(dct @ blocks @ dct.T / steps) * steps) @ dct
        return blocks.permute(0, 1, 2, 4, 3, 5).reshape(plane.shape)

    luma = coded(ycc[:, :1], _LUMA)
    chroma = F.interpolate(coded(F.avg_pool2d(ycc[:, 1:], 2), _CHROMA), scale_factor=2, mode="bilinear", align_corners=False)
    both = torch.cat([luma + 128, chroma], 1)
    return (torch.einsum("ab,nbhw->nahw", torch.linalg.inv(to_ycc), both) / 255).clamp(0, 1)
