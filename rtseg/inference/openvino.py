"""OpenVINO: the backend for processors."""

from __future__ import annotations

import queue
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.cpu import giving_way, usable_cores
from rtseg.core.errors import BackendError, ModelError
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference import Scores, check_images
from rtseg.inference.argmax import ScoresToClasses
from rtseg.inference.openvino_graph import scores_form, smooth_form

_PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""rtseg's names and OpenVINO's."""


@dataclass(frozen=True, slots=True)
class StreamContext:
    """What one caller at a time computes with."""

    request: Any
    """OpenVINO's, of the network compiled for one size."""

    to_classes: ScoresToClasses | None
    """What is done with the scores that come out; None: the class map comes out."""

    def classify(self, result: Any, classes: npt.NDArray[np.uint8]) -> None:
        """Fills a class map, uint8 `[H, W]`, from what the request gave."""
        if self.to_classes:
            self.to_classes(result["scores"][0], classes)
        else:
            classes[:] = result["classes"][0]


class OpenVinoBackend:
    """An ONNX or OpenVINO model on the processor (or another OpenVINO device)."""

    name = "openvino"
    batch = 1
    """Several pictures are computed by several streams, each by cores of its own."""

    def __init__(
        self,
        model: Path,
        *,
        size: tuple[int, int] | None = None,
        device: str = "CPU",
        streams: int = 1,
        threads: int = 0,
        precision: str | None = None,
    ):
        """Reads, reshapes and compiles the model.

        Args:
            model: `.onnx` or `.xml`, following the model contract.
            size: (width, height) of the input; None: the one in the model's description.
            device: an OpenVINO device name.
            streams: pictures that are computed at the same time, each with its share of the threads; `infer` may be called by
                as many threads. 1: all threads work on one picture, which is soonest done. 0: one stream a core.
            threads: inference threads; 0: OpenVINO's choice, one a core.
            precision: `fp32` or `bf16`; None: bf16 where the processor computes in it, else fp32.

        Raises:
            BackendError: OpenVINO is missing, or has no such device or precision.
            ModelError: the file is missing, damaged, or does not follow the contract.
        """
        core, network = _read(model)
        if device.split(".")[0].split(":")[0] not in {d.split(".")[0] for d in core.available_devices}:
            raise BackendError(f"OpenVINO has no device '{device}' here: there are {', '.join(core.available_devices)}")
        self._description = _description(network, str(model))
        self._input_size = size or self._description.input_size
        shape = network.input("image").partial_shape
        self.free_size = size is None and shape[1].is_dynamic and shape[2].is_dynamic
        """Whether `infer` takes pictures of any size, each compiled for when it first comes; not where a size was asked for."""
        capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        chosen = precision or ("bf16" if "BF16" in capabilities else "fp32")
        self.streams = streams or usable_cores()
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY" if self.streams == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": _PRECISIONS[chosen],
            "NUM_STREAMS": self.streams,
        }
        if device == "CPU" and self._description.precision != "int8" and _quantized(network):
            # OpenVINO would compute it in INT8, and gets that wrong (2026.4) for a convolution behind a Concat whose result is
            # quantized again, as ONNX Runtime's quantization writes it.
            self._settings["LP_TRANSFORMS_MODE"] = "NO"
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._core, self._network, self._model, self._openvino_device = core, network, str(model), device
        self._lock = threading.Lock()
        self._contexts: dict[tuple[int, int], queue.SimpleQueue[StreamContext]] = {}
        self._precision = ""
        self._device = str(core.get_property(device, "FULL_DEVICE_NAME")).strip()
        self._contexts_for(self._input_size)

    @property
    def device(self) -> str:
        """The processor's name."""
        return self._device

    @property
    def precision(self) -> str:
        """`bf16` or `fp32`: what OpenVINO says it computes in; `int8` for a model that was quantized."""
        return "int8" if self._description.precision == "int8" else self._precision

    @property
    def description(self) -> ModelInfo:
        """What the model says of itself."""
        return self._description

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self._input_size

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps, uint8 `[N, H, W]`, of pictures uint8 `[N, H, W, 3]`; see `Backend.infer`.

        Pictures of a size that has not come before wait for the network to be compiled for it, a fraction of a second.
        """
        check_images(images, None if self.free_size else self._input_size)
        contexts = self._contexts_for((images.shape[2], images.shape[1]))
        answers = np.empty(images.shape[:3], dtype=np.uint8)
        context = contexts.get()
        try:
            for answer, image in zip(answers, images, strict=True):
                result = context.request.infer({"image": image[None]}, share_inputs=True, share_outputs=True)
                context.classify(result, answer)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while computing: {first_line(error)}") from error
        finally:
            contexts.put(context)
        return answers

    def close(self) -> None:
        """Gives the network's memory back."""
        with self._lock:
            self._network = None
            self._contexts.clear()

    def _contexts_for(self, size: tuple[int, int]) -> queue.SimpleQueue[StreamContext]:
        """The lanes of the network at (width, height). Whoever computes takes one and puts it back: with all in use, the next
        caller waits."""
        with self._lock:
            if size not in self._contexts:
                self._contexts[size] = self._compile(*size)
            return self._contexts[size]

    def _compile(self, width: int, height: int) -> queue.SimpleQueue[StreamContext]:
        if self._network is None:
            raise BackendError("the model was closed; open it again")
        try:
            self._network.reshape({"image": [1, height, width, 3]})
            form, enlarged = self._form(self._network)
            arguments = form, self._openvino_device, self._settings
            # Several pictures at once: throughput counts. What comes after the network must not wait for it then: with frames
            # waiting for the encoder the network would stop, and the encoder alone does not fill the cores.
            compiled = (
                self._core.compile_model(*arguments)
                if self.streams == 1
                else giving_way(self._core.compile_model, *arguments)
            )
            taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            contexts: queue.SimpleQueue[StreamContext] = queue.SimpleQueue()
            for _ in range(self.streams):
                to_classes = ScoresToClasses(enlarged, (width, height)) if enlarged else None
                contexts.put(StreamContext(compiled.create_infer_request(), to_classes))
        except RuntimeError as error:
            raise ModelError(
                f"{self._model}: OpenVINO can't build it for {width}x{height} ({first_line(error)})"
            ) from error
        self._precision = next(name for name, theirs in _PRECISIONS.items() if theirs == taken)
        return contexts

    def _form(self, network: Any) -> tuple[Any, tuple[int, int] | None]:
        """What is compiled of a network whose input size is set; and where that gives scores, (width, height) that they are
        to be enlarged to."""
        if self._openvino_device != "CPU":  # a graphics chip enlarges well, and the scores' way from it is longer
            return network, None
        return scores_form(network) or (network, None)


