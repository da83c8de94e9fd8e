"""Support for playlists: files that refer to other files or addresses.

The entries of a playlist file are opened only by protocols that the user allows. HLS playlists with byte ranges are checked:
FFmpeg plays wrong frames if a server ignores the ranges and sends whole files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from rtseg.core.errors import Disconnected, OptionError, SourceError
from rtseg.core.secrets import redacted_name
from rtseg.io.inputs.byte_stream import HttpResponse

_PROTOCOLS = {"file": "file", "http": "http,tcp", "https": "https,tls,tcp"}
"""Values of `--allow-protocols`, and the FFmpeg protocols for each."""

PLAYLIST_FORMATS = "hls,concat"
"""Demuxers of playlists."""

PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat")
"""First bytes of a playlist."""

_MAX_PLAYLIST_BYTES = 1 << 22
_RANGE = b"#EXT-X-BYTERANGE:"
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


def playlist_arguments(path: str, names: Sequence[str]) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """Return the arguments of `av.open` for a playlist.

    If `file` is not in `names`, the allowed protocols, the playlist is passed as text, so that FFmpeg can't open any file.

    Returns:
        The source, options that replace those of a plain file, and further arguments.

    Raises:
        SourceError: the playlist is that of a live stream, which has no end, or it contains byte ranges and the server does
            not support them.
    """
    with Path(path).open("rb") as file:
        text = file.read(_MAX_PLAYLIST_BYTES)
    if b"#EXTINF" in text and b"#EXT-X-ENDLIST" not in text:
        raise SourceError(f"{path} is the playlist of a live stream, which has no end: use `rtseg live --url`")
    _check_ranges(text, redacted_name(path), _TIMEOUT_SECONDS, schemes=tuple(name for name in names if name != "file"))
    source: Any = f"file:{path}"
    if "file" not in names:
        source = _PlaylistText(text)
        source.name = path
    protocols = ",".join(["crypto", "data", *(_PROTOCOLS[name] for name in names)])
    # For `ffconcat`: by default (`safe` = 1), FFmpeg refuses entries with a protocol or an absolute path.
    options = {"protocol_whitelist": protocols, "safe": "0"}
    return source, options, {"timeout": (_TIMEOUT_SECONDS, _TIMEOUT_SECONDS)}


def check_playlist_at(url: str, name: str, timeout_seconds: float) -> None:
    """Read a playlist from a server, and check that the server supports the byte ranges in it.

    Read errors are ignored, because FFmpeg reports them later.

    Raises:
        SourceError: the server sends whole files.
    """
    try:
        text = _read(url, name, timeout_seconds)
        if _RANGE not in text and b"#EXT-X-STREAM-INF" in text:
            url = urljoin(url, _first_entry(text))
            text = _read(url, name, timeout_seconds)
    except (Disconnected, OptionError, ValueError):
        return
    _check_ranges(text, name, timeout_seconds, url=url)


def _check_ranges(
    text: bytes, name: str, timeout_seconds: float, *, url: str = "", schemes: tuple[str, ...] = ("http", "https")
) -> None:
    """Check that the server supports the byte ranges in a playlist, by one request. Nothing is checked without byte ranges.

    Args:
        text, name, timeout_seconds: content of the playlist; as for `check_playlist_at`.
        url: URL of the playlist; empty: entries without a server are local files.
        schemes: URL schemes that may be requested.

    Raises:
        SourceError: the server sends whole files.
    """
    entry = _first_range_entry(text)
    try:
        target = urljoin(url, entry)
        if not entry or target.partition("://")[0].lower() not in schemes:
            return
        response = HttpResponse(target, name, timeout_seconds, first=1)
        response.close()
    except (Disconnected, OptionError, ValueError):
        return
    if not response.is_requested_range:
        raise SourceError(
            f"{name}: the playlist has byte ranges (EXT-X-BYTERANGE), and the server sends whole files instead; "
            "download the playlist and its files, and use `rtseg video PLAYLIST --allow-protocols file`"
        )


def _read(url: str, name: str, timeout_seconds: float) -> bytes:
    with closing(HttpResponse(url, name, timeout_seconds)) as response:
        return response.peek(_MAX_PLAYLIST_BYTES)


def _first_entry(text: bytes) -> str:
    """Return the first address in a playlist, or an empty string."""
    lines = (line.strip() for line in text.decode(errors="replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def _first_range_entry(text: bytes) -> str:
    """Return the first address with a byte range that does not begin at 0, or an empty string."""
    for part in text.split(_RANGE)[1:]:
        byte_range, _, rest = part.partition(b"\n")
        if not byte_range.strip().endswith(b"@0"):
            return _first_entry(rest)
    return ""
