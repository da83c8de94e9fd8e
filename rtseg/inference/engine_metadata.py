"""An engine on disk: a plain plan that any TensorRT tool loads, and beside it a JSON sidecar that says what it is.

    unet-camvid-small-480x360-fp16-sm87-trt10.3.engine
    unet-camvid-small-480x360-fp16-sm87-trt10.3.engine.json

The sidecar is read before the engine: an engine is executable code, and one that was built for another program is refused by
TensorRT with words that help nobody. ONNX and OpenVINO files that `rtseg build` makes have the same sidecar.
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

from rtseg.core.errors import EngineMismatch, ModelError, SinkError, escaped_json
from rtseg.core.model_info import ModelInfo

SUFFIX = ".engine"
SIDECAR_VERSION = 1


@dataclass(frozen=True)
class EngineFacts:
    """What decides whether a built file serves: two files with equal facts do the same on the same machines."""

    target: str
    """`tensorrt`, `tensorrt-rtx`, `openvino` or `onnx`."""

    tool: str
    """Version of TensorRT, TensorRT for RTX, OpenVINO or onnx that made it."""

    rtseg: str
    """Version of rtseg that made it."""

    source_sha256: str
    """SHA-256 of the model file it was made from, hexadecimal."""

    precision: str
    """`fp16` or `fp32`."""

    input_size: tuple[int, int]
    """(width, height) of the network's input, pixels."""

    batch: int = 1
    """Pictures in one run."""

    platform: str = ""
    """Operating system and processor it runs on, such as `linux-aarch64`; empty: any."""

    gpu: str = ""
    """Name of the GPU it was built on; empty: it is not tied to one."""

    capabilities: tuple[str, ...] = ()
    """Compute capabilities it runs on, such as `8.7`; `8.0+` means this and newer; empty: no GPU needed."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """The other options of the build, those that are not default."""

    def differences(self, wanted: EngineFacts) -> list[str]:
        """Each field in which the two differ, in words: `tensorrt was 10.3.0 and is now 10.16.1`."""
        mine, other = _plain(self), _plain(wanted)
        words = {"tool": self.target, "source_sha256": "source", "input_size": "size"}
        return [
            f"{words.get(key, key)} was {_told(mine[key])} and is now {_told(other[key])}"
            for key in mine
            if mine[key] != other[key]
        ]


@dataclass(frozen=True)
class Sidecar:
    """All that the JSON file beside an engine holds."""

    facts: EngineFacts
    """What decides whether it serves."""

    description: ModelInfo
    """What the model says of itself."""

    file_sha256: str
    """SHA-256 of the engine file, hexadecimal: a file that was cut short or swapped is found out."""

    command: str
    """The command that builds it again."""

    source: str
    """Name of the model file it was made from, without its folder."""

    own_size: tuple[int, int]
    """The model's own input size, (width, height), which is built where no other is asked for."""

    built: str = ""
    """When, UTC, ISO 8601."""

    tools: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages that took part."""

    verification: Mapping[str, Any] = field(default_factory=dict)
    """What was measured after the build; see `rtseg.models.export.verify`."""

    def to_json(self) -> str:
        """One JSON object; `read_sidecar` reads it back."""
        data: dict[str, Any] = {"sidecar_version": SIDECAR_VERSION}
        for entry in fields(self):
            value = getattr(self, entry.name)
            data[entry.name] = asdict(value) if entry.name in ("facts", "description") else value
        return escaped_json(json.dumps(data, indent=2, ensure_ascii=False)) + "\n"


def sidecar_path(engine: Path) -> Path:
    """Where the sidecar of an engine lies."""
    return engine.with_name(engine.name + ".json")


def read_sidecar(engine: Path) -> Sidecar:
    """The sidecar of a built file.

    Raises:
        ModelError: there is none, it is damaged, or of a newer format.
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
            f"{engine} has no {path.name} beside it, which says what the engine is; build it again with `rtseg build`, "
            "and move both files together"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} can't be read ({error!r}); build the engine again with `rtseg build`") from error


