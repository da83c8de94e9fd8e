"""Segments of a recording between the jumps of its clock, with one offset for all streams in each segment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

from av import Packet

from rtseg.io.inputs.stream_state import (
    GAP_SECONDS,
    LOOKAHEAD_PACKETS,
    Lookahead,
    StreamState,
    plausible_pts,
    stamp_of,
)
from rtseg.io.inputs.wrong_timestamps import CONFIRM_PACKETS, NEAR_PACKETS, OVERLAP_SECONDS, is_wrong_stamp

_LOOKAHEAD_SECONDS = 5
"""Largest distance between the jump of one stream and the jumps of the others. MPEG-TS lets streams be 1 s apart."""

_LOOKAHEAD_BYTES = 64 << 20
_PACKETS_AFTER_JUMP = 16


@dataclass(frozen=True, slots=True)
class Jump:
    """A place where the clock of the recording jumps."""

    at_seconds: float
    """Position on the output timeline."""

    seconds: float
    """Additional offset of everything from here on."""


class ClockSegments:
    """Segments of a recording and their offsets. `arbitrary` is that of `Clock`; `first_offset` is in seconds."""

    def __init__(
        self, streams: Mapping[int, StreamState], video: StreamState, *, arbitrary: bool, first_offset: Fraction
    ) -> None:
        self._streams, self._video, self._arbitrary = streams, video, arbitrary
        self.offsets = [first_offset]
        """Offset of each segment in seconds."""
        self.jumps: list[Jump] = []
        self._ends: list[Fraction] = []  # the end of each segment but the last one, in seconds of the file's clock

    def place_late_stream(self, stream: StreamState, stamp: int, ahead: Lookahead) -> None:
        """Set the segment of a stream that begins inside the file: the video's segment, or the one that it enters next."""
        video = self._video
        if stream is video or video.last is None or not self._arbitrary:
            return
        stream.segment = video.segment
        now = video.last * video.tick
        if abs(stamp * stream.tick - now) <= OVERLAP_SECONDS:
            return
        # The clock may have jumped already in the video, and not yet in this stream.
        earlier = [number for number, end in enumerate(self._ends) if abs(stamp * stream.tick - end) <= OVERLAP_SECONDS]
        if earlier:
            stream.segment = earlier[-1]
            return
        # The clock may have jumped already in this stream, and not yet in the video: the video's next packets decide.
        state = video.last, video.step, video.display_end, video.segment
        position = self._next_video_jump(ahead)
        if position is not None:
            rest = Lookahead(ahead.packets, deque(islice(ahead.queue, position, None)))
            if not is_wrong_stamp(self._streams, rest):
                self.begin(rest)
                stream.segment = video.segment
            ahead.queue.extend(islice(rest.queue, len(ahead.queue) - position, None))
        video.last, video.step, video.display_end, video.segment = state

    def _next_video_jump(self, ahead: Lookahead) -> int | None:
        """Return the position in the queue where the video's clock jumps, within its next packets; None: it does not.

        The state of the video is advanced up to that packet.
        """
        video = self._video
        seen, position = 0, 1
        while seen < NEAR_PACKETS and position <= CONFIRM_PACKETS + 1 and (packet := ahead.get(position)) is not None:
            stamp = stamp_of(packet)
            if packet.stream_index == video.index and stamp is not None:
                seen += 1
                if not video.continues(stamp, video.last_is_pts or packet.dts is None):
                    return position
                video.last, video.step = stamp, max(1, packet.duration or video.step)
                if (pts := plausible_pts(packet, video.tick)) is not None:
                    video.display_end = max(video.display_end or pts, pts + video.step)
            position += 1
        return None

    def is_gap(self, stream: StreamState, stamp: int) -> bool:
        """Return whether a step forward is a gap in this stream only: another stream is near that time in the same segment."""
        assert stream.last is not None
        seconds = stamp * stream.tick
        return stamp > stream.last and any(
            other.last is not None and abs(other.last * other.tick - seconds) <= stream.max_gap_seconds
            for other in self._streams.values()
            if other.is_reference and other is not stream and other.segment == stream.segment
        )

    def enter(self, stream: StreamState, stamp: int) -> bool:
        """Move a stream to a segment that another stream began, if the stamp fits there; return whether it does."""
        assert stream.last is not None
        end = (stream.last + stream.step) * stream.tick + self.offsets[stream.segment]
        fitting: list[tuple[Fraction, int]] = []
        for segment in range(stream.segment + 1, len(self.offsets)):
            begin = stamp * stream.tick + self.offsets[segment]
            positions = [
                other.last * other.tick + self.offsets[segment]
                for other in self._streams.values()
                if other.last is not None and other.segment == segment
            ]
            now = max(positions, default=Fraction(0))  # of the furthest stream, on the output timeline
            if end - OVERLAP_SECONDS <= begin <= max(end, now) + GAP_SECONDS:
                fitting.append((abs(begin - now), segment))
        if not fitting:
            return False
        # Segments without this stream are skipped: all streams are at about the same time.
        stream.segment, stream.display_end = min(fitting)[1], None
        return True

    def follow(self, stream: StreamState, stamp: int) -> None:
        """Set the segment of a stream whose jumps don't count (subtitles, data): the one that puts it nearest to the video."""
        video = self._video
        if video.last is not None:
            now = video.last * video.tick + self.offsets[video.segment]
            candidates = range(max(0, video.segment - 1), len(self.offsets))
            stream.segment = min(candidates, key=lambda segment: abs(stamp * stream.tick + self.offsets[segment] - now))

    def begin(self, ahead: Lookahead) -> None:
        """Begin a segment at the first packet, where the clock of its stream jumps, and compute the offset of all streams."""
        packet = ahead.queue[0]
        stream = self._streams[packet.stream_index]
        first = stamp_of(packet)
        assert first is not None
        assert stream.last is not None
        self._read_until_all_jumped(stream, first, ahead)
        offsets = [
            self._required_offset(other, ahead.queue)
            for other in self._streams.values()
            if other.is_reference and other.last is not None and other.segment == stream.segment
        ]
        offset = max(value for value in offsets if value is not None)
        previous = self.offsets[stream.segment]
        self.offsets.append(offset)
        self._ends.append(stream.last * stream.tick)
        stream.segment, stream.display_end = len(self.offsets) - 1, None
        pts = packet.pts if packet.pts is not None else first
        self.jumps.append(Jump(float(pts * stream.tick + offset), float(offset - previous)))

    def _read_until_all_jumped(self, stream: StreamState, first: int, ahead: Lookahead) -> None:
        """Read ahead until every reference stream has jumped, or a limit is reached."""
        missing = {
            index: other.last
            for index, other in self._streams.items()
            if other.is_reference and other is not stream and other.last is not None
        }
        end = first + _LOOKAHEAD_SECONDS / stream.tick
        size_bytes = 0
        position = 0
        while missing and len(ahead.queue) < LOOKAHEAD_PACKETS and size_bytes < _LOOKAHEAD_BYTES:
            packet = ahead.get(position)
            if packet is None:
                return
            position += 1
            size_bytes += packet.size
            stamp = stamp_of(packet)
            if stamp is None:
                continue
            if packet.stream_index == stream.index and stamp > end:
                return
            before = missing.get(packet.stream_index)
            if before is not None:
                other = self._streams[packet.stream_index]
                missing[packet.stream_index] = stamp
                if not other.continues(stamp, other.last_is_pts or packet.dts is None, before):
                    del missing[packet.stream_index]
        # A few packets more: where frames are reordered, the first one read is not the first one displayed.
        for _ in range(len(self._streams) * 2 * NEAR_PACKETS):
            if ahead.get(len(ahead.queue)) is None:
                return

    def _required_offset(self, stream: StreamState, packets: Iterable[Packet[Any]]) -> Fraction | None:
        """Return the offset in seconds that joins a stream's packets after its jump to those before; None: it has no jump."""
        last, step = stream.last, stream.step
        assert last is not None
        display_end = stream.display_end
        after: list[Packet[Any]] = []
        for packet in packets:
            stamp = stamp_of(packet)
            if packet.stream_index != stream.index or stamp is None:
                continue
            if after or not stream.continues(stamp, stream.last_is_pts or packet.dts is None, last):
                after.append(packet)
                if len(after) > _PACKETS_AFTER_JUMP:
                    break
                continue
            last, step = stamp, max(1, packet.duration or step)
            if (pts := plausible_pts(packet, stream.tick)) is not None:
                display_end = max(display_end or pts, pts + step)
        if not after:
            return None
        begin = stamp_of(after[0])
        assert begin is not None
        ticks = last + step - begin
        times = (plausible_pts(packet, stream.tick) for packet in after)
        stamps = [pts for pts in times if pts is not None and pts >= begin]
        if stamps and display_end is not None:
            ticks = max(ticks, display_end - min(stamps))
        return ticks * stream.tick + self.offsets[stream.segment]
