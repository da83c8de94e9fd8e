"""OpenVINO backend, for CPUs."""

from __future__ import annotations

import queue
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.cpu import run_with_low_priority, usable_cores
from rtseg.core.errors import BackendError, ModelError
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference import Scores, check_images
from rtseg.inference.argmax import ScoresToClasses
from rtseg.inference.openvino_graph import scores_graph, smoothing_graph

_PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""OpenVINO's names by rtseg's."""


@dataclass(frozen=True, slots=True)
class StreamContext:
    """Inference request for one caller at a time."""

    request: Any
    """OpenVINO's inference request of the network compiled for one size."""

    to_classes: ScoresToClasses | None
    """Conversion of the network's scores to a class map; None: the network outputs the class map."""

    def classify(self, result: Any, classes: npt.NDArray[np.uint8]) -> None:
        """Write the class map of a result into `classes`, uint8 `[H, W]`."""
        if self.to_classes:
            self.to_classes(result["scores"][0], classes)
        else:
            classes[:] = result["classes"][0]


class OpenVinoBackend:
    """An ONNX or OpenVINO model on the CPU (or another OpenVINO device)."""

    name = "openvino"
    batch = 1
    """Several images are computed by several streams, each with its own cores."""

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
        """Read, reshape and compile the model.

        Args:
            model: `.onnx` or `.xml` file that follows the model contract.
            size: (width, height) of the input; None: the size in the model's metadata.
            device: an OpenVINO device name.
            streams: number of images computed concurrently, each with its share of the threads; as many threads may call
                `infer`. 1: all threads compute one image, for the lowest latency. 0: one stream per core.
            threads: inference threads; 0: OpenVINO's choice, one per core.
            precision: `fp32` or `bf16`; None: bf16 on CPUs that support it, else fp32.

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
        """True if `infer` accepts images of any size, compiled at the first use of each; False if `size` was given."""
        capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        chosen = precision or ("bf16" if "BF16" in capabilities else "fp32")
        self.streams = streams or usable_cores()
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY" if self.streams == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": _PRECISIONS[chosen],
            "NUM_STREAMS": self.streams,
        }
        if device == "CPU" and self._description.precision != "int8" and _quantized(network):
            # OpenVINO would compute it in INT8, and 2026.4 is wrong for a convolution after a Concat whose output is quantized
            # again, a pattern of ONNX Runtime's quantization.
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
        """Name of the CPU."""
        return self._device

    @property
    def precision(self) -> str:
        """`bf16` or `fp32`, as reported by OpenVINO; `int8` for a quantized model."""
        return "int8" if self._description.precision == "int8" else self._precision

    @property
    def description(self) -> ModelInfo:
        """The model's metadata."""
        return self._description

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self._input_size

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return class maps, uint8 `[N, H, W]`, of images uint8 `[N, H, W, 3]`; see `Backend.infer`.

        The first call with a new size compiles the network for it, which takes a fraction of a second.
        """
        check_images(images, None if self.free_size else self._input_size)
        contexts = self._contexts_for((images.shape[2], images.shape[1]))
        class_maps = np.empty(images.shape[:3], dtype=np.uint8)
        context = contexts.get()
        try:
            for class_map, image in zip(class_maps, images, strict=True):
                result = context.request.infer({"image": image[None]}, share_inputs=True, share_outputs=True)
                context.classify(result, class_map)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while computing: {first_line(error)}") from error
        finally:
            contexts.put(context)
        return class_maps

    def close(self) -> None:
        """Free the network's memory."""
        with self._lock:
            self._network = None
            self._contexts.clear()

    def _contexts_for(self, size: tuple[int, int]) -> queue.SimpleQueue[StreamContext]:
        """Return the free stream contexts for an input size. A caller takes one and puts it back; it waits if all are in use."""
        with self._lock:
            if size not in self._contexts:
                self._contexts[size] = self._compile(*size)
            return self._contexts[size]

    def _compile(self, width: int, height: int) -> queue.SimpleQueue[StreamContext]:
        if self._network is None:
            raise BackendError("the model was closed; open it again")
        try:
            self._network.reshape({"image": [1, height, width, 3]})
            graph, upsampled_size = self._graph(self._network)
            arguments = graph, self._openvino_device, self._settings
            # Several streams are for throughput. The stages after the network then need priority: with frames waiting for the
            # encoder the network would stop, and the encoder cannot keep all cores busy.
            compiled = (
                self._core.compile_model(*arguments)
                if self.streams == 1
                else run_with_low_priority(self._core.compile_model, *arguments)
            )
            precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            contexts: queue.SimpleQueue[StreamContext] = queue.SimpleQueue()
            for _ in range(self.streams):
                to_classes = ScoresToClasses(upsampled_size, (width, height)) if upsampled_size else None
                contexts.put(StreamContext(compiled.create_infer_request(), to_classes))
        except RuntimeError as error:
            raise ModelError(
                f"{self._model}: OpenVINO can't build it for {width}x{height} ({first_line(error)})"
            ) from error
        self._precision = next(name for name, theirs in _PRECISIONS.items() if theirs == precision)
        return contexts

    def _graph(self, network: Any) -> tuple[Any, tuple[int, int] | None]:
        """Return the graph to compile for a network of fixed size; if its output is scores, also their upsampled size."""
        if self._openvino_device != "CPU":  # a GPU upsamples fast, and copying the scores would cost more
            return network, None
        return scores_graph(network) or (network, None)


