"""Options of video files: how the input is read and how the output is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputOptions:
    """Options of the output."""

    codec: str | None = None
    """Encoder, as `rtseg.io.codecs.choose_encoder` returns it; None: the default of the container."""

    crf: int | None = None
    """Constant rate factor; None: 23."""

    preset: str | None = None
    """Preset of the encoder; None: `veryfast`."""

    audio: bool = True
    """Copy the input's audio, subtitles and data."""

    overwrite: bool = True
    """Replace an existing output, once the new one is complete and verified."""


@dataclass(frozen=True)
class InputOptions:
    """Options of the input; the defaults read a whole file in software."""

    start: float | None = None
    """Seconds from the beginning to the first frame; None: 0. Frames and packets before it are left out, and all time stamps are
    reduced by it."""

    duration: float | None = None
    """Seconds to read; None: to the end."""

    strict: bool = False
    """Raise at the first damage instead of counting it, and for a stream that can't be copied unchanged."""

    max_pixels: int | None = None
    """Maximum number of pixels of a frame of a file; None: 8192x8192."""

    allow_protocols: tuple[str, ...] = ()
    """Protocols (`file`, `http`, `https`) by which a playlist may open its entries; none: playlists are refused."""

    decoder: str = "software"
    """Decoder, as `rtseg.io.codecs.choose_decoder` returns it; `gstreamer` is for whole files only."""

    stream: int | None = None
    """Index of the video stream in a file, as in FFmpeg's `v:N`; None: the largest one, the default one among equals."""


DEFAULT_INPUT = InputOptions()
"""Default options of the input."""
