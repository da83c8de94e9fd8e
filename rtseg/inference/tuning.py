"""What `rtseg bench --tune` found to be fastest on this machine, kept in the user's cache folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rtseg.core.cpu import cpu_name, usable_cores
from rtseg.core.files import write_json


@dataclass(frozen=True)
class Tuning:
    """Settings that were measured."""

    processor: str
    """Processor they were measured on; on another they mean nothing."""

    cores: int
    """Cores that could be used then."""

    streams: dict[str, int]
    """Pictures computed at the same time, by the model file's name without its ending."""


def tuning_file() -> Path:
    """Where it is kept: `rtseg/tuning.json` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtseg" / "tuning.json"


def tuned_streams(model: str) -> int | None:
    """What was found for a model on this machine; None: nothing, or on another processor, or with other cores.

    A damaged file counts as nothing: it only makes things faster, and the next `rtseg bench --tune` replaces it.
    """
    tuning = _load()
    return tuning.streams.get(model) if tuning else None


def remember_streams(model: str, streams: int) -> Path:
    """Keeps what was found for a model, beside what is there for others; returns the file.

    Raises:
        SinkError: it can't be written.
    """
    known = _load()
    found = Tuning(cpu_name(), usable_cores(), {**(known.streams if known else {}), model: streams})
    write_json(asdict(found), str(tuning_file()))
    return tuning_file()


def _load() -> Tuning | None:
    try:
        data = json.loads(tuning_file().read_text(encoding="utf-8"))
        tuning = Tuning(
            str(data["processor"]), int(data["cores"]), {str(k): int(v) for k, v in data["streams"].items()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    here = (cpu_name(), usable_cores())
    return tuning if (tuning.processor, tuning.cores) == here and all(v > 0 for v in tuning.streams.values()) else None
