"""What a comparison of an output with its input found, for people and for `--stats`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rtseg.core.errors import FidelityError
from rtseg.io.outputs.copied_stream import TIME_CODE
from rtseg.video.stream_sync import SyncPoint


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One stream beside the picture."""

    index: int
    """In the input."""

    kind: str
    """`audio`, `subtitle`, `cover`, `data` …"""

    codec: str

    action: str
    """`copied`, `re-encoded` or `left out`."""

    packets_in: int
    packets_out: int

    equal: bool
    """Copied: the same bytes in the same order at the same times."""

    def describe(self) -> str:
        """For people, without the time stamps."""
        if self.kind == "data" and self.codec == TIME_CODE:
            return "time code " + ("kept" if self.action == "re-encoded" else self.action)
        if self.kind == "cover" and self.equal:
            return "cover picture " + ("kept" if self.action == "copied" else self.action)
        if self.action != "copied":
            return f"{self.kind} {self.codec} {self.action}"
        return f"{self.kind} {self.packets_out} packets {'equal' if self.equal else 'NOT equal'}"


@dataclass(frozen=True, slots=True)
class Repair:
    """A change of time stamps that the input made necessary."""

    stream: int | None
    """Index in the input; None: all streams."""

    what: str
    """For people, with its size."""

    count: int
    """Frames or packets whose own time stamp was changed; 0: all from one place on were moved."""

    seconds: float
    """By how much all were moved; 0 where single time stamps were set."""


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """The comparison of an output with its input."""

    frames_in: int
    """Frames of the input that can be decoded."""

    frames_out: int
    """Frames in the output."""

    corrupt: int
    """Frames of the input that could not be decoded; not among `frames_in`."""

    timestamp_error_ms: float | None
    """Largest difference of a frame's time, repairs left aside; None: the container keeps no times, or the counts differ."""

    duration_difference_ms: float | None
    """Length of the output less that of the input's video stream; None: unknown, or the input's clock jumps."""

    color_tags: str
    """`kept`, `not held by the format` or `changed`."""

    streams: tuple[StreamReport, ...]

    problems: tuple[str, ...]
    """Why it is broken; empty: it is whole."""

    moved_ms: float = 0.0
    """How much later (less than zero: earlier) all streams are, in a container that has no such times."""

    checked: bool = True
    """False: the output went to a pipe and could not be read back."""

    reference: str = "demuxed"
    """How the input was read for the comparison: `demuxed`; `decoded`, where its packets do not say when frames are shown; or
    `once`, where it can't be read again (a pipe, a deleted file): then its side is what the run itself read."""

    repairs: tuple[Repair, ...] = ()
    """What the input's time stamps made necessary."""

    sync: tuple[SyncPoint, ...] = ()
    """Offsets of each audio stream to the video."""

    @property
    def ok(self) -> bool:
        """Whether what came out is what went in."""
        return not self.problems

    def line(self) -> str:
        """One line for people."""
        if not self.checked:
            return f"fidelity: {self.frames_out} frames went to standard output, not read back"
        if self.problems:
            return "fidelity broken: " + "; ".join(self.problems)
        parts = [f"{self.frames_in} frames in and out"]
        if self.corrupt:
            parts[0] += f", {self.corrupt} damaged left out"
        parts += [repair.what for repair in self.repairs]
        if self.timestamp_error_ms is not None:
            other = "other " if self.repairs else ""
            parts.append(
                f"{other}time stamps equal"
                if self.timestamp_error_ms == 0
                else f"{other}times within {self.timestamp_error_ms:.1f} ms"
            )
        if self.moved_ms:
            way = (
                "later, as the container has no times before zero"
                if self.moved_ms > 0
                else "earlier, as it begins at zero"
            )
            parts.append(f"all streams {abs(self.moved_ms):.0f} ms {way}")
        if self.duration_difference_ms is not None:
            parts.append(f"length {self.duration_difference_ms:+.0f} ms")
        parts += [stream.describe() for stream in self.streams]
        if self.sync and self.repairs:
            worst = max((abs(point.difference_ms) for point in self.sync), default=0.0)
            parts.append(f"audio in step within {worst:.1f} ms")
        parts.append(f"color tags {self.color_tags}")
        if self.reference == "once":
            parts.append("the input can't be read again: compared with what was read")
        return "fidelity: " + ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For `--stats`."""
        streams = [{"type" if k == "kind" else k: v for k, v in asdict(stream).items()} for stream in self.streams]
        return {"ok": self.ok, "line": self.line(), **asdict(self), "streams": streams}

    def raise_if_broken(self) -> None:
        """Raises FidelityError with all problems where there are any."""
        if self.problems:
            raise FidelityError("what came out is not what went in: " + "; ".join(self.problems))
