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

import av
import numpy as np
import pytest
from media import numbered_image, rgb_at, video_sink

from rtseg.core.errors import Disconnected, SinkError, SourceError
from rtseg.core.frame import Color, Frame, ProcessedFrame, StreamInfo
from rtseg.io.gstreamer import pipelines
from rtseg.io.gstreamer.process import GStreamerProcess, words_of
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
    info = source.info
    assert (info.name, info.width, info.height, info.frame_rate) == ("camera", 160, 96, 30)
    assert info.sample_aspect_ratio == Fraction(4, 3)
    assert (info.color.matrix, info.color.full_range, info.color.space_tag) == ("bt709", False, 1)
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

    def read() -> None:
        for _ in source:
            pass
        ended.set()

    thread = threading.Thread(target=read)
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


def info_of(size: tuple[int, int], pixel_format: str = "yuv420p", name: str = "camera") -> StreamInfo:
    color = Color("bt709", False, 1, 1, 1, 1) if pixel_format != "gbrp" else Color("rgb", True, 0, range_tag=2)
    return StreamInfo(name, *size, pixel_format, color, Fraction(1, 90_000), Fraction(30))  # type: ignore[arg-type]


def numbered_item(number: int, info: StreamInfo, pts: int) -> ProcessedFrame:
    rgb = av.VideoFrame.from_ndarray(numbered_image(number, info.width, info.height), "rgb24")
    encoded = rgb.reformat(format=info.pixel_format, dst_colorspace=1, dst_color_range=1)
    planes = [np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width].copy() for p in encoded.planes]
    frame = Frame(tuple(planes), info.pixel_format, info.color, pts, info.time_base, number)  # type: ignore[arg-type]
    return ProcessedFrame(frame, np.zeros((4, 4), np.uint8), frame, info)


def write_frames(sink: FileSink, info: StreamInfo, numbers: range) -> None:
    for number in numbers:
        sink.write(numbered_item(number, info, 3000 * number))


def read_back(path: Path) -> tuple[list[av.VideoFrame], list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return frames, [round(float(frame.pts * frame.time_base), 3) for frame in frames]


@needs_gstreamer
@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_sink_writes_all_frames_at_their_times(tmp_path: Path, ending: str, live: bool) -> None:
    info = info_of((160, 96))
    path = tmp_path / f"out.{ending}"
    sink = video_sink(path, info, codec="gstreamer", live=live)
    stamps = [9000 + 3000 * i + (9000 if i > 4 else 0) for i in range(10)]  # a nonzero start and one gap
    for number, pts in enumerate(stamps):
        sink.write(numbered_item(number, info, pts))
    assert sink.partial_path.exists()
    assert not path.exists()
    sink.close()
    assert not sink.partial_path.exists()
    frames, times = read_back(path)
    expected = [(pts - 9000) / 90_000 for pts in stamps]
    assert np.allclose(np.diff(times), np.diff(expected), atol=0.002)
    assert sink.written == len(frames) == 10
    assert (frames[0].width, frames[0].height) == (160, 96)
    for number, frame in enumerate(frames):
        luma = frame.to_ndarray(format="gray")
        assert sum(1 << bit for bit in range(8) if luma[48, 160 * (2 * bit + 1) // 16] > 127) == number


@needs_gstreamer
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
def test_sink_keeps_colors(tmp_path: Path, pixel_format: str) -> None:
    info = info_of((162, 98), pixel_format)
    sink = video_sink(tmp_path / "out.mp4", info, codec="gstreamer", crf=10)
    for number in range(3):
        sink.write(numbered_item(0, info, 3000 * number))
    sink.close()
    frames, _ = read_back(tmp_path / "out.mp4")
    assert frames[0].colorspace == 1
    rgb = frames[0].to_ndarray(format="rgb24")
    for (x, y), color in {(20, 12): (200, 30, 30), (140, 12): (30, 180, 40), (20, 85): (40, 50, 200)}.items():
        assert np.abs(rgb[y, x].astype(int) - color).max() < 12


@needs_gstreamer
def test_killed_encoder_is_an_error_and_leaves_playable_fragments(tmp_path: Path) -> None:
    info = info_of((160, 96))
    sink = video_sink(tmp_path / "out.mp4", info, codec="gstreamer")
    write_frames(sink, info, range(100))
    deadline = time.monotonic() + 120
    while sink.partial_path.stat().st_size < 3000 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(sink._writer._pipe._process._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    with pytest.raises(SinkError, match=r"out\.mp4: GStreamer ended: it was ended by signal 9"):
        write_frames(sink, info, range(100, 200))
    sink.abort()
    assert len(read_back(sink.partial_path)[0]) >= 25
