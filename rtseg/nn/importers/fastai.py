"""DynamicUnet of fastai 1 and 2 with a ResNet encoder, as `unet_learner(dls, resnet34)` builds it.

    layers.0        ResNet                     layers.8   pixel shuffle to the image's size
    layers.1 .2     BatchNorm, ReLU            (layers.9  resize, no weights; fastai 1 has it for odd sizes only)
    layers.3        two convolutions           next       concatenation with the image, residual block (`last_cross`)
    layers.4 to .7  decoder blocks             last       1x1 convolution: the scores

The names in the file determine: the version of fastai (by the pixel shuffle and the residual block), the position of
BatchNorm (before the ReLU in fastai 2, after it in 1), weight and spectral norm, self-attention, `last_cross` and `bottle`.
They do not show `blur=True`, which is an argument.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.nn.importers.resnet import ResNet
from rtseg.nn.importers.weights import Weights


class ConvLayer(nn.Module):
    """Convolution, activation, and optional normalization or self-attention."""

    def __init__(self, weights: Weights, *, relu: bool = True) -> None:
        super().__init__()
        before_relu = "1" if "1.running_mean" in weights else ""
        has_norm = any(i != "0" and not weights.has(f"{i}.query") for i in weights.children())
        self.conv = weights.conv("0", norm=before_relu, biased=not has_norm)
        self.relu = relu
        self.norm: nn.Module = nn.Identity()  # before the ReLU: only InstanceNorm, because BatchNorm is folded
        self.rest = nn.Sequential()
        for i in weights.children():
            if i == "0" or i == before_relu:
                continue
            if weights.has(f"{i}.query"):
                self.rest.append(SelfAttention(weights.below(i)))
            elif i == "1":
                self.norm = weights.norm(i)
            else:
                self.rest.append(weights.norm(i))  # fastai 1 normalizes after the ReLU

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, in, h, w]` to `[N, out, h, w]`."""
        x = self.norm(self.conv(x))
        x = self.rest(F.relu(x) if self.relu else x)
        return x


class SelfAttention(nn.Module):
    """Self-attention over all positions (Zhang, Goodfellow, Metaxas, Odena 2018)."""

    gamma: Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        inner = ".0" if weights.has("query.0") else ""  # fastai 2 wraps each convolution in a ConvLayer
        self.query = weights.conv(f"query{inner}")
        self.key = weights.conv(f"key{inner}")
        self.value = weights.conv(f"value{inner}")
        self.register_buffer("gamma", weights.take("gamma").float())

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, h, w]` to the same shape. Memory use grows with the square of h * w."""
        query, key, value = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))
        weight = F.softmax(query.transpose(1, 2) @ key, dim=1)  # [N, h*w, h*w], each column sums to 1
        attended: Tensor = (value @ weight).reshape(x.shape)
        return self.gamma * attended + x


class PixelShuffle(nn.Module):
    """1x1 convolution, pixel shuffle to twice the height and width, and an optional 2x2 blur."""

    def __init__(self, weights: Weights, *, blur: bool) -> None:
        super().__init__()
        self.conv = ConvLayer(weights.below("conv" if weights.has("conv") else "0"))
        self.blur = blur

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, in, h, w]` to `[N, out, 2h, 2w]`."""
        x = F.pixel_shuffle(self.conv(x), 2)
        if self.blur:
            x = F.avg_pool2d(F.pad(x, (1, 0, 1, 0), mode="replicate"), 2, stride=1)
        return x


class DecoderBlock(nn.Module):
    """Decoder block: upsampling by 2, concatenation with the encoder's features, two convolutions."""

    def __init__(self, weights: Weights, *, blur: bool) -> None:
        super().__init__()
        self.up = PixelShuffle(weights.below("shuf"), blur=blur)
        self.skip_norm = weights.norm("bn")
        self.conv1 = ConvLayer(weights.below("conv1"))
        self.conv2 = ConvLayer(weights.below("conv2"))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map `[N, in, h, w]` and `[N, s, 2h, 2w]` to `[N, out, 2h, 2w]`."""
        x = resize_to(self.up(x), skip)
        x = F.relu(torch.cat([x, self.skip_norm(skip)], dim=1))
        x = self.conv2(self.conv1(x))
        return x


class ResidualBlock(nn.Module):
    """Residual block of two convolutions. The last ReLU is before the sum in fastai 1 and after it in fastai 2."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.relu_after_sum = weights.has("convpath")
        convs = weights.below("convpath" if self.relu_after_sum else "layers")
        self.conv1 = ConvLayer(convs.below("0"))
        self.conv2 = ConvLayer(convs.below("1"), relu=not self.relu_after_sum)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, H, W]` to the same shape."""
        x = x + self.conv2(self.conv1(x))
        return F.relu(x) if self.relu_after_sum else x


class DynamicUnet(nn.Module):
    """DynamicUnet of fastai, from a checkpoint without prefixes."""

    def __init__(self, weights: Weights, *, blur: bool = False) -> None:
        super().__init__()
        layers = weights.below("layers")
        self.encoder = ResNet(layers.below("0"), stem=("0", "1"), stages=("4", "5", "6", "7"))
        self.encoder_norm = layers.norm("1")
        self.middle = nn.Sequential(ConvLayer(layers.below("3.0")), ConvLayer(layers.below("3.1")))
        self.decoder = nn.ModuleList([DecoderBlock(layers.below(i), blur=blur) for i in "4567"])
        self.last_up = PixelShuffle(layers.below("8"), blur=False)
        *cross, head = [i for i in layers.children() if int(i) > 8]
        self.cross = ResidualBlock(layers.below(cross[0])) if cross else None
        self.head = ConvLayer(layers.below(head), relu=False)

    @property
    def name(self) -> str:
        """Name such as `fastai-unet-resnet34-attention`."""
        attention = any(isinstance(module, SelfAttention) for module in self.modules())
        return f"fastai-unet-{self.encoder.name}{'-attention' if attention else ''}"

    def forward(self, image: Tensor) -> Tensor:
        """Map a normalized image `[N, 3, H, W]` of any size to scores `[N, classes, H, W]`."""
        *skips, x = self.encoder(image)
        x = self.middle(F.relu(self.encoder_norm(x)))
        for block in self.decoder:
            x = block(x, skips.pop())
        x = resize_to(self.last_up(x), image)
        if self.cross is not None:
            x = self.cross(torch.cat([x, image], dim=1))
        scores: Tensor = self.head(x)
        return scores


def resize_to(x: Tensor, other: Tensor) -> Tensor:
    """Resize `x` to the height and width of `other`, nearest neighbor. No change for image sizes that are multiples of 32."""
    return F.interpolate(x, size=other.shape[-2:], mode="nearest")
