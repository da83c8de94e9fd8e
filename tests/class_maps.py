"""Class maps of ONNX files of the contract, computed by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference.argmax import class_maps


def onnx_class_maps(model: Path | bytes, images: Any) -> Any:
    """Return class maps, uint8 `[N, H, W]`, of images, uint8 `[N, H, W, 3]`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    description = ModelInfo.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY], "model.onnx")
    return to_class_maps(session.run([description.output], {"image": images})[0], description, images)


def to_class_maps(output: Any, description: ModelInfo, images: Any) -> Any:
    """Return the class maps of images from the output of a model."""
    return class_maps(SimpleNamespace(infer=lambda _: output, description=description), images)  # type: ignore[arg-type]
