"""The Python package of TensorRT or of TensorRT for RTX: found, and started with a logger of ours."""

from __future__ import annotations

import importlib
from typing import Any

from rtseg.core.errors import BackendError

_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}


def import_tensorrt(target: str) -> Any:
    """The Python package of a target, `tensorrt` or `tensorrt-rtx` (or its bindings alone, which PyPI has as wheels).

    Raises:
        BackendError: it is not installed, or its libraries can't be loaded.
    """
    reason: BaseException | None = None
    for name in _MODULES[target]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            reason = reason or error
        except (ImportError, OSError) as error:
            raise BackendError(
                f"{target} is installed, but its libraries can't be loaded ({_line(error)}); `rtseg doctor` says more"
            ) from error
    raise BackendError(
        f'{target} is not installed: pip install "rtseg[{target}]"; on a Jetson it comes with JetPack, and a virtual '
        "environment sees it only if made with --system-site-packages"
    ) from reason


def make_logger(trt: Any) -> Any:
    """A logger for TensorRT that keeps warnings and errors, in `lines`, in place of printing them."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                self.lines.append(("warning" if severity == trt.ILogger.Severity.WARNING else "error", message))

        def errors(self) -> str:
            """What went wrong, in TensorRT's own words, on one line."""
            return (
                "; ".join(" ".join(text.split()) for kind, text in self.lines if kind == "error")
                or "TensorRT gave no reason"
            )

    return Logger()


def start_runtime(trt: Any, logger: Any, target: str) -> Any:
    """What loads engines.

    Raises:
        BackendError: it can't start, for want of a driver, say.
    """
    try:
        return trt.Runtime(logger)
    except TypeError as error:  # pybind11's word for a factory that gave nothing
        raise BackendError(
            f"{target} can't start ({logger.errors()}); `rtseg doctor` looks at GPU and driver"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
