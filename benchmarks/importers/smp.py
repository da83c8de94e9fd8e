"""Fixtures of segmentation_models.pytorch's Unet.

`pip install segmentation_models_pytorch torch==2.12.1 torchvision==0.27.1`, then run. The encoders' mean and standard
deviation, which the library downloads, are ImageNet's for all of its ResNets; they are constants here.
"""

import segmentation_models_pytorch as smp
import torch
from common import IMAGENET_MEAN, IMAGENET_STD, record
from segmentation_models_pytorch.encoders._preprocessing import preprocess_input
from segmentation_models_pytorch.encoders.resnet import ResNetEncoder
from torchvision.models.resnet import BasicBlock

LIBRARY = f"segmentation_models.pytorch {smp.__version__}"


class NarrowEncoder(ResNetEncoder):
    """The library's ResNet with an eighth of the channels after the first convolution, for small files."""

    def _make_layer(self, block, planes, *args, **kwargs):
        return super()._make_layer(block, planes // 8, *args, **kwargs)


NARROW = {"out_channels": [3, 64, 8, 16, 32, 64], "block": BasicBlock, "layers": [2, 2, 2, 2]}
smp.encoders.encoders["narrow"] = {"encoder": NarrowEncoder, "pretrained_settings": {}, "params": NARROW}


def normalize(rgb):
    x = preprocess_input(rgb, IMAGENET_MEAN, IMAGENET_STD, input_space="RGB", input_range=[0, 1])
    return torch.from_numpy(x).permute(2, 0, 1)[None].float()


def record_unet(name, encoder, height, width, classes=5, seeds=range(6), **options):
    """Record a fixture, with `save_pretrained`'s config.json for options that only it contains."""
    model = smp.Unet(encoder, encoder_weights=None, classes=classes, **options)
    extra = {"config": dict(model.config, _model_class="Unet")} if "decoder_interpolation" in options else None
    record(f"smp-{name}", model, LIBRARY, height, width, normalize, extra=extra, seeds=seeds)


if __name__ == "__main__":
    torch.manual_seed(0)
    channels = {"decoder_channels": (64, 32, 32, 16, 16)}
    record_unet("narrow-odd", "narrow", 90, 122, **channels)
    record_unet("narrow-scse", "narrow", 96, 128, decoder_attention_type="scse", **channels)
    bilinear = {"encoder_depth": 3, "decoder_channels": (64, 32, 16), "decoder_interpolation": "bilinear"}
    record_unet("narrow-depth3-bilinear", "narrow", 96, 128, **bilinear)
    record_unet("narrow-no-norm-aux", "narrow", 96, 128, decoder_use_norm=False, aux_params={"classes": 4}, **channels)
    instance_norm = {"type": "instancenorm", "affine": True}
    record_unet("narrow-instance-norm", "narrow", 96, 128, decoder_use_norm=instance_norm, **channels)
    record_unet("narrow-binary", "narrow", 96, 128, classes=1, **channels)
    record_unet("resnet34", "resnet34", 96, 128, classes=11, seeds=range(2))
    record_unet("resnet50", "resnet50", 64, 96, classes=11, seeds=range(2))
    record_unet("resnext50", "resnext50_32x4d", 64, 96, classes=11, seeds=range(2))
