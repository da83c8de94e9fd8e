"""Options of video files: how the input is read and how the output is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OutputOptions:
    """How the result is written."""

    codec: str | None = None
    """The encoder, as `rtseg.io.codecs.choose_encoder` gives it; None: what suits the container."""

    crf: int | None = None
    """Constant rate factor; None: 23."""

    preset: str | None = None
    """The encoder's preset; None: `veryfast`."""

    audio: bool = True
    """Copy the input's audio, subtitles and data."""

    overwrite: bool = True
    """Replace an existing output (only once the new one is complete and checked)."""


@dataclass(frozen=True)
class InputOptions:
    """How the input is read."""

    start: float | None = None
    """Seconds from its beginning to begin at; None: 0."""

    duration: float | None = None
    """Seconds to process; None: to the end."""

    strict: bool = False
    """The first damage ends the run, and so does a stream that can't be copied as it is."""

    max_pixels: int | None = None
    """Larger pictures are refused; None: more than 8192x8192."""

    allow_protocols: tuple[str, ...] = ()
    """`file`, `http`, `https`: by which a playlist may open what it names; none: playlists are refused."""

    decoder: str = "software"
    """What decodes, as `rtseg.io.codecs.choose_decoder` gives it."""

    stream: int | None = None
    """Number of the video stream, as `open_source` takes it; None: the largest."""
