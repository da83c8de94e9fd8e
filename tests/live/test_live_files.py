"""Files over HTTP: played once at their own frame rate, then the run ends."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from command import MODEL
from http_server import HttpServer, file_response, http_response
from live_doubles import run_inputs
from live_server import TcpServer
from media import number_of, numbered_image, read, to_pix_fmt, write_video
from test_live_arrival import raw_h264
from typer.testing import CliRunner

from rtseg.cli.app import app
from rtseg.core.errors import Disconnected, SourceError
from rtseg.core.frame import Frame
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs import open_source
from rtseg.io.inputs.byte_stream import HttpResponse
from rtseg.io.inputs.http_file import HttpFile
from rtseg.io.inputs.network import open_stream
from rtseg.io.options import OutputOptions
from rtseg.live.controls import Controls
from rtseg.live.inputs import find_inputs
from rtseg.live.options import LiveOptions, Outputs
from rtseg.live.reconnect import ReconnectingSource
from rtseg.live.run import run_live
from rtseg.live.sinks.push import PushSink
from rtseg.render.style import Style
from rtseg.video.process import process


def read_all(url: str, pause: float = 30) -> tuple[list[Frame], ReconnectingSource, list[str]]:
    """Return the frames of a URL, the source, and its log."""
    log: list[str] = []
    source = find_inputs(urls=[url], timeout_seconds=20)[0].source(pause, log.append)
    assert isinstance(source, ReconnectingSource)
    frames = [frame for frame in source if isinstance(frame, Frame)]
    return frames, source, log


@pytest.mark.parametrize(
    ("kind", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("ts", "libx264"), ("wmv", "mpeg4")]
)
def test_http_file_plays_once_at_its_own_frame_rate(tmp_path: Path, kind: str, codec: str) -> None:
    data = write_video(tmp_path / f"x.{kind}", frames=30, rate=20, codec=codec).read_bytes()
    with HttpServer(lambda request: file_response(request, data)) as server:
        begin = time.monotonic()
        frames, source, log = read_all(f"{server.url}/x.{kind}")
        took = time.monotonic() - begin
    assert [number_of(frame) for frame in frames] == list(range(30))
    assert took >= 29 / 20
    assert frames[-1].pts_seconds == pytest.approx(29 / 20, abs=0.002)
    assert source.disconnects.count == 0
    assert len(log) == 1
    assert "is a file" in log[0]
    assert "once" in log[0]


class Http11Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with ranges and without a Connection header, like embedded servers."""

    protocol_version = "HTTP/1.1"
    data = b""
    stays = True

    def do_GET(self) -> None:
        begin = int(self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")[0])
        self.send_response(206 if "Range" in self.headers else 200)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(self.data) - begin))
        self.end_headers()
        self.wfile.write(self.data[begin:])
        self.close_connection = self.close_connection or not self.stays

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("stays", [True, False])
@pytest.mark.parametrize(("name", "codec"), [("x.mp4", "libx264"), ("x.mov", "mjpeg"), ("x.avi", "libx264")])
def test_server_without_connection_header_yields_each_frame(tmp_path: Path, name: str, codec: str, stays: bool) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, frames=30, rate=50, size=(320, 240), codec=codec, pix_fmt=pix_fmt)
    handler = type("Handler", (Http11Handler,), {"data": path.read_bytes(), "stays": stays})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        frames, source, log = read_all(f"http://127.0.0.1:{server.server_port}/{name}")
        server.shutdown()
    assert [number_of(frame) for frame in frames] == list(range(30))
    assert source.disconnects.count == 0
    assert len(log) == 1


def test_http_file_may_be_read_slowly() -> None:
    data = bytes(range(256)) * (1 << 15)  # larger than the socket buffers
    with HttpServer(lambda request: file_response(request, data)) as server:
        file = HttpFile(HttpResponse(server.url, "x", 60), server.url, 60)
        read = file.read(1000)
        file.set_time_limit(0.01)
        time.sleep(0.1)
        file.set_time_limit(60)
        while piece := file.read(1 << 20):
            read += piece
        assert file.failure is None
        file.close()
    assert read == data


