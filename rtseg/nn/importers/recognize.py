"""Recognition of the network in a checkpoint by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum

from torch import Tensor

from rtseg.core.errors import ModelError


class Family(Enum):
    """Networks that rtseg can build from their weights."""

    FASTAI = "fastai DynamicUnet"
    CLASSIC = "classic U-Net"
    SMP = "segmentation_models.pytorch Unet"


_REQUIRED_NAMES = {
    Family.FASTAI: (r"layers\.4\.shuf\.", r"layers\.0\.4\.0\.conv1\.weight"),
    Family.CLASSIC: (
        r"inc\.(double_conv|conv\.conv)\.0\.weight",
        r"up1\.conv\.(double_)?conv\.\d",
        r"outc\.conv\.weight",
    ),
    Family.SMP: (
        r"encoder\.layer1\.0\.conv1\.weight",
        r"decoder\.blocks\.0\.conv1\.0\.weight",
        r"segmentation_head\.0\.weight",
    ),
}
"""Start of names that every network of a family has. The part before the first of them is the prefix of all names."""

_LOOKS_LIKE = (
    (r"decoder\.blocks\.x_\d_\d\.", "segmentation_models.pytorch's UnetPlusPlus"),
    (r"decoder\.(aspp|fpa|psp|mlp_stage|p5|seg_blocks|mfab)", "a segmentation_models.pytorch network other than Unet"),
    (
        r"segmentation_head\.0\.weight",
        "a segmentation_models.pytorch network with an encoder or decoder that rtseg can't build",
    ),
    (r"layers\.\d+\.shuf\.", "fastai's DynamicUnet over an encoder other than torchvision's ResNet"),
    (r"encoder\.stages\.\d+\.\d+\.convs\.|conv_blocks_context\.|decoder\.seg_layers\.", "nnU-Net"),
    (r"submodule\.|\.conv\.unit\d+\.|upcat_\d|convInit\.conv|input_block\.conv1\.conv", "a MONAI network"),
    (r"segformer\.encoder|decode_head\.linear_c", "SegFormer of Hugging Face transformers"),
    (r"decode_head\.conv_seg|auxiliary_head\.conv_seg", "an MMSegmentation network"),
    (r"backbone\..*", "torchvision's DeepLab, FCN or another network with a backbone"),
    (r"model\.\d+\.cv\d\.|model\.\d+\.m\.\d+\.cv1", "a YOLO network"),
    (r"down_blocks\.\d+\.resnets", "a diffusion model's U-Net"),
    (
        r"(encoder1\.enc1conv1|dconv_down1|down_path\.0\.block|contracting|conv1_block|downs\.0)",
        "a U-Net with custom layer names",
    ),
    (r"(layer1\.0\.conv1\.weight|features\.0\.weight|fc\.weight|classifier\.\d*\.?weight)", "an image classifier"),
)
"""Patterns of names of other networks, the most specific first."""


EXPORT_HINT = (
    "export it to ONNX where it was trained: `torch.onnx.export(model.eval(), (torch.zeros(1, 3, HEIGHT, WIDTH),), "
    "'model.onnx')`, and give rtseg model.onnx"
)
"""End of messages: how to export a network to ONNX."""


def recognize(tensors: Mapping[str, Tensor], origin: str) -> tuple[Family, dict[str, Tensor]]:
    """Return the family of a state dict, and its tensors without the prefix (`module.`, `model.`, `_orig_mod.`, …).

    Raises:
        ModelError: the network is not of a supported family. The message names the likely library and explains the ONNX export.
    """
    # `torch.compile` of a submodule adds `_orig_mod.` in the middle of names.
    plain = {key.replace("_orig_mod.", ""): tensor for key, tensor in tensors.items()}
    for family, required in _REQUIRED_NAMES.items():
        first = re.compile(rf"(?P<prefix>(\w+\.)*?){required[0]}")
        prefix = next((match["prefix"] for match in map(first.match, plain) if match), None)
        if prefix is None:
            continue
        inside = {key[len(prefix) :]: tensor for key, tensor in plain.items() if key.startswith(prefix)}
        if all(any(re.match(pattern, key) for key in inside) for pattern in required):
            _check_single_network(plain, prefix, origin)
            return family, inside
    raise ModelError(f"{origin} {_describe_unsupported(plain)}; {EXPORT_HINT}")


def _describe_unsupported(names: Iterable[str]) -> str:
    """Describe a network with weights of these names, as the rest of a sentence that starts with the file's name."""
    names = list(names)
    for pattern, network in _LOOKS_LIKE:
        if any(re.search(rf"(^|\.){pattern}", name) for name in names):
            return f"looks like {network}, which rtseg can't build from its weights"
    return f"is of a network that rtseg does not support (its weights are named {', '.join(names[:3])}, …)"


def _check_single_network(tensors: Mapping[str, Tensor], prefix: str, origin: str) -> None:
    """Raise ModelError if there is a second network. Tensors of losses and metrics are accepted."""
    others = [
        key
        for key, tensor in tensors.items()
        if not key.startswith(prefix) and tensor.ndim >= 3 and tensor.shape[0] > 1
    ]
    if others:
        raise ModelError(f"{origin} contains more than one network ('{prefix}…' and '{others[0]}'); {EXPORT_HINT}")
