"""Verification of the streams other than the segmented video: the same packets, synchronized with the video."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import count, takewhile

from rtseg.core.fidelity_report import Repair, StreamReport, SyncPoint
from rtseg.core.frame import TIME_CODE
from rtseg.io.outputs.file_sink import WrittenFile
from rtseg.video.container_reader import NO_TIME, ContainerPackets, StreamPackets, optional_times
from rtseg.video.frame_times import decoded_times, first_decoded
from rtseg.video.packet_pairing import comparable_times, pair_packets, sort_by_distance
from rtseg.video.timestamp_match import Match, Segment, match_times
from rtseg.video.verify_audio import reencoded_audio_sync
from rtseg.video.verify_frames import ComparedInput

_SYNC_MS = 20.0
"""Maximum change of an offset to the video between input and output. Viewers notice audio that is 45 ms early (ITU-R BT.1359)."""

_PREROLL_SECONDS = Fraction(1, 10)
"""Maximum duration of audio before time zero that MP4 may hide: the delay of an encoder."""


class StreamComparison:
    """Comparison of all streams except the segmented video.

    `video` is the match of the frames; None: unknown, and timestamps are not compared.
    """

    def __init__(
        self, before: ComparedInput, output: ContainerPackets, written: WrittenFile, video: Match | None
    ) -> None:
        self._before, self._input, self._output, self._written = before, before.packets, output, written
        self._video, self._segments = video, [] if video is None else video.segments
        self._unit = Fraction(1) if video is None else video.unit
        self._whole = before.span.whole
        self._begin = Fraction(0) if self._whole else before.begin
        # Where the input's clock jumps, timestamps do not show whether a packet is before the range.
        self._jumps = before.has_jumps(optional_times(self._input.video.dts))
        # AVI rounds the times of all streams, in addition to their time bases.
        self._rounding = self._output.video.time_base if output.format == "avi" else Fraction(0)
        self.problems: list[str] = []
        self.repairs: list[Repair] = []
        self.sync: list[SyncPoint] = []

    def reports(self) -> list[StreamReport]:
        """Compare each stream of the input; differences are added to `problems`."""
        actions = dict.fromkeys(self._written.copied, "copied") | dict.fromkeys(self._written.reencoded, "re-encoded")
        indices = self._written.copied | self._written.reencoded
        reports = []
        for index, before in self._input.others.items():
            if index not in self._before.streams:
                continue  # The chapter track of an MP4, which FFmpeg reads as chapters.
            action = actions.get(index, "left out")
            after = self._output.others.get(indices[index]) if index in indices else None
            problem = ""
            if before.codec == TIME_CODE:
                if before.time_code not in self._output.time_codes:
                    action = "left out"
                if after is not None and after.codec != TIME_CODE:
                    after = None  # a copied video stream with the time code in its metadata
            if before.kind == "cover":
                kept = action != "copied" or self._has_cover(before)
                problem = "" if kept else "the cover image is not in the output"
            elif action == "copied" and after is not None:
                problem = self._copied_problem(index, before, after)
            elif action == "re-encoded" and after is not None and before.kind == "audio":
                problem = self._reencoded_problem(index, before, after, indices[index])
            if problem:
                self.problems.append(f"{before.kind} stream {index}: {problem}")
            packets_out = 0 if after is None else len(after.pts)
            equal = action == "copied" and not problem
            packets_in = packets_out if equal else len(before.pts) - len(before.hidden)
            reports.append(StreamReport(index, before.kind, before.codec, action, packets_in, packets_out, not problem))
        return reports

    def _has_cover(self, before: StreamPackets) -> bool:
        """Return whether the output has the same cover image."""
        return any(after.kind == "cover" and after.hashes == before.hashes for after in self._output.others.values())

    def _copied_problem(self, index: int, before: StreamPackets, after: StreamPackets) -> str:
        """Return the difference between a copied stream and the input's, in content or synchronization; empty if none."""
        video, times = self._video, before.times()
        preparing: set[int] = set()
        if before.is_pcm:
            hashes_in = before.stream_hash.digest(), before.visible_hash.digest()
            if self._whole and after.stream_hash.digest() not in hashes_in:
                return "the samples are not the same"
            numbers = list(range(len(times)))
        else:
            paired = pair_packets(before, after, video, whole=self._whole)
            if isinstance(paired, str):
                return paired
            numbers = paired
            preparing = self._preparing_places(before, after, numbers)
            if before.kind == "video":
                self._note_missing_start(index, before, numbers)
            self._note_early(index, before, after, preparing)
            if problem := self._hidden_problem(before, after, preparing):
                return problem
        times_out = [time for time in after.times() if time is not None]
        if not numbers or not times_out or video is None or not self._segments or not self._output.timed:
            return ""
        if before.is_pcm:
            times_in: list[int | None] = [times[sort_by_distance(before, after, range(len(times)), video)[0]]]
            times_out = times_out[:1]
        else:
            # Packets that only prepare the decoder have other timestamps.
            preparing = preparing if before.kind == "video" else set()
            times_in, times_out = comparable_times(before, after, numbers, preparing)
            numbers = [number for place, number in enumerate(numbers) if place not in preparing]
            if before.kind == "video" and set(after.pts) == {NO_TIME} != set(before.pts):
                self._note_delay(index, after)
            if before.kind == "video" and set(before.pts) == {NO_TIME} != set(after.pts):
                decoded = decoded_times(str(self._written.path), self._written.copied[index])
                known = [time for time in decoded if time is not None]
                if known != sorted(known):
                    return "its frames are not in presentation order"
        tolerance = max(after.time_base, before.time_base) + self._rounding
        match = match_times(
            times_in, times_out, before.time_base, after.time_base, tolerance=tolerance, gap=self._before.gap
        )
        if match.max_error * match.unit > tolerance + self._output.video.time_base:
            return f"the timestamp of a packet is off by {float(match.max_error * match.unit) * 1000:.1f} ms"
        if match.interpolated:
            timestamps = _counted(
                match.interpolated, f"missing or wrong timestamp{{s}} of {before.kind} stream {index}"
            )
            self.repairs.append(Repair(index, f"{timestamps} interpolated", match.interpolated, 0.0))
        positions: list[int] = []
        if self._input.arbitrary_clock and self._whole and not before.is_pcm:
            positions = [before.positions[number] for number in numbers]
        points = _sync_points(index, match, video, positions, self._frame_positions(video))
        return self._sync_problem(points, before.kind, float(tolerance) * 1000)

    def _frame_positions(self, video: Match) -> list[int]:
        """Return the approximate position in the file of each frame; empty for a pipe.

        A frame has two packets if its fields are separate.
        """
        positions, frames = self._input.video.positions, video.segments[-1].last + 1
        return [positions[number * len(positions) // frames] for number in range(frames) if positions]

    def _hidden_problem(self, before: StreamPackets, after: StreamPackets, preparing: set[int]) -> str:
        """Return the problem that visible packets of the input are hidden in the output; empty if there is none.

        The first packets of audio may be hidden, as the delay of an encoder.
        """
        times = after.times()
        hidden = [place for place in sorted(after.hidden) if place not in preparing]
        if not hidden:
            return ""
        first, last = times[hidden[0]], times[hidden[-1]]
        long = first is None or last is None or (last - first) * after.time_base >= _PREROLL_SECONDS
        if before.kind == "audio" and hidden[-1] < len(times) - 1 and not long:
            return ""
        return f"{_counted(len(hidden), 'visible packet{s}')} of the input hidden in the output"

    def _note_early(self, index: int, before: StreamPackets, after: StreamPackets, preparing: set[int]) -> None:
        """Report the visible packets of a copied stream that are before the processed range."""
        visible = sum(place not in after.hidden for place in takewhile(preparing.__contains__, count()))
        if before.kind == "video":
            # The frame that is displayed when the range begins stays displayed at its beginning.
            shift = self._segments[0].shift * self._unit if self._segments else Fraction(0)
            begin = self._begin + shift - after.time_base / 2
            times = [after.time(place) for place in preparing if place not in after.hidden]
            visible = sum(time is None or time * after.time_base < begin for time in times)
        if visible > (before.kind == "audio"):  # the first audio packet of an encoder is silence
            packets = _counted(visible, f"packet{{s}} of {before.kind} stream {index}")
            message = f"{packets} before the first visible one: the container can't hide them"
            self.repairs.append(Repair(index, message, visible, 0.0))

    def _note_missing_start(self, index: int, before: StreamPackets, numbers: list[int]) -> None:
        """Report the visible packets of a copied video stream that precede its first packet in the output."""
        if self._jumps and not self._whole:
            return
        first = numbers[0] if numbers else len(before.pts)
        end = self._segments[-1].last_in * self._unit if self._segments and not self._whole else None
        times = [before.time(number) for number in range(first) if not self._is_preparing(before, number)]
        missing = sum(time is None or end is None or time * before.time_base <= end for time in times)
        if missing:
            packets = _counted(missing, f"packet{{s}} of video stream {index}")
            self.repairs.append(Repair(index, f"{packets} left out up to its next key frame", missing, 0.0))

    def _note_delay(self, index: int, after: StreamPackets) -> None:
        """Report the delay of a copied video stream with reordered frames in AVI, which has no presentation times."""
        displayed = first_decoded(str(self._written.path), self._written.copied[index])
        seconds = 0.0 if displayed is None else float(displayed - min(after.dts) * after.time_base)
        if seconds > 0:
            message = (
                f"AVI has no presentation times for the reordered frames of video stream {index}: some players, including "
                f"FFmpeg's, show them {seconds * 1000:.0f} ms late"
            )
            self.repairs.append(Repair(index, message, 0, seconds))

    def _preparing_places(self, before: StreamPackets, after: StreamPackets, numbers: list[int]) -> set[int]:
        """Return the places in `numbers` (packet numbers of the output) of packets that only prepare the decoder."""
        preparing = [place for place, number in enumerate(numbers) if self._is_preparing(before, number)]
        if before.kind == "video" and set(before.pts) == {NO_TIME} != set(after.pts):
            # H.264 in AVI has no presentation times: the same number of packets, displayed first.
            return set(sorted(range(len(after.pts)), key=lambda place: after.time(place) or 0)[: len(preparing)])
        return set(preparing)

    def _is_preparing(self, before: StreamPackets, number: int) -> bool:
        """Return whether a packet of the input is hidden, or displayed before the processed range."""
        time = before.time(number)
        comparable = not self._whole and not self._jumps and before.kind == "video"
        early = comparable and time is not None and time * before.time_base < self._begin
        return number in before.hidden or early

    def _sync_problem(self, points: list[SyncPoint], kind: str, tolerance_ms: float) -> str:
        if kind == "audio":
            self.sync += points
        worst = max(points, key=lambda point: abs(point.difference_ms), default=None)
        if worst is None or abs(worst.difference_ms) <= max(_SYNC_MS, tolerance_ms):
            return ""
        return f"{worst.difference_ms:+.0f} ms out of sync with the video at {worst.at_seconds:.2f} s"

    def _reencoded_problem(self, index: int, before: StreamPackets, after: StreamPackets, index_out: int) -> str:
        """Return the difference between re-encoded audio and the input's; empty if there is none or it can't be measured."""
        if before.pts and not after.pts:
            return "re-encoded, it is empty"
        path_in, path_out = self._before.path, str(self._written.path)
        if path_in is None or self._video is None or not self._segments or not self._output.timed:
            return ""
        points = reencoded_audio_sync(index, path_in, path_out, index_out, self._video, whole=self._whole)
        if points is None:
            return "re-encoded, it is not the input's audio"
        return self._sync_problem(points, before.kind, 0.0)


def _counted(number: int, label: str) -> str:
    return f"{number} {label.format(s='' if number == 1 else 's')}"


def _sync_points(
    stream: int, match: Match, video: Match, positions: Sequence[int], video_positions: Sequence[int]
) -> list[SyncPoint]:
    """Return the offsets of a stream to the video at its start, its end, and on both sides of each jump of the clock.

    Each segment of the stream is compared with one segment of the video: the nearest one in the file if the file positions of
    the packets are given (interleaved streams with an arbitrary clock), else the one with the largest overlap in time.
    """
    points = []
    for segment in match.segments:
        if positions and video_positions and len(video.segments) > 1:
            middle = positions[(segment.first + segment.last) // 2]
            video_segment = min(video.segments, key=lambda other: _file_distance(middle, other, video_positions))
        else:
            video_segment = _overlapping_segment(segment, match.unit, video)
        ends = (
            (segment.first_in, segment.first_out, video_segment.first_in, video_segment.first_out),
            (segment.last_in, segment.last_out, video_segment.last_in, video_segment.last_out),
        )
        for time_in, time_out, video_in, video_out in ends:
            in_ms = float(time_in * match.unit - video_in * video.unit) * 1000
            out_ms = float(time_out * match.unit - video_out * video.unit) * 1000
            points.append(SyncPoint(stream, float(time_out * match.unit), in_ms, out_ms))
    return points


def _file_distance(position: int, segment: Segment, positions: Sequence[int]) -> int:
    """Return the distance in the file from a position to a segment; 0 inside of it."""
    first, last = (positions[min(index, len(positions) - 1)] for index in (segment.first, segment.last))
    return max(first - position, position - last, 0)


def _overlapping_segment(segment: Segment, unit: Fraction, video: Match) -> Segment:
    """Return the segment of the video with the largest overlap in time, or the nearest one."""

    def distance(other: Segment) -> Fraction:
        begin = max(segment.first_out * unit, other.first_out * video.unit)
        end = min(segment.last_out * unit, other.last_out * video.unit)
        return begin - end  # negative: the length of the overlap

    return min(video.segments, key=distance)
