"""Tells by the names of its weights what network a checkpoint holds, and what those that rtseg can't build look like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum

from torch import Tensor

from rtseg.core.errors import ModelError


class Family(Enum):
    """The networks that rtseg builds from their weights alone."""

    FASTAI = "fastai DynamicUnet"
    CLASSIC = "classic U-Net"
    SMP = "segmentation_models.pytorch Unet"


_MARKS = {
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
"""For each family, how names start that it always has; what stands before the first of them is the prefix of all."""

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
        "a U-Net with layer names of its own",
    ),
    (r"(layer1\.0\.conv1\.weight|features\.0\.weight|fc\.weight|classifier\.\d*\.?weight)", "an image classifier"),
)
"""Names that tell what a checkpoint is of, the most telling first."""


def recognize(tensors: Mapping[str, Tensor], origin: str) -> tuple[Family, dict[str, Tensor]]:
    """The family of a state dict, and its tensors without the prefix (`module.`, `model.`, `_orig_mod.`, …).

    Args:
        tensors: the state dict.
        origin: the file's name, for messages.

    Raises:
        ModelError: no family that rtseg builds; the message says what it looks like and how to come by an ONNX file.
    """
    # `torch.compile` of a part puts `_orig_mod.` into the middle of names too.
    plain = {key.replace("_orig_mod.", ""): tensor for key, tensor in tensors.items()}
    for family, marks in _MARKS.items():
        first = re.compile(rf"(?P<prefix>(\w+\.)*?){marks[0]}")
        prefix = next((match["prefix"] for match in map(first.match, plain) if match), None)
        if prefix is None:
            continue
        inside = {key[len(prefix) :]: tensor for key, tensor in plain.items() if key.startswith(prefix)}
        if all(any(re.match(mark, key) for key in inside) for mark in marks):
            _refuse_more_networks(plain, prefix, origin)
            return family, inside
    raise ModelError(f"{origin} {looks_like(plain)}; {how_to_export()}")


def looks_like(names: Iterable[str]) -> str:
    """What weights of these names look like, as the rest of a sentence that starts with the file's name."""
    names = list(names)
    for pattern, what in _LOOKS_LIKE:
        if any(re.search(rf"(^|\.){pattern}", name) for name in names):
            return f"looks like {what}, which rtseg can't build from its weights"
    return f"is of a network that rtseg does not know (its weights are named {', '.join(names[:3])}, …)"


def how_to_export() -> str:
    """What to do with a network that is not recognized, as the rest of a sentence."""
    return (
        "export it to ONNX where it was trained: `torch.onnx.export(model.eval(), (torch.zeros(1, 3, HEIGHT, WIDTH),), "
        "'model.onnx')`, and give rtseg model.onnx"
    )


def _refuse_more_networks(tensors: Mapping[str, Tensor], prefix: str, origin: str) -> None:
    """A loss's or metric's numbers may lie beside the network, a second network may not."""
    others = [
        key
        for key, tensor in tensors.items()
        if not key.startswith(prefix) and tensor.ndim >= 3 and tensor.shape[0] > 1
    ]
    if others:
        raise ModelError(f"{origin} holds more than one network ('{prefix}…' and '{others[0]}'); {how_to_export()}")
