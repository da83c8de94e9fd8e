"""Command line: help, exit codes, one-line errors, and output files that are complete or absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from command import ENABLE_SIGINT, MODEL, assert_one_error_line, interpreter_command, rtseg
from media import write_video

COMMANDS = ("video", "image", "demo", "train", "eval", "models", "doctor")
HEAVY = ("numpy", "cv2", "av", "openvino", "torch", "onnx")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("drive") / "drive.mp4", frames=30, size=(320, 192))


@pytest.fixture(scope="module")
def long_drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(
        tmp_path_factory.mktemp("long") / "long.mp4", frames=1500, size=(640, 384), options={"preset": "ultrafast"}
    )


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_no_heavy_module(command: str) -> None:
    script = (
        "import sys\nfrom rtseg.cli.app import main\n"
        f"sys.argv = ['rtseg', *{[command] if command else []!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit as exit:\n    code = exit.code\n"
        f"print('loaded', code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150, check=True)
    assert "Usage" in result.stdout
    assert "loaded 0 []" in result.stdout


def test_version_is_printed() -> None:
    assert rtseg("--version").stdout.startswith("rtseg 0.")


def test_usage_error_exits_with_2() -> None:
    assert rtseg("video").returncode == 2
    assert rtseg("video", "x.mp4", "--alpha", "2").returncode == 2
    assert rtseg("no-such-command").returncode == 2


def test_video_keeps_all_frames_and_writes_statistics(drive: Path, tmp_path: Path) -> None:
    out, stats = tmp_path / "out.mp4", tmp_path / "run.json"
    result = rtseg("video", drive, "-o", out, "--model", MODEL, "--stats", stats, "--hud", "--legend")
    assert result.returncode == 0, result.stderr
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30
        assert container.streams.video[0].average_rate == 25
    report = json.loads(stats.read_text())
    assert report["frames"] == {"read": 30, "segmented": 30, "written": 30, "dropped": 0, "corrupt": 0}
    assert list(tmp_path.glob("*.partial*")) == []
    assert result.stdout == ""


def test_stdout_contains_only_statistics(drive: Path, tmp_path: Path) -> None:
    result = rtseg("video", drive, "-o", tmp_path / "out.mp4", "--model", MODEL, "--stats", "-")
    assert json.loads(result.stdout)["command"] == "video"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("video", "missing.mp4"), ("missing.mp4",)),
        (("video", "notes.txt"), ("notes.txt",)),
        (("video", "DRIVE", "--model", "no-such-model"), ("no-such-model", "bundled")),
        (("video", "DRIVE", "--only", "raod"), ("raod", "did you mean 'road'")),
        (("video", "DRIVE", "--palette", "no-such-palette"), ("no-such-palette", "street")),
        (("video", "DRIVE", "--backend", "abacus"), ("abacus", "openvino")),
        (("video", "DRIVE", "--size", "large"), ("large", "640x480")),
        (("video", "DRIVE", "--start", "noon"), ("noon",)),
        (("video", "DRIVE", "-o", "no/such/folder/out.mp4"), ("no/such/folder",)),
        (("video", "DRIVE", "-o", "out.xyz"), ("out.xyz",)),
        (("video", "DRIVE", "--codec", "no-such-codec"), ("no-such-codec",)),
        (("video", "rtsp://me:secret@camera/stream"), ("rtsp://camera/stream", "rtseg live --url")),
        (("video", "nothing*.mp4"), ("nothing*.mp4",)),
        (("image", "missing.jpg"), ("missing.jpg",)),
        (("image", "notes.txt", "-o", "out.png"), ("notes.txt",)),
        (("demo", "--frame-size", "3"), ("3",)),
    ],
    ids=lambda value: "-".join(value[:4]).replace("/", "_") if isinstance(value, tuple) else None,
)
def test_errors_are_one_line_and_leave_no_files(
    drive: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (tmp_path / "notes.txt").write_text("Not a video at all.\n" * 50)
    before = drive.read_bytes()
    given = [str(drive) if word == "DRIVE" else word for word in arguments]
    if "--model" not in given:
        given += ["--model", str(MODEL)]
    if "-o" not in given:
        given += ["-o", "out.mp4" if given[0] != "image" else "out.png"]
    result = rtseg(*given, "--quiet", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert_one_error_line(result, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]
    assert drive.read_bytes() == before


def test_batch_continues_after_broken_input(drive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drives"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(drive.read_bytes())
    (folder / "b.mp4").write_text("broken")
    (folder / "c d ü.mp4").write_bytes(drive.read_bytes())
    result = rtseg("video", folder, "-o", tmp_path / "out", "--model", MODEL, "--stats", tmp_path / "all.json")
    assert result.returncode == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".rtseg-done.jsonl", "a.mp4", "c d ü.mp4"]
    report = json.loads((tmp_path / "all.json").read_text())
    assert report["frames"]["written"] == 60
    assert [("error" in item) for item in report["items"]] == [False, True, False]


def test_no_overwrite_keeps_existing_file(drive: Path, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("precious")
    result = rtseg("video", drive, "-o", tmp_path / "out.mp4", "--no-overwrite", "--model", MODEL, "-q")
    assert result.returncode == 1
    assert_one_error_line(result, "out.mp4")
    assert (tmp_path / "out.mp4").read_text() == "precious"


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_playable_partial_file(long_drive: Path, tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out.mp4"
    stats = tmp_path / "stats.json"
    options = ("-o", str(out), "--model", str(MODEL), "--preset", "medium", "-q", "--stats", str(stats))
    command = [*interpreter_command(ENABLE_SIGINT), "video", str(long_drive), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        partial = tmp_path / "out.partial.mp4"
        deadline = time.monotonic() + 120
        while process.poll() is None and not (partial.exists() and partial.stat().st_size > 20_000):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert not out.exists()
    assert str(partial) in stderr
    assert 0 < count_frames(partial) < 1500
    report = json.loads(stats.read_text())
    assert (report["output"], report["error"]) == (str(out), "interrupted")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("sent_bytes", [0, 1000])
def test_interrupt_ends_the_wait_for_a_silent_pipe(tmp_path: Path, sent_bytes: int) -> None:
    data = write_video(tmp_path / "drive.mkv", frames=5).read_bytes()
    options = ("video", "-", "-o", str(tmp_path / "out.mp4"), "--model", str(MODEL))
    command = [*interpreter_command(ENABLE_SIGINT), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(data[:sent_bytes])
        process.stdin.flush()
        assert process.stderr.readline().startswith(b"model ")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
        assert process.stderr.read().decode().splitlines()[-1] == "rtseg: interrupted"
    assert [path.name for path in tmp_path.iterdir()] == ["drive.mkv"]


INTERRUPTED_IMPORT = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "rtseg.cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
"""


