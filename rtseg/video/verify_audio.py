"""Synchronization of re-encoded audio with the video, measured by its loudness over time."""

from __future__ import annotations

from math import isinf

import numpy as np

from rtseg.core.fidelity_report import SyncPoint
from rtseg.video.loudness_offset import CELL_SECONDS, WINDOW_SECONDS, Loudness, loudness, offset_ms
from rtseg.video.timestamp_match import Match

_MAX_PACKET_SECONDS = 1.0
"""Maximum duration of an audio packet. ASF packets contain some tenths of a second."""


def reencoded_audio_sync(
    index: int, path_in: str, path_out: str, index_out: int, video: Match, *, whole: bool
) -> list[SyncPoint] | None:
    """Return the offsets of a re-encoded audio stream; None if its content is not the input's.

    The list is empty if the loudness varies too little to measure an offset.

    Args:
        index: index of the stream in the input.
        path_in: path of the input.
        path_out: path of the output.
        index_out: index of the stream in the output.
        video: match of the frames.
        whole: whether the whole input was processed.
    """
    parts, parts_out = loudness(path_in, index), loudness(path_out, index_out)
    points: list[SyncPoint] = []
    for begin, cells in parts:
        # Where the clock jumps, a part belongs to one of the segments, which only the audio itself determines.
        shifts = [float(segment.shift * video.unit) for segment in video.segments]
        candidates = [_sync_points(index, begin, cells, shift, parts_out, video, whole) for shift in shifts]
        if candidates:
            best: list[SyncPoint] = min(candidates, key=_max_offset)
            points += best
    return None if any(isinf(point.out_ms) for point in points) else points


def _max_offset(points: list[SyncPoint]) -> float:
    return max((abs(point.out_ms) for point in points), default=0.0)


def _sync_points(
    index: int,
    begin: float,
    cells: Loudness,
    shift: float,
    parts_out: list[tuple[float, Loudness]],
    video: Match,
    whole: bool,
) -> list[SyncPoint]:
    """Return the offsets at the start and the end of a part of the input's audio, if it was moved by `shift` seconds."""
    first = max(begin, float(video.segments[0].first_in * video.unit)) if len(video.segments) == 1 else begin
    if not whole:
        # The audio of a range begins with its first complete packet, which may be some tenths of a second later.
        begin_out = min((begin for begin, _ in parts_out), default=0.0) - shift
        first = min(max(first, begin_out), first + _MAX_PACKET_SECONDS)
    last = begin + len(cells) * CELL_SECONDS
    if len(video.segments) == 1:
        last = min(last, float(video.segments[0].last_in * video.unit))
    points = []
    for at_seconds in sorted({first, max(first, last - WINDOW_SECONDS)}):
        windows = [_window(part, at_seconds + shift - begin_out, last - at_seconds) for begin_out, part in parts_out]
        window_out = sum(windows[1:], windows[0]) if windows else np.zeros(0)
        offset = offset_ms(_window(cells, at_seconds - begin, last - at_seconds), window_out)
        if offset is not None:
            points.append(SyncPoint(index, at_seconds + shift, 0.0, offset))
    return points


def _window(cells: Loudness, at_seconds: float, seconds: float) -> Loudness:
    """Return the loudness from a time after the first cell on, for 10 s at most; zero outside of the cells."""
    first = round(at_seconds / CELL_SECONDS)
    count = max(0, int(min(seconds, WINDOW_SECONDS) / CELL_SECONDS))
    inside = cells[max(0, first) : max(0, first + count)]
    padded = np.concatenate([np.zeros(min(count, max(0, -first))), inside])
    return np.pad(padded, (0, max(0, count - len(padded))))
