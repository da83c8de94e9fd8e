"""The streams beside the video, in the input and in the output: the same packets, heard and shown at the same time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction
from math import isinf

import numpy as np

from rtseg.io.outputs.copied_stream import TIME_CODE
from rtseg.io.outputs.video import Written
from rtseg.video.audio_offset import CELL_SECONDS, WINDOW_SECONDS, Loudness, loudness, offset_ms
from rtseg.video.container_reader import NO_TIME, ContainerReading, StreamReading, decoded_times, first_decoded
from rtseg.video.stream_sync import SYNC_MS, SyncPoint, sync_points
from rtseg.video.time_match import Match, match_times
from rtseg.video.verify_report import Repair, StreamReport

_PREROLL_SECONDS = Fraction(1, 10)
"""Audio before the time zero that MP4 may hide: an encoder's delay is no more."""

_NEIGHBORS = 3
"""Of packets that are the same, as those of silence, so many are tried, the nearest in time first."""

_LONG_PACKET_SECONDS = 1.0
"""How long packets of audio are at most: ASF's hold some tenths of a second."""


class StreamComparison:
    """The comparison of all streams but the segmented one.

    Args:
        before: the input.
        after: the output.
        written: what the sink says became of each stream.
        video: how the frames of input and output belong together; None: unknown, and times are not compared.
        known: indices of the streams that the source yields.
        source: path of the input, for audio that is decoded once more; None: it can't be read again.
        begin: seconds at which the part of the input begins that was asked for; None: the whole.
        jumps: whether the input's clock does: no time says then whether it lies before the part.
        gap: seconds; a longer step forward is a jump of the input's clock.
        coarse: seconds by which the output's container may round on top of its own unit.
    """

    def __init__(
        self,
        before: ContainerReading,
        after: ContainerReading,
        written: Written,
        video: Match | None,
        *,
        known: Collection[int],
        source: str | None,
        begin: Fraction | None,
        jumps: bool,
        gap: Fraction,
        coarse: Fraction,
    ) -> None:
        self._input, self._output, self._written, self._video = before, after, written, video
        self._known, self._source, self._gap, self._coarse = known, source, gap, coarse
        self._whole, self._begin, self._jumps = begin is None, begin or Fraction(0), jumps
        self.problems: list[str] = []
        self.repairs: list[Repair] = []
        self.sync: list[SyncPoint] = []

    def reports(self) -> list[StreamReport]:
        """Compare each stream of the input; what is wrong goes to `problems`."""
        video = self._video
        actions = {
            **dict.fromkeys(self._written.copied, "copied"),
            **dict.fromkeys(self._written.reencoded, "re-encoded"),
        }
        indices = {**self._written.copied, **self._written.reencoded}
        reports = []
        for index, reading in self._input.others.items():
            if index not in self._known:
                continue  # An MP4's chapter track: FFmpeg gives it as chapters.
            action = actions.get(index, "left out")
            out = self._output.others.get(indices[index]) if index in indices else None
            trouble = ""
            if reading.codec == TIME_CODE:
                if reading.time_code not in self._output.time_codes:
                    action = "left out"
                if out is not None and out.codec != TIME_CODE:
                    out = None  # a camera that says it in its metadata
            if reading.kind == "cover":
                trouble = "" if action != "copied" or self._holds_cover(reading) else "the picture is not in the output"
            elif action == "copied" and out is not None:
                trouble = self._packets_differ(index, reading, out, video)
            elif action == "re-encoded" and out is not None and reading.kind == "audio":
                trouble = self._transcoded_differs(index, reading, out, indices[index], video)
            if trouble:
                self.problems.append(f"{reading.kind} stream {index}: {trouble}")
            packets_out = 0 if out is None else len(out.pts)
            copied = action == "copied" and not trouble
            packets_in = packets_out if copied else len(reading.pts) - len(reading.hidden)
            reports.append(
                StreamReport(index, reading.kind, reading.codec, action, packets_in, packets_out, not trouble)
            )
        return reports

    def _holds_cover(self, reading: StreamReading) -> bool:
        """Whether the output has the same cover picture."""
        return any(out.kind == "cover" and out.contents == reading.contents for out in self._output.others.values())

    def _packets_differ(self, index: int, reading: StreamReading, out: StreamReading, video: Match | None) -> str:
        """Why a copied stream is not the input's own, in step with the video; empty: it is."""
        times = reading.times()
        numbers: list[int] = []
        if reading.is_pcm:
            if self._whole and out.whole.digest() not in (reading.whole.digest(), reading.heard.digest()):
                return "the samples are not the same"
            numbers = list(range(len(times)))
        else:
            found = self._paired(reading, out)
            if isinstance(found, str):
                return found
            numbers = found
        out_times = [time for time in out.times() if time is not None]
        self._note_missing_start(index, reading, numbers)
        early = self._early(index, reading, out, numbers)
        if more := self._hidden_now(reading, out, numbers, early):
            return more
        if not numbers or not out_times or video is None or not video.segments or not self._written.timed:
            return ""
        if reading.is_pcm:
            going_in: list[int | None] = [times[self._nearest_first(reading, out, range(len(times)))[0]]]
            out_times = out_times[:1]
        else:
            # Packets that only prepare a decoder for what is shown have other times.
            before = self._places_before(reading, out, numbers) if reading.kind == "video" else set()
            going_in, out_times = _comparable(reading, out, numbers, before)
            numbers = [number for place, number in enumerate(numbers) if place not in before]
            if reading.kind == "video" and set(out.pts) == {NO_TIME} != set(reading.pts):
                self._note_delay(index, out)
            if reading.kind == "video" and set(reading.pts) == {NO_TIME} != set(out.pts):
                rendered = [
                    t for t in decoded_times(str(self._written.path), self._written.copied[index]) if t is not None
                ]
                if rendered != sorted(rendered):
                    return "its pictures are not shown in their order"
        tolerance = max(out.time_base, reading.time_base) + self._coarse
        match = match_times(going_in, out_times, reading.time_base, out.time_base, tolerance=tolerance, gap=self._gap)
        if match.worst * match.unit > tolerance + self._output.video.time_base:
            return f"a packet is {float(match.worst * match.unit) * 1000:.1f} ms off its time"
        if match.set_between:
            packets = _counted(match.set_between, f"packet{{s}} of {reading.kind} stream {index}")
            what = f"{packets} without a right time stamp set between theirs"
            self.repairs.append(Repair(index, what, match.set_between, 0.0))
        places: list[int] = []
        if self._input.arbitrary_clock and self._whole and not reading.is_pcm:
            places = [reading.order[number] for number in numbers]
        points = sync_points(index, match, video, places, self._input.video.order)
        return self._out_of_step(points, reading.kind, float(tolerance) * 1000)

    def _heard_at(
        self,
        index: int,
        begin: float,
        cells: Loudness,
        shift: float,
        out_parts: list[tuple[float, Loudness]],
        video: Match,
    ) -> list[SyncPoint]:
        """Where a part of the input's audio is heard, if it was moved by `shift`: at its start and its end."""
        first = max(begin, float(video.segments[0].first_in * video.unit)) if len(video.segments) == 1 else begin
        if not self._whole:
            # A part's audio begins at the first packet that begins in it, which may be some tenths of a second later.
            out_begin = min((begin for begin, _ in out_parts), default=0.0) - shift
            first = min(max(first, out_begin), first + _LONG_PACKET_SECONDS)
        last = begin + len(cells) * CELL_SECONDS
        if len(video.segments) == 1:
            last = min(last, float(video.segments[0].last_in * video.unit))
        points = []
        for at in sorted({first, max(first, last - WINDOW_SECONDS)}):
            windows = [_window(out, at + shift - out_begin, last - at) for out_begin, out in out_parts]
            whole = sum(windows[1:], windows[0]) if windows else np.zeros(0)
            offset = offset_ms(_window(cells, at - begin, last - at), whole)
            if offset is not None:
                points.append(SyncPoint(index, at + shift, 0.0, offset))
        return points

    def _hidden_now(self, reading: StreamReading, out: StreamReading, numbers: list[int], early: int) -> str:
        """Why packets that the input shows are not shown any more; empty: they are. The decoder's start may be hidden."""
        if reading.is_pcm:
            return ""
        times = out.times()
        before = self._places_before(reading, out, numbers)
        hidden = [place for place in sorted(out.hidden) if place >= early and place not in before]
        if not hidden:
            return ""
        first, last = times[hidden[0]], times[hidden[-1]]
        long = first is None or last is None or (last - first) * out.time_base >= _PREROLL_SECONDS
        if reading.kind == "audio" and hidden[-1] < len(times) - 1 and not long:
            return ""
        return f"{len(hidden)} packets that the input shows are hidden in the output"

    def _early(self, index: int, reading: StreamReading, out: StreamReading, numbers: list[int]) -> int:
        """How many packets at the beginning come before what was asked for; those that are shown now are told."""
        if reading.is_pcm:
            return 0
        before = self._places_before(reading, out, numbers)
        early = next((place for place in range(len(numbers)) if place not in before), len(numbers))
        rendered = sum(place not in out.hidden for place in range(early))
        if reading.kind == "video":
            # The frame at whose time the part begins goes on at its beginning.
            segments = self._video.segments if self._video is not None else []
            moved = segments[0].shift * self._video.unit if segments and self._video is not None else Fraction(0)
            begin = self._begin + moved - out.time_base / 2
            times = [out.time(place) for place in before if place not in out.hidden]
            rendered = sum(time is None or time * out.time_base < begin for time in times)
        if rendered > (reading.kind == "audio"):  # an encoder's first packet of audio is silence
            packets = _counted(rendered, f"packet{{s}} of {reading.kind} stream {index}")
            what = f"{packets} before the first that is shown: the container can't hide them"
            self.repairs.append(Repair(index, what, rendered, 0.0))
        return early if reading.kind == "video" else 0

    def _note_missing_start(self, index: int, reading: StreamReading, numbers: list[int]) -> None:
        """Report the packets of a copied camera that are shown in the input before the first one in the output."""
        if reading.kind != "video" or (self._jumps and not self._whole):
            return
        first = numbers[0] if numbers else len(reading.pts)
        segments = self._video.segments if self._video is not None and not self._whole else []
        end = segments[-1].last_in * self._video.unit if segments and self._video is not None else None
        times = [reading.time(number) for number in range(first) if not self._before(reading, number)]
        missing = sum(time is None or end is None or time * reading.time_base <= end for time in times)
        if missing:
            packets = _counted(missing, f"packet{{s}} of video stream {index}")
            self.repairs.append(Repair(index, f"{packets} left out up to its next key frame", missing, 0.0))

    def _note_delay(self, index: int, out: StreamReading) -> None:
        """Report by how much FFmpeg shows a copied camera late whose pictures are reordered, as AVI has no times for them."""
        rendered = first_decoded(str(self._written.path), self._written.copied[index])
        seconds = 0.0 if rendered is None else float(rendered - min(out.dts) * out.time_base)
        if seconds > 0:
            what = (
                f"AVI does not say when the reordered pictures of video stream {index} are shown: some players, FFmpeg's among "
                f"them, show them {seconds * 1000:.0f} ms late"
            )
            self.repairs.append(Repair(index, what, 0, seconds))

    def _places_before(self, reading: StreamReading, out: StreamReading, numbers: list[int]) -> set[int]:
        """Which packets of the output are shown before the part that was asked for, or hidden in the input."""
        before = [place for place, number in enumerate(numbers) if self._before(reading, number)]
        if reading.kind == "video" and set(reading.pts) == {NO_TIME} != set(out.pts):
            # H.264 in AVI: as many as have earlier times, those that are shown first.
            return set(sorted(range(len(out.pts)), key=lambda place: out.time(place) or 0)[: len(before)])
        return set(before)

    def _before(self, reading: StreamReading, number: int) -> bool:
        """Whether a packet of the input is hidden there, or shown before the part that was asked for."""
        time = reading.time(number)
        in_order = not self._whole and not self._jumps and reading.kind == "video"
        early = in_order and time is not None and time * reading.time_base < self._begin
        return number in reading.hidden or early

    def _paired(self, reading: StreamReading, out: StreamReading) -> list[int] | str:
        """The number of the input's packet for each of the output's; or why they are not the same."""
        contents, first = reading.contents, 0
        if out.contents:
            # A part begins somewhere, and hidden packets before the first that is heard may be kept for the decoder. Of
            # packets that are the same, as those of silence, it is the one at the right time.
            same = [number for number, content in enumerate(contents) if content == out.contents[0]]
            nearest = self._nearest_first(reading, out, same)
            count, first = len(out.contents), nearest[0] if same else 0
            # AVI begins with a whole packet: the next one may be nearer. Where nothing says when, it is any place.
            places = nearest if self._video is None else nearest[:_NEIGHBORS]
            first = next((n for n in places if contents[n : n + count] == out.contents), first)
        heard = next((n for n in range(len(contents)) if n not in reading.hidden), len(contents))
        if contents and out.contents and contents[first] != out.contents[0]:
            first = heard
        numbers = [n for n in range(first, len(contents)) if n < heard or n not in reading.hidden]
        if not self._whole:
            numbers = numbers[: len(out.contents)]
        if len(numbers) != len(out.contents):
            return f"{len(numbers)} packets went in, {len(out.contents)} came out"
        if any(contents[n] != content for n, content in zip(numbers, out.contents, strict=True)):
            return "the packets are not the same"
        return numbers

    def _nearest_first(self, reading: StreamReading, out: StreamReading, numbers: Sequence[int]) -> list[int]:
        """Some packets of the input by how near their time is to that of the output's first."""
        times = reading.times()
        begin = next((time for time in out.times() if time is not None), None)
        if begin is None or self._video is None or not self._video.segments:
            return list(numbers)
        segment = self._video.segments[0]
        expected = begin * out.time_base - segment.shift * self._video.unit

        def distance(number: int) -> Fraction:
            time = times[number]
            return Fraction(1 << 62) if time is None else abs(time * reading.time_base - expected)

        return sorted(numbers, key=distance)

    def _out_of_step(self, points: list[SyncPoint], kind: str, tolerance_ms: float) -> str:
        if kind == "audio":
            self.sync += points
        worst = max(points, key=lambda point: abs(point.difference_ms), default=None)
        if worst is None or abs(worst.difference_ms) <= max(SYNC_MS, tolerance_ms):
            return ""
        return f"{worst.difference_ms:+.0f} ms out of step with the video at {worst.at_seconds:.2f} s"

    def _transcoded_differs(
        self, index: int, reading: StreamReading, out: StreamReading, out_index: int, video: Match | None
    ) -> str:
        """Why audio that was encoded again is not heard where it was; empty: it is, or it is too even to tell."""
        if reading.pts and not out.pts:
            return "encoded again, it is empty"
        if self._source is None or video is None or not self._written.timed:
            return ""
        parts, out_parts = loudness(self._source, index), loudness(str(self._written.path), out_index)
        points: list[SyncPoint] = []
        for begin, cells in parts:
            # Where the clock jumps, a part belongs to one of the segments; nothing but the sound says to which.
            shifts = [float(segment.shift * video.unit) for segment in video.segments]
            found = [self._heard_at(index, begin, cells, shift, out_parts, video) for shift in shifts]
            points += min(found, key=lambda some: max((abs(point.out_ms) for point in some), default=0.0), default=[])
        if any(isinf(point.out_ms) for point in points):
            return "encoded again, it is not the input's"
        return self._out_of_step(points, reading.kind, 0.0)


