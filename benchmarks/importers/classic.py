"""Fixtures of the classic U-Net, Milesial's Pytorch-UNet (GitHub only, not on PyPI).

`pip install torch==2.12.1`, `git clone https://github.com/milesial/Pytorch-UNet`, then
`PYTHONPATH=Pytorch-UNet python classic.py`. The fixtures were made with the copies of its `unet/` in
Adeykin/Pytorch-UNet@e09d1b7 (`unet_parts.py`) and @85ea66f (`UNet` in `unet_model.py`).
"""

import torch
from common import normalized, record
from torch import nn
from unet.unet_model import UNet
from unet.unet_parts import DoubleConv, Down, OutConv, Up

LIBRARY = "milesial/Pytorch-UNet"


def normalize(rgb):
    return normalized(rgb, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Narrow(UNet):
    """The same forward pass and modules with another base width."""

    def __init__(self, width, classes, bilinear):
        nn.Module.__init__(self)
        factor = 2 if bilinear else 1
        w = [width * 2**i for i in range(5)]
        self.inc = DoubleConv(3, w[0])
        self.down1, self.down2, self.down3 = Down(w[0], w[1]), Down(w[1], w[2]), Down(w[2], w[3])
        self.down4 = Down(w[3], w[4] // factor)
        self.up1, self.up2 = Up(w[4], w[3] // factor, bilinear), Up(w[3], w[2] // factor, bilinear)
        self.up3, self.up4 = Up(w[2], w[1] // factor, bilinear), Up(w[1], w[0], bilinear)
        self.outc = OutConv(w[0], classes)


def with_biases(model):
    """Add a bias before each BatchNorm, as in the library until 2022."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))
    return model


if __name__ == "__main__":
    torch.manual_seed(0)
    record("classic-64-bilinear", UNet(3, 11, bilinear=True), LIBRARY, 96, 128, normalize, seeds=range(2))
    record("classic-64-transposed-odd", UNet(3, 2, bilinear=False), LIBRARY, 70, 93, normalize, seeds=range(2))
    record("classic-16-bilinear-odd", with_biases(Narrow(16, 5, True)), LIBRARY, 101, 75, normalize)
    record("classic-12-transposed-binary", with_biases(Narrow(12, 1, False)), LIBRARY, 96, 128, normalize)
