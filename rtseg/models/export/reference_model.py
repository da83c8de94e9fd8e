"""The user's own model, run outside rtseg's model contract: what a built file has to agree with.

Nothing here uses the graph that `onnx_source` makes. An image is normalized by NumPy, an ONNX file is run by ONNX Runtime as its
bytes are on the disk, and the output becomes a class map by NumPy again. What was read from the graph (the axis of the
classes, the kind of values) is held against the values that come out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import ModelError
from rtseg.core.frame import ClassMap
from rtseg.models.export.agreement import LOST_SHARE
from rtseg.models.export.onnx_adapter import input_layout
from rtseg.models.export.onnx_file import error_summary, format_shape
from rtseg.models.export.onnx_output import Output
from rtseg.nn.preprocessing import Preprocessing

Array = npt.NDArray[Any]


class Reference:
    """The class map of a model that takes normalized images and gives scores.

    Args:
        run: float32 `[1, 3, H, W]` -> scores `[1, C, h, w]`.
        mean: subtracted from RGB.
        std: what that is divided by.
        what: the model and what runs it, for people.
        uses_255_scale: the two are on the scale of 0 to 255, else of 0 to 1.
    """

    def __init__(
        self,
        run: Callable[[Array], Array],
        mean: Sequence[float],
        std: Sequence[float],
        what: str,
        uses_255_scale: bool = False,
    ) -> None:
        self._run, self._mean, self._std, self.what, self._uses_255_scale = run, mean, std, what, uses_255_scale

    def __call__(self, picture: npt.NDArray[np.uint8]) -> ClassMap:
        """The class map, uint8 `[H, W]`, of an image, uint8 `[H, W, 3]` RGB."""
        image = normalized(picture, self._mean, self._std, self._uses_255_scale)
        scores = self._run(image.transpose(2, 0, 1)[None])[0]
        return _class_map(enlarged(scores, picture.shape[:2]).argmax(axis=0))

    def check(self) -> None:
        """Nothing was read from a graph here."""


class OnnxReference:
    """A foreign ONNX file as it is, by ONNX Runtime.

    Args:
        path: the file.
        preprocessing: what the user said of its input.
        output: the output that is used, and how its values are to be read.
        batch: images in one run.

    Raises:
        ModelError: ONNX Runtime can't load it.
    """

    def __init__(self, path: Path, preprocessing: Preprocessing, output: Output, batch: int) -> None:
        from rtseg.models.export.source_model import onnxruntime_name, create_session

        self._session = create_session(path, str(path))
        self._input = self._session.get_inputs()[0]
        self._layout = input_layout(self._input.shape, path, preprocessing.layout)
        self._path, self._said, self._output, self._batch = path, preprocessing, output, batch
        self._seen = _Seen()
        self.what = f"{path.name}, run as it is by {onnxruntime_name()}, {output.describe()}"

    def __call__(self, picture: npt.NDArray[np.uint8]) -> ClassMap:
        """The class map, uint8 `[H, W]`, of an image, uint8 `[H, W, 3]` RGB."""
        if self._input.type == "tensor(uint8)":
            image: Array = picture
        else:
            assert self._said.mean is not None
            assert self._said.std is not None
            image = normalized(picture, self._said.mean, self._said.std, self._said.uses_255_scale)
            image = image.astype(np.float16 if self._input.type == "tensor(float16)" else np.float32)
        if self._layout == "nchw":
            image = image.transpose(2, 0, 1)
        images = np.ascontiguousarray(np.broadcast_to(image, (self._batch, *image.shape)))
        try:
            (values,) = self._session.run([self._output.name], {self._input.name: images})
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise ModelError(f"{self._path}: ONNX Runtime can't run it ({error_summary(error)})") from error
        return self._class_map(np.asarray(values), picture.shape[:2])

    def _class_map(self, values: Array, size: tuple[int, int]) -> ClassMap:
        output = self._output
        axis = output.axis
        if output.quantized is not None:
            scale, zero = output.quantized
            values = (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        if axis is None:
            plane = values.reshape(self._batch, *output.size)[0]
            self._seen.add(plane, None)
            if output.kind == "classes":
                self.check()  # before values that are no class indices become some
                return _class_map(plane)
            return _class_map(enlarged(plane[None].astype(np.float32), size)[0] > output.threshold)
        self._seen.add(values, axis, output.total)
        scores = np.moveaxis(values, axis, 0).astype(np.float32)
        scores = scores.reshape(len(scores), -1)[:, : output.size[0] * output.size[1]]  # of the first image
        scores = enlarged(scores.reshape(len(scores), *output.size), size)
        best = scores.argmax(axis=0)
        if output.kind == "multilabel":
            best = np.where(scores.max(axis=0) > output.threshold, best + 1, 0)
        return _class_map(best)

    def check(self) -> None:
        """Holds the values that were seen against what the graph was read as.

        Raises:
            ModelError: they contradict each other; the message names the option that decides.
        """
        doubt = self._seen.doubt(self._output)
        if doubt:
            name, kind = self._output.name, self._output.kind
            read = f"its output '{name}' was read as {kind}, but"
            if self._output.sure:
                read = f"--output-kind {kind} does not fit its output '{name}':"
            raise ModelError(f"{self._path}: {read} {doubt}")


class _Seen:
    """What the values of an output were, over all images."""

    def __init__(self) -> None:
        self._low, self._high = np.inf, -np.inf
        self._whole = True
        self._nan = False
        self._few: set[float] = set()
        self._sums: set[int] | None = None
        self._pixels = self._unclaimed = 0

    def add(self, values: Array, axis: int | None, whole: float | None = None) -> None:
        if not np.isfinite(values).all():
            self._nan = self._nan or bool(np.isnan(values).any())
            self._low = -np.inf
            return
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        self._whole = self._whole and bool((values == np.round(values)).all())
        if self._whole and len(self._few) < 300:
            self._few.update(map(float, np.unique(values)))
        if axis is None:
            return
        ones = {i for i in range(values.ndim) if values.shape[i] > 1 and _sums_to_one(values, i)}
        self._sums = ones if self._sums is None else self._sums & ones
        if whole is not None:
            total = values.sum(axis=axis, dtype=np.float64)
            self._pixels += total.size
            self._unclaimed += int((total < whole / 2).sum())

    def doubt(self, output: Output) -> str:
        """What the values contradict, as the rest of a sentence; empty: nothing."""
        seen = f"its values are {self._low:.4g} to {self._high:.4g}"
        if self._nan:
            return "it gives NaN on the frames that were compared; check the file, --mean and --std"
        if output.kind == "classes":
            return self._doubt_classes(seen)
        if self._sums and output.axis not in self._sums:
            along, axis = min(self._sums), output.axis or 0
            seen = f"its values {format_shape(output.shape)} add up to 1 along axis {along}, not along axis {axis}"
            if output.shape[along] == output.shape[axis]:
                return f"{seen}; say where the classes are: --output-layout"
            return f"{seen}, where the classes are; export it with its Softmax along axis {axis}"
        if self._sums and output.sure and output.kind in ("multilabel", "logits"):
            return "its values add up to 1 over the classes, as probabilities of one class a pixel do: --output-kind probabilities"
        low, high, slack = *output.values, 0.3  # bicubic upsampling goes beyond the ends that the graph shows
        if not (np.isfinite(low) and np.isfinite(high)):
            low, high, slack = *_EXPECTED.get(output.kind, (-np.inf, np.inf)), 0.01
        slack = slack * (high - low) + 1e-3
        if np.isfinite(slack) and not (low - slack <= self._low and self._high <= high + slack):
            return f"{seen}, outside {low:g} to {high:g}; say what they are: --output-kind"
        if output.axis is not None:
            return self._doubt_cut(output)
        shown = np.isfinite(output.values[1])
        if output.kind == "mask" and not shown and self._high > 0:
            several = len(self._few) > 2 or not self._whole
            if self._high <= output.threshold or (several and self._high < 250):
                return f"{seen}, and a mask's are 0 and 255; say what they are: --output-kind"
        if output.kind == "logits" and self._low >= 0:
            relu = output.sure and output.values[0] == 0  # its zeros are the background
            if self._high <= 1 and not relu:
                which = "probabilities" if output.sure else "logits or probabilities"
                return f"{seen}, as probabilities are; say which they are: --output-kind {which}"
            if self._whole and len(self._few) > 2 and output.sure and not relu:
                return f"{seen}, whole numbers as class indices are: --output-kind classes"
        return ""

    def _doubt_cut(self, output: Output) -> str:
        """Whether a class is missing: more than half of the probability is that of channels that were cut off."""
        share = self._unclaimed / max(1, self._pixels)
        if output.kind != "probabilities" or output.sure or share < LOST_SHARE:
            return ""
        return (
            f"its {output.shape[output.axis or 0]} probabilities add up to less than one half on {share:.1%} of the pixels, as "
            "where a class was cut off; export it with all classes, or say --output-kind probabilities to take the highest of these"
        )

    def _doubt_classes(self, seen: str) -> str:
        if not self._whole:
            return f"{seen} and no whole numbers; say what they are: --output-kind"
        if self._few and self._few <= {0.0, 255.0} and 255.0 in self._few:
            return f"{seen}: a mask of 0 and 255? say --output-kind mask"
        if self._low < 0 or self._high > 255:
            return f"{seen}, and class indices are 0 to 254; say what they are: --output-kind"
        return ""


_EXPECTED = {"probabilities": (0.0, 1.0), "multilabel": (0.0, 1.0), "mask": (0.0, 255.0)}
"""The values of each kind, where the graph does not show other ones."""


def _class_map(values: Array) -> ClassMap:
    return np.asarray(values, dtype=np.uint8)


def _sums_to_one(values: Array, axis: int) -> bool:
    return bool(values.min() >= 0) and bool(np.allclose(values.sum(axis=axis, dtype=np.float64), 1, atol=5e-3))


def normalized(picture: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float], uses_255_scale: bool) -> Array:
    """float32 `[H, W, 3]` of an image, uint8 `[H, W, 3]`."""
    image = picture.astype(np.float32) if uses_255_scale else picture.astype(np.float32) / np.float32(255)
    return np.asarray((image - np.asarray(mean, np.float32)) / np.asarray(std, np.float32), np.float32)


def enlarged(scores: Array, size: Sequence[int]) -> Array:
    """Scores, float32 `[C, h, w]`, at (rows, columns): bilinear between pixel centers, each class by itself."""
    rows, columns = size[0], size[1]
    if scores.shape[1:] == (rows, columns):
        return scores
    planes = [cv2.resize(np.ascontiguousarray(p), (columns, rows), interpolation=cv2.INTER_LINEAR) for p in scores]
    return np.stack(planes)
