"""What went in against what came out, both read from the files alone: frames, times, streams in step, packets, tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from math import isinf
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from rtseg.audio_offset import CELL_SECONDS, WINDOW_SECONDS, Loudness, loudness, offset_ms
from rtseg.container_reading import (
    NO_TIME,
    ContainerReading,
    StreamReading,
    decoded_times,
    read_container,
    reading_of,
)
from rtseg.errors import FidelityError, SinkError
from rtseg.frame import Colour, Frame, Passthrough, StreamInfo
from rtseg.sinks.others import codec_name
from rtseg.sinks.video import Written
from rtseg.sources.demux import STDIN
from rtseg.sources.file_clock import GAP_SECONDS, LONGEST_GAP_SECONDS
from rtseg.sources.pictures import UPRIGHT, orientation_of
from rtseg.sources.timeline import Span
from rtseg.sync_check import SYNC_MS, SyncPoint, jump_sizes, sync_points
from rtseg.time_match import Match, match_times

_PREROLL_SECONDS = Fraction(1, 10)
"""Audio before the time zero that MP4 may hide: an encoder's delay is no more."""

_UNSPECIFIED = 2
_MOVES = frozenset({"mpegts", "matroska,webm", "avi"})
"""Formats without times before zero, where B-frames or early audio move all streams later by the same."""


class Recorder:
    """Sees everything that leaves a source, before any stage touches it: 8 bytes a frame.

    It stands for the input only where that can't be read a second time, as from a pipe.

    Args:
        info: the source's.
    """

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        self.video = StreamReading("", "video", info.time_base)
        self.streams = {stream.index: StreamReading(codec_name(stream), stream.type) for stream in info.streams}

    def see(self, item: Frame | Passthrough) -> None:
        """Takes note of one frame or packet."""
        if isinstance(item, Frame):
            self.video.pts.append(item.pts)
            self.video.dts.append(NO_TIME)
            self.video.last_duration = item.duration
        elif item.stream_index in self.streams:
            self.streams[item.stream_index].add(item.packet)

    def reading(self) -> ContainerReading:
        """What was seen, as if it had been read from a file."""
        return ContainerReading(self.video, self.streams, False)


