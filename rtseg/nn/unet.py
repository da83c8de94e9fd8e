"""The network: a U-Net made for FP16 tensor cores and for CPUs, small enough for live video.

    image [N, 3, H, W]
      stem    1/2   32 ─────────────────────────────────────────┐ 1x1
      stage 2 1/4   64 ─────────────────────────────────┐ 1x1   │
      stage 3 1/8  128 ─────────────────────────┐ 1x1   │       │
      stage 4 1/16 192 ─────────────────┐ 1x1   │       │       │
      stage 5 1/32 256 ── context ── up 128 ── up 96 ── up 64 ── up 16 ── head: scores [N, classes, H/2, W/2]

(widths of `small`). It differs from the U-Net of Ronneberger, Fischer and Brox (2015) where that made it faster at the
same accuracy: skips are added after a 1x1 convolution instead of concatenated, blocks are residual, and the head stands at
half the input's size. Everything is a dense convolution with BatchNorm that folds into it, ReLU, or nearest-neighbor
upsampling, so that every run-time has fast kernels for it. H and W must be multiples of 32; `rtseg.nn.image_to_classes` pads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.core.errors import OptionError

STRIDE = 32
"""Height and width of the network's input must be multiples of this."""

HEAD_STRIDE = 2
"""The scores are the input's size divided by this."""


@dataclass(frozen=True)
class Variant:
    """Sizes of one network of the family."""

    widths: tuple[int, int, int, int, int]
    """Channels of the encoder's stages at strides 2, 4, 8, 16 and 32."""

    depths: tuple[int, int, int, int, int]
    """3x3 convolutions in each of these stages; the first of each halves the size."""

    decoder: tuple[int, int, int, int]
    """Channels of the decoder's steps at strides 16, 8, 4 and 2."""


VARIANTS = {
    "nano": Variant((16, 32, 48, 96, 128), (1, 2, 2, 3, 2), (64, 48, 32, 16)),
    "small": Variant((32, 64, 128, 192, 256), (1, 2, 3, 3, 2), (128, 96, 64, 16)),
    "medium": Variant((32, 96, 192, 256, 384), (1, 2, 4, 5, 3), (192, 128, 96, 32)),
}
"""0.8, 3.6 and 9.8 billion multiplications for one 480x360 image, padding included."""


class ConvBN(nn.Sequential):
    """A convolution without bias and its BatchNorm, which `fuse_conv_bn_eval` folds into it at export."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels_out),
        )


class Residual(nn.Module):
    """A 3x3 convolution that learns what to add to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBN(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> the same."""
        return F.relu(x + self.conv(x))


class Stage(nn.Module):
    """One step of the encoder: a convolution that halves the size, then residual ones."""

    def __init__(self, channels_in: int, channels_out: int, depth: int) -> None:
        super().__init__()
        self.down = ConvBN(channels_in, channels_out, stride=2)
        self.blocks = nn.Sequential(*[Residual(channels_out) for _ in range(depth - 1)])

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, h, w] -> [N, out, h/2, w/2]."""
        x = self.blocks(F.relu(self.down(x)))
        return x


class Context(nn.Module):
    """Tells every position what the whole picture shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = ConvBN(channels, channels, kernel=1)
        self.whole = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> the same."""
        mean = x.mean(dim=(2, 3), keepdim=True)  # [N, C, 1, 1]
        return F.relu(self.local(x) + self.whole(mean))


class Up(nn.Module):
    """One step of the decoder: twice the size, the skip added, and a 3x3 convolution to mix them."""

    def __init__(self, channels_in: int, channels_skip: int, channels_out: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.lateral = nn.Conv2d(channels_skip, channels_out, 1)
        self.mix = ConvBN(channels_out, channels_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """[N, in, h, w] and the skip [N, skip, 2h, 2w] -> [N, out, 2h, 2w]."""
        x = F.interpolate(self.reduce(x), scale_factor=2.0, mode="nearest")  # reduced first: a quarter of the work
        x = F.relu(x + self.lateral(skip))
        return F.relu(self.mix(x))


class UNet(nn.Module):
    """Normalized image in, class scores at half its size out.

    Args:
        classes: number of classes.
        variant: a name in `VARIANTS`.

    Raises:
        OptionError: no such variant.
    """

    def __init__(self, classes: int, variant: str = "small") -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise OptionError(f"no network '{variant}'; there are {', '.join(VARIANTS)}")
        self.classes = classes
        self.variant = variant
        sizes = VARIANTS[variant]
        w, d = sizes.widths, sizes.depths
        self.encoder = nn.ModuleList([Stage(i, o, n) for i, o, n in zip((3, *w[:-1]), w, d, strict=True)])
        self.context = Context(w[4])
        self.decoder = nn.ModuleList(
            [Up(i, s, o) for i, s, o in zip((w[4], *sizes.decoder[:-1]), w[3::-1], sizes.decoder, strict=True)]
        )
        self.head = nn.Conv2d(sizes.decoder[3], classes, 1)
        # Training aids at strides 16 and 8, as in PSPNet; `forward` alone never uses them, so exports do not hold them.
        self.aux_heads = nn.ModuleList([nn.Conv2d(width, classes, 1) for width in sizes.decoder[:2]])
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Residual):  # a residual block starts as the identity
                nn.init.zeros_(next(module.conv[1].parameters()))
        for head in (self.head, *self.aux_heads):
            nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(self.context.whole.weight)

    def features(self, x: Tensor) -> list[Tensor]:
        """What the decoder's steps give, at strides 16, 8, 4 and 2, of an image `[N, 3, H, W]`."""
        skips = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)  # strides 2, 4, 8, 16, 32
        x = self.context(skips.pop())
        steps = []
        for up in self.decoder:
            x = up(x, skips.pop())
            steps.append(x)
        return steps

    def forward(self, x: Tensor) -> Tensor:
        """Scores `[N, classes, H/2, W/2]` of a normalized image `[N, 3, H, W]`, H and W multiples of 32."""
        scores: Tensor = self.head(self.features(x)[-1])
        return scores

    def forward_with_aux(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same scores, and those of the auxiliary heads, `[N, classes, H/16, W/16]` and `[N, classes, H/8, W/8]`."""
        steps = self.features(x)
        return self.head(steps[-1]), [head(step) for head, step in zip(self.aux_heads, steps, strict=False)]
