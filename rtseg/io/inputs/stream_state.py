"""Clock state of one stream of a file, and the packets that are read ahead to judge its time stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from av import Packet

GAP_SECONDS = 10
"""Longest step forward that is not a jump where the format's clock is arbitrary (MPEG-TS and MPEG-PS), in seconds.

This is FFmpeg's `dts_delta_threshold`. Other containers state presentation times, so there a gap stays a gap."""

LONGEST_GAP_SECONDS = 6 * 3600
"""The same limit for all other containers. MP4 can't store a step of 2**31 ticks, and FFmpeg aborts on one."""

_REORDER_SECONDS = 10
"""Longest step back of a presentation time because frames are stored in decoding order. Long at variable frame rates."""

_COMPOSITION_SECONDS = 10
"""Largest plausible difference between presentation time and decoding time."""

LOOKAHEAD_PACKETS = 4096


@dataclass(slots=True)
class StreamState:
    """Clock state of one stream. Time stamps are in ticks of the stream, as in the file."""

    index: int
    tick: Fraction
    """Seconds per tick."""

    max_gap_seconds: Fraction
    """A longer step forward is a jump."""

    decoding_times: bool
    """True if the format has decoding times. If not, FFmpeg estimates them, and they may be equal."""

    is_audio: bool
    is_reference: bool
    """True if its jumps count: audio and the video that is processed. All other streams follow these."""

    segment: int = 0
    last: int | None = None
    """Decoding time of the last packet; its presentation time where it has no decoding time."""

    last_is_pts: bool = False
    """True if `last` is a presentation time: the next stamp may be smaller."""

    step: int = 1
    """Duration of the last packet in ticks."""

    display_end: int | None = None
    """Latest end of presentation so far."""

    stepped_back: bool = False
    """True if only this stream stepped back, and it has not yet caught up with the others."""

    @property
    def gap_ticks(self) -> int:
        """Longest step forward that is not a jump. A time-lapse has long steps everywhere."""
        return max(int(self.max_gap_seconds / self.tick), 4 * self.step)

    def continues(self, stamp: int, reordered: bool, last: int | None = None) -> bool:
        """Return whether a stamp follows the last one without a jump.

        Args:
            reordered: whether a small step back is allowed.
            last: stamp before it; None: `self.last`.
        """
        last = self.last if last is None else last
        if last is None:
            return True
        back = _REORDER_SECONDS / self.tick if reordered else -1
        if self.step <= 1 or not self.decoding_times:
            back = max(back, 0)  # Packets shorter than a tick (TrueHD in Matroska) share their time with others.
        return last - stamp <= back and stamp - last <= self.gap_ticks


class Lookahead:
    """Queue of packets that were read ahead, from the current packet on. `packets` are all further ones in reading order."""

    def __init__(self, packets: Iterator[Packet[Any]], queue: deque[Packet[Any]] | None = None) -> None:
        self.packets = packets
        self.queue: deque[Packet[Any]] = deque() if queue is None else queue

    def get(self, position: int) -> Packet[Any] | None:
        """Return the packet at a position of the queue, or read one more packet; None at the end."""
        if position < len(self.queue):
            return self.queue[position]
        packet = next(self.packets, None)
        if packet is not None:
            self.queue.append(packet)
        return packet

    def stamps(self, count: int) -> list[int]:
        """Return up to `count` stamps of the first packet's stream, starting with the first packet."""
        stamps: list[int] = []
        position = 0
        while len(stamps) < count and position < max(LOOKAHEAD_PACKETS, len(self.queue)):
            packet = self.get(position)
            if packet is None:
                break
            if packet.stream_index == self.queue[0].stream_index and (stamp := stamp_of(packet)) is not None:
                stamps.append(stamp)
            position += 1
        return stamps


def stamp_of(packet: Packet[Any]) -> int | None:
    """Return a packet's decoding time, else its presentation time; None: it has neither, or an edit list hides it."""
    if packet.is_discard:
        return None
    return packet.dts if packet.dts is not None else packet.pts


def plausible_pts(packet: Packet[Any], tick: Fraction) -> int | None:
    """Return a packet's presentation time; None: it has none, or it is too far from its decoding time."""
    pts, dts = packet.pts, packet.dts
    far = pts is not None and dts is not None and abs(pts - dts) * tick > _COMPOSITION_SECONDS
    return None if far else pts
