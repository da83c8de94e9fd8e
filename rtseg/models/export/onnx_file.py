"""ONNX files: read and checked, asked what they are, given a fixed input and a description."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

from rtseg.core.errors import ModelError, OptionError
from rtseg.core.files import utf8_path
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference.engine_metadata import sha256

FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
"""ONNX's element types that a network can compute in here, and NumPy's."""


def read_onnx(path: Path) -> onnx.ModelProto:
    """Reads and checks an ONNX file with its weights.

    Raises:
        ModelError: missing, damaged, weights outside its folder or not finite, or operators that ONNX does not know.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        if not model.graph.node:
            raise ModelError(f"{path} holds no network: it is not an ONNX file, or an empty one")
        _load_external_data(model, path)
        _check_operators(model, path)
        _sort_nodes(model.graph)
        _check_model(model)
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path} is not a valid ONNX model: {error_summary(error)}") from error
    except Exception as error:  # protobuf's DecodeError has no public common base
        raise ModelError(f"{path} is damaged or not an ONNX file ({error_summary(error)})") from error
    for name, tensor in _tensors(model.graph):
        if tensor.data_type in FLOATS and np.isnan(numpy_helper.to_array(tensor)).any():
            raise ModelError(f"{path}: the weights '{name}' hold NaN; the training diverged, use an earlier checkpoint")
    return model


def contract_description(model: onnx.ModelProto, origin: str) -> ModelInfo | None:
    """What a model that follows the contract says of itself; None for any other model.

    Raises:
        ModelError: the description is damaged, or of a newer format.
    """
    inputs, outputs = [i.name for i in image_inputs(model)], [o.name for o in model.graph.output]
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if text is None or inputs != ["image"] or outputs != ["classes"]:
        return None
    return ModelInfo.from_json(text, origin)


def describe(model: onnx.ModelProto, description: ModelInfo) -> None:
    """Writes what the model says of itself into its metadata."""
    for entry in list(model.metadata_props):
        if entry.key == METADATA_KEY:
            model.metadata_props.remove(entry)
    model.metadata_props.add(key=METADATA_KEY, value=description.to_json())


def fix_input(model: onnx.ModelProto, size: tuple[int, int], batch: int) -> onnx.ModelProto:
    """A copy of a model of the contract whose input has one fixed shape.

    Raises:
        OptionError: the model's input is fixed to another shape already.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    set_shape(fixed, image_inputs(fixed)[0], (batch, size[1], size[0], 3))
    return fixed


def set_shape(model: onnx.ModelProto, value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    """Fixes an input's shape, and forgets all shapes that were inferred before.

    Raises:
        OptionError: it is fixed to another shape already.
    """
    for have, want in zip(shape_of(value), shape, strict=True):
        if have is not None and have != want:
            raise OptionError(
                f"the network's input is fixed to {format_shape(shape_of(value))}, not {format_shape(shape)}; export it with free sizes"
            )
    for dim, length in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = length
    del model.graph.value_info[:]
    for output in model.graph.output:  # inferred anew
        for dim in output.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.Clear()


def image_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What the model is given at run time: its inputs without those that are weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [entry for entry in model.graph.input if entry.name not in weights]


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Lengths of a value's dimensions; None where one is free."""
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)


def format_shape(shape: Sequence[int | None]) -> str:
    """A shape for people: `[1, 3, ?, ?]`."""
    return "[" + ", ".join("?" if length is None else str(length) for length in shape) + "]"


def error_summary(error: BaseException) -> str:
    """A long native message on one line, without the context that ONNX repeats below it."""
    text = str(error).split("==> Context")[0]
    return " ".join(text.split())[:300] or type(error).__name__


