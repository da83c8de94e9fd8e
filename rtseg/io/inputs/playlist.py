"""Playlists: files that name other files or addresses. They open nothing unless the user named the protocols for it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtseg.core.errors import OptionError, SourceError
from rtseg.core.secrets import redacted_name
from rtseg.io.inputs.hls_byte_ranges import check_ranges

_PROTOCOLS = {"file": "file", "http": "http,tcp", "https": "https,tls,tcp"}
"""What `--allow-protocols` may name, and the FFmpeg protocols that each needs."""

_FORMATS = "hls,concat"
_LARGEST_BYTES = 1 << 22
_SILENT_SECONDS = 15.0
"""How long a server that a playlist names may take to answer, and be silent later."""


class _Text(io.BytesIO):
    """A playlist in memory, with the name by which FFmpeg tells its kind."""

    name = ""


def check_protocols(names: Sequence[str]) -> None:
    """Raises OptionError unless each is `file`, `http` or `https`."""
    for name in names:
        if name not in _PROTOCOLS:
            raise OptionError(f"no protocol '{name}' for playlists: there are {', '.join(_PROTOCOLS)}")


def read_playlist(path: str) -> bytes | None:
    """The text of a playlist (HLS, or FFmpeg's own list of files); None: it is none."""
    with Path(path).open("rb") as file:
        text = file.read(4096)
        if text.startswith((b"#EXTM3U", b"ffconcat")):
            return text + file.read(_LARGEST_BYTES)
    return None


def playlist_arguments(path: str, text: bytes, names: Sequence[str]) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """How `av.open` opens a playlist: what to open, options that replace those of a plain file, and further arguments.

    Where `file` is not among the protocols the playlist is handed over as text, so that FFmpeg may open no file at all.

    Args:
        path: of the playlist.
        text: what is in it.
        names: protocols, each `file`, `http` or `https`, by which it may open what it names.

    Raises:
        SourceError: it grows while it is read, and so has no end; or it names parts of files on a server that sends none.
    """
    if b"#EXTINF" in text and b"#EXT-X-ENDLIST" not in text:
        raise SourceError(f"{path} is the playlist of a live stream, which has no end: `rtseg live --url` reads those")
    check_ranges(text, redacted_name(path), _SILENT_SECONDS, schemes=tuple(name for name in names if name != "file"))
    source: Any = f"file:{path}"
    if "file" not in names:
        source = _Text(text)
        source.name = path
    protocols = ",".join(["crypto", "data", *(_PROTOCOLS[name] for name in names)])
    # `safe` is of FFmpeg's list of files alone: without it only names without a folder are taken.
    options = {"protocol_whitelist": protocols, "safe": "0"}
    return source, options, {"timeout": (_SILENT_SECONDS, _SILENT_SECONDS)}


def with_playlists(formats: str) -> str:
    """The list of demuxers, with those of playlists."""
    return f"{formats},{_FORMATS}"
