"""Support for playlists: files that refer to other files or addresses. Those are opened only by protocols that the user allows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtseg.core.errors import OptionError, SourceError
from rtseg.core.secrets import redacted_name
from rtseg.io.inputs.hls_byte_ranges import check_ranges

_PROTOCOLS = {"file": "file", "http": "http,tcp", "https": "https,tls,tcp"}
"""Values of `--allow-protocols`, and the FFmpeg protocols for each."""

PLAYLIST_FORMATS = "hls,concat"
"""Demuxers of playlists."""

_MAX_PLAYLIST_BYTES = 1 << 22
_TIMEOUT_SECONDS = 15.0
"""Time limit for the response of a server in a playlist, and later for each wait for data."""


class _PlaylistText(io.BytesIO):
    """Playlist in memory, with a file name from which FFmpeg detects the format."""

    name = ""


def check_protocols(names: Sequence[str]) -> None:
    """Raise OptionError unless each name is `file`, `http` or `https`."""
    for name in names:
        if name not in _PROTOCOLS:
            raise OptionError(f"no protocol '{name}' for playlists: there are {', '.join(_PROTOCOLS)}")


def read_playlist(path: str) -> bytes | None:
    """Return the content of a playlist (HLS, or FFmpeg's `ffconcat`); None: the file is not a playlist."""
    with Path(path).open("rb") as file:
        text = file.read(4096)
        if text.startswith((b"#EXTM3U", b"ffconcat")):
            return text + file.read(_MAX_PLAYLIST_BYTES)
    return None


def playlist_arguments(path: str, text: bytes, names: Sequence[str]) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """Return the arguments of `av.open` for a playlist.

    If `file` is not an allowed protocol, the playlist is passed as text, so that FFmpeg can't open any file.

    Args:
        path: path of the playlist.
        text: content of the playlist.
        names: allowed protocols, each `file`, `http` or `https`.

    Returns:
        The source, options that replace those of a plain file, and further arguments.

    Raises:
        SourceError: the playlist is that of a live stream, which has no end, or it contains byte ranges and the server does
            not support them.
    """
    if b"#EXTINF" in text and b"#EXT-X-ENDLIST" not in text:
        raise SourceError(f"{path} is the playlist of a live stream, which has no end: use `rtseg live --url`")
    check_ranges(text, redacted_name(path), _TIMEOUT_SECONDS, schemes=tuple(name for name in names if name != "file"))
    source: Any = f"file:{path}"
    if "file" not in names:
        source = _PlaylistText(text)
        source.name = path
    protocols = ",".join(["crypto", "data", *(_PROTOCOLS[name] for name in names)])
    # For `ffconcat`: by default (`safe` = 1), FFmpeg refuses entries with a protocol or an absolute path.
    options = {"protocol_whitelist": protocols, "safe": "0"}
    return source, options, {"timeout": (_TIMEOUT_SECONDS, _TIMEOUT_SECONDS)}
