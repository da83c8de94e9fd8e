"""OpenVINO: the backend for processors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.backends import check_images
from rtseg.description import METADATA_KEY, ModelDescription
from rtseg.errors import BackendError, ModelError

_PRECISIONS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""rtseg's names and OpenVINO's."""


class OpenVinoBackend:
    """An ONNX or OpenVINO model on the processor (or another OpenVINO device)."""

    name = "openvino"

    def __init__(
        self,
        model: Path,
        *,
        size: tuple[int, int] | None = None,
        device: str = "CPU",
        threads: int = 0,
        precision: str | None = None,
    ):
        """Reads, reshapes and compiles the model.

        Args:
            model: `.onnx` or `.xml`, following the model contract.
            size: (width, height) of the input; None: the one in the model's description.
            device: an OpenVINO device name.
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
        capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        chosen = precision or ("bf16" if "BF16" in capabilities else "fp32")
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _PRECISIONS[chosen], "NUM_STREAMS": 1}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        width, height = self._input_size
        try:
            network.reshape({"image": [1, height, width, 3]})
            compiled = core.compile_model(network, device, settings)
            self._request = compiled.create_infer_request()
            taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            self._precision = next(name for name, theirs in _PRECISIONS.items() if theirs == taken)
        except RuntimeError as error:
            raise ModelError(f"{model}: OpenVINO can't build it for {width}x{height} ({first_line(error)})") from error
        self._device = str(core.get_property(device, "FULL_DEVICE_NAME")).strip()

    @property
    def device(self) -> str:
        """The processor's name."""
        return self._device

    @property
    def precision(self) -> str:
        """`bf16` or `fp32`: what OpenVINO says it computes in."""
        return self._precision

    @property
    def description(self) -> ModelDescription:
        """What the model says of itself."""
        return self._description

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the input."""
        return self._input_size

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps, uint8 `[N, H, W]`, of pictures uint8 `[N, H, W, 3]`; see `Backend.infer`."""
        check_images(images, self._input_size)
        answers = np.empty(images.shape[:3], dtype=np.uint8)
        try:
            for answer, image in zip(answers, images, strict=True):
                result = self._request.infer({"image": image[None]}, share_inputs=True, share_outputs=True)
                answer[:] = result["classes"][0]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while computing: {first_line(error)}") from error
        return answers

    def close(self) -> None:
        """Gives the network's memory back."""
        self._request = None


def read_description(model: Path) -> ModelDescription:
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


def first_line(error: BaseException) -> str:
    """The telling line of a long native message: OpenVINO's own last one, without its source position."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _description(network: Any, origin: str) -> ModelDescription:
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
    return ModelDescription.from_json(text, origin)
