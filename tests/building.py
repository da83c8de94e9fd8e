"""`build` with the options as keyword arguments, for tests that give only a few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtseg.core.progress import Progress
from rtseg.models.export import build as export
from rtseg.models.export.build import BuildResult
from rtseg.models.export.build_options import BuildOptions, Verification
from rtseg.models.export.tensorrt import EngineOptions


def build(
    model: str | Path | None = None,
    *,
    out: Path | None = None,
    verify: bool = True,
    verify_on: Path | None = None,
    min_agreement: float | None = None,
    force: bool = False,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda line: None,
    options: EngineOptions | None = None,
    **build_options: Any,
) -> BuildResult:
    return export.build(
        model,
        BuildOptions(**build_options, engine=options or EngineOptions()),
        out=out,
        verification=Verification(verify_on, min_agreement) if verify else None,
        force=force,
        progress=progress,
        log=log,
    )
