"""The network as the one function that every runnable model is: uint8 picture in, uint8 class map out.

Normalization, padding, the network, upsampling and argmax are all inside, so that every run-time gets the same bytes and
answers in the same bytes. The first operation on the picture and the last before the class map are type casts: TensorRT
allows uint8 at a network's edge alone.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from rtseg.nn.unet import HEAD_STRIDE, STRIDE, ConvBN, UNet


def normalize(image: Tensor) -> Tensor:
    """uint8 `[N, H, W, 3]` RGB -> float32 `[N, 3, H, W]`, about zero mean and unit variance."""
    return (image.float() - 112.0).mul(1.0 / 64.0).permute(0, 3, 1, 2)


def folded(model: UNet) -> UNet:
    """A copy for inference: every BatchNorm folded into its convolution, no auxiliary heads."""
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
    """The first form: one picture after the other.

    Args:
        model: the network; used as it is, so that training can validate with it. Its type decides the arithmetic's:
            after `.half()` everything between normalization and argmax is FP16.
    """

    def __init__(self, model: UNet) -> None:
        super().__init__()
        self.model = model

    def scores(self, image: Tensor) -> Tensor:
        """Class scores (logits) at the head's size, `[N, classes, ceil(H / 2), ceil(W / 2)]`."""
        height, width = image.shape[1], image.shape[2]
        x = normalize(image).to(self.model.head.weight.dtype)  # normalized in FP32, whatever comes after
        x = F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE))  # right and bottom, with the mean gray
        scores: Tensor = self.model(x)
        return scores[:, :, : (height + 1) // HEAD_STRIDE, : (width + 1) // HEAD_STRIDE]

    def classes(self, scores: Tensor, image: Tensor) -> Tensor:
        """Class map at the image's size."""
        scores = F.interpolate(scores, scale_factor=float(HEAD_STRIDE), mode="bilinear", align_corners=False)
        return scores[:, :, : image.shape[1], : image.shape[2]].argmax(dim=1).to(torch.uint8)

    def forward(self, image: Tensor) -> Tensor:
        """Image, uint8 `[N, H, W, 3]` RGB -> classes, uint8 `[N, H, W]`. H, W and N are free."""
        return self.classes(self.scores(image), image)


class SmoothImageToClasses(ImageToClasses):
    """The second form, for steadier video: what the frames before said is kept in part.

    New scores = keep * scores + (1 - keep) * scores of the image. Scores are logits, FP16 `[N, classes, ceil(H / 2),
    ceil(W / 2)]`, so that `keep` 0 says exactly what the first form says; averaged logits are the geometric mean of the
    class probabilities. `keep` is a float32 scalar, 0 to 1. The caller starts a stream with zeros and `keep` 0, and holds the
    scores from one frame of that stream to the next.
    """

    def forward(self, image: Tensor, scores: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(image, scores, keep) -> (classes, new scores)."""
        new = self.scores(image)
        keep = keep.to(new.dtype)
        mixed = keep * scores.to(new.dtype) + (1.0 - keep) * new
        return self.classes(mixed, image), mixed.to(torch.float16)
