"""Whether streams stay in step with the video: the offset of each to the video's frames, in the input and in the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from rtseg.video.time_match import Match, Segment

SYNC_MS = 20.0
"""A larger difference between input and output is broken. Viewers notice audio that is 45 ms early (ITU-R BT.1359)."""


@dataclass(frozen=True, slots=True)
class SyncPoint:
    """The offset of a stream to the video at one place."""

    stream: int
    """Index in the input."""

    at_seconds: float
    """Where, in the output."""

    in_ms: float
    """How much later than the video the stream begins or ends there, in the input."""

    out_ms: float
    """The same in the output."""

    @property
    def difference_ms(self) -> float:
        """How far out of step the output is, against the input."""
        return self.out_ms - self.in_ms


def sync_points(
    stream: int, match: Match, video: Match, places: Sequence[int] = (), video_places: Sequence[int] = ()
) -> list[SyncPoint]:
    """Return the offsets of a stream to the video at its start, its end, and on both sides of each jump of the clock.

    Args:
        stream: index in the input.
        match: of the stream's times.
        video: of the times of the frames.
        places: where each packet of `match` is in the file. Given where streams are interleaved and the clock is arbitrary:
            then it decides what belongs together. Empty: what is shown at the same time does.
        video_places: where the packets of the video are.
    """
    points = []
    for segment in match.segments:
        beside = None
        if places and video_places and len(video.segments) > 1:
            middle = places[(segment.first + segment.last) // 2]
            beside = min(video.segments, key=lambda other: _outside(middle, other, video_places))
        else:
            beside = _beside(segment, match.unit, video)
        if beside is None:
            continue
        for first in (True, False):
            ours = (segment.first_in, segment.first_out) if first else (segment.last_in, segment.last_out)
            theirs = (beside.first_in, beside.first_out) if first else (beside.last_in, beside.last_out)
            offsets = [
                float(own * match.unit - other * video.unit) * 1000 for own, other in zip(ours, theirs, strict=True)
            ]
            points.append(SyncPoint(stream, float(ours[1] * match.unit), offsets[0], offsets[1]))
    return points


def jump_sizes(segments: Sequence[Segment], unit: Fraction) -> list[tuple[float, float]]:
    """Return where (seconds in the output) and by how much (seconds) each segment was moved against the one before."""
    return [
        (float(later.first_out * unit), float((later.shift - earlier.shift) * unit))
        for earlier, later in pairwise(segments)
    ]


def _outside(place: int, segment: Segment, places: Sequence[int]) -> int:
    """How far a place in the file is outside of a segment."""
    first, last = (places[min(number, len(places) - 1)] for number in (segment.first, segment.last))
    return max(first - place, place - last, 0)


def _beside(segment: Segment, unit: Fraction, video: Match) -> Segment | None:
    """The segment of the video that is shown at the same time, or nearest to it."""

    def distance(other: Segment) -> Fraction:
        begin = max(segment.first_out * unit, other.first_out * video.unit)
        end = min(segment.last_out * unit, other.last_out * video.unit)
        return begin - end  # less than zero: so much of both is shown at the same time

    return min(video.segments, key=distance, default=None)
