"""Protocols of `rtseg live --url`, tested with servers on loopback."""

from __future__ import annotations

import functools
import http.server
import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from live_server import TcpServer, encode_ts, free_port, paced
from media import number_of, rgb_at
from rtmp_server import RtmpServer, encode_flv
from test_live_sources import rising, take
from test_push import rendered

from rtseg.core.errors import Disconnected, SourceError
from rtseg.io.inputs.network import open_stream
from rtseg.live.inputs import find_inputs
from rtseg.live.reconnect import ReconnectingSource
from rtseg.live.sinks.push import PushSink


def opened(url: str) -> ReconnectingSource:
    """Open a URL like `rtseg live --url`."""
    source = find_inputs(urls=[url], timeout_seconds=5)[0].source(30, print)
    assert isinstance(source, ReconnectingSource)
    return source


def numbers(source: ReconnectingSource, count: int) -> list[int]:
    frames = take(source, count)
    assert rising(frames)
    return [number_of(frame) for frame in frames]


def test_mpeg_ts_over_http() -> None:
    answer = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"
    with TcpServer(lambda _: itertools.chain([answer], paced(encode_ts(40), 2))) as server:
        assert numbers(opened(f"http://127.0.0.1:{server.port}/cam"), 30) == list(range(30))


@contextmanager
def playlist(folder: Path) -> Iterator[str]:
    """Serve the files of a folder over HTTP and yield the address."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_growing_hls_playlist_yields_all_frames(tmp_path: Path) -> None:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]

    def grow(part: int) -> None:
        begin = part * 10
        data = b"".join(encode_ts(10, first=begin, start_seconds=begin / 30))
        (tmp_path / f"{part}.ts").write_bytes(data)
        lines.extend(("#EXTINF:0.333,", f"{part}.ts"))
        (tmp_path / "new").write_text("\n".join(lines) + "\n")
        (tmp_path / "new").replace(tmp_path / "cam.m3u8")

    grow(0)
    grow(1)
    grow(2)
    with playlist(tmp_path) as address:
        source = opened(f"{address}/cam.m3u8")
        seen = []
        for frame in source:
            seen.append(number_of(frame))
            if len(seen) in (15, 25):  # the last frames of a part come with the next one
                grow(len(seen) // 10 + 2)
            if len(seen) == 40:
                break
        source.close()
    assert seen == list(range(40))


def test_rtmp_stream() -> None:
    with RtmpServer(lambda _: paced(encode_flv(40), 2)) as server:
        assert numbers(opened(server.url), 30) == list(range(30))


@pytest.mark.system("gst-launch-1.0")
@pytest.mark.parametrize(
    "entry", [{"urls": ["srt://127.0.0.1:9"]}, {"pipelines": ["appsrc ! video/x-raw,format=I420,width=8,height=8"]}]
)
def test_timeout_applies_to_gstreamer_sources(entry: dict[str, list[str]]) -> None:
    (silent,) = find_inputs(**entry, timeout_seconds=0.4)  # type: ignore[arg-type]
    with pytest.raises(Disconnected, match=r"no data for 0\.4 s"):
        silent.connect()


@pytest.mark.system("gst-launch-1.0")
def test_srt_through_gstreamer() -> None:
    port = free_port(socket.SOCK_DGRAM)
    sink, stop = PushSink(f"srt://127.0.0.1:{port}?mode=listener"), threading.Event()

    def send() -> None:
        number = 0
        while not stop.wait(0.02):
            sink.write(rendered(number))
            number += 1

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    source = opened(f"srt://127.0.0.1:{port}")
    frames = take(source, 5)
    stop.set()
    sender.join(60)
    sink.close()
    assert [(frame.width, frame.height) for frame in frames] == [(160, 96)] * 5
    assert np.abs(np.subtract(rgb_at(frames[-1], 20, 12), (200, 30, 30))).max() < 14


@pytest.mark.parametrize("url", ["rtsp://me:s3cret@127.0.0.1:0/v", "rtmp://127.0.0.1:0/v/x"])
def test_unreachable_address_error_does_not_suggest_download(url: str) -> None:
    with pytest.raises(
        SourceError, match=r"nothing can be reached at this address, or .*check host and port"
    ) as caught:
        open_stream(url, timeout_seconds=5)
    assert "s3cret" not in str(caught.value)
    assert "download" not in str(caught.value)
