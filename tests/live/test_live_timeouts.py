"""Timeouts of live sources: silent and trickling servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from http_server import HttpServer, http_response
from live_server import RtspServer, TcpServer, encode_ts
from rtmp_server import RtmpServer

from rtseg.core.errors import Disconnected, SourceError
from rtseg.io.inputs.network import open_stream


def trickle(data: bytes) -> Iterator[bytes]:
    """Yield one byte every 0.2 s: below any timeout, and practically without end."""
    for begin in range(len(data)):
        yield data[begin : begin + 1]
        time.sleep(0.2)


LIMIT = 1.0
HANG_SECONDS = 45
"""Time after which a test fails, for busy machines."""


def open_until_timeout(url: str) -> str:
    begin = time.monotonic()
    with pytest.raises(SourceError) as caught:
        list(open_stream(url, timeout_seconds=LIMIT))
    assert time.monotonic() - begin < HANG_SECONDS
    assert "\n" not in str(caught.value)
    return str(caught.value)


HEAD = http_response("multipart/x-mixed-replace; boundary=next")
TS_HEAD = http_response("video/mp2t")
CHUNKED_HEAD = http_response("video/mp2t", "200 OK", "Transfer-Encoding: chunked")
ANSWERS: dict[str, tuple[bytes, bytes]] = {  # data that is sent at once, and data that trickles
    "silent": (b"", b""),
    "half a head": (HEAD[:20], b""),
    "head": (HEAD, b""),
    "head of TS": (TS_HEAD, b""),
    "half a part": (HEAD + b"--next\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff\xe0", b""),
    "head trickles": (b"", HEAD * 20),
    "parts trickle": (HEAD, bytes(500)),
    "TS trickles": (TS_HEAD, b"\x47" + bytes(500)),
    "chunks trickle": (CHUNKED_HEAD, b"0" * 500),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_silent_or_trickling_http_server_times_out(answer: str, never: threading.Event) -> None:
    begin, rest = ANSWERS[answer]

    def script(_: str) -> Iterator[bytes]:
        yield begin
        yield from trickle(rest)
        never.wait(60)

    with HttpServer(script) as server:
        message = open_until_timeout(f"{server.url}/cam")
    assert "in time" in message or "no video arrived" in message


@pytest.mark.parametrize("kind", [TcpServer, RtspServer, RtmpServer])
@pytest.mark.parametrize("data", [b"", b"RTSP/1.0 200 OK\r\n" + b"X: 1\r\n" * 100], ids=["silent", "trickles"])
def test_silent_or_trickling_tcp_rtsp_and_rtmp_servers_time_out(
    kind: type[TcpServer], data: bytes, never: threading.Event
) -> None:
    class Slow(kind):  # type: ignore[valid-type,misc]
        def _respond(self, client: object, number: int) -> None:
            for chunk in trickle(data):
                client.sendall(chunk)  # type: ignore[attr-defined]
            never.wait(60)

    with Slow(lambda _: ()) as server:
        open_until_timeout(server.url)


def test_silent_stream_raises_disconnected(never: threading.Event) -> None:
    def script(_: int) -> Iterator[bytes]:
        yield b"".join(encode_ts(20))
        never.wait(60)

    with TcpServer(script) as server:
        source = open_stream(server.url, timeout_seconds=2.0)
        begin = time.monotonic()
        with pytest.raises(Disconnected, match="in time"):
            for _ in source:
                pass
        assert time.monotonic() - begin < HANG_SECONDS
