"""Live sinks: recordings in files and segments, JSON lines, snapshots, mosaic."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from media import number_of, numbered_frame, numbered_image, read

from rtseg.core.errors import OptionError, SinkError
from rtseg.core.frame import Color, ProcessedFrame, StreamInfo
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.io.inputs.live_clock import TIME_BASE
from rtseg.io.outputs import Sink
from rtseg.live.mosaic import Mosaic
from rtseg.live.options import Outputs, parse_bytes
from rtseg.live.outputs import _open_video
from rtseg.live.sinks.jsonl import JsonLinesFile, JsonLinesSink
from rtseg.live.sinks.record import RecordingSink
from rtseg.live.sinks.snapshot import SnapshotSink

COLOR = Color("bt601", full_range=False)


def item(
    number: int, *, pts: int | None = None, size: tuple[int, int] = (96, 64), camera: str = "camera0"
) -> ProcessedFrame:
    """Return a frame that shows its number, as the live loop passes it to a sink."""
    ticks = 3000 * number if pts is None else pts
    now = time.monotonic_ns()
    frame = replace(numbered_frame(number, size), pts=ticks, time_base=TIME_BASE, duration=3000, captured_ns=now)
    info = StreamInfo("door", *size, "yuv420p", COLOR, TIME_BASE, Fraction(30))
    classes = np.repeat(np.array([[0, 0, 3, 10]], np.uint8), 4, axis=0)
    return ProcessedFrame(frame, classes, frame, info, camera, now, 0.0075)


def open_file(path: str, first: ProcessedFrame) -> Sink:
    return _open_video(path, first, Outputs())


def record(path: Path, frames: Iterable[ProcessedFrame], **options: Any) -> RecordingSink:
    """Record frames and close the file."""
    sink = RecordingSink(str(path), open_file, **options)
    for each in frames:
        sink.write(each)
    sink.close()
    return sink


def numbers_in(path: Path) -> list[int]:
    return [number_of(frame) for frame in read(path)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Recordings


def test_recording_starts_at_zero_and_keeps_gaps(tmp_path: Path) -> None:
    stamps = [90_000 + 3000 * index + (450_000 if index >= 5 else 0) for index in range(10)]
    sink = record(tmp_path / "out.mp4", (item(index, pts=pts) for index, pts in enumerate(stamps)))
    assert names(tmp_path) == ["out.mp4"]
    frames = read(tmp_path / "out.mp4")
    assert [number_of(frame) for frame in frames] == list(range(10))
    seconds = [frame.pts_seconds for frame in frames]
    assert seconds == pytest.approx([(pts - 90_000) / 90_000 for pts in stamps], abs=0.001)
    assert sink.written == 10


def test_new_frame_size_starts_new_file(tmp_path: Path) -> None:
    sizes = [(96, 64)] * 5 + [(128, 96)] * 4 + [(96, 64)] * 3
    sink = record(tmp_path / "out.mp4", (item(index, size=size) for index, size in enumerate(sizes)))
    assert names(tmp_path) == ["out-2.mp4", "out-3.mp4", "out.mp4"]
    assert [numbers_in(tmp_path / name) for name in ("out.mp4", "out-2.mp4", "out-3.mp4")] == [
        [*range(5)],
        [*range(5, 9)],
        [*range(9, 12)],
    ]
    assert read(tmp_path / "out-2.mp4")[0].pts == 0
    assert sink.written == 12


def test_segments_have_requested_length_and_all_frames(tmp_path: Path) -> None:
    record(tmp_path / "out.mp4", map(item, range(75)), segment_seconds=1)
    files = sorted(tmp_path.iterdir(), key=lambda path: (path.stat().st_mtime_ns, path.name))
    assert len(files) == 3
    assert sorted(len(numbers_in(path)) for path in files) == [15, 30, 30]
    assert sorted(itertools.chain(*map(numbers_in, files))) == list(range(75))
    assert all(path.name.startswith("out-2") and "partial" not in path.name for path in files)


def test_keep_removes_only_oldest_own_segments(tmp_path: Path) -> None:
    old = [tmp_path / f"out-20200101T00000{second}Z.mp4" for second in range(4)]
    cut = tmp_path / "out-20200101T000004Z.partial.mp4"
    others = [tmp_path / "out.mp4", tmp_path / "out-holiday.mp4", tmp_path / "rear-20200101T000000Z.mp4"]
    for path in (*old, cut, *others):
        path.write_bytes(b"x" * 40_000)
    record(tmp_path / "out.mp4", map(item, range(40)), segment_seconds=1, keep_bytes=130_000)
    assert not any(path.exists() for path in old[:3])
    assert all(path.exists() for path in others)
    new_segments = [name for name in names(tmp_path) if name.startswith("out-2") and not name.startswith("out-2020")]
    assert len(new_segments) == 2


def test_missing_folder_raises_sink_error_before_first_frame(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="no such folder"):
        RecordingSink(str(tmp_path / "missing" / "out.mp4"), open_file)


def written_to_avi(path: Path, seconds: list[float]) -> tuple[RecordingSink, list[tuple[int, float]]]:
    """Record frames at these times from a camera without a frame rate; return number and time of each recorded frame."""
    frames = [item(index, pts=round(when * 90_000)) for index, when in enumerate(seconds)]
    sink = record(path, (replace(each, info=replace(each.info, frame_rate=None)) for each in frames))
    return sink, [(number_of(frame), frame.pts_seconds) for frame in read(path)]


def test_avi_keeps_all_frames_of_uneven_camera(tmp_path: Path) -> None:
    """AVI has 25 FPS if the camera states no rate; here two frames may arrive at the same time."""
    seconds = [index / 15 - (0.06 if index in (3, 20) else 0) for index in range(40)]
    sink, found = written_to_avi(tmp_path / "out.avi", seconds)
    assert [number for number, _ in found] == list(range(40))
    assert [when for _, when in found] == pytest.approx(seconds, abs=1.501 / 25)
    assert (sink.written, sink.dropped, sink.warnings) == (40, 0, ())


def test_avi_drops_frames_of_camera_faster_than_its_rate(tmp_path: Path) -> None:
    seconds = [index / 50 for index in range(100)]
    sink, found = written_to_avi(tmp_path / "out.avi", seconds)
    assert names(tmp_path) == ["out.avi"]
    assert found[-1][1] == pytest.approx(seconds[-1], abs=1.501 / 25)
    assert all(when == pytest.approx(seconds[number], abs=1.501 / 25) for number, when in found)
    assert (sink.written, sink.dropped) == (len(found), 100 - len(found))
    assert 45 <= len(found) <= 55
    assert len(sink.warnings) == 1
    assert sink.warnings[0].startswith(
        "avi has a constant rate of 25 FPS, and frames arrived faster: some are left out"
    )


# Options


def test_parse_bytes() -> None:
    assert [parse_bytes(text) for text in ("500MB", "10GB", "1.5T", "7")] == [5 * 10**8, 10**10, 15 * 10**11, 7]
    with pytest.raises(OptionError, match="10GB"):
        parse_bytes("a lot")


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (Outputs(show=("mirror",)), "mirror"),
        (Outputs(segment_seconds=60), "--record"),
        (Outputs(record="out.mp4", keep_bytes=1), "--split-every"),
        (Outputs(record="out.mp4", segment_seconds=0.1), "0.1"),
    ],
)
def test_contradictory_options_are_refused(outputs: Outputs, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        outputs.check()


def test_default_output_without_display_is_web_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform.startswith("linux"):
        assert Outputs().display_outputs() == ("web",)
    assert Outputs(record="out.mp4").display_outputs() == ()
    assert Outputs(show=("web", "none"), record="out.mp4").display_outputs() == ("web",)


# JSON lines, snapshots, mosaic


def test_jsonl_lines_of_two_cameras_are_whole(tmp_path: Path) -> None:
    file = JsonLinesFile(str(tmp_path / "lines.jsonl"), 2)
    one, two = JsonLinesSink(file, CAMVID_CLASSES), JsonLinesSink(file, CAMVID_CLASSES)
    for index in range(3):
        one.write(item(index, camera="camera0"))
        two.write(item(index, camera="camera1"))
    one.close()
    two.close()
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert [(line["camera"], line["index"]) for line in lines] == [
        (f"camera{c}", i) for i in range(3) for c in range(2)
    ]
    assert lines[-1]["pts"] == pytest.approx(2 / 30, abs=1e-5)
    assert lines[0]["classes"] == {CAMVID_CLASSES[0]: 0.5, CAMVID_CLASSES[3]: 0.25, CAMVID_CLASSES[10]: 0.25}
    assert lines[0]["infer_ms"] == 7.5
    assert lines[0]["latency_ms"] >= lines[0]["age_ms"] >= 0


def test_snapshot_equals_rendered_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    SnapshotSink(tmp_path / "snapshots").write(item(5))
    (saved,) = (tmp_path / "snapshots").iterdir()
    assert caplog.messages == [f"saved {saved}"]
    rgb = cv2.cvtColor(cv2.imread(str(saved)), cv2.COLOR_BGR2RGB)
    assert rgb.shape == (64, 96, 3)
    expected = numbered_image(5).astype(int)
    for y, x in ((6, 6), (6, 90), (58, 6), (58, 90)):
        assert np.abs(rgb[y, x].astype(int) - expected[y, x]).max() <= 6


def test_mosaic_shows_each_camera_in_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.live.mosaic.MAX_SIZE", (384, 216))
    mosaic = Mosaic(["front", "rear", "left"])
    mosaic.update(0, item(1))
    mosaic.update(1, item(2))
    whole = mosaic.update(2, item(3, size=(64, 96)))
    assert (whole.rendered.width, whole.rendered.height) == (384, 216)
    rgb = np.stack([whole.rendered.planes[2], whole.rendered.planes[0], whole.rendered.planes[1]], axis=-1).astype(int)
    for left, top, size in ((0, 0, (96, 64)), (192, 0, (96, 64)), (0, 108, (64, 96))):
        width = round(108 * size[0] / size[1])
        begin = left + (192 - width) // 2
        corners = [
            (top + 6, begin + 6),
            (top + 6, begin + width - 6),
            (top + 102, begin + 6),
            (top + 102, begin + width - 6),
        ]
        for (y, x), color in zip(corners, ((200, 30, 30), (30, 180, 40), (40, 50, 200), (220, 210, 40)), strict=True):
            assert np.abs(rgb[y, x] - color).max() <= 12
    assert rgb[108 + 50, 10].max() == 0, "the bars of a frame with another aspect ratio are black"
    mosaic.mark_disconnected(1, "no frames for 3 s")
    dark = mosaic.update(0, item(4)).rendered.planes[0][90:100, 300:380]
    assert dark.mean() < whole.rendered.planes[0][90:100, 300:380].mean() / 2


def test_partial_recording_is_playable(tmp_path: Path) -> None:
    """A file that is still being written is playable, except for the last second."""
    sink = RecordingSink(str(tmp_path / "out.mp4"), open_file)
    for index in range(120):
        sink.write(item(index))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes((tmp_path / "out.partial.mp4").read_bytes())
    with av.open(str(copy)) as container:
        found = sum(1 for _ in container.decode(video=0))
    sink.abort()
    assert found >= 120 - 30
