"""Runnable form of the network: uint8 image in, uint8 class map out.

The module contains normalization, padding, the network, upsampling and argmax, so that every runtime has the same input and
output. The first operation on the image and the last operation before the class map are type casts, because TensorRT allows
uint8 only at the edges of a network.
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


class ImageToClasses(nn.Module):
    """Class map of each image, without temporal smoothing.

    Args:
        model: the network, not copied, so that training can validate with it. The data type of its weights is the data type
            of the computation: after `.half()`, everything between normalization and argmax is FP16.
    """

    def __init__(self, model: UNet) -> None:
        super().__init__()
        self.model = model

    def scores(self, image: Tensor) -> Tensor:
        """Compute class scores (logits) at the resolution of the head, `[N, classes, ceil(H / 2), ceil(W / 2)]`."""
        height, width = image.shape[1], image.shape[2]
        x = normalize(image).to(self.model.head.weight.dtype)  # normalization is always FP32
        x = F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE))  # right and bottom, with the mean gray
        scores: Tensor = self.model(x)
        return scores[:, :, : (height + 1) // HEAD_STRIDE, : (width + 1) // HEAD_STRIDE]

    def classes(self, scores: Tensor, image: Tensor) -> Tensor:
        """Return the class map at the size of the image."""
        scores = F.interpolate(scores, scale_factor=float(HEAD_STRIDE), mode="bilinear", align_corners=False)
        return scores[:, :, : image.shape[1], : image.shape[2]].argmax(dim=1).to(torch.uint8)

    def forward(self, image: Tensor) -> Tensor:
        """Map images, uint8 `[N, H, W, 3]` RGB, to classes, uint8 `[N, H, W]`. N, H and W are free."""
        return self.classes(self.scores(image), image)


class SmoothImageToClasses(ImageToClasses):
    """Class map of each frame with temporal smoothing: an exponential moving average of the scores.

    New scores = momentum * scores + (1 - momentum) * scores of the image. Scores are logits, FP16 `[N, classes, ceil(H / 2),
    ceil(W / 2)]`; the average of logits is the geometric mean of the class probabilities. `momentum` is a float32 scalar
    from 0 to 1; with 0 the result equals that of `ImageToClasses`. The caller starts a stream with zeros and momentum 0, and
    passes the scores of each frame to the next frame of the same stream.
    """

    def forward(self, image: Tensor, scores: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Map (image, scores, momentum) to (classes, new scores)."""
        new = self.scores(image)
        momentum = momentum.to(new.dtype)
        mixed = momentum * scores.to(new.dtype) + (1.0 - momentum) * new
        return self.classes(mixed, image), mixed.to(torch.float16)
