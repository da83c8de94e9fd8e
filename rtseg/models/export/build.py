"""`rtseg build`: build a verified runnable file from a trained model, unless an up-to-date one exists.

    model file ── open ──▶ ONNX graph of the contract ── compile ──▶ built file ── verify ──▶ NAME.engine + NAME.engine.json
                  source_model.py              compile.py, tensorrt.py        precision.py, verify.py

All files are written to a temporary folder inside the output folder, and moved when they are complete and verified.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from rtseg._version import __version__
from rtseg.core.errors import BackendError, ModelError, OptionError, SinkError, reason
from rtseg.core.model_info import FORMAT_VERSION
from rtseg.core.progress import Progress
from rtseg.gpu.devices import platform_name
from rtseg.inference.bundled_models import ASSETS, find_model
from rtseg.inference.engine_metadata import EngineFacts, Sidecar, default_folder, read_sidecar, sha256, sidecar_path
from rtseg.models.export.build_options import TARGETS, BuildOptions, Verification
from rtseg.models.export.compile import compile_model
from rtseg.models.export.onnx_file import source_hash
from rtseg.models.export.source_model import SourceModel, open_source_model
from rtseg.models.export.tensorrt import EngineTarget, resolve_engine_target
from rtseg.models.export.verify import report_share, verify_build

DEFAULT_OPTIONS, DEFAULT_VERIFICATION = BuildOptions(), Verification()


@dataclass(frozen=True)
class BuildResult:
    """Result of a build."""

    path: Path
    """The built file."""

    sidecar: Sidecar
    """Contents of its sidecar file."""

    reasons: tuple[str, ...]
    """Reasons for the build; empty if the file existed already."""

    notes: tuple[str, ...] = ()
    """Assumptions about the model, and warnings of TensorRT."""


def build(
    model: str | Path | None = None,
    options: BuildOptions = DEFAULT_OPTIONS,
    *,
    out: Path | None = None,
    verification: Verification | None = DEFAULT_VERIFICATION,
    force: bool = False,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> BuildResult:
    """Build a runnable file from a trained model, unless an up-to-date one exists.

    Args:
        model: name of a bundled model, an ONNX file or a checkpoint; None: the bundled default.
        options: target, size, precision and further options of the file.
        out: the output folder; None: `rtseg.inference.engine_metadata.default_folder`.
        verification: comparison with the original; None: no comparison and no measurement of the latency.
        force: build even if nothing has changed.
        progress: receives the progress of TensorRT's builder.
        log: called with a human-readable line at each step.

    Raises:
        OptionError: the options contradict each other or the model, or one is required that was not given.
        ModelError: the model can't be read or built, or the built file does not agree with it. No file is kept.
        BackendError: a required package or GPU is missing, or the compiler failed.
        SinkError: the file can't be written.
    """
    options.check()
    source = find_model(model)
    folder = out if out is not None else default_folder()
    engine_target = _engine_target(options)
    requested = EngineFacts(
        target=options.target,
        tool=engine_target.tool,
        rtseg=__version__,
        source_sha256=source_hash(source),
        precision=options.precision,
        input_size=options.size or (0, 0),
        batch=options.batch,
        platform=platform_name() if options.target.startswith("tensorrt") else "",
        gpu=engine_target.gpu,
        capabilities=engine_target.capabilities,
        options=options.chosen(),
    )
    existing, reasons = find_built(folder, requested, source.name)
    if existing is not None and not force:
        return BuildResult(existing, read_sidecar(existing), ())
    reasons = reasons or (("requested with --force",) if existing else ("it was not built yet",))
    log(f"building {source.name} for {options.target}: {'; '.join(reasons)}")

    source_model = open_source_model(source, options.preprocessing, options.size)
    if options.precision == "int8" and (options.calibrate is None) != (source_model.description.precision == "int8"):
        raise OptionError(
            f"{source.name} is int8 already and needs no --calibrate"
            if options.calibrate
            else "int8 needs real images, from which the ranges of values are measured: --calibrate DATA or VIDEO"
        )
    size = options.size or source_model.description.input_size
    requested = replace(requested, input_size=size)
    name = _file_name(source_model, source, requested, engine_target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as stage:
            staged = Path(stage) / name
            timing_cache = folder / f"timing-{engine_target.tag}.cache"
            graph, share, warnings = compile_model(
                source_model, requested, options.engine, options.calibrate, staged, timing_cache, progress
            )
            results: dict[str, Any] = {"precision": report_share(share, options.precision, options.target, log)}
            sidecar = Sidecar(
                facts=requested,
                description=replace(source_model.description, precision=options.precision, input_size=size),
                file_sha256=sha256(staged),
                command=options.command(str(model if model is not None else source.stem), size),
                source=source.name,
                own_size=source_model.description.input_size,
                built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                tools=_tool_versions(),
            )
            sidecar_path(staged).write_text(sidecar.to_json(), encoding="utf-8")
            if verification is not None:
                frames = verification.on or options.calibrate
                results |= verify_build(source_model, graph, staged, sidecar, frames, verification.min_agreement, log)
            sidecar = replace(sidecar, verification=results)
            sidecar_path(staged).write_text(sidecar.to_json(), encoding="utf-8")
            for part in sorted(Path(stage).iterdir(), key=lambda file: file.suffix == ".json"):  # the sidecar last
                part.replace(folder / part.name)
    except OSError as error:
        raise SinkError(f"the built file can't be written to '{folder}': {reason(error)}") from error
    return BuildResult(folder / name, sidecar, tuple(reasons), (*source_model.notes, *warnings))


def find_built(folder: Path, requested: EngineFacts, source: str) -> tuple[Path | None, tuple[str, ...]]:
    """Find the file in a folder whose sidecar has the requested facts.

    Args:
        folder: the folder to search.
        requested: the facts that the file must have; an input size of (0, 0) means the model's own size.
        source: name of the model file.

    Returns:
        Its path and no differences; or None and the differences of the most similar file of this model (empty if there is
        none).
    """
    nearest: list[str] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        file = path.with_name(path.name.removesuffix(".json"))
        try:
            sidecar = read_sidecar(file)
        except ModelError:
            continue  # another JSON file, or an unreadable sidecar: the file is built again
        facts = sidecar.facts
        same_source = facts.source_sha256 == requested.source_sha256 or sidecar.source == source
        if facts.target != requested.target or not same_source:
            continue
        size = sidecar.own_size if requested.input_size == (0, 0) else requested.input_size
        differences = facts.differences(replace(requested, input_size=size))
        if not differences and sidecar.description.format_version < FORMAT_VERSION:
            differences = [f"model format was {sidecar.description.format_version} and is now {FORMAT_VERSION}"]
        if not differences and not (file.is_file() and sha256(file) == sidecar.file_sha256):
            differences = [f"{file.name} is missing or was changed"]
        if not differences:
            return file, ()
        # A model file with the same bytes and another name has its own built file, which does not exist yet.
        if sidecar.source == source and (not nearest or len(differences) < len(nearest)):
            nearest = differences
    return None, tuple(nearest)


def _engine_target(options: BuildOptions) -> EngineTarget:
    """Return the hardware that the file will run on and the version of the compiler."""
    target = options.target
    if target in ("tensorrt", "tensorrt-rtx"):
        return resolve_engine_target(target, options.engine)
    try:
        return EngineTarget(metadata.version(target), "", "", ())
    except metadata.PackageNotFoundError as error:
        raise BackendError(f'{target} is not installed: pip install "rtseg[build]"') from error


def _file_name(source_model: SourceModel, source: Path, facts: EngineFacts, engine_target: EngineTarget) -> str:
    """Return a name such as `unet-camvid-small-480x360-fp16-sm87-trt10.3.engine`, with a hash if the model is not bundled."""
    info = source_model.description
    name = info.name if info.name.startswith("unet") or not info.network.startswith("unet") else f"unet-{info.name}"
    safe_name = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    digest = "" if source.parent == ASSETS else f"-{facts.source_sha256[:8]}"
    width, height = facts.input_size
    batch = f"-b{facts.batch}" if facts.batch > 1 else ""
    tag = f"-{engine_target.tag}" if engine_target.tag else ""
    return f"{safe_name}{digest}-{width}x{height}{batch}-{facts.precision}{tag}{TARGETS[facts.target]}"


def _tool_versions() -> dict[str, str]:
    """Return the versions of the installed packages that a build may use."""
    versions = {"python": platform.python_version()}
    for package in ("onnx", "onnxruntime", "openvino", "nncf", "torch", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def best_target() -> str:
    """Return the target of the installed TensorRT: `tensorrt` if it has a GPU to build on, else `tensorrt-rtx`.

    Raises:
        BackendError: neither can build here.
    """
    problems = []
    for target in ("tensorrt", "tensorrt-rtx"):
        try:
            resolve_engine_target(target, DEFAULT_OPTIONS.engine)
        except BackendError as error:
            problems.append(str(error))
        else:
            return target
    raise BackendError(f"no engine can be built here: {'; '.join(problems)}. --target openvino and onnx need neither")
