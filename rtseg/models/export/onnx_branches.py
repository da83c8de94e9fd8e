"""Removal of If nodes whose condition depends only on the size of the image, which is fixed in a build.

TorchScript writes them for `squeeze` of a free axis: if its length is 1, Squeeze, else Identity.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rtseg.core.errors import ModelError
from rtseg.models.export.onnx_file import (
    error_summary,
    format_shape,
    image_inputs,
    keep_needed,
    node_inputs,
    replace_nodes,
    shape_of,
)
from rtseg.models.export.onnx_rewrite import rename
from rtseg.models.export.onnx_session import create_session

_VALUE_DEPENDENT = {
    "NonZero", "Unique", "Compress", "NonMaxSuppression", "If", "Loop", "Scan", "Bernoulli", "Multinomial"
}  # fmt: skip
"""Operators whose output shape may depend on values, or whose output is random."""


def inline_branches(model: onnx.ModelProto, path: Path) -> None:
    """Replace each If whose condition depends only on sizes by the nodes of the executed branch, in place.

    The model has a fixed input shape.

    Raises:
        ModelError: ONNX Runtime can't evaluate the conditions at this size.
    """
    while True:
        producers = {name: node for node in model.graph.node for name in node.output if name}
        images = {entry.name for entry in image_inputs(model)}
        conditions = {
            node.input[0]
            for node in model.graph.node
            if node.op_type == "If" and _only_of_size(node.input[0], producers, images)
        }
        if not conditions:
            return
        values = evaluate_tensors(model, conditions, path)
        nodes = []
        for node in model.graph.node:
            known = node.op_type == "If" and node.input[0] in values
            nodes += _branch_nodes(node, bool(np.all(values[node.input[0]])), model.graph) if known else [node]
        replace_nodes(model.graph, nodes)


def evaluate_tensors(model: onnx.ModelProto, names: Collection[str], path: Path) -> dict[str, Any]:
    """Return the values of tensors when the nodes that compute them run on a black image.

    Raises:
        ModelError: ONNX Runtime can't load or run the model.
    """
    observed = copy.deepcopy(model)
    keep_needed(observed.graph, names)  # without branches that are invalid at this size
    del observed.graph.output[:]
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = create_session(observed.SerializeToString(), str(path), level="ORT_DISABLE_ALL")
    source = image_inputs(model)[0]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(source.type.tensor_type.elem_type)
    image = np.zeros([int(length or 1) for length in shape_of(source)], dtype)
    try:
        results = session.run(list(names), {source.name: image})
    except Exception as error:  # onnxruntime's exceptions share no public base
        shape = format_shape(shape_of(source))
        raise ModelError(
            f"{path} can't run on {shape} ({error_summary(error)}); give the size it was exported for: --size"
        ) from error
    return dict(zip(names, results, strict=True))


def _only_of_size(name: str, producers: Mapping[str, onnx.NodeProto], images: set[str]) -> bool:
    """Return True if a tensor is computed only from weights and shapes, so that it is equal for all images of a size."""
    pending, seen = [(name, False)], set()
    while pending:
        name, of_shape = pending.pop()
        node = producers.get(name)
        if (name, of_shape) in seen:
            continue
        seen.add((name, of_shape))
        if node is None:
            if name in images and not of_shape:
                return False
            continue
        if node.op_type in _VALUE_DEPENDENT or node.op_type.startswith("Random"):
            return False
        pending += [(source, of_shape or node.op_type in ("Shape", "Size")) for source in node_inputs(node) if source]
    return True


def _branch_nodes(node: onnx.NodeProto, condition: bool, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the nodes of a branch of an If with unique names, and add its weights to the graph."""
    branch_name = "then_branch" if condition else "else_branch"
    branch = next(attribute.g for attribute in node.attribute if attribute.name == branch_name)
    inner_names = [tensor.name for tensor in branch.initializer]
    inner_names += [name for inner_node in branch.node for name in inner_node.output]
    names = {name: f"{node.output[0]}/{branch_name}/{name}" for name in inner_names if name}
    rename(branch, names)
    graph.initializer.extend(branch.initializer)
    results = [
        onnx.helper.make_node("Identity", [inner.name], [outer])
        for inner, outer in zip(branch.output, node.output, strict=True)
        if outer
    ]
    return [*branch.node, *results]
