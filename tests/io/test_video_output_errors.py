"""`FileSink` raises one-line errors, and no incomplete file gets the final name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from media import fill, info, read, run_script, video_sink, write_video

from rtseg.core.errors import SinkError
from rtseg.io.inputs.file import FileSource


def test_refusals_are_one_line_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.mp4").mkdir()
    Path("file").touch()
    Path("existing.mp4").write_bytes(b"older")
    before = sorted(path.name for path in tmp_path.iterdir())
    for name, options, message in (
        ("folder.mp4", {}, "is a folder"),
        ("nowhere/out.mp4", {}, "no such folder: nowhere"),
        ("file/out.mp4", {}, "not a folder"),
        ("existing.mp4", {"overwrite": False}, "existing.mp4 exists"),
        ("out.xyz", {}, r"suffix '\.xyz'"),
        ("out", {}, "suffix ''"),
        ("out.mp4", {"codec": "nonsense"}, "no encoder 'nonsense'"),
        ("out.mp4", {"codec": "aac"}, "encodes audio"),
        ("out.webm", {"codec": "libx264"}, "webm"),
        ("out.mp4", {"preset": "warp"}, "preset 'warp'"),
        ("o\0ut.mp4", {}, "null"),
    ):
        with pytest.raises(SinkError, match=message) as error:
            video_sink(name, info(), **options)
        assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert Path("existing.mp4").read_bytes() == b"older"


@pytest.mark.parametrize("link", ["same", "symlink", "hardlink", "dots"])
def test_output_that_is_the_input_is_refused(tmp_path: Path, link: str) -> None:
    source = write_video(tmp_path / "a.mp4")
    data = source.read_bytes()
    out = {"same": source, "dots": tmp_path / ".." / tmp_path.name / "a.mp4"}.get(link, tmp_path / "b.mp4")
    if link == "symlink":
        out.symlink_to(source)
    if link == "hardlink":
        os.link(source, out)
    opened = FileSource(str(source))
    with pytest.raises(SinkError, match="would overwrite the input"):
        video_sink(out, opened.info)
    assert source.read_bytes() == data


def test_no_overwrite_is_checked_again_by_close(tmp_path: Path) -> None:
    sink = video_sink(tmp_path / "out.mp4", info(), overwrite=False)
    fill(sink)
    (tmp_path / "out.mp4").write_bytes(b"another file")
    with pytest.raises(SinkError, match="can't be renamed"):
        sink.close()
    assert (tmp_path / "out.mp4").read_bytes() == b"another file"
    assert len(read(tmp_path / "out.partial.mp4")) == 10


def test_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    folder = Path("/proc") if os.geteuid() == 0 else tmp_path
    if folder == tmp_path:
        folder.chmod(0o500)
    with pytest.raises(SinkError, match=r"can't write"):
        video_sink(folder / "out.mp4", info())


def test_removed_folder_is_a_one_line_error(tmp_path: Path) -> None:
    folder = tmp_path / "removed"
    folder.mkdir()
    sink = video_sink(folder / "out.mp4", info())
    fill(sink)
    (folder / "out.partial.mp4").unlink()
    folder.rmdir()
    with pytest.raises(SinkError) as error:
        sink.close()
    assert "\n" not in str(error.value)
    sink.abort()


WRITE_WITH_SIZE_LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = video_sink(sys.argv[1], info(), crf=1, live=sys.argv[4] != "whole")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    fill(sink, int(sys.argv[3]))
    sink.close()
except SinkError as error:
    print(error)
    sink.abort()
    raise SystemExit(1)
"""


@pytest.mark.parametrize(
    ("ending", "check"),
    [(e, "whole") for e in ("mp4", "mkv", "ts", "avi")] + [(e, "end") for e in ("mp4", "mkv", "ts")],
)
@pytest.mark.parametrize("when", ["while writing", "at the end"])
def test_full_disk_is_a_one_line_error(tmp_path: Path, ending: str, check: str, when: str) -> None:
    """A limit on the file size simulates a full disk: `write()` fails in both cases."""
    out = tmp_path / f"out.{ending}"
    sink = video_sink(out, info(), crf=1)
    frames = 120 if when == "while writing" else 10
    fill(sink, frames)
    sink.close()
    limit = out.stat().st_size // 2 if when == "while writing" else out.stat().st_size - 200
    out.unlink()
    process = run_script(WRITE_WITH_SIZE_LIMIT, out, limit, frames, check)
    assert process.returncode == 1, process
    assert re.fullmatch(rb"[^\n]*(can't write|can't be read back|contains)[^\n]*\n", process.stdout), process
    assert not out.exists()
    if when == "while writing":
        assert len(read(tmp_path / f"out.partial.{ending}")) > 25


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_recording_with_missing_end_is_an_error(tmp_path: Path, ending: str) -> None:
    sink = video_sink(tmp_path / f"out.{ending}", info(), preset="ultrafast", live=True)
    fill(sink, 300)
    sink._writer._last_seconds += 0.5  # as if the last frames were missing
    with pytest.raises(SinkError, match=r"contains \d+ of 300 frames"):
        sink.close()
    assert not (tmp_path / f"out.{ending}").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_standard_output_to_a_full_device_is_an_error() -> None:
    code = """
try:
    sink = video_sink("-", info())
    fill(sink, 300)
    sink.close()
except SinkError as error:
    print(error, file=sys.stderr)
    sink.abort()
    raise SystemExit(1)
"""
    with Path("/dev/full").open("wb") as full:
        process = run_script(code, stdout=full)
    assert process.returncode == 1
    assert b"no space left" in process.stderr