def test_unannounced_range_support_is_used(tmp_path: Path) -> None:
    """A server that sends another range than the requested one is reported."""
    path = write_video(tmp_path / "x.mp4", frames=10, rate=50, size=(320, 240), codec="mjpeg", pix_fmt="yuvj420p")
    data = path.read_bytes() + (1 << 19).to_bytes(4, "big") + b"free" + bytes((1 << 19) - 8)
    index = data.index(b"moov") - 4
    data = data[:index] + (1 << 19).to_bytes(4, "big") + b"free" + bytes((1 << 19) - 8) + data[index:]
    wrong = False

    def answer(request: str) -> Iterator[bytes]:
        _, body = file_response(request, data)
        if "range:" in request.lower():
            begin = len(data) - len(body)
            span = f"Content-Range: bytes {begin + wrong}-{len(data) - 1}/{len(data)}"
            yield http_response("video/mp4", "206 Partial Content", f"Content-Length: {len(body)}", span)
        else:
            yield http_response("video/mp4", "200 OK", f"Content-Length: {len(data)}")
        yield body

    with HttpServer(answer) as server:
        assert [number_of(frame) for frame in read_all(f"{server.url}/x.mp4")[0]] == list(range(10))
        wrong = True
        with pytest.raises(Disconnected, match="does not send"):
            open_stream(f"{server.url}/x.mp4", timeout_seconds=20)


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov+default_base_moof", "frag_keyframe", "frag_keyframe+dash"])
def test_length_of_fragmented_file_is_not_that_of_first_fragment(tmp_path: Path, flags: str) -> None:
    """Without range support FFmpeg sees only the first fragment before playback."""
    with av.open(str(tmp_path / "x.mp4"), "w", container_options={"movflags": flags}) as container:
        stream = container.add_stream("mjpeg", rate=50)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuvj420p"
        for number in range(20):
            frame = to_pix_fmt(numbered_image(number, 320, 240), "yuvj420p", 5, True)
            frame.pts, frame.time_base = number, Fraction(1, 50)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = (tmp_path / "x.mp4").read_bytes()
    assert data.count(b"moof") > 5
    with HttpServer(
        lambda _: iter([http_response("video/mp4", "200 OK", f"Content-Length: {len(data)}"), data])
    ) as server:
        frames, source, log = read_all(f"{server.url}/x.mp4")
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert source.disconnects.count == 0
    assert len(log) == 1
    assert "is a file: played once" in log[0]


B_FRAMES = [
    ("x.mpg", "mpeg2video", None),
    ("x.vob", "mpeg2video", "vob"),
    ("x.mpg", "mpeg1video", "mpeg"),
    ("x.ts", "mpeg2video", None),
    ("x.avi", "mpeg4", None),
    ("x.mkv", "mpeg4", None),
    ("x.avi", "libx264", None),
]


@pytest.mark.parametrize(("name", "codec", "container"), B_FRAMES)
def test_http_file_with_b_frames_keeps_all_frames_in_order(
    tmp_path: Path, name: str, codec: str, container: str | None
) -> None:
    options = {} if codec == "libx264" else {"qscale": "2"}
    path = write_video(
        tmp_path / name, frames=30, rate=50, codec=codec, container=container, b_frames=2, options=options
    )
    data = path.read_bytes()
    with av.open(str(path)) as plain:
        assert PictureType.B in {frame.pict_type for frame in plain.decode(video=0)}
    with HttpServer(lambda request: file_response(request, data)) as server:
        frames, source, log = read_all(f"{server.url}/{name}")
    assert [number_of(frame) for frame in frames] == list(range(30))
    assert frames[-1].pts_seconds == pytest.approx(29 / 50, abs=1.1 / 50)
    assert source.corrupt == 0
    assert len(log) == 1


