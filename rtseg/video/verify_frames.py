"""Verification of the frames of an output: their number and their timestamps."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from rtseg.core.fidelity_report import Repair
from rtseg.io.inputs.stream_state import GAP_SECONDS, LONGEST_GAP_SECONDS
from rtseg.io.inputs.timestamps import Span
from rtseg.video.container_reader import NO_TIME, ContainerPackets
from rtseg.video.frame_times import decoded_times
from rtseg.video.timestamp_match import Match, match_times
from rtseg.video.verify_sync import jump_sizes

_SHIFTING_FORMATS = frozenset({"mpegts", "matroska,webm", "avi"})
"""Formats without negative timestamps, where B-frames or early audio shift all streams by the same amount."""


class FrameComparison:
    """Comparison of the frames of an output with those of its input.

    Args:
        before: the input.
        after: the output.
        path: path of the input, for a plain decode; None: the input can't be read again.
        video: index of the segmented video stream in the input; None: unknown.
        allow_protocols: additional protocols, as for `open_input`.
        recorded_times: timestamps of the frames of the run, which are compared if `path` is None.
        span: range of the input that was processed.
        corrupt: number of frames that the source could not decode.
        timed: whether the output has timestamps.
        output_format: FFmpeg's name of the output's format.
    """

    def __init__(
        self,
        before: ContainerPackets,
        after: ContainerPackets,
        *,
        path: str | None,
        video: int | None,
        allow_protocols: Sequence[str],
        recorded_times: Sequence[int],
        span: tuple[float | None, float | None],
        corrupt: int,
        timed: bool,
        output_format: str,
    ) -> None:
        self._input, self._output, self._path, self._video = before, after, path, video
        self._allow_protocols, self._recorded_times = allow_protocols, recorded_times
        self._corrupt, self._timed, self._format = corrupt, timed, output_format
        start, duration = span
        self._span = Span(
            Fraction(start or 0).limit_denominator(1_000_000),
            None if duration is None else Fraction(duration).limit_denominator(1_000_000),
        )
        self.reference = "once" if path is None else "demuxed"
        self.problems: list[str] = []
        self.repairs: list[Repair] = []
        self.not_compared: list[str] = []
        self.match: Match | None = None
        """Match of the frames; None: only their number was compared."""

        self.frames_in = 0
        self.frames_out = 0
        self.timestamp_error_ms: float | None = None
        self.duration_difference_ms: float | None = None
        self.moved_seconds = Fraction(0)
        """Shift of all frames by the container."""

    def run(self) -> None:
        """Compare the frames and set all results."""
        visible = self._output.video.visible_times()
        times_out = sorted(time if time is not None else number for number, time in enumerate(visible))
        self.match, self.frames_in = self._match_frames(times_out)
        self.frames_out = len(times_out)
        if self._timed and self.match is not None and self.match.segments and not self.problems:
            self.moved_seconds = self._check_timestamps(self.match)
            self.timestamp_error_ms = float(self.match.max_error * self.match.unit) * 1000
            self.duration_difference_ms = self._duration_difference_ms(self.match)

    @property
    def begin(self) -> Fraction | None:
        """Time in seconds, by the input's clock, at which the processed range begins; None: the whole input."""
        return None if self._span.whole else self._begin()

    @property
    def input_jumps(self) -> bool:
        """True if the input's clock jumps."""
        return self._has_jumps([time if time != NO_TIME else None for time in self._input.video.dts])

    @property
    def gap(self) -> Fraction:
        """Seconds; a longer forward step is a jump of the input's clock."""
        return Fraction(GAP_SECONDS if self._input.arbitrary_clock else LONGEST_GAP_SECONDS)

    def _match_frames(self, times_out: list[int]) -> tuple[Match | None, int]:
        """Return the match of the frames (None: only their number can be compared) and the number of input frames."""
        times: list[int | None] | None = None
        if self._path is None:
            times = list(self._recorded_times)
        elif not self._input.timed and not self._span.whole:
            self._add_not_compared("the input has no timestamps")
            return None, len(times_out)
        else:
            demuxed = self._input.presentation_times()
            if demuxed is not None:
                in_span = self._in_span(list(demuxed))
                match = self._match(in_span, times_out)
                exact = match.max_error * match.unit <= self._output.video.time_base and not match.interpolated
                if exact and not match.extra and match.lost == self._corrupt:
                    return match, len(in_span) - match.lost
            # The packets are not sufficient, or frames are missing: compare with a plain decode, as in a player.
            self.reference = "decoded"
            decoded = decoded_times(
                self._path,
                self._video or 0,
                allow_protocols=self._allow_protocols,
                damaged=self._corrupt > 0,
            )
            if demuxed is None and not self._span.whole and self._has_jumps(decoded):
                self._add_not_compared("the input's clock jumps")
                return None, len(times_out)
            times = self._in_span(decoded)
        match = self._match(times, times_out)
        if match.lost or match.extra:
            self.problems.append(f"{len(times)} frames in the input, {len(times_out)} in the output")
        return match, len(times)

    def _add_not_compared(self, reason: str) -> None:
        """Report that there is no independent reference for the timestamps of a part of the input."""
        self.not_compared.append(f"timestamps of this part not compared, because {reason}")

    def _has_jumps(self, times: list[int | None]) -> bool:
        known = [time for time in times if time is not None]
        limit = self.gap / self._input.video.time_base
        return any(not 0 < later - earlier <= limit for earlier, later in pairwise(known))

    def _in_span(self, times: list[int | None]) -> list[int | None]:
        if self._span.whole:
            return times
        tick = self._input.video.time_base
        first = next((time for time in times if time is not None), 0)
        # An AVI with B-frames begins at its first decoding time, and its first frame is displayed later.
        begin = first * tick if self._input.arbitrary_clock else self._begin() - self._span.start
        span = Span(self._span.start, self._span.duration, begin)
        interpolated = _interpolate(times)
        return [time for time, position in zip(times, interpolated, strict=True) if span.contains(position, tick)]

    def _begin(self) -> Fraction:
        first = min((time for time in self._input.video.visible_times() if time is not None), default=0)
        return first * self._input.video.time_base + self._span.start

    def _match(self, times_in: list[int | None], times_out: list[int]) -> Match:
        if not self._timed:
            times_in = [None] * len(times_in)  # The output has no timestamps: compare the number of frames only.
        tick_in, tick_out = self._input.video.time_base, self._output.video.time_base
        return match_times(times_in, times_out, tick_in, tick_out, tolerance=tick_out, gap=self.gap)

    def _check_timestamps(self, match: Match) -> Fraction:
        """Add problems and repairs of the timestamps; return the shift of all frames by the container in seconds."""
        tick = self._output.video.time_base
        first = match.segments[0]
        shift = first.shift * match.unit + self._span.start
        moved = Fraction(0)
        if abs(shift) >= tick:
            if self._start_needs_shift(first.first_in * match.unit):
                self.repairs.append(Repair(None, f"all streams moved by {float(shift):+.3f} s", 0, float(shift)))
            elif self._format in _SHIFTING_FORMATS or set(self._input.video.pts) == {NO_TIME}:
                moved = shift
            else:
                self.problems.append(f"the timestamps of all frames are off by {float(shift) * 1000:+.1f} ms")
        times_out = sorted(time for time in self._output.video.visible_times() if time is not None)
        if duplicates := sum(later == earlier for earlier, later in pairwise(times_out)):
            frames = "1 frame has" if duplicates == 1 else f"{duplicates} frames have"
            message = (
                f"{frames} the timestamp of the previous one: the container's time base is {float(tick) * 1000:g} ms"
            )
            self.problems.append(message)
        if match.max_error * match.unit > tick:
            error_ms = float(match.max_error * match.unit) * 1000
            self.problems.append(f"the timestamp of a frame is off by {error_ms:.1f} ms")
        for at_seconds, seconds in jump_sizes(match.segments, match.unit):
            message = f"the input's clock jumps at {at_seconds:.3f} s: {seconds:+.3f} s for all streams from there on"
            self.repairs.append(Repair(None, message, 0, seconds))
        if match.interpolated:
            timestamps = f"timestamp{'s' * (match.interpolated > 1)}"
            message = f"{match.interpolated} missing or wrong frame {timestamps} interpolated"
            self.repairs.append(Repair(self._video, message, match.interpolated, 0.0))
        return moved

    def _start_needs_shift(self, video_start: Fraction) -> bool:
        """Return whether the input starts before zero, or by an arbitrary clock far from zero."""
        starts = []
        for packets in (self._input.video, *self._input.others.values()):
            times = [time for time in packets.visible_times() if time is not None]
            if packets.kind in ("video", "audio") and times:
                starts.append(min(times) * packets.time_base)
        return min(starts, default=video_start) < 0 or (self._input.arbitrary_clock and video_start > GAP_SECONDS)

    def _duration_difference_ms(self, match: Match) -> float | None:
        durations = self._input.video.last_duration, self._output.video.last_duration
        if not all(durations) or len(match.segments) != 1 or not self._span.whole or match.lost:
            return None
        segment = match.segments[0]
        length_in = (segment.last_in - segment.first_in) * match.unit + durations[0] * self._input.video.time_base
        length_out = (segment.last_out - segment.first_out) * match.unit + durations[1] * self._output.video.time_base
        return float(length_out - length_in) * 1000


def _interpolate(times: Sequence[int | None]) -> list[int]:
    """Return the times, with missing ones interpolated between their neighbors."""
    known = {number: time for number, time in enumerate(times) if time is not None}
    if not known:
        return [0] * len(times)
    return [round(time) for time in np.interp(range(len(times)), list(known), list(known.values()))]