def read_description(model: Path) -> ModelInfo:
    """Return the metadata of an ONNX or OpenVINO file.

    Raises:
        BackendError: OpenVINO is not installed.
        ModelError: the file is missing, damaged, or does not follow the contract.
    """
    return _description(_read(model)[1], str(model))


def disable_telemetry() -> None:
    """Disable OpenVINO's telemetry, which sends data at import unless its package `openvino_telemetry` is missing."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes the import fail


def _read(model: Path) -> tuple[Any, Any]:
    """Return OpenVINO's core and the network of a file."""
    disable_telemetry()
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
    """Return the last line of a native error message, which is OpenVINO's reason without its source positions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _description(network: Any, origin: str) -> ModelInfo:
    inputs = {i.any_name for i in network.inputs}
    outputs = {o.any_name for o in network.outputs}
    if inputs != {"image"} or "classes" not in outputs:
        raise ModelError(
            f"{origin}: a model has the input `image` and the output `classes`; this one has {', '.join(sorted(inputs))} and "
            f"{', '.join(sorted(outputs))}. `rtseg build {origin} --target onnx` converts it"
        )
    try:
        text = network.get_rt_info(["framework", METADATA_KEY]).astype(str)
    except RuntimeError as error:
        raise ModelError(
            f"{origin}: the file has no class names; `rtseg build {origin} --classes ...` adds that"
        ) from error
    return ModelInfo.from_json(text, origin)


class SmoothOpenVinoBackend(OpenVinoBackend):
    """An ONNX or OpenVINO model with temporal smoothing."""

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return class maps of independent images, without smoothing; see `Backend.infer`."""
        return np.concatenate([self.infer_next(image[None], None, 0.0)[0] for image in images])

    def infer_next(
        self, image: npt.NDArray[np.uint8], scores: Scores | None, momentum: float
    ) -> tuple[npt.NDArray[np.uint8], Scores]:
        """Return the class map of one image, and its scores; see `SmoothBackend.infer_next`."""
        check_images(image, None if self.free_size else self.input_size)
        contexts = self._contexts_for((image.shape[2], image.shape[1]))
        context = contexts.get()
        request = context.request
        try:
            tensor = request.get_tensor("scores")
            if scores is None or scores.shape != tuple(tensor.shape):
                scores, momentum = np.zeros(tensor.shape, tensor.element_type.to_dtype()), 0.0
            inputs_by_name = {"image": image, "scores": scores, "momentum": np.float32(momentum)}
            result = request.infer(inputs_by_name, share_inputs=True, share_outputs=True)
            classes = np.empty(image.shape[:3], dtype=np.uint8)
            context.classify(result, classes[0])
            return classes, result["new_scores"].copy()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while computing: {first_line(error)}") from error
        finally:
            contexts.put(context)

    def _graph(self, network: Any) -> tuple[Any, tuple[int, int] | None]:
        return super()._graph(smoothing_graph(network, self._model))
