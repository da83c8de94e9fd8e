"""Arrival times of the packets of a live stream, and presentation times for streams without a clock."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from av import Packet, VideoFrame

from rtseg.io.inputs.packets import Packets

_MAX_ARRIVALS = 64
"""Largest number of packets whose arrival times are stored."""

_MAX_STAMPS = 8
"""Largest number of frames that a decoder delays to reorder them."""

_ARRIVAL_UNIT = Fraction(1, 1_000_000)
"""Time base of streams without a clock. Their time stamps are arrival times by the monotonic clock."""


class ArrivalTimes:
    """Arrival times of packets that are still in the decoder."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets
        self.time_base = packets.time_base if packets.has_clock else _ARRIVAL_UNIT
        """Seconds per unit of the presentation times."""
        self._arrivals: dict[int, int] = {}
        self._stamps: list[int] = []
        self._last: tuple[int, int] | None = None

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
            pts, before_ns = self._last or (round(captured_ns / 1e9 / self.time_base), captured_ns)
            pts += round((captured_ns - before_ns) / 1e9 / self.time_base)
        elif not self._packets.has_clock:
            # Reordered frames (B-frames) get the arrival times of their packets in order.
            if not self._packets.codec_context.has_b_frames:
                self._stamps = [stamp for stamp in self._stamps if stamp >= pts]
            pts = self._stamps.pop(0) if self._stamps else pts
        self._last = pts, captured_ns
        return pts
