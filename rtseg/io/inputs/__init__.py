"""Frame sources: video files, cameras and network streams."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rtseg.core.errors import OptionError
from rtseg.core.frame import Frame, Passthrough, StreamInfo


class Source(Protocol):
    """Source of upright frames in presentation order, with the packets of the other streams between them."""

    @property
    def info(self) -> StreamInfo:
        """Properties of the stream, available before the first frame."""

    @property
    def corrupt(self) -> int:
        """Number of frames so far that could not be decoded. They are not yielded."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about damage and repairs so far, one human-readable line each."""

    def __iter__(self) -> Iterator[Frame | Passthrough]:
        """Yield frames and packets until the end. Raise SourceError if reading fails."""

    def close(self) -> None:
        """Release the input and the decoder. May be called twice, and from another thread to end a blocked read."""


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
    """Open an input by its name.

    Args:
        uri: path of a video file, `-` for standard input, device of a camera (`/dev/video0`), or URL of a stream. The end
            of a live stream raises `Disconnected`.
        start: position of the first frame in seconds.
        duration: seconds to read; None: to the end.
        strict: raise SourceError at the first damage instead of counting it.
        max_pixels: largest number of pixels of a frame of a file; None: 8192x8192.
        allow_protocols: allowed protocols (`file`, `http`, `https`) for the entries of a playlist in a file; empty:
            playlists are refused.
        decoder: return value of `rtseg.io.codecs.choose_decoder`; `gstreamer` is for whole files only.
        gpu: index of the GPU on which decoded surfaces of a file may stay, in the current CUDA context of this thread; None:
            all frames are copied to CPU memory. See `StreamInfo.on_gpu`.
        stream: index of the video stream in a file, as in FFmpeg's `v:N`; None: the largest one, the default one among equals.

    Raises:
        SourceError: the input is missing, unreadable, not a video, or refused.
        OptionError: a protocol is unknown, or `gstreamer` is to decode a part of a file, one of its streams, or standard input.
    """
    name = str(uri)
    # Imported when opened: `import rtseg.io.inputs` loads neither PyAV nor OpenCV.
    if start is None and duration is None:
        if name.startswith("/dev/video"):
            from rtseg.io.inputs.camera import open_camera

            return open_camera(name)
        if re.match(r"(rtsps?|rtmps?|https?|tcp|udp)://", name):
            from rtseg.io.inputs.network import open_stream

            return open_stream(name, decoder=decoder)
    if decoder == "gstreamer":
        if name == "-" or start or duration is not None:
            raise OptionError("--decoder gstreamer reads whole files only, neither a part of a file nor standard input")
        if stream is not None:
            raise OptionError("--decoder gstreamer chooses the video stream: omit --stream")
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
