"""Service: the systemd unit that `rtseg service` prints, its check, and the notifications of a run to systemd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from command import MODEL, invoke

from rtseg.cli.service import live_arguments, unit
from rtseg.live.systemd import notify, notify_progress

ARGUMENTS = [
    "--camera", "0", "--camera", "/dev/video2", "--record", "drive.mp4", "--alpha", "0.4", "--no-overwrite", "-v"
]  # fmt: skip


def params(**given: object) -> dict[str, Any]:
    return {**dict.fromkeys(("record", "masks", "jsonl", "stats", "snapshots", "csi", "gst")), **given}


# Unit


def test_service_prints_a_unit_that_runs_live() -> None:
    result = invoke("service", *ARGUMENTS)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for line in (
        f"ExecStart={sys.executable} -m rtseg live {' '.join(ARGUMENTS)}",
        "EnvironmentFile=-/etc/rtseg/secrets.env", "Type=notify", "WatchdogSec=30", "Restart=always", "User=rtseg",
        "StateDirectory=rtseg rtseg/recordings", "ProtectSystem=strict", "PrivateTmp=yes", "NoNewPrivileges=yes",
        "WantedBy=multi-user.target",
    ):  # fmt: skip
        assert line in lines
    assert "ReadWritePaths" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--csi", "0"], "PrivateTmp=no"),
        (["--gst", "nvarguscamerasrc ! nvvidconv"], "PrivateTmp=no"),
        (["--camera", "0", "--record", "/mnt/disk/drive.mp4", "--stats", "/mnt/stats.json"], "ReadWritePaths=/mnt"),
        (["--camera", "0", "--record", "/mnt/disk 1/drive.mp4"], 'ReadWritePaths="/mnt/disk 1"'),
    ],
)
def test_unit_follows_the_options(arguments: list[str], line: str) -> None:
    assert line in invoke("service", *arguments).stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        ([], 2, "Options of rtseg live"),
        (["--camra", "0"], 2, "No such option: --camra"),
        (["--camera", "0", "--alpha", "3"], 2, "--alpha"),
        (["--gst", "a\n! b"], 1, "contains a line break"),
        (["--url", "rtsp://me:hunter2@cam/1"], 1, "put it into /etc/rtseg/secrets.env as RTSEG_URL"),
        (["--push=rtmp://live/app/hunter2"], 1, "put it into /etc/rtseg/secrets.env"),
        (["--camera", "0", "--token", "hunter2"], 1, "put it into /etc/rtseg/secrets.env"),
        (["--gst", "rtspsrc location=rtsp://me:hunter2@cam/1 ! decodebin"], 1, "put it into /etc/rtseg/secrets.env"),
    ],
)
def test_service_refuses_invalid_options_and_passwords(arguments: list[str], exit_code: int, message: str) -> None:
    result = invoke("service", *arguments)
    assert result.exit_code == exit_code
    assert message in result.output
    assert "[Service]" not in result.output
    assert "hunter2" not in result.output


def test_service_warns_if_its_user_cannot_open_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    (tmp_path / "bin").mkdir()
    assert f"can't open {tmp_path}" in invoke("service", "--camera", "0").stderr


@pytest.mark.system("systemd-analyze")
@pytest.mark.parametrize("options", [{}, {"csi": [0], "record": "/tmp/a %b/drive.mp4"}])
def test_systemd_analyze_accepts_the_unit(options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the user's TMPDIR may be deleted at each boot
        program = Path(folder, "my rtseg %h", "python")
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        file, broken = Path(folder, "rtseg.service"), Path(folder, "broken.service")
        file.write_text(unit(program, ["--gst", 'a "b" \\ $c ; %d', ";"], params(**options)))
        broken.write_text(file.read_text().replace("Type=notify", "Type=nonsense"))
        assert verify(file) == []
        assert verify(broken) != []  # the check above can fail


def verify(file: Path) -> list[str]:
    command = ["systemd-analyze", "verify", "--man=no", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    return [line for line in done.stderr.splitlines() if file.stem in line and "nvargus" not in line]


# Check of an edited unit


@pytest.mark.parametrize("argument", ['a "b" \\ c', "Straße\tx", "日本", "$HOME ${HOME} %h 100%", "it's", ";", ""])
def test_unit_keeps_any_argument(argument: str) -> None:
    assert live_arguments(unit(Path("/opt/rtseg/bin/python"), ["--gst", argument], params())) == ["--gst", argument]


@pytest.mark.parametrize(
    ("text", "exit_code", "message"),
    [
        ("ExecStart=/opt/rtseg live --camera 0 \\\n  --show web\n", 0, "is valid: rtseg live --camera 0 --show web"),
        ("ExecStart=/opt/rtseg live --url rtsp://me:hunter2@cam/1\n", 0, "every user can read it"),
        ("ExecStart=/opt/rtseg live --camra 0\n", 2, "No such option: --camra"),
        ("ExecStart=/opt/rtseg live --encoder quartz\n", 2, "--encoder"),
        ("ExecStart=/opt/rtseg live --gst 'a\n", 1, "can't read the unit"),
        ("ExecStart=/opt/rtseg video a.mp4\n", 1, "no line `ExecStart=... rtseg live ...`"),
        (None, 1, "no such file"),
    ],
)
def test_config_check_reads_a_unit(tmp_path: Path, text: str | None, exit_code: int, message: str) -> None:
    file = tmp_path / "rtseg.service"
    if text is not None:
        file.write_text(text)
    result = invoke("config", "check", file)
    assert result.exit_code == exit_code
    assert message in " ".join(result.output.split())
    assert "hunter2" not in result.output


# Notifications


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(120)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


@pytest.mark.parametrize(
    ("work_ms", "stale", "connected", "expected"),
    [
        (9.5, 0, True, True),
        (0.0, 0, True, False),  # the camera delivers, and the network hangs
        (0.0, 3, True, True),
        (0.0, 0, False, True),
    ],
)
def test_watchdog_is_notified_with_progress_or_while_disconnected(
    systemd: socket.socket, work_ms: float, stale: int, connected: bool, expected: bool
) -> None:
    values = {"now.work_ms": work_ms, "now.stale": stale, "disconnects.connected": connected}
    notify_progress(Mock(**{f"totals.{name}": value for name, value in values.items()}), "12 fps")
    notify("end")
    assert systemd.recv(1000) == (b"READY=1\nWATCHDOG=1\nSTATUS=12 fps" if expected else b"end")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets exist only on Linux")
def test_notify_supports_abstract_sockets_and_ignores_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0rtseg-test-{os.getpid()}")
        listening.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@rtseg-test-{os.getpid()}")
        notify("READY=1")
        assert listening.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


@pytest.mark.system("gst-launch-1.0")
def test_live_notifies_systemd_while_running_and_when_stopping(tmp_path: Path, systemd: socket.socket) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rtseg", "live", "--model", str(MODEL), "--show", "none", "--record", "drive.mp4",
         "--gst", "videotestsrc is-live=true ! video/x-raw,width=160,height=96,framerate=10/1"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    killer = threading.Timer(150, process.kill)
    killer.start()
    try:
        notifications = [systemd.recv(1000).decode() for _ in range(2)]
        assert all(text.startswith("READY=1\nWATCHDOG=1\nSTATUS=capture") for text in notifications)
        process.send_signal(signal.SIGTERM)
        while (message := systemd.recv(1000)) != b"STOPPING=1":
            assert message.startswith(b"READY=1\nWATCHDOG=1")
        assert process.wait(60) == 0
    finally:
        killer.cancel()
        process.kill()
        process.communicate()
    assert (tmp_path / "drive.mp4").stat().st_size > 1000
