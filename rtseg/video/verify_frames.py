"""Verification of the frames of an output: their number and their timestamps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from rtseg.core.fidelity_report import Repair
from rtseg.io.inputs.stream_state import GAP_SECONDS, LONGEST_GAP_SECONDS
from rtseg.io.inputs.timestamps import Span
from rtseg.video.container_reader import NO_TIME, ContainerPackets
from rtseg.video.frame_times import decoded_times
from rtseg.video.timestamp_match import Match, match_times

_SHIFTING_FORMATS = frozenset({"mpegts", "matroska,webm", "avi"})
"""Formats without negative timestamps, where B-frames or early audio shift all streams by the same amount."""


@dataclass(frozen=True, slots=True)
class ComparedInput:
    """Input of a run, to be compared with the output."""

    packets: ContainerPackets
    video: int | None
    """Index of the segmented video stream; None: unknown."""

    streams: Collection[int]
    """Indices of the other streams that the source yielded."""

    corrupt: int
    """Number of frames that the source could not decode."""

    path: str | None
    """Path for decoding; None: the input can't be read again, and `packets` are those of the run."""

    allow_protocols: Sequence[str]
    """Additional protocols, as for `open_input`."""

    span: Span
    """Range that was processed."""

    @property
    def gap(self) -> Fraction:
        """Seconds; a longer forward step is a jump of the clock."""
        return Fraction(GAP_SECONDS if self.packets.arbitrary_clock else LONGEST_GAP_SECONDS)

    @property
    def begin(self) -> Fraction:
        """Time in seconds, by the input's clock, at which the range begins."""
        first = min(self.packets.video.known_times(), default=0)
        return first * self.packets.video.time_base + self.span.start

    def has_jumps(self, times: Sequence[int | None]) -> bool:
        """Return whether the clock jumps, by times in ticks of the video stream."""
        known = [time for time in times if time is not None]
        limit = self.gap / self.packets.video.time_base
        return any(not 0 < later - earlier <= limit for earlier, later in pairwise(known))


