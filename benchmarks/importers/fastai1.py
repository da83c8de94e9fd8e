"""Fixtures of fastai 1's DynamicUnet (Python 3.7).

`pip install torch==1.6.0 torchvision==0.7.0 "numpy<1.21" "pillow<9" scipy pandas matplotlib pyyaml requests packaging
fastprogress==0.2.6 bottleneck numexpr beautifulsoup4 nvidia-ml-py3` and `pip install --no-deps fastai==1.0.61` (its text
half, which needs spaCy, is not used), then run.
"""

import tempfile

import fastai
import torch
from common import image, normalized, record, record_learn_save
from fastai.basic_data import DataBunch
from fastai.basic_train import Learner
from fastai.layers import CrossEntropyFlat, NormType
from fastai.vision import imagenet_stats
from fastai.vision.learner import create_body
from fastai.vision.models.unet import DynamicUnet
from torch import nn
from torch.utils.data import TensorDataset
from torchvision.models import resnet18, resnet34
from torchvision.models.resnet import BasicBlock

LIBRARY = f"fastai {fastai.__version__}"


def normalize(rgb):
    return normalized(rgb, *imagenet_stats)


def unet(arch, classes, height, width, norm_type=None, **options):
    """Build the network like `unet_learner`."""
    body = create_body(arch, pretrained=False)
    return DynamicUnet(body, n_classes=classes, img_size=(height, width), norm_type=norm_type, **options)


def narrow_encoder():
    layers, channels = [nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 8
    for planes, stride in ((8, 1), (8, 2), (16, 2), (16, 2)):
        shortcut = None
        if stride != 1 or channels != planes:
            shortcut = nn.Sequential(nn.Conv2d(channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
        layers.append(nn.Sequential(BasicBlock(channels, planes, stride, shortcut), BasicBlock(planes, planes)))
        channels = planes
    return nn.Sequential(*layers)


def narrow(classes, height, width, norm_type=None, **options):
    encoder = narrow_encoder()
    return DynamicUnet(encoder, n_classes=classes, img_size=(height, width), norm_type=norm_type, **options)


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
    items = TensorDataset(torch.stack([rgb] * 4), torch.stack([labels] * 4))
    model = DynamicUnet(tiny_encoder(), n_classes=4, img_size=(64, 96), norm_type=None)
    with tempfile.TemporaryDirectory() as folder:
        data = DataBunch.create(items, items, bs=2, path=folder, device=torch.device("cpu"), num_workers=0)
        learn = Learner(data, model, loss_func=CrossEntropyFlat(axis=1))
        learn.fit(1)
        record_learn_save("fastai1-learn-save", learn, model, normalize, 64, 96)


if __name__ == "__main__":
    torch.manual_seed(0)
    learn_save()
    record("fastai1-resnet34", unet(resnet34, 11, 96, 128), LIBRARY, 96, 128, normalize, seeds=range(2))
    model = unet(resnet18, 32, 90, 122, self_attention=True, blur=True)
    record("fastai1-resnet18-attention-blur-odd", model, LIBRARY, 90, 122, normalize, {"blur": True}, seeds=range(2))
    for norm in (NormType.Weight, NormType.Batch, NormType.Spectral):
        model = narrow(5, 101, 75, norm_type=norm, self_attention=norm == NormType.Batch)
        record(f"fastai1-narrow-{norm.name.lower()}-norm", model, LIBRARY, 101, 75, normalize)
    record("fastai1-narrow-bottle", narrow(5, 96, 128, bottle=True), LIBRARY, 96, 128, normalize)
    record("fastai1-narrow-no-cross", narrow(5, 96, 128, last_cross=False), LIBRARY, 96, 128, normalize)
