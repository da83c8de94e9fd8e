"""Build the file that a backend runs when it is missing."""

from __future__ import annotations

import sys
from pathlib import Path

from rtseg.core.errors import printable
from rtseg.models.export.requirements import require


def auto_build(model: Path, backend: str, size: tuple[int, int] | None) -> Path:
    """Return the file that a backend runs, built from a model now if it does not exist. Prints what is built to stderr.

    Args:
        model: ONNX file or checkpoint.
        backend: `tensorrt`, `tensorrt-rtx` or `openvino`.
        size: (width, height) of the network's input; None: the model's own.

    Raises:
        BackendError: a package that the build needs is missing, or the build failed.
        OptionError, ModelError, SinkError: as `rtseg.models.export.build.build` raises them.
    """
    require("onnx")
    from rtseg.models.export.build import build  # imports onnx, which running a built file does not need

    built = build(model, target=backend, size=size, log=_print)
    for note in built.notes if built.reasons else ():
        _print(f"note: {note}")
    return built.path


def _print(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
