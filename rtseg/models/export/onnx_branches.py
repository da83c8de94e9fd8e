"""Ifs that an image's size decides: replaced by the branch that is taken, since sizes are fixed in a build.

TorchScript writes them for `squeeze` where an axis was free: If the axis is 1 long, Squeeze, else Identity.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from rtseg.core.errors import ModelError
from rtseg.models.export.onnx_file import image_inputs, error_summary, shape_of, node_inputs, format_shape
from rtseg.models.export.onnx_rewrite import rename

_BY_CONTENT = {"NonZero", "Unique", "Compress", "NonMaxSuppression", "If", "Loop", "Scan", "Bernoulli", "Multinomial"}
"""Operators whose result's size may hang on more than sizes, or whose result is another one each time."""


def inline_branches(model: onnx.ModelProto, path: Path) -> None:
    """Replaces each If whose condition hangs on sizes alone by the nodes of the branch that is taken. Changes the model.

    Args:
        model: its input's shape is fixed.
        path: its file, for messages.

    Raises:
        ModelError: ONNX Runtime, which is asked for the conditions, can't run it at this size.
    """
    while True:
        made = {name: node for node in model.graph.node for name in node.output if name}
        images = {entry.name for entry in image_inputs(model)}
        conditions = {
            node.input[0] for node in model.graph.node if node.op_type == "If" and _by_size(node.input[0], made, images)
        }
        if not conditions:
            return
        values = evaluate_tensors(_alone(model, made, conditions), conditions, path)
        nodes = [
            step
            for node in model.graph.node
            for step in (
                _taken(node, bool(np.all(values[node.input[0]])), model.graph)
                if node.op_type == "If" and node.input[0] in values
                else [node]
            )
        ]
        copy = onnx.GraphProto(node=nodes)
        del model.graph.node[:]
        model.graph.node.extend(copy.node)


def _alone(model: onnx.ModelProto, made: Mapping[str, onnx.NodeProto], names: Collection[str]) -> onnx.ModelProto:
    """The part of a model that makes some tensors: no branch is in it that has no meaning at this size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    needed, level = set(), set(names)
    while level:
        needed |= level
        level = {given for name in level if name in made for given in node_inputs(made[name])} - needed
    del copy.graph.node[:], copy.graph.output[:]
    copy.graph.node.extend(node for node in model.graph.node if needed.intersection(node.output))
    return copy


def evaluate_tensors(model: onnx.ModelProto, names: Collection[str], path: Path) -> dict[str, Any]:
    """Values that tensors have when the model is run on a black image.

    Raises:
        ModelError: ONNX Runtime can't load or run it.
    """
    from rtseg.models.export.source_model import create_session

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {output.name for output in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    session = create_session(copy.SerializeToString(), str(path), optimize=False)
    source = image_inputs(model)[0]
    kind = onnx.helper.tensor_dtype_to_np_dtype(source.type.tensor_type.elem_type)
    image = np.zeros([int(length or 1) for length in shape_of(source)], kind)
    try:
        results = session.run(list(names), {source.name: image})
    except Exception as error:  # onnxruntime's exceptions share no public base
        told = format_shape(shape_of(source))
        raise ModelError(
            f"{path} can't run on {told} ({error_summary(error)}); give the size it was made for: --size"
        ) from error
    return dict(zip(names, results, strict=True))


def _by_size(name: str, made: Mapping[str, onnx.NodeProto], images: set[str]) -> bool:
    """Whether a tensor is the same for all images of one size: made of weights and shapes alone."""
    level, seen = [(name, False)], set()
    while level:
        name, of_shape = level.pop()
        node = made.get(name)
        if (name, of_shape) in seen:
            continue
        seen.add((name, of_shape))
        if node is None:
            if name in images and not of_shape:
                return False
            continue
        if node.op_type in _BY_CONTENT or node.op_type.startswith("Random"):
            return False
        level += [(given, of_shape or node.op_type in ("Shape", "Size")) for given in node_inputs(node) if given]
    return True


def _taken(node: onnx.NodeProto, condition: bool, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of an If's branch under names of their own; its weights go to the graph."""
    wanted = "then_branch" if condition else "else_branch"
    branch = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
    inside = [tensor.name for tensor in branch.initializer] + [name for step in branch.node for name in step.output]
    names = {name: f"{node.output[0]}/{wanted}/{name}" for name in inside if name}
    rename(branch, names)
    graph.initializer.extend(branch.initializer)
    results = [
        onnx.helper.make_node("Identity", [given.name], [result])
        for given, result in zip(branch.output, node.output, strict=True)
        if result
    ]
    return [*branch.node, *results]
