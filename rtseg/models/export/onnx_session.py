"""ONNX Runtime sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtseg.core.errors import ModelError
from rtseg.core.files import utf8_path
from rtseg.models.export.onnx_file import error_summary, external_files
from rtseg.models.export.requirements import require


def create_session(
    model: Path | bytes, origin: str, *, level: str = "ORT_ENABLE_ALL", optimized: Path | None = None
) -> Any:
    """Create an ONNX Runtime session on the CPU for a file or a serialized graph.

    `level` is the name of a `GraphOptimizationLevel`; the graph after these optimizations is written to the file `optimized`.

    Raises:
        ModelError: ONNX Runtime can't load it; the message contains `origin` and ONNX Runtime's message.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.__members__[level]
    options.optimized_model_filepath = str(optimized or "")

    def load(path_or_bytes: str | bytes) -> Any:
        return onnxruntime.InferenceSession(path_or_bytes, options, providers=["CPUExecutionProvider"])

    try:
        if isinstance(model, bytes):
            return load(model)
        with utf8_path(model, lambda: external_files(model)) as path:
            return load(str(path))
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise ModelError(f"{origin}: ONNX Runtime can't run it ({error_summary(error)})") from error


def onnxruntime_name() -> str:
    """Return a name such as `ONNX Runtime 1.32.0`."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"
