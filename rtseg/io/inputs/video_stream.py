"""Choice of the video stream of a file."""

from __future__ import annotations

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from rtseg.core.errors import SourceError
from rtseg.io.inputs.safe_open import VIDEO_CODECS
from rtseg.io.inputs.timestamps import fraction

_GPU_THREADS = 2
"""Number of FFmpeg's threads if the GPU decodes."""


def is_cover(stream: Stream) -> bool:
    """Return whether a stream is a cover image, which has no presentation time."""
    flags = stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    return stream.type == "video" and flags == Disposition.attached_pic


def choose_video(
    name: str, container: InputContainer, max_pixels: int, number: int | None
) -> tuple[VideoStream, tuple[str, ...]]:
    """Return the video stream with a number, else the largest one (the default or first among equals), and notes about it."""
    videos = list(container.streams.video)
    candidates = [stream for stream in videos if not stream.disposition & Disposition.attached_pic]
    if not candidates:
        cover = ", only a cover image" if videos else ""
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{name} has no video stream{cover} (it contains: {kinds})")
    listed = [f"{videos.index(stream)} ({_describe(stream)})" for stream in candidates]
    if number is None:
        video = max(candidates, key=lambda stream: (_area(stream), bool(stream.disposition & Disposition.default)))
    else:
        matching = [stream for stream in candidates if videos.index(stream) == number]
        if not matching:
            raise SourceError(f"{name} has no video stream {number} (--stream); it has {', '.join(listed)}")
        video = matching[0]
    notes = []
    if len(candidates) > 1:
        others = ", ".join(text for text, stream in zip(listed, candidates, strict=True) if stream is not video)
        chosen = f"video stream {listed[candidates.index(video)]} of {len(candidates)} is segmented"
        notes.append(f"{chosen}; --stream N selects another: {others}")
    context = video.codec_context
    if context is None or context.name not in VIDEO_CODECS.split(","):
        codec = context.name if context else "an unknown codec"
        raise SourceError(f"{name}: rtseg does not decode this kind of video ({codec})")
    if context.width * context.height > max_pixels:
        size = f"{context.width}x{context.height}"
        raise SourceError(f"{name} states a frame size of {size}: more than {max_pixels} pixels (--max-pixels)")
    context.thread_type = "FRAME"
    if context.is_hwaccel:
        # FFmpeg keeps one more surface in the GPU decoder for each thread, and a decoder has room for 32 in all.
        context.thread_count = _GPU_THREADS
    # FFmpeg counts the padding that it adds to a frame, up to 127 pixels across.
    context.options = {"max_pixels": str(max_pixels + max_pixels // 4 + (1 << 16))}
    return video, tuple(notes)


def duration_seconds(container: InputContainer, video: VideoStream) -> float | None:
    """Return the stated length of a video stream, else that of its container; None: not stated."""
    if video.duration and video.time_base:
        return float(video.duration * fraction(video.time_base))
    return container.duration / av.time_base if container.duration else None


def _describe(stream: VideoStream) -> str:
    context = stream.codec_context
    return f"{context.width}x{context.height}" if context is not None else "unknown codec"


def _area(stream: VideoStream) -> int:
    context = stream.codec_context
    return context.width * context.height if context is not None else 0
