"""Arrival times of the packets of a live stream, and presentation times for streams without a clock."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

from av import Packet, VideoFrame

from rtseg.io.inputs.packets import Packets

_MAX_ARRIVALS = 64
"""Largest number of packets whose arrival times are stored."""

_MAX_STAMPS = 8
"""Largest number of frames that a decoder delays to reorder them."""

_HOLD_SECONDS = 1.0
"""Delay from which a packet counts as held."""

_MAX_HELD = 2
"""Largest number of packets that FFmpeg holds."""

_ARRIVAL_UNIT = Fraction(1, 1_000_000)
"""Time base of streams without a clock. Their time stamps are arrival times by the monotonic clock."""


class _Returned(NamedTuple):
    stamp: int
    newest: int
    """Largest presentation time so far."""
    returned_ns: int
    arrival_ns: int


class ArrivalTimes:
    """Arrival times of packets that are still in the decoder."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self.time_base = packets.time_base if packets.has_clock else _ARRIVAL_UNIT
        """Seconds per unit of the presentation times."""
        self._arrivals: dict[int, int] = {}
        self._stamps: list[int] = []
        self._last: tuple[int, int] | None = None
        self.begins_untimed = False
        """True if the first frame has no time stamp, although the stream has a clock: FFmpeg has none for it in RTSP."""
        self._returned: _Returned | None = None
        self._held = 0

    def without_hold(self, packet: Packet[Any], returned_ns: int) -> int:
        """Return the arrival time of a packet, without the time for which FFmpeg held it.

        FFmpeg may return the last one or two packets before a silence only when data arrives again, or at its timeout: packets
        of MPEG-TS and frames of H.264 end where the next one begins. More late packets come from a network that was blocked.

        Args:
            packet: packet in decoding order.
            returned_ns: time at which FFmpeg returned it.
        """
        stamp = packet.pts if packet.dts is None else packet.dts
        before, self._returned = self._returned, None
        held, self._held = self._held, 0
        if stamp is None or not self._packets.has_clock:
            return returned_ns
        arrival_ns = returned_ns
        newest = max(stamp, packet.pts or stamp)
        if before is not None and stamp > before.stamp:
            # Decoding times that FFmpeg computes for RTSP show a gap some packets late.
            gap = newest - before.newest
            step = max(stamp - before.stamp, gap if gap * self.time_base > _HOLD_SECONDS else 0)
            step_ns = int(step * self.time_base * 1_000_000_000)
            newest = max(newest, before.newest)
            # Several packets that were held come at once, or one with each new packet.
            follows_held = returned_ns - before.returned_ns < step_ns // 2 or 0 < held < _MAX_HELD
            expected_ns = (before.arrival_ns if follows_held else before.returned_ns) + step_ns
            if held < _MAX_HELD and returned_ns - expected_ns > _HOLD_SECONDS * 1e9:
                arrival_ns, self._held = expected_ns, held + 1
        self._returned = _Returned(stamp, newest, returned_ns, arrival_ns)
        return arrival_ns

    def set_stamps(self, packet: Packet[Any], now_ns: int) -> None:
        """Set the time stamps of a packet to its arrival time if the stream has no clock."""
        if self._packets.has_clock:
            return
        # FFmpeg's generated stamps do not follow the sender's frame rate; arrival times do.
        stamp = round(now_ns / 1e9 / _ARRIVAL_UNIT)
        stamp = max(stamp, self._stamps[-1] + 1) if self._stamps else stamp
        packet.pts = packet.dts = stamp
        packet.time_base = _ARRIVAL_UNIT
        self._stamps.append(stamp)
        del self._stamps[:-_MAX_STAMPS]

    def add(self, pts: int, now_ns: int) -> None:
        """Record the arrival time of the packet with a presentation time."""
        self._arrivals[pts] = now_ns
        while len(self._arrivals) > _MAX_ARRIVALS:
            del self._arrivals[next(iter(self._arrivals))]

    def pop(self, pts: int | None, now_ns: int) -> int:
        """Remove and return the arrival time of a frame; `now_ns` if it is unknown."""
        return now_ns if pts is None else self._arrivals.pop(pts, now_ns)

    def presentation_time(self, video_frame: VideoFrame, captured_ns: int) -> int:
        """Return a frame's presentation time by the stream's clock or, if it has none, by its arrival."""
        pts = video_frame.pts
        if pts is None:
            self.begins_untimed |= self._last is None and self._packets.has_clock
            pts, before_ns = self._last or (round(captured_ns / 1e9 / self.time_base), captured_ns)
            pts += round((captured_ns - before_ns) / 1e9 / self.time_base)
        elif not self._packets.has_clock:
            # Reordered frames (B-frames) get the arrival times of their packets in order.
            if not self._packets.codec_context.has_b_frames:
                self._stamps = [stamp for stamp in self._stamps if stamp >= pts]
            pts = self._stamps.pop(0) if self._stamps else pts
        self._last = pts, captured_ns
        return pts
