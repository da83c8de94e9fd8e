"""`Unet` of segmentation_models.pytorch with a ResNet or ResNeXt encoder.

encoder.conv1 … encoder.layer4      torchvision's ResNet
decoder.blocks.0 … .4               upsample, concatenate the skip, two 3x3 convolutions, optional scSE attention
segmentation_head.0                 3x3 convolution: the scores
classification_head                 `aux_params`; not used here
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.core.errors import ModelError
from rtseg.nn.importers.fastai import ConvLayer
from rtseg.nn.importers.resnet import ResNet
from rtseg.nn.importers.weights import Weights

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area", "nearest-exact")
"""Values of `decoder_interpolation`. The files of `save_pretrained` record it, plain state dicts do not."""


class ScSE(nn.Module):
    """Attention over channels and over positions (Roy, Navab, Wachinger 2018)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.squeeze = weights.conv("cSE.1", biased=True)
        self.excite = weights.conv("cSE.3", biased=True)
        self.position = weights.conv("sSE.0", biased=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, h, w]` to the same shape."""
        channel = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True)))))
        return x * channel + x * torch.sigmoid(self.position(x))


class DecoderBlock(nn.Module):
    """Decoder block: concatenation with the skip connection, two convolutions, optional attention."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.attention1 = ScSE(weights.below("attention1.attention")) if weights.has("attention1") else nn.Identity()
        self.conv1 = ConvLayer(weights.below("conv1"))
        self.conv2 = ConvLayer(weights.below("conv2"))
        self.attention2 = ScSE(weights.below("attention2.attention")) if weights.has("attention2") else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Map `[N, in, h, w]` and the skip connection `[N, s, h, w]`, if any, to `[N, out, h, w]`. The last block has none."""
        if skip is not None:
            x = self.attention1(torch.cat([x, skip], dim=1))
        x = self.attention2(self.conv2(self.conv1(x)))
        return x


class SmpUnet(nn.Module):
    """U-Net of segmentation_models.pytorch, from a checkpoint without prefixes. `interpolation` is one of `INTERPOLATIONS`."""

    def __init__(self, weights: Weights, *, interpolation: str = "nearest") -> None:
        super().__init__()
        if interpolation not in INTERPOLATIONS:
            raise ModelError(f"decoder_interpolation '{interpolation}' is not one of {', '.join(INTERPOLATIONS)}")
        self.interpolation = interpolation
        stages = ("layer1", "layer2", "layer3", "layer4")
        self.encoder = ResNet(weights.below("encoder"), stem=("conv1", "bn1"), stages=stages)
        blocks = weights.below("decoder.blocks")
        self.decoder = nn.ModuleList([DecoderBlock(blocks.below(i)) for i in blocks.children()])
        self.head = weights.conv("segmentation_head.0", biased=True)
        # With `encoder_depth` below 5 the file contains the deepest stages, but the network does not use them.
        self.depth = len(self.decoder)
        if not 1 <= self.depth <= 5:
            raise ModelError(f"the decoder has {self.depth} blocks; segmentation_models.pytorch has 3 to 5")
        self.name = f"smp-unet-{self.encoder.name}"
        self.encoder.stages = self.encoder.stages[: self.depth - 1]
        weights.ignore("classification_head")

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalized image `[N, 3, H, W]` of any size to scores `[N, classes, H, W]`."""
        *skips, x = self.encoder(image)
        for block in self.decoder:
            skip = skips.pop() if skips else None
            larger = image if skip is None else skip
            x = F.interpolate(x, size=larger.shape[-2:], mode=self.interpolation)
            x = block(x, skip)
        scores: Tensor = self.head(x)
        return scores
