"""Sink that discards frames, for benchmarks."""

from __future__ import annotations

from rtseg.core.frame import Passthrough, ProcessedFrame


class NullSink:
    """Sink that counts frames and discards them."""

    name = "null"

    def __init__(self) -> None:
        self.written = 0

    def write(self, item: ProcessedFrame) -> None:
        """Count one frame."""
        self.written += 1

    def pass_through(self, packet: Passthrough) -> None:
        """Ignore the packet."""

    def close(self) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""
