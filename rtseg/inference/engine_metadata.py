"""Files of a built model: a plain TensorRT plan that any TensorRT tool loads, and a JSON sidecar with its metadata.

    unet-camvid-small-480x360-fp16-sm87-trt10.3.engine
    unet-camvid-small-480x360-fp16-sm87-trt10.3.engine.json

The sidecar is read before the engine: an engine is executable code, and TensorRT's error message for an engine of another build
does not help users. ONNX and OpenVINO files that `rtseg build` writes have the same sidecar.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rtseg.core.errors import EngineMismatch, ModelError, SinkError, escaped_json, reason
from rtseg.core.model_info import ModelInfo
from rtseg.gpu.devices import Gpu, platform_name

SUFFIX = ".engine"
SIDECAR_VERSION = 1


@dataclass(frozen=True)
class EngineFacts:
    """Properties that decide where a built file runs: two files with equal facts are interchangeable."""

    target: str
    """`tensorrt`, `tensorrt-rtx`, `openvino` or `onnx`."""

    tool: str
    """Version of TensorRT, TensorRT for RTX, OpenVINO or onnx that built the file."""

    rtseg: str
    """Version of rtseg that built the file."""

    source_sha256: str
    """SHA-256 of the source model file, hexadecimal."""

    precision: str
    """`fp16`, `fp32` or `int8`."""

    input_size: tuple[int, int]
    """(width, height) of the network's input, pixels."""

    batch: int = 1
    """Images in one run."""

    platform: str = ""
    """Required operating system and CPU architecture, such as `linux-aarch64`; empty: any."""

    gpu: str = ""
    """Name of the GPU of the build; empty: not tied to a GPU."""

    capabilities: tuple[str, ...] = ()
    """Supported compute capabilities, such as `8.7`; `8.0+` means 8.0 and newer; empty: no GPU needed."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Further build options, only those that differ from the default."""

    def differences(self, other: EngineFacts) -> list[str]:
        """Return one message per differing field, such as `tensorrt was 10.3.0 and is now 10.16.1`."""
        # As JSON types, because values that were read from a sidecar are.
        old, new = (json.loads(json.dumps(asdict(facts))) for facts in (self, other))
        labels = {"tool": self.target, "source_sha256": "source", "input_size": "size"}
        return [
            f"{labels.get(key, key)} was {_format(old[key])} and is now {_format(new[key])}"
            for key in old
            if old[key] != new[key]
        ]


@dataclass(frozen=True)
class Sidecar:
    """Contents of the JSON file of an engine."""

    facts: EngineFacts
    """Properties that decide where the file runs."""

    description: ModelInfo
    """The model's metadata."""

    file_sha256: str
    """SHA-256 of the engine file, hexadecimal; detects a truncated or replaced file."""

    command: str
    """The command that rebuilds the file."""

    source: str
    """Name of the source model file, without its folder."""

    own_size: tuple[int, int]
    """(width, height) of the model's own input, the default for a build."""

    built: str = ""
    """Build time, UTC, ISO 8601."""

    tools: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages used for the build."""

    verification: Mapping[str, Any] = field(default_factory=dict)
    """Results of the verification after the build; see `rtseg.models.export.verify`."""

    def to_json(self) -> str:
        """Return the sidecar as JSON text for `read_sidecar`."""
        data = {"sidecar_version": SIDECAR_VERSION, **asdict(self)}
        return escaped_json(json.dumps(data, indent=2, ensure_ascii=False)) + "\n"


def sidecar_path(engine: Path) -> Path:
    """Return the path of an engine's sidecar."""
    return engine.with_name(engine.name + ".json")


def read_sidecar(engine: Path) -> Sidecar:
    """Read the sidecar of a built file.

    Raises:
        ModelError: the sidecar is missing, damaged, or of a newer format.
    """
    path = sidecar_path(engine)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if int(data["sidecar_version"]) > SIDECAR_VERSION:
            raise ModelError(
                f"{path.name}: written by a newer rtseg; upgrade rtseg, or build the engine again with this one"
            )
        facts = dict(data["facts"])
        facts["input_size"] = tuple(facts["input_size"])
        facts["capabilities"] = tuple(facts["capabilities"])
        known = {entry.name for entry in fields(EngineFacts)}
        return Sidecar(
            facts=EngineFacts(**{key: value for key, value in facts.items() if key in known}),
            description=ModelInfo.from_json(json.dumps(data["description"]), path.name),
            file_sha256=str(data["file_sha256"]),
            command=str(data["command"]),
            source=str(data["source"]),
            own_size=(int(data["own_size"][0]), int(data["own_size"][1])),
            built=str(data.get("built", "")),
            tools=dict(data.get("tools", {})),
            verification=dict(data.get("verification", {})),
        )
    except FileNotFoundError:
        raise ModelError(
            f"{engine} has no {path.name} next to it, which describes the engine; build it again with `rtseg build`, "
            "and keep both files together"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} can't be read ({error!r}); build the engine again with `rtseg build`") from error


