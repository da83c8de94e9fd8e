"""Service: systemd unit, configuration file, watchdog notifications, restart delays."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rtseg.cli.config_file import Option, read_config, to_arguments, to_toml
from rtseg.cli.service import check_arguments, config, live_options, quote_value, service, split_secrets, to_table
from rtseg.core.errors import OptionError
from rtseg.live.controls import LiveMetrics
from rtseg.live.systemd import Notifier, Service, heartbeat, pause_before_start, sysusers

pytestmark = pytest.mark.timeout(180)

ARGUMENTS = [
    "--camera",
    "0",
    "--camera",
    "/dev/video2",
    "--record",
    "drive.mp4",
    "--split-every",
    "60",
    "--keep",
    "10GB",
    "--alpha",
    "0.4",
    "--legend",
    "--adaptive",
    "--decoder",
    "auto",
    "--no-overwrite",
    "--view",
    "mask",
    "--show",
    "web",
]


# Configuration


def test_configuration_supports_every_option_of_live(tmp_path: Path) -> None:
    table = to_table(ARGUMENTS)
    assert table == {
        "camera": ["0", "/dev/video2"], "record": "drive.mp4", "split-every": "60", "keep": "10GB", "alpha": 0.4,
        "legend": True, "adaptive": True, "decoder": "auto", "overwrite": False, "view": "mask", "show": ["web"],
    }  # fmt: skip
    path = tmp_path / "rtseg.toml"
    path.write_text(to_toml(table))
    assert read_config(path) == table
    assert to_table(to_arguments(read_config(path), live_options())) == table
    names = {option.name for option in live_options()}
    assert {"camera", "url", "gst", "csi", "model", "size", "record", "push", "max-age-ms", "address"} <= names
    assert {"adaptive", "decoder", "encoder", "smooth"} <= names
    assert not {"list-cameras", "dry-run", "help"} & names


@pytest.mark.parametrize("text", ['a "b" \\ c', "Straße\tx\n", "\x01", "日本"])
def test_toml_round_trip_keeps_any_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rtseg.toml"
    path.write_text(to_toml({"gst": [text]}), encoding="utf-8")
    assert read_config(path) == {"gst": [text]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[live]\ncamra = 0\n", "no option 'camra'; did you mean 'camera'"),
        ("[live]\nalpha = 3\n", "--alpha.*1"),
        ("[live]\nview = 'x-ray'\n", "--view"),
        ("[live]\nencoder = 'quartz'\n", "--encoder"),
        ("[live]\nadaptive = 'yes'\n", "'adaptive' is \"yes\"; write true or false"),
        ("[live]\nlegend = 1\n", "'legend' is 1; write true or false"),
        ("[live]\nmodel = ['a', 'b']\n", "'model' takes one value"),
        ("[live]\nrecord = true\n", "'record' can't be true"),
        ("[live]\nrecord = {a = 1}\n", "can't"),
        ("[video]\ncrf = 3\n", r"'video' is not allowed there"),
        ("camera = 0\n", "'camera' is not allowed there"),
        ("", r"no table \[live\]"),
        ("[live\n", "not valid TOML"),
    ],
)
def test_invalid_configuration_is_a_one_line_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rtseg.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message) as failure:
        check_arguments(to_arguments(read_config(path), live_options()))
    assert "\n" not in str(failure.value)
    result = CliRunner().invoke(config, ["check", str(path)])
    assert result.exit_code == 1


def test_config_check_accepts_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "rtseg.toml"
    path.write_text('[live]\ncamera = 0\nshow = "web"\n')
    result = subprocess.run(
        [sys.executable, "-c", "from rtseg.cli.service import config; config()", "check", str(path)],
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "")
    assert "is valid: 2 options" in result.stderr
    with pytest.raises(OptionError, match="can't read"):
        read_config(tmp_path / "missing.toml")


def test_false_flag_uses_its_negative_option_if_any() -> None:
    options = [Option("legend", is_flag=True), Option("overwrite", is_flag=True, negative="--no-overwrite")]
    assert to_arguments({"legend": False, "overwrite": False}, options) == ["--no-overwrite"]
    assert to_arguments({"legend": True, "overwrite": True}, options) == ["--legend", "--overwrite"]


def test_secrets_are_split_from_the_configuration() -> None:
    table = to_table(["--url", "rtsp://me:secret@cam/1", "--token", "t0ken", "--show", "web"])
    public, secrets = split_secrets(table)
    assert public == {"show": ["web"]}
    assert secrets == {"RTSEG_URL": "rtsp://me:secret@cam/1", "RTSEG_TOKEN": "t0ken"}
    assert split_secrets({"url": ["rtsp://cam/1"]}) == ({"url": ["rtsp://cam/1"]}, {})
    assert split_secrets({"url": "rtsp://cam/1?pwd=my secret"}) == ({}, {"RTSEG_URL": "rtsp://cam/1?pwd=my%20secret"})
    assert split_secrets({"push": ["rtmp://live/app/KEY"]}) == ({}, {"RTSEG_PUSH": "rtmp://live/app/KEY"})


def test_service_install_refuses_a_pipeline_with_a_password(tmp_path: Path) -> None:
    arguments = ["install", "--root", str(tmp_path), "--gst", "rtspsrc location=rtsp://me:secret@cam/1 ! decodebin"]
    result = CliRunner().invoke(service, arguments)
    assert result.exit_code == 1
    assert "--gst contains a password" in result.output
    assert "secret" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_environment_file_escapes_quotes_and_backslashes() -> None:
    assert quote_value('a"b\\c$d') == '"a\\"b\\\\c\\$d"'


def test_config_check_warns_about_world_readable_password(tmp_path: Path) -> None:
    path = tmp_path / "rtseg.toml"
    path.write_text('[live]\nurl = "rtsp://me:s3cret@cam/1"\n')
    path.chmod(0o644)
    result = CliRunner().invoke(config, ["check", str(path)])
    assert result.exit_code == 0
    assert "every user can read it" in result.output
    assert "s3cret" not in result.output
    path.chmod(0o640)
    assert "every user" not in CliRunner().invoke(config, ["check", str(path)]).output


# Unit


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    arguments = ["install", "--root", str(tmp_path), *ARGUMENTS, "--url", "rtsp://me:secret@cam/1"]
    result = CliRunner().invoke(service, arguments)
    assert result.exit_code == 0, result.output
    return tmp_path


def test_install_writes_unit_user_configuration_and_secrets(installed: Path) -> None:
    unit = (installed / "etc/systemd/system/rtseg.service").read_text()
    for line in (
        "Type=notify", "User=rtseg", "WatchdogSec=30", "Restart=always", "ProtectSystem=strict", "NoNewPrivileges=yes",
        "StateDirectory=rtseg rtseg/recordings", "MemoryMax=2G", "WantedBy=multi-user.target",
    ):  # fmt: skip
        assert line in unit.splitlines()
    assert f"ExecStart={sys.executable} -m rtseg service run --config /etc/rtseg/rtseg.toml" in unit.splitlines()
    assert (installed / "etc/sysusers.d/rtseg.conf").read_text().startswith("u rtseg -")
    text = (installed / "etc/rtseg/rtseg.toml").read_text()
    assert "drive.mp4" in text
    assert "me:" not in text + unit
    secrets = installed / "etc/rtseg/secrets.env"
    assert secrets.read_text() == 'RTSEG_URL="rtsp://me:secret@cam/1"\n'
    assert secrets.stat().st_mode & 0o777 == 0o600
    again = CliRunner().invoke(service, ["install", "--root", str(installed), "--csi", "0", "--show", "web"])
    assert again.exit_code == 0
    assert "PrivateTmp=no" in (installed / "etc/systemd/system/rtseg.service").read_text()
    assert not list(installed.rglob("*.partial"))


def test_dry_run_writes_nothing_and_hides_secrets(tmp_path: Path) -> None:
    arguments = ["install", "--dry-run", "--root", str(tmp_path), "--url", "rtsp://me:secret@cam/1"]
    result = CliRunner().invoke(service, arguments)
    assert result.exit_code == 0
    assert "[Service]" in result.output
    assert "secret@" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def folder_without_spaces() -> Iterator[Path]:
    """Folder without spaces in its path. A unit can't contain a path with spaces, and the user's TMPDIR may have some."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.system("systemd-analyze")
