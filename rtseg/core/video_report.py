"""Reports of `rtseg video`: of one file and of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rtseg._version import __version__
from rtseg.core.fidelity_report import FidelityReport
from rtseg.core.report import (
    EMBEDDED,
    FrameCounts,
    PipelineReport,
    Report,
    RunIdentity,
    TelemetryReport,
    TemporalSmoothingReport,
)


@dataclass(frozen=True, kw_only=True)
class VideoReport(Report):
    """Report of one processed video."""

    identity: RunIdentity = field(metadata=EMBEDDED)
    temporal_smoothing: TemporalSmoothingReport | None = None
    path: str
    """`gpu` or `cpu`: the path of the frames through the pipeline."""

    decoder: str
    encoder: str
    pipeline: PipelineReport = field(metadata=EMBEDDED)
    fidelity: FidelityReport
    telemetry: TelemetryReport | None = None
    notes: tuple[str, ...]
    """Changes to the video, and choices of the program that the user should know."""


@dataclass(frozen=True, kw_only=True)
class DemoReport(Report):
    """Report of `rtseg demo`: of its synthetic video, and the comparison with the known classes."""

    video: VideoReport = field(metadata=EMBEDDED)
    pixel_accuracy: float
    """Share of the pixels of the compared frames with the right class, 0 to 1, at the size of the video."""

    iou: Mapping[str, float]
    """Intersection over union by class, for classes that occur."""


@dataclass(frozen=True, kw_only=True)
class UnprocessedVideo(Report):
    """Video that was skipped or failed, or whose run was interrupted."""

    rtseg: str = __version__
    command: str = "video"
    input: str
    output: str
    error: str | None = None
    """Reason of the failure in one line."""

    skipped: str | None = None
    """Reason to skip the video."""


BatchItem = VideoReport | UnprocessedVideo
"""Result of one video of a batch."""


@dataclass(frozen=True, kw_only=True)
class BatchReport(Report):
    """Report of several videos: the sums, and each video."""

    rtseg: str = __version__
    command: str = "video"
    jobs: int
    """Number of videos processed at the same time."""

    frames: FrameCounts
    seconds: float
    """Wall time: of the whole run with several jobs, else the sum over the videos."""

    fps: float
    cpu_seconds: float
    peak_rss_mib: float
    items: tuple[BatchItem, ...]
    """In the order of the inputs."""

    notes: tuple[str, ...] = ()
