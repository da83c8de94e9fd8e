"""One timeline for all streams of a file, whatever its time stamps do: joins, wraps, negative times, single wrong stamps.

A recording that was joined from two, or whose clock wrapped, has a jump in each stream, a few packets apart. What follows
is moved by one offset for all streams, so that audio and video stay in step. One wrong time stamp is not a jump.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

from av import Packet

from rtseg.io.inputs.timestamps import fraction

GAP_SECONDS = 10
"""A longer step forward is a jump where the format's clock is arbitrary (MPEG-TS and -PS). FFmpeg's own limit
(`dts_delta_threshold`). Other containers say when a frame is shown: there a gap is a gap."""

LONGEST_GAP_SECONDS = 6 * 3600
"""The same for all other containers: their times are meant, but MP4 holds no step of 2**31 ticks, and FFmpeg aborts on one."""

_REORDER_SECONDS = 10
"""How far a presentation time may step back because frames are stored in decoding order: long at a variable rate."""

_OVERLAP_SECONDS = 1
"""How far the streams of a recording may overlap those of the recording that it is joined to."""

_COMPOSITION_SECONDS = 10
"""A presentation time further from the decoding time than this is wrong."""

_NEAR_PACKETS = 4
_CONFIRM_PACKETS = 64
"""Packets of a stream that are looked at to tell a jump from a wrong time stamp: MPEG-TS has one for up to 16 AAC packets."""

_LOOKAHEAD_SECONDS = 5
"""How far behind a jump of one stream the jumps of the others are looked for. MPEG-TS lets streams be 1 s apart."""

_LOOKAHEAD_PACKETS = 4096
_LOOKAHEAD_BYTES = 64 << 20

_PRIMING_SECONDS = Fraction(1, 5)
"""Audio may begin this much before zero: encoders put a packet or two before the first sample that is heard."""

_NOTICED_SECONDS = Fraction(2, 100)
"""Audio that is less late than this, or by a packet that is missing, is left where its time stamp says."""

_LITTLE_SECONDS = Fraction(1, 10)
"""A stream that steps back by less than this and goes on is soon where it was: its times are squeezed, not moved for ever."""

_SURE_SECONDS = Fraction(6, 100)
"""Audio that is later than this for some packets is not so because its time stamps jitter."""

_STEPS = 4
"""A step forward that is this much longer than a packet is looked at: the next stamp tells whether it is a wrong one."""

MPEG_TICK = Fraction(1, 90_000)
"""Seconds in a tick of the clocks of MPEG-TS and MPEG-PS."""

WRAP = 1 << 33
"""Ticks after which the clocks of MPEG-TS and MPEG-PS begin again, at 90 kHz (ISO/IEC 13818-1, 2.4.3.6)."""


def unwrapped(stamp: int, near: int) -> int:
    """Return a time stamp of MPEG-TS or -PS in the turn of its clock that is nearest to another one."""
    return stamp + round((near - stamp) / WRAP) * WRAP


@dataclass(frozen=True, slots=True)
class Jump:
    """A place where the clock of the recording jumps."""

    at_seconds: float
    """Where, on the timeline that comes out."""

    seconds: float
    """How much further everything from there on is moved, compared with what comes before."""


@dataclass(slots=True)
class _Track:
    """Where one stream stands."""

    tick: Fraction
    leading: bool
    """Whether it can tell of a jump: audio and the video that is processed. Other streams follow."""

    segment: int = 0
    last: int | None = None
    """Decoding time of its last packet, in ticks, as the file has it; the presentation time where it has none."""

    reordered: bool = False
    """Whether `last` is a presentation time: the next stamp may be smaller."""

    step: int = 1
    """Duration of its last packet, in ticks."""

    ticks: list[int] = field(default_factory=list)
    """Offset of each segment in its ticks."""

    shown_until: int | None = None
    """The end of what its packets show so far, in ticks, as the file has it."""

    stepped_back: bool = False
    """Whether it stepped back alone, and is not yet where it was: the others ran on."""


class Clock:
    """Maps the time stamps of all streams to one timeline that rises.

    Args:
        streams: of the container.
        video: index of the video stream that is processed.
        arbitrary: whether the format's clock may begin anywhere and jump (FFmpeg's AVFMT_TS_DISCONT).
        decoding_times: whether the format has them; if not (Matroska), FFmpeg's are a guess, and may be equal.
    """

    def __init__(self, streams: Iterable[Any], video: int, *, arbitrary: bool, decoding_times: bool = True) -> None:
        self._video = video
        self._decoding_times = decoding_times
        self._arbitrary = arbitrary
        self._gap = Fraction(GAP_SECONDS if arbitrary else LONGEST_GAP_SECONDS)
        self._tracks: dict[int, _Track] = {}
        self._begin: int | None = None  # the first stamp of the video, where the clock wraps
        starts: dict[int, Fraction] = {}
        streams = tuple(streams)
        self._audio = {stream.index for stream in streams if stream.type == "audio"}
        for stream in streams:
            tick = fraction(stream.time_base) or Fraction(1)
            leading = stream.index == video or stream.type == "audio"
            self._tracks[stream.index] = _Track(tick, leading)
            if stream.index == video and tick == MPEG_TICK and arbitrary:
                self._begin = stream.start_time
        for stream in streams:
            track, start = self._tracks[stream.index], stream.start_time
            if (track.leading or stream.type == "video") and start is not None:
                if self._begin is not None and track.tick == MPEG_TICK:
                    start = unwrapped(start, self._begin)
                starts[stream.index] = start * track.tick
        self._offsets = [self._first_offset(starts)]
        self._ends: list[Fraction] = []
        """Where each segment but the last one ends, in seconds by its own clock."""
        self.jumps: list[Jump] = []
        self.wrong_stamps: dict[int, int] = {}
        """For each stream, the number of time stamps that were wrong and set between their neighbors."""
        self.sparse = False
        """Whether frames of the video have no presentation time so far: FFmpeg's decoding times stand for them."""

    @property
    def start_offset(self) -> Fraction:
        """Seconds by which the whole recording is moved: not 0 where it begins before zero, or far from it."""
        return self._offsets[0]

    def map(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        """Yield all packets in reading order, their time stamps on the one timeline.

        A video packet whose time stamps are wrong has none afterwards; that of another stream lies between its neighbors.
        Packets are held back only where a time stamp is out of order.
        """
        reader = self._read(packets)
        ahead: deque[Packet[Any]] = deque()
        while True:
            packet = ahead.popleft() if ahead else next(reader, None)
            if packet is None:
                return
            track = self._tracks.get(packet.stream_index)
            if track is not None and packet.is_discard:
                self._move(packet, track)  # An edit list hides it: its times may step back, and say nothing.
                yield packet
                continue
            stamp = _stamp(packet)
            if track is None or stamp is None:
                yield packet
                continue
            if not track.leading:
                self._follow(packet, track, stamp)
                yield packet
                continue
            if track.last is None:
                if self._begins_wrong(track, packet, ahead, reader):
                    self._count_wrong(packet)
                    packet.pts = packet.dts = None
                    yield packet
                    continue
                self._join(track, stamp, packet, ahead, reader)
            if self._leaps(track, stamp, ahead, reader, packet):
                self._repair(packet, track, ahead)
                yield packet
                continue
            if not (
                self._continues(track, stamp, track.reordered or packet.dts is None)
                or self._enter_segment(track, stamp)
                or self._is_gap(track, stamp)
            ):
                ahead.appendleft(packet)
                if self._is_wrong(track, ahead, reader):
                    self._repair(ahead.popleft(), track, ahead)
                    yield packet
                    continue
                self._begin_segment(track, ahead, reader)
                ahead.popleft()
            track.last, track.reordered, track.stepped_back = stamp, packet.dts is None, False
            track.step = max(1, packet.duration or track.step)
            self._move(packet, track)
            yield packet

    # One stream

    def _read(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        """All packets, without the wraps of MPEG's clock that FFmpeg leaves."""
        near = dict.fromkeys(self._tracks, self._begin or 0)
        for packet in packets:
            index = packet.stream_index
            if index == self._video and packet.pts is None:
                self.sparse = True
            if self._begin is not None and index in near and self._tracks[index].tick == MPEG_TICK:
                for name in ("dts", "pts"):
                    stamp = getattr(packet, name)
                    if stamp is not None and abs(stamp - near[index]) > WRAP // 2:
                        setattr(packet, name, unwrapped(stamp, near[index]))
                stamp = _stamp(packet)
                near[index] = near[index] if stamp is None else stamp
            yield packet

    def _begins_wrong(
        self, track: _Track, packet: Packet[Any], ahead: deque[Packet[Any]], reader: Iterator[Packet[Any]]
    ) -> bool:
        """Whether the first time stamp of a stream is wrong: those behind it are somewhere else, and go on there."""
        ahead.appendleft(packet)
        stamps = self._stamps(track, ahead, reader, 3)
        ahead.popleft()
        reordered = packet.dts is None
        if len(stamps) < 3 or packet.stream_index in self._audio:
            return False
        first, second, third = stamps
        return not self._continues(track, second, reordered, first) and self._continues(track, third, reordered, second)

    def _count_wrong(self, packet: Packet[Any]) -> None:
        self.wrong_stamps[packet.stream_index] = self.wrong_stamps.get(packet.stream_index, 0) + 1

    def _join(
        self,
        track: _Track,
        stamp: int,
        packet: Packet[Any],
        ahead: deque[Packet[Any]],
        reader: Iterator[Packet[Any]],
    ) -> None:
        """Set the segment of a stream that begins in mid-file: the one that the video is in, or is about to enter."""
        video = self._tracks[self._video]
        if track is video or video.last is None or not self._arbitrary:
            return
        track.segment = video.segment
        now = video.last * video.tick
        if abs(stamp * track.tick - now) <= _OVERLAP_SECONDS:
            return
        # The clock may have jumped, and this stream not yet: it began late.
        behind = [number for number, end in enumerate(self._ends) if abs(stamp * track.tick - end) <= _OVERLAP_SECONDS]
        if behind:
            track.segment = behind[-1]
            return
        # The clock may have jumped already, and the video not yet: its next packets tell.
        state = video.last, video.step, video.shown_until, video.segment
        number = self._next_jump(video, ahead, reader)
        if number is not None:
            held = deque(list(ahead)[number:])
            if not self._is_wrong(video, held, reader):
                self._begin_segment(video, held, reader)
                track.segment = video.segment
            ahead.extend(list(held)[len(ahead) - number :])
        video.last, video.step, video.shown_until, video.segment = state

    def _next_jump(self, video: _Track, ahead: deque[Packet[Any]], reader: Iterator[Packet[Any]]) -> int | None:
        """Where in `ahead` the video's clock jumps, within its next packets, up to which `video` is taken; None: it does not."""
        seen = number = 0
        while seen < _NEAR_PACKETS and number <= _CONFIRM_PACKETS:
            if number == len(ahead):
                packet = next(reader, None)
                if packet is None:
                    return None
                ahead.append(packet)
            packet = ahead[number]
            stamp = _stamp(packet)
            if packet.stream_index == self._video and stamp is not None:
                seen += 1
                if not self._continues(video, stamp, video.reordered or packet.dts is None):
                    return number
                video.last, video.step = stamp, max(1, packet.duration or video.step)
                if (pts := _composed(packet, video.tick)) is not None:
                    video.shown_until = max(video.shown_until or pts, pts + video.step)
            number += 1
        return None

    def _leaps(
        self, track: _Track, stamp: int, ahead: deque[Packet[Any]], reader: Iterator[Packet[Any]], packet: Packet[Any]
    ) -> bool:
        """Whether a stamp is ahead, and those behind it are where they would be without it: it is wrong."""
        if track.last is None or track.reordered or packet.dts is None:
            return False
        longest, noticed, sure = _STEPS * track.step, 0, 0
        audio = packet.stream_index in self._audio
        if audio:
            longest = track.step + track.step // 2
            noticed = track.step + max(track.step * 5 // 4, int(_NOTICED_SECONDS / track.tick))
            sure = track.step + max(2 * track.step, int(_SURE_SECONDS / track.tick))
        if stamp - track.last <= longest:
            return False
        ahead.appendleft(packet)
        following = self._stamps(track, ahead, reader, _CONFIRM_PACKETS)[1:]
        ahead.popleft()
        if not following:
            return False
        if stamp - track.last <= noticed:
            return track.last < following[0] < stamp
        if stamp - track.last <= sure:
            return self._late_together(track, stamp, following)
        high = next((number for number, later in enumerate(following) if later < stamp), None)
        if high is not None and following[high] > track.last:
            rest = following[high:]
            low = next((n for n, (a, b) in enumerate(pairwise(rest), 1) if not 0 < b - a <= longest), None)
            return (
                low is None or low > high
            )  # A few that are too early may follow on a gap: then they are the wrong ones.
        # Audio has a fixed step: one time stamp of MPEG-TS stands for several packets, and those behind them are right again.
        return audio and self._on_line(track, stamp, following, track.step // 2)

    @staticmethod
    def _late_together(track: _Track, first: int, following: list[int]) -> bool:
        """Whether a few packets are late by the same, and those behind them are not: the stamps of others jitter."""
        assert track.last is not None
        near = max(1, track.step // 4)
        regular = (abs(stamp - first - number * track.step) <= near for number, stamp in enumerate(following, 1))
        late = next((number for number, still in enumerate(regular) if not still), len(following))
        behind = following[late : late + 4]
        line = (track.last + number * track.step for number in range(late + 2, late + 2 + len(behind)))
        return len(behind) > 1 and all(abs(stamp - at) <= near for stamp, at in zip(behind, line, strict=True))

    @staticmethod
    def _on_line(track: _Track, first: int, following: list[int], tolerance: int) -> bool:
        """Whether a stamp behind the next one (`first`) is back where the stream would be if all its steps were the same."""
        assert track.last is not None
        before, earlier = track.step, first
        for number, stamp in enumerate(following, 2):
            step = stamp - earlier
            if abs(stamp - track.last - number * track.step) <= tolerance < abs(step - before):
                return True
            before, earlier = step, stamp
        return False

    def _continues(self, track: _Track, stamp: int, reordered: bool, last: int | None = None) -> bool:
        """Whether a stamp comes after the last one, and not too far after."""
        last = track.last if last is None else last
        if last is None:
            return True
        back = _REORDER_SECONDS / track.tick if reordered else -1
        if track.step <= 1 or not self._decoding_times:
            back = max(back, 0)  # Packets shorter than a tick (TrueHD in Matroska) share their time with others.
        return last - stamp <= back and stamp - last <= self._gap_ticks(track)

    def _gap_ticks(self, track: _Track) -> int:
        # A time-lapse has long steps everywhere.
        return max(int(self._gap / track.tick), 4 * track.step)

    def _is_gap(self, track: _Track, stamp: int) -> bool:
        """Whether a step forward is a gap in this stream alone: another stream is there already, by the same clock."""
        assert track.last is not None
        if stamp <= track.last:
            return False
        others = (t for t in self._tracks.values() if t.leading and t is not track and t.segment == track.segment)
        time = stamp * track.tick
        return any(t.last is not None and abs(t.last * t.tick - time) <= self._gap for t in others)

    def _enter_segment(self, track: _Track, stamp: int) -> bool:
        """Go on in a segment that another stream began, if the stamp fits there."""
        assert track.last is not None
        end = (track.last + track.step) * track.tick + self._offsets[track.segment]
        fitting: list[tuple[Fraction, int]] = []
        for segment in range(track.segment + 1, len(self._offsets)):
            begin = stamp * track.tick + self._offsets[segment]
            now = self._now(segment)
            if end - _OVERLAP_SECONDS <= begin <= max(end, now) + GAP_SECONDS:
                fitting.append((abs(begin - now), segment))
        if not fitting:
            return False
        # Parts that a stream is not in are passed over: the streams stand at about the same time.
        track.segment, track.shown_until = min(fitting)[1], None
        return True

    def _now(self, segment: int) -> Fraction:
        """Where the furthest stream of a segment stands, seconds on the timeline that comes out."""
        inside = [
            t.last * t.tick + self._offsets[segment]
            for t in self._tracks.values()
            if t.last is not None and t.segment == segment
        ]
        return max(inside, default=Fraction(0))

    def _is_wrong(self, track: _Track, ahead: deque[Packet[Any]], reader: Iterator[Packet[Any]]) -> bool:
        """Whether the first packet's stamp is a single wrong one, and not the beginning of something."""
        assert track.last is not None
        if track.stepped_back and 0 <= (track.last - (_stamp(ahead[0]) or 0)) * track.tick < _OVERLAP_SECONDS:
            return True
        following = self._stamps(track, ahead, reader, _CONFIRM_PACKETS + 1)
        first, rest = following[0], following[1:]
        if not rest or not self._continues(track, rest[0], True, first):
            return True
        if self._returns(track, first, rest[:_NEAR_PACKETS]) or self._on_line(track, first, rest, 2 * track.step):
            return True
        track.stepped_back = self._steps_back_alone(track, first, ahead, ended=len(following) <= _CONFIRM_PACKETS)
        return track.stepped_back

    def _returns(self, track: _Track, first: int, rest: list[int]) -> bool:
        """Whether the stamps behind a wrong one (`first`) leap back to where the stream was."""
        assert track.last is not None
        limit = 4 * (len(rest) + 1) * track.step + int(_OVERLAP_SECONDS / track.tick)
        limit = min(limit, self._gap_ticks(track))
        little = 0 <= track.last - first < max(2 * track.step, int(_LITTLE_SECONDS / track.tick))
        before, earlier = track.step, first
        for stamp in rest:
            step = stamp - earlier
            if 0 < stamp - track.last <= limit and (little or abs(step - before) > max(1, before // 2)):
                return True
            before, earlier = step, stamp
        return False

    def _steps_back_alone(self, track: _Track, first: int, ahead: Iterable[Packet[Any]], *, ended: bool) -> bool:
        """Whether a stream steps back by less than a second where the others run on: it stays in step with them."""
        assert track.last is not None
        if not 0 <= (track.last - first) * track.tick < _OVERLAP_SECONDS:
            return False
        others = {
            number: other.last
            for number, other in self._tracks.items()
            if other.leading and other is not track and other.last is not None and other.segment == track.segment
        }
        begins = dict(others)
        for packet in ahead:
            number, stamp = packet.stream_index, _stamp(packet)
            if number in others and stamp is not None:
                other = self._tracks[number]
                if not self._continues(other, stamp, other.reordered or packet.dts is None, others[number]):
                    return False
                others[number] = stamp
        there = (3 * track.last - first) // 2 * track.tick  # half as far behind as this stream is set back
        for number, last in others.items():
            tick = self._tracks[number].tick
            if (last - begins[number]) * tick >= _OVERLAP_SECONDS or (ended and last * tick > there):
                return True
        return False

    def _stamps(self, track: _Track, ahead: deque[Packet[Any]], reader: Iterator[Packet[Any]], count: int) -> list[int]:
        """The next stamps of a stream, reading on where needed."""
        index = ahead[0].stream_index
        stamps = [stamp for packet in ahead if packet.stream_index == index and (stamp := _stamp(packet)) is not None]
        while len(stamps) < count and len(ahead) < _LOOKAHEAD_PACKETS:
            packet = next(reader, None)
            if packet is None:
                break
            ahead.append(packet)
            if packet.stream_index == index and (stamp := _stamp(packet)) is not None:
                stamps.append(stamp)
        return stamps[:count]

    def _repair(self, packet: Packet[Any], track: _Track, ahead: deque[Packet[Any]]) -> None:
        self._count_wrong(packet)
        assert track.last is not None
        if packet.stream_index == self._video:
            # Frames are set between their neighbors once they are in order. A decoding time that is hardly wrong says
            # nothing of when the frame is shown.
            stamp = _stamp(packet)
            if stamp is None or track.last - stamp > track.step or stamp > track.last:
                packet.pts = None
            packet.dts = None
            self._move(packet, track)
            return
        later = (
            stamp
            for other in ahead
            if other.stream_index == packet.stream_index
            and (stamp := _stamp(other)) is not None
            and self._continues(track, stamp, False)
        )
        following = next(later, None)
        middle = track.last + track.step
        if following is not None and following <= middle:
            middle = (track.last + following) // 2
        track.last = max(middle, track.last + 1)
        packet.dts = packet.pts = track.last
        self._move(packet, track)

    def _move(self, packet: Packet[Any], track: _Track) -> None:
        """Set a packet's stamps on the timeline that comes out."""
        while len(track.ticks) < len(self._offsets):
            track.ticks.append(round(self._offsets[len(track.ticks)] / track.tick))
        pts, dts, offset = packet.pts, packet.dts, track.ticks[track.segment]
        if pts != _composed(packet, track.tick):
            self._count_wrong(packet)
            pts = packet.pts = None if packet.stream_index == self._video else dts
        if pts is not None:
            end = pts + max(1, packet.duration or 1)
            if track.shown_until is None or end > track.shown_until:
                track.shown_until = end
        if offset:
            packet.pts = None if pts is None else pts + offset
            packet.dts = None if dts is None else dts + offset

    def _follow(self, packet: Packet[Any], track: _Track, stamp: int) -> None:
        """Set the stamps of a stream that has no say (subtitles, data) by the segment that is nearest to the video."""
        video = self._tracks[self._video]
        if video.last is not None:
            now = video.last * video.tick + self._offsets[video.segment]
            near = range(max(0, video.segment - 1), len(self._offsets))
            track.segment = min(near, key=lambda segment: abs(stamp * track.tick + self._offsets[segment] - now))
        self._move(packet, track)

    # All streams

    def _begin_segment(self, track: _Track, ahead: deque[Packet[Any]], reader: Iterator[Packet[Any]]) -> None:
        """Find how far all streams are moved from the jump of `track` on, which the first packet is."""
        index = ahead[0].stream_index
        first = _stamp(ahead[0])
        assert first is not None
        assert track.last is not None
        self._read_ahead(track, index, first, ahead, reader)
        needs = [
            self._need(other, number, ahead)
            for number, other in self._tracks.items()
            if other.leading and other.last is not None and other.segment == track.segment
        ]
        offset = max(need for need in needs if need is not None)
        before = self._offsets[track.segment]
        self._offsets.append(offset)
        self._ends.append(track.last * track.tick)
        track.segment, track.shown_until = len(self._offsets) - 1, None
        shown = ahead[0].pts if ahead[0].pts is not None else first
        self.jumps.append(Jump(float(shown * track.tick + offset), float(offset - before)))

    def _read_ahead(
        self, track: _Track, index: int, first: int, ahead: deque[Packet[Any]], reader: Iterator[Packet[Any]]
    ) -> None:
        """Read until every stream has shown its jump, or long enough."""
        missing = {n: t.last for n, t in self._tracks.items() if t.leading and n != index and t.last is not None}
        end = first + _LOOKAHEAD_SECONDS / track.tick
        size = 0
        number = 0
        while missing and len(ahead) < _LOOKAHEAD_PACKETS and size < _LOOKAHEAD_BYTES:
            if number == len(ahead):
                packet = next(reader, None)
                if packet is None:
                    return
                ahead.append(packet)
            packet = ahead[number]
            number += 1
            size += packet.size
            stamp = _stamp(packet)
            if stamp is None:
                continue
            if packet.stream_index == index and stamp > end:
                return
            before = missing.get(packet.stream_index)
            if before is not None:
                other = self._tracks[packet.stream_index]
                missing[packet.stream_index] = stamp
                if not self._continues(other, stamp, other.reordered or packet.dts is None, before):
                    del missing[packet.stream_index]
        # A few packets more: where frames are reordered the first one read is not the first one shown.
        for _ in range(len(self._tracks) * 2 * _NEAR_PACKETS):
            packet = next(reader, None)
            if packet is None:
                return
            ahead.append(packet)

    def _need(self, track: _Track, index: int, ahead: Iterable[Packet[Any]]) -> Fraction | None:
        """The offset that puts a stream's part behind its jump right behind the part before; None: it has no jump here."""
        last, step = track.last, track.step
        assert last is not None
        shown = track.shown_until
        behind: list[Packet[Any]] = []
        for packet in ahead:
            stamp = _stamp(packet)
            if packet.stream_index != index or stamp is None:
                continue
            if behind or not self._continues(track, stamp, track.reordered or packet.dts is None, last):
                behind.append(packet)
                if len(behind) > 16:
                    break
                continue
            last, step = stamp, max(1, packet.duration or step)
            if (pts := _composed(packet, track.tick)) is not None:
                shown = max(shown or pts, pts + step)
        if not behind:
            return None
        begin = _stamp(behind[0])
        assert begin is not None
        need = last + step - begin
        times = (_composed(packet, track.tick) for packet in behind)
        stamps = [pts for pts in times if pts is not None and pts >= begin]
        if stamps and shown is not None:
            need = max(need, shown - min(stamps))
        return need * track.tick + self._offsets[track.segment]

    def _first_offset(self, starts: dict[int, Fraction]) -> Fraction:
        video = starts.get(self._video)
        if video is None:
            return Fraction(0)
        early = any(start < (-_PRIMING_SECONDS if index in self._audio else 0) for index, start in starts.items())
        first = min(starts.values())
        return -first if early or (self._arbitrary and first > self._gap) else Fraction(0)


def _stamp(packet: Packet[Any]) -> int | None:
    if packet.is_discard:
        return None
    return packet.dts if packet.dts is not None else packet.pts


def _composed(packet: Packet[Any], tick: Fraction) -> int | None:
    """The presentation time of a packet, if it is not too far from its decoding time."""
    pts, dts = packet.pts, packet.dts
    far = pts is not None and dts is not None and abs(pts - dts) * tick > _COMPOSITION_SECONDS
    return None if far else pts
