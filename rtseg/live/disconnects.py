"""Periods without frames of a camera."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rtseg.core.live_report import DisconnectReport


@dataclass
class Disconnects:
    """Periods without frames, of one camera."""

    count: int = 0
    """Number of disconnects so far."""

    seconds: float = 0.0
    """Total length of the disconnects that are over."""

    connected: bool = False
    """True while frames arrive."""

    given_up: bool = False
    """True if there are no more attempts although reconnecting is enabled."""

    reason: str = ""
    """Reason for the last disconnect, in one line."""

    since: float | None = None
    """`time.monotonic()` of the last frame before the current disconnect; None while connected."""

    def report(self) -> DisconnectReport:
        """Return the statistics. A current disconnect counts with its length so far."""
        since = self.since
        current_seconds = 0.0 if since is None else time.monotonic() - since
        return DisconnectReport(
            count=self.count,
            seconds=round(self.seconds + current_seconds, 3),
            connected=self.connected,
            reason=self.reason,
        )