@pytest.mark.parametrize("shares_tmp", [False, True])
def test_systemd_analyze_accepts_the_unit(folder_without_spaces: Path, shares_tmp: bool) -> None:
    tmp_path = folder_without_spaces
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "rtseg.service"
    unit.write_text(Service(program, writable=(tmp_path,), shares_tmp=shares_tmp).unit())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=150
    )
    errors = [line for line in done.stderr.splitlines() if "rtseg" in line and "nvargus" not in line]
    assert (done.returncode, errors) == (0, [])
    broken = tmp_path / "broken.service"
    broken.write_text(unit.read_text().replace("Type=notify", "Type=nonsense").replace("WatchdogSec=30", "Watchdog=30"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(broken)], capture_output=True, text=True, timeout=150
    )
    assert "broken.service" in done.stderr  # the check above can fail


@pytest.mark.parametrize("program", ["python3", "/opt/my rtseg/python3", "/opt/%h/python3"])
def test_unit_refuses_invalid_paths_and_memory_limits(program: str) -> None:
    with pytest.raises(OptionError, match="absolute path"):
        Service(Path(program)).unit()
    with pytest.raises(OptionError, match="memory limit"):
        Service(Path("/opt/rtseg/bin/python3"), memory_max="2 apples").unit()


def test_user_is_member_of_device_groups() -> None:
    assert sysusers(("video", "render")).splitlines()[1:] == ["m rtseg video", "m rtseg render"]


