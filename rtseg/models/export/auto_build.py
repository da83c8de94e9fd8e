"""Build the file that a backend runs when it is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rtseg.core.progress import Progress
from rtseg.models.export.requirements import require


def auto_build(
    model: Path,
    backend: str,
    size: tuple[int, int] | None,
    *,
    log: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> Path:
    """Return the file that a backend runs, building it from an ONNX file or checkpoint if it does not exist.

    `size` is (width, height) of the network's input, or None for the model's own. `log` gets one line for each step and note of a
    build, `progress` TensorRT's percent.

    Raises:
        BackendError: a package that the build needs is missing, or the compiler failed.
        OptionError, ModelError, SinkError: see `rtseg.models.export.build.build`.
    """
    require("onnx")
    # Both import onnx, which running a built file does not need.
    from rtseg.models.export.build import build
    from rtseg.models.export.build_options import BuildOptions

    built = build(model, BuildOptions(backend, size), log=log, progress=progress)
    for note in built.notes if built.reasons else ():
        log(f"note: {note}")
    return built.path