@pytest.mark.parametrize("offset", ["0", "500"])
def test_http_file_with_clock_jumps_plays_to_its_end(tmp_path: Path, offset: str) -> None:
    """A file of concatenated recordings, each with its own clock, like an HLS playlist with discontinuities."""
    first = write_video(tmp_path / "a.ts", frames=30, rate=50)
    options = {"output_ts_offset": offset}
    second = write_video(tmp_path / "b.ts", frames=20, rate=50, container_options=options)
    data = first.read_bytes() + second.read_bytes() + first.read_bytes()
    with HttpServer(lambda request: file_response(request, data)) as server:
        frames, _, log = read_all(f"{server.url}/x.ts")
    assert [number_of(frame) for frame in frames] == [*range(30), *range(20), *range(30)]
    assert frames[-1].pts_seconds == pytest.approx(79 / 50, abs=0.2)
    assert len(log) == 1


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
def test_live_stream_with_b_frames_is_in_order(tmp_path: Path, codec: str) -> None:
    path = write_video(tmp_path / "x.ts", frames=30, codec=codec, b_frames=2, options={"qscale": "2"})
    with TcpServer(lambda _: iter([path.read_bytes()])) as server:
        source = find_inputs(urls=[server.url], timeout_seconds=20)[0].source(0, lambda _: None)
        assert [number_of(frame) for frame in source if isinstance(frame, Frame)] == list(range(30))


def test_chunked_mp4_without_length_is_a_file(tmp_path: Path) -> None:
    data = write_video(tmp_path / "x.mp4", frames=10, rate=30, container_options={"movflags": "faststart"}).read_bytes()

    def answer(_: str) -> Iterator[bytes]:
        yield http_response("video/mp4", "200 OK", "Transfer-Encoding: chunked")
        for begin in range(0, len(data), 700):
            piece = data[begin : begin + 700]
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
        yield b"0\r\n\r\n"

    with HttpServer(answer) as server:
        frames, source, _ = read_all(server.url)
    assert [number_of(frame) for frame in frames] == list(range(10))
    assert source.disconnects.count == 0


@pytest.mark.parametrize("length", [True, False])
def test_fragmented_mp4_without_length_is_live(tmp_path: Path, length: bool) -> None:
    """This is what go2rtc and `ffmpeg -listen` send."""
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    data = write_video(tmp_path / "x.mp4", frames=20, rate=20, gop=5, container_options=fragments).read_bytes()
    again = threading.Event()

    def answer(_: str) -> Iterator[bytes]:
        if again.is_set():
            yield http_response("text/html", "404 Not Found", "Content-Length: 0")
        else:
            again.set()
            yield http_response("video/mp4", "200 OK", *([f"Content-Length: {len(data)}"] if length else []))
            yield data

    with HttpServer(lambda request: file_response(request, data) if length else answer(request)) as server:
        frames, source, log = read_all(f"{server.url}/x.mp4", pause=0)
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert frames[-1].pts_seconds - frames[0].pts_seconds == pytest.approx(19 / 20, abs=0.002)
    assert source.disconnects.count == (0 if length else 1)
    assert ("is a file" if length else "the stream ended") in log[-1]
    assert len(log) == 1


def test_run_on_http_file_ends_without_failure(tmp_path: Path) -> None:
    data = write_video(tmp_path / "x.mp4", frames=15, rate=30).read_bytes()
    with HttpServer(lambda request: file_response(request, data)) as server:
        inputs = find_inputs(urls=[f"{server.url}/x.mp4"], realtime=True, timeout_seconds=20)
        report = run_inputs(inputs, Outputs(record=str(tmp_path / "out.mp4")), LiveOptions(every_frame=True))
    assert report["failed"] == []
    assert report["frames"]["segmented"] == report["frames"]["written"] == report["frames"]["read"] == 15


@pytest.mark.parametrize("smooth", [0.0, 0.3])
def test_live_and_video_give_identical_class_maps_and_frames(tmp_path: Path, smooth: float) -> None:
    path = write_video(tmp_path / "x.mkv", frames=25, rate=30)
    options = OutputOptions("ffv1")
    with Segmenter(MODEL, size=(96, 64), smooth=smooth) as segmenter:
        process(str(path), str(tmp_path / "v.mkv"), segmenter, Style(), options, masks=str(tmp_path / "v"))
        inputs = find_inputs(urls=[str(path)], realtime=True)
        outputs = Outputs(show=("none",), record=str(tmp_path / "l.mkv"), codec="ffv1", masks=str(tmp_path / "l"))
        run_live(inputs, outputs, [segmenter], Style(), Controls(), LiveOptions(every_frame=True))
    names = sorted(file.name for file in (tmp_path / "v").glob("*.png"))
    assert len(names) == 25
    assert names == sorted(file.name for file in (tmp_path / "l").glob("*.png"))
    for name in names:
        assert (tmp_path / "l" / name).read_bytes() == (tmp_path / "v" / name).read_bytes(), name
    for one, other in zip(read(tmp_path / "v.mkv"), read(tmp_path / "l.mkv"), strict=True):
        for plane, expected in zip(one.planes, other.planes, strict=True):
            assert np.array_equal(plane, expected)


