"""Playlists name other files and addresses: nothing they name is opened unless the user named the protocol."""

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

pytestmark = pytest.mark.timeout(180)


def hls(path: Path, *names: str, end: bool = True) -> Path:
    """An HLS playlist; its pieces are 0.8 s long."""
    pieces = "".join(f"#EXTINF:0.8,\n{name}\n" for name in names)
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
    path.write_text(head + pieces + ("#EXT-X-ENDLIST\n" if end else ""))
    return path


def pieces(folder: Path) -> list[Path]:
    """Two pieces of one video, each with frames 0 to 19."""
    return [
        write_video(folder / f"{part}.ts", frames=20, pts=list(range(20 * number, 20 * number + 20)))
        for number, part in enumerate(("one", "two"))
    ]


class Trap:
    """A port on this machine that nobody may knock at."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.3)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def assert_untouched(self) -> None:
        with pytest.raises(TimeoutError):
            self._socket.accept()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    made = Trap()
    yield made
    made.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """Serves the test's folder; the address, and what was asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    thread = threading.Thread(target=serving.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}", asked
    serving.shutdown()
    serving.server_close()


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat", "list.mpd"])  # DASH is never opened
@pytest.mark.parametrize("target", ["file:///etc/passwd", "TRAP"])
def test_playlists_are_refused_and_open_nothing(tmp_path: Path, trap: Trap, name: str, target: str) -> None:
    named = f"{trap.address}/secret.ts" if target == "TRAP" else target
    path = tmp_path / name
    if name.endswith("ffconcat"):
        path.write_text(f"ffconcat version 1.0\nfile '{named}'\n")
    elif name.endswith("mpd"):
        path.write_text(f'<?xml version="1.0"?><MPD><Period><BaseURL>{named}</BaseURL></Period></MPD>')
    else:
        hls(path, named)
    with pytest.raises(SourceError) as error:
        FileSource(str(path))
    assert "\n" not in str(error.value)
    if not name.endswith("mpd"):
        assert "--allow-protocols" in str(error.value)
    trap.assert_untouched()


def test_files_that_a_playlist_names_are_read_where_that_is_allowed(tmp_path: Path) -> None:
    pieces(tmp_path)
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
    result = copy_video(tmp_path / "list.m3u8", tmp_path / "out.mp4", allow_protocols=["file"])
    assert result.report.ok, result.report.line()


def test_an_address_is_asked_only_where_http_is_allowed(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    address, asked = server
    pieces(tmp_path)
    path = hls(tmp_path / "list.m3u8", f"{address}/one.ts", f"{address}/two.ts")
    for allowed in ([], ["file"], ["https"]):
        with pytest.raises(SourceError, match="playlist"):
            read(path, allow_protocols=allowed)
    assert asked == []
    assert len(read(path, allow_protocols=["http"])) == 40
    assert set(asked) == {"/one.ts", "/two.ts"}


@pytest.mark.parametrize("named", ["file:///etc/passwd", "/etc/passwd", "one.ts"])
def test_no_file_is_opened_where_http_alone_is_allowed(tmp_path: Path, named: str) -> None:
    pieces(tmp_path)
    with pytest.raises(SourceError, match=r"playlist.*allowed protocols \(http\)"):
        read(hls(tmp_path / "list.m3u8", named), allow_protocols=["http"])


def test_an_address_is_not_asked_where_files_alone_are_allowed(tmp_path: Path, trap: Trap) -> None:
    for path in (hls(tmp_path / "list.m3u8", f"{trap.address}/x.ts"), tmp_path / "list.ffconcat"):
        if not path.exists():
            path.write_text(f"ffconcat version 1.0\nfile '{trap.address}/x.ts'\n")
        with pytest.raises(SourceError, match="playlist"):
            read(path, allow_protocols=["file"])
    trap.assert_untouched()


def test_a_silent_server_does_not_hold_up_the_run(tmp_path: Path, trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.io.inputs.playlist._TIMEOUT_SECONDS", 1.0)
    with pytest.raises(SourceError, match="playlist"):
        read(hls(tmp_path / "list.m3u8", f"{trap.address}/x.ts"), allow_protocols=["http"])


def test_a_live_playlist_has_no_end_and_is_refused(tmp_path: Path) -> None:
    pieces(tmp_path)
    with pytest.raises(SourceError, match="live stream"):
        read(hls(tmp_path / "list.m3u8", "one.ts", end=False), allow_protocols=["file"])


def test_other_protocols_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'gopher'.*file, http, https"):
        read(write_video(tmp_path / "a.mp4"), allow_protocols=["file", "gopher"])
