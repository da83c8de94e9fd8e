"""Whether a file that was just completed holds what was written: a full disk does not always say so."""

from __future__ import annotations

from pathlib import Path

import av
from av.container import InputContainer

from rtseg.core.errors import SinkError
from rtseg.io.outputs.partial_file import reason

_END_SECONDS = 2.0
"""What is read of a file's end where it is not read whole: more than the distance of two key frames."""


def read_back(path: Path, written: int, last_seconds: float | None = None) -> None:
    """Reads a video file and compares its number of frames.

    Args:
        path: the file.
        written: frames it has to hold.
        last_seconds: when its last frame is shown; then its index and its last seconds alone are read, which takes no longer
            for a recording of hours. None: it is read from beginning to end.

    Raises:
        SinkError: it can't be read, or holds fewer or more.
    """
    try:
        with av.open(f"file:{path}") as container:
            count = _count(container) if last_seconds is None else _told(container, written, last_seconds)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise SinkError(f"{path} was written but can't be read back: {reason(error)}") from error
    if count != written:
        raise SinkError(f"{path} holds {count} of {written} frames")


def _count(container: InputContainer) -> int:
    video = container.streams.video[0]
    return sum(1 for packet in container.demux(video) if packet.size and not packet.is_discard)


def _told(container: InputContainer, written: int, last_seconds: float) -> int:
    """Frames by the index; one less than written at most where the last is not there, whatever the index says."""
    video = container.streams.video[0]
    container.seek(round((last_seconds - _END_SECONDS) * 1_000_000))
    stamps = [packet.pts for packet in container.demux(video) if packet.size and packet.pts is not None]
    tick = float(video.time_base or 0)
    if not stamps or max(stamps) * tick < last_seconds - max(tick, 0.001):
        return min(video.frames, written - 1)
    return video.frames or written  # not every container has an index that tells
