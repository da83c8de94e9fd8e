"""Check of HLS playlists with byte ranges. FFmpeg plays wrong frames if a server ignores them and sends whole files."""

from __future__ import annotations

from urllib.parse import urljoin

from rtseg.core.errors import Disconnected, OptionError, SourceError
from rtseg.io.inputs.byte_stream import HttpResponse

_MAX_PLAYLIST_BYTES = 1 << 22
_RANGE = b"#EXT-X-BYTERANGE:"


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
    check_ranges(text, name, timeout_seconds, url=url)


def check_ranges(
    text: bytes, name: str, timeout_seconds: float, *, url: str = "", schemes: tuple[str, ...] = ("http", "https")
) -> None:
    """Check that the server supports the byte ranges in a playlist, by one request. Nothing is checked without byte ranges.

    Args:
        text: content of the playlist.
        name: name of the playlist for messages.
        timeout_seconds: time limit for the response.
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
    response = HttpResponse(url, name, timeout_seconds)
    try:
        return response.peek(_MAX_PLAYLIST_BYTES)
    finally:
        response.close()


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
