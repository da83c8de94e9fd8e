"""Synchronization of streams with the video: time offsets of a stream to the video, in the input and in the output."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rtseg.core.fidelity_report import SyncPoint
from rtseg.video.timestamp_match import Match, Segment

SYNC_MS = 20.0
"""Maximum change of an offset between input and output. Viewers notice audio that is 45 ms early (ITU-R BT.1359)."""


def sync_points(
    stream: int, match: Match, video: Match, positions: Sequence[int] = (), video_positions: Sequence[int] = ()
) -> list[SyncPoint]:
    """Return the offsets of a stream to the video at its start, its end, and on both sides of each jump of the clock.

    Each segment of the stream is compared with one segment of the video: the nearest one in the file if packet positions are
    given (interleaved streams with an arbitrary clock), else the one with the largest overlap in time.

    Args:
        stream: index in the input.
        match: match of the stream's timestamps.
        video: match of the frame timestamps, with a segment at least.
        positions: position in the file of each packet of `match`; may be empty.
        video_positions: positions in the file of the video packets.
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
