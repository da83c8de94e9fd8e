"""U-Net for FP16 tensor cores and CPUs, small enough for live video.

    image [N, 3, H, W]
      stem    1/2   32 ─────────────────────────────────────────┐ 1x1
      stage 2 1/4   64 ─────────────────────────────────┐ 1x1   │
      stage 3 1/8  128 ─────────────────────────┐ 1x1   │       │
      stage 4 1/16 192 ─────────────────┐ 1x1   │       │       │
      stage 5 1/32 256 ── context ── up 128 ── up 96 ── up 64 ── up 16 ── head: scores [N, classes, H/2, W/2]

(widths of `small`). It differs from the U-Net of Ronneberger, Fischer and Brox (2015) where a change made it faster at the
same accuracy: skips are added after a 1x1 convolution instead of concatenated, blocks are residual, and the head is at half
the resolution of the input. The only layers are dense convolutions with BatchNorm that folds into them, ReLU, and
nearest-neighbor upsampling, for which every runtime has fast kernels. H and W must be multiples of 32;
`rtseg.nn.image_to_scores` pads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.core.errors import OptionError

STRIDE = 32
"""Required divisor of the height and width of the network's input."""

HEAD_STRIDE = 2
"""Ratio of the input resolution to the resolution of the scores."""


@dataclass(frozen=True)
class Variant:
    """Layer sizes of one variant of the network."""

    widths: tuple[int, int, int, int, int]
    """Channels of the encoder stages at strides 2, 4, 8, 16 and 32."""

    depths: tuple[int, int, int, int, int]
    """Number of 3x3 convolutions in each encoder stage; the first has stride 2."""

    decoder: tuple[int, int, int, int]
    """Channels of the decoder steps at strides 16, 8, 4 and 2."""


VARIANTS = {
    "nano": Variant((16, 32, 48, 96, 128), (1, 2, 2, 3, 2), (64, 48, 32, 16)),
    "small": Variant((32, 64, 128, 192, 256), (1, 2, 3, 3, 2), (128, 96, 64, 16)),
    "medium": Variant((32, 96, 192, 256, 384), (1, 2, 4, 5, 3), (192, 128, 96, 32)),
}
"""Variants by name: 0.8, 3.6 and 9.8 billion multiplications per 480x360 image, padding included."""


class ConvBN(nn.Sequential):
    """Convolution without bias, followed by BatchNorm. `fuse_conv_bn_eval` folds the two at export."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(channels_out),
        )


class Residual(nn.Module):
    """Residual block with one 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBN(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, h, w]` to the same shape."""
        return F.relu(x + self.conv(x))


class Stage(nn.Module):
    """Encoder stage: a convolution of stride 2, then residual blocks."""

    def __init__(self, channels_in: int, channels_out: int, depth: int) -> None:
        super().__init__()
        self.down = ConvBN(channels_in, channels_out, stride=2)
        self.blocks = nn.Sequential(*[Residual(channels_out) for _ in range(depth - 1)])

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, in, h, w]` to `[N, out, h/2, w/2]`."""
        x = self.blocks(F.relu(self.down(x)))
        return x


class Context(nn.Module):
    """Global context: adds a projection of the mean over all positions to each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = ConvBN(channels, channels, kernel=1)
        self.whole = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, C, h, w]` to the same shape."""
        mean = x.mean(dim=(2, 3), keepdim=True)  # [N, C, 1, 1]
        return F.relu(self.local(x) + self.whole(mean))


class Up(nn.Module):
    """Decoder step: upsampling by 2, addition of the skip connection, and a 3x3 convolution."""

    def __init__(self, channels_in: int, channels_skip: int, channels_out: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.lateral = nn.Conv2d(channels_skip, channels_out, 1)
        self.mix = ConvBN(channels_out, channels_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map `[N, in, h, w]` and the skip connection `[N, skip, 2h, 2w]` to `[N, out, 2h, 2w]`."""
        x = self.reduce(x)  # before upsampling: a quarter of the work
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = F.relu(x + self.lateral(skip))
        return F.relu(self.mix(x))


class UNet(nn.Module):
    """U-Net that maps a normalized image to class scores at half its resolution.

    Args:
        classes: number of classes.
        variant: a name in `VARIANTS`.

    Raises:
        OptionError: there is no such variant.
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
        # Auxiliary heads at strides 16 and 8, as in PSPNet. `forward` does not use them, so exports do not contain them.
        self.aux_heads = nn.ModuleList([nn.Conv2d(width, classes, 1) for width in sizes.decoder[:2]])
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, Residual):  # starts as the identity
                nn.init.zeros_(next(module.conv[1].parameters()))
        for head in (self.head, *self.aux_heads):
            nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(self.context.whole.weight)

    def features(self, x: Tensor) -> list[Tensor]:
        """Compute the decoder's feature maps at strides 16, 8, 4 and 2 for an image `[N, 3, H, W]`."""
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
        """Map a normalized image `[N, 3, H, W]` to scores `[N, classes, H/2, W/2]`. H and W must be multiples of 32."""
        scores: Tensor = self.head(self.features(x)[-1])
        return scores

    def forward_with_aux(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the scores and those of the auxiliary heads, `[N, classes, H/16, W/16]` and `[N, classes, H/8, W/8]`."""
        steps = self.features(x)
        return self.head(steps[-1]), [head(step) for head, step in zip(self.aux_heads, steps, strict=False)]
