"""Fixtures of fastai 2's DynamicUnet. `pip install fastai torch==2.12.1 torchvision==0.27.1`, then run."""

import fastai
import torch
from common import image, normalized, record, record_learn_save
from fastai.layers import NormType
from fastai.vision.all import (
    CrossEntropyLossFlat,
    DataLoaders,
    DynamicUnet,
    Learner,
    TensorImage,
    TensorMask,
    create_unet_model,
    imagenet_stats,
)
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50
from torchvision.models.resnet import BasicBlock, Bottleneck

LIBRARY = f"fastai {fastai.__version__}"


def normalize(rgb):
    return normalized(rgb, *imagenet_stats)


def unet(arch, classes, height, width, **options):
    """Build the network like `unet_learner`, without `pretrained` weights, which would be overwritten."""
    return create_unet_model(arch, classes, (height, width), pretrained=False, **options)


def narrow_encoder(block=BasicBlock):
    """Return a ResNet in fastai's layout (torchvision's without its pooling), narrow for small files."""
    layers, channels = [nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 8
    for planes, stride in ((8, 1), (8, 2), (16, 2), (16, 2)):
        out = planes * block.expansion
        shortcut = None
        if stride != 1 or channels != out:
            shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        layers.append(nn.Sequential(block(channels, planes, stride, shortcut), block(out, planes)))
        channels = out
    return nn.Sequential(*layers)


def narrow(classes, height, width, block=BasicBlock, **options):
    return DynamicUnet(narrow_encoder(block), classes, (height, width), **options)


def tiny_encoder():
    layers = [nn.Conv2d(3, 2, 7, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stride in (1, 2, 2, 2):
        shortcut = nn.Sequential(nn.Conv2d(2, 2, 1, stride, bias=False), nn.BatchNorm2d(2)) if stride > 1 else None
        layers.append(nn.Sequential(BasicBlock(2, 2, stride, shortcut)))
    return nn.Sequential(*layers)


def learn_save():
    """Write a file with `learn.save` after two training steps, with the optimizer's state."""
    rgb = normalized(image(64, 96), (0, 0, 0), (1, 1, 1))[0]
    labels = (rgb.sum(dim=0) * 2).long().clamp(0, 3)
    items = [(TensorImage(rgb), TensorMask(labels))] * 4
    model = DynamicUnet(tiny_encoder(), 4, (64, 96))
    learn = Learner(DataLoaders.from_dsets(items, items, bs=2, device="cpu"), model, CrossEntropyLossFlat(axis=1))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    record_learn_save("fastai2-learn-save", learn, model, normalize, 64, 96)


if __name__ == "__main__":
    torch.manual_seed(0)
    learn_save()
    record("fastai2-resnet34", unet(resnet34, 11, 96, 128), LIBRARY, 96, 128, normalize, seeds=range(2))
    h, w = 90, 122
    model = unet(resnet18, 11, h, w, self_attention=True, blur=True)
    record("fastai2-resnet18-attention-blur-odd", model, LIBRARY, h, w, normalize, {"blur": True}, seeds=range(2))
    record("fastai2-narrow-bottleneck-odd", narrow(5, 101, 75, Bottleneck), LIBRARY, 101, 75, normalize)
    for norm in (NormType.Weight, NormType.Batch, NormType.Instance, NormType.Spectral):
        model = narrow(5, 96, 128, norm_type=norm, self_attention=norm == NormType.Weight)
        record(f"fastai2-narrow-{norm.name.lower()}-norm", model, LIBRARY, 96, 128, normalize)
    record("fastai2-narrow-no-cross", narrow(5, 90, 122, last_cross=False), LIBRARY, 90, 122, normalize)
    record("fastai2-resnet50", unet(resnet50, 11, 64, 96), LIBRARY, 64, 96, normalize, seeds=(0,))
