"""ONNX graphs rewritten by kept libraries: a newer operator set, BatchNorm folded, half precision."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, numpy_helper

from rtseg.core.errors import ModelError
from rtseg.models.export.onnx_file import inner_graphs, error_summary
from rtseg.models.export.requirements import require

KEPT_IN_FP32 = ("InstanceNormalization", "GroupNormalization", "LayerNormalization")
"""Statistics over a whole plane overflow or lose their small differences in half precision."""


QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
"""Take half precision from operator set 19 on."""

_NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
_REAL = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_OF_WEIGHTS = {"Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Add", "Sub", "Mul", "Div"}
"""What converters leave between a stored weight and the node that takes it."""


def modern(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The model in an operator set that has `Resize` by sizes and `Squeeze` by input."""
    version = opset(model)
    if version >= 13:
        return model
    for node in model.graph.node:
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3]:
            node.input[2] = ""  # before 13 the scales were always there, empty beside sizes
    try:
        converted = onnx.version_converter.convert_version(model, 13)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError
        raise ModelError(
            f"{path} is of operator set {version} and can't be brought to 13 ({error_summary(error)}); export it anew"
        ) from error
    if version < 11:  # before 11 there was one way to upsample, which the converter does not write down
        for node in converted.graph.node:
            if node.op_type == "Resize":
                kept = [attribute for attribute in node.attribute if attribute.name == "mode"]
                del node.attribute[:]
                node.attribute.extend(kept)
                node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
                node.attribute.append(onnx.helper.make_attribute("nearest_mode", "floor"))
    return converted


def add_prefix(model: onnx.ModelProto, prefix: str) -> None:
    """Puts a prefix before all names of tensors. (`onnx.compose.add_prefix` forgets those that an If takes from around it.)"""
    level, names = [model.graph], set()
    while level:
        graph = level.pop()
        names |= {entry.name for entry in (*graph.input, *graph.initializer)}
        names |= {name for node in graph.node for name in node.output if name}
        level += [inner for node in graph.node for inner in inner_graphs(node)]
    rename(model.graph, {name: prefix + name for name in names})


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Gives tensors other names, in the graphs inside too."""
    for entry in (*graph.input, *graph.initializer, *graph.output):
        entry.name = names.get(entry.name, entry.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in inner_graphs(node):
            rename(inner, names)


def constants_to_initializers(model: onnx.ModelProto) -> None:
    """Makes initializers of all weights, also of those in Constant nodes and of those that a step such as Cast makes of others.

    What is asked of the weights later (how many are FP16, which become FP16 or INT8) is asked of initializers. Changes the model.
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
            tensor.name = node.output[0]
            weights[tensor.name] = tensor
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights.values())
    given = [entry for entry in graph.input if entry.name not in weights]
    del graph.input[:]
    graph.input.extend(given)
    model.ir_version = max(model.ir_version, 4)  # before 4 each weight had to be an input too


def _stored(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto], version: int) -> onnx.TensorProto | None:
    """What a node makes of weights alone; None: it may make something else, or something large."""
    tensor = onnx.TensorProto()
    if node.op_type == "Constant":
        attribute = node.attribute[0]
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            tensor.CopyFrom(value)
        elif attribute.name in _NUMBERS:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, _NUMBERS[attribute.name])))
        else:  # text, or a sparse tensor
            return None
    elif node.op_type == "Identity":
        tensor.CopyFrom(weights[node.input[0]])
    elif node.op_type in _OF_WEIGHTS and weights[node.input[0]].data_type in _REAL:
        if node.op_type == "Cast" and next(a.i for a in node.attribute if a.name == "to") not in _REAL:
            return None
        arrays = {name: numpy_helper.to_array(weights[name]) for name in node.input}
        inputs = [onnx.helper.make_tensor_value_info(name, weights[name].data_type, None) for name in arrays]
        graph = onnx.helper.make_graph([node], "weights", inputs, [onnx.ValueInfoProto(name=node.output[0])])
        alone = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
        (result,) = onnx.reference.ReferenceEvaluator(alone).run(None, arrays)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(result)))
    else:
        return None
    return tensor


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that a model uses."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def fold_batch_norm(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """BatchNorm into the convolution before it, by ONNX Runtime's basic optimizations.

    An FP32 model's alone: of a half precision model ONNX Runtime makes one that casts to FP32 before each operation.
    """
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    if half or not any(node.op_type == "BatchNormalization" for node in model.graph.node):
        return model
    require("onnxruntime")
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="rtseg-build-") as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise ModelError(f"{path}: ONNX Runtime can't load it ({error_summary(error)})") from error
        folded = onnx.load(options.optimized_model_filepath)
    foreign = [node.domain for node in folded.graph.node if node.domain not in ("", "ai.onnx")]
    return model if foreign else folded


def to_half(model: onnx.ModelProto, keep: Sequence[str] = ()) -> onnx.ModelProto:
    """Weights and arithmetic in half precision, by ONNX Runtime's converter, save for `KEPT_IN_FP32`, `QUANTIZING` and `keep`.

    Args:
        model: an FP32 model; changed.
        keep: names of nodes that stay FP32.
    """
    require("onnxruntime")
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    blocked = [*DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FP32, *(QUANTIZING if opset(model) < 19 else ())]
    half: onnx.ModelProto = convert_float_to_float16(model, op_block_list=blocked, node_block_list=list(keep))
    OnnxModel(half).topological_sort()  # the converter puts its casts last, which is no valid ONNX
    return half


def preprocessing_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes between `image` and the first that computes with weights: the normalization. Unnamed ones get names."""
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
    """Casts class indices to FP32 before they become uint8; exact for all 255 of them. Changes the model.

    TensorRT documents conversions to uint8 "only for float32, float16" (`DataType` in 10.3 to 11.4), while the table of its
    `Cast` operator allows all. Newer versions take integers; this is right by either text.
    """
    for index, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == "Cast" and "classes" in node.output:
            given = node.input[0]
            node.input[0] = "rtseg/classes_float"
            cast = onnx.helper.make_node(
                "Cast", [given], [node.input[0]], "rtseg/classes_float", to=onnx.TensorProto.FLOAT
            )
            model.graph.node.insert(index, cast)
            break
    return model
