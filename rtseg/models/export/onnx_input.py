"""Image input of a foreign ONNX network: its layout, size, batch and normalization."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from rtseg.core.errors import ModelError, OptionError
from rtseg.models.export.onnx_file import FLOATS, format_shape, image_inputs, shape_of
from rtseg.nn.preprocessing import Preprocessing


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """Return the batch that is fixed in a file, at the input or only at an output; None if it is free."""
    inputs = image_inputs(model)
    shape = shape_of(inputs[0]) if inputs else ()
    if len(shape) != 4 or shape[0] is not None:
        return shape[0] if shape else None
    pixel_counts = {(first or 0) * (second or 0) for first, second in pairwise(shape)} - {0}
    for output in model.graph.output:
        lengths = shape_of(output)  # [3, H, W] may be 3 classes of one image, so it does not show the batch
        if len(lengths) == 4 or (len(lengths) == 3 and pixel_counts.intersection(lengths[1:])):
            return lengths[0]
    return None


def input_layout(shape: Sequence[int | str | None], path: Path, layout: str | None) -> str:
    """Return the layout of an input of 4 dimensions: `nchw` or `nhwc`.

    Free lengths in `shape` are None or names. `layout` is that which the user gave, or None to detect it from the axis of length 3.

    Raises:
        OptionError: the shape is ambiguous, and `layout` is None.
        ModelError: the images do not have 3 channels.
    """
    first, last = shape[1] == 3, shape[3] == 3
    if layout is None and first != last:
        return "nchw" if first else "nhwc"
    ends = [length for length in (shape[1], shape[3]) if isinstance(length, int)]
    channels = shape[1] if layout == "nchw" else shape[3]
    if layout is None or (1 in ends and not isinstance(channels, int)):  # a length of 1 is that of the channels
        channels = min(ends, default=3)
    if isinstance(channels, int) and channels not in (0, 3) and (layout or channels <= 16):
        raise ModelError(
            f"{path} takes images of {channels} channel{'s' if channels > 1 else ' (gray)'}, and rtseg's images are RGB: "
            "export it with a first layer that converts from 3 channels"
        )
    if layout is None:
        formatted = format_shape([length if isinstance(length, int) else None for length in shape])
        raise OptionError(f"{path}: its input is {formatted}; specify its layout with --layout nchw or nhwc")
    return layout


def select_image_input(
    model: onnx.ModelProto, path: Path, size: tuple[int, int] | None, batch: int, layout: str | None
) -> tuple[onnx.ValueInfoProto, str, tuple[int, int]]:
    """Return the image input of a network, its layout and its (width, height).

    `size` is the requested (width, height), or None for the size that is fixed in the file; `layout` is that of `input_layout`.

    Raises:
        ModelError: the network does not have exactly one input for images.
        OptionError: the requested size or batch does not fit, or an option is missing.
    """
    inputs = image_inputs(model)
    if len(inputs) != 1:
        raise ModelError(
            f"{path} has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); a segmentation network has one image input"
        )
    source = inputs[0]
    shape, element = shape_of(source), source.type.tensor_type.elem_type
    if element not in (*FLOATS, TensorProto.UINT8) or len(shape) != 4:
        element_name = TensorProto.DataType.Name(element)
        raise ModelError(
            f"{path}: its input '{source.name}' is {element_name} {format_shape(shape)}; only images of 4 dimensions, float or "
            "uint8, are supported"
        )
    layout = input_layout(shape, path, layout)
    height, width = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    if size is None:
        if width is None or height is None:
            raise OptionError(f"{path} has a free input size; give one with --size WIDTHxHEIGHT")
        size = (width, height)
    allowed = (width or size[0], height or size[1])
    if allowed != size:
        if width is None or height is None:
            raise OptionError(
                f"{path} takes only images of {f'width {width}' if width else f'height {height}'}, not "
                f"{size[0]}x{size[1]}; give --size {allowed[0]}x{allowed[1]}, or export it with a free size"
            )
        raise OptionError(
            f"{path} takes only {width}x{height}, not {size[0]}x{size[1]}; leave --size out, or export it with a free size"
        )
    fixed = fixed_batch(model)
    if fixed not in (None, batch):
        raise OptionError(
            f"{path} takes {fixed} images in one run, not {batch}: give --batch {fixed}, or export it with a free batch"
        )
    return source, layout, size


def normalization_constants(preprocessing: Preprocessing, path: Path, element_type: int) -> tuple[Any, Any]:
    """Return the mean and the reciprocal standard deviation on the scale of 0 to 255, float32 `[3]`.

    Raises:
        OptionError: they are not given for a float input, or given for a uint8 input.
    """
    if element_type == TensorProto.UINT8:
        if preprocessing.mean is not None or preprocessing.std is not None:
            raise OptionError(
                f"{path} takes uint8, 0 to 255, and contains its normalization; leave --mean and --std out"
            )
        return np.zeros(3, np.float32), np.ones(3, np.float32)
    if preprocessing.mean is None or preprocessing.std is None:
        raise OptionError(
            f"{path} does not contain the normalization of its input: give --mean and --std, such as torchvision's "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, --mean 0,0,0 --std 1,1,1 for a plain 0 to 1, or --mean 0,0,0 "
            "--std 0.00392157,0.00392157,0.00392157 for a plain 0 to 255"
        )
    scale = 1.0 if preprocessing.uses_255_scale else 255.0
    return np.array(preprocessing.mean, np.float32) * np.float32(scale), 1.0 / (
        np.array(preprocessing.std, np.float32) * np.float32(scale)
    )
