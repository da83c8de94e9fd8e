"""Report of a live run, once per second (with `now`) and at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rtseg.core.report import (
    EMBEDDED,
    Percentiles,
    PipelineReport,
    Report,
    RunIdentity,
    TelemetryReport,
    TemporalSmoothingReport,
)


@dataclass(frozen=True, kw_only=True)
class IntervalReport(Report):
    """Measurements of the last second."""

    capture_fps: float
    """Frames decoded per second."""

    shown_fps: float
    """Frames per second written by their last sink."""

    dropped: int
    """Number of frames dropped before the network."""

    age_ms: Percentiles
    """Time from capture to the output of the last sink."""

    bottleneck: str
    """Stage that worked the largest share of the second."""

    engine_ms: float
    """Mean time of one inference."""

    work_ms: float
    """Mean time of one inference and its overlay: the cost of a frame for the loop."""

    stale: int
    """Number of frames that were too old to be displayed."""

    classes: Mapping[str, float]
    """Share of the pixels of the latest frame by class, 0 to 1; empty before the first frame."""


@dataclass(frozen=True, kw_only=True)
class SinkReport(Report):
    """Frames of one sink."""

    written: int
    dropped: int
    mean_ms: float
    """Mean time to write one frame."""

    warnings: tuple[str, ...] = ()
    error: str | None = None
    """Reason why the sink gets no more frames."""


@dataclass(frozen=True, kw_only=True)
class DisconnectReport(Report):
    """Periods without frames."""

    count: int
    seconds: float
    """Total length, with that of a current disconnect."""

    connected: bool
    """True while frames arrive; of several cameras: while any is connected."""

    reason: str = ""
    """Reason for the last disconnect of a camera."""


@dataclass(frozen=True, kw_only=True)
class CameraReport(Report):
    """Report of one camera, or of all cameras together."""

    camera: str | None = None
    """Name; None for several cameras together."""

    input: str
    input_size: tuple[int, int] | None = None
    """(width, height) of the network's input for these frames, pixels; None before the first frame, and for several cameras."""

    decoder: str | None = None
    pipeline: PipelineReport = field(metadata=EMBEDDED)
    sinks: Mapping[str, SinkReport]
    """Sinks by name; of several cameras together: only those that show all of them."""

    disconnects: DisconnectReport
    warnings: tuple[str, ...] | None = None
    """Problems of the input that were detected and handled; None for several cameras together."""

    now: IntervalReport | None = None
    """The last second; None at the end of the run."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveReport(Report):
    """Current load level of `--adaptive`."""

    model: str
    every: int
    """Every n-th frame of a camera is processed."""

    changes: int
    """Number of changes of the level."""


@dataclass(frozen=True, kw_only=True)
class LiveReport(Report):
    """Report of a live run."""

    identity: RunIdentity = field(metadata=EMBEDDED)
    encoder: str | None = None
    """Encoder of recordings and pushed streams."""

    totals: CameraReport = field(metadata=EMBEDDED)
    """The only camera, or all together."""

    telemetry: TelemetryReport | None = None
    temporal_smoothing: TemporalSmoothingReport | None = None
    adaptive: AdaptiveReport | None = None
    items: tuple[CameraReport, ...] = ()
    """Each camera, if there are several."""

    failed: tuple[str, ...] | None = None
    """Failed sinks and, without reconnecting, lost inputs, one line each; None during the run."""

    @property
    def cameras(self) -> tuple[CameraReport, ...]:
        """Report of each camera."""
        return self.items or (self.totals,)
