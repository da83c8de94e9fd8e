"""OpenVINO backend, for CPUs."""

from __future__ import annotations

import queue
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.buffer_pool import BufferPool
from rtseg.core.cpu import run_with_low_priority, usable_cores
from rtseg.core.errors import BackendError, ModelError
from rtseg.core.interrupts import deferred_interrupts
from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference import check_images

_PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""OpenVINO's names by rtseg's."""


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
        precision: str | None = None,
    ):
        """Read, reshape and compile the model.

        Args:
            model: `.onnx` or `.xml` file that follows the model contract.
            size: (width, height) of the input; None: the size in the model's metadata.
            device: an OpenVINO device name.
            streams: number of images computed concurrently, each with its share of the threads; as many threads may call
                `infer`. 1: all threads compute one image, for the lowest latency. 0: OpenVINO's choice for the highest throughput.
            precision: `fp32` or `bf16`; None: bf16 on CPUs that support it, else fp32.

        Raises:
            BackendError: OpenVINO is missing, or has no such device or precision.
            ModelError: the file is missing, damaged, or does not follow the contract.
        """
        core, network = _read(model)
        if device.split(".")[0].split(":")[0] not in {d.split(".")[0] for d in core.available_devices}:
            raise BackendError(f"OpenVINO has no device '{device}' here: there are {', '.join(core.available_devices)}")
        self.description = _description(network, str(model))
        network = _with_float_scores(network, self.description)
        self.input_size = size or self.description.input_size
        shape = network.input("image").partial_shape
        self.free_size = size is None and shape[1].is_dynamic and shape[2].is_dynamic
        """True if `infer` accepts images of any size, compiled at the first use of each; False if `size` was given."""
        capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        chosen = precision or ("bf16" if "BF16" in capabilities else "fp32")
        self.streams = streams
        """Number of images computed concurrently."""
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": _PRECISIONS[chosen],
        }
        if device == "CPU":  # other devices refuse the setting
            self._settings["INFERENCE_NUM_THREADS"] = usable_cores()
        if streams:
            self._settings["NUM_STREAMS"] = streams
        if device == "CPU" and self.description.precision != "int8" and _quantized(network):
            # OpenVINO would compute it in INT8, and 2026.4 is wrong for a convolution after a Concat whose output is quantized
            # again, a pattern of ONNX Runtime's quantization.
            self._settings["LP_TRANSFORMS_MODE"] = "NO"
        self._core, self._network, self._model, self._openvino_device = core, network, str(model), device
        self._lock = threading.Lock()
        self._outputs = BufferPool()
        self._requests: dict[tuple[int, int], queue.SimpleQueue[Any]] = {}
        self._precision = ""
        self.device = str(core.get_property(device, "FULL_DEVICE_NAME")).strip()
        self._requests_for(self.input_size)

    @property
    def precision(self) -> str:
        """`bf16` or `fp32`, as reported by OpenVINO; `int8` for a quantized model."""
        return "int8" if self.description.precision == "int8" else self._precision

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Run the network on images, uint8 `[N, H, W, 3]`; see `Backend.infer`. Scores are float32.

        The first call with a new size compiles the network for it, which takes a fraction of a second.
        """
        check_images(images, None if self.free_size else self.input_size)
        requests = self._requests_for((images.shape[2], images.shape[1]))
        request = requests.get()
        try:
            outputs = [self._run(request, image[None]) for image in images]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while computing: {_reason(error)}") from error
        finally:
            requests.put(request)
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _run(self, request: Any, image: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        output = request.infer({"image": image}, share_inputs=True, share_outputs=True)[0]
        # The request reuses its output. New memory for each copy would take 0.6 ms, see `BufferPool`.
        copy: npt.NDArray[Any] = self._outputs.empty(output.nbytes).view(output.dtype).reshape(output.shape)
        copy[...] = output
        return copy

    def close(self) -> None:
        """Free the network's memory."""
        with self._lock:
            self._network = None
            self._requests.clear()

    def _requests_for(self, size: tuple[int, int]) -> queue.SimpleQueue[Any]:
        """Return the free inference requests for an input size. A caller takes one and puts it back; it waits if all are in use."""
        with self._lock:
            if size not in self._requests:
                self._requests[size] = self._compile(*size)
            return self._requests[size]

    def _compile(self, width: int, height: int) -> queue.SimpleQueue[Any]:
        if self._network is None:
            raise BackendError("the model was closed; open it again")
        try:
            self._network.reshape({"image": [1, height, width, 3]})
            arguments = self._network, self._openvino_device, self._settings
            # Several streams are for throughput. The stages after the network then need priority: with frames waiting for the
            # encoder the network would stop, and the encoder cannot keep all cores busy.
            compiled = (
                self._core.compile_model(*arguments)
                if self.streams == 1
                else run_with_low_priority(self._core.compile_model, *arguments)
            )
            precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            self.streams = self.streams or int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
            requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
            for _ in range(self.streams):
                requests.put(compiled.create_infer_request())
        except RuntimeError as error:
            raise ModelError(
                f"{self._model}: OpenVINO can't build it for {width}x{height} ({_reason(error)})"
            ) from error
        self._precision = next(name for name, theirs in _PRECISIONS.items() if theirs == precision)
        return requests


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


def import_openvino() -> Any:
    """Import and return OpenVINO, without its telemetry.

    Raises:
        BackendError: it is not installed, or its libraries can't be loaded.
    """
    disable_telemetry()
    try:
        with deferred_interrupts():  # its native modules turn KeyboardInterrupt into ImportError
            import openvino
    except ModuleNotFoundError as error:
        raise BackendError("OpenVINO is not installed: `pip install openvino`, or choose another --backend") from error
    except ImportError as error:
        raise BackendError(
            f"OpenVINO can't be loaded ({error}): install it again (`pip install --force-reinstall openvino`), "
            "or choose another --backend"
        ) from error
    return openvino


def _read(model: Path) -> tuple[Any, Any]:
    """Return OpenVINO's core and the network of a file."""
    openvino = import_openvino()
    if not model.is_file():
        raise ModelError(f"no model file '{model}'; `rtseg models` lists the bundled ones")
    core = openvino.Core()
    try:
        return core, core.read_model(model)
    except RuntimeError as error:
        raise ModelError(f"{model}: OpenVINO can't read it as a model ({_reason(error)})") from error


def _with_float_scores(network: Any, description: ModelInfo) -> Any:
    """Return the network with float32 scores: OpenVINO converts FP16 faster than NumPy."""
    if description.output == "classes":
        return network
    from openvino import Type
    from openvino.preprocess import PrePostProcessor

    converted = PrePostProcessor(network)
    converted.output().tensor().set_element_type(Type.f32)
    return converted.build()


def _quantized(network: Any) -> bool:
    return any(node.get_type_name() == "FakeQuantize" for node in network.get_ops())


def _reason(error: BaseException) -> str:
    """Return the last line of a native error message, which is OpenVINO's reason without its source positions."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _description(network: Any, origin: str) -> ModelInfo:
    try:
        text = network.get_rt_info(["framework", METADATA_KEY]).astype(str)
    except RuntimeError as error:
        raise ModelError(
            f"{origin}: the file has no class names; `rtseg build {origin} --classes ...` adds that"
        ) from error
    description = ModelInfo.from_json(text, origin)
    inputs, outputs = [i.any_name for i in network.inputs], [o.any_name for o in network.outputs]
    if inputs != ["image"] or outputs != [description.output]:
        raise ModelError(
            f"{origin}: the model's description is of the input `image` and the output `{description.output}`, but it has "
            f"{', '.join(inputs)} and {', '.join(outputs)}. `rtseg build {origin} --target onnx` converts it"
        )
    return description
