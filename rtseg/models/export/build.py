"""`rtseg build`: from a trained model to the file that runs, proven, under its name, and only if it is not there yet.

    model file ── origin ──▶ ONNX graph of the contract ── target ──▶ plan ── proof ──▶ NAME.engine + NAME.engine.json
                  origin.py                 make.py, tensorrt_engine.py     precision.py, proof.py

All is made in a folder beside the final place and moved when it is whole and proven.
"""

from __future__ import annotations

import platform
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from rtseg._version import __version__
from rtseg.core.errors import BackendError, ModelError, OptionError, SinkError
from rtseg.gpu.devices import platform_name
from rtseg.inference.bundled_models import ASSETS, find_model
from rtseg.inference.engine_metadata import EngineFacts, Sidecar, default_folder, read_sidecar, sha256, sidecar_path
from rtseg.models.export.compile import make
from rtseg.models.export.onnx_file import source_hash
from rtseg.models.export.quantize import fingerprint
from rtseg.models.export.source_model import SourceModel, open_source_model
from rtseg.models.export.tensorrt import EngineOptions, EngineTarget, resolve_engine_target
from rtseg.models.export.verify import check_share, verify_build, format_share
from rtseg.nn.preprocessing import Preprocessing

TARGETS = {"tensorrt": ".engine", "tensorrt-rtx": ".engine", "openvino": ".xml", "onnx": ".onnx"}
"""What can be built, and the ending of its file."""

DEFAULT_OPTIONS = EngineOptions()
DEFAULT_PREPROCESSING = Preprocessing()


@dataclass(frozen=True)
class Built:
    """The outcome of a build."""

    path: Path
    """The file that runs."""

    sidecar: Sidecar
    """What stands beside it."""

    reasons: tuple[str, ...]
    """Why it was built; empty: it was there already."""

    notes: tuple[str, ...] = ()
    """What was assumed, and what TensorRT warned of."""


