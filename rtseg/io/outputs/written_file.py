"""Description of a completed output file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """Completed file before it is renamed to its final name, for `rtseg.video.verify.compare`."""

    path: Path | None
    """Path of the file; None: standard output."""

    frames: int
    """Number of encoded frames."""

    size: tuple[int, int]
    """(width, height) of the encoded frames, pixels."""

    copied: dict[int, int] = field(default_factory=dict)
    """Mapping of the index in the input to the index in the output, for copied streams."""

    reencoded: dict[int, int] = field(default_factory=dict)
    """Mapping of the index in the input to the index in the output, for transcoded streams."""

    left_out: dict[int, str] = field(default_factory=dict)
    """Description of each stream that is not in the output, by its index in the input."""

    timed: bool = True
    """True if the container stores timestamps."""
