"""Safe opening of untrusted media, with a one-line message for each kind of failure.

FFmpeg detects formats by content, not by name. With a playlist named `c.mp4` it would open other files or internal addresses.
So only listed formats, protocols and codecs are allowed, for the container and for every probed stream. A playlist is opened
only if the user allows the protocols for its entries.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
from av.codec.codec import Codec, UnknownCodecError, codecs_available
from av.container import InputContainer

from rtseg.core import secrets
from rtseg.core.errors import SourceError, reason
from rtseg.io.codecs import acceleration
from rtseg.io.inputs.playlist import PLAYLIST_FORMATS, PLAYLIST_STARTS, check_protocols, playlist_arguments

STDIN = "-"
"""Input name of standard input."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,gif,h264,hevc,m4v,mjpeg,ogg,mxf,"
    "ivf,obu,av1,yuv4mpegpipe,nut,dv,wtv"
)
"""Demuxers that read only one file: no playlists, image sequences, devices or concatenation."""

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mp4v", ".mpg4", ".mov", ".qt", ".mqv", ".3gp", ".3gpp", ".3gp2", ".3g2", ".3gpp2", ".mj2", ".mjp2", ".f4v",
    ".ismv", ".psp", ".insv", ".360", ".mkv", ".mk3d", ".webm", ".avi", ".divx", ".xvid", ".ts", ".tp", ".trp", ".m2t", ".m2ts",
    ".mts", ".mp2t", ".mpegts", ".ssif", ".tod", ".mpg", ".mpeg", ".mpe", ".ps", ".m2p", ".mp2p", ".vob", ".dvd", ".evo", ".mod",
    ".vro", ".vdr", ".dav", ".m1v", ".m2v", ".mp2v", ".mpv", ".mpv2", ".flv", ".asf", ".wmv", ".wm", ".dvr-ms", ".gif", ".h264",
    ".264", ".26l", ".h26l", ".jvt", ".avc", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg", ".ogv", ".ogm", ".ogx", ".mxf", ".ivf",
    ".obu", ".av1", ".y4m", ".nut", ".dv", ".dif", ".wtv",
})  # fmt: skip
"""Suffixes of video files in a searched folder, in lower case. (A file that is named explicitly may have any suffix.)
They include all suffixes of the demuxers above in FFmpeg, except those of audio, images and subtitles."""

VIDEO_CODECS = (
    "h264,hevc,av1,libdav1d,libaom-av1,vp8,vp9,libvpx-vp9,libvpx,mpeg4,mpeg2video,mpeg1video,mjpeg,gif,rawvideo,prores,dnxhd,ffv1,"
    "huffyuv,ffvhuff,utvideo,theora,vc1,wmv1,wmv2,wmv3,flv,h263,h263p,msmpeg4v1,msmpeg4v2,msmpeg4,dvvideo,png,qtrle,cinepak,"
    "msvideo1,svq1,svq3,wrapped_avframe"
)
"""Allowed decoders for video streams."""

_SUBTITLE_CODECS = "subrip,srt,ass,ssa,mov_text,webvtt,text,dvdsub,dvbsub,pgssub,cc_dec"


@lru_cache(maxsize=1)
def codec_whitelist() -> str:
    """Return FFmpeg's option of this name: `VIDEO_CODECS`, all audio decoders and some of subtitles, to probe streams."""
    decoders = (name for name in sorted(codecs_available) if _is_audio_decoder(name))
    return ",".join([VIDEO_CODECS, *decoders, _SUBTITLE_CODECS])


def _is_audio_decoder(name: str) -> bool:
    try:
        return Codec(name, "r").type == "audio"
    except UnknownCodecError:  # an encoder
        return False


