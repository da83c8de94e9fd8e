"""Import of TensorRT or TensorRT for RTX, and its start with rtseg's logger."""

from __future__ import annotations

import importlib
from typing import Any

from rtseg.core.errors import BackendError

_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}


def import_tensorrt(target: str) -> Any:
    """Import and return the Python package of a target: `tensorrt` or `tensorrt-rtx` (for the latter also only its bindings).

    Raises:
        BackendError: the package is not installed, or its libraries can't be loaded.
    """
    reason: BaseException | None = None
    for name in _MODULES[target]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            reason = reason or error
        except (ImportError, OSError) as error:
            raise BackendError(
                f"{target} is installed, but its libraries can't be loaded ({' '.join(str(error).split())}); "
                "`rtseg doctor` shows details"
            ) from error
    raise BackendError(
        f'{target} is not installed: pip install "rtseg[{target}]"; on a Jetson it is part of JetPack, and a virtual '
        "environment sees it only if made with --system-site-packages"
    ) from reason


def make_logger(trt: Any) -> Any:
    """Return a logger for TensorRT that stores warnings and errors in `lines` instead of printing them."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                self.lines.append(("warning" if severity == trt.ILogger.Severity.WARNING else "error", message))

        def errors(self) -> str:
            """Return TensorRT's error messages on one line."""
            return (
                "; ".join(" ".join(text.split()) for kind, text in self.lines if kind == "error")
                or "TensorRT gave no reason"
            )

    return Logger()


def start(factory: Any, logger: Any, target: str) -> Any:
    """Return `factory(logger)`: a runtime, which loads engines, or a builder.

    Raises:
        BackendError: TensorRT can't start, for example without a driver.
    """
    try:
        return factory(logger)
    except TypeError as error:  # pybind11 raises this when a factory returns null
        raise BackendError(f"{target} can't start ({logger.errors()}); `rtseg doctor` checks GPU and driver") from error
