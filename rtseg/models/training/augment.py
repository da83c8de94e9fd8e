"""Augmentation of a whole batch in torch operations, on the device where the samples are.

Strong changes of light are what carries a model over to darker streets, other cameras and other weather.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.core.palette import NO_CLASS

IGNORE = NO_CLASS
"""The label that no loss counts: Void, and everything outside the picture."""


def augment(
    images: Tensor,
    labels: Tensor,
    crop: tuple[int, int],
    label_stride: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.65, 2.1),
) -> tuple[Tensor, Tensor]:
    """Random crops under random scale, aspect, rotation, mirror, light, color, blur and noise.

    Args:
        images: uint8 `[N, H, W, 3]`, RGB.
        labels: uint8 `[N, H, W]`.
        crop: (height, width) of what comes out.
        label_stride: labels come out at the crop's size divided by this, taken at the centers of these larger pixels.
        generator: a CPU generator; the same state gives the same batch.
        scale: the smallest and largest enlargement.

    Returns:
        Normalized pictures as `contract.normalize` gives them, float32 `[N, 3, h, w]`, zero outside the picture, and labels, int64
        `[N, h / label_stride, w / label_stride]`, `IGNORE` outside.
    """
    device, count = images.device, len(images)
    theta = _placement(count, (images.shape[1], images.shape[2]), crop, scale, generator).to(device)
    grid = F.affine_grid(theta, [count, 1, *crop], align_corners=False)
    source = images.permute(0, 3, 1, 2).float().div_(255.0)
    x = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
    x = _light(x, generator)
    x = (x - 112.0 / 255.0).mul_(255.0 / 64.0)  # as unet.normalize
    x.mul_((grid.abs() <= 1.0).all(dim=3).unsqueeze(1))

    if label_stride > 1:  # the same places, at the centers of the head's larger pixels
        grid = F.affine_grid(theta, [count, 1, crop[0] // label_stride, crop[1] // label_stride], align_corners=False)
    shifted = labels.unsqueeze(1).float().add_(1.0)  # 0 means outside
    y = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False).squeeze(1).long() - 1
    return x.contiguous(memory_format=torch.channels_last), torch.where((y < 0) | (y == IGNORE), IGNORE, y)


def _uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _placement(
    count: int, size: tuple[int, int], crop: tuple[int, int], scale: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Affine maps `[N, 2, 3]` from the crop's normalized coordinates to the picture's."""
    height, width = size
    h, w = crop
    zoom = torch.exp(_uniform(generator, count, math.log(scale[0]), math.log(scale[1])))
    aspect = torch.exp(_uniform(generator, count, -0.15, 0.15))
    zoom_x, zoom_y = zoom * aspect, zoom / aspect
    angle = torch.randn(count, generator=generator) * math.radians(2.0)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    span_x, span_y = w / zoom_x / width, h / zoom_y / height  # the crop's share of the picture
    # Inside the picture where it is larger than the crop, around it where it is smaller.
    center_x = _uniform(generator, count, -1.0, 1.0) * (1.0 - span_x).abs()
    center_y = _uniform(generator, count, -1.0, 1.0) * (1.0 - span_y).abs()
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([mirror * cos * span_x, -sin * span_y * height / width, center_x], dim=1)
    row_y = torch.stack([mirror * sin * span_x * width / height, cos * span_y, center_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _light(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, gain, offset, color cast, saturation, blur and noise on pictures `[N, 3, h, w]` of range 0 to 1."""
    count, device = len(x), x.device

    def each(low: float, high: float) -> Tensor:
        return _uniform(generator, count, low, high).view(-1, 1, 1, 1).to(device)

    def some(share: float) -> Tensor:
        return torch.nonzero(torch.rand(count, generator=generator) < share).flatten().to(device)

    soft = some(0.25)
    if len(soft):  # blur, or sharpen a little, by mixing with a blurred copy
        blurred = F.avg_pool2d(
            F.avg_pool2d(x[soft], 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False
        )
        x[soft] += (blurred - x[soft]) * each(-0.3, 1.0)[: len(soft)]

    gamma = torch.exp(each(-0.7, 0.7))
    cast = torch.exp(torch.randn((count, 3, 1, 1), generator=generator) * 0.08).to(device)
    gain = torch.exp(each(-0.45, 0.35)) * cast
    offset = each(-0.08, 0.08)
    saturation = each(0.4, 1.5)
    x = x.clamp_(1e-3, 1.0).pow(gamma).mul_(gain).add_(offset)
    gray = x.mean(dim=1, keepdim=True)
    x = gray + (x - gray) * saturation

    noisy = some(0.3)
    if len(noisy):
        strength = each(0.0, 0.08)[: len(noisy)]
        seed = int(torch.randint(2**31, (1,), generator=generator))  # drawn where the pictures are: the only large draw
        noise = torch.randn(x[noisy].shape, device=device, generator=torch.Generator(device).manual_seed(seed))
        x[noisy] += noise * strength
    return x.clamp_(0.0, 1.0)
