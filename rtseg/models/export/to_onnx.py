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
from rtseg.nn.image_to_classes import ImageToClasses, fold_batch_norm
from rtseg.nn.unet import HEAD_STRIDE, UNet

OPSET = 18
"""ONNX operator set: TensorRT 10.3 supports it, and it contains all operators that are used."""


def export_onnx(
    model: UNet, description: ModelInfo, path: Path | str, *, precision: str = "fp16", smooth: bool = False
) -> ModelInfo:
    """Export a model to an ONNX file of the model contract (`rtseg.nn.image_to_classes`).

    Args:
        model: the network, not changed.
        description: metadata for the file; `precision` and `head_stride` are filled in.
        path: path of the file. An existing file is replaced when the new one is complete.
        precision: `fp16` (weights and arithmetic except the normalization) or `fp32`. It also sets the precision of TensorRT
            engines.
        smooth: export the graph with the inputs `scores` and `momentum` for temporal smoothing; see `smoothing_graph`.

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
    description = dataclasses.replace(description, precision=precision, head_stride=0)

    module = ImageToClasses(
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
            input_names=["image"], output_names=["classes"], verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA_KEY: description.to_json()})
    check_contract(proto, str(path))
    if smooth:
        proto, description = (
            smoothing_graph(proto, str(path)),
            dataclasses.replace(description, head_stride=HEAD_STRIDE),
        )
    save_onnx(proto, path)
    return description


def save_onnx(proto: onnx.ModelProto, path: Path | str) -> None:
    """Write an ONNX file. An existing file is replaced when the new one is complete."""
    with whole_file(Path(path)) as partial:
        onnx.save(proto, partial)


def smoothing_graph(exported: onnx.ModelProto, origin: str) -> onnx.ModelProto:
    """Return the graph of an exported model with temporal smoothing: an exponential moving average of the scores.

    It computes new scores = momentum * scores + (1 - momentum) * scores of the image before upsampling, like
    `rtseg.nn.image_to_classes.SmoothImageToClasses`. The inputs are `image`, `scores` (FP16 `[N, classes, ceil(H / 2), ceil(W /
    2)]`) and `momentum` (float32 scalar), the outputs `classes` and `new_scores`.

    Args:
        exported: a model written by `export_onnx`, not changed.
        origin: its file name, for messages.

    Raises:
        ModelError: it was not exported by rtseg, or has temporal smoothing already.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(exported)
    graph, make = proto.graph, onnx.helper.make_node
    metadata = {entry.key: entry.value for entry in proto.metadata_props}.get(METADATA_KEY)
    resizes = [index for index, node in enumerate(graph.node) if node.op_type == "Resize"]
    if metadata is None or not resizes or len(graph.input) != 1:
        raise ModelError(f"{origin}: temporal smoothing needs a model that rtseg exported without it")
    description = dataclasses.replace(ModelInfo.from_json(metadata, origin), head_stride=HEAD_STRIDE)
    half = onnx.TensorProto.FLOAT16
    kind = half if description.precision == "fp16" else onnx.TensorProto.FLOAT
    upsample = graph.node[resizes[-1]]
    mixing = [
        make("Cast", ["momentum"], ["momentum_cast"], to=kind),
        make("Cast", ["scores"], ["scores_cast"], to=kind),
        make("Constant", [], ["smoothing_one"], value=onnx.helper.make_tensor("one", kind, [], [1.0])),
        make("Sub", ["smoothing_one", "momentum_cast"], ["one_minus_momentum"]),
        make("Mul", ["scores_cast", "momentum_cast"], ["scores_before"]),
        make("Mul", [upsample.input[0], "one_minus_momentum"], ["scores_now"]),
        make("Add", ["scores_before", "scores_now"], ["scores_mixed"]),
        make("Cast", ["scores_mixed"], ["new_scores"], to=half),
    ]
    upsample.input[0] = "scores_mixed"
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes[: resizes[-1]], *mixing, *nodes[resizes[-1] :]])
    shape = ["batch", len(description.classes), "scores_height", "scores_width"]
    graph.input.append(onnx.helper.make_tensor_value_info("scores", half, shape))
    graph.input.append(onnx.helper.make_tensor_value_info("momentum", onnx.TensorProto.FLOAT, []))
    graph.output.append(onnx.helper.make_tensor_value_info("new_scores", half, shape))
    onnx.helper.set_model_props(proto, {METADATA_KEY: description.to_json()})
    check_contract(proto, origin)
    return proto


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
    graph = proto.graph
    image, classes = graph.input[0], graph.output[0]
    if image.name != "image" or classes.name != "classes":
        raise ModelError(
            f"{origin}: the input must be 'image' and the output 'classes', not '{image.name}' and '{classes.name}'"
        )
    for value, rank in ((image, 4), (classes, 3)):
        tensor = value.type.tensor_type
        if tensor.elem_type != onnx.TensorProto.UINT8 or len(tensor.shape.dim) != rank:
            raise ModelError(f"{origin}: '{value.name}' must be uint8 with {rank} axes")
        if any(dim.HasField("dim_value") for dim in tensor.shape.dim[:3]):
            raise ModelError(f"{origin}: the size of '{value.name}' is fixed; it must be free")
    readers = {node.op_type for node in graph.node if image.name in node.input} - {"Shape"}
    writers = {node.op_type for node in graph.node if classes.name in node.output}
    if readers != {"Cast"} or writers != {"Cast"}:
        raise ModelError(
            f"{origin}: uint8 must be cast at the network's edges, but is connected to {readers | writers - {'Cast'}}"
        )
