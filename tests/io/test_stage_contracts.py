"""Contract tests that all file sources and all file sinks (PyAV and GStreamer) pass."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media import corners_of, fill, info, item, number_of, numbered_frame, read, video_sink, write_video

from rtseg.core.errors import SinkError, SourceError
from rtseg.core.frame import Frame
from rtseg.io.inputs import open_source
from rtseg.io.options import InputOptions
from rtseg.video.verify import Recorder, compare

gstreamer = pytest.mark.system("gst-launch-1.0", "gst-inspect-1.0")
sources = pytest.mark.parametrize("decoder", ["software", pytest.param("gstreamer", marks=gstreamer)])
sinks = pytest.mark.parametrize("codec", [None, pytest.param("gstreamer", marks=gstreamer)])


# Sources


@sources
@pytest.mark.parametrize("size", [(96, 64), (98, 66)])
def test_source_yields_all_frames_in_order_with_their_times(
    tmp_path: Path, decoder: str, size: tuple[int, int]
) -> None:
    source = open_source(write_video(tmp_path / "a video.mp4", frames=20, size=size), InputOptions(decoder=decoder))
    info = source.info
    assert (info.width, info.height, info.pixel_format, info.frame_rate) == (*size, "yuv420p", 25)
    frames = [item for item in source if isinstance(item, Frame)]
    source.close()
    source.close()
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert {corners_of(frame) for frame in frames} == {"RGBY"}
    seconds = [float((frame.pts - frames[0].pts) * frame.time_base) for frame in frames]
    assert seconds == pytest.approx([index / 25 for index in range(20)], abs=1e-4)
    assert all(0 < a.captured_ns <= b.captured_ns for a, b in itertools.pairwise(frames))
    assert source.corrupt == 0
    assert info.codec


@sources
def test_frames_do_not_change_after_they_are_yielded(tmp_path: Path, decoder: str) -> None:
    source = open_source(write_video(tmp_path / "video.mp4", frames=12), InputOptions(decoder=decoder))
    frames = [(frame, [plane.copy() for plane in frame.planes]) for frame in source if isinstance(frame, Frame)]
    source.close()
    for frame, copies in frames:
        assert all(np.array_equal(plane, copy) for plane, copy in zip(frame.planes, copies, strict=True))


@sources
def test_source_reports_color_tags(tmp_path: Path, decoder: str) -> None:
    path = write_video(tmp_path / "video.mp4", frames=3, tags=(1, 1, 1))
    source = open_source(path, InputOptions(decoder=decoder))
    source.close()
    assert (source.info.color.matrix, source.info.color.full_range) == ("bt709", False)


@sources
def test_invalid_input_is_a_one_line_error(tmp_path: Path, decoder: str) -> None:
    (tmp_path / "notes.txt").write_text("milk, bread\n")
    (tmp_path / "list.mp4").write_text("#EXTM3U\nhttp://127.0.0.1:9/secret\n")
    for name in ("missing.mp4", "notes.txt", "list.mp4", "."):
        with pytest.raises(SourceError) as failure:
            open_source(tmp_path / name, InputOptions(decoder=decoder))
        assert "\n" not in str(failure.value)


@sources
@pytest.mark.parametrize("during_read", [True, False])
def test_close_from_another_thread_ends_iteration(tmp_path: Path, decoder: str, during_read: bool) -> None:
    source = open_source(write_video(tmp_path / "video.mp4", frames=200), InputOptions(decoder=decoder))
    frames = iter(source)
    next(frames)
    closer = threading.Thread(target=source.close)
    closer.start()
    if not during_read:
        closer.join(60)
        assert not closer.is_alive()
    assert sum(1 for _ in frames) < 200
    closer.join(60)
    assert not closer.is_alive()
    source.close()


# Sinks


@sinks
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_final_name_appears_when_the_output_is_complete(tmp_path: Path, codec: str | None, ending: str) -> None:
    out = tmp_path / f"out.{ending}"
    out.write_bytes(b"older")
    sink = video_sink(out, info(), codec=codec)
    fill(sink)
    assert sink.partial_path.exists()
    assert out.read_bytes() == b"older"
    written = sink.finish()
    assert out.read_bytes() == b"older"
    assert (written.path, written.frames, written.size) == (sink.partial_path, 10, (96, 64))
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    frames = read(out)
    assert [number_of(frame) for frame in frames] == list(range(10))
    assert {corners_of(frame) for frame in frames} == {"RGBY"}
    assert (sink.name, sink.written) == (out.name, 10)
    assert sink.encoder


@sinks
def test_output_passes_verification(tmp_path: Path, codec: str | None) -> None:
    source = open_source(write_video(tmp_path / "video.mp4", frames=20))
    recorder = Recorder(source.info)
    sink = video_sink(tmp_path / "out.mp4", source.info, codec=codec)
    for element in source:
        recorder.observe(element)
        if isinstance(element, Frame):
            sink.write(item(element))
    report = compare(recorder, sink.finish(), corrupt=0)
    source.close()
    sink.close()
    assert report.problems == ()
    assert report.timestamp_error_ms == pytest.approx(0, abs=1)


@sinks
def test_aborted_sink_leaves_a_playable_partial_file(tmp_path: Path, codec: str | None) -> None:
    sink = video_sink(tmp_path / "out.mp4", info(), codec=codec)
    fill(sink, 30)
    sink.abort()
    sink.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mp4"]
    assert len(read(tmp_path / "out.partial.mp4")) == 30


@sinks
def test_sink_aborted_before_the_first_frame_leaves_nothing(tmp_path: Path, codec: str | None) -> None:
    sink = video_sink(tmp_path / "out.mp4", info(), codec=codec)
    sink.abort()
    sink.abort()
    assert list(tmp_path.iterdir()) == []


@sinks
def test_unwritable_output_is_an_error_before_anything_is_written(tmp_path: Path, codec: str | None) -> None:
    video = write_video(tmp_path / "video.mp4", frames=2)
    before = video.read_bytes()
    video_info = replace(info(), name=str(video))
    refused_outputs = [
        (tmp_path / "missing" / "out.mp4", info(), True),
        (tmp_path / "out.xyz", info(), True),
        (video, info(), False),
        (video, video_info, True),
    ]
    for path, stream_info, overwrite in refused_outputs:
        with pytest.raises(SinkError) as failure:
            video_sink(path, stream_info, codec=codec, overwrite=overwrite)
        assert "\n" not in str(failure.value)
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]
    assert video.read_bytes() == before


@sinks
def test_frames_are_not_resized_and_not_modified(tmp_path: Path, codec: str | None) -> None:
    sink = video_sink(tmp_path / "out.mp4", info(), codec=codec)
    frame = numbered_frame(7)
    before = [plane.copy() for plane in frame.planes]
    sink.write(item(frame))
    assert all(np.array_equal(plane, copy) for plane, copy in zip(frame.planes, before, strict=True))
    with pytest.raises(SinkError, match="128x64"):
        sink.write(item(numbered_frame(1, (128, 64))))
    sink.abort()