# Watchdog


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(120)
        yield listening


def test_notifier_sends_protocol_messages(tmp_path: Path, systemd: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
    assert notifier.watchdog_seconds == 30
    notifier.ready()
    notifier.alive("12 fps,\nage 40 ms")
    notifier.stopping()
    assert [systemd.recv(1000) for _ in range(3)] == [
        b"READY=1", b"WATCHDOG=1\nSTATUS=12 fps, age 40 ms", b"STOPPING=1",
    ]  # fmt: skip
    assert Notifier({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}).watchdog_seconds is None
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets exist only on Linux")
def test_notifier_supports_abstract_sockets() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0rtseg-test-{os.getpid()}")
        listening.settimeout(60)
        Notifier({"NOTIFY_SOCKET": f"@rtseg-test-{os.getpid()}"}).ready()
        assert listening.recv(100) == b"READY=1"


def test_heartbeat_continues_with_progress_or_while_disconnected(tmp_path: Path, systemd: socket.socket) -> None:
    numbers = LiveMetrics()
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    with heartbeat(numbers, notifier):
        numbers.publish({"frames": {"read": 10}, "now": {"shown_fps": 9, "capture_fps": 10, "age_ms": {"p99": 40}}})
        assert systemd.recv(1000) == b"READY=1"
        assert systemd.recv(1000) == b"WATCHDOG=1\nSTATUS=9.0 of 10.0 fps, age p99 40 ms"
        numbers.publish({"frames": {"read": 10}, "disconnects": {"connected": False}})
        assert systemd.recv(1000) == b"WATCHDOG=1\nSTATUS=camera disconnected, reconnecting"
        numbers.publish(
            {"frames": {"read": 10}, "disconnects": {"connected": True}}
        )  # connected, but without new frames
        systemd.settimeout(1.5)
        with pytest.raises(TimeoutError):
            systemd.recv(1000)
    assert not [thread for thread in threading.enumerate() if thread.name == "rtseg-heartbeat"], (
        "the thread continued after the run"
    )
    systemd.settimeout(60)
    assert systemd.recv(1000) == b"STOPPING=1"


# Restart


def test_restart_pauses_double_up_to_a_minute_and_reset_after_a_healthy_run(tmp_path: Path) -> None:
    state = tmp_path / "starts.json"
    now, pauses = 1_000_000.0, []
    for _ in range(9):
        pauses.append(pause_before_start(state, now))
        now += pauses[-1] + 3
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_before_start(state, now + 3600) == 0
    for damage in ("", "{", "[]", '{"last_start": null}'):
        state.write_text(damage)
        assert pause_before_start(state, now) == 0
    assert pause_before_start(state, now - 9e6) == 0  # the clock was set back
    assert pause_before_start(tmp_path / "missing" / "starts.json", now) == 0


def test_service_run_becomes_rtseg_live_and_receives_sigterm(tmp_path: Path) -> None:
    # A stand-in for `python -m rtseg` that prints its arguments and waits.
    package = tmp_path / "stand-in" / "rtseg"
    shutil.copytree(
        Path(__file__).parents[2] / "rtseg", package, ignore=shutil.ignore_patterns("assets", "__pycache__")
    )
    (package / "__main__.py").write_text(
        textwrap.dedent(
            """
            import sys, time
            if "service" in sys.argv:
                from rtseg.cli.service import service
                service(sys.argv[2:])
            import os
            print(sys.argv[1:], os.environ.get("RTSEG_URL"), flush=True)
            time.sleep(3600)
            """
        )
    )
    path = tmp_path / "rtseg.toml"
    path.write_text('[live]\ncamera = ["0"]\nlegend = true\nurl = "rtsp://me:secret@cam/1"\n')
    python_path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "rtseg", "service", "run", "--config", str(path)],
        cwd=package.parent, env={**os.environ, "PYTHONPATH": python_path}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    killer = threading.Timer(150, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "['live', '--camera=0', '--legend'] rtsp://me:secret@cam/1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM  # the signal reached `rtseg live`: it is the same process
    finally:
        killer.cancel()
        process.kill()


@pytest.mark.system("gst-launch-1.0")
def test_live_notifies_systemd_while_running_and_when_stopping(tmp_path: Path, systemd: socket.socket) -> None:
    model = next((Path(__file__).parents[1] / "data").glob("nearest*.onnx"))
    process = subprocess.Popen(
        [sys.executable, "-m", "rtseg", "live", "--model", str(model), "--show", "none", "--record", "drive.mp4",
         "--gst", "videotestsrc is-live=true ! video/x-raw,width=160,height=96,framerate=10/1"],
        cwd=tmp_path, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    killer = threading.Timer(150, process.kill)
    killer.start()
    try:
        systemd.settimeout(120)
        assert systemd.recv(1000) == b"READY=1"
        heartbeats = [systemd.recv(1000).decode() for _ in range(2)]
        assert all(text.startswith("WATCHDOG=1\nSTATUS=") and "fps, age p99" in text for text in heartbeats)
        process.send_signal(signal.SIGTERM)
        while (message := systemd.recv(1000)) != b"STOPPING=1":
            assert message.startswith(b"WATCHDOG=1")
        assert process.wait(60) == 0
    finally:
        killer.cancel()
        process.kill()
        process.communicate()
    assert (tmp_path / "drive.mp4").stat().st_size > 1000


def test_install_backs_up_edited_configuration(tmp_path: Path) -> None:
    """Each edited file is renamed to an unused name. An unchanged file is not."""
    arguments = ["install", "--root", str(tmp_path), "--url", "rtsp://10.0.0.5/a", "--show", "web"]
    for edit in ("# first", "# second", None):
        assert CliRunner().invoke(service, arguments).exit_code == 0
        written = tmp_path / "etc" / "rtseg" / "rtseg.toml"
        if edit:
            written.write_text(edit)
    backups = {path.name: path.read_text() for path in written.parent.glob("*.old*")}
    assert backups == {"rtseg.toml.old": "# first", "rtseg.toml.old2": "# second"}
    assert CliRunner().invoke(service, arguments).exit_code == 0
    assert len(list(written.parent.glob("*.old*"))) == 2


def test_service_output_must_not_be_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "rtseg.toml"
    file.write_text(f'[live]\nurl = ["rtsp://10.0.0.5/a"]\nstats = "{file}"\n')
    before = file.read_text()
    for commands, arguments in ((config, ["check", str(file)]), (service, ["run", "--config", str(file)])):
        result = CliRunner().invoke(commands, arguments)
        assert result.exit_code == 1
        assert "would overwrite the configuration" in result.output
    assert file.read_text() == before