def node_inputs(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node takes, those of the graphs inside it included."""
    inside = (step for inner in inner_graphs(node) for step in inner.node)
    return {*node.input, *(name for step in inside for name in node_inputs(step))}


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts each node behind those that it takes from, as the standard asks and not every converter writes (ONNX Runtime's for
    half precision). Changes only a graph that is not in order; nodes in a circle stay last, for the check."""
    for node in graph.node:
        for inner in inner_graphs(node):
            _sort_nodes(inner)
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waits = [{makers[name] for name in node_inputs(node) if name in makers} for node in graph.node]
    if all(before < i for i, needs in enumerate(waits) for before in needs):
        return
    takers: list[list[int]] = [[] for _ in waits]
    for i, needs in enumerate(waits):
        for before in needs:
            takers[before].append(i)
    ready = [i for i, needs in enumerate(waits) if not needs]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for i in takers[order[-1]]:
            waits[i].remove(order[-1])
            if not waits[i]:
                heapq.heappush(ready, i)
    circle = set(range(len(waits))) - set(order)
    copy = onnx.GraphProto()
    copy.node.extend(graph.node[i] for i in (*order, *sorted(circle)))
    del graph.node[:]
    graph.node.extend(copy.node)


def inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs in a node's attributes: the branches of an If, the body of a Loop."""
    return [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs) if graph.node]


def _check_model(model: onnx.ModelProto) -> None:
    """ONNX's own check. Outputs without a shape pass, as in every program that runs them: their shape is found later."""
    free = [output.type.tensor_type for output in model.graph.output if output.type.HasField("tensor_type")]
    free = [kind for kind in free if not kind.HasField("shape")]
    for kind in free:
        kind.shape.SetInParent()
    onnx.checker.check_model(model)
    for kind in free:
        kind.ClearField("shape")


def _check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Every operator must be one of ONNX's own: those of other domains run in one program alone."""
    known = {(function.domain, function.name) for function in model.functions}
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) not in known and not (domain == "" and onnx.defs.has(node.op_type)):
            name = f"{domain}.{node.op_type}" if domain else node.op_type
            raise ModelError(
                f"{path}: operator {name} (node '{node.name}') is none of ONNX's own; export the model without it"
            )


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """All weights of a graph and the graphs inside it, with their names."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                yield node.output[0] if node.output else node.name, tensor
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def external_files(path: Path) -> list[Path]:
    """The files that hold weights of an ONNX file, in its folder, by name; none where it is damaged or holds its own.

    Raises:
        ModelError: it can't be read.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    except Exception:  # protobuf's DecodeError has no public common base: `read_onnx` says what is wrong with the file
        return []
    names = {_location(tensor) for _, tensor in _tensors(model.graph) if tensor.data_location == TensorProto.EXTERNAL}
    return sorted(path.parent / name for name in names if name)


def source_hash(path: Path) -> str:
    """SHA-256 of all that a model consists of: `engine_file.sha256` of its file or folder, and the weights beside an ONNX file.

    Raises:
        ModelError: a file can't be read.
    """
    own = sha256(path)
    files = (
        [file for file in external_files(path) if file.is_file()] if path.suffix == ".onnx" and path.is_file() else []
    )
    if not files:
        return own
    return hashlib.sha256("\0".join([own, *(f"{file.name} {sha256(file)}" for file in files)]).encode()).hexdigest()


def _location(tensor: TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Reads weights in other files. They must lie in the model's own folder: a model from elsewhere must not read what it likes.

    A link counts as what it leads to. Where the model is one too, the folder that it leads to is its own as well: Hugging
    Face's cache keeps both files there. ONNX Runtime has the same rule; onnx itself refuses links, so it is given the file.
    """
    folder = path.parent.resolve()
    own = (folder, path.resolve().parent)
    for name, tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = _location(tensor)
        named = Path(os.path.normpath(folder / location))
        if Path(location).is_absolute() or not named.is_relative_to(folder) or not location:
            raise ModelError(f"{path}: the weights '{name}' point outside its folder, to '{location}'; refused")
        file = named.resolve()
        if not file.is_file():
            raise ModelError(f"{path}: its weights file '{location}' is missing; both files belong together")
        if not any(file.is_relative_to(place) for place in own):
            raise ModelError(
                f"{path}: its weights file '{location}' is a link to {file}, outside its folder; copy both files, "
                "not the links: cp -L"
            )
        next(entry for entry in tensor.external_data if entry.key == "location").value = file.name
        try:
            with utf8_path(file.parent) as place:
                load_external_data_for_tensor(tensor, str(place))
        except onnx.checker.ValidationError as error:
            if file.stat().st_nlink < 2:
                raise
            raise ModelError(
                f"{path}: its weights file '{location}' has further names (hard links), which onnx refuses; copy it"
            ) from error
