"""`build` with the options as keyword arguments, for tests that give only a few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtseg.models.export import build as export
from rtseg.models.export.build_options import BuildOptions, Verification
from rtseg.models.export.tensorrt import EngineOptions


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
