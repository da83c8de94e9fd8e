"""One continuous timeline for all streams of a file, despite joins, clock wraps, negative times and single wrong stamps.

A recording that was joined from two, or whose clock wrapped, has a jump in each stream, a few packets apart. Everything
after the jump is moved by one offset for all streams, so that audio and video stay in sync. One wrong time stamp is not a
jump.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from typing import Any

from av import Packet

from rtseg.io.inputs.clock_segments import ClockSegments
from rtseg.io.inputs.stream_state import (
    GAP_SECONDS,
    LONGEST_GAP_SECONDS,
    Lookahead,
    StreamState,
    plausible_pts,
    stamp_of,
)
from rtseg.io.inputs.timestamps import fraction
from rtseg.io.inputs.wrong_timestamps import is_wrong_first_stamp, is_wrong_leap, is_wrong_stamp

_PRIMING_SECONDS = Fraction(1, 5)
"""Audio may begin this much before zero: encoders write a packet or two before the first audible sample."""

MPEG_TICK = Fraction(1, 90_000)
"""Seconds per tick of the clocks of MPEG-TS and MPEG-PS."""

WRAP = 1 << 33
"""Ticks after which the clocks of MPEG-TS and MPEG-PS wrap, at 90 kHz (ISO/IEC 13818-1, 2.4.3.6)."""


def unwrapped(stamp: int, near: int) -> int:
    """Return a time stamp of MPEG-TS or MPEG-PS plus the multiple of `WRAP` that puts it nearest to another one."""
    return stamp + round((near - stamp) / WRAP) * WRAP


class Clock:
    """Clock that maps the time stamps of all streams to one rising timeline.

    Args:
        streams: of the container.
        video: index of the video stream that is processed.
        arbitrary: whether the format's clock may start anywhere and jump (FFmpeg's AVFMT_TS_DISCONT).
        decoding_times: whether the format has them; if not (Matroska), FFmpeg estimates them, and they may be equal.
    """

    def __init__(self, streams: Iterable[Any], video: int, *, arbitrary: bool, decoding_times: bool = True) -> None:
        self._video = video
        self._streams: dict[int, StreamState] = {}
        self._begin: int | None = None  # the first stamp of the video, where the clock wraps
        max_gap_seconds = Fraction(GAP_SECONDS if arbitrary else LONGEST_GAP_SECONDS)
        streams = tuple(streams)
        for stream in streams:
            tick = fraction(stream.time_base) or Fraction(1)
            is_audio = stream.type == "audio"
            self._streams[stream.index] = StreamState(
                index=stream.index,
                tick=tick,
                max_gap_seconds=max_gap_seconds,
                decoding_times=decoding_times,
                is_audio=is_audio,
                is_reference=is_audio or stream.index == video,
            )
            if stream.index == video and tick == MPEG_TICK and arbitrary:
                self._begin = stream.start_time
        self.start_offset = self._first_offset(streams, arbitrary)
        """Seconds by which the whole recording is moved: not 0 where it begins before zero, or far from it."""
        self._segments = ClockSegments(
            self._streams, self._streams[video], arbitrary=arbitrary, first_offset=self.start_offset
        )
        self.jumps = self._segments.jumps
        """Jumps so far."""
        self.wrong_stamps = Counter[int]()
        """Number of wrong time stamps of each stream, which were set between their neighbors."""
        self.sparse = False
        """True if frames of the video without a presentation time were read: FFmpeg's decoding times replace the missing ones."""

    def map(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        """Yield all packets in reading order, with their time stamps on the output timeline.

        A wrong stamp of a video packet is set to None; a wrong stamp of another stream is set between its neighbors.
        Packets are held back only where a time stamp is out of order.
        """
        ahead = Lookahead(self._unwrap(packets))
        while ahead.get(0) is not None:
            self._set_stamps(ahead)
            yield ahead.queue.popleft()

    def _set_stamps(self, ahead: Lookahead) -> None:
        """Set the time stamps of the first packet."""
        packet, segments = ahead.queue[0], self._segments
        stream, stamp = self._streams.get(packet.stream_index), stamp_of(packet)
        if stream is None:
            return
        if packet.is_discard:
            self._move(packet, stream)  # An edit list hides it: its times may step back, and are not evidence.
            return
        if stamp is None:
            return
        if not stream.is_reference:
            segments.follow(stream, stamp)
            self._move(packet, stream)
            return
        if stream.last is None:
            if is_wrong_first_stamp(stream, packet, ahead):
                self.wrong_stamps[packet.stream_index] += 1
                packet.pts = packet.dts = None
                return
            segments.place_late_stream(stream, stamp, ahead)
        if is_wrong_leap(stream, stamp, packet, ahead):
            self._repair(packet, stream, ahead)
            return
        if not (
            stream.continues(stamp, stream.last_is_pts or packet.dts is None)
            or segments.enter(stream, stamp)
            or segments.is_gap(stream, stamp)
        ):
            if is_wrong_stamp(self._streams, ahead):
                self._repair(packet, stream, ahead)
                return
            segments.begin(ahead)
        stream.last, stream.last_is_pts, stream.stepped_back = stamp, packet.dts is None, False
        stream.step = max(1, packet.duration or stream.step)
        self._move(packet, stream)

    def _unwrap(self, packets: Iterable[Packet[Any]]) -> Iterator[Packet[Any]]:
        """Yield all packets, without the wraps of MPEG's clock that FFmpeg leaves."""
        near = dict.fromkeys(self._streams, self._begin or 0)
        for packet in packets:
            index = packet.stream_index
            if index == self._video and packet.pts is None:
                self.sparse = True
            if self._begin is not None and index in near and self._streams[index].tick == MPEG_TICK:
                for name in ("dts", "pts"):
                    stamp = getattr(packet, name)
                    if stamp is not None and abs(stamp - near[index]) > WRAP // 2:
                        setattr(packet, name, unwrapped(stamp, near[index]))
                stamp = stamp_of(packet)
                near[index] = near[index] if stamp is None else stamp
            yield packet

    def _repair(self, packet: Packet[Any], stream: StreamState, ahead: Lookahead) -> None:
        """Replace a wrong time stamp."""
        self.wrong_stamps[packet.stream_index] += 1
        assert stream.last is not None
        if packet.stream_index == self._video:
            # Frames are set between their neighbors once they are in presentation order. A slightly wrong decoding
            # time does not show that the presentation time is wrong.
            stamp = stamp_of(packet)
            if stamp is None or stream.last - stamp > stream.step or stamp > stream.last:
                packet.pts = None
            packet.dts = None
            self._move(packet, stream)
            return
        later = (
            stamp
            for other in islice(ahead.queue, 1, None)
            if other.stream_index == packet.stream_index
            and (stamp := stamp_of(other)) is not None
            and stream.continues(stamp, False)
        )
        following = next(later, None)
        middle = stream.last + stream.step
        if following is not None and following <= middle:
            middle = (stream.last + following) // 2
        stream.last = max(middle, stream.last + 1)
        packet.dts = packet.pts = stream.last
        self._move(packet, stream)

    def _move(self, packet: Packet[Any], stream: StreamState) -> None:
        """Set a packet's stamps on the output timeline."""
        pts, dts = packet.pts, packet.dts
        offset = round(self._segments.offsets[stream.segment] / stream.tick)
        if pts != plausible_pts(packet, stream.tick):
            self.wrong_stamps[packet.stream_index] += 1
            pts = packet.pts = None if packet.stream_index == self._video else dts
        if pts is not None:
            end = pts + max(1, packet.duration or 1)
            if stream.display_end is None or end > stream.display_end:
                stream.display_end = end
        if offset:
            packet.pts = None if pts is None else pts + offset
            packet.dts = None if dts is None else dts + offset

    def _first_offset(self, streams: Iterable[Any], arbitrary: bool) -> Fraction:
        """Return the offset in seconds that moves the beginning of the recording to zero where it is before or far from it."""
        starts: dict[int, Fraction] = {}
        for stream in streams:
            state, start = self._streams[stream.index], stream.start_time
            if (state.is_reference or stream.type == "video") and start is not None:
                if self._begin is not None and state.tick == MPEG_TICK:
                    start = unwrapped(start, self._begin)
                starts[stream.index] = start * state.tick
        if self._video not in starts:
            return Fraction(0)
        early = any(
            start < (-_PRIMING_SECONDS if self._streams[index].is_audio else 0) for index, start in starts.items()
        )
        first = min(starts.values())
        return -first if early or (arbitrary and first > GAP_SECONDS) else Fraction(0)
