"""rtseg as a systemd service: its unit, what it tells systemd, and how long it waits after a failure.

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
from rtseg.live.controls import LiveNumbers

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
    """What the unit says that differs from machine to machine."""

    python: Path
    """The interpreter that has rtseg, with its virtual environment: not resolved."""

    config: Path = CONFIG
    """The configuration that it runs with."""

    writable: tuple[Path, ...] = ()
    """Folders outside of its own that it records to."""

    memory_max: str = "2G"
    """Memory at which it is ended and started anew; on a Jetson the GPU's share counts too."""

    watchdog_seconds: int = 30
    """Without a sign of life for so long it is ended and started anew."""

    shares_tmp: bool = False
    """Sees the system's /tmp: NVIDIA's camera service listens there, so CSI cameras need it."""

    def unit(self) -> str:
        """The unit file.

        Raises:
            OptionError: a path or a limit that a unit file can't hold.
        """
        for path in (self.python, self.config, *self.writable):
            if not path.is_absolute() or re.search(r'[\s%"\'\\$;]', str(path)):
                raise OptionError(f"systemd needs an absolute path without spaces, quotes, $ and %, not '{path}'")
        if not re.fullmatch(r"\d+[KMGT]?|\d+%|infinity", self.memory_max):
            raise OptionError(f"a limit of memory is '{self.memory_max}'; write it as 2G, 800M or 50%")
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
# Pauses after failures grow to a minute; rtseg itself waits, because systemd can't before version 254.
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
    """The file for systemd-sysusers: the user of the service and the groups whose devices it may open."""
    lines = [f'u {NAME} - "rtseg service" {STATE}', *(f"m {NAME} {group}" for group in groups)]
    return "\n".join(lines) + "\n"


class Notifier:
    """Tells systemd how the service does: sd_notify(3), a datagram to the socket that the environment names.

    Where there is no such socket (rtseg was started by hand) all calls do nothing.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(microseconds) / 1e6 if mine and microseconds.isdecimal() else None
        """A sign of life is expected at least that often; None: none is."""

    @property
    def active(self) -> bool:
        """Whether systemd listens."""
        return bool(self._address)

    def ready(self) -> None:
        """Start-up is over."""
        self._send("READY=1")

    def alive(self, status: str = "") -> None:
        """A sign of life, and a line for `systemctl status`."""
        self._send("WATCHDOG=1" + (f"\nSTATUS={' '.join(status.split())}" if status else ""))

    def stopping(self) -> None:
        """The run ends on purpose."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self.active:
            return
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # systemd going away must not end the service; the watchdog is its business.
        with channel, contextlib.suppress(OSError):
            channel.sendto(text.encode(), self._address)


_BEAT_SECONDS = 1.0
"""How long the heartbeat waits for numbers at most before it looks whether the run goes on."""


@contextlib.contextmanager
def heartbeat(numbers: LiveNumbers, notifier: Notifier | None = None) -> Iterator[None]:
    """While this is open, systemd is told of each second in which the run went on.

    It goes on while frames are read, or while a camera is known to be lost and is tried again. A run whose numbers no longer
    come, or in which no frame moves though a camera is said to deliver, gives no sign, and the watchdog ends it.
    """
    notifier = notifier or Notifier()
    if not notifier.active:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_beat, args=(numbers, notifier, ended), name="rtseg-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        numbers.wake()
        notifier.stopping()
        thread.join(_BEAT_SECONDS)


def _beat(numbers: LiveNumbers, notifier: Notifier, ended: threading.Event) -> None:
    serial, ready, read_before = 0, False, -1
    while not ended.is_set():
        newest, latest = numbers.wait_newer(serial, _BEAT_SECONDS)
        if newest == serial or ended.is_set():
            continue
        serial = newest
        if not ready:
            notifier.ready()
            ready = True
        read = int(latest.get("frames", {}).get("read", 0))
        connected = bool(latest.get("disconnects", {}).get("connected", True))
        if read != read_before or not connected:
            notifier.alive(status_line(latest))
        read_before = read


def status_line(numbers: Mapping[str, Any]) -> str:
    """One line for `systemctl status`."""
    now = numbers.get("now", {})
    if not numbers.get("disconnects", {}).get("connected", True):
        return "camera lost, trying again"
    age = now.get("age_ms", {}).get("p99", 0)
    return f"{now.get('shown_fps', 0):.1f} of {now.get('capture_fps', 0):.1f} fps, age p99 {age:.0f} ms"


def pause_before_start(state: Path, now: float | None = None) -> float:
    """Seconds to wait before this start: none after a healthy run, doubling up to a minute while runs end early.

    Args:
        state: the file in which starts are counted; missing or damaged means: the first.
        now: the time, in seconds since 1970; None: the clock's.
    """
    now = time.time() if now is None else now
    try:
        kept = json.loads(state.read_text())
        last, starts = float(kept["last_start"]), int(kept["early_ends"])
    except (OSError, ValueError, KeyError, TypeError):
        last, starts = 0.0, -1
    early = 0 <= now - last < _HEALTHY_SECONDS + _LONGEST_PAUSE_SECONDS
    starts = starts + 1 if early else 0
    pause = min(2.0 ** (starts - 1), _LONGEST_PAUSE_SECONDS) if starts else 0.0
    partial = state.with_name(state.name + ".partial")
    with contextlib.suppress(OSError):  # A full disk must not keep the service from starting.
        partial.write_text(json.dumps({"last_start": now, "early_ends": starts}))
        partial.replace(state)
    return pause