LENIENT: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""Arguments of `av.open` that permit metadata in invalid UTF-8. PyAV 19.0 and later permit it by default."""

_STREAMS_LIMIT = 64
"""Number of streams at which a file is refused, because some demuxers silently omit further streams."""


def open_input(
    path: str, *, allow_protocols: Sequence[str] = (), decoder: str = "software", gpu: int | None = None
) -> InputContainer:
    """Open a media file, or standard input for `-`, for demuxing.

    Args:
        path: a path, or `-`. A string like a URL is also a path.
        allow_protocols: allowed protocols (`file`, `http`, `https`) for the entries of a playlist; empty: playlists are
            refused.
        decoder: return value of `rtseg.io.codecs.choose_decoder`.
        gpu: see `rtseg.io.codecs.acceleration`.

    Raises:
        SourceError: the file is missing, not a regular file, empty, or not a video in one of `FORMATS`.
        OptionError: a protocol is unknown.
    """
    check_protocols(allow_protocols)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": FORMATS,
        "codec_whitelist": codec_whitelist(),
        "max_streams": str(_STREAMS_LIMIT),
    }
    name, head, is_playlist = redacted_name(path), b"", False
    too_many_streams = f"{name} has {_STREAMS_LIMIT} streams or more, or needs too much memory: it is refused"
    arguments: dict[str, Any] = {}
    source: Any = f"file:{path}"
    if path == STDIN:
        regular = stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
        source, options["protocol_whitelist"] = ("fd:", "fd") if regular else (_Pipe(), "")
    else:
        head = _read_head(path)
        if Path(path).suffix.lower() in (".mjpeg", ".mjpg") and head.startswith(_JPEG):
            arguments["format"] = "mjpeg"  # by default FFmpeg reads concatenated JPEGs as a single image
        is_playlist = bool(allow_protocols) and head.startswith(PLAYLIST_STARTS)
        if is_playlist:
            source, replaced, arguments = playlist_arguments(path, allow_protocols)
            options |= replaced | {"format_whitelist": f"{FORMATS},{PLAYLIST_FORMATS}"}
    try:
        container = av.open(source, options=options, **arguments, **acceleration(decoder, gpu), **LENIENT)
    except (av.FFmpegError, OSError, ValueError) as error:
        if is_playlist:
            allowed = ", ".join(allow_protocols)
            raise SourceError(
                f"{name} is a playlist, and its entries can't be opened with the allowed protocols ({allowed})"
            ) from error
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            raise SourceError(too_many_streams) from error  # FFmpeg's error if a demuxer needs more streams
        raise SourceError(_failure_text(name, head, error)) from error
    finally:
        if isinstance(source, _Pipe) and source.interrupt is not None:
            raise source.interrupt
    assert isinstance(container, InputContainer)
    if len(container.streams) >= _STREAMS_LIMIT:
        container.close()
        raise SourceError(too_many_streams)
    return container


class _Pipe:
    """Standard input for PyAV. FFmpeg's own reads of a pipe that sends nothing can't be interrupted."""

    def __init__(self) -> None:
        self.interrupt: KeyboardInterrupt | None = None

    def read(self, count: int) -> bytes:
        """Block until data is available, and return 1 to `count` bytes; at the end or after an interrupt, none."""
        try:
            return os.read(sys.stdin.fileno(), count)
        except KeyboardInterrupt as interrupt:  # PyAV would drop it
            self.interrupt = interrupt
            return b""


def redacted_name(path: str) -> str:
    """Return the name of an input for messages."""
    return "standard input" if path == STDIN else secrets.redacted_name(path)


def _read_head(path: str) -> bytes:
    """Return the first bytes of a regular file."""
    name = redacted_name(path)
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise SourceError(f"{name} is a folder; name a video file in it")
        if stat.S_ISFIFO(mode):
            raise SourceError(f"{name} is a named pipe; use it as standard input: `rtseg video - < PIPE`")
        if stat.S_ISCHR(mode) and name.startswith("/dev/video"):
            raise SourceError(f"{name} is a camera; use `rtseg live --camera {name}`")
        if not stat.S_ISREG(mode):
            raise SourceError(f"{name} is not a regular file")
        with Path(path).open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise SourceError(f"no such file: {name}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"can't read {name}: {reason(error)}") from error
    if not head:
        raise SourceError(f"{name} is empty (0 bytes)")
    return head


_HEAD_BYTES = 4096
_JPEG = b"\xff\xd8\xff"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image; use `rtseg image`"),
    (_JPEG, "a JPEG image; use `rtseg image`"),
    (b"BM", "a BMP image; use `rtseg image`"),
    (b"II*\0", "a TIFF image; use `rtseg image`"),
    (b"MM\0*", "a TIFF image; use `rtseg image`"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"#EXTM3U", "a playlist; name the video it points to, or see --allow-protocols"),
    (b"ffconcat", "a list of files; name the videos in it, or see --allow-protocols"),
    (b"%PDF", "a PDF document"),
)


def _failure_text(name: str, head: bytes, error: Exception) -> str:
    """Return the message for a file that FFmpeg refused. `head` are its first bytes, none for standard input."""
    if isinstance(error, PermissionError):
        return f"can't read {name}: permission denied"
    if head[4:8] == b"ftyp":
        index = "whose index (moov) is missing or damaged: the recording was probably cut off"
        return f"{name} is unreadable: it is an MP4 file {index}"
    kind = next((text for magic, text in _MAGIC if head.startswith(magic)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind = "a WebP image; use `rtseg image`"
    elif not kind and head and _is_text(head):
        kind = "a text file"
    return f"{name} is not a video: it is {kind}" if kind else f"{name} is not a video that rtseg reads"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)