@dataclass(frozen=True, slots=True)
class InputFile:
    """The input as it was asked for, to be read once more."""

    path: str
    start: float | None = None
    duration: float | None = None
    allow_protocols: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One stream beside the picture."""

    index: int
    """In the input."""

    kind: str
    """`audio`, `subtitle`, `data` …"""

    codec: str

    fate: str
    """`copied`, `re-encoded` or `left out`."""

    packets_in: int
    packets_out: int

    equal: bool
    """Copied: the same bytes in the same order at the same times."""

    def describe(self) -> str:
        """For people, without the time stamps."""
        if self.fate != "copied":
            return f"{self.kind} {self.codec} {self.fate}"
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

    colour_tags: str
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
        parts.append(f"colour tags {self.colour_tags}")
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


def compare(
    recorder: Recorder, written: Written, *, corrupt: int = 0, source: InputFile | None = None
) -> FidelityReport:
    """Compare an output with its input, by reading both files.

    Args:
        recorder: saw all that the source yielded.
        written: what `VideoSink.finish` returned.
        corrupt: frames that the source could not decode.
        source: the input, to be read once more; None, or standard input: what the recorder saw stands for it.

    Raises:
        SinkError: the output can't be read.
        SourceError: the input can't be read any more.
    """
    if written.path is None:
        count = len(recorder.video.pts)
        return FidelityReport(count, written.frames, corrupt, None, None, "kept", (), (), checked=False)
    video = recorder.info.template.index if recorder.info.template is not None else None
    again = source if source is not None and source.path != STDIN and video is not None else None
    try:
        with av.open(f"file:{written.path}") as container:
            upright = _upright(container)
        with av.open(f"file:{written.path}") as container:
            return _Comparison(recorder, written, container, corrupt, again, video, upright).report()
    except (av.FFmpegError, OSError) as error:
        raise SinkError(f"{written.path} can't be read back: {error}") from error


class _Comparison:
    """The work on one output."""

    def __init__(
        self,
        recorder: Recorder,
        written: Written,
        container: InputContainer,
        corrupt: int,
        source: InputFile | None,
        video: int | None,
        upright: bool,
    ) -> None:
        self._recorder, self._written, self._corrupt = recorder, written, corrupt
        self._source, self._video_index = source, video
        self._container = container
        self._own = container.streams.video[0]
        self._upright = upright
        self._output = reading_of(container, self._own.index)
        self._input, self._reference = recorder.reading(), "once"
        if source is not None and Path(source.path).exists():
            self._input = read_container(source.path, self._video_index or 0, allow_protocols=source.allow_protocols)
            self._reference = "demuxed"
        else:
            self._source = None
        self._span = Span(
            Fraction((source and source.start) or 0).limit_denominator(1_000_000),
            None
            if source is None or source.duration is None
            else Fraction(source.duration).limit_denominator(1_000_000),
        )
        self._jumping = False
        self.problems: list[str] = []
        self.repairs: list[Repair] = []
        self.sync: list[SyncPoint] = []

    def report(self) -> FidelityReport:
        """Compare everything."""
        shown = self._shown_times(self._output)
        out_times = sorted(time if time is not None else number for number, time in enumerate(shown))
        match, count = self._match_frames(out_times)
        error_ms = difference_ms = None
        moved = Fraction(0)
        if self._written.timed and match is not None and match.segments and not (match.lost or match.extra):
            moved = self._frame_times(match)
            error_ms = float(match.worst * match.unit) * 1000
            difference_ms = self._length_difference(match)
        streams = tuple(self._streams(match))
        colour = _colour_tags(self._recorder.info.colour, self._own.codec_context)
        self._check_picture(colour)
        self._check_choice()
        return FidelityReport(
            frames_in=count,
            frames_out=len(out_times),
            corrupt=self._corrupt,
            timestamp_error_ms=error_ms,
            duration_difference_ms=difference_ms,
            colour_tags=colour,
            streams=streams,
            problems=tuple(self.problems),
            moved_ms=float(moved) * 1000,
            reference=self._reference,
            repairs=tuple(self.repairs),
            sync=tuple(self.sync),
        )

    # Frames

    def _shown_times(self, reading: ContainerReading) -> list[int | None]:
        """When the packets that are shown are shown, in the order of the file."""
        video = reading.video
        return [time for number, time in enumerate(video.times()) if number not in video.hidden]

    def _match_frames(self, out_times: list[int]) -> tuple[Match | None, int]:
        """Match the frames; None: only their number can be compared. And how many went in."""
        times: list[int | None] | None = None
        if self._source is None:
            times = list(self._recorder.video.pts)
        else:
            demuxed = self._input.presentation_times()
            if demuxed is not None:
                inside = self._in_span(list(demuxed))
                match = self._match(inside, out_times)
                exact = match.worst * match.unit <= self._output.video.time_base and not match.set_between
                if exact and not match.extra and match.lost == self._corrupt:
                    return match, len(inside) - match.lost
            # What the packets do not say, or where frames are missing: a plain decode is what a player shows.
            self._reference = "decoded"
            decoded = decoded_times(
                self._source.path, self._video_index or 0, allow_protocols=self._source.allow_protocols
            )
            if demuxed is None and not self._span.whole:
                self._jumping = True
                return None, len(out_times)
            times = self._in_span(decoded)
        match = self._match(times, out_times)
        if match.lost or match.extra:
            self.problems.append(f"{len(times)} frames went in, {len(out_times)} came out")
        return match, len(times)

    def _in_span(self, times: list[int | None]) -> list[int | None]:
        if self._span.whole:
            return times
        tick = self._input.video.time_base
        first = next((time for time in times if time is not None), 0)
        span = Span(self._span.start, self._span.duration, first * tick)
        return [time for time in times if time is None or span.holds(time, tick)]

    def _match(self, going_in: list[int | None], out_times: list[int]) -> Match:
        if not self._written.timed:
            going_in = [None] * len(going_in)  # The output has no times: numbers alone are compared.
        tick_in, tick_out = self._input.video.time_base, self._output.video.time_base
        return match_times(going_in, out_times, tick_in, tick_out, tolerance=tick_out, gap=self._gap)

    @property
    def _gap(self) -> Fraction:
        return Fraction(GAP_SECONDS if self._input.arbitrary_clock else LONGEST_GAP_SECONDS)

    def _frame_times(self, match: Match) -> Fraction:
        """Judge what happened to the times of the frames; return how much the container moved all of them."""
        tick = self._output.video.time_base
        first = match.segments[0]
        shift = first.shift * match.unit + self._span.start
        moved = Fraction(0)
        begins = first.first_in * match.unit
        if abs(shift) >= tick:
            if self._begins_apart(begins):
                self.repairs.append(Repair(None, f"all streams moved by {float(shift):+.3f} s", 0, float(shift)))
            elif self._container.format.name in _MOVES:
                moved = shift
            else:
                self.problems.append(f"all frames are shown {float(shift) * 1000:+.1f} ms off their time")
        shown = sorted(time for time in self._shown_times(self._output) if time is not None)
        if same := sum(later == earlier for earlier, later in pairwise(shown)):
            what = f"{same} frames are shown at the time of the one before: the container counts in {float(tick) * 1000:g} ms"
            self.problems.append(what)
        if match.worst * match.unit > tick:
            self.problems.append(f"a frame is shown {float(match.worst * match.unit) * 1000:.1f} ms off its time")
        for at, seconds in jump_sizes(match.segments, match.unit):
            what = f"the input's clock jumps at {at:.3f} s: {seconds:+.3f} s for all streams from there on"
            self.repairs.append(Repair(None, what, 0, seconds))
        if match.set_between:
            what = f"{match.set_between} frames without a right time stamp set between their neighbors"
            self.repairs.append(Repair(self._video_index, what, match.set_between, 0.0))
        return moved

    def _begins_apart(self, begins: Fraction) -> bool:
        """Whether the input begins before zero, or so far from it by an arbitrary clock that it was moved."""
        starts = [
            min(times) * reading.time_base
            for reading in (self._input.video, *self._input.others.values())
            if reading.kind in ("video", "audio")
            and (
                times := [
                    time for n, time in enumerate(reading.times()) if time is not None and n not in reading.hidden
                ]
            )
        ]
        return min(starts, default=begins) < 0 or (self._input.arbitrary_clock and begins > GAP_SECONDS)

    def _length_difference(self, match: Match) -> float | None:
        durations = self._input.video.last_duration, self._output.video.last_duration
        if not all(durations) or len(match.segments) != 1 or not self._span.whole:
            return None
        segment = match.segments[0]
        length_in = (segment.last_in - segment.first_in) * match.unit + durations[0] * self._input.video.time_base
        length_out = (segment.last_out - segment.first_out) * match.unit + durations[1] * self._output.video.time_base
        return float(length_out - length_in) * 1000

    # Other streams

    def _streams(self, video: Match | None) -> list[StreamReport]:
        fates = {
            **dict.fromkeys(self._written.copied, "copied"),
            **dict.fromkeys(self._written.reencoded, "re-encoded"),
        }
        indices = {**self._written.copied, **self._written.reencoded}
        reports = []
        for index, reading in self._input.others.items():
            if index not in self._recorder.streams:
                continue  # An MP4's chapter track: FFmpeg gives it as chapters.
            fate = fates.get(index, "left out")
            out = self._output.others.get(indices[index]) if index in indices else None
            trouble = ""
            if fate == "copied" and out is not None:
                trouble = self._packets_differ(index, reading, out, video)
            elif fate == "re-encoded" and out is not None and reading.kind == "audio":
                trouble = self._transcoded_differs(index, reading, out, indices[index], video)
            if trouble:
                self.problems.append(f"{reading.kind} stream {index}: {trouble}")
            packets_out = 0 if out is None else len(out.pts)
            copied = fate == "copied" and not trouble
            packets_in = packets_out if copied else len(reading.pts) - len(reading.hidden)
            reports.append(StreamReport(index, reading.kind, reading.codec, fate, packets_in, packets_out, not trouble))
        return reports

    def _packets_differ(self, index: int, reading: StreamReading, out: StreamReading, video: Match | None) -> str:
        """Why a copied stream is not the input's own, in step with the video; empty: it is."""
        times = reading.times()
        numbers: list[int] = []
        if reading.is_pcm:
            if self._span.whole and reading.whole.digest() != out.whole.digest():
                return "the samples are not the same"
            numbers = list(range(len(times)))
        else:
            found = self._paired(reading, out)
            if isinstance(found, str):
                return found
            numbers = found
        out_times = [time for time in out.times() if time is not None]
        if more := self._hidden_now(reading, out, numbers):
            return more
        if not numbers or not out_times or video is None or not video.segments or not self._written.timed:
            return ""
        if reading.is_pcm:
            ends = [time for time in times if time is not None]
            going_in: list[int | None] = [ends[0]] if ends else []
            out_times = out_times[: len(going_in)]
        else:
            going_in = [times[number] for number in numbers]
        coarse = self._output.video.time_base if self._container.format.name == "avi" else Fraction(0)
        tolerance = max(out.time_base, reading.time_base) + coarse
        match = match_times(going_in, out_times, reading.time_base, out.time_base, tolerance=tolerance, gap=self._gap)
        if match.worst * match.unit > tolerance + self._output.video.time_base:
            return f"a packet is {float(match.worst * match.unit) * 1000:.1f} ms off its time"
        if match.set_between:
            what = f"{match.set_between} packets of {reading.kind} stream {index} without a right time stamp set between theirs"
            self.repairs.append(Repair(index, what, match.set_between, 0.0))
        return self._out_of_step(sync_points(index, match, video), reading.kind, float(tolerance) * 1000)

    def _hidden_now(self, reading: StreamReading, out: StreamReading, numbers: list[int]) -> str:
        """Why packets that the input shows are not shown any more; empty: they are. The decoder's start may be hidden."""
        if reading.is_pcm:
            return ""
        times = out.times()
        hidden = [place for place in sorted(out.hidden) if numbers[place] not in reading.hidden]
        if not hidden:
            return ""
        first, last = times[hidden[0]], times[hidden[-1]]
        long = first is None or last is None or (last - first) * out.time_base >= _PREROLL_SECONDS
        if reading.kind == "audio" and hidden[-1] < len(times) - 1 and not long:
            return ""
        return f"{len(hidden)} packets that the input shows are hidden in the output"

    def _paired(self, reading: StreamReading, out: StreamReading) -> list[int] | str:
        """The number of the input's packet for each of the output's; or why they are not the same."""
        contents, first = reading.contents, 0
        if out.contents:
            # A part begins somewhere, and hidden packets before the first that is heard may be kept for the decoder.
            candidates = (n for n, content in enumerate(contents) if content == out.contents[0])
            first = next((n for n in candidates if not self._span.whole or n in reading.hidden), 0)
        heard = next((n for n in range(len(contents)) if n not in reading.hidden), len(contents))
        if contents and out.contents and contents[first] != out.contents[0]:
            first = heard
        numbers = [n for n in range(first, len(contents)) if n < heard or n not in reading.hidden]
        if not self._span.whole:
            numbers = numbers[: len(out.contents)]
        if len(numbers) != len(out.contents):
            return f"{len(numbers)} packets went in, {len(out.contents)} came out"
        if any(contents[n] != content for n, content in zip(numbers, out.contents, strict=True)):
            return "the packets are not the same"
        return numbers

    def _out_of_step(self, points: list[SyncPoint], kind: str, tolerance_ms: float) -> str:
        if kind == "audio":
            self.sync += points
        shift_ms = 0.0 if self._jumping else None
        worst = max(points, key=lambda point: abs(point.difference_ms), default=None)
        if worst is None or shift_ms is not None or abs(worst.difference_ms) <= max(SYNC_MS, tolerance_ms):
            return ""
        return f"{worst.difference_ms:+.0f} ms out of step with the video at {worst.at_seconds:.2f} s"

    def _transcoded_differs(
        self, index: int, reading: StreamReading, out: StreamReading, out_index: int, video: Match | None
    ) -> str:
        """Why audio that was encoded again is not heard where it was; empty: it is, or it is too even to tell."""
        if reading.pts and not out.pts:
            return "encoded again, it is empty"
        if self._source is None or video is None or not self._span.whole or not self._written.timed:
            return ""
        begin_in, before = loudness(self._source.path, index)
        begin_out, after = loudness(str(self._written.path), out_index)
        points = []
        for segment in video.segments:
            first, last = (float(time * video.unit) for time in (segment.first_in, segment.last_in))
            shift = float(segment.shift * video.unit)
            for at in sorted({first, max(first, last - WINDOW_SECONDS)}):
                ours = _window(before, at - begin_in, last - at)
                offset = offset_ms(ours, _window(after, at + shift - begin_out, last - at))
                if offset is not None:
                    points.append(SyncPoint(index, at + shift, 0.0, offset))
        if any(isinf(point.out_ms) for point in points):
            return "encoded again, it is not the input's"
        return self._out_of_step(points, reading.kind, 0.0)

    # What players show

    def _check_picture(self, colour: str) -> None:
        if colour == "changed":
            self.problems.append("the colour tags are not the input's")
        if not self._upright:
            self.problems.append("players would turn the picture: it carries a display matrix")
        context, size = self._own.codec_context, self._written.size
        if (context.width, context.height) != size:
            self.problems.append(f"the picture is {context.width}x{context.height}, not {size}")

    def _check_choice(self) -> None:
        """Whether players choose the segmented video, and the audio that they choose in the input."""
        shown = _chosen("video", {self._own.index: self._output.video, **self._output.others})
        if shown != self._own.index:
            self.problems.append(f"players would show video stream {shown}, which is not the segmented one")
        indices = {**self._written.copied, **self._written.reencoded}
        # A time code is written anew, behind all others.
        order = [
            indices[n] for n, reading in sorted(self._input.others.items()) if n in indices and reading.kind != "data"
        ]
        kept = {out: index for index, out in indices.items()}
        if order != sorted(order):
            self.problems.append("the streams are not in the input's order")
        first_in = _chosen("audio", {n: r for n, r in self._input.others.items() if n in indices})
        first_out = _chosen("audio", self._output.others)
        if first_in is not None and kept.get(-1 if first_out is None else first_out) != first_in:
            self.problems.append(f"players would play another audio stream than the input's ({first_in})")


