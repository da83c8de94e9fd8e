"""Presentation times of frames from a plain FFmpeg decode."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from rtseg.io.inputs.file_clock import MPEG_TICK
from rtseg.io.inputs.opened_file import GENERATE_PTS, arbitrary_clock
from rtseg.io.inputs.safe_open import open_input
from rtseg.io.inputs.timestamps import fraction
from rtseg.video.container_reader import MAX_CONSECUTIVE_ERRORS, readable_packets, unwrap_times

_MAX_STEP_SECONDS = Fraction(1, 2)
"""Maximum step from the previous frame to one without a presentation time."""


def decoded_times(
    path: str, video: int, *, allow_protocols: Sequence[str] = (), damaged: bool = True
) -> list[int | None]:
    """Return the time of each frame in a plain FFmpeg decode, in ticks and in presentation order.

    A frame without a presentation time has its decoding time, as in FFmpeg's best effort; None where there is neither. Frames
    that can't be decoded are left out.

    Args:
        path: the file.
        video: index of the stream.
        allow_protocols: as for `open_input`.
        damaged: whether to expect errors. If False, frame threads are used, which are faster. With these FFmpeg marks good
            frames as corrupt, and PyAV loses the frames next to an error, so at an error the decode begins again without them.

    Raises:
        SourceError: the file can't be opened.
    """
    times: list[int | None] = []
    with open_input(path, allow_protocols=allow_protocols) as container:
        container.flags &= ~GENERATE_PTS
        stream = container.streams[video]
        assert isinstance(stream, av.VideoStream)
        stream.thread_type = "NONE" if damaged else "FRAME"
        max_step = int(_MAX_STEP_SECONDS / (fraction(stream.time_base) or 1))
        wraps = arbitrary_clock(container) and fraction(stream.time_base) == MPEG_TICK
        packets = readable_packets(container, stream)
        flushes = 0
        while flushes < MAX_CONSECUTIVE_ERRORS:
            packet = next(packets, None)
            flushes += packet is None  # After an error while flushing there may be more frames.
            try:
                frames = stream.codec_context.decode(packet)
            except av.EOFError:
                break
            except (av.FFmpegError, OSError):
                frames = None
            if not damaged and (frames is None or any(frame.is_corrupt for frame in frames)):
                return decoded_times(path, video, allow_protocols=allow_protocols)
            if packet is None and frames == []:
                break
            for frame in frames or ():
                if not frame.is_corrupt:
                    times.append(_frame_time(frame, times, max_step))
    return unwrap_times(times, next((time for time in times if time is not None), 0)) if wraps else times


def first_decoded(path: str, video: int) -> Fraction | None:
    """Return the time at which FFmpeg's tools show the first frame of a stream without presentation times, in seconds.

    It is the decoding time of the packet after which the decoder returns the frame. None if there is no frame.
    """
    with open_input(path) as container:
        stream = container.streams[video]
        assert isinstance(stream, av.VideoStream)
        stream.thread_type = "NONE"
        for packet in readable_packets(container, stream):
            with suppress(av.FFmpegError, OSError):
                for frame in stream.codec_context.decode(packet):
                    return None if frame.dts is None else frame.dts * (fraction(stream.time_base) or Fraction(1))
    return None


def _frame_time(frame: Any, times: Sequence[int | None], max_step: int) -> int | None:
    """Return the time of a frame in ticks; None if it is unknown.

    FFmpeg sets the decoding time of a frame to that of the packet after which the frame was returned, which may belong to
    another recording.
    """
    if frame.pts is not None or frame.dts is None:
        return frame.pts  # type: ignore[no-any-return]
    previous = next((time for time in reversed(times) if time is not None), None)
    return frame.dts if previous is None or 0 < frame.dts - previous <= max_step else None
