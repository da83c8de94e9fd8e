"""systemd service: unit file, notifications to systemd, and the pause before a restart.

The unit is written for systemd 249 (Ubuntu 22.04, JetPack 6) and newer: systemd.service(5), systemd.exec(5), sd_notify(3).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtseg.core.errors import OptionError
from rtseg.live.controls import LiveMetrics

NAME = "rtseg"
CONFIG = Path("/etc/rtseg/rtseg.toml")
SECRETS = Path("/etc/rtseg/secrets.env")
UNIT = Path("/etc/systemd/system/rtseg.service")
SYSUSERS = Path("/etc/sysusers.d/rtseg.conf")
STATE = Path("/var/lib/rtseg")
RECORDINGS = STATE / "recordings"

_HEALTHY_SECONDS = 120.0
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True)
class Service:
    """Machine-specific values of the unit file."""

    python: Path
    """Python interpreter with rtseg installed. A symbolic link of a virtual environment must not be resolved."""

    config: Path = CONFIG
    """Configuration file."""

    writable: tuple[Path, ...] = ()
    """Additional folders for recordings, outside the state folder."""

    memory_max: str = "2G"
    """Memory limit; systemd restarts the service above it. On a Jetson it includes GPU memory."""

    watchdog_seconds: int = 30
    """systemd restarts the service after this time without a notification."""

    shares_tmp: bool = False
    """Share the system's /tmp. Required for CSI cameras: the socket of NVIDIA's camera daemon is there."""

    def unit(self) -> str:
        """Return the text of the unit file.

        Raises:
            OptionError: a path or the memory limit is not valid in a unit file.
        """
        for path in (self.python, self.config, *self.writable):
            if not path.is_absolute() or re.search(r'[\s%"\'\\$;]', str(path)):
                raise OptionError(f"systemd needs an absolute path without spaces, quotes, $ and %, not '{path}'")
        if not re.fullmatch(r"\d+[KMGT]?|\d+%|infinity", self.memory_max):
            raise OptionError(f"the memory limit is '{self.memory_max}'; write it as 2G, 800M or 50%")
        home = "read-only" if self.python.is_relative_to("/home") or self.python.is_relative_to("/root") else "yes"
        writable = "".join(f"ReadWritePaths={path}\n" for path in self.writable)
        return _UNIT.format(
            python=self.python,
            config=self.config,
            secrets=SECRETS,
            writable=writable,
            memory_max=self.memory_max,
            watchdog=self.watchdog_seconds,
            private_tmp="no" if self.shares_tmp else "yes",
            home=home,
        )


_UNIT = """\
[Unit]
Description=rtseg: segmentation of live street video
After=network-online.target nvargus-daemon.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -m rtseg service run --config {config}
EnvironmentFile=-{secrets}
Environment=HOME=/var/lib/rtseg XDG_CACHE_HOME=/var/cache/rtseg PYTHONUNBUFFERED=1
# The first start builds an engine, which takes minutes on a small board.
TimeoutStartSec=30min
TimeoutStopSec=10
WatchdogSec={watchdog}
# Pauses after failures grow to a minute. rtseg waits, because systemd supports that only since version 254.
Restart=always
RestartSec=1

User=rtseg
Group=rtseg
StateDirectory=rtseg rtseg/recordings
StateDirectoryMode=0750
CacheDirectory=rtseg
WorkingDirectory=/var/lib/rtseg/recordings
UMask=0027

MemoryMax={memory_max}
TasksMax=512
LimitNOFILE=8192
LimitCORE=0

NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
{writable}ProtectHome={home}
PrivateTmp={private_tmp}
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
"""


def sysusers(groups: tuple[str, ...]) -> str:
    """Return the file for systemd-sysusers: the user of the service and the groups of the devices that it may open."""
    lines = [f'u {NAME} - "rtseg service" {STATE}', *(f"m {NAME} {group}" for group in groups)]
    return "\n".join(lines) + "\n"


class Notifier:
    """Sends notifications to systemd: sd_notify(3), datagrams to the socket in the environment.

    Without such a socket (rtseg was not started by systemd) all calls do nothing.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        for_this_process = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(microseconds) / 1e6 if for_this_process and microseconds.isdecimal() else None
        """Longest interval between two notifications that systemd allows; None: no watchdog."""

    @property
    def active(self) -> bool:
        """True if there is a notification socket."""
        return bool(self._address)

    def ready(self) -> None:
        """Notify systemd that start-up is complete."""
        self._send("READY=1")

    def alive(self, status: str = "") -> None:
        """Reset the watchdog and set the line for `systemctl status`."""
        self._send("WATCHDOG=1" + (f"\nSTATUS={' '.join(status.split())}" if status else ""))

    def stopping(self) -> None:
        """Notify systemd that the run ends intentionally."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self.active:
            return
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # A failed notification must not end the service.
        with channel, contextlib.suppress(OSError):
            channel.sendto(text.encode(), self._address)


_BEAT_SECONDS = 1.0
"""Longest time that the heartbeat thread waits for a report before it checks for the end of the run."""


@contextlib.contextmanager
def heartbeat(metrics: LiveMetrics, notifier: Notifier | None = None) -> Iterator[None]:
    """Notify systemd once per second while the run makes progress and the context is open.

    A run makes progress while frames are read or a disconnected camera is being reconnected. If no reports are published, or
    no frames are read from a connected camera, no notification is sent and the watchdog restarts the service.
    """
    notifier = notifier or Notifier()
    if not notifier.active:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(metrics, notifier, ended), name="rtseg-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        metrics.wake()
        notifier.stopping()
        thread.join(_BEAT_SECONDS)


def _beat(metrics: LiveMetrics, notifier: Notifier, ended: threading.Event) -> None:
    serial, ready, read_before = 0, False, -1
    while not ended.is_set():
        new_serial, report = metrics.wait_newer(serial, _BEAT_SECONDS)
        if new_serial == serial or ended.is_set():
            continue
        serial = new_serial
        if not ready:
            notifier.ready()
            ready = True
        read = int(report.get("frames", {}).get("read", 0))
        connected = bool(report.get("disconnects", {}).get("connected", True))
        if read != read_before or not connected:
            notifier.alive(status_line(report))
        read_before = read


def status_line(report: Mapping[str, Any]) -> str:
    """Return the line for `systemctl status`."""
    now = report.get("now", {})
    if not report.get("disconnects", {}).get("connected", True):
        return "camera disconnected, reconnecting"
    age = now.get("age_ms", {}).get("p99", 0)
    return f"{now.get('shown_fps', 0):.1f} of {now.get('capture_fps', 0):.1f} fps, age p99 {age:.0f} ms"


def pause_before_start(state: Path, now: float | None = None) -> float:
    """Return the pause before this start in seconds: 0 after a healthy run, doubled up to a minute after each early end.

    Args:
        state: file with the number of starts; if missing or damaged, this is the first start.
        now: time in seconds since 1970; None: the system clock.
    """
    now = time.time() if now is None else now
    try:
        saved = json.loads(state.read_text())
        last, starts = float(saved["last_start"]), int(saved["early_ends"])
    except (OSError, ValueError, KeyError, TypeError):
        last, starts = 0.0, -1
    early = 0 <= now - last < _HEALTHY_SECONDS + _LONGEST_PAUSE_SECONDS
    starts = starts + 1 if early else 0
    pause = min(2.0 ** (starts - 1), _LONGEST_PAUSE_SECONDS) if starts else 0.0
    partial = state.with_name(state.name + ".partial")
    with contextlib.suppress(OSError):  # The service must start even if the disk is full.
        partial.write_text(json.dumps({"last_start": now, "early_ends": starts}))
        partial.replace(state)
    return pause
