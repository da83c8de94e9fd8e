"""Fidelity report: the result of comparing an output with its input, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rtseg.core.errors import FidelityError
from rtseg.core.frame import TIME_CODE
from rtseg.core.report import Report


@dataclass(frozen=True)
class SyncPoint(Report):
    """Time offset of a stream to the video at one position."""

    stream: int
    """Index in the input."""

    at_seconds: float
    """Position in the output."""

    in_ms: float
    """Delay of the stream's start or end after the start or end of the video, in the input."""

    out_ms: float
    """The same in the output."""

    @property
    def difference_ms(self) -> float:
        """Change of the offset from input to output."""
        return self.out_ms - self.in_ms


@dataclass(frozen=True)
class StreamReport(Report):
    """Comparison of one stream other than the segmented video."""

    index: int
    """Stream index in the input."""

    type: str
    """`audio`, `subtitle`, `cover`, `data` …"""

    codec: str

    action: str
    """`copied`, `re-encoded` or `left out`."""

    packets_in: int
    packets_out: int

    equal: bool
    """True if the stream is intact. For a copied stream: the same bytes in the same order at the same times."""

    def describe(self) -> str:
        """Return a human-readable summary, without timestamps."""
        if self.type == "data" and self.codec == TIME_CODE:
            return "time code " + ("kept" if self.action == "re-encoded" else self.action)
        if self.type == "cover" and self.equal:
            return "cover image " + ("kept" if self.action == "copied" else self.action)
        if self.action != "copied":
            return f"{self.type} {self.codec} {self.action}"
        return f"{self.type} {self.packets_out} packets {'equal' if self.equal else 'NOT equal'}"


@dataclass(frozen=True)
class Repair(Report):
    """Change of timestamps or packets that the input or the output container requires."""

    stream: int | None
    """Stream index in the input; None: all streams."""

    what: str
    """Human-readable description."""

    count: int
    """Number of frames or packets that changed; 0: all from one position on were shifted."""

    seconds: float
    """Shift in seconds; 0 where single timestamps changed."""


@dataclass(frozen=True, kw_only=True)
class FidelityReport(Report):
    """Comparison of an output with its input."""

    frames_in: int
    """Number of decodable frames in the input."""

    frames_out: int
    """Number of frames in the output."""

    corrupt: int
    """Number of frames in the input that could not be decoded; not included in `frames_in`."""

    timestamp_error_ms: float | None
    """Largest error of a frame's timestamp, without repairs; None: the container has no timestamps, or the counts differ."""

    duration_difference_ms: float | None
    """Duration of the output less that of the input's video stream; None: unknown, or the input's clock jumps."""

    color_tags: str
    """`kept`, `not held by the format` or `changed`."""

    streams: tuple[StreamReport, ...]

    problems: tuple[str, ...]
    """Differences that make the output invalid; empty: the output is valid."""

    moved_ms: float
    """Shift of all streams (negative: earlier) because the container has no such timestamps."""

    checked: bool = True
    """True if the output was verified. An output that was written to a pipe can't be read."""

    reference: str = "demuxed"
    """Source of the input's timestamps: `demuxed`; `decoded`, where packets do not determine the presentation times; or `once`,
    where the input can't be read again (a pipe, a deleted file) and the frames and packets of the run are used."""

    repairs: tuple[Repair, ...]
    """Changes that the input or the output container requires."""

    not_compared: tuple[str, ...]
    """Properties that could not be compared, with the reason."""

    sync: tuple[SyncPoint, ...]
    """Time offsets of each audio stream to the video."""

    metadata_lost: tuple[str, ...]
    """Keys of the input's metadata, such as `title`, whose values the output's container does not keep."""

    @property
    def ok(self) -> bool:
        """True if the output is valid."""
        return not self.problems

    def line(self) -> str:
        """Return the report as one human-readable line."""
        if not self.checked:
            return f"fidelity: {self.frames_out} frames written to standard output, not verified"
        if self.problems:
            return "fidelity broken: " + "; ".join(self.problems)
        parts = [f"{self.frames_in} frames in and out"]
        if self.corrupt:
            parts[0] += f", {self.corrupt} damaged left out"
        parts += [*(repair.what for repair in self.repairs), *self.not_compared]
        if self.timestamp_error_ms is not None:
            error = f"within {self.timestamp_error_ms:.1f} ms" if self.timestamp_error_ms else "equal"
            parts.append(f"{'other ' if self.repairs else ''}timestamps {error}")
        if self.moved_ms:
            reason = "has no negative timestamps" if self.moved_ms > 0 else "starts at zero"
            direction = "later" if self.moved_ms > 0 else "earlier"
            parts.append(f"all streams {abs(self.moved_ms):.0f} ms {direction}, because the container {reason}")
        if self.duration_difference_ms is not None:
            parts.append(f"length {self.duration_difference_ms:+.0f} ms")
        parts += [stream.describe() for stream in self.streams]
        if self.sync and self.repairs:
            worst = max(abs(point.difference_ms) for point in self.sync)
            parts.append(f"audio in sync within {worst:.1f} ms")
        parts.append(f"color tags {self.color_tags}")
        if self.metadata_lost:
            parts.append(f"metadata not kept by the container ({', '.join(self.metadata_lost)})")
        if self.reference == "once":
            parts.append("the input can't be read again: compared with the data of the run")
        return "fidelity: " + ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object, with `ok` and `line`."""
        return {"ok": self.ok, "line": self.line(), **super().to_dict()}

    def raise_if_broken(self) -> None:
        """Raise FidelityError with all problems, if there are any."""
        if self.problems:
            raise FidelityError("the output does not match the input: " + "; ".join(self.problems))