def build(
    model: str | Path | None = None,
    *,
    target: str = "tensorrt",
    out: Path | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    precision: str = "fp16",
    calibrate: Path | None = None,
    options: EngineOptions = DEFAULT_OPTIONS,
    preprocessing: Preprocessing = DEFAULT_PREPROCESSING,
    verify_on: Path | None = None,
    min_agreement: float | None = None,
    verify: bool = True,
    force: bool = False,
    quiet: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> Built:
    """Makes the file that runs from a trained model, unless it is there and nothing has changed.

    Args:
        model: a bundled model's name, an ONNX file or a checkpoint; None: the bundled default.
        target: one of `TARGETS`.
        out: the folder it goes to; None: `rtseg.inference.engine_metadata.default_folder`.
        size: (width, height) of the network's input; None: the model's own.
        batch: pictures in one run, at least 1.
        precision: `fp16`, `fp32` or `int8`.
        calibrate: a data set (its `train`) or a video, real pictures on which the ranges for `int8` are measured.
        options: what TensorRT is told beside the network.
        preprocessing: what a foreign file does not say of itself.
        verify_on: frames to compare on: a data set, pictures or a video; None: other frames of `calibrate`, or else synthetic
            drives.
        min_agreement: share of pixels that must keep the original's class, else the build fails; None: `proof.MIN_AGREEMENT`.
        verify: False leaves the comparison and the timing out.
        force: builds even if nothing has changed.
        quiet: no progress.
        log: takes a line for people at each step.

    Raises:
        OptionError, ModelError, BackendError: as they say; nothing is left in place.
        SinkError: the file can't be written.
    """
    if target not in TARGETS:
        raise OptionError(f"no target '{target}': there are {', '.join(TARGETS)}")
    if precision not in ("fp16", "fp32", "int8"):
        raise OptionError(f"precision is '{precision}'; fp16, fp32 or int8 can be built")
    if calibrate is not None and precision != "int8":
        raise OptionError(f"--calibrate measures ranges for --precision int8; {precision} needs none")
    if batch < 1:
        raise OptionError(f"the batch is {batch}; at least 1 picture goes into one run")
    _check_names(preprocessing.classes)
    preprocessing.check()
    if target in ("openvino", "onnx") and options != DEFAULT_OPTIONS:
        raise OptionError(f"{options.arguments().split()[0]} is for TensorRT, not for --target {target}")
    source = find_model(model)
    folder = out if out is not None else default_folder()
    place = _place(target, options)
    wanted = EngineFacts(
        target=target,
        tool=place.tool,
        rtseg=__version__,
        source_sha256=source_hash(source),
        precision=precision,
        input_size=size or (0, 0),
        batch=batch,
        platform=platform_name() if target.startswith("tensorrt") else "",
        gpu=place.gpu,
        capabilities=place.capabilities,
        options={**options.chosen(), **preprocessing.chosen(), **_calibration(calibrate)},
    )
    there, reasons = find_built(folder, wanted, source.name)
    if there is not None and not force:
        return Built(there, read_sidecar(there), ())
    reasons = reasons or (("asked for by --force",) if there else ("it was not built yet",))
    log(f"building {source.name} for {target}: {'; '.join(reasons)}")

    origin = open_source_model(source, preprocessing, size)
    if precision == "int8" and (calibrate is None) != (origin.description.precision == "int8"):
        raise OptionError(
            f"{source.name} is int8 already and needs no --calibrate"
            if calibrate
            else "int8 needs real pictures, on which the ranges of values are measured: --calibrate DATA or VIDEO"
        )
    size = size or origin.description.input_size
    wanted = replace(wanted, input_size=size)
    command = _command(model, source, target, size, batch, precision, calibrate, options, preprocessing)
    name = _file_name(origin, source, wanted, place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as stage:
            staged = Path(stage) / name
            timing_cache = folder / f"timing-{place.tag}.cache"
            graph, share, warnings = make(origin, wanted, options, calibrate, staged, timing_cache, quiet)
            proof: dict[str, Any] = {"precision": check_share(share, precision, target)}
            log(format_share(proof["precision"], precision))
            sidecar = Sidecar(
                facts=wanted,
                description=replace(origin.description, precision=precision, input_size=size),
                file_sha256=sha256(staged),
                command=command,
                source=source.name,
                own_size=origin.description.input_size,
                built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                tools=_tool_versions(),
            )
            sidecar_path(staged).write_text(sidecar.to_json(), encoding="utf-8")
            if verify:
                proof.update(verify_build(origin, graph, staged, sidecar, verify_on or calibrate, min_agreement, log))
            sidecar = replace(sidecar, verification=proof)
            sidecar_path(staged).write_text(sidecar.to_json(), encoding="utf-8")
            for part in sorted(Path(stage).iterdir(), key=lambda file: file.suffix == ".json"):  # the sidecar last
                part.replace(folder / part.name)
    except OSError as error:
        raise SinkError(f"the built file can't be written to '{folder}': {error.strerror or error}") from error
    return Built(folder / name, sidecar, tuple(reasons), (*origin.notes, *warnings))


def find_built(folder: Path, wanted: EngineFacts, source: str) -> tuple[Path | None, tuple[str, ...]]:
    """The file in a folder that serves as wanted, told by its sidecar.

    Args:
        folder: where to look.
        wanted: the facts it must have; an input size of (0, 0) means the model's own.
        source: name of the model file.

    Returns:
        Its path, or None and in what the nearest one of this model differs (nothing if there is none).
    """
    nearest: list[str] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        file = path.with_name(path.name.removesuffix(".json"))
        try:
            found = read_sidecar(file)
        except ModelError:
            continue  # not a sidecar, or one that can't be read any more: what it stands beside is built anew
        facts = found.facts
        if facts.target != wanted.target or (facts.source_sha256 != wanted.source_sha256 and found.source != source):
            continue
        size = found.own_size if wanted.input_size == (0, 0) else wanted.input_size
        different = facts.differences(replace(wanted, input_size=size))
        if not different and not (file.is_file() and sha256(file) == found.file_sha256):
            different = [f"{file.name} is missing or was changed"]
        if not different:
            return file, ()
        # The same bytes under another name go to a file of their own, which was not built yet.
        if found.source == source and (not nearest or len(different) < len(nearest)):
            nearest = different
    return None, tuple(nearest)


def _place(target: str, options: EngineOptions) -> EngineTarget:
    """Where the file will run, and the version of what makes it."""
    if target in ("tensorrt", "tensorrt-rtx"):
        return resolve_engine_target(target, options)
    try:
        return EngineTarget(metadata.version(target), "", "", ())
    except metadata.PackageNotFoundError as error:
        raise BackendError(f'{target} is not installed: pip install "rtseg[build]"') from error


def _file_name(origin: SourceModel, source: Path, facts: EngineFacts, place: EngineTarget) -> str:
    """`unet-camvid-small-480x360-fp16-sm87-trt10.3.engine`; a model of the user's own has its hash in the name too."""
    about = origin.description
    name = about.name if about.name.startswith("unet") or not about.network.startswith("unet") else f"unet-{about.name}"
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
    own = "" if source.parent == ASSETS else f"-{facts.source_sha256[:8]}"
    width, height = facts.input_size
    batch = f"-b{facts.batch}" if facts.batch > 1 else ""
    tag = f"-{place.tag}" if place.tag else ""
    return f"{safe}{own}-{width}x{height}{batch}-{facts.precision}{tag}{TARGETS[facts.target]}"


def _command(
    model: str | Path | None,
    source: Path,
    target: str,
    size: tuple[int, int],
    batch: int,
    precision: str,
    calibrate: Path | None,
    options: EngineOptions,
    preprocessing: Preprocessing,
) -> str:
    """The command that builds this again."""
    name = shlex.quote(str(model if model is not None else source.stem))
    parts = [f"rtseg build {name} --target {target} --size {size[0]}x{size[1]}"]
    if batch != 1:
        parts.append(f"--batch {batch}")
    if precision != "fp16":
        parts.append(f"--precision {precision}")
    if calibrate is not None:
        parts.append(f"--calibrate {shlex.quote(str(calibrate))}")
    return " ".join(parts) + preprocessing.arguments() + options.arguments()


def _check_names(names: tuple[str, ...] | None) -> None:
    """Raises OptionError where a class name is given twice; upper and lower case are the same name."""
    lower = [name.lower() for name in names or ()]
    twice = sorted({name for name in lower if lower.count(name) > 1})
    if twice:
        raise OptionError(f"--classes names {', '.join(twice)} more than once; each class needs a name of its own")


def _calibration(calibrate: Path | None) -> dict[str, str]:
    """Which pictures int8 was measured on, for the sidecar."""
    return {} if calibrate is None else {"calibrate": f"{calibrate.resolve().name} {fingerprint(calibrate)}"}


def _tool_versions() -> dict[str, str]:
    """Versions of the packages that may have taken part, those that are installed."""
    versions = {"python": platform.python_version()}
    for package in ("onnx", "onnxruntime", "openvino", "nncf", "torch", "numpy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def best_target() -> str:
    """The TensorRT that is installed, TensorRT itself before TensorRT for RTX where there is a GPU for it to build on.

    Raises:
        BackendError: neither is installed.
    """
    problems = []
    for target in ("tensorrt", "tensorrt-rtx"):
        try:
            resolve_engine_target(target, DEFAULT_OPTIONS)
        except BackendError as error:
            problems.append(str(error))
        else:
            return target
    raise BackendError(f"no engine can be built here: {'; '.join(problems)}. --target openvino and onnx need neither")
