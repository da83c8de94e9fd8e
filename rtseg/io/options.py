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
    """Options of the input."""

    start: float | None = None
    """Start of the part to process, seconds from the beginning; None: 0."""

    duration: float | None = None
    """Length of the part to process, seconds; None: to the end."""

    strict: bool = False
    """Raise at the first damage, and for a stream that can't be copied unchanged."""

    max_pixels: int | None = None
    """Maximum number of pixels per frame; None: 8192x8192."""

    allow_protocols: tuple[str, ...] = ()
    """Protocols (`file`, `http`, `https`) that a playlist may use; none: playlists are refused."""

    decoder: str = "software"
    """Decoder, as `rtseg.io.codecs.choose_decoder` returns it."""

    stream: int | None = None
    """Number of the video stream, as `open_source` takes it; None: the largest."""