def test_push_without_receiver_reports_dropped_frames(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rtseg.live")
    data = write_video(tmp_path / "x.mp4", frames=15, rate=30).read_bytes()
    with HttpServer(lambda request: file_response(request, data)) as server:
        inputs = find_inputs(urls=[f"{server.url}/x.mp4"], timeout_seconds=20)
        outputs = Outputs(push=("rtmp://127.0.0.1:1/live/s3cret",))
        report = run_inputs(inputs, outputs, LiveOptions(every_frame=True))
    sink = report["sinks"]["rtmp://127.0.0.1:1"]
    assert sink["written"] == 0
    assert len(sink["warnings"]) == 1
    assert re.search(r"disconnects?; last reason: ", sink["warnings"][0])
    assert sink["dropped"] == 15
    messages = caplog.text
    assert f"note: {sink['warnings'][0]}" in messages
    assert "s3cret" not in messages


def test_push_to_unresponsive_receiver_is_reported_without_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, never: threading.Event
) -> None:
    caplog.set_level("INFO", "rtseg.live")

    def connect(*_: Any) -> Any:
        never.wait(60)
        raise OSError

    monkeypatch.setattr(PushSink, "_connect", connect)
    monkeypatch.setattr("rtseg.live.loop.DRAIN_SECONDS", 1.2)
    path = write_video(tmp_path / "x.mp4", frames=5, rate=30)
    inputs = find_inputs(urls=[str(path)], realtime=True)
    report = run_inputs(inputs, Outputs(push=("rtmp://127.0.0.1:1/live/s3cret",)))
    assert report["failed"] == []
    assert report["sinks"]["rtmp://127.0.0.1:1"]["written"] == 0
    messages = caplog.text
    assert re.search(r"note: rtmp://127.0.0.1:1: the receiver has accepted no data for \d+ s", messages)
    assert "partial" not in messages


def test_run_starts_file_after_the_model_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "x.mp4", frames=15, rate=30)
    prepared_ns, captured_ns = [], []
    segment = Segmenter.segment

    def prepare(*_: object) -> None:
        time.sleep(0.3)  # a file that plays meanwhile fails the test
        prepared_ns.append(time.monotonic_ns())

    def record_segment(segmenter: Segmenter, frame: Frame, *options: Any) -> Any:
        captured_ns.append(frame.captured_ns)
        return segment(segmenter, frame, *options)

    monkeypatch.setattr(Segmenter, "prepare", prepare)
    monkeypatch.setattr(Segmenter, "segment", record_segment)
    report = run_inputs(find_inputs(urls=[str(path)], realtime=True), options=LiveOptions(every_frame=True))
    assert report["failed"] == []
    assert report["frames"]["segmented"] == len(captured_ns) == 15
    assert min(captured_ns) > max(prepared_ns)


@pytest.mark.parametrize(
    ("name", "local"),
    [("x.mp4", True), ("x.mp4", False), ("x.ts", False), ("x.avi", True), ("x.avi", False), ("x.h264", False)],
)
def test_file_starts_when_model_is_ready(tmp_path: Path, name: str, local: bool) -> None:
    if name == "x.h264":
        data = b"".join(raw_h264(5))
    else:
        data = write_video(tmp_path / name, frames=5, rate=30).read_bytes()
    ready = threading.Event()
    frames: list[Any] = []
    with HttpServer(lambda request: file_response(request, data)) as server:
        url = str(tmp_path / name) if local else f"{server.url}/{name}"
        source = find_inputs(urls=[url], realtime=True, timeout_seconds=20)[0].source(30, lambda _: None, ready)
        reading = threading.Thread(target=lambda: frames.extend(source), daemon=True)
        reading.start()
        assert source.connect_attempted.wait(60)
        assert source.info.width == 96
        reading.join(0.3)
        assert not frames
        set_ns = time.monotonic_ns()
        ready.set()
        reading.join(60)
    assert [number_of(frame) for frame in frames] == list(range(5))
    assert frames[0].captured_ns >= set_ns, "the age excludes the time that the model took to load"


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("rate", [10, 50])
def test_raw_h264_file_plays_at_rate_in_its_headers(tmp_path: Path, rate: int, b_frames: int) -> None:
    path, data = tmp_path / "x.h264", b"".join(raw_h264(20, b_frames=b_frames, rate=rate))
    path.write_bytes(data)
    with HttpServer(lambda request: file_response(request, data)) as server:
        for source in (open_stream(f"{server.url}/x.h264", timeout_seconds=30), open_source(path)):
            frames = [frame for frame in source if isinstance(frame, Frame)]
            source.close()
            assert [number_of(frame) for frame in frames] == list(range(20))
            assert source.info.frame_rate == rate
            assert [round(frame.pts_seconds * rate, 3) for frame in frames] == list(range(20))


