"""Functions that read, check and describe ONNX files, and that fix the shape of their input."""

from __future__ import annotations

import contextlib
import copy
import graphlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from rtseg.core.errors import ModelError, OptionError, reason
from rtseg.core.files import utf8_path
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference.engine_metadata import sha256

FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
"""ONNX's element types that a network may compute in, and the NumPy types of them."""


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file with its weights.

    Raises:
        ModelError: the file is missing or damaged, has weights outside its folder or NaN weights, or uses operators that are
            not part of ONNX.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        if not model.graph.node:
            raise ModelError(f"{path} contains no network: it is empty or not an ONNX file")
        _load_external_data(model, path)
        _check_operators(model, path)
        _sort_nodes(model.graph)
        _check_model(model)
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{path} can't be read: {reason(error)}") from error
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path} is not a valid ONNX model: {error_summary(error)}") from error
    except Exception as error:  # protobuf's DecodeError has no public common base
        raise ModelError(f"{path} is damaged or not an ONNX file ({error_summary(error)})") from error
    for name, tensor in tensors(model.graph):
        if tensor.data_type in FLOATS and np.isnan(numpy_helper.to_array(tensor)).any():
            raise ModelError(
                f"{path}: the weights '{name}' contain NaN; the training diverged, use an earlier checkpoint"
            )
    return model


def contract_description(model: onnx.ModelProto, origin: str) -> ModelInfo | None:
    """Return the description in the metadata of a model of the contract; None for other models.

    Raises:
        ModelError: the description is damaged, or of a newer format.
    """
    inputs, outputs = [i.name for i in image_inputs(model)], [o.name for o in model.graph.output]
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if text is None or inputs != ["image"]:
        return None
    description = ModelInfo.from_json(text, origin)
    return description if outputs == [description.output] else None


def write_description(model: onnx.ModelProto, description: ModelInfo) -> None:
    """Write a description into the metadata of a model."""
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**properties, METADATA_KEY: description.to_json()})


def fix_input(model: onnx.ModelProto, size: tuple[int, int], batch: int) -> onnx.ModelProto:
    """Return a copy of a model of the contract with a fixed input shape.

    Raises:
        OptionError: the input is already fixed to another shape.
    """
    fixed = copy.deepcopy(model)
    set_shape(fixed, image_inputs(fixed)[0], (batch, size[1], size[0], 3))
    return fixed


def set_shape(model: onnx.ModelProto, value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    """Fix the shape of an input and remove all inferred shapes.

    Raises:
        OptionError: the input is already fixed to another shape.
    """
    for current, requested in zip(shape_of(value), shape, strict=True):
        if current is not None and current != requested:
            raise OptionError(
                f"the network's input is fixed to {format_shape(shape_of(value))}, not {format_shape(shape)}; export it with "
                "free sizes"
            )
    for dim, length in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = length
    del model.graph.value_info[:]
    for output in model.graph.output:  # to be inferred again
        for dim in output.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()


def image_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of a model that are not weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [entry for entry in model.graph.input if entry.name not in weights]


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return the lengths of a value's dimensions; None for a free one."""
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)


def format_shape(shape: Sequence[int | None]) -> str:
    """Return a human-readable shape such as `[1, 3, ?, ?]`."""
    return "[" + ", ".join("?" if length is None else str(length) for length in shape) + "]"


def error_summary(error: BaseException) -> str:
    """Return the message of an exception as one line of at most 300 characters, without the context that ONNX appends."""
    text = str(error).split("==> Context")[0]
    return " ".join(text.split())[:300] or type(error).__name__


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name; texts are bytes."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def node_inputs(node: onnx.NodeProto) -> set[str]:
    """Return the names of a node's input tensors, including those of the graphs inside it."""
    inner_nodes = (inner_node for inner in inner_graphs(node) for inner_node in inner.node)
    return {*node.input, *(name for inner_node in inner_nodes for name in node_inputs(inner_node))}


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Replace all nodes of a graph by others, which may be some of its own."""
    copies = onnx.GraphProto(node=nodes).node
    del graph.node[:]
    graph.node.extend(copies)


def keep_needed(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Remove all nodes and weights of a sorted graph that these tensors do not need, in place."""
    needed, kept = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node_inputs(node))
    replace_nodes(graph, reversed(kept))
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in needed]:
        graph.initializer.remove(tensor)


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Sort the nodes of a graph topologically, in place.

    ONNX requires this order, but some converters don't write it, such as ONNX Runtime's FP16 converter. A sorted graph is not
    changed. A graph with a cycle is not changed either, and the check of the model then fails.
    """
    for node in graph.node:
        for inner in inner_graphs(node):
            _sort_nodes(inner)
    producers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    needed = {
        i: {producers[name] for name in node_inputs(node) if name in producers} for i, node in enumerate(graph.node)
    }
    if all(producer < i for i, sources in needed.items() for producer in sources):
        return
    with contextlib.suppress(graphlib.CycleError):
        order = graphlib.TopologicalSorter(needed).static_order()
        replace_nodes(graph, [graph.node[i] for i in order])


def inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Return the graphs in a node's attributes: the branches of an If, or the body of a Loop."""
    return [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs) if graph.node]