def read_description(model: Path) -> ModelInfo:
    """What an ONNX or OpenVINO file says of itself; raises as `OpenVinoBackend` does."""
    return _description(_read(model)[1], str(model))


def stay_silent() -> None:
    """OpenVINO tells its makers of every import over the network, unless this package of its can't be imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes the import fail


def _read(model: Path) -> tuple[Any, Any]:
    """OpenVINO's core, and the network of a file."""
    stay_silent()
    try:
        import openvino as ov
    except ImportError as error:
        raise BackendError("OpenVINO is not installed: `pip install openvino`, or choose another --backend") from error
    if not model.is_file():
        raise ModelError(f"no model file '{model}'; `rtseg models` lists the bundled ones")
    core = ov.Core()
    try:
        return core, core.read_model(model)
    except RuntimeError as error:
        raise ModelError(f"{model}: OpenVINO can't read it as a model ({first_line(error)})") from error


def _quantized(network: Any) -> bool:
    return any(node.get_type_name() == "FakeQuantize" for node in network.get_ops())


def first_line(error: BaseException) -> str:
    """The telling line of a long native message: OpenVINO's own last one, without its source position."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _description(network: Any, origin: str) -> ModelInfo:
    inputs = {i.any_name for i in network.inputs}
    outputs = {o.any_name for o in network.outputs}
    if inputs != {"image"} or "classes" not in outputs:
        raise ModelError(
            f"{origin}: a model takes `image` and gives `classes`; this one takes {', '.join(sorted(inputs))} and gives "
            f"{', '.join(sorted(outputs))}. `rtseg build {origin} --target onnx` makes one of it"
        )
    try:
        text = network.get_rt_info(["framework", METADATA_KEY]).astype(str)
    except RuntimeError as error:
        raise ModelError(
            f"{origin}: the file does not say what its classes are; `rtseg build {origin} --classes ...` adds that"
        ) from error
    return ModelInfo.from_json(text, origin)


class SmoothOpenVinoBackend(OpenVinoBackend):
    """An ONNX or OpenVINO model whose answers can be steadied from one frame of a stream to the next."""

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps of pictures that have nothing to do with each other; see `Backend.infer`."""
        return np.concatenate([self.infer_next(image[None], None, 0.0)[0] for image in images])

    def infer_next(
        self, image: npt.NDArray[np.uint8], scores: Scores | None, momentum: float
    ) -> tuple[npt.NDArray[np.uint8], Scores]:
        """The class map of one picture, and its scores; see `SmoothBackend.infer_next`."""
        check_images(image, None if self.free_size else self.input_size)
        contexts = self._contexts_for((image.shape[2], image.shape[1]))
        context = contexts.get()
        request = context.request
        try:
            place = request.get_tensor("scores")
            if scores is None or scores.shape != tuple(place.shape):
                scores, momentum = np.zeros(place.shape, place.element_type.to_dtype()), 0.0
            given = {"image": image, "scores": scores, "momentum": np.float32(momentum)}
            result = request.infer(given, share_inputs=True, share_outputs=True)
            classes = np.empty(image.shape[:3], dtype=np.uint8)
            context.classify(result, classes[0])
            return classes, result["new_scores"].copy()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while computing: {first_line(error)}") from error
        finally:
            contexts.put(context)

    def _form(self, network: Any) -> tuple[Any, tuple[int, int] | None]:
        return super()._form(smooth_form(network, self._model))
