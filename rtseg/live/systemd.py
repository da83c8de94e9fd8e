"""Notifications to systemd: start-up, progress and end of a live run (sd_notify(3), `Type=notify` and `WatchdogSec=`)."""

from __future__ import annotations

import contextlib
import os
import socket

from rtseg.core.live_report import LiveReport


def notify(message: str) -> None:
    """Send a message to systemd. Does nothing if systemd did not start this process."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket
    # A failed notification must not end or block the run.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
        channel.sendto(message.encode(), socket.MSG_DONTWAIT, address)


def notify_progress(report: LiveReport, status: str) -> None:
    """Notify systemd if the run made progress in the last second; without notifications systemd restarts the service.

    A run makes progress while frames are segmented, or are too old to be, or a camera is being reconnected. `status` is the
    line for `systemctl status`.
    """
    now = report.totals.now
    if now is None or now.work_ms or now.stale or not report.totals.disconnects.connected:
        notify(f"READY=1\nWATCHDOG=1\nSTATUS={status}")
