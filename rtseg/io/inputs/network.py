"""Network sources: RTSP, RTMP, HTTP, HLS, and MPEG-TS over TCP or UDP, with strict timeouts."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import av

from rtseg.core.errors import Disconnected, OptionError, SourceError
from rtseg.core.secrets import parse_url
from rtseg.io.codecs import acceleration
from rtseg.io.inputs.annexb import RawPackets, raw_codec
from rtseg.io.inputs.byte_stream import ByteStream, DemuxerInput, HttpResponse, TcpStream
from rtseg.io.inputs.connection import Connection
from rtseg.io.inputs.http_file import HttpFile
from rtseg.io.inputs.live_clock import RTP_WRAP_SECONDS, TS_WRAP_SECONDS
from rtseg.io.inputs.mjpeg import SINGLE_IMAGE, JpegPackets
from rtseg.io.inputs.mp4_streaming import has_fragments, has_index_last, is_live_mp4
from rtseg.io.inputs.packets import DemuxedPackets, safe_error_text
from rtseg.io.inputs.playlist import check_playlist_at
from rtseg.io.inputs.safe_open import FORMATS, LENIENT, codec_whitelist

TIMEOUT_SECONDS = 5.0
"""Time limit for the opening, and later for each wait for data."""

_STREAMS = "mpegts,mjpeg,mpjpeg,flv,live_flv,h264,hevc,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,ogg,nut,aac,mp3"
"""Demuxers for TCP, UDP and HTTP. None of them opens another address."""

_PROTOCOLS: dict[str, tuple[str, str]] = {
    # scheme: (allowed FFmpeg protocols, allowed demuxers)
    "rtsp": ("rtsp,rtp,tcp,udp", "rtsp,rtp,sdp,mpegts"),
    "rtsps": ("rtsps,rtsp,rtp,tls,tcp,udp", "rtsp,rtp,sdp,mpegts"),
    "rtmp": ("rtmp,tcp", "flv,live_flv"),
    "rtmps": ("rtmps,tls,tcp", "flv,live_flv"),
    "http": ("http,tcp", _STREAMS),
    "https": ("https,tls,tcp", _STREAMS),
    "tcp": ("tcp", _STREAMS),
    "udp": ("udp", "mpegts,h264,hevc"),
}
_PLAYLIST_WAITS = 6
"""Factor of the time limit for data of a live playlist: its parts are several seconds apart, and one may be late."""

_HEAD_BYTES = 16
_NO_RANGES = (
    "; the server does not send parts of files (byte ranges), which are needed for an MP4 or MOV with the index at its end: "
    "download it, and use `rtseg video`"
)

_PLAYLIST = ",hls,mpegts,mov,mp4,m4a,3gp,3g2,mj2,aac,mp3,webvtt"

SCHEMES = tuple(_PROTOCOLS)
"""Supported URL schemes. GStreamer reads `srt://`."""


def open_stream(
    url: str,
    *,
    name: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    rtsp_transport: str = "tcp",
    decoder: str = "software",
) -> Connection:
    """Connect to a stream.

    Args:
        url: URL with one of `SCHEMES`; a path that ends in `.m3u8` is an HLS playlist.
        name: name for messages; None: the URL without its secrets.
        timeout_seconds: limit for the opening, and later for each wait for data.
        rtsp_transport: `tcp` or `udp`.
        decoder: return value of `rtseg.io.codecs.choose_decoder`.

    Raises:
        OptionError: the URL or the transport is not supported.
        SourceError: the server does not respond, it refuses the request, or the stream is not a video.
    """
    parts = parse_url(url, "the URL")
    scheme, name = parts.scheme, name or parts.redacted
    if scheme not in _PROTOCOLS:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise OptionError(f"can't open {name}: URLs begin with {known}; a file needs --realtime")
    if rtsp_transport not in ("tcp", "udp"):
        raise OptionError(f"no RTSP transport '{rtsp_transport}': there are tcp, udp")
    is_http = scheme in ("http", "https")
    is_playlist = is_http and parts.path.lower().endswith(".m3u8")
    file: bool | None = None if is_http else False
    stream: ByteStream | None = None
    advice = ""
    unknown_length = False
    if is_playlist:
        check_playlist_at(parts.text, name, timeout_seconds)
    elif is_http:
        stream = HttpResponse(parts.text, name, timeout_seconds)
    elif scheme == "tcp" and "?" not in parts.tail:  # FFmpeg handles URLs with options, such as `?listen`
        stream = TcpStream(parts.text, name, timeout_seconds)
    if stream is not None:
        with _opening(stream, name):
            jpegs = _jpeg_packets(stream, name, timeout_seconds)
        if jpegs is not None:
            return Connection(jpegs, name)
        if stream.length is not None:
            file = True
            if isinstance(stream, HttpResponse) and not stream.accepts_ranges:
                stream.close()
                # The response to a range request states whether the server sends byte ranges.
                stream = stream.request_from(0, timeout_seconds)
        with _opening(stream, name):
            if not file and is_live_mp4(stream):
                file = False
            if not stream.accepts_ranges:
                advice = _NO_RANGES if has_index_last(stream) else ""
                # FFmpeg reads only the first fragment then, and returns its length as the length of the file.
                unknown_length = bool(file) and has_fragments(stream)
    protocols, formats = _PROTOCOLS[scheme]
    options = {
        "protocol_whitelist": protocols + (",crypto" if is_playlist else ""),
        "format_whitelist": formats + (_PLAYLIST if is_playlist else "") + (f",{FORMATS}" if file else ""),
        "codec_whitelist": codec_whitelist(),
        "max_streams": "64",
        "analyzeduration": "2000000",
        "fpsprobesize": "0",  # by default FFmpeg reads about two dozen frames before it returns the first
    }
    if scheme in ("rtsp", "rtsps"):
        options["rtsp_transport"] = rtsp_transport
    if scheme == "udp":
        options |= {"overrun_nonfatal": "1", "fifo_size": "28672"}
    hardware = acceleration(decoder)
    source: Any = parts.text if stream is None else DemuxerInput(stream)
    if file and isinstance(stream, HttpResponse):
        source = HttpFile(stream, parts.text, timeout_seconds)
    raw_format = None if stream is None or file else raw_codec(stream.peek(_HEAD_BYTES))
    if stream is not None and raw_format is not None and not hardware:
        with _opening(stream, name):
            return Connection(RawPackets(stream, raw_format, timeout_seconds), name)
    if raw_format is not None:
        options["analyzeduration"] = "1"  # all data that is read during opening has the same arrival time
    begin = time.monotonic()
    try:
        limits = (timeout_seconds, timeout_seconds * (_PLAYLIST_WAITS if is_playlist else 1))
        container = av.open(source, format=raw_format, options=options, timeout=limits, **LENIENT, **hardware)
    except BaseException as error:
        if stream is not None:
            source.close()
            error = source.failure or error
        if isinstance(error, Disconnected):
            raise Disconnected(f"{_opening_error(name, error)}{advice}") from None
        if not isinstance(error, (av.FFmpegError, OSError, ValueError)):
            raise
        # The cause is left out: its text contains the URL with the password.
        text = safe_error_text(error)
        # FFmpeg's error for a format that is not in `format_whitelist`.
        if getattr(error, "errno", None) == errno.EINVAL:
            text = f"the data is not a video that rtseg reads over {scheme}"
            if stream is not None:
                text += "; download it, and use `rtseg video`"
            else:
                text = f"nothing can be reached at this address, or {text}; check host and port"
        if isinstance(error, (av.ExitError, av.InvalidDataError, av.TimeoutError)):
            text = f"no video arrived within {timeout_seconds:g} s"
            # With a byte stream, a timeout raises a different error. Without one, an early error is no timeout.
            if stream is not None or time.monotonic() - begin < timeout_seconds / 2:
                text = "the data is not a video that rtseg reads"
        raise Disconnected(f"can't open {name}: {text}{advice}") from None
    assert isinstance(container, av.container.InputContainer)
    if stream is None:
        rtsp = scheme in ("rtsp", "rtsps")
        wrap = RTP_WRAP_SECONDS if rtsp else TS_WRAP_SECONDS
        # Of MPEG-TS, FFmpeg returns one held frame at the timeout and another at the next one: it needs both reads.
        limit = timeout_seconds if rtsp else None
        packets = DemuxedPackets(container, name, decoder=decoder, file=file, timeout_seconds=limit)
        return Connection(packets, name, wrap_seconds=wrap)
    wait = partial(source.set_time_limit, timeout_seconds)
    packets = DemuxedPackets(container, name, wait_readable=wait, decoder=decoder, file=file, stream=source)
    if unknown_length:
        packets.file_seconds = 0.0
    try:
        return Connection(packets, name, arrival_ns=stream.arrival_ns)
    except Disconnected as error:
        raise Disconnected(f"{error}{advice}") from None


def _jpeg_packets(stream: ByteStream, name: str, timeout_seconds: float) -> JpegPackets | None:
    """Return the packets of a stream of JPEGs; None: FFmpeg reads the stream."""
    head = stream.peek(_HEAD_BYTES)
    if stream.content_type == "image/jpeg" and stream.length is not None:
        raise SourceError(f"{name}: {SINGLE_IMAGE}")
    if stream.multipart or head.startswith((b"\xff\xd8\xff", b"--", b"\r\n--", b"\n--")):
        if stream.length is not None:
            raise SourceError(f"{name} is an MJPEG file without time stamps; download it, and use `rtseg video`")
        return JpegPackets(stream, name, timeout_seconds)
    if head.lstrip().startswith(b"#EXTM3U"):
        raise SourceError(f"{name} is a playlist; playlists are read only if the address ends in .m3u8")
    if stream.content_type == "text/html" and head.lstrip().startswith(b"<"):
        raise SourceError(f"{name} is a web page, not a video; give the address of the stream itself")
    return None


@contextmanager
def _opening(stream: ByteStream, name: str) -> Iterator[None]:
    """Close a stream after an error in the block."""
    try:
        yield
    except BaseException as error:
        stream.close()
        if isinstance(error, Disconnected):
            raise _opening_error(name, error) from None
        raise


def _opening_error(name: str, error: Disconnected) -> Disconnected:
    return Disconnected(f"can't open {name}: {str(error).removeprefix(f'{name}: ')}")
