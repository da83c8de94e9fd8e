"""U-Net of Ronneberger, Fischer and Brox (2015) in its common PyTorch form: double convolutions with padding.

    inc ───────────────────────────── upN ── outc        inc.double_conv.0.weight
      down1 ───────────────── up(N-1)                    down1.maxpool_conv.1.double_conv.0.weight
        …                                                up1.up.weight (transposed convolution; bilinear has none)
          downN ── up1                                   up1.conv.double_conv.0.weight

Any base width and depth, with or without BatchNorm and biases. The names that this network had until 2019
(`inc.conv.conv.0`, `down1.mpconv.1.conv.0`) are supported too.
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

_LAYERS = re.compile(r"(?P<module>.+\.double_conv|up\d+\.up)\.(?P<name>(\d+\.)?(weight|bias|running_mean|running_var))")
"""Layers that have the same tensors at all depths."""


class DoubleConv(nn.Sequential):
    """Convolutions, each followed by BatchNorm, if any, and ReLU."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        for i in weights.children():
            # Peek only: a weight of another layer, such as PReLU, must be reported as unused.
            if f"{i}.weight" in weights and weights.peek(f"{i}.weight").ndim == 4:
                following = str(int(i) + 1)
                has_norm = f"{following}.running_mean" in weights
                self.append(weights.conv(i, norm=following if has_norm else ""))
                self.append(nn.ReLU())


class Up(nn.Module):
    """Decoder step: upsampling by 2, padding for odd sizes, concatenation with the encoder's features, double convolution."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        if "up.weight" in weights:
            self.up = weights.transposed_conv("up")
        self.conv = DoubleConv(weights.below("conv.double_conv"))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map `[N, in, h, w]` and `[N, s, 2h or 2h+1, 2w or 2w+1]` to `[N, out, …]` with the size of the second."""
        x = self.up(x)
        missing_rows, missing_columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]  # 0 or 1
        x = F.pad(x, (0, missing_columns, 0, missing_rows))
        x = self.conv(torch.cat([skip, x], dim=1))
        return x


class ClassicUNet(nn.Module):
    """Classic U-Net, from a checkpoint without prefixes and with the names above (see `rename_legacy_keys`)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        depth = 0
        while weights.has(f"down{depth + 1}"):
            depth += 1
        self.first = DoubleConv(weights.below("inc.double_conv"))
        channels = self.first[0].in_channels
        if channels != 3:
            raise ModelError(f"the network takes images of {channels} channels; rtseg provides RGB, 3 channels")
        self.down = nn.ModuleList(
            [DoubleConv(weights.below(f"down{i}.maxpool_conv.1.double_conv")) for i in range(1, depth + 1)]
        )
        self.up = nn.ModuleList([Up(weights.below(f"up{i}")) for i in range(1, depth + 1)])
        self.head = weights.conv("outc.conv", biased=True)
        _check_same_layers(weights)

    @property
    def name(self) -> str:
        """Name such as `classic-unet-64-bilinear`, with the width of the first convolution."""
        width = self.first[0].out_channels
        return f"classic-unet-{width}-{'bilinear' if isinstance(self.up[0].up, nn.Upsample) else 'transposed'}"

    def forward(self, image: Tensor) -> Tensor:
        """Map an image `[N, 3, H, W]` of range 0 to 1 to scores `[N, classes, H, W]`. H and W are at least 2 ** depth."""
        x = self.first(image)
        skips = []
        for conv in self.down:
            skips.append(x)
            x = conv(F.max_pool2d(x, 2))
        for up in self.up:
            x = up(x, skips.pop())
        scores: Tensor = self.head(x)
        return scores


def _check_same_layers(weights: Weights) -> None:
    """Raise ModelError if a layer has no tensor of a name that was taken from the same layer at another depth.

    Optional tensors, such as biases, are otherwise silently missing.
    """
    layers: dict[str, set[str]] = {}
    for key in weights.names():
        if match := _LAYERS.fullmatch(key):
            layers.setdefault(match["module"], set()).add(match["name"])
    used: dict[tuple[str, ...], set[str]] = {}
    for module, names in layers.items():
        taken = {name for name in names if weights.is_taken(f"{module}.{name}")}
        used.setdefault(_kernels(weights, module, names), set()).update(taken)
    for module, names in layers.items():
        for name in sorted(used[_kernels(weights, module, names)] - names):
            weights.take(f"{module}.{name}")  # raises ModelError


def _kernels(weights: Weights, module: str, names: set[str]) -> tuple[str, ...]:
    """Return the names of a module's convolutions. Their positions differ with BatchNorm or Dropout between them."""
    return tuple(sorted(name for name in names if weights.peek(f"{module}.{name}").ndim == 4))


def rename_legacy_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under their current names. Names from 2019 and before are replaced."""
    renamed = {}
    for key, tensor in tensors.items():
        for pattern, replacement in _OLD_NAMES:
            key = pattern.sub(replacement, key)
        renamed[key] = tensor
    return renamed
