"""Where frames come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rtseg.core.errors import OptionError
from rtseg.core.frame import Frame, Passthrough, StreamInfo


class Source(Protocol):
    """A stream of upright frames in presentation order, with the packets of its other streams between them."""

    @property
    def info(self) -> StreamInfo:
        """What is known before the first frame."""

    @property
    def corrupt(self) -> int:
        """Frames so far that were in the stream but could not be decoded; they are not among those yielded."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was met and mended so far, one line each, for people."""

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Yields until the end. May raise SourceError."""

    def close(self) -> None:
        """Gives back file and decoder. May be called twice, and from another thread to end a blocked read."""


def open_source(
    uri: str | Path,
    *,
    start: float | None = None,
    duration: float | None = None,
    strict: bool = False,
    max_pixels: int | None = None,
    allow_protocols: Sequence[str] = (),
    decoder: str = "software",
    gpu: int | None = None,
    stream: int | None = None,
) -> Source:
    """Opens an input by its name.

    Args:
        uri: the path of a video file, `-` for standard input, a camera's device (`/dev/video0`), or the URL of a stream,
            which is one connection without an end: what ends it raises `Disconnected`.
        start: seconds from the beginning at which to begin.
        duration: seconds to read; None: to the end.
        strict: the first damage raises instead of being counted.
        max_pixels: larger pictures of a file are refused; None: more than 8192x8192.
        allow_protocols: `file`, `http`, `https`: by which a playlist in a file may open what it names; none: playlists
            are refused.
        decoder: of a file or stream, as `rtseg.io.codecs.choose_decoder` gives it; `gstreamer` is for whole files.
        card: number of the card where a file's pictures may stay that its decoder left there, in the CUDA context that is
            current in this thread; None: all come down to the processor's memory. See `StreamInfo.on_gpu`.
        stream: number of a file's video stream, counted as FFmpeg's `v:N`; None: the largest, the default one among equals.

    Raises:
        SourceError: it is missing, unreadable, not a video, or refused.
        OptionError: no such protocol, or GStreamer is asked for a part of a file.
    """
    name = str(uri)
    if start is None and duration is None:
        if name.startswith("/dev/video"):
            from rtseg.io.inputs.camera import open_camera

            return open_camera(name)
        if re.match(r"(rtsps?|rtmps?|https?|tcp|udp)://", name):
            from rtseg.io.inputs.network import open_stream

            return open_stream(name, decoder=decoder)
    if decoder == "gstreamer":
        if name == "-" or start or duration is not None:
            raise OptionError("--decoder gstreamer reads whole files: no part of one, and no standard input")
        if stream is not None:
            raise OptionError("--decoder gstreamer chooses the video stream itself: leave out --stream")
        from rtseg.io.inputs.gstreamer import open_file

        return open_file(name)

    from rtseg.io.inputs.file import FileSource
    from rtseg.io.inputs.opened_file import MAX_PIXELS

    return FileSource(
        str(uri),
        start=start,
        duration=duration,
        strict=strict,
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
        allow_protocols=allow_protocols,
        decoder=decoder,
        gpu=gpu,
        stream=stream,
    )
