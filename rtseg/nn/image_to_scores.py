"""Runnable form of the network: uint8 image in, class scores out.

The module contains normalization, padding and the network, so that every runtime has the same input and output. The first
operation on the image is a type cast, because TensorRT allows uint8 only at the edges of a network.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rtseg.nn.unet import HEAD_STRIDE, STRIDE, ConvBN, UNet


def normalize(image: Tensor) -> Tensor:
    """Normalize uint8 `[N, H, W, 3]` RGB to float32 `[N, 3, H, W]` with about zero mean and unit variance."""
    return (image.float() - 112.0).mul(1.0 / 64.0).permute(0, 3, 1, 2)


def fold_batch_norm(model: UNet) -> UNet:
    """Return a copy for inference: each BatchNorm folded into its convolution, auxiliary heads removed."""
    model = copy.deepcopy(model).eval()
    model.aux_heads = nn.ModuleList()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, ConvBN):
                convolution, norm = child
                assert isinstance(convolution, nn.Conv2d)
                assert isinstance(norm, nn.BatchNorm2d)
                setattr(module, name, fuse_conv_bn_eval(convolution, norm))
    return model


class ImageToScores(nn.Module):
    """Class scores of each image.

    Args:
        model: the network, not copied, so that training can validate with it. The data type of its weights is the data type
            of the computation: after `.half()`, everything after the normalization is FP16.
    """

    def __init__(self, model: UNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Map images, uint8 `[N, H, W, 3]` RGB, of any size to scores (logits), `[N, classes, ceil(H / 2), ceil(W / 2)]`."""
        height, width = image.shape[1], image.shape[2]
        x = normalize(image).to(self.model.head.weight.dtype)  # normalization is always FP32
        x = F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE))  # right and bottom, with the mean gray
        scores: Tensor = self.model(x)
        return scores[:, :, : (height + 1) // HEAD_STRIDE, : (width + 1) // HEAD_STRIDE]

    def classes(self, image: Tensor) -> Tensor:
        """Return class maps, uint8 `[N, H, W]`, of images, upsampled by torch: for validation on the device of the training."""
        scores = F.interpolate(self(image), scale_factor=float(HEAD_STRIDE), mode="bilinear", align_corners=False)
        return scores[:, :, : image.shape[1], : image.shape[2]].argmax(dim=1).to(torch.uint8)