def _counted(count: int, what: str) -> str:
    return f"{count} {what.format(s='' if count == 1 else 's')}"


def _comparable(
    reading: StreamReading, out: StreamReading, numbers: list[int], before: set[int]
) -> tuple[list[int | None], list[int]]:
    """Times of the input's packets and of the output's that ought to be the same, without those at the places `before`.

    AVI has one time for each packet of video: for H.264 the n-th time of showing, for other codecs the time of decoding.
    """
    times, out_times = reading.times(), out.times()
    if reading.kind == "video" and reading.codec != "h264" and NO_TIME in out.pts:
        times, out_times = _stamps(reading.dts), _stamps(out.dts)
    going_in = [times[number] for number in numbers]
    if reading.kind == "video" and {NO_TIME} in (set(reading.pts), set(out.pts)):
        known = iter(sorted(time for time in going_in if time is not None))
        going_in = [None if time is None else next(known) for time in going_in]
        out_times = sorted(time for time in out_times if time is not None)  # type: ignore[assignment]
        before = set(range(len(before)))
    rendered = [place for place in range(len(numbers)) if place not in before]
    after = [time for place, time in enumerate(out_times) if place not in before]
    return [going_in[place] for place in rendered], [time for time in after if time is not None]


def _stamps(stamps: Sequence[int]) -> list[int | None]:
    return [None if stamp == NO_TIME else stamp for stamp in stamps]


def _window(cells: Loudness, at: float, seconds: float) -> Loudness:
    """Loudness from a time on (seconds after the first cell), for 10 s at most; nothing is heard before the first cell."""
    first = round(at / CELL_SECONDS)
    count = max(0, int(min(seconds, WINDOW_SECONDS) / CELL_SECONDS))
    inside = cells[max(0, first) : max(0, first + count)]
    padded = np.concatenate([np.zeros(min(count, max(0, -first))), inside])
    return np.pad(padded, (0, max(0, count - len(padded))))
