"""Arrival times: streams without timestamps use the arrival of their packets; the others keep their timestamps."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from http_server import HttpServer, http_response
from live_doubles import run_inputs, seconds_in
from live_server import TcpServer, encode_ts, paced
from media import number_of, numbered_image, to_pix_fmt
from test_live_mjpeg import jpeg, part
from test_live_sources import read_until_disconnected, take

from rtseg.core.frame import Color, Frame
from rtseg.io.gstreamer.gdp import BUFFER, Header, RawVideo
from rtseg.io.inputs import byte_stream as transport
from rtseg.io.inputs import connection, network
from rtseg.io.inputs.byte_stream import TcpStream
from rtseg.io.inputs.connection import Connection
from rtseg.io.inputs.gstreamer import GStreamerSource
from rtseg.io.inputs.live_clock import LiveClock
from rtseg.io.inputs.mjpeg import JpegPackets
from rtseg.io.inputs.network import open_stream
from rtseg.live.inputs import find_inputs
from rtseg.live.options import LiveOptions, Outputs


class FakeTime:
    """Replacement of the module `time` whose clock advances only when a packet arrives."""

    perf_counter = staticmethod(time.perf_counter)
    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000_000

    def monotonic_ns(self) -> int:
        return self.now_ns


def raw_h264(frames: int, *, b_frames: int = 0, rate: int = 30, codec: str = "libx264") -> list[bytes]:
    """Return H.264 or HEVC without a container, one item per packet."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt, context.time_base = 96, 64, "yuv420p", Fraction(1, rate)
    context.framerate, context.gop_size = rate, 10
    encoder = {"libx264": "x264-params", "libx265": "x265-params"}[codec]
    threads = "threads=1" if codec == "libx264" else "log-level=none:pools=none:frame-threads=1"
    context.options = {
        "preset": "veryfast",
        encoder: f"bframes={b_frames}:b-adapt=0:scenecut=0:rc-lookahead=0:{threads}",
    }
    packets = []
    for number in range(frames):
        frame = to_pix_fmt(numbered_image(number, 96, 64), "yuv420p", 6, False)
        frame.pts, frame.time_base = number, Fraction(1, rate)
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets + [bytes(packet) for packet in context.encode(None)]


def with_arrivals(
    packets: list[bytes], steps_ms: list[int], monkeypatch: pytest.MonkeyPatch, codec: str
) -> list[Frame]:
    """Return the frames of packets that arrive at these intervals in milliseconds."""
    clock = FakeTime()
    monkeypatch.setattr(connection, "time", clock)
    steps = iter(steps_ms)

    class Arriving:
        time_base, aspect, frame_rate, has_clock, corrupt = Fraction(1, 1_200_000), Fraction(1), None, False, 0
        is_playlist = is_live_playlist = False
        file_seconds = 0.0  # flushes the decoder at the end

        def __init__(self) -> None:
            self.codec = codec
            self.codec_context: Any = av.CodecContext.create(codec, "r")
            self._left = iter(packets)

        def read(self) -> Any:
            data = next(self._left, None)
            if data is None:
                return None
            clock.now_ns += next(steps) * 1_000_000
            packet: Any = av.Packet(data)
            packet.is_keyframe = True
            return packet

        def close(self) -> None: ...

    return [item for item in Connection(Arriving(), "door") if isinstance(item, Frame)]


def distances_ms(frames: list[Frame]) -> list[int]:
    return [round((after.pts_seconds - before.pts_seconds) * 1e3) for before, after in itertools.pairwise(frames)]


