"""GStreamer pipeline descriptions, and packets of the GStreamer Data Protocol. Most tests need no GStreamer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rtseg.core.errors import OptionError, SinkError, SourceError
from rtseg.core.frame import Color, Frame
from rtseg.io.gstreamer import gdp, pipelines
from rtseg.io.gstreamer.process import explain, words_of

needs_gstreamer = pytest.mark.system("gst-launch-1.0", "gst-inspect-1.0")

JETSON = {"nvvidconv", "nvarguscamerasrc", "nvv4l2decoder", "nvv4l2h264enc", "srtsrc", "srtsink"}
ORIN_NANO = JETSON - {"nvv4l2h264enc"} | {"x264enc"}
PC = {"x264enc", "srtsrc", "srtsink"}


@pytest.mark.parametrize("pipeline", ["", "   ", "videotestsrc ! 'video/x-raw"])
def test_invalid_pipeline_is_an_option_error(pipeline: str) -> None:
    with pytest.raises(OptionError, match="GStreamer pipeline"):
        words_of(pipeline)


def test_gst_launch_output_is_explained_in_one_line() -> None:
    output = [
        "GST_ARGUS: Creating output stream",
        "ERROR: from element /GstPipeline:pipeline0/GstRTSPSrc:rtspsrc0: Could not open resource.",
        "Additional debug info:",
        "../gst/rtsp/gstrtspsrc.c(7893): gst_rtspsrc_retrieve_sdp (): /GstPipeline:pipeline0/GstRTSPSrc:rtspsrc0:",
        "Failed to connect to rtsp://me:secret@camera/1. (Generic error)",
        "ERROR: pipeline doesn't want to preroll.",
    ]
    assert explain(output, 1) == "Could not open resource. Failed to connect to rtsp://***"
    assert explain([], -11) == "it was ended by signal 11"
    assert explain(["nvbuf_utils: dmabuf_fd -1"], 0) == "the stream ended"


# Pipelines


@pytest.fixture
def elements(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[str]], None]:
    """Set the elements of GStreamer that are installed."""
    return lambda names: monkeypatch.setattr(pipelines, "has_element", names.__contains__)


def test_csi_pipeline_uses_argus_on_jetson_and_is_refused_elsewhere(elements: Callable[[set[str]], None]) -> None:
    elements(JETSON)
    assert pipelines.csi_pipeline(1, (1920, 1080), 29.97) == (
        "nvarguscamerasrc sensor-id=1 ! "
        "'video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=2997/100'"
    )
    elements(PC)
    with pytest.raises(SourceError, match="nvarguscamerasrc"):
        pipelines.csi_pipeline(0, None, None)


def test_pipeline_that_writes_to_a_pipe_converts_the_pixel_format(elements: Callable[[set[str]], None]) -> None:
    pipe_sink = "gdppay ! fdsink fd=7 sync=false"
    elements(JETSON)
    on_jetson = pipelines.to_pipe("v4l2src", 7)
    assert on_jetson == f"v4l2src ! nvvidconv ! video/x-raw,format=I420 ! {pipe_sink}"
    elements(PC)
    on_pc = pipelines.to_pipe("v4l2src ! ", 7)
    assert on_pc == f"v4l2src ! videoconvert ! video/x-raw,format=I420 ! {pipe_sink}"


def test_decoder_pipeline_uses_the_available_elements(elements: Callable[[set[str]], None]) -> None:
    elements(JETSON)
    assert pipelines.file_pipeline("a b.mp4") == "filesrc location='a b.mp4' ! parsebin ! nvv4l2decoder"
    elements(PC)
    assert pipelines.file_pipeline("a.mp4") == "filesrc location=a.mp4 ! decodebin"
    assert pipelines.srt_pipeline("srt://cam:9000?latency=50") == (
        "srtsrc uri='srt://cam:9000?latency=50' ! tsdemux latency=0 ! decodebin"
    )


def test_encoder_pipeline_uses_the_available_elements(elements: Callable[[set[str]], None]) -> None:
    elements(JETSON)
    jetson = pipelines.encoder(Fraction(30))
    assert jetson.chain == (
        "nvvidconv ! 'video/x-raw(memory:NVMM),format=NV12' ! nvv4l2h264enc bitrate=8000000 iframeinterval=30 "
        "idrinterval=30 insert-sps-pps=true maxperf-enable=true ! h264parse"
    )
    elements(ORIN_NANO)
    nano = pipelines.encoder(Fraction(30))
    assert nano.name == "x264enc"
    elements(set())
    with pytest.raises(SinkError, match=r"no H\.264 encoder"):
        pipelines.encoder(Fraction(30))
    assert pipelines.to_file("o.mp4", jetson).startswith(
        "fdsrc fd=0 ! gdpdepay ! queue max-size-buffers=2 ! nvvidconv !"
    )


@needs_gstreamer
def test_dry_run_prints_a_command_that_runs(tmp_path: Path) -> None:
    pipeline = pipelines.to_pipe("videotestsrc num-buffers=2 ! video/x-raw,width=160,height=96", 1)
    line = pipelines.command_line(pipeline)
    assert line.startswith("gst-launch-1.0 -q --no-fault videotestsrc")
    process = subprocess.run(["bash", "-c", line], check=True, capture_output=True, timeout=150)
    assert len(process.stdout) > 2 * (160 * 96 * 3 // 2)


# Packets


@pytest.mark.parametrize(
    ("colorimetry", "matrix", "full_range", "tags"),
    [
        ("bt601", "bt601", False, (6, 6, 6, 1)),
        ("bt709", "bt709", False, (1, 1, 1, 1)),
        ("bt2020", "bt2020", False, (9, 9, 15, 1)),
        ("1:4:0:0", "bt601", True, (6, 2, 2, 2)),
        ("", "bt601", False, (2, 2, 2, 0)),
    ],
)
def test_colorimetry_is_parsed_and_written(
    colorimetry: str, matrix: str, full_range: bool, tags: tuple[int, int, int, int]
) -> None:
    text = "video/x-raw, format=(string)I420, width=(int)640, height=(int)480, framerate=(fraction)30000/1001"
    video = gdp.read_caps(text + (f", colorimetry=(string){colorimetry}" if colorimetry else "") + ";\0")
    color = video.color
    assert (color.matrix, color.full_range) == (matrix, full_range)
    assert (color.space_tag, color.primaries_tag, color.transfer_tag, color.range_tag) == tags
    assert video.frame_rate == Fraction(30000, 1001)
    assert gdp.read_caps(video.caps()).color.matrix == matrix


@pytest.mark.parametrize("size", [(160, 96), (161, 97), (2, 2), (1, 1), (6, 3)])
def test_planes_are_views_of_the_frame(size: tuple[int, int]) -> None:
    video = gdp.RawVideo(*size, Color("bt709", False))
    data = np.zeros(video.size, np.uint8)
    planes = video.planes(data)
    Frame(planes, "yuv420p", video.color, 0, Fraction(1), 0)  # raises if a shape is wrong
    for value, plane in enumerate(planes, 1):
        plane[:] = value
    assert [np.count_nonzero(data == value) for value in (1, 2, 3)] == [plane.size for plane in planes]


def test_invalid_packets_are_refused() -> None:
    with pytest.raises(ValueError, match="Data Protocol"):
        gdp.read_header(b"GST_ARGUS: Creating output stream".ljust(62))
    with pytest.raises(ValueError, match="not in raw video"):
        gdp.read_caps("video/x-h264, stream-format=(string)byte-stream")
    with pytest.raises(ValueError, match="raw video that rtseg does not support"):
        gdp.read_caps("video/x-raw, format=(string)P010_10LE, width=(int)64, height=(int)64")
