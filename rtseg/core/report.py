"""Reports of a run: what the library returns and `--stats` writes; `docs/reference/report.schema.json` is their JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rtseg._version import __version__

EMBEDDED = {"embedded": True}
"""Metadata of a field whose members are members of the JSON object that contains it."""


@dataclass(frozen=True)
class Report:
    """Dataclass with a JSON form."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object, without optional fields that are empty."""
        result: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value or value != entry.default:
                result |= _to_json(value) if entry.metadata == EMBEDDED else {entry.name: _to_json(value)}
        return result


def _to_json(value: Any) -> Any:
    if isinstance(value, Report):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {name: _to_json(item) for name, item in value.items()}
    return [_to_json(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, kw_only=True)
class RunIdentity(Report):
    """Fields that identify a run."""

    rtseg: str = __version__
    command: str
    input: str
    output: str
    model: str
    backend: str
    precision: str
    device: str
    input_size: tuple[int, int]
    """(width, height) of the network's input, pixels."""


@dataclass(frozen=True, kw_only=True)
class FrameCounts(Report):
    """Number of frames by state; `read = segmented + dropped + corrupt`."""

    read: int
    segmented: int
    written: int
    """Number of frames that the last sink has written."""

    dropped: int
    corrupt: int
    """Number of frames that could not be decoded."""

    stale: int | None = None
    """Number of segmented frames of a live run that were too old to be displayed."""

    @classmethod
    def total(cls, counts: Sequence[FrameCounts]) -> FrameCounts:
        """Return the sum over several inputs."""
        sums: dict[str, Any] = {
            entry.name: sum(getattr(each, entry.name) or 0 for each in counts) for entry in fields(cls)
        }
        if all(each.stale is None for each in counts):
            sums["stale"] = None
        return cls(**sums)


@dataclass(frozen=True, kw_only=True)
class Percentiles(Report):
    """Percentiles of durations in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float | None = None


@dataclass(frozen=True, kw_only=True)
class StageReport(Percentiles):
    """Durations of one stage per frame, in milliseconds."""

    busy: float
    """Share of the run in which the stage worked, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class PipelineReport(Report):
    """Measurements of a run, without startup."""

    frames: FrameCounts
    seconds: float
    """Wall time."""

    fps: float
    """Frames written per second."""

    cpu_seconds: float | None
    """CPU time of the process; None if it processed other videos at the same time."""

    peak_rss_mib: float | None
    """Peak resident memory of the process in MiB; None if it processed other videos at the same time."""

    warmup_ms: float
    """Time to load the model and run it once."""

    latency_ms: Percentiles
    """Time of a frame from capture to the end of its last sink."""

    stages: Mapping[str, StageReport]
    bottleneck: str
    """Stage that worked the largest share of the run."""

    classes: Mapping[str, float]
    """Share of all pixels by class, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class TemporalSmoothingReport(Report):
    """Temporal smoothing of the scores."""

    momentum: float
    cuts: int
    """Number of scene changes, at which smoothing starts again."""


@dataclass(frozen=True, kw_only=True)
class TelemetryReport(Report):
    """Sensor readings of the machine."""

    sensors: Mapping[str, float | str] = field(metadata=EMBEDDED)
    """Readings by name, which ends in the unit; the device decides which exist: see `rtseg.gpu.telemetry.Telemetry`."""

    throttled: bool
    throttled_by: tuple[str, ...] = ()
    throttled_seconds: float | None = None
    """Total time of throttling in the run; None for a single reading."""