def check_engine(
    engine: Path, sidecar: Sidecar, target: str, tool: str, gpu: Gpu, size: tuple[int, int] | None
) -> None:
    """Check by its sidecar that an engine runs on this machine, before TensorRT loads it.

    `target` is the backend, `tool` the version of its installed package, and `size` the requested (width, height), or None for the
    engine's own.

    Raises:
        EngineMismatch: a property differs; the message names it and the command that rebuilds the engine.
        ModelError: the engine file can't be read.
    """

    def refuse(label: str, built_for: str, available: str, command: str = sidecar.command) -> None:
        raise EngineMismatch(
            f"{engine.name} was built for {label} {built_for}, and this is {available}; build it again: {command}"
        )

    facts = sidecar.facts
    if facts.target != target:
        refuse(
            "backend", facts.target, target, sidecar.command.replace(f"--target {facts.target}", f"--target {target}")
        )
    if facts.platform and facts.platform != platform_name():
        refuse("platform", facts.platform, platform_name())
    if not _tool_matches(facts, tool):
        refuse({"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}.get(target, target), facts.tool, tool)
    if not _runs_on(facts.capabilities, gpu.capability):
        supported = " or ".join(facts.capabilities) + (f" ({facts.gpu})" if facts.gpu else "")
        refuse("compute capability", supported, f"{gpu.capability[0]}.{gpu.capability[1]}")
    if size is not None and size != facts.input_size:
        (width, height), (w, h) = facts.input_size, size
        refuse("input size", f"{width}x{height}", f"{w}x{h}", sidecar.command.replace(f"{width}x{height}", f"{w}x{h}"))
    if sha256(engine) != sidecar.file_sha256:
        raise EngineMismatch(
            f"{engine.name} is not the file that was built (it was cut short or replaced); build it again: {sidecar.command}"
        )


def _tool_matches(facts: EngineFacts, tool: str) -> bool:
    if facts.tool == tool:
        return True
    if not facts.options.get("version_compatible"):
        return False
    built, installed = (tuple(int(part) for part in version.split(".")[:3]) for version in (facts.tool, tool))
    return built[0] == installed[0] and installed >= built


def _runs_on(capabilities: tuple[str, ...], capability: tuple[int, int]) -> bool:
    for text in capabilities:
        major, minor = (int(part) for part in text.rstrip("+").split("."))
        if capability == (major, minor) or (text.endswith("+") and capability >= (major, minor)):
            return True
    return not capabilities


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal.

    A folder's hash covers the names and contents of its files; the hash of OpenVINO's `.xml` includes its `.bin`.

    Raises:
        ModelError: a file can't be read.
    """
    digest = hashlib.sha256()
    try:
        weights = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
        for file in sorted(path.rglob("*")) if path.is_dir() else [path, *weights]:
            if path.is_dir():
                digest.update(str(file.relative_to(path)).encode("utf-8", "surrogateescape") + b"\0")
            if file.is_file():
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {reason(error)}") from error
    return digest.hexdigest()


def default_folder() -> Path:
    """Return the folder for built files: the checkout's `engines/`, or a private folder in the user's cache, created if missing.

    It is never the working directory: an engine is executable code, and other users may write files there.

    Raises:
        SinkError: the folder can't be created.
        ModelError: other users may write into it.
    """
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "engines").is_dir():
        return checkout / "engines"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "rtseg" / "engines"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise SinkError(
            f"the folder for engines '{folder}' can't be created: {reason(error)}; name another with -o"
        ) from error
    if os.name == "posix" and (status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise ModelError(
            f"others may write into '{folder}', and engines are executable code: chmod 700 it, and check its contents"
        )
    return folder


def _format(value: Any) -> str:
    if isinstance(value, str):
        return (value[:12] if len(value) == 64 else value) or "none"
    return json.dumps(value)
