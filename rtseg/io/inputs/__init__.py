"""Frame sources: video files, cameras and network streams."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rtseg.core.errors import OptionError
from rtseg.core.frame import Frame, Passthrough, StreamInfo
from rtseg.io.inputs.live_clock import TS_WRAP_SECONDS
from rtseg.io.options import DEFAULT_INPUT, InputOptions


class Source(Protocol):
    """Source of upright frames in presentation order, with the packets of the other streams between them.

    Sources inherit from it, because most of its members have a default.
    """

    info: StreamInfo
    """Properties of the stream, available before the first frame. For a live stream, those of the newest frame."""
    decode_seconds: float = 0.0
    """Time to decode and convert the newest frame of a live stream, in seconds."""
    file_seconds: float | None = None
    """Length in seconds of a file behind a URL, 0 if unknown; None: any other source."""
    is_live_playlist: bool = False
    """True if the frames of a live stream arrive in parts of several seconds."""
    wrap_seconds: float = TS_WRAP_SECONDS
    """Period after which the clock of a live stream wraps, in seconds."""

    @property
    def corrupt(self) -> int:
        """Number of frames so far that could not be decoded. They are not yielded."""
        return 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about damage and repairs so far, one human-readable line each."""
        return ()

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Yield frames and packets until the end. Raise SourceError if reading fails."""

    def close(self) -> None:
        """Release the input and the decoder. May be called twice, and from another thread to end a blocked read."""


def open_source(uri: str | Path, options: InputOptions = DEFAULT_INPUT, *, gpu: int | None = None) -> Source:
    """Open an input by its name.

    Args:
        uri: path of a video file, `-` for standard input, device of a camera (`/dev/video0`), or URL of a stream. The end
            of a live stream raises `Disconnected`.
        options: the part to read, limits, and the decoder.
        gpu: index of the GPU on which decoded surfaces of a file may stay, in the current CUDA context of this thread; None:
            all frames are copied to CPU memory. See `StreamInfo.on_gpu`.

    Raises:
        SourceError: the input is missing, unreadable, not a video, or refused.
        OptionError: a protocol is unknown, or `gstreamer` is to decode a part of a file, one of its streams, or standard input.
    """
    name, start, duration = str(uri), options.start, options.duration
    # Imported when opened: `import rtseg.io.inputs` loads neither PyAV nor OpenCV.
    if start is None and duration is None:
        if name.startswith("/dev/video"):
            from rtseg.io.inputs.camera import open_camera

            return open_camera(name)
        if re.match(r"(rtsps?|rtmps?|https?|tcp|udp)://", name):
            from rtseg.io.inputs.network import open_stream

            return open_stream(name, decoder=options.decoder)
    if options.decoder == "gstreamer":
        if name == "-" or start or duration is not None:
            raise OptionError("--decoder gstreamer reads whole files only, neither a part of a file nor standard input")
        if options.stream is not None:
            raise OptionError("--decoder gstreamer chooses the video stream: omit --stream")
        from rtseg.io.inputs.gstreamer import open_file

        return open_file(name)

    from rtseg.io.inputs.file import FileSource

    return FileSource(name, options, gpu=gpu)
