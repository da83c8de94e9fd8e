"""Playlists: a path or URL in a playlist is opened only if the user allows its protocol."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import HttpServer, http_response
from media import copy_video, number_of, read, write_video

from rtseg.core.errors import OptionError, SourceError
from rtseg.io.inputs.file import FileSource


def hls(path: Path, *names: str, end: bool = True) -> Path:
    """Write an HLS playlist with segments of 0.8 s."""
    segments = "".join(f"#EXTINF:0.8,\n{name}\n" for name in names)
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
    path.write_text(head + segments + ("#EXT-X-ENDLIST\n" if end else ""))
    return path


def write_segments(folder: Path) -> list[Path]:
    """Write two consecutive segments, each with the numbered frames 0 to 19."""
    return [
        write_video(folder / f"{part}.ts", frames=20, pts=list(range(20 * number, 20 * number + 20)))
        for number, part in enumerate(("one", "two"))
    ]


def ffconcat(path: Path, *names: str) -> Path:
    path.write_text("ffconcat version 1.0\n" + "".join(f"file '{name}'\n" for name in names))
    return path


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """Local port that accepts no connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        yield server


def address_of(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def assert_no_connection(server: socket.socket) -> None:
    with pytest.raises(TimeoutError):
        server.accept()


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat", "list.mpd"])  # DASH is never opened
@pytest.mark.parametrize("target", ["file:///etc/passwd", "SILENT_SERVER"])
def test_playlists_are_refused_and_open_nothing(
    tmp_path: Path, silent_server: socket.socket, name: str, target: str
) -> None:
    entry = f"{address_of(silent_server)}/secret.ts" if target == "SILENT_SERVER" else target
    path = tmp_path / name
    if name.endswith("ffconcat"):
        ffconcat(path, entry)
    elif name.endswith("mpd"):
        path.write_text(f'<?xml version="1.0"?><MPD><Period><BaseURL>{entry}</BaseURL></Period></MPD>')
    else:
        hls(path, entry)
    with pytest.raises(SourceError) as error:
        FileSource(str(path))
    assert "\n" not in str(error.value)
    if not name.endswith("mpd"):
        assert "--allow-protocols" in str(error.value)
    assert_no_connection(silent_server)


def test_files_of_a_playlist_are_read_if_allowed(tmp_path: Path) -> None:
    write_segments(tmp_path)
    for path in (
        hls(tmp_path / "list.m3u8", "one.ts", "two.ts"),
        ffconcat(tmp_path / "list.ffconcat", "one.ts", str(tmp_path / "two.ts")),
    ):
        frames = read(path, allow_protocols=["file"])
        assert [number_of(frame) for frame in frames] == [*range(20), *range(20)]
        with pytest.raises(SourceError, match="playlist"):
            read(path, allow_protocols=["http", "https"])
    copy_video(tmp_path / "list.m3u8", tmp_path / "out.mp4", allow_protocols=["file"])


def test_http_request_is_sent_only_if_http_is_allowed(tmp_path: Path) -> None:

    def answer(request: str) -> Iterator[bytes]:
        yield http_response("video/mp2t")
        yield (tmp_path / request.split()[1].removeprefix("/")).read_bytes()

    write_segments(tmp_path)
    with HttpServer(answer) as server:
        path = hls(tmp_path / "list.m3u8", f"{server.url}/one.ts", f"{server.url}/two.ts")
        for allowed in ([], ["file"], ["https"]):
            with pytest.raises(SourceError, match="playlist"):
                read(path, allow_protocols=allowed)
        assert server.requests == []
        assert len(read(path, allow_protocols=["http"])) == 40
    assert {request.split()[1] for request in server.requests} == {"/one.ts", "/two.ts"}


@pytest.mark.parametrize("entry", ["file:///etc/passwd", "/etc/passwd", "one.ts"])
def test_no_file_is_opened_if_only_http_is_allowed(tmp_path: Path, entry: str) -> None:
    write_segments(tmp_path)
    with pytest.raises(SourceError, match=r"playlist.*allowed protocols \(http\)"):
        read(hls(tmp_path / "list.m3u8", entry), allow_protocols=["http"])


def test_no_request_is_sent_if_only_files_are_allowed(tmp_path: Path, silent_server: socket.socket) -> None:
    entry = f"{address_of(silent_server)}/x.ts"
    for path in (hls(tmp_path / "list.m3u8", entry), ffconcat(tmp_path / "list.ffconcat", entry)):
        with pytest.raises(SourceError, match="playlist"):
            read(path, allow_protocols=["file"])
    assert_no_connection(silent_server)


def test_silent_server_times_out(tmp_path: Path, silent_server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.io.inputs.playlist._TIMEOUT_SECONDS", 1.0)
    with pytest.raises(SourceError, match="playlist"):
        read(hls(tmp_path / "list.m3u8", f"{address_of(silent_server)}/x.ts"), allow_protocols=["http"])


def test_live_playlist_is_refused(tmp_path: Path) -> None:
    write_segments(tmp_path)
    with pytest.raises(SourceError, match="live stream"):
        read(hls(tmp_path / "list.m3u8", "one.ts", end=False), allow_protocols=["file"])


def test_unknown_protocol_is_an_option_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'gopher'.*file, http, https"):
        read(write_video(tmp_path / "a.mp4"), allow_protocols=["file", "gopher"])
