"""GStreamer source and sink: pixels, colors and times are unchanged; end of stream, timeouts and crashes are reported."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import deque
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media import CORNERS, info, item, number_of, numbered_image, read, rgb_at, to_pix_fmt, video_sink

from rtseg.core.errors import Disconnected, SinkError, SourceError
from rtseg.core.frame import Color, Frame, ProcessedFrame, StreamInfo
from rtseg.io.gstreamer import pipelines
from rtseg.io.gstreamer.process import GStreamerProcess, words_of
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.inputs.gstreamer import GStreamerSource
from rtseg.io.outputs.file_sink import FileSink

needs_gstreamer = pytest.mark.system("gst-launch-1.0", "gst-inspect-1.0")

TEST_SOURCE = "videotestsrc pattern=solid-color foreground-color=0xff3060c0 num-buffers=6 ! video/x-raw,framerate=30/1"


def frames_of(source: GStreamerSource) -> list[Frame]:
    try:
        return [item for item in source if isinstance(item, Frame)]
    finally:
        source.close()


# Source


@needs_gstreamer
@pytest.mark.parametrize("layout", ["I420", "NV12", "YUY2", "BGRx"])
@pytest.mark.parametrize("size", [(160, 96), (162, 98), (161, 97)])
def test_color_is_unchanged_for_all_layouts_and_sizes(layout: str, size: tuple[int, int]) -> None:
    width, height = size
    pipeline = f"{TEST_SOURCE},format={layout},width={width},height={height}"
    frames = frames_of(GStreamerSource(pipeline, live=False))
    assert len(frames) == 6
    for frame in frames:
        assert (frame.width, frame.height, frame.pixel_format) == (width, height, "yuv420p")
        for x, y in ((2, 2), (width // 2, height // 2), (width - 2, height - 2)):
            assert np.abs(rgb_at(frame, x, y) - (0x30, 0x60, 0xC0)).max() < 5


@needs_gstreamer
def test_times_indices_and_color_tags_are_set() -> None:
    pipeline = f"{TEST_SOURCE},width=160,height=96,format=I420,colorimetry=bt709,pixel-aspect-ratio=4/3"
    source = GStreamerSource(pipeline, live=False, name="camera")
    stream = source.info
    assert (stream.name, stream.width, stream.height, stream.frame_rate) == ("camera", 160, 96, 30)
    assert stream.sample_aspect_ratio == Fraction(4, 3)
    assert (stream.color.matrix, stream.color.full_range, stream.color.space_tag) == ("bt709", False, 1)
    frames = frames_of(source)
    assert [frame.index for frame in frames] == list(range(6))
    assert [frame.pts for frame in frames] == [3000 * i for i in range(6)]
    assert {frame.time_base for frame in frames} == {Fraction(1, 90_000)}
    assert all(0 < a.captured_ns <= b.captured_ns for a, b in itertools.pairwise(frames))
    assert source.corrupt == 0


@needs_gstreamer
def test_end_of_live_pipeline_raises_disconnected() -> None:
    source = GStreamerSource(f"{TEST_SOURCE},width=160,height=96")
    with pytest.raises(Disconnected, match="the stream ended"):
        frames_of(source)


@needs_gstreamer
@pytest.mark.parametrize(
    ("number", "timeout", "message"),
    [(signal.SIGSEGV, 60, "ended by signal 11"), (signal.SIGSTOP, 0.5, r"no data for 0\.5 s")],
    ids=["crash", "silence"],
)
def test_failed_gstreamer_raises_disconnected(number: int, timeout: float, message: str) -> None:
    source = GStreamerSource("videotestsrc is-live=true ! video/x-raw,width=160,height=96", timeout=timeout)
    frames = iter(source)
    next(frames)
    os.kill(source._process._process.pid, number)
    try:
        with pytest.raises(Disconnected, match=message):
            deque(frames)
    finally:
        source.close()  # ends a stopped process too


@needs_gstreamer
def test_close_from_another_thread_ends_a_blocked_read() -> None:
    source = GStreamerSource("videotestsrc is-live=true ! video/x-raw,width=160,height=96,framerate=1/30", timeout=120)
    ended = threading.Event()

    def read_all() -> None:
        deque(source)
        ended.set()

    thread = threading.Thread(target=read_all)
    thread.start()
    time.sleep(0.2)
    source.close()
    source.close()
    assert ended.wait(60)
    thread.join()


@needs_gstreamer
def test_size_change_within_a_stream_raises_disconnected() -> None:
    part = "videotestsrc num-buffers=3 ! video/x-raw,format=I420,framerate=30/1,width={},height=96 ! c."
    source = GStreamerSource(f"concat name=c {part.format(160)} {part.format(192)} c.")
    with pytest.raises(Disconnected, match="changed from 160x96 to 192x96"):
        frames_of(source)


@needs_gstreamer
@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("nosuchelement", 'no element "nosuchelement"'),
        ("filesrc location=/nowhere/at-all.mp4 ! decodebin", 'No such file "/nowhere/at-all.mp4"'),
        ("audiotestsrc num-buffers=3 ! audio/x-raw", "could not link"),
        ("videotestsrc num-buffers=0", "no frame|the stream ended"),
    ],
)
def test_failed_pipeline_reports_the_reason_in_one_line(pipeline: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as failure:
        GStreamerSource(pipeline, live=False)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    "pipeline",
    [
        "rtspsrc location=rtsp://me:secret@camera/1 ! decodebin",
        "rtspsrc location=rtsp://camera/1 user-id=me user-pw=secret ! decodebin",
        "srtsrc uri='srt://camera:9000?passphrase=secretsecret' ! decodebin",
    ],
)
@needs_gstreamer
def test_pipeline_with_password_runs_without_it_in_the_process_list(pipeline: str) -> None:
    running = "videotestsrc is-live=true ! fakesink"
    process = GStreamerProcess(words_of(f"{running} {pipeline} ! fakesink"), error=SourceError)
    command_line = Path(f"/proc/{process._process.pid}/cmdline").read_bytes()
    process.wait(3)
    assert "secret" not in process.reason()
    process.stop()
    assert b"secret" not in command_line
    assert b"launch.py" in command_line or not command_line  # empty if the process has ended
    assert "secret" not in pipelines.command_line(pipelines.to_pipe(pipeline, 1))


def test_missing_gstreamer_error_contains_the_install_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"apt-get install gstreamer1\.0-tools"):
        GStreamerSource("videotestsrc")


# Sink


def info_of(size: tuple[int, int], pixel_format: str = "yuv420p") -> StreamInfo:
    color = Color("bt709", False, 1, 1, 1, 1)
    return info(size, pixel_format, color=color, time_base=Fraction(1, 90_000), frame_rate=Fraction(30))


def numbered_item(number: int, stream: StreamInfo, pts: int) -> ProcessedFrame:
    decoded = to_pix_fmt(numbered_image(number, stream.width, stream.height), stream.pixel_format, 1, False)
    planes = FrameConverter.of(decoded).read(decoded)
    return item(Frame(planes, stream.pixel_format, stream.color, pts, stream.time_base, number))


def write_frames(sink: FileSink, stream: StreamInfo, numbers: range) -> None:
    for number in numbers:
        sink.write(numbered_item(number, stream, 3000 * number))


@needs_gstreamer
@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_sink_writes_all_frames_at_their_times(tmp_path: Path, ending: str, live: bool) -> None:
    stream = info_of((160, 96))
    path = tmp_path / f"out.{ending}"
    sink = video_sink(path, stream, codec="gstreamer", live=live)
    stamps = [9000 + 3000 * i + (9000 if i > 4 else 0) for i in range(10)]  # a nonzero start and one gap
    for number, pts in enumerate(stamps):
        sink.write(numbered_item(number, stream, pts))
    assert sink.partial_path.exists()
    assert not path.exists()
    sink.close()
    assert not sink.partial_path.exists()
    frames = read(path)
    assert np.allclose(np.diff([frame.pts_seconds for frame in frames]), np.diff(stamps) / 90_000, atol=0.002)
    assert sink.written == len(frames) == 10
    assert (frames[0].width, frames[0].height) == (160, 96)
    assert [number_of(frame) for frame in frames] == list(range(10))


@needs_gstreamer
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
def test_sink_keeps_colors(tmp_path: Path, pixel_format: str) -> None:
    stream = info_of((162, 98), pixel_format)
    sink = video_sink(tmp_path / "out.mp4", stream, codec="gstreamer", crf=10)
    for number in range(3):
        sink.write(numbered_item(0, stream, 3000 * number))
    sink.close()
    frame = read(tmp_path / "out.mp4")[0]
    assert frame.color.space_tag == 1
    for (x, y), name in {(20, 12): "R", (140, 12): "G", (20, 85): "B"}.items():
        assert np.abs(rgb_at(frame, x, y) - CORNERS[name]).max() < 12


@needs_gstreamer
def test_killed_encoder_is_an_error_and_leaves_playable_fragments(tmp_path: Path) -> None:
    stream = info_of((160, 96))
    sink = video_sink(tmp_path / "out.mp4", stream, codec="gstreamer")
    write_frames(sink, stream, range(100))
    deadline = time.monotonic() + 120
    while sink.partial_path.stat().st_size < 3000 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(sink._writer._pipe._process._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(SinkError, match=r"out\.mp4: GStreamer ended: it was ended by signal 9"):
        write_frames(sink, stream, range(100, 200))
    sink.abort()
    assert len(read(sink.partial_path)) >= 25
