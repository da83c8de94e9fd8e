"""`build` with the options as keyword arguments, for tests that give only a few, and the packages that tests of it need."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from onnx_models import CLASSES

from rtseg.models.export import build as export
from rtseg.models.export.build_options import BuildOptions, Verification
from rtseg.models.export.tensorrt import EngineOptions
from rtseg.nn.preprocessing import Preprocessing

PLAIN = Preprocessing(CLASSES, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Metadata of the networks of `onnx_models.foreign_model`."""


def build(
    model: str | Path | None = None,
    *,
    verify: bool = True,
    verify_on: Path | None = None,
    min_agreement: float | None = None,
    options: EngineOptions | None = None,
    **given: Any,
) -> export.BuildResult:
    run = {key: given.pop(key) for key in ("out", "force", "progress", "log") if key in given}
    verification = Verification(verify_on, min_agreement) if verify else None
    build_options = BuildOptions(**given, engine=options or EngineOptions())
    return export.build(model, build_options, verification=verification, **run)


def quick(source: Path, out: Path, **options: Any) -> export.BuildResult:
    """Build an ONNX file without verification."""
    return build(source, out=out, **{"target": "onnx", "verify": False, **options})


def needs(module: str, packages: str) -> None:
    """Skip the test if a module is missing, or fail it if RTSEG_REQUIRE_SYSTEM=1 requires the module."""
    if importlib.util.find_spec(module) is None:
        if os.environ.get("RTSEG_REQUIRE_SYSTEM") == "1":
            pytest.fail(f"{module} is missing, but RTSEG_REQUIRE_SYSTEM=1 requires it", pytrace=False)
        pytest.skip(f"{module} is missing: pip install {packages}")


def needs_rtx() -> None:
    """Skip or fail the test if TensorRT for RTX is missing; see `needs`."""
    needs("tensorrt_rtx_bindings", "tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings")