def _window(cells: Loudness, at: float, seconds: float) -> Loudness:
    """Loudness from a time on (seconds after the first cell), for 10 s at most; nothing is heard before the first cell."""
    first = round(at / CELL_SECONDS)
    count = int(min(seconds, WINDOW_SECONDS) / CELL_SECONDS)
    inside = cells[max(0, first) : max(0, first + count)]
    padded = np.concatenate([np.zeros(min(count, max(0, -first))), inside])
    return np.pad(padded, (0, max(0, count - len(padded))))


def _chosen(kind: str, readings: dict[int, StreamReading]) -> int | None:
    """The stream of a kind that players choose: the first default one, else the first."""
    streams = sorted(index for index, reading in readings.items() if reading.kind == kind)
    return next((index for index in streams if readings[index].default), streams[0] if streams else None)


def _upright(container: InputContainer) -> bool:
    """Whether the first frame is shown as it is coded."""
    video = container.streams.video[0]
    for packet in container.demux(video):
        for frame in video.codec_context.decode(packet if packet.size else None):
            return orientation_of(frame) == UPRIGHT
    return False


def _colour_tags(colour: Colour, context: Any) -> str:
    pairs = [
        (colour.space_tag, context.colorspace, _UNSPECIFIED),
        (colour.primaries_tag, context.color_primaries, _UNSPECIFIED),
        (colour.transfer_tag, context.color_trc, _UNSPECIFIED),
        (2 if colour.full_range else 0, context.color_range if context.color_range == 2 else 0, 0),
    ]
    tagged = [(ours, theirs, nothing) for ours, theirs, nothing in pairs if ours != nothing]
    if all(ours == theirs for ours, theirs, _ in tagged):
        return "kept"
    if all(theirs in (ours, nothing) for ours, theirs, nothing in tagged):
        return "not held by the format"
    return "changed"
