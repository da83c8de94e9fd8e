"""From the trained network to an ONNX file that every backend runs: half precision, free sizes, its description inside."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from pathlib import Path

import onnx
import torch

from rtseg.core.errors import ModelError, OptionError
from rtseg.core.files import create_partial
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.nn.image_to_classes import ImageToClasses, fold_batch_norm
from rtseg.nn.unet import HEAD_STRIDE, UNet

OPSET = 18
"""Old enough for TensorRT 10.3 and new enough for every operation used."""


def export_onnx(
    model: UNet, description: ModelInfo, path: Path | str, *, precision: str = "fp16", smooth: bool = False
) -> ModelInfo:
    """Writes a model as ONNX that follows the model contract (`rtseg.nn.image_to_classes`).

    Args:
        model: the network; not changed.
        description: goes into the file's metadata with `precision` and `head_stride` filled in.
        path: the file; replaced when the new one is whole.
        precision: `fp16` (weights and arithmetic, normalization aside) or `fp32`. TensorRT takes precision from here alone.
        smooth: the second form, with `scores` and `momentum`, for temporal smoothing; see `smoothing_graph`.

    Returns:
        The description as written.

    Raises:
        OptionError: no such precision.
        ModelError: the classes are not as many as the network's, or the export does not follow the contract.
    """
    if precision not in ("fp16", "fp32"):
        raise OptionError(f"no precision '{precision}' in an exported model; there are fp16 and fp32")
    if len(description.classes) != model.classes:
        raise ModelError(f"the description names {len(description.classes)} classes, the network has {model.classes}")
    path = Path(path)
    description = dataclasses.replace(description, precision=precision, head_stride=0)

    module = ImageToClasses(fold_batch_norm(model).cpu().to(torch.float16 if precision == "fp16" else torch.float32)).eval()
    image = torch.zeros((2, 64, 96, 3), dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision, which is not needed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            module, (image,), dynamo=True, opset_version=OPSET, dynamic_shapes=({0: free, 1: free, 2: free},),
            input_names=["image"], output_names=["classes"], verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {METADATA_KEY: description.to_json()})
    check_contract(proto, str(path))
    if smooth:
        proto, description = smoothing_graph(proto, str(path)), dataclasses.replace(description, head_stride=HEAD_STRIDE)
    save_onnx(proto, path)
    return description


def save_onnx(proto: onnx.ModelProto, path: Path | str) -> None:
    """Writes an ONNX file; replaces the file when the new one is whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = create_partial(path)
    onnx.save(proto, partial)
    partial.replace(path)


def smoothing_graph(first: onnx.ModelProto, origin: str) -> onnx.ModelProto:
    """The second form of an exported model, for steadier video: what the frames before said is kept in part.

    The same graph, with new scores = keep * scores + (1 - keep) * scores of the image put in before upsampling, as
    `contract.SmoothImageToClasses` does it. Inputs `image`, `scores` (FP16 `[N, classes, ceil(H / 2), ceil(W / 2)]`) and `momentum`
    (float32 scalar); outputs `classes` and `new_scores` (ONNX has no two values of one name).

    Args:
        first: what `export_onnx` wrote; not changed.
        origin: its file name, for messages.

    Raises:
        ModelError: it is no such model.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(first)
    graph, make = proto.graph, onnx.helper.make_node
    described = {entry.key: entry.value for entry in proto.metadata_props}.get(METADATA_KEY)
    resizes = [index for index, node in enumerate(graph.node) if node.op_type == "Resize"]
    if described is None or not resizes or len(graph.input) != 1:
        raise ModelError(f"{origin}: only a model that rtseg exported, of the first form, has a second")
    description = dataclasses.replace(ModelInfo.from_json(described, origin), head_stride=HEAD_STRIDE)
    half = onnx.TensorProto.FLOAT16
    kind = half if description.precision == "fp16" else onnx.TensorProto.FLOAT
    upsample = graph.node[resizes[-1]]
    mixing = [
        make("Cast", ["momentum"], ["momentum_cast"], to=kind),
        make("Cast", ["scores"], ["scores_cast"], to=kind),
        make("Constant", [], ["keep_all"], value=onnx.helper.make_tensor("one", kind, [], [1.0])),
        make("Sub", ["keep_all", "momentum_cast"], ["keep_rest"]),
        make("Mul", ["scores_cast", "momentum_cast"], ["scores_before"]),
        make("Mul", [upsample.input[0], "keep_rest"], ["scores_now"]),
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
    """Whether an ONNX graph is of rtseg's model contract, as far as a graph shows it.

    Args:
        proto: the model.
        origin: the file's name, for messages.

    Raises:
        ModelError: invalid ONNX, other inputs or outputs, fixed sizes, or uint8 reaching further in than a cast.
    """
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{origin}: not valid ONNX ({str(error).splitlines()[0]})") from error
    graph = proto.graph
    image, classes = graph.input[0], graph.output[0]
    if image.name != "image" or classes.name != "classes":
        raise ModelError(f"{origin}: goes from '{image.name}' to '{classes.name}', not from 'image' to 'classes'")
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
            f"{origin}: uint8 must be cast at the network's edges, but meets {readers | writers - {'Cast'}}"
        )