def test_interrupt_while_starting_has_no_traceback() -> None:
    result = rtseg("--version", setup=INTERRUPTED_IMPORT)
    assert (result.returncode, result.stderr) == (130, "rtseg: interrupted\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--nothing", 2)])
def test_exit_handlers_of_native_libraries_do_not_change_the_exit_code(argument: str, code: int) -> None:
    """Those of OpenVINO have crashed behind a complete run."""
    setup = "import ctypes; libc = ctypes.CDLL(None); getattr(libc, '__cxa_atexit')(libc.abort, None, None)"
    result = rtseg(argument, setup=setup)
    assert result.returncode == code
    assert "rtseg" in result.stdout + result.stderr


@pytest.mark.parametrize("failure", ["'libGL.so.1: cannot open'", "'libxcb.so.1: cannot open', name='cv2'"])
def test_broken_opencv_error_names_packages(tmp_path: Path, failure: str) -> None:
    (tmp_path / "cv2.py").write_text(f"raise ImportError({failure})")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    result = rtseg("video", "drive.mp4", "-o", "out.mp4", env=environment)
    assert result.returncode == 1
    assert_one_error_line(result, "does not load", "libgl1", "opencv-python-headless")


def test_doctor_writes_json() -> None:
    result = rtseg("doctor", "--json", "-")
    topics = {finding["topic"]: finding for finding in json.loads(result.stdout)["findings"]}
    assert topics["backend"]["state"] == "ok"
    assert {"python", "gpu", "tensorrt", "encoders", "display", "cameras", "models"} <= set(topics)
