"""The U-Net of Ronneberger, Fischer and Brox (2015) as most PyTorch code writes it: double convolutions with padding.

    inc ───────────────────────────── upN ── outc        inc.double_conv.0.weight
      down1 ───────────────── up(N-1)                    down1.maxpool_conv.1.double_conv.0.weight
        …                                                up1.up.weight (transposed convolution; bilinear has none)
          downN ── up1                                   up1.conv.double_conv.0.weight

Any base width and depth; with or without BatchNorm and biases. The same network under the names that it had until 2019
(`inc.conv.conv.0`, `down1.mpconv.1.conv.0`) is read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.core.errors import ModelError
from rtseg.nn.importers.weights import Weights

_OLD_NAMES = (
    (re.compile(r"^inc\.conv\.conv\."), "inc.double_conv."),
    (re.compile(r"^(down\d+)\.mpconv\.1\.conv\."), r"\1.maxpool_conv.1.double_conv."),
    (re.compile(r"^(up\d+)\.conv\.conv\."), r"\1.conv.double_conv."),
)


_LAYERS = re.compile(r"(?P<module>.+\.double_conv|up\d+\.up)\.(?P<rest>(\d+\.)?(weight|bias|running_mean|running_var))")
"""Layers that are alike at all depths: what one of them has, none can lack."""


class DoubleConv(nn.Sequential):
    """Convolutions, each followed by its BatchNorm, if any, and a ReLU."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        names = weights.children()
        for i in names:
            # Only looked at: a weight that is neither a convolution's nor a BatchNorm's, such as PReLU's, stays untaken.
            if f"{i}.weight" in weights and weights.peek(f"{i}.weight").ndim == 4:
                following = str(int(i) + 1)
                has_norm = f"{following}.running_mean" in weights
                self.append(weights.conv(i, norm=following if has_norm else ""))
                self.append(nn.ReLU())


class Up(nn.Module):
    """Doubles the size, pads what an odd size lost, and puts the encoder's features beside it."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.up = weights.transposed_conv("up") if "up.weight" in weights else None
        self.conv = DoubleConv(weights.below("conv.double_conv"))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """`[N, in, h, w]` and `[N, s, 2h or 2h+1, 2w or 2w+1]` -> `[N, out, …]` of the second's size."""
        if self.up is None:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        else:
            x = self.up(x)
        missing_rows, missing_columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]  # 0 or 1
        x = F.pad(x, (0, missing_columns, 0, missing_rows))
        x = self.conv(torch.cat([skip, x], dim=1))
        return x


class ClassicUNet(nn.Module):
    """The network as a whole.

    Args:
        weights: the checkpoint, prefixes stripped, under the names above (see `new_names`).
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        depth = 0
        while weights.has(f"down{depth + 1}"):
            depth += 1
        self.first = DoubleConv(weights.below("inc.double_conv"))
        channels = self.first[0].in_channels
        if channels != 3:
            raise ModelError(f"the network takes images of {channels} channels; rtseg gives it RGB, 3 channels")
        self.down = nn.ModuleList(
            [DoubleConv(weights.below(f"down{i}.maxpool_conv.1.double_conv")) for i in range(1, depth + 1)]
        )
        self.up = nn.ModuleList([Up(weights.below(f"up{i}")) for i in range(1, depth + 1)])
        self.head = weights.conv("outc.conv", biased=True)
        _check_alike(weights)

    @property
    def name(self) -> str:
        """Such as `classic-unet-64-bilinear`, with the width of the first convolution."""
        width = self.first[0].out_channels
        return f"classic-unet-{width}-{'bilinear' if self.up[0].up is None else 'transposed'}"

    def forward(self, image: Tensor) -> Tensor:
        """Scores `[N, classes, H, W]` of an image `[N, 3, H, W]`, 0 to 1, of any size from 2 ** depth up."""
        x = self.first(image)
        skips = []
        for conv in self.down:
            skips.append(x)
            x = conv(F.max_pool2d(x, 2))
        for up in self.up:
            x = up(x, skips.pop())
        scores: Tensor = self.head(x)
        return scores


def _check_alike(weights: Weights) -> None:
    """Raises ModelError where a layer lacks what was taken of the same layer at another depth: nothing else shows that."""
    layers: dict[str, set[str]] = {}
    for key in weights.names():
        if match := _LAYERS.fullmatch(key):
            layers.setdefault(match["module"], set()).add(match["rest"])
    used: dict[tuple[str, ...], set[str]] = {}
    for module, rests in layers.items():
        taken = {rest for rest in rests if weights.is_taken(f"{module}.{rest}")}
        used.setdefault(_kernels(weights, module, rests), set()).update(taken)
    for module, rests in layers.items():
        for rest in sorted(used[_kernels(weights, module, rests)] - rests):
            weights.take(f"{module}.{rest}")


def _kernels(weights: Weights, module: str, rests: set[str]) -> tuple[str, ...]:
    """Where the convolutions of a module stand, which tells one with BatchNorm or Dropout from one without."""
    return tuple(sorted(rest for rest in rests if weights.peek(f"{module}.{rest}").ndim == 4))


def new_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under today's names, where the file has those of 2019 and before."""
    renamed = {}
    for key, tensor in tensors.items():
        for pattern, replacement in _OLD_NAMES:
            key = pattern.sub(replacement, key)
        renamed[key] = tensor
    return renamed
