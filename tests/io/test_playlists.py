"""Playlists: a path or URL in a playlist is opened only if the user allows its protocol."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
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


class SilentServer:
    """Local port that accepts no connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.3)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def assert_no_connection(self) -> None:
        with pytest.raises(TimeoutError):
            self._socket.accept()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def silent_server() -> Iterator[SilentServer]:
    server = SilentServer()
    yield server
    server.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the folder of the test over HTTP; yield the address and the list of requested paths."""
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat", "list.mpd"])  # DASH is never opened
@pytest.mark.parametrize("target", ["file:///etc/passwd", "SILENT_SERVER"])
def test_playlists_are_refused_and_open_nothing(
    tmp_path: Path, silent_server: SilentServer, name: str, target: str
) -> None:
    entry = f"{silent_server.address}/secret.ts" if target == "SILENT_SERVER" else target
    path = tmp_path / name
    if name.endswith("ffconcat"):
        path.write_text(f"ffconcat version 1.0\nfile '{entry}'\n")
    elif name.endswith("mpd"):
        path.write_text(f'<?xml version="1.0"?><MPD><Period><BaseURL>{entry}</BaseURL></Period></MPD>')
    else:
        hls(path, entry)
    with pytest.raises(SourceError) as error:
        FileSource(str(path))
    assert "\n" not in str(error.value)
    if not name.endswith("mpd"):
        assert "--allow-protocols" in str(error.value)
    silent_server.assert_no_connection()


def test_files_of_a_playlist_are_read_if_allowed(tmp_path: Path) -> None:
    write_segments(tmp_path)
    for path in (
        hls(tmp_path / "list.m3u8", "one.ts", "two.ts"),
        tmp_path / "list.ffconcat",
    ):
        if not path.exists():
            path.write_text(f"ffconcat version 1.0\nfile one.ts\nfile '{tmp_path / 'two.ts'}'\n")
        frames = read(path, allow_protocols=["file"])
        assert [number_of(frame) for frame in frames] == [*range(20), *range(20)]
        with pytest.raises(SourceError, match="playlist"):
            read(path, allow_protocols=["http", "https"])
    copy_video(tmp_path / "list.m3u8", tmp_path / "out.mp4", allow_protocols=["file"])


def test_http_request_is_sent_only_if_http_is_allowed(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    address, requests = server
    write_segments(tmp_path)
    path = hls(tmp_path / "list.m3u8", f"{address}/one.ts", f"{address}/two.ts")
    for allowed in ([], ["file"], ["https"]):
        with pytest.raises(SourceError, match="playlist"):
            read(path, allow_protocols=allowed)
    assert requests == []
    assert len(read(path, allow_protocols=["http"])) == 40
    assert set(requests) == {"/one.ts", "/two.ts"}


@pytest.mark.parametrize("entry", ["file:///etc/passwd", "/etc/passwd", "one.ts"])
def test_no_file_is_opened_if_only_http_is_allowed(tmp_path: Path, entry: str) -> None:
    write_segments(tmp_path)
    with pytest.raises(SourceError, match=r"playlist.*allowed protocols \(http\)"):
        read(hls(tmp_path / "list.m3u8", entry), allow_protocols=["http"])


def test_no_request_is_sent_if_only_files_are_allowed(tmp_path: Path, silent_server: SilentServer) -> None:
    for path in (hls(tmp_path / "list.m3u8", f"{silent_server.address}/x.ts"), tmp_path / "list.ffconcat"):
        if not path.exists():
            path.write_text(f"ffconcat version 1.0\nfile '{silent_server.address}/x.ts'\n")
        with pytest.raises(SourceError, match="playlist"):
            read(path, allow_protocols=["file"])
    silent_server.assert_no_connection()


def test_silent_server_times_out(tmp_path: Path, silent_server: SilentServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.io.inputs.playlist._TIMEOUT_SECONDS", 1.0)
    with pytest.raises(SourceError, match="playlist"):
        read(hls(tmp_path / "list.m3u8", f"{silent_server.address}/x.ts"), allow_protocols=["http"])


def test_live_playlist_is_refused(tmp_path: Path) -> None:
    write_segments(tmp_path)
    with pytest.raises(SourceError, match="live stream"):
        read(hls(tmp_path / "list.m3u8", "one.ts", end=False), allow_protocols=["file"])


def test_unknown_protocol_is_an_option_error(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'gopher'.*file, http, https"):
        read(write_video(tmp_path / "a.mp4"), allow_protocols=["file", "gopher"])
