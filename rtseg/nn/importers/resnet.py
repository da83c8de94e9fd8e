"""ResNet encoder without classifier (He, Zhang, Ren, Sun 2015), as in torchvision; the weights determine depth and width."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.core.errors import ModelError
from rtseg.nn.importers.weights import Weights


class Block(nn.Module):
    """Residual block: two 3x3 convolutions (basic) or 1x1, 3x3, 1x1 (bottleneck), and a shortcut."""

    def __init__(self, weights: Weights, stride: int) -> None:
        super().__init__()
        self.bottleneck = "conv3.weight" in weights
        # torchvision applies the stride in the 3x3 convolution of a bottleneck ("ResNet v1.5"), else in the first convolution.
        strides = {"conv1": 1, "conv2": stride, "conv3": 1} if self.bottleneck else {"conv1": stride, "conv2": 1}
        self.convs = nn.ModuleList()
        channels = 0
        for i, (name, conv_stride) in enumerate(strides.items(), start=1):
            conv = weights.conv(name, norm=f"bn{i}", stride=conv_stride, channels_in=channels)
            channels = conv.out_channels
            self.convs.append(conv)
        self.shortcut: nn.Module = nn.Identity()
        if weights.has("downsample"):
            self.shortcut = weights.conv("downsample.0", norm="downsample.1", stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, in, h, w]` to `[N, out, h/stride, w/stride]`."""
        shortcut = self.shortcut(x)
        *first, last = self.convs
        for conv in first:
            x = F.relu(conv(x))
        return F.relu(last(x) + shortcut)


class ResNet(nn.Module):
    """ResNet as the encoder of a U-Net. `stem` names the first convolution and its BatchNorm."""

    def __init__(self, weights: Weights, stem: tuple[str, str], stages: Sequence[str]) -> None:
        super().__init__()
        self.stem = weights.conv(stem[0], norm=stem[1], stride=2)
        if self.stem.in_channels != 3:
            channels = self.stem.in_channels
            raise ModelError(f"the network takes images of {channels} channels; rtseg provides RGB, 3 channels")
        self.stages = nn.ModuleList()
        for i, stage in enumerate(stages):
            blocks = weights.below(stage)
            numbers = blocks.children()
            if numbers != [str(n) for n in range(max(1, len(numbers)))]:
                raise ModelError(
                    f"stage '{stage}' of the encoder is missing, or a part of it: the file is incomplete or of another architecture"
                )
            self.stages.append(
                nn.Sequential(*[Block(blocks.below(n), stride=2 if i > 0 and n == "0" else 1) for n in numbers])
            )

    @property
    def name(self) -> str:
        """Name such as `resnet34` or `resnext50`. The number counts layers with weights, including the classifier."""
        blocks = [block for stage in self.stages for block in stage]  # type: ignore[attr-defined]
        middle = blocks[0].convs[1]
        family = "resnext" if middle.groups > 1 else "resnet"
        return f"{family}{len(blocks[0].convs) * len(blocks) + 2}"

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute features at strides 2, 4, 8, 16 and 32 of an image `[N, 3, H, W]`. Each stride rounds odd sizes up."""
        x = F.relu(self.stem(x))
        features = [x]
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
