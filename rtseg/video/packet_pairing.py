"""Pairing of the packets of a copied stream with those of the input."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rtseg.video.container_reader import NO_TIME, StreamPackets, optional_times
from rtseg.video.timestamp_match import Match

_MAX_CANDIDATES = 3
"""Number of identical packets (such as silence) that are tried as the first one, nearest in time first."""


def pair_packets(before: StreamPackets, after: StreamPackets, video: Match | None, *, whole: bool) -> list[int] | str:
    """Return the number of the input's packet for each packet of the output, or the problem if they differ.

    `video` is the match of the frames (None: unknown). `whole` is False if only a range of the input was processed.
    """
    hashes, first = before.hashes, 0
    if after.hashes:
        # A range begins anywhere, and hidden packets before the first visible one may be kept for the decoder. Of
        # identical packets, such as silence, take the one with the right timestamp.
        same = [number for number, value in enumerate(hashes) if value == after.hashes[0]]
        nearest = sort_by_distance(before, after, same, video)
        count, first = len(after.hashes), nearest[0] if same else 0
        # AVI begins with a complete packet: the next one may be nearer. Without timestamps, try all.
        candidates = nearest if video is None else nearest[:_MAX_CANDIDATES]
        first = next((number for number in candidates if hashes[number : number + count] == after.hashes), first)
    visible = next((number for number in range(len(hashes)) if number not in before.hidden), len(hashes))
    if hashes and after.hashes and hashes[first] != after.hashes[0]:
        first = visible
    numbers = [n for n in range(first, len(hashes)) if n < visible or n not in before.hidden]
    if not whole:
        numbers = numbers[: len(after.hashes)]
    if len(numbers) != len(after.hashes):
        return f"{len(numbers)} packets in the input, {len(after.hashes)} in the output"
    if any(hashes[number] != value for number, value in zip(numbers, after.hashes, strict=True)):
        return "the packets are not the same"
    return numbers


def sort_by_distance(
    before: StreamPackets, after: StreamPackets, numbers: Sequence[int], video: Match | None
) -> list[int]:
    """Return packet numbers of the input, sorted by the distance of their time to that of the output's first packet."""
    times = before.times()
    begin = next((time for time in after.times() if time is not None), None)
    if begin is None or video is None or not video.segments:
        return list(numbers)
    segment = video.segments[0]
    expected = begin * after.time_base - segment.shift * video.unit

    def distance(number: int) -> Fraction:
        time = times[number]
        return Fraction(1 << 62) if time is None else abs(time * before.time_base - expected)

    return sorted(numbers, key=distance)


def comparable_times(
    before: StreamPackets, after: StreamPackets, numbers: list[int], preparing: set[int]
) -> tuple[list[int | None], list[int]]:
    """Return the times of the input's and the output's packets that must be equal, without the places in `preparing`.

    AVI has one time per video packet: for H.264 the n-th presentation time, for other codecs the decoding time.
    """
    times, times_out = before.times(), after.times()
    if before.kind == "video" and before.codec != "h264" and NO_TIME in after.pts:
        times, times_out = optional_times(before.dts), optional_times(after.dts)
    times_in = [times[number] for number in numbers]
    if before.kind == "video" and {NO_TIME} in (set(before.pts), set(after.pts)):
        known = iter(sorted(time for time in times_in if time is not None))
        times_in = [None if time is None else next(known) for time in times_in]
        times_out = sorted(time for time in times_out if time is not None)  # type: ignore[assignment]
        preparing = set(range(len(preparing)))
    visible = [place for place in range(len(numbers)) if place not in preparing]
    visible_out = [time for place, time in enumerate(times_out) if place not in preparing]
    return [times_in[place] for place in visible], [time for time in visible_out if time is not None]
