"""Names of live recordings: files of earlier runs are never replaced or removed."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest
from media import read
from test_live_sinks import item, names, open_file, record

from rtseg.core.errors import SinkError
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.io.outputs.file_sink import PartialFile
from rtseg.live.sink_thread import SinkThread
from rtseg.live.sinks.jsonl import JsonLinesFile, JsonLinesSink
from rtseg.live.sinks.record import RecordingSink
from rtseg.live.sinks.snapshot import SnapshotSink


class _Clock(datetime):
    """Clock that always returns the same second, as after a restart."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime(2026, 11, 22, 14, 40, 12, 345_000, tzinfo=timezone.utc)


def test_run_in_same_second_keeps_segments_of_previous_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partial files of a killed run are kept too: they are playable."""
    monkeypatch.setattr("rtseg.live.sinks.record.datetime", _Clock)
    stem = "out-20261122T144012Z"
    earlier = {f"{stem}.mp4": b"whole", f"{stem}-2.partial.mp4": b"partial"}
    for name, data in earlier.items():
        (tmp_path / name).write_bytes(data)
    record(tmp_path / "out.mp4", map(item, range(40)), segment_seconds=1)
    assert names(tmp_path) == sorted([*earlier, f"{stem}-3.mp4", f"{stem}-4.mp4"])
    assert {name: (tmp_path / name).read_bytes() for name in earlier} == earlier
    assert len(read(tmp_path / f"{stem}-3.mp4")) == 30


def test_new_frame_size_uses_next_free_name(tmp_path: Path) -> None:
    (tmp_path / "out-2.mp4").write_bytes(b"the user's")
    first_run = record(tmp_path / "out.mp4", [item(0), item(1, size=(128, 96))])
    assert names(tmp_path) == ["out-2.mp4", "out-3.mp4", "out.mp4"]
    assert (tmp_path / "out-2.mp4").read_bytes() == b"the user's"
    assert first_run.warnings == ("out.mp4 is continued in out-3.mp4",)
    second_run = RecordingSink(str(tmp_path / "out.mp4"), open_file, replace_first=False)
    second_run.write(item(0))
    assert second_run.warnings == ("out.mp4 exists: the frames are in out-4.mp4",)
    second_run.close()


def test_keep_does_not_remove_links_folders_or_other_recordings(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    archived = tmp_path / "elsewhere" / "archived.mp4"
    archived.write_bytes(bytes(10**6))
    (tmp_path / "out-20200101T000000Z.mp4").symlink_to(archived)
    (tmp_path / "out-20200102T000000Z.mp4").mkdir()
    for name in (
        "out-holiday.mp4",
        "out-camera1-20200101T000000Z.mp4",
        "out-20200101T000000Z.mkv",
        "about-20200101T000000Z.mp4",
    ):
        (tmp_path / name).write_bytes(bytes(10**6))
    (tmp_path / "out-20200103T000000Z.mp4").write_bytes(bytes(10**6))
    before = names(tmp_path)
    record(tmp_path / "out.mp4", [item(0)], segment_seconds=1, keep_bytes=100_000)
    assert set(before) - set(names(tmp_path)) == {"out-20200103T000000Z.mp4"}
    assert archived.stat().st_size == 10**6


def test_existing_jsonl_file_is_kept_until_first_line(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"index": 0}\n')
    failed = JsonLinesFile(str(file), 1)
    JsonLinesSink(failed, CAMVID_CLASSES).abort()
    assert file.read_text() == '{"index": 0}\n'
    lines = JsonLinesFile(str(file), 1)
    one = JsonLinesSink(lines, CAMVID_CLASSES)
    for number in (1, 2):
        one.write(item(number))
    one.close()
    assert ['"index": 1' in line for line in file.read_text().splitlines()] == [True, False]


def test_snapshots_in_same_millisecond_have_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.live.sinks.snapshot.datetime", _Clock)
    for _ in range(2):
        SnapshotSink(tmp_path).write(item(0))
    assert names(tmp_path) == ["rtseg-20261122-144012-345-2.png", "rtseg-20261122-144012-345.png"]


def test_no_overwrite_on_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is the case on exFAT, which SD cards use."""

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    partial = PartialFile(str(tmp_path / "a.mp4"), overwrite=False)
    partial.path.write_bytes(b"new")
    partial.publish()
    assert (tmp_path / "a.mp4").read_bytes() == b"new"
    (tmp_path / "a.mp4").unlink()
    partial = PartialFile(str(tmp_path / "a.mp4"), overwrite=False)
    (tmp_path / "a.mp4").write_bytes(b"other")
    with pytest.raises(SinkError, match="file exists"):
        partial.publish()
    assert (tmp_path / "a.mp4").read_bytes() == b"other"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_ends_json_lines_with_reason() -> None:
    thread = SinkThread(JsonLinesSink(JsonLinesFile("/dev/full", 1), CAMVID_CLASSES))
    dropped: list[float | None] = []
    thread.offer(item(0), dropped.append)
    assert thread.join(10)
    assert thread.failure == "full: can't write /dev/full: no space left on device"
    assert dropped == [None]
