"""Silences of a camera: no frame is lost, the gap has its length, and one silence is one disconnect."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from av import Packet
from http_server import HttpServer, http_response
from live_doubles import wait_until
from live_server import RATE, RtspServer, TcpServer, UdpSender, encode_rtp, encode_ts, paced
from media import number_of, write_video
from test_live_sources import read_until_disconnected, take

from rtseg.io.inputs.arrival_times import ArrivalTimes
from rtseg.io.inputs.live_clock import TIME_BASE, LiveClock
from rtseg.io.inputs.network import open_stream
from rtseg.io.inputs.packets import Packets
from rtseg.live.reconnect import ReconnectingSource


def arrival_times() -> ArrivalTimes:
    return ArrivalTimes(cast(Packets, SimpleNamespace(has_clock=True, time_base=TIME_BASE)))


def arrival_seconds(arrivals: ArrivalTimes, stamp: int, returned_seconds: float) -> float:
    """Return the arrival time of a packet with a time stamp in units of 1/30 s."""
    packet: Packet[Any] = Packet(b"x")
    packet.pts = packet.dts = stamp * 3000
    return arrivals.without_hold(packet, round((100 + returned_seconds) * 1e9)) / 1e9 - 100


def returned_times(held: int, at_once: bool, resumes: float) -> list[float]:
    """Return the times in seconds at which FFmpeg returns 40 packets: all are `held` packets late, 30 come before a silence."""
    sent = [*(index / 30 for index in range(30)), *(resumes + index / 30 for index in range(10 + held))]
    if at_once:  # at the timeout of the connection, or because several cameras share the network
        return [*sent[held:30], *[resumes] * held, *sent[30:40]]
    return sent[held : 40 + held]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("held", [0, 1, 2])
@pytest.mark.parametrize("after", ["reconnection", "new clock", "same clock"])
def test_packets_that_ffmpeg_holds_during_a_silence_keep_the_gap(after: str, held: int, at_once: bool) -> None:
    clock, arrivals = LiveClock(), arrival_times()
    first = 70 + 7 * 30 if after == "same clock" else 0
    stamps = [*range(70, 100), *range(first, first + 10)]
    seconds = []
    for number, (stamp, returned) in enumerate(zip(stamps, returned_times(held, at_once, 7.0), strict=True)):
        if number == 30 and after == "reconnection":
            clock.restart()
            arrivals = arrival_times()
        arrived = arrival_seconds(arrivals, stamp, returned)
        seconds.append(float(clock.place(Fraction(stamp, 30), round(arrived * 1e9)) * TIME_BASE))
    assert seconds == pytest.approx([*(n / 30 for n in range(30)), *(7 + n / 30 for n in range(10))], abs=0.08)
    assert len(clock.jumps) == (after == "new clock")


def test_burst_behind_a_blocked_network_is_the_return_of_the_camera() -> None:
    """FFmpeg holds two packets; more of them have arrived when they are returned."""
    returned = [index / 10 for index in range(30)] + [8 + index / 1000 for index in range(20)]
    arrivals = arrival_times()
    arrived = [arrival_seconds(arrivals, 3 * index, seconds) for index, seconds in enumerate(returned)]
    assert arrived[:32] == pytest.approx([index / 10 for index in range(32)])
    assert arrived[32:] == pytest.approx(returned[32:])


def until_bound(port: int) -> None:
    """Block until a process receives on a UDP port of this machine."""
    wait_until(lambda: f":{port:04X} " in Path("/proc/net/udp").read_text())


def with_silence(chunks: list[bytes]) -> Iterator[bytes]:
    yield from paced(chunks[:40])
    time.sleep(40 / RATE)
    yield from paced(chunks[40:])


@pytest.mark.parametrize("kind", ["tcp", "http", "udp", "rtsp"])
def test_silence_is_one_disconnect_and_keeps_its_length(kind: str) -> None:
    """The clock of the camera goes on. FFmpeg returns the last frames before the silence only with those behind it."""
    if kind == "udp" and not Path("/proc/net/udp").exists():
        pytest.skip("needs /proc/net/udp")
    packets = encode_rtp(120)
    chunks = [*encode_ts(40), *encode_ts(40, first=80, start_seconds=80 / RATE)]

    def datagrams() -> Iterator[bytes]:
        until_bound(server.port)
        yield from with_silence(chunks)

    server: TcpServer | UdpSender = {
        "tcp": lambda: TcpServer(lambda _: with_silence(chunks)),
        "http": lambda: HttpServer(lambda _: itertools.chain([http_response("video/mp2t")], with_silence(chunks))),
        "rtsp": lambda: RtspServer(lambda _: with_silence(packets[:40] + packets[80:])),
        "udp": lambda: UdpSender(datagrams()),
    }[kind]()
    log: list[str] = []
    with server:
        source = ReconnectingSource("door", lambda: open_stream(server.url, timeout_seconds=20), log=log.append)
        frames = take(source, 75)
    assert [number_of(frame) for frame in frames] == [*range(40), *range(80, 115)]
    assert frames[40].pts_seconds - frames[39].pts_seconds == pytest.approx(41 / RATE, abs=0.002)
    assert frames[-1].pts_seconds - frames[1].pts_seconds == pytest.approx(113 / RATE, abs=0.002)
    assert source.disconnects.count == 1
    assert sum("again" in line for line in log) == 1


@pytest.mark.parametrize("kind", ["tcp", "http", "rtsp"])
def test_frames_before_a_timeout_are_complete(kind: str, never: threading.Event) -> None:
    """The limit is that of one wait: the frame that FFmpeg returns at the timeout does not start a second one."""
    packets, chunks = encode_rtp(40), encode_ts(40)

    def stalls(first: list[bytes]) -> Iterator[bytes]:
        yield from paced(first, 4)
        never.wait(60)

    server: TcpServer = {
        "tcp": lambda: TcpServer(lambda _: stalls(chunks)),
        "http": lambda: HttpServer(lambda _: itertools.chain([http_response("video/mp2t")], stalls(chunks))),
        "rtsp": lambda: RtspServer(lambda _: stalls(packets)),
    }[kind]()
    with server:
        source = open_stream(server.url, timeout_seconds=6)
        frames, message = read_until_disconnected(source)
        passed = time.monotonic() - frames[-2].captured_ns / 1e9
        never.set()
    assert "no data arrived in time" in message
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert passed < 11.5


def test_live_playlist_is_played_at_its_own_rate(tmp_path: Path) -> None:
    """Its frames arrive in parts of one second, which are neither disconnects nor too many frames at once."""
    options = {"hls_time": "1", "hls_list_size": "0", "hls_flags": "omit_endlist"}
    whole = write_video(
        tmp_path / "x.m3u8", frames=150, rate=30, gop=30, b_frames=0, container="hls", container_options=options
    )
    lines = whole.read_text().splitlines()
    begin = time.monotonic()

    def answer(request: str) -> Iterator[bytes]:
        name = request.split()[1].strip("/")
        data = (tmp_path / name).read_bytes()
        if name == "x.m3u8":
            parts = min(5, 3 + int(time.monotonic() - begin))
            data = "\n".join([*lines[: len(lines) - 2 * (5 - parts)], ""]).encode()
        yield http_response("video/mp2t", "200 OK", f"Content-Length: {len(data)}")
        yield data

    log: list[str] = []
    with HttpServer(answer) as server:
        url = f"{server.url}/x.m3u8"
        source = ReconnectingSource("door", lambda: open_stream(url, timeout_seconds=20), log=log.append)
        frames = take(source, 140)
    assert [number_of(frame) for frame in frames] == list(range(140))
    assert (frames[-1].captured_ns - frames[0].captured_ns) / 1e9 >= 139 / 30 - 0.05
    assert frames[-1].pts_seconds == pytest.approx(139 / 30, abs=0.01)
    assert source.disconnects.count == 0, log
