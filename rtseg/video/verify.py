"""What went in against what came out, both read from the files alone: frames, times, streams in step, packets, tags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from rtseg.core.errors import SinkError
from rtseg.core.frame import Color, Frame, Passthrough, StreamInfo, time_code_of
from rtseg.io.inputs.audio_changes import has_adts
from rtseg.io.inputs.file_clock import GAP_SECONDS, LONGEST_GAP_SECONDS
from rtseg.io.inputs.frame_converter import UPRIGHT, orientation_of
from rtseg.io.inputs.safe_open import STDIN
from rtseg.io.inputs.timestamps import Span
from rtseg.io.outputs.copied_stream import codec_name
from rtseg.io.outputs.video import Written
from rtseg.video.container_reader import (
    NO_TIME,
    ContainerReading,
    StreamReading,
    decoded_times,
    read_container,
    reading_of,
)
from rtseg.video.stream_sync import jump_sizes
from rtseg.video.time_match import Match, match_times
from rtseg.video.verify_report import FidelityReport, Repair
from rtseg.video.verify_streams import StreamComparison

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
        # Kept here because a stream must not be touched once its container is closed.
        self.video_index: int | None = None if info.template is None else info.template.index
        self.video = StreamReading("", "video", info.time_base)
        self.streams = {
            stream.index: StreamReading(
                codec_name(stream), stream.type, adts=has_adts(stream), time_code=time_code_of(stream.metadata)
            )
            for stream in info.streams
        }
        for index, cover in info.covers.items():
            self.streams[index].kind = "cover"
            self.streams[index].add(cover, 0)

    def see(self, item: Frame | Passthrough) -> None:
        """Takes note of one frame or packet."""
        if isinstance(item, Frame):
            self.video.pts.append(item.pts)
            self.video.dts.append(NO_TIME)
            self.video.last_duration = item.duration
        elif item.stream_index in self.streams:
            self.streams[item.stream_index].add(item.packet, 0)

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
    video = recorder.video_index
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
        self.problems: list[str] = []
        self.repairs: list[Repair] = []

    def report(self) -> FidelityReport:
        """Compare everything."""
        rendered = self._shown_times(self._output)
        out_times = sorted(time if time is not None else number for number, time in enumerate(rendered))
        match, count = self._match_frames(out_times)
        error_ms = difference_ms = None
        moved = Fraction(0)
        if self._written.timed and match is not None and match.segments and not self.problems:
            moved = self._frame_times(match)
            error_ms = float(match.worst * match.unit) * 1000
            difference_ms = self._length_difference(match)
        beside = StreamComparison(
            self._input,
            self._output,
            self._written,
            match,
            known=self._recorder.streams,
            source=None if self._source is None else self._source.path,
            begin=None if self._span.whole else self._begin(),
            jumps=self._jumps([time if time != NO_TIME else None for time in self._input.video.dts]),
            gap=self._gap,
            coarse=self._output.video.time_base if self._container.format.name == "avi" else Fraction(0),
        )
        streams = tuple(beside.reports())
        self.problems += beside.problems
        self.repairs += beside.repairs
        color = _color_tags(self._recorder.info.color, self._own.codec_context)
        self._check_picture(color)
        self._check_choice()
        return FidelityReport(
            frames_in=count,
            frames_out=len(out_times),
            corrupt=self._corrupt,
            timestamp_error_ms=error_ms,
            duration_difference_ms=difference_ms,
            color_tags=color,
            streams=streams,
            problems=tuple(self.problems),
            moved_ms=float(moved) * 1000,
            reference=self._reference,
            repairs=tuple(self.repairs),
            sync=tuple(beside.sync),
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
        elif not self._input.timed and not self._span.whole:
            self._not_compared("the input has no times")
            return None, len(out_times)
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
                self._source.path,
                self._video_index or 0,
                allow_protocols=self._source.allow_protocols,
                damaged=self._corrupt > 0,
            )
            if demuxed is None and not self._span.whole and self._jumps(decoded):
                self._not_compared("the input's clock jumps")
                return None, len(out_times)
            times = self._in_span(decoded)
        match = self._match(times, out_times)
        if match.lost or match.extra:
            self.problems.append(f"{len(times)} frames went in, {len(out_times)} came out")
        return match, len(times)

    def _not_compared(self, why: str) -> None:
        """Say that nothing tells independently which times a part ought to have."""
        self.repairs.append(Repair(None, f"times of this part not compared, as {why}", 0, 0.0))

    def _jumps(self, times: list[int | None]) -> bool:
        known = [time for time in times if time is not None]
        limit = self._gap / self._input.video.time_base
        return any(not 0 < later - earlier <= limit for earlier, later in pairwise(known))

    def _in_span(self, times: list[int | None]) -> list[int | None]:
        if self._span.whole:
            return times
        tick = self._input.video.time_base
        first = next((time for time in times if time is not None), 0)
        # An AVI with B-frames begins at its first decoding time, and shows its first frame later.
        begin = first * tick if self._input.arbitrary_clock else self._begin() - self._span.start
        span = Span(self._span.start, self._span.duration, begin)
        around = _between(times)
        return [time for time, place in zip(times, around, strict=True) if span.holds(place, tick)]

    def _begin(self) -> Fraction:
        """Seconds at which the part that was asked for begins, by the input's clock."""
        first = min((time for time in self._shown_times(self._input) if time is not None), default=0)
        return first * self._input.video.time_base + self._span.start

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
            elif self._container.format.name in _MOVES or set(self._input.video.pts) == {NO_TIME}:
                moved = shift
            else:
                self.problems.append(f"all frames are shown {float(shift) * 1000:+.1f} ms off their time")
        rendered = sorted(time for time in self._shown_times(self._output) if time is not None)
        if same := sum(later == earlier for earlier, later in pairwise(rendered)):
            frames = "1 frame is" if same == 1 else f"{same} frames are"
            what = f"{frames} shown at the time of the one before: the container counts in {float(tick) * 1000:g} ms"
            self.problems.append(what)
        if match.worst * match.unit > tick:
            self.problems.append(f"a frame is shown {float(match.worst * match.unit) * 1000:.1f} ms off its time")
        for at, seconds in jump_sizes(match.segments, match.unit):
            what = f"the input's clock jumps at {at:.3f} s: {seconds:+.3f} s for all streams from there on"
            self.repairs.append(Repair(None, what, 0, seconds))
        if match.set_between:
            frames = f"{match.set_between} frame{'s' * (match.set_between > 1)}"
            what = f"{frames} without a right time stamp set between the neighbors"
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
        if not all(durations) or len(match.segments) != 1 or not self._span.whole or match.lost:
            return None
        segment = match.segments[0]
        length_in = (segment.last_in - segment.first_in) * match.unit + durations[0] * self._input.video.time_base
        length_out = (segment.last_out - segment.first_out) * match.unit + durations[1] * self._output.video.time_base
        return float(length_out - length_in) * 1000

    # What players show

    def _check_picture(self, color: str) -> None:
        if color == "changed":
            self.problems.append("the color tags are not the input's")
        if not self._upright:
            self.problems.append("players would turn the picture: it carries a display matrix")
        context, size = self._own.codec_context, self._written.size
        if (context.width, context.height) != size:
            self.problems.append(f"the picture is {context.width}x{context.height}, not {size}")

    def _check_choice(self) -> None:
        """Whether players choose the segmented video, and the audio that they choose in the input."""
        rendered = _chosen("video", {self._own.index: self._output.video, **self._output.others})
        if rendered != self._own.index:
            self.problems.append(f"players would show video stream {rendered}, which is not the segmented one")
        indices = {**self._written.copied, **self._written.reencoded}
        # A time code and cover pictures are written behind all others.
        kinds = {n: reading.kind for n, reading in sorted(self._input.others.items()) if n in indices}
        order = [indices[n] for n, kind in kinds.items() if kind not in ("data", "cover")]
        kept = {out: index for index, out in indices.items()}
        if order != sorted(order):
            self.problems.append("the streams are not in the input's order")
        first_in = _chosen("audio", {n: r for n, r in self._input.others.items() if n in indices})
        first_out = _chosen("audio", self._output.others)
        if first_in is not None and kept.get(-1 if first_out is None else first_out) != first_in:
            self.problems.append(f"players would play another audio stream than the input's ({first_in})")


def _between(times: Sequence[int | None]) -> list[int]:
    """The times, and for those that are missing the ones between their neighbors."""
    known = {number: time for number, time in enumerate(times) if time is not None}
    if not known:
        return [0] * len(times)
    return [round(time) for time in np.interp(range(len(times)), list(known), list(known.values()))]


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


def _color_tags(color: Color, context: Any) -> str:
    pairs = [
        (color.space_tag, context.colorspace, _UNSPECIFIED),
        (color.primaries_tag, context.color_primaries, _UNSPECIFIED),
        (color.transfer_tag, context.color_trc, _UNSPECIFIED),
        (2 if color.full_range else 0, context.color_range if context.color_range == 2 else 0, 0),
    ]
    tagged = [(ours, theirs, nothing) for ours, theirs, nothing in pairs if ours != nothing]
    if all(ours == theirs for ours, theirs, _ in tagged):
        return "kept"
    if all(theirs in (ours, nothing) for ours, theirs, nothing in tagged):
        return "not held by the format"
    return "changed"
