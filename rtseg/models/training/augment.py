"""Augmentation of whole batches with torch operations, on the device of the samples.

Strong changes of brightness and color make a model robust to darker streets, other cameras and other weather.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.core.palette import NO_CLASS

IGNORE = NO_CLASS
"""Label that the loss ignores: Void, and everything outside the image."""


def augment(
    images: Tensor,
    labels: Tensor,
    crop: tuple[int, int],
    label_stride: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.65, 2.1),
) -> tuple[Tensor, Tensor]:
    """Return random crops with random scale, aspect ratio, rotation, mirroring, brightness, color, blur and noise.

    Args:
        images: uint8 `[N, H, W, 3]`, RGB.
        labels: uint8 `[N, H, W]`.
        crop: (height, width) of the result.
        label_stride: ratio of the crop's resolution to that of the returned labels, which are sampled at pixel centers.
        generator: a CPU generator; the same state returns the same batch.
        scale: minimum and maximum zoom.

    Returns:
        Images, float32 `[N, 3, h, w]`, normalized as in `image_to_scores.normalize`, zero outside the source image; and labels,
        int64 `[N, h / label_stride, w / label_stride]`, `IGNORE` outside.
    """
    device, count = images.device, len(images)
    theta = _random_affine(count, (images.shape[1], images.shape[2]), crop, scale, generator).to(device)
    grid = F.affine_grid(theta, [count, 1, *crop], align_corners=False)
    source = images.permute(0, 3, 1, 2).float().div_(255.0)
    x = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)
    x = _vary_colors(x, generator)
    x = (x - 112.0 / 255.0).mul_(255.0 / 64.0)  # as in image_to_scores.normalize
    x.mul_((grid.abs() <= 1.0).all(dim=3).unsqueeze(1))

    if label_stride > 1:  # the same transform, at the resolution of the network's head
        grid = F.affine_grid(theta, [count, 1, crop[0] // label_stride, crop[1] // label_stride], align_corners=False)
    shifted = labels.unsqueeze(1).float().add_(1.0)  # 0 means outside
    y = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False).squeeze(1).long() - 1
    return x.contiguous(memory_format=torch.channels_last), torch.where((y < 0) | (y == IGNORE), IGNORE, y)


def _uniform(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _random_affine(
    count: int, size: tuple[int, int], crop: tuple[int, int], scale: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Return affine maps `[N, 2, 3]` from normalized coordinates of the crop to those of the image."""
    height, width = size
    h, w = crop
    zoom = torch.exp(_uniform(generator, count, math.log(scale[0]), math.log(scale[1])))
    aspect = torch.exp(_uniform(generator, count, -0.15, 0.15))
    zoom_x, zoom_y = zoom * aspect, zoom / aspect
    angle = torch.randn(count, generator=generator) * math.radians(2.0)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    span_x, span_y = w / zoom_x / width, h / zoom_y / height  # size of the crop relative to the image
    # The crop is inside a larger image, and around a smaller one.
    center_x = _uniform(generator, count, -1.0, 1.0) * (1.0 - span_x).abs()
    center_y = _uniform(generator, count, -1.0, 1.0) * (1.0 - span_y).abs()
    cos, sin = torch.cos(angle), torch.sin(angle)
    row_x = torch.stack([mirror * cos * span_x, -sin * span_y * height / width, center_x], dim=1)
    row_y = torch.stack([mirror * sin * span_x * width / height, cos * span_y, center_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def _vary_colors(x: Tensor, generator: torch.Generator) -> Tensor:
    """Apply random gamma, gain, offset, color cast, saturation, blur and noise to images `[N, 3, h, w]` of range 0 to 1."""
    count, device = len(x), x.device

    def uniform(low: float, high: float) -> Tensor:
        return _uniform(generator, count, low, high).view(-1, 1, 1, 1).to(device)

    def random_subset(share: float) -> Tensor:
        return torch.nonzero(torch.rand(count, generator=generator) < share).flatten().to(device)

    blurry = random_subset(0.25)
    if len(blurry):  # blur, or sharpen slightly, by mixing with a blurred copy
        blurred = F.avg_pool2d(
            F.avg_pool2d(x[blurry], 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False
        )
        x[blurry] += (blurred - x[blurry]) * uniform(-0.3, 1.0)[: len(blurry)]

    gamma = torch.exp(uniform(-0.7, 0.7))
    cast = torch.exp(torch.randn((count, 3, 1, 1), generator=generator) * 0.08).to(device)
    gain = torch.exp(uniform(-0.45, 0.35)) * cast
    offset = uniform(-0.08, 0.08)
    saturation = uniform(0.4, 1.5)
    x = x.clamp_(1e-3, 1.0).pow(gamma).mul_(gain).add_(offset)
    gray = x.mean(dim=1, keepdim=True)
    x = gray + (x - gray) * saturation

    noisy = random_subset(0.3)
    if len(noisy):
        strength = uniform(0.0, 0.08)[: len(noisy)]
        seed = int(torch.randint(2**31, (1,), generator=generator))  # large, so generated on the device
        noise = torch.randn(x[noisy].shape, device=device, generator=torch.Generator(device).manual_seed(seed))
        x[noisy] += noise * strength
    return x.clamp_(0.0, 1.0)
