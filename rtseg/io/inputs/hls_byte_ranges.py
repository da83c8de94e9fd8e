"""HLS playlists that name parts of files: a server that sends whole files instead makes FFmpeg play wrong pictures."""

from __future__ import annotations

from urllib.parse import urljoin

from rtseg.core.errors import Disconnected, OptionError, SourceError
from rtseg.io.inputs.byte_stream import HttpAnswer

_LARGEST_BYTES = 1 << 22
_RANGE = b"#EXT-X-BYTERANGE:"


def check_playlist_at(url: str, name: str, timeout_seconds: float) -> None:
    """Read a playlist, and ask its server for a part of a file where it names parts.

    What can't be read is left to FFmpeg, which says why.

    Raises:
        SourceError: the server sends whole files.
    """
    try:
        text = _read(url, name, timeout_seconds)
        if _RANGE not in text and b"#EXT-X-STREAM-INF" in text:
            url = urljoin(url, _first_name(text))
            text = _read(url, name, timeout_seconds)
    except (Disconnected, OptionError, ValueError):
        return
    check_ranges(text, name, timeout_seconds, url=url)


def check_ranges(
    text: bytes, name: str, timeout_seconds: float, *, url: str = "", schemes: tuple[str, ...] = ("http", "https")
) -> None:
    """Ask for a part of a file that a playlist names in parts, if any.

    Args:
        text: the playlist.
        name: what messages call it.
        timeout_seconds: for the answer.
        url: its own; empty: names without a server are those of local files.
        schemes: those of servers that may be asked.

    Raises:
        SourceError: the server sends whole files.
    """
    part = _first_in_parts(text)
    try:
        target = urljoin(url, part)
        if not part or target.partition("://")[0].lower() not in schemes:
            return
        answer = HttpAnswer(target, name, timeout_seconds, first=1)
        answer.close()
    except (Disconnected, OptionError, ValueError):
        return
    if not answer.is_part:
        raise SourceError(
            f"{name}: the playlist names parts of files (EXT-X-BYTERANGE), and the server sends whole files instead; "
            "download it and what it names, and use `rtseg video PLAYLIST --allow-protocols file`"
        )


def _read(url: str, name: str, timeout_seconds: float) -> bytes:
    answer = HttpAnswer(url, name, timeout_seconds)
    try:
        return answer.peek(_LARGEST_BYTES)
    finally:
        answer.close()


def _first_name(text: bytes) -> str:
    """Return the first address of a playlist; empty: there is none."""
    lines = (line.strip() for line in text.decode(errors="replace").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def _first_in_parts(text: bytes) -> str:
    """Return the first file of which a part is named that is not its beginning; empty: there is none."""
    for part in text.split(_RANGE)[1:]:
        place, _, rest = part.partition(b"\n")
        if not place.strip().endswith(b"@0"):
            return _first_name(rest)
    return ""
