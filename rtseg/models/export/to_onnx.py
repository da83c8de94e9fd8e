"""Export of a trained network to an ONNX file for all backends: FP16, free sizes, with the description in its metadata."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from pathlib import Path

import onnx
import torch

from rtseg.core.errors import ModelError, OptionError
from rtseg.core.files import whole_file
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.models.export.onnx_file import FLOATS
from rtseg.nn.image_to_scores import ImageToScores, fold_batch_norm
from rtseg.nn.unet import HEAD_STRIDE, UNet

OPSET = 18
"""ONNX operator set: TensorRT 10.3 supports it, and it contains all operators that are used."""


def export_onnx(model: UNet, description: ModelInfo, path: Path | str, *, precision: str = "fp16") -> ModelInfo:
    """Export a model to an ONNX file of the model contract (`rtseg.nn.image_to_scores`).

    Args:
        model: the network, not changed.
        description: metadata for the file; `precision` and `head_stride` are filled in.
        path: path of the file. An existing file is replaced when the new one is complete.
        precision: `fp16` (weights and arithmetic except the normalization) or `fp32`. It also sets the precision of TensorRT
            engines.

    Returns:
        The written description.

    Raises:
        OptionError: the precision is unknown.
        ModelError: the description and the network have different numbers of classes, or the exported graph does not follow
            the contract.
    """
    if precision not in ("fp16", "fp32"):
        raise OptionError(f"the precision of an export must be fp16 or fp32, not '{precision}'")
    if len(description.classes) != model.classes:
        raise ModelError(f"the description has {len(description.classes)} classes, the network has {model.classes}")
    path = Path(path)
    description = dataclasses.replace(description, precision=precision, output="scores", head_stride=HEAD_STRIDE)

    module = ImageToScores(
        fold_batch_norm(model).cpu().to(torch.float16 if precision == "fp16" else torch.float32)
    ).eval()
    image = torch.zeros((2, 64, 96, 3), dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns that torchvision, which is not needed, is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            module, (image,), dynamo=True, opset_version=OPSET, dynamic_shapes=({0: free, 1: free, 2: free},),
            input_names=["image"], output_names=["scores"], verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA_KEY: description.to_json()})
    check_contract(proto, str(path))
    with whole_file(path) as partial:
        onnx.save(proto, partial)
    return description


def check_contract(proto: onnx.ModelProto, origin: str) -> None:
    """Check that an ONNX graph follows rtseg's model contract.

    Args:
        proto: the model.
        origin: its file name, for messages.

    Raises:
        ModelError: the model is not valid ONNX, has other inputs or outputs, has fixed sizes, or uses uint8 inside the network.
    """
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{origin}: not valid ONNX ({str(error).splitlines()[0]})") from error
    image, scores = proto.graph.input[0], proto.graph.output[0]
    if image.name != "image" or scores.name != "scores":
        raise ModelError(
            f"{origin}: the input must be 'image' and the output 'scores', not '{image.name}' and '{scores.name}'"
        )
    for value, types, free_axes in ((image, (onnx.TensorProto.UINT8,), (0, 1, 2)), (scores, FLOATS, (0, 2, 3))):
        tensor = value.type.tensor_type
        if tensor.elem_type not in types or len(tensor.shape.dim) != 4:
            raise ModelError(f"{origin}: '{value.name}' has another type than in the contract, or not 4 axes")
        if any(tensor.shape.dim[axis].HasField("dim_value") for axis in free_axes):
            raise ModelError(f"{origin}: the size of '{value.name}' is fixed; it must be free")
    readers = {node.op_type for node in proto.graph.node if image.name in node.input} - {"Shape"}
    if readers != {"Cast"}:
        raise ModelError(f"{origin}: uint8 must be cast at the network's edge, but is connected to {readers}")
