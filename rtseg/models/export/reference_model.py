"""Reference models: the user's model, run without rtseg's graph, to compare a built file with.

Nothing here uses the graph of `onnx_adapter`. NumPy normalizes the image, ONNX Runtime runs the unchanged ONNX file, and NumPy
computes the class map from the output. The properties that were detected in the graph (class axis, kind of values) are
checked against the output values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import ModelError
from rtseg.core.frame import ClassMap
from rtseg.models.export.agreement import LOST_SHARE, ClassMapFunction, RgbImage
from rtseg.models.export.onnx_file import error_summary, format_shape
from rtseg.models.export.onnx_input import input_layout
from rtseg.models.export.onnx_output import Output
from rtseg.models.export.onnx_session import create_session, onnxruntime_name
from rtseg.nn.preprocessing import Preprocessing

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ReferenceModel:
    """The user's model, run without rtseg's graph, to compare a built file with."""

    run: ClassMapFunction
    """Returns the class map of an image."""

    label: str
    """Human-readable name of the model and of the library that runs it."""

    check: Callable[[], None] = lambda: None
    """Raises ModelError if the observed output values contradict the detected kind of output, if it was detected."""


def scores_reference(
    run: Callable[[Array], Array], mean: Sequence[float], std: Sequence[float], label: str, uses_255_scale: bool = False
) -> ReferenceModel:
    """Return the reference of a model that maps normalized images to scores.

    Args:
        run: function from float32 `[1, 3, H, W]` to scores `[1, C, h, w]`.
        mean: subtracted from RGB.
        std: divisor of the difference.
        label: human-readable name of the model and of the library that runs it.
        uses_255_scale: True if `mean` and `std` are on the scale of 0 to 255, False for 0 to 1.
    """

    def class_map(image: RgbImage) -> ClassMap:
        scores = run(normalize(image, mean, std, uses_255_scale).transpose(2, 0, 1)[None])[0]
        return _class_map(upsample(scores, image.shape[:2]).argmax(axis=0))

    return ReferenceModel(class_map, label)


def onnx_reference(path: Path, preprocessing: Preprocessing, output: Output, batch: int) -> ReferenceModel:
    """Return the reference of an unchanged ONNX file of another program, run by ONNX Runtime on `batch` images.

    Raises:
        ModelError: ONNX Runtime can't load it.
    """
    session = create_session(path, str(path))
    source = session.get_inputs()[0]
    layout = input_layout(source.shape, path, preprocessing.layout)
    mean, std = preprocessing.mean or (), preprocessing.std or ()  # a uint8 input has none
    observed = _ObservedValues(output, path)

    def run(image: RgbImage) -> ClassMap:
        tensor: Array = image
        if source.type != "tensor(uint8)":
            normalized = normalize(image, mean, std, preprocessing.uses_255_scale)
            tensor = normalized.astype(np.float16 if source.type == "tensor(float16)" else np.float32)
        if layout == "nchw":
            tensor = tensor.transpose(2, 0, 1)
        images = np.ascontiguousarray(np.broadcast_to(tensor, (batch, *tensor.shape)))
        try:
            (values,) = session.run([output.name], {source.name: images})
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise ModelError(f"{path}: ONNX Runtime can't run it ({error_summary(error)})") from error
        if output.quantized is not None:
            scale, zero = output.quantized
            values = (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        values = values if output.axis is not None else values.reshape(batch, *output.size)[0]
        observed.add(values)
        if output.kind == "classes":
            observed.check()  # before the conversion to uint8, which could make class indices of other values
        return _class_map_of(values, output, image.shape[:2])

    label = f"{path.name}, run as it is by {onnxruntime_name()}, {output.describe()}"
    return ReferenceModel(run, label, observed.check)


def _class_map_of(values: Array, output: Output, size: Sequence[int]) -> ClassMap:
    """Return the class map, of (rows, columns) `size`, of the first image of an output, or of its one value per pixel."""
    if output.kind == "classes":
        return _class_map(values)
    if output.axis is None:
        return _class_map(upsample(values[None].astype(np.float32), size)[0] > output.threshold)
    scores = np.moveaxis(values, output.axis, 0).astype(np.float32)
    scores = scores.reshape(len(scores), -1)[:, : output.size[0] * output.size[1]]  # of the first image
    scores = upsample(scores.reshape(len(scores), *output.size), size)
    best = scores.argmax(axis=0)
    if output.kind == "multilabel":
        best = np.where(scores.max(axis=0) > output.threshold, best + 1, 0)
    return _class_map(best)


class _ObservedValues:
    """Statistics of the values of an output over all images."""

    def __init__(self, output: Output, path: Path) -> None:
        self._output, self._path = output, path
        self._low, self._high = np.inf, -np.inf
        self._integers = True
        self._nan = False
        self._distinct: set[float] = set()
        self._sum_to_one_axes: set[int] | None = None
        self._pixels = self._pixels_below_half = 0

    def add(self, values: Array) -> None:
        """Add the values of an image: the output, or one value per pixel of it."""
        if not np.isfinite(values).all():
            self._nan = self._nan or bool(np.isnan(values).any())
            self._low = -np.inf
            return
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        self._integers = self._integers and bool((values == np.round(values)).all())
        if self._integers and len(self._distinct) < 300:
            self._distinct.update(map(float, np.unique(values)))
        axis, total = self._output.axis, self._output.total
        if axis is None:
            return
        ones = {i for i in range(values.ndim) if values.shape[i] > 1 and _sums_to_one(values, i)}
        self._sum_to_one_axes = ones if self._sum_to_one_axes is None else self._sum_to_one_axes & ones
        if total is not None:
            sums = values.sum(axis=axis, dtype=np.float64)
            self._pixels += sums.size
            self._pixels_below_half += int((sums < total / 2).sum())

    def check(self) -> None:
        """Compare the observed values with the detected kind of output.

        Raises:
            ModelError: they contradict each other; the message names the option that resolves it.
        """
        if contradiction := self._contradiction():
            name, kind = self._output.name, self._output.kind
            prefix = f"its output '{name}' was read as {kind}, but"
            if self._output.kind_given:
                prefix = f"--output-kind {kind} does not fit its output '{name}':"
            raise ModelError(f"{self._path}: {prefix} {contradiction}")

    def _contradiction(self) -> str:
        """Return the second half of a sentence about values that contradict the kind of output; empty if there are none."""
        output = self._output
        observed = f"its values are {self._low:.4g} to {self._high:.4g}"
        if self._nan:
            return "it outputs NaN on the compared frames; check the file, --mean and --std"
        if output.kind == "classes":
            return self._class_contradiction(observed)
        if self._sum_to_one_axes and output.axis not in self._sum_to_one_axes:
            along, axis = min(self._sum_to_one_axes), output.axis or 0
            observed = f"its values {format_shape(output.shape)} add up to 1 along axis {along}, not along axis {axis}"
            if output.shape[along] == output.shape[axis]:
                return f"{observed}; specify the class axis with --output-layout"
            return f"{observed}, the class axis; export it with its Softmax along axis {axis}"
        if self._sum_to_one_axes and output.kind_given and output.kind in ("multilabel", "logits"):
            return "its values add up to 1 over the classes, like probabilities: use --output-kind probabilities"
        low, high, slack = *output.values, 0.3  # bicubic upsampling exceeds the range that the graph shows
        if not (np.isfinite(low) and np.isfinite(high)):
            low, high, slack = *_EXPECTED.get(output.kind, (-np.inf, np.inf)), 0.01
        slack = slack * (high - low) + 1e-3
        if np.isfinite(slack) and not (low - slack <= self._low and self._high <= high + slack):
            return f"{observed}, outside {low:g} to {high:g}; specify their kind with --output-kind"
        if output.axis is not None:
            return self._missing_class()
        range_known = np.isfinite(output.values[1])
        if output.kind == "mask" and not range_known and self._high > 0:
            several = len(self._distinct) > 2 or not self._integers
            if self._high <= output.threshold or (several and self._high < 250):
                return f"{observed}, and those of a mask are 0 and 255; specify their kind with --output-kind"
        if output.kind == "logits" and self._low >= 0:
            relu = output.kind_given and output.values[0] == 0  # its zeros are the background
            if self._high <= 1 and not relu:
                kinds = "probabilities" if output.kind_given else "logits or probabilities"
                return f"{observed}, like probabilities; use --output-kind {kinds}"
            if self._integers and len(self._distinct) > 2 and output.kind_given and not relu:
                return f"{observed}, integers like class indices; use --output-kind classes"
        return ""

    def _missing_class(self) -> str:
        """Return a message if the channels of many pixels have less than half of the probability, as if a class were cut off."""
        output, share = self._output, self._pixels_below_half / max(1, self._pixels)
        if output.kind != "probabilities" or output.kind_given or share < LOST_SHARE:
            return ""
        return (
            f"its {output.shape[output.axis or 0]} probabilities add up to less than one half on {share:.1%} of the pixels, as if "
            "a class were missing; export it with all classes, or use --output-kind probabilities to take the highest of these"
        )

    def _class_contradiction(self, observed: str) -> str:
        if not self._integers:
            return f"{observed} and not integers; specify their kind with --output-kind"
        if self._distinct and self._distinct <= {0.0, 255.0} and 255.0 in self._distinct:
            return f"{observed}, like a mask of 0 and 255; use --output-kind mask"
        if self._low < 0 or self._high > 255:
            return f"{observed}, and class indices are 0 to 254; specify their kind with --output-kind"
        return ""


_EXPECTED = {"probabilities": (0.0, 1.0), "multilabel": (0.0, 1.0), "mask": (0.0, 255.0)}
"""Default ranges of the values of each kind, used if the range is not known from the graph."""


def _class_map(values: Array) -> ClassMap:
    return np.asarray(values, dtype=np.uint8)


def _sums_to_one(values: Array, axis: int) -> bool:
    return bool(values.min() >= 0) and bool(np.allclose(values.sum(axis=axis, dtype=np.float64), 1, atol=5e-3))


def normalize(image: RgbImage, mean: Sequence[float], std: Sequence[float], uses_255_scale: bool) -> Array:
    """Normalize an image, uint8 `[H, W, 3]`, to float32 `[H, W, 3]`."""
    scaled = image.astype(np.float32) if uses_255_scale else image.astype(np.float32) / np.float32(255)
    return np.asarray((scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32), np.float32)


def upsample(scores: Array, size: Sequence[int]) -> Array:
    """Upsample scores, float32 `[C, h, w]`, to (rows, columns), bilinearly with half-pixel centers."""
    rows, columns = size[0], size[1]
    if scores.shape[1:] == (rows, columns):
        return scores
    planes = [cv2.resize(np.ascontiguousarray(p), (columns, rows), interpolation=cv2.INTER_LINEAR) for p in scores]
    return np.stack(planes)