class FrameComparison:
    """Comparison of the frames of an output with those of its input.

    `match` is None if only the number of frames was compared.
    """

    def __init__(self, before: ComparedInput, output: ContainerPackets) -> None:
        self._before, self._output = before, output
        self._input, self._span = before.packets, before.span
        self.reference = "once" if before.path is None else "demuxed"
        self.problems: list[str] = []
        self.repairs: list[Repair] = []
        self.not_compared: list[str] = []
        self.timestamp_error_ms: float | None = None
        self.duration_difference_ms: float | None = None
        self.moved_seconds = Fraction(0)
        """Shift of all frames by the container."""

        visible = self._output.video.visible_times()
        times_out = sorted(number if time is None else time for number, time in enumerate(visible))
        self.match, self.frames_in = self._match_frames(times_out)
        self.frames_out = len(times_out)
        if output.timed and self.match is not None and self.match.segments and not self.problems:
            self.moved_seconds = self._check_timestamps(self.match)
            self.timestamp_error_ms = float(self.match.max_error * self.match.unit) * 1000
            self.duration_difference_ms = self._duration_difference_ms(self.match)

    def _match_frames(self, times_out: list[int]) -> tuple[Match | None, int]:
        """Return the match of the frames (None: only their number can be compared) and the number of input frames."""
        times: list[int | None]
        if self._before.path is None:
            times = list(self._input.video.pts)
        elif not self._input.timed and not self._span.whole:
            self.not_compared.append("timestamps of this part not compared, because the input has no timestamps")
            return None, len(times_out)
        else:
            demuxed = self._input.presentation_times()
            if demuxed is not None:
                in_span = self._in_span(demuxed)
                match = self._match(in_span, times_out)
                exact = match.max_error * match.unit <= self._output.video.time_base and not match.interpolated
                if exact and not match.extra and match.lost == self._before.corrupt:
                    return match, len(in_span) - match.lost
            # The packets are not sufficient, or frames are missing: compare with a plain decode, as in a player.
            self.reference = "decoded"
            decoded = decoded_times(
                self._before.path,
                self._before.video or 0,
                allow_protocols=self._before.allow_protocols,
                damaged=self._before.corrupt > 0,
            )
            if demuxed is None and not self._span.whole and self._before.has_jumps(decoded):
                self.not_compared.append("timestamps of this part not compared, because the input's clock jumps")
                return None, len(times_out)
            times = self._in_span(decoded)
        match = self._match(times, times_out)
        if match.lost or match.extra:
            self.problems.append(f"{len(times)} frames in the input, {len(times_out)} in the output")
        return match, len(times)

    def _in_span(self, times: Sequence[int | None]) -> list[int | None]:
        if self._span.whole:
            return list(times)
        tick = self._input.video.time_base
        first = next((time for time in times if time is not None), 0)
        # An AVI with B-frames begins at its first decoding time, and its first frame is displayed later.
        begin = first * tick if self._input.arbitrary_clock else self._before.begin - self._span.start
        span = Span(self._span.start, self._span.duration, begin)
        interpolated = _interpolate(times)
        return [time for time, position in zip(times, interpolated, strict=True) if span.contains(position, tick)]

    def _match(self, times_in: list[int | None], times_out: list[int]) -> Match:
        if not self._output.timed:
            times_in = [None] * len(times_in)  # The output has no timestamps: compare the number of frames only.
        tick_in, tick_out = self._input.video.time_base, self._output.video.time_base
        return match_times(times_in, times_out, tick_in, tick_out, tolerance=tick_out, gap=self._before.gap)

    def _check_timestamps(self, match: Match) -> Fraction:
        """Add problems and repairs of the timestamps; return the shift of all frames by the container in seconds."""
        tick = self._output.video.time_base
        first = match.segments[0]
        shift = first.shift * match.unit + self._span.start
        moved = Fraction(0)
        # The beginning of a part is rounded to the clock of the input.
        rounding = min(self._input.video.time_base, Fraction(1, 1000)) if self._span.start else Fraction(0)
        if abs(shift) >= max(tick, rounding):
            if self._start_needs_shift(first.first_in * match.unit):
                self.repairs.append(Repair(None, f"all streams moved by {float(shift):+.3f} s", 0, float(shift)))
            elif self._output.format in _SHIFTING_FORMATS or set(self._input.video.pts) == {NO_TIME}:
                moved = shift
            else:
                self.problems.append(f"the timestamps of all frames are off by {float(shift) * 1000:+.1f} ms")
        times_out = sorted(self._output.video.known_times())
        if duplicates := sum(later == earlier for earlier, later in pairwise(times_out)):
            frames = "1 frame has" if duplicates == 1 else f"{duplicates} frames have"
            same = f"{frames} the timestamp of the previous one"
            self.problems.append(f"{same}: the container's time base is {float(tick) * 1000:g} ms")
        if match.max_error * match.unit > tick:
            error_ms = float(match.max_error * match.unit) * 1000
            self.problems.append(f"the timestamp of a frame is off by {error_ms:.1f} ms")
        for earlier, later in pairwise(match.segments):
            at_seconds, seconds = float(later.first_out * match.unit), float((later.shift - earlier.shift) * match.unit)
            message = f"the input's clock jumps at {at_seconds:.3f} s: {seconds:+.3f} s for all streams from there on"
            self.repairs.append(Repair(None, message, 0, seconds))
        if match.interpolated:
            timestamps = f"timestamp{'s' * (match.interpolated > 1)}"
            message = f"{match.interpolated} missing or wrong frame {timestamps} interpolated"
            self.repairs.append(Repair(self._before.video, message, match.interpolated, 0.0))
        return moved

    def _start_needs_shift(self, video_start: Fraction) -> bool:
        """Return whether the input starts before zero, or by an arbitrary clock far from zero."""
        starts = [
            min(times) * packets.time_base
            for packets in (self._input.video, *self._input.others.values())
            if packets.kind in ("video", "audio") and (times := packets.known_times())
        ]
        return min(starts, default=video_start) < 0 or (self._input.arbitrary_clock and video_start > GAP_SECONDS)

    def _duration_difference_ms(self, match: Match) -> float | None:
        durations = self._input.video.last_duration, self._output.video.last_duration
        if not all(durations) or len(match.segments) != 1 or not self._span.whole or match.lost:
            return None
        packets_per_frame = len(self._input.video.visible_times()) / self.frames_in
        if 1.1 < packets_per_frame < 1.9:
            return None  # Some frames are stored as two fields; whether the last one is, the packets do not show.
        segment = match.segments[0]
        length_in, duration_in = (
            (segment.last_in - segment.first_in) * match.unit,
            durations[0] * self._input.video.time_base,
        )
        # Of two fields, a packet has the duration of one, or (Matroska) of the frame.
        is_field = packets_per_frame > 1.5 and duration_in < 0.75 * length_in / max(1, segment.count - 1)
        length_in += 2 * duration_in if is_field else duration_in
        length_out = (segment.last_out - segment.first_out) * match.unit + durations[1] * self._output.video.time_base
        return float(length_out - length_in) * 1000


def _interpolate(times: Sequence[int | None]) -> list[int]:
    """Return the times, with missing ones interpolated between their neighbors."""
    known = {number: time for number, time in enumerate(times) if time is not None}
    if not known:
        return [0] * len(times)
    return [round(time) for time in np.interp(range(len(times)), list(known), list(known.values()))]
