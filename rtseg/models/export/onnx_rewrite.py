"""Rewrites of ONNX graphs by existing libraries: a newer operator set, folding of BatchNorm, conversion to FP16."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, numpy_helper

from rtseg.core.errors import ModelError
from rtseg.models.export.onnx_file import attributes_of, error_summary, inner_graphs
from rtseg.models.export.onnx_session import create_session
from rtseg.models.export.requirements import require

KEPT_IN_FP32 = ("InstanceNormalization", "GroupNormalization", "LayerNormalization")
"""Operators that stay FP32: statistics over a whole plane overflow or lose small differences in FP16."""

QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
"""Operators that accept FP16 since operator set 19."""

_REAL = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_OF_WEIGHTS = {"Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Add", "Sub", "Mul", "Div"}
"""Operators that converters write between a stored weight and its consumer."""


def upgrade_opset(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Convert a model to operator set 13 or newer, in which `Resize` has sizes and `Squeeze` has its axes as an input.

    Raises:
        ModelError: the model can't be converted.
    """
    version = opset(model)
    if version >= 13:
        return model
    for node in model.graph.node:
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3]:
            node.input[2] = ""  # before 13 the scales were required, and empty if there were sizes
    try:
        converted = onnx.version_converter.convert_version(model, 13)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError
        raise ModelError(
            f"{path} uses operator set {version} and can't be converted to 13 ({error_summary(error)}); export it again"
        ) from error
    if version < 11:  # before 11 the coordinate mode was fixed, and the converter does not write it
        for node in converted.graph.node:
            if node.op_type == "Resize":
                kept = [attribute for attribute in node.attribute if attribute.name == "mode"]
                del node.attribute[:]
                node.attribute.extend(kept)
                node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
                node.attribute.append(onnx.helper.make_attribute("nearest_mode", "floor"))
    return converted


def add_prefix(model: onnx.ModelProto, prefix: str) -> None:
    """Prepend a prefix to all names of tensors, in place.

    `onnx.compose.add_prefix` does not rename the outer tensors that the branches of an If use.
    """
    pending, names = [model.graph], set()
    while pending:
        graph = pending.pop()
        names |= {entry.name for entry in (*graph.input, *graph.initializer)}
        names |= {name for node in graph.node for name in node.output if name}
        pending += [inner for node in graph.node for inner in inner_graphs(node)]
    rename(model.graph, {name: prefix + name for name in names})


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors in a graph and in the graphs inside it, in place."""
    for entry in (*graph.input, *graph.initializer, *graph.output):
        entry.name = names.get(entry.name, entry.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in inner_graphs(node):
            rename(inner, names)


def constants_to_initializers(model: onnx.ModelProto) -> None:
    """Convert Constant nodes, and nodes such as Cast that only have weights as inputs, to initializers, in place.

    Later steps search for weights only in the initializers.
    """
    graph = model.graph
    results = {output.name for output in graph.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        known = bool(node.input) or node.op_type == "Constant"
        known = known and all(name in weights for name in node.input) and results.isdisjoint(node.output)
        tensor = _stored(node, weights, opset(model)) if known else None
        if tensor is None:
            kept.append(node)
        else:
            weights[tensor.name] = tensor
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights.values())
    inputs = [entry for entry in graph.input if entry.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # before 4 each weight had to be an input too


def _stored(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], version: int) -> onnx.TensorProto | None:
    """Return the constant output of a node whose inputs are all weights; None for operators that are not evaluated here."""
    if node.op_type == "Constant":
        if node.attribute[0].name in ("value_string", "value_strings", "sparse_value"):
            return None
    elif node.op_type != "Identity":
        real = node.op_type in _OF_WEIGHTS and weights[node.input[0]].data_type in _REAL
        if not real or attributes_of(node).get("to", TensorProto.FLOAT) not in _REAL:
            return None
    arrays = {name: numpy_helper.to_array(weights[name]) for name in node.input}
    inputs = [onnx.helper.make_tensor_value_info(name, weights[name].data_type, None) for name in arrays]
    graph = onnx.helper.make_graph([node], "weights", inputs, [onnx.ValueInfoProto(name=node.output[0])])
    single_node = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    (result,) = onnx.reference.ReferenceEvaluator(single_node).run(None, arrays)
    return numpy_helper.from_array(np.asarray(result), node.output[0])


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the ONNX operator set that a model uses."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def fold_batch_norm(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Fold each BatchNorm into the convolution before it, with ONNX Runtime's basic optimizations.

    FP16 models are returned unchanged, because ONNX Runtime would insert a cast to FP32 before each of their operators.

    Raises:
        ModelError: ONNX Runtime can't load the model.
    """
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    if half or not any(node.op_type == "BatchNormalization" for node in model.graph.node):
        return model
    with tempfile.TemporaryDirectory(prefix="rtseg-build-") as folder:
        optimized = Path(folder) / "folded.onnx"
        create_session(model.SerializeToString(), str(path), level="ORT_ENABLE_BASIC", optimized=optimized)
        folded = onnx.load(optimized)
    foreign = [node.domain for node in folded.graph.node if node.domain not in ("", "ai.onnx")]
    return model if foreign else folded


def to_half(model: onnx.ModelProto, fp32_nodes: Sequence[str] = ()) -> onnx.ModelProto:
    """Convert weights and arithmetic to FP16 with ONNX Runtime's converter.

    The operators in `KEPT_IN_FP32`, and before operator set 19 those in `QUANTIZING`, stay FP32.

    Args:
        model: an FP32 model; changed.
        fp32_nodes: names of nodes that stay FP32.
    """
    require("onnxruntime")
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FP32, *(QUANTIZING if opset(model) < 19 else ())]
    half: onnx.ModelProto = convert_float_to_float16(model, op_block_list=blocked, node_block_list=list(fp32_nodes))
    OnnxModel(half).topological_sort()  # the converter appends its casts at the end, which is not valid ONNX
    return half


def preprocessing_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the normalization nodes between `image` and the network. Nodes without a name get one."""
    weights = {tensor.name for tensor in model.graph.initializer}
    known, names = {"image"}, []
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        inputs = {name for name in node.input if name and name not in weights}
        if inputs and inputs <= known and node.op_type in ("Cast", "Transpose", "Sub", "Add", "Mul", "Div"):
            known.update(node.output)
            names.append(node.name)
    return names


def cast_classes_via_float(model: onnx.ModelProto) -> onnx.ModelProto:
    """Insert a cast of the class indices to FP32 before their cast to uint8, in place. FP32 is exact for all 255 of them.

    TensorRT documents conversions to uint8 "only for float32, float16" (`DataType` in 10.3 to 11.4), while the table of its
    `Cast` operator allows all types. This cast follows both documents.
    """
    for index, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == "Cast" and "classes" in node.output:
            indices = node.input[0]
            node.input[0] = "rtseg/classes_float"
            cast = onnx.helper.make_node(
                "Cast", [indices], [node.input[0]], "rtseg/classes_float", to=onnx.TensorProto.FLOAT
            )
            model.graph.node.insert(index, cast)
            break
    return model
