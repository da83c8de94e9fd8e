"""Fastest settings on this machine as measured by `rtseg bench --tune`, stored in the user's cache folder."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rtseg.core.cpu import cpu_name, usable_cores
from rtseg.core.files import write_json


@dataclass(frozen=True)
class Tuning:
    """Measured settings."""

    processor: str
    """CPU of the measurement; the settings do not apply to another."""

    cores: int
    """Usable cores during the measurement."""

    streams: dict[str, int]
    """Number of images computed concurrently, by the model file's stem."""


def tuning_file() -> Path:
    """Return the path of the settings: `rtseg/tuning.json` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtseg" / "tuning.json"


def tuned_streams(model: str) -> int | None:
    """Return the number of streams measured for a model; None if there is none for this CPU and number of cores.

    A damaged file is ignored: the settings only affect speed, and the next `rtseg bench --tune` replaces the file.
    """
    tuning = _load()
    return tuning.streams.get(model) if tuning else None


def save_tuned_streams(model: str, streams: int) -> Path:
    """Store the number of streams for a model, keep those of other models, and return the file.

    Raises:
        SinkError: the file can't be written.
    """
    stored = _load()
    tuning = Tuning(cpu_name(), usable_cores(), {**(stored.streams if stored else {}), model: streams})
    write_json(asdict(tuning), str(tuning_file()))
    return tuning_file()


def _load() -> Tuning | None:
    try:
        data = json.loads(tuning_file().read_text(encoding="utf-8"))
        tuning = Tuning(
            str(data["processor"]), int(data["cores"]), {str(k): int(v) for k, v in data["streams"].items()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    this_machine = (cpu_name(), usable_cores())
    valid = (tuning.processor, tuning.cores) == this_machine and all(v > 0 for v in tuning.streams.values())
    return tuning if valid else None