def _check_model(model: onnx.ModelProto) -> None:
    """Run ONNX's checker. Outputs without a shape are accepted, as by all runtimes; their shape is inferred later."""
    types = [output.type.tensor_type for output in model.graph.output if output.type.HasField("tensor_type")]
    shapeless = [tensor_type for tensor_type in types if not tensor_type.HasField("shape")]
    for tensor_type in shapeless:
        tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    for tensor_type in shapeless:
        tensor_type.ClearField("shape")


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Raise ModelError if an operator is not part of ONNX: operators of other domains run in one program only."""
    known = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) not in known and not (domain == "" and onnx.defs.has(node.op_type)):
            name = f"{domain}.{node.op_type}" if domain else node.op_type
            raise ModelError(
                f"{path}: operator {name} (node '{node.name}') is not part of ONNX; export the model without it"
            )


def tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Yield all weights of a graph and of the graphs inside it, with their names."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                yield node.output[0] if node.output else node.name, tensor
            for inner in (attribute.g, *attribute.graphs):
                yield from tensors(inner)


def external_files(path: Path) -> list[Path]:
    """Return the external weight files of an ONNX file, sorted by name; none if the ONNX file is damaged.

    Raises:
        ModelError: the ONNX file can't be read.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {reason(error)}") from error
    except Exception:  # protobuf's DecodeError has no public common base; `read_onnx` reports the damage
        return []
    names = {_location(tensor) for _, tensor in tensors(model.graph) if tensor.data_location == TensorProto.EXTERNAL}
    return sorted(path.parent / name for name in names if name)


def source_hash(path: Path) -> str:
    """Return the SHA-256 of all files of a model: its file or folder, and the external weight files of an ONNX file.

    Raises:
        ModelError: a file can't be read.
    """
    digest = sha256(path)
    files = (
        [file for file in external_files(path) if file.is_file()] if path.suffix == ".onnx" and path.is_file() else []
    )
    if not files:
        return digest
    return hashlib.sha256("\0".join([digest, *(f"{file.name} {sha256(file)}" for file in files)]).encode()).hexdigest()


def _location(tensor: TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Load external weights. They must be in the folder of the model, so that an untrusted model can't read other files.

    Symbolic links are resolved. If the model is a link, the folder of its target is allowed too, because Hugging Face's cache
    stores both files there. ONNX Runtime has the same rule. The onnx package refuses links, so it gets the resolved file.
    """
    folder = path.parent.resolve()
    allowed_folders = (folder, path.resolve().parent)
    for name, tensor in tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = _location(tensor)
        linked = Path(os.path.normpath(folder / location))
        if Path(location).is_absolute() or not linked.is_relative_to(folder) or not location:
            raise ModelError(f"{path}: the weights '{name}' point outside its folder, to '{location}'; refused")
        file = linked.resolve()
        if not file.is_file():
            raise ModelError(f"{path}: its weights file '{location}' is missing; copy both files")
        if not any(file.is_relative_to(allowed) for allowed in allowed_folders):
            raise ModelError(
                f"{path}: its weights file '{location}' is a link to {file}, outside its folder; copy both files, "
                "not the links: cp -L"
            )
        next(entry for entry in tensor.external_data if entry.key == "location").value = file.name
        try:
            with utf8_path(file.parent) as parent:
                load_external_data_for_tensor(tensor, str(parent))
        except onnx.checker.ValidationError as error:
            if file.stat().st_nlink < 2:
                raise
            raise ModelError(
                f"{path}: its weights file '{location}' has hard links, which onnx refuses; copy the file"
            ) from error