def check_engine(
    engine: Path,
    sidecar: Sidecar,
    *,
    target: str,
    tool: str,
    platform: str,
    capability: tuple[int, int] | None,
    size: tuple[int, int] | None = None,
) -> None:
    """Whether an engine will load here, asked of its sidecar before TensorRT is asked.

    Args:
        engine: the engine file.
        sidecar: what stands beside it.
        target: the backend that is to run it.
        tool: version of the installed TensorRT or TensorRT for RTX.
        platform: as `rtseg.gpu.devices.platform_name` gives it.
        capability: of the GPU that is to run it; None: not known, not checked.
        size: the input size that is asked for; None: the engine's own.

    Raises:
        EngineMismatch: the message names the field that differs and the command that builds the engine again.
    """

    def refuse(what: str, was: str, here: str, command: str = sidecar.command) -> None:
        raise EngineMismatch(f"{engine.name} was built for {what} {was}, and this is {here}; build it again: {command}")

    facts = sidecar.facts
    if facts.target != target:
        refuse(
            "backend", facts.target, target, sidecar.command.replace(f"--target {facts.target}", f"--target {target}")
        )
    if facts.platform and facts.platform != platform:
        refuse("platform", facts.platform, platform)
    if not _tool_serves(facts, tool):
        refuse({"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}.get(target, target), facts.tool, tool)
    if capability is not None and not _runs_on(facts.capabilities, capability):
        built_for = " or ".join(facts.capabilities) + (f" ({facts.gpu})" if facts.gpu else "")
        refuse("compute capability", built_for, f"{capability[0]}.{capability[1]}")
    if size is not None and size != facts.input_size:
        (width, height), (w, h) = facts.input_size, size
        refuse("input size", f"{width}x{height}", f"{w}x{h}", sidecar.command.replace(f"{width}x{height}", f"{w}x{h}"))
    if sha256(engine) != sidecar.file_sha256:
        raise EngineMismatch(
            f"{engine.name} is not the file that was built (it was cut short or replaced); build it again: {sidecar.command}"
        )


def _tool_serves(facts: EngineFacts, tool: str) -> bool:
    if facts.tool == tool:
        return True
    if not facts.options.get("version_compatible"):
        return False
    built, here = (tuple(int(part) for part in version.split(".")[:3]) for version in (facts.tool, tool))
    return built[0] == here[0] and here >= built


def _runs_on(capabilities: tuple[str, ...], capability: tuple[int, int]) -> bool:
    for text in capabilities:
        major, minor = (int(part) for part in text.rstrip("+").split("."))
        if capability == (major, minor) or (text.endswith("+") and capability >= (major, minor)):
            return True
    return not capabilities


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; of a folder: of its files' names and bytes; of OpenVINO's `.xml`: with its `.bin`.

    Raises:
        ModelError: it can't be read.
    """
    digest = hashlib.sha256()
    try:
        beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
        for file in sorted(path.rglob("*")) if path.is_dir() else [path, *beside]:
            if path.is_dir():
                digest.update(str(file.relative_to(path)).encode("utf-8", "surrogateescape") + b"\0")
            if file.is_file():
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error
    return digest.hexdigest()


def default_folder() -> Path:
    """Where built files go: the checkout's `engines/`, or the user's cache folder, made for the user alone.

    Never the working directory: an engine is executable code, and what lies around there may be anyone's.

    Raises:
        SinkError: the folder can't be made.
        ModelError: others may write into it.
    """
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").is_file() and (checkout / "engines").is_dir():
        return checkout / "engines"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "rtseg" / "engines"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except OSError as error:
        raise SinkError(
            f"the folder for engines '{folder}' can't be made: {error.strerror}; name another with -o"
        ) from error
    if os.name == "posix" and (about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise ModelError(
            f"others may write into '{folder}', and engines are executable code: chmod 700 it, and look at what it holds"
        )
    return folder


def _plain(facts: EngineFacts) -> dict[str, Any]:
    """As JSON has it, so that what was read back compares equal."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(facts)))
    return plain


def _told(value: Any) -> str:
    if isinstance(value, str):
        return (value[:12] if len(value) == 64 else value) or "none"
    return json.dumps(value)