@pytest.mark.parametrize(
    ("codec", "b_frames", "steps"),
    [("mjpeg", 0, [0, 66, 67, 200, 10, 66, 1500, 66]), ("h264", 0, [0, *[100, 50] * 10]), ("h264", 2, [50] * 30)],
)
def test_streams_without_timestamps_have_arrival_times_in_display_order(
    codec: str, b_frames: int, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(steps)
    packets = [jpeg(number) for number in range(count)] if codec == "mjpeg" else raw_h264(count, b_frames=b_frames)
    frames = with_arrivals(packets, steps, monkeypatch, codec)
    assert [number_of(frame) for frame in frames] == list(range(count))
    assert distances_ms(frames) == steps[1:]


def test_damaged_frame_does_not_shift_other_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [jpeg(number) for number in range(6)]
    images[2] = images[2][:300]
    frames = with_arrivals(images, [100] * 6, monkeypatch, "mjpeg")
    assert distances_ms(frames) == [100, 200, 100, 100]


def test_stall_without_stream_clock_is_a_gap_of_same_length(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = with_arrivals([jpeg(number) for number in range(5)], [0, 66, 60_000, 66, 66], monkeypatch, "mjpeg")
    clock = LiveClock()
    placed = [clock.place(frame.pts * frame.time_base, frame.captured_ns) for frame in frames]
    assert [after - before for before, after in itertools.pairwise(placed)] == pytest.approx(
        [5940, 5_400_000, 5940, 5940], abs=1
    )
    assert clock.jumps == []


def mjpeg_answer(count: int) -> Iterator[bytes]:
    yield http_response("multipart/x-mixed-replace; boundary=next")
    yield from paced([part(jpeg(number)) for number in range(count)], 0.5)


def test_recording_of_http_mjpeg_has_length_of_stream(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    with HttpServer(lambda _: mjpeg_answer(60)) as server:
        inputs = find_inputs(urls=[f"{server.url}/video"], timeout_seconds=30)
        report = run_inputs(inputs, Outputs(record=str(out)), LiveOptions(reconnect_max_seconds=0))
    seconds = seconds_in(out)
    assert report["frames"]["corrupt"] == 0
    # 60 frames at 15 FPS: 3.9 s, and longer on a busy machine. At the default rate of FFmpeg (25 FPS) it would be 2.4 s.
    assert seconds[-1] - seconds[0] == pytest.approx(report["seconds"], abs=1.0)
    assert seconds[-1] - seconds[0] > 3.2


@pytest.mark.parametrize("scheme", ["tcp", "http"])
def test_raw_h264_from_server_has_arrival_times(scheme: str) -> None:
    packets = raw_h264(45)
    if scheme == "tcp":
        server: TcpServer = TcpServer(lambda _: paced(packets, 0.5))
        url = server.url
    else:
        server = HttpServer(lambda _: itertools.chain([http_response("video/h264")], paced(packets, 0.5)))
        url = f"{server.url}/cam.h264"
    with server:
        source = open_stream(url, timeout_seconds=30)
        assert source.info.frame_rate is None, "the default rate of FFmpeg is not the rate of the stream"
        frames = take(source, 40)
    assert [number_of(frame) for frame in frames] == list(range(40))
    stamped = frames[-1].pts_seconds - frames[0].pts_seconds
    assert stamped == pytest.approx((frames[-1].captured_ns - frames[0].captured_ns) / 1e9, abs=0.01)
    assert stamped > 2.5, "39 frames at 15 FPS take 2.6 s"


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("first", ["parameter set", "SEI", "slice within the stream"])
def test_raw_stream_yields_each_frame_when_next_frame_starts(codec: str, first: str) -> None:
    """The server sends a packet only after the frame before the previous one was decoded."""
    packets, seen = raw_h264(12, codec=codec), threading.Semaphore(2)
    if first == "SEI":
        packets[0] = (
            b"\0\0\0\1\x06\x05\x01\x00\x80" if codec == "libx264" else b"\0\0\0\1\x4e\x01\x05\x01\x00\x80"
        ) + packets[0]
    if first == "slice within the stream":
        packets.insert(0, packets[5])
        seen.release()

    def script(_: int) -> Iterator[bytes]:
        for packet in packets:
            assert seen.acquire(timeout=60)
            yield packet

    with TcpServer(script) as server:
        source = open_stream(server.url, timeout_seconds=30)
        numbers = []
        for frame in itertools.islice(source, 11):
            assert isinstance(frame, Frame)
            numbers.append(number_of(frame))
            seen.release()
        source.close()
    assert numbers == list(range(11))


def test_decoder_is_flushed_at_end_of_stream() -> None:
    with TcpServer(lambda _: raw_h264(20, b_frames=2)) as server:
        frames, message = read_until_disconnected(open_stream(server.url, timeout_seconds=30))
    assert "ended" in message
    assert [number_of(frame) for frame in frames] == list(range(20))


def test_raw_stream_may_open_slower_than_time_limit() -> None:
    """Six frames take longer than the time limit; each interval is within the limit."""
    with TcpServer(lambda _: paced(raw_h264(8), 1 / 60)) as server:
        source = open_stream(server.url, timeout_seconds=8)
        frames = take(source, 6)
    assert [number_of(frame) for frame in frames] == list(range(6))
    assert frames[-1].pts_seconds - frames[0].pts_seconds > 9.5


def test_stream_with_clock_keeps_its_timestamps() -> None:
    with TcpServer(lambda _: paced(encode_ts(30), 3)) as server:
        source = open_stream(server.url, timeout_seconds=30)
        frames = take(source, 25)
    assert frames[-1].pts_seconds - frames[0].pts_seconds == pytest.approx(24 / 30, abs=0.001)
    assert source.info.frame_rate == 30


def test_frames_received_during_open_keep_their_arrival_times(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks, clock = encode_ts(20), FakeTime()

    class Slow(TcpStream):
        """Source of one frame every 400 ms of the fake clock."""

        def _open(self, *_: object) -> Any:
            remaining = iter(chunks)

            class Body:
                rest = b""

                def read1(self, count: int) -> bytes:
                    if not self.rest:
                        clock.now_ns += 400_000_000
                        self.rest = next(remaining, b"")
                    data, self.rest = self.rest[:count], self.rest[count:]
                    return data

            return Body()

    for module in (transport, connection):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(network, "TcpStream", Slow)
    begin = clock.now_ns
    source = open_stream("tcp://127.0.0.1:9", timeout_seconds=60)
    opened = clock.now_ns
    frames = take(source, 12)
    assert [number_of(frame) for frame in frames] == list(range(12))
    arrivals = [(frame.captured_ns - begin) // 400_000_000 for frame in frames]
    early = [step for step in arrivals if step <= (opened - begin) // 400_000_000]
    assert early[:2] == [1, 2], "each of the first frames has the time of its chunk"
    assert arrivals == sorted(set(arrivals)), "all arrival times differ"


def test_mjpeg_over_tcp() -> None:
    with TcpServer(lambda _: paced([jpeg(number) for number in range(10)], 4 / 3)) as server:
        source = open_stream(server.url, timeout_seconds=30)
        assert isinstance(source._packets, JpegPackets)
        frames = take(source, 10)
    assert [number_of(frame) for frame in frames] == list(range(10))
    assert frames[-1].pts_seconds - frames[0].pts_seconds > 0.15


def test_gstreamer_frames_without_timestamp_use_arrival_time() -> None:
    """Frames with and without timestamps may be mixed in one stream."""
    source = GStreamerSource.__new__(GStreamerSource)
    source._live, source._last_time, source._begin_ns, source._last_pts, source._index = True, None, None, -1, 0
    source._video = video = RawVideo(16, 16, Color("bt601", full_range=False))
    data = np.zeros(video.size, np.uint8)
    times = [None, None, 500, 600, None, 800, 900]
    frames = [
        source._frame(
            Header(BUFFER, video.size, None if ms is None else ms * 1_000_000, None),
            data,
            7_000_000_000_000 + number * 100_000_000,
        )
        for number, ms in enumerate(times)
    ]
    clock = LiveClock()
    placed = [clock.place(frame.pts * frame.time_base, frame.captured_ns) for frame in frames]
    assert [after - before for before, after in itertools.pairwise(placed)] == [9000] * 6
    assert len(clock.jumps) <= 1, "at most one jump, at the first timestamp"
