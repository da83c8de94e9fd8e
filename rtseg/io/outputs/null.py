"""Frames that go nowhere: for measuring what comes before."""

from __future__ import annotations

from rtseg.core.frame import Passthrough, SegmentedFrame


class NullSink:
    """Counts frames and forgets them."""

    name = "null"

    def __init__(self) -> None:
        self.written = 0

    def write(self, item: SegmentedFrame) -> None:
        """Counts one frame."""
        self.written += 1

    def pass_through(self, packet: Passthrough) -> None:
        """Nothing: packets of other streams are not counted."""

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is left behind."""
