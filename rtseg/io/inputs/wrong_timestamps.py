"""Detection of single wrong time stamps: those after them continue from the stamps before them, so the clock has no jump.

Each function takes a `Lookahead` that begins with the tested packet; the packets after it decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

from av import Packet

from rtseg.io.inputs.stream_state import Lookahead, StreamState, stamp_of

OVERLAP_SECONDS = 1
"""Longest overlap between the streams of a recording and those of the recording that it is joined to."""

NEAR_PACKETS = 4
CONFIRM_PACKETS = 64
"""Number of packets of a stream that distinguish a jump from a wrong stamp. MPEG-TS has one stamp for up to 16 AAC packets."""

_NOTICED_SECONDS = Fraction(2, 100)
"""Audio that is late by less than this, or by one missing packet, keeps its time stamp."""

_LITTLE_SECONDS = Fraction(1, 10)
"""A stream that steps back by less than this soon catches up: its times are compressed instead of moved for good."""

_SURE_SECONDS = Fraction(6, 100)
"""Several audio packets that are later than this are not explained by jitter of their time stamps."""

_STEPS = 4
"""A step forward longer than this number of packets is checked: the next stamps show whether it is wrong."""


def is_wrong_first_stamp(stream: StreamState, packet: Packet[Any], ahead: Lookahead) -> bool:
    """Return whether the first stamp of a stream is wrong: the next ones are far from it and continue there."""
    stamps = ahead.stamps(3)
    reordered = packet.dts is None
    if len(stamps) < 3 or stream.is_audio:
        return False
    first, second, third = stamps
    return not stream.continues(second, reordered, first) and stream.continues(third, reordered, second)


def is_wrong_leap(stream: StreamState, stamp: int, packet: Packet[Any], ahead: Lookahead) -> bool:
    """Return whether a stamp leaps forward, and the stamps after it continue as if it had not."""
    if stream.last is None or stream.last_is_pts or packet.dts is None:
        return False
    longest, noticed, sure = _STEPS * stream.step, 0, 0
    if stream.is_audio:
        longest = stream.step + stream.step // 2
        noticed = stream.step + max(stream.step * 5 // 4, int(_NOTICED_SECONDS / stream.tick))
        sure = stream.step + max(2 * stream.step, int(_SURE_SECONDS / stream.tick))
    if stamp - stream.last <= longest:
        return False
    following = ahead.stamps(CONFIRM_PACKETS)[1:]
    if not following:
        return False
    if stamp - stream.last <= noticed:
        return stream.last < following[0] < stamp
    if stamp - stream.last <= sure:
        return _is_jitter(stream, stamp, following)
    high = next((number for number, later in enumerate(following) if later < stamp), None)
    if high is not None and following[high] > stream.last:
        rest = following[high:]
        low = next((n for n, (a, b) in enumerate(pairwise(rest), 1) if not 0 < b - a <= longest), None)
        # A few stamps after a gap may be too early: then those are the wrong ones.
        return low is None or low > high
    # Audio has a fixed step. In MPEG-TS one stamp covers several packets, and the packets after those are right again.
    return stream.is_audio and _is_on_line(stream, stamp, following, stream.step // 2)


def is_wrong_stamp(streams: Mapping[int, StreamState], ahead: Lookahead) -> bool:
    """Return whether the stamp of the first packet is a single wrong one, and not the start of a segment."""
    stream = streams[ahead.queue[0].stream_index]
    assert stream.last is not None
    if stream.stepped_back and 0 <= (stream.last - (stamp_of(ahead.queue[0]) or 0)) * stream.tick < OVERLAP_SECONDS:
        return True
    following = ahead.stamps(CONFIRM_PACKETS + 1)
    first, rest = following[0], following[1:]
    if not rest or not stream.continues(rest[0], True, first):
        return True
    if _returns(stream, first, rest[:NEAR_PACKETS]) or _is_on_line(stream, first, rest, 2 * stream.step):
        return True
    ended = len(following) <= CONFIRM_PACKETS
    stream.stepped_back = _only_this_stream_steps_back(stream, first, streams, ahead, ended)
    return stream.stepped_back


def _is_jitter(stream: StreamState, first: int, following: list[int]) -> bool:
    """Return whether a few packets are late by the same amount and the packets after them are not."""
    assert stream.last is not None
    tolerance = max(1, stream.step // 4)
    regular = (abs(stamp - first - number * stream.step) <= tolerance for number, stamp in enumerate(following, 1))
    late = next((number for number, is_regular in enumerate(regular) if not is_regular), len(following))
    after = following[late : late + 4]
    line = (stream.last + number * stream.step for number in range(late + 2, late + 2 + len(after)))
    return len(after) > 1 and all(
        abs(stamp - expected) <= tolerance for stamp, expected in zip(after, line, strict=True)
    )


def _is_on_line(stream: StreamState, first: int, following: list[int], tolerance: int) -> bool:
    """Return whether a stamp after the next one (`first`) is where it would be if all steps had the same length."""
    assert stream.last is not None
    previous_step, previous = stream.step, first
    for number, stamp in enumerate(following, 2):
        step = stamp - previous
        if abs(stamp - stream.last - number * stream.step) <= tolerance < abs(step - previous_step):
            return True
        previous_step, previous = step, stamp
    return False


def _returns(stream: StreamState, first: int, rest: list[int]) -> bool:
    """Return whether the stamps after a wrong one (`first`) leap back to where the stream was."""
    assert stream.last is not None
    limit = 4 * (len(rest) + 1) * stream.step + int(OVERLAP_SECONDS / stream.tick)
    limit = min(limit, stream.gap_ticks)
    little = 0 <= stream.last - first < max(2 * stream.step, int(_LITTLE_SECONDS / stream.tick))
    previous_step, previous = stream.step, first
    for stamp in rest:
        step = stamp - previous
        if 0 < stamp - stream.last <= limit and (little or abs(step - previous_step) > max(1, previous_step // 2)):
            return True
        previous_step, previous = step, stamp
    return False


def _only_this_stream_steps_back(
    stream: StreamState, first: int, streams: Mapping[int, StreamState], ahead: Lookahead, ended: bool
) -> bool:
    """Return whether a stream steps back by less than a second while the others continue: it stays in step with them."""
    assert stream.last is not None
    if not 0 <= (stream.last - first) * stream.tick < OVERLAP_SECONDS:
        return False
    others = {
        index: other.last
        for index, other in streams.items()
        if other.is_reference and other is not stream and other.last is not None and other.segment == stream.segment
    }
    begins = dict(others)
    for packet in ahead.queue:
        index, stamp = packet.stream_index, stamp_of(packet)
        if index in others and stamp is not None:
            other = streams[index]
            if not other.continues(stamp, other.last_is_pts or packet.dts is None, others[index]):
                return False
            others[index] = stamp
    # Later than the last stamp by half of the step back.
    passed_seconds = (3 * stream.last - first) // 2 * stream.tick
    for index, last in others.items():
        tick = streams[index].tick
        if (last - begins[index]) * tick >= OVERLAP_SECONDS or (ended and last * tick > passed_seconds):
            return True
    return False