def test_avi_without_length_is_refused_with_advice(tmp_path: Path) -> None:
    data = write_video(tmp_path / "x.avi", frames=20, rate=25).read_bytes()
    with (
        HttpServer(lambda _: iter([http_response("video/avi"), data])) as server,
        pytest.raises(SourceError, match="not a video that rtseg reads over http; download it"),
    ):
        open_stream(f"{server.url}/x.avi", timeout_seconds=30)


def test_http_file_continues_at_same_position_after_disconnect(tmp_path: Path) -> None:
    data = write_video(tmp_path / "x.mkv", frames=60, rate=30, size=(320, 240)).read_bytes()
    broken = threading.Event()

    def answer(request: str) -> Iterator[bytes]:
        chunks = file_response(request, data, "video/x-matroska")
        yield next(chunks)
        rest = next(chunks)
        if not broken.is_set() and len(rest) == len(data):
            broken.set()
            yield rest[: len(rest) // 2]
        else:
            yield rest

    with HttpServer(answer) as server:
        frames, source, log = read_all(f"{server.url}/x.mkv")
    assert broken.is_set()
    numbers = [number_of(frame) for frame in frames]
    assert numbers == list(range(60))
    assert source.disconnects.count == 1
    assert "reconnecting" in "".join(log)


@pytest.mark.parametrize("between", [0, 400_000])
@pytest.mark.parametrize("length", [True, False])
def test_index_at_end_without_range_support_is_reported(tmp_path: Path, between: int, length: bool) -> None:
    """A small file plays, because FFmpeg reads to the index and seeks back within its buffer."""
    data = write_video(tmp_path / "x.mov", frames=3).read_bytes()
    at = data.index(b"moov") - 4
    assert at > data.index(b"mdat")
    if between:
        data = data[:at] + between.to_bytes(4, "big") + b"free" + bytes(between - 8) + data[at:]

    def answer(_: str) -> Iterator[bytes]:
        yield http_response("video/quicktime", "200 OK", *([f"Content-Length: {len(data)}"] if length else []))
        yield data

    with HttpServer(answer) as server:
        if not between:
            assert len(read_all(f"{server.url}/x.mov")[0]) == 3
            return
        with pytest.raises(Disconnected, match=r"does not send parts of files .* download it, and use `rtseg video`"):
            open_stream(f"{server.url}/x.mov", timeout_seconds=20)


def test_http_file_is_given_up_after_disconnects_at_same_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_video(tmp_path / "x.ts", frames=90, rate=30).read_bytes()
    monkeypatch.setattr("rtseg.live.reconnect.FIRST_PAUSE_SECONDS", 0.01)

    def answer(request: str) -> Iterator[bytes]:
        head, body = file_response(request, data)
        yield head
        yield body[: max(0, len(data) // 2 - (len(data) - len(body)))]  # never more than the first half

    with HttpServer(answer) as server:
        inputs = find_inputs(urls=[f"{server.url}/x.ts"], timeout_seconds=20)
        report = run_inputs(inputs, options=LiveOptions(every_frame=True))
    assert len(report["failed"]) == 1
    assert "x.ts: the " in report["failed"][0]
    assert 30 <= report["frames"]["read"] < 60


def test_video_command_with_url_suggests_live_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["video", "http://me:s3cret@127.0.0.1:1/x.mp4", "--model", str(MODEL)])
    assert result.exit_code == 1
    assert "rtseg live --url" in result.output
    assert "s3cret" not in result.output
    assert list(tmp_path.iterdir()) == []
