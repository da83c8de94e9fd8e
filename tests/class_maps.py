"""Class maps of a backend or an ONNX file of the contract, without a `Segmenter`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.inference import Backend
from rtseg.inference.argmax import ScoresToClasses


def class_maps(backend: Backend, images: Any) -> Any:
    """Return class maps, uint8 `[N, H, W]`, of images, uint8 `[N, H, W, 3]`."""
    return to_class_maps(backend.infer(images), backend.description, images)


def onnx_class_maps(model: Path | bytes, images: Any) -> Any:
    """Return class maps of images, computed by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    description = ModelInfo.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY], "model.onnx")
    return to_class_maps(session.run([description.output], {"image": images})[0], description, images)


def to_class_maps(output: Any, description: ModelInfo, images: Any) -> Any:
    """Return the class maps of images from the output of a model."""
    if description.output == "classes":
        return output
    to_classes = ScoresToClasses(description.head_stride)
    return np.stack([to_classes(scores, (images.shape[2], images.shape[1])) for scores in output])
