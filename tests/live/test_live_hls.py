"""HLS playlists: complete and live ones, truncated segments, byte ranges."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import HttpServer, http_response
from live_server import encode_ts
from media import number_of, read
from test_live_files import read_all
from test_live_protocols import playlist

from rtseg.core.errors import Disconnected, SourceError
from rtseg.io.inputs.network import open_stream
from rtseg.live.inputs import find_inputs


def write_hls(folder: Path, *, ended: bool) -> None:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
    for number in range(3):
        begin = number * 15
        (folder / f"{number}.ts").write_bytes(b"".join(encode_ts(15, first=begin, start_seconds=begin / 30)))
        lines += ["#EXTINF:0.5,", f"{number}.ts"]
    (folder / "x.m3u8").write_text("\n".join([*lines, *(["#EXT-X-ENDLIST"] if ended else [])]) + "\n")


def test_playlist_without_video_segments_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    with playlist(tmp_path) as address, pytest.raises(Disconnected, match="is not a video that rtseg reads"):
        open_stream(f"{address}/x.m3u8", timeout_seconds=30)


def test_complete_hls_playlist_plays_once_at_its_own_frame_rate(tmp_path: Path) -> None:
    write_hls(tmp_path, ended=True)
    with playlist(tmp_path) as address:
        begin = time.monotonic()
        frames, source, log = read_all(f"{address}/x.m3u8")
    assert [number_of(frame) for frame in frames] == list(range(45))
    assert source.corrupt == 0
    assert source.warnings == ()
    assert time.monotonic() - begin >= 44 / 30
    assert source.disconnects.count == 0
    assert len(log) == 1
    assert "is a file" in log[0]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_complete_hls_playlist_without_length_yields_each_frame(tmp_path: Path, version: str) -> None:
    """The server closes the connection at the end, as in HTTP/1.0."""
    write_hls(tmp_path, ended=True)

    def answer(request: str) -> Iterator[bytes]:
        head = http_response("application/x-mpegurl", "200 OK", "Connection: close")
        yield head.replace(b"HTTP/1.1", f"HTTP/{version}".encode())
        yield (tmp_path / request.split()[1].removeprefix("/")).read_bytes()

    with HttpServer(answer) as server:
        frames, source, log = read_all(f"{server.url}/x.m3u8")
    assert [number_of(frame) for frame in frames] == list(range(45))
    assert source.warnings == ()
    assert source.disconnects.count == 0
    assert not source.disconnects.reason
    assert len(log) == 1


@pytest.mark.parametrize("length", [True, False])
def test_truncated_hls_segments_are_counted_and_reported(tmp_path: Path, length: bool) -> None:
    write_hls(tmp_path, ended=True)

    def answer(request: str) -> Iterator[bytes]:
        name = request.split()[1].removeprefix("/")
        data = (tmp_path / name).read_bytes()
        stated = [f"Content-Length: {len(data)}"] if length else []
        yield http_response("video/mp2t", "200 OK", *stated, "Connection: close")
        yield data[: len(data) * 7 // 10 // 188 * 188] if name in ("0.ts", "1.ts") else data

    with HttpServer(answer) as server:
        frames, source, _ = read_all(f"{server.url}/x.m3u8")
    assert 25 < len(frames) < 42
    assert len(frames) + source.corrupt == 45
    assert any("missing in 2 places" in line for line in source.warnings), source.warnings


@pytest.mark.parametrize("ranges", [True, False])
def test_byte_range_playlist_plays_only_with_range_support(tmp_path: Path, ranges: bool) -> None:
    write_hls(tmp_path, ended=True)
    parts = [(tmp_path / f"{number}.ts").read_bytes() for number in range(3)]
    data, begin = b"".join(parts), 0
    lines = ["#EXTM3U", "#EXT-X-VERSION:4", "#EXT-X-TARGETDURATION:1"]
    for part in parts:
        lines += ["#EXTINF:0.5,", f"#EXT-X-BYTERANGE:{len(part)}@{begin}", "all.ts"]
        begin += len(part)
    text = "\n".join([*lines, "#EXT-X-ENDLIST", ""])

    def answer(request: str) -> Iterator[bytes]:
        requested = re.search(r"Range: bytes=(\d+)-(\d*)", request)
        if ".m3u8" in request.split()[1]:
            body = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nx.m3u8\n" if "/all.m3u8" in request else text.encode()
            yield http_response("application/x-mpegurl", "200 OK", f"Content-Length: {len(body)}", "Connection: close")
            yield body
            return
        if not ranges or requested is None:
            yield http_response("video/mp2t", "200 OK", f"Content-Length: {len(data)}", "Connection: close")
            yield data
            return
        first, last = int(requested[1]), int(requested[2] or len(data) - 1)
        span = f"Content-Range: bytes {first}-{last}/{len(data)}"
        length = f"Content-Length: {last + 1 - first}"
        yield http_response("video/mp2t", "206 Partial Content", span, length, "Connection: close")
        yield data[first : last + 1]

    with HttpServer(answer) as server:
        local = tmp_path / "local.m3u8"
        local.write_text(text.replace("all.ts", f"{server.url}/all.ts"))
        if ranges:
            frames, _, _ = read_all(f"{server.url}/all.m3u8")
            assert [number_of(frame) for frame in frames] == list(range(45))
            assert [number_of(frame) for frame in read(local, allow_protocols=["http"])] == list(range(45))
            return
        for name in ("x.m3u8", "all.m3u8"):
            with pytest.raises(SourceError, match=rf"{name}: .*EXT-X-BYTERANGE.* sends whole files instead; download"):
                open_stream(f"{server.url}/{name}", timeout_seconds=20)
        with pytest.raises(SourceError, match=r"local.m3u8: .*EXT-X-BYTERANGE"):
            read(local, allow_protocols=["http"])


def test_ended_live_playlist_is_not_played_again(tmp_path: Path) -> None:
    write_hls(tmp_path, ended=False)
    log: list[str] = []
    with playlist(tmp_path) as address:
        source = find_inputs(urls=[f"{address}/x.m3u8"], timeout_seconds=4)[0].source(30, log.append)
        numbers = []
        for frame in source:
            numbers.append(number_of(frame))  # type: ignore[arg-type]
            if len(numbers) == 40:
                write_hls(tmp_path, ended=True)
    assert numbers == list(range(45))
    assert any("complete" in line for line in log)
