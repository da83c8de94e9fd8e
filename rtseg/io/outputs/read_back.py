"""Check of a completed file by reading it back, because a full disk is not always reported."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer

from rtseg.core.errors import SinkError, reason

_END_SECONDS = 2.0
"""Number of seconds that are read at the end of a file if `last_seconds` is set; contains a key frame."""


def read_back(path: Path, written: int, last_seconds: float | None = None) -> None:
    """Read a video file and check its number of frames.

    Args:
        path: the file.
        written: expected number of frames.
        last_seconds: time of the last frame. Only the index and the last seconds are read, so the duration of the check does not
            depend on the length of the file. None: read the complete file.

    Raises:
        SinkError: the file can't be read, or has another number of frames.
    """
    try:
        with av.open(f"file:{path}") as container:
            count = _count(container) if last_seconds is None else _count_by_index(container, written, last_seconds)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise SinkError(f"{path} was written but can't be read back: {reason(error)}") from error
    if count != written:
        raise SinkError(f"{path} contains {count} of {written} frames")


def _count(container: InputContainer) -> int:
    video = container.streams.video[0]
    return sum(1 for packet in container.demux(video) if packet.size and not packet.is_discard)


def _count_by_index(container: InputContainer, written: int, last_seconds: float) -> int:
    """Return the number of frames in the index, or a number below `written` if the last frame is missing."""
    video = container.streams.video[0]
    container.seek(round((last_seconds - _END_SECONDS) * 1_000_000))
    timestamps = [packet.pts for packet in container.demux(video) if packet.size and packet.pts is not None]
    tick_seconds = float(video.time_base or 0)
    if not timestamps or max(timestamps) * tick_seconds < last_seconds - max(tick_seconds, 0.001):
        return min(video.frames, written - 1)
    return video.frames or written  # not every container has an index
