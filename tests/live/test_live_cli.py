"""`rtseg live` as a process: ends on signals with complete files, continues after faults, and reports them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import MODEL
from live_doubles import adds_up, rises, seconds_in, wait_for
from live_server import TcpServer, encode_ts, paced
from media import write_video
from typer.testing import CliRunner

from rtseg.cli.app import app

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
]

SMALL = ("--model", str(MODEL), "--size", "96x64", "--show", "none")


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rtseg", "live", *map(str, arguments), *SMALL]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


def start_recording(folder: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a run that writes out.mp4, lines.jsonl and s.json into a folder."""
    outputs = ("--record", folder / "out.mp4", "--jsonl", folder / "lines.jsonl", "--stats", folder / "s.json")
    return start(*arguments, *outputs)


def end(process: subprocess.Popen[str], number: int = signal.SIGINT, code: int = 0) -> str:
    """End a run with a signal, check its exit code, and return its standard error."""
    process.send_signal(number)
    try:
        stderr = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == code, stderr
    return stderr


def lines_in(path: Path) -> list[dict[str, object]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(
        tmp_path_factory.mktemp("drive") / "drive.mp4", frames=60, rate=30, options={"preset": "ultrafast"}
    )


def test_file_plays_at_its_own_frame_rate_and_ends(drive: Path, tmp_path: Path) -> None:
    stats = tmp_path / "s.json"
    arguments = ("--url", drive, "--realtime", "--every-frame", "--smooth", 0.5)
    process = start(*arguments, "--record", tmp_path / "out.mp4", "--stats", stats)
    stderr = process.communicate(timeout=150)[1]
    assert process.returncode == 0, stderr
    assert len(seconds_in(tmp_path / "out.mp4")) == 60
    report = json.loads(stats.read_text())
    assert report["frames"] == {"read": 60, "segmented": 60, "written": 60, "dropped": 0, "corrupt": 0, "stale": 0}
    assert report["command"] == "live"
    # Every second image counts as a cut: the numbered images differ strongly in brightness.
    assert report["temporal_smoothing"] == {"momentum": 0.5, "cuts": 29}
    assert report["input"] == str(drive)
    assert report["sinks"]["out.mp4"] | {"mean_ms": 0} == {"written": 60, "dropped": 0, "mean_ms": 0}
    assert report["seconds"] >= 59 / 30 - 0.2


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_signal_ends_run_with_complete_files(drive: Path, tmp_path: Path, signals: list[int]) -> None:
    """Simultaneous interrupts count once: `timeout -s INT` sends one to the process and one to its group."""
    lines, masks = tmp_path / "lines.jsonl", tmp_path / "masks"
    process = start_recording(tmp_path, "--url", drive, "--realtime", "--loop", "--masks", masks)
    wait_for(lambda: len(lines_in(lines)) > 20, process)
    for number in signals[1:]:
        process.send_signal(number)
        time.sleep(0.002)
    stderr = end(process, signals[0])
    assert "Traceback" not in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.jsonl", "masks", "out.mp4", "s.json"]
    seconds = seconds_in(tmp_path / "out.mp4")
    assert rises(seconds)
    report = json.loads((tmp_path / "s.json").read_text())
    written = {name: report["sinks"][name]["written"] for name in ("out.mp4", "masks", "lines.jsonl")}
    assert written == {
        "out.mp4": len(seconds), "masks": len(list(masks.glob("*.png"))), "lines.jsonl": len(lines_in(lines))
    }  # fmt: skip
    assert all(sink["written"] + sink["dropped"] == report["frames"]["segmented"] for sink in report["sinks"].values())


def test_interrupt_during_python_shutdown_is_not_a_failure(drive: Path, tmp_path: Path) -> None:
    """On a busy machine the second interrupt may arrive after Python has removed its signal handlers."""
    script = tmp_path / "late.py"
    script.write_text(
        "import os, signal\n"
        "class Late:\n"
        "    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGINT):\n"
        "        kill(process, number)\n"
        "late = Late()\n"
        "from rtseg.cli.app import main\n"
        "main()\n"
    )
    command = [sys.executable, str(script), "live", "--realtime", "--url", str(drive), *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_second_interrupt_ends_run_immediately(tmp_path: Path, drive: Path) -> None:
    """A reader that stops reading blocks the JSON Lines sink; a second signal need not wait for it."""
    read_end, write_end = os.pipe()
    process = start("--url", drive, "--realtime", "--loop", "--jsonl", "-", stdout=write_end)
    os.close(write_end)
    assert os.read(read_end, 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # slower than a repeated signal of `timeout`
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=120)[1]
    os.close(read_end)
    assert process.returncode in (0, 130), stderr


def test_blocked_reader_does_not_delay_recording_or_exit(tmp_path: Path, drive: Path) -> None:
    read_end, write_end = os.pipe()
    if hasattr(os, "O_NONBLOCK"):
        import fcntl

        fcntl.fcntl(write_end, getattr(fcntl, "F_SETPIPE_SZ", 1031), 4096)
    out, stats, masks = tmp_path / "out.mp4", tmp_path / "s.json", tmp_path / "masks"
    process = start(
        *("--url", drive, "--realtime", "--loop", "--jsonl", "-", "--record", out, "--masks", masks, "--stats", stats),
        stdout=write_end,
    )
    os.close(write_end)
    wait_for(
        lambda: len(list(tmp_path.rglob("*.png"))) > 100, process
    )  # more than the lines that fit into the pipe and the queue
    stderr = end(process, code=1)
    os.close(read_end)
    assert "standard output: not complete in time" in stderr
    report = json.loads(stats.read_text())
    assert report["sinks"]["standard output"]["dropped"] > 0
    recorded = report["sinks"]["out.mp4"]
    assert recorded["written"] + recorded["dropped"] == report["frames"]["segmented"]
    assert len(seconds_in(out)) == recorded["written"] > report["sinks"]["standard output"]["written"]


def test_kill_loses_less_than_two_seconds(drive: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    process = start_recording(tmp_path, "--url", drive, "--realtime", "--loop")
    wait_for(lambda: len(lines_in(lines)) > 90, process)
    process.kill()
    process.communicate(timeout=120)
    truth = lines_in(lines)
    recorded = seconds_in(tmp_path / "out.partial.mp4")
    assert rises(recorded)
    assert truth[-1]["pts"] - truth[0]["pts"] - recorded[-1] < 2.0  # type: ignore[operator]


def faulty(number: int) -> Iterator[bytes]:
    """Yield the stream of a camera that disconnects, returns with its clock set back, then with another size, then stays."""
    if number == 0:
        yield from paced(encode_ts(20, start_seconds=500))
    elif number == 1:
        yield from paced(encode_ts(20))
        yield b"\x47\x1f\xff\x10" + b"\xff" * 184 + b"garbage" * 300
        yield from paced(encode_ts(20, start_seconds=1))
        yield from paced(encode_ts(20, size=(128, 96), start_seconds=2))
    else:
        yield from paced(encode_ts(30) * 30)


def test_run_continues_after_disconnects_clock_change_and_new_size(tmp_path: Path) -> None:
    lines, stats = tmp_path / "lines.jsonl", tmp_path / "s.json"
    with TcpServer(faulty) as server:
        url = server.url.replace("//", "//me:s3cret@") + "?pw=s3cret"
        process = start_recording(tmp_path, "--url", url, "--timeout", 20)
        wait_for(lambda: b"***@" in Path(f"/proc/{process.pid}/cmdline").read_bytes(), process)
        wait_for((tmp_path / "out-3.partial.mp4").exists, process)
        stderr = end(process)
    assert "s3cret" not in stderr + stats.read_text() + lines.read_text()
    assert f"tcp://127.0.0.1:{server.port}: frames again after" in stderr
    assert "frames are now 128x96" in stderr
    report = json.loads(stats.read_text())
    assert adds_up(report)
    assert report["disconnects"]["count"] == 2
    assert 0 < report["disconnects"]["seconds"] < report["seconds"]
    parts = sorted(tmp_path.glob("out*.mp4"))
    assert [part.name for part in parts] == ["out-2.mp4", "out-3.mp4", "out.mp4"]
    written = [seconds_in(part) for part in parts]
    assert all(rises(seconds) for seconds in written)
    recorded = report["sinks"]["out.mp4"]
    assert sum(map(len, written)) == recorded["written"] == report["frames"]["segmented"] - recorded["dropped"]
    assert rises([float(str(line["pts"])) for line in lines_in(lines)])


WRAP_SECONDS = 2**33 / 90_000
"""Time after which the clock of an MPEG transport stream wraps."""


def stubborn(number: int) -> Iterator[bytes]:
    """Yield a stream that stalls on an open connection, then is damaged, wraps its clock and changes its pixel format."""
    if number == 0:
        yield from paced(encode_ts(20))
        time.sleep(3.5)
    else:
        start = round(WRAP_SECONDS * 30) / 30 - 1.0
        chunks = encode_ts(60, start_seconds=start)
        chunks[14] = chunks[14][:120] + bytes(len(chunks[14]) - 120)  # the data of the frame is truncated
        yield from paced(chunks)
        yield from paced(encode_ts(30 * 60, start_seconds=1.0, pix_fmt="yuv444p"))


def test_run_continues_after_stall_damage_clock_wrap_and_pixel_format_change(tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    with TcpServer(stubborn) as server:
        process = start_recording(tmp_path, "--url", server.url, "--timeout", 1.5)
        wait_for((tmp_path / "out-2.partial.mp4").exists, process)
        count = len(lines_in(lines))
        wait_for(lambda: len(lines_in(lines)) > count + 20, process)
        stderr = end(process)
    assert "no data arrived in time" in stderr
    assert "yuv444p, were 96x64 yuv420p" in stderr
    report = json.loads((tmp_path / "s.json").read_text())
    assert adds_up(report)
    assert report["frames"]["corrupt"] >= 1
    assert report["disconnects"]["count"] >= 1
    assert 1.0 < report["disconnects"]["seconds"] < report["seconds"]
    written = [seconds_in(part) for part in sorted(tmp_path.glob("out*.mp4"))]
    assert len(written) == 2
    assert all(rises(seconds) for seconds in written)
    assert sum(map(len, written)) == report["sinks"]["out.mp4"]["written"]
    stamps = [float(str(line["pts"])) for line in lines_in(lines)]
    assert rises(stamps)
    # The stall is a gap of the same length; the wrap is not a gap.
    assert report["disconnects"]["seconds"] < stamps[-1] - stamps[0] < report["seconds"] + 10


@pytest.mark.system("gst-launch-1.0")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_reconnects_after_gstreamer_process_is_killed(tmp_path: Path) -> None:
    """Unplugging a GStreamer camera ends its process; the run and the recording continue."""
    lines = tmp_path / "lines.jsonl"
    pipeline = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=96,height=64,framerate=30/1"
    process = start_recording(tmp_path, "--gst", pipeline)
    wait_for(lambda: len(lines_in(lines)) > 15, process)
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    for child in {int(number) for listed in children for number in listed.read_text().split()}:
        os.kill(child, signal.SIGKILL)
    count = len(lines_in(lines))
    wait_for(lambda: len(lines_in(lines)) > count + 30, process)
    stderr = end(process)
    assert "frames again after" in stderr
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["disconnects"]["count"] == 1
    seconds = seconds_in(tmp_path / "out.mp4")
    assert rises(seconds)
    assert len(seconds) == report["sinks"]["out.mp4"]["written"]


def test_two_cameras_are_recorded_when_one_fails(drive: Path, tmp_path: Path) -> None:
    with TcpServer(lambda number: paced(encode_ts(30)) if number == 0 else []) as server:
        process = start_recording(tmp_path, "--url", server.url, "--url", drive, "--realtime", "--loop")
        one, two = tmp_path / "out-url1.partial.mp4", tmp_path / "out-url2.partial.mp4"
        wait_for(lambda: one.exists() and two.exists() and server.connections > 2, process)
        end(process)
    report = json.loads((tmp_path / "s.json").read_text())
    assert [item["camera"] for item in report["items"]] == ["url1", "url2"]
    for item, name in zip(report["items"], ("out-url1.mp4", "out-url2.mp4"), strict=True):
        assert len(seconds_in(tmp_path / name)) == item["sinks"][name]["written"] > 0
        assert adds_up(item)
    assert report["items"][0]["disconnects"]["count"] >= 1
    assert report["items"][1]["disconnects"]["count"] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 1, "--camera 0"),
        (("--url", "drive.mp4"), 1, "--realtime"),
        (("--url", "missing.mp4", "--realtime"), 1, "missing.mp4"),
        (("--camera", "77"), 1, "/dev/video77"),
        (("--url", "rtsp://me:s3cret@127.0.0.1:1/x", "--reconnect-max", "0"), 1, "rtsp://127.0.0.1:1/x"),
        (("--camera", "0", "--keep", "10GB", "--record", "x.mp4"), 1, "--split-every"),
        (("--camera", "0", "--record", "no/such/x.mp4"), 1, "no/such"),
        (("--camera", "0", "--adaptive", "--every-frame"), 1, "--adaptive drops frames"),
        (("--url", "http://127.0.0.1:1/x.mp4", "--loop"), 1, "--loop"),
        (("--camera", "0", "--max-age-ms", "0"), 2, "--max-age-ms"),
    ],
    ids=lambda value: "-".join(value)[:30].replace("/", "_") if isinstance(value, tuple) else None,
)
def test_user_errors_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["live", *arguments, *SMALL, "--quiet"])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert words in result.output
    assert "s3cret" not in result.output
    assert list(tmp_path.iterdir()) == []
