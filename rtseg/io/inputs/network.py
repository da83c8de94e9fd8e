"""Streams from a network: RTSP, RTMP, HTTP, HLS, and MPEG-TS over TCP or UDP, with time-outs that hold."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import av

from rtseg.core.errors import Disconnected, OptionError, SourceError
from rtseg.core.secrets import parse_url
from rtseg.io.codecs import acceleration
from rtseg.io.inputs.annexb import RawPackets, raw_codec
from rtseg.io.inputs.byte_stream import Answer, HttpAnswer, TcpAnswer
from rtseg.io.inputs.connection import Connection
from rtseg.io.inputs.hls_byte_ranges import check_playlist_at
from rtseg.io.inputs.http_file import HttpFile, SeekableHttpFile
from rtseg.io.inputs.live_clock import RTP_WRAP_SECONDS, TS_WRAP_SECONDS
from rtseg.io.inputs.mjpeg import SINGLE_IMAGE, JpegPackets
from rtseg.io.inputs.mp4_streaming import has_fragments, has_index_last, is_live_mp4
from rtseg.io.inputs.packets import DemuxedPackets, reason
from rtseg.io.inputs.safe_open import FORMATS, LENIENT, OTHER_CODECS, VIDEO_CODECS

TIMEOUT_SECONDS = 5.0
"""How long opening may take, and how long a stream may be silent."""

_STREAMS = "mpegts,mjpeg,mpjpeg,flv,live_flv,h264,hevc,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,ogg,nut,aac,mp3"
"""Demuxers of what comes through TCP, UDP and HTTP: none of them opens other addresses."""

_PROTOCOLS: dict[str, tuple[str, str]] = {
    # scheme: (FFmpeg protocols that may be used, demuxers that may be used)
    "rtsp": ("rtsp,rtp,tcp,udp", "rtsp,rtp,sdp,mpegts"),
    "rtsps": ("rtsps,rtsp,rtp,tls,tcp,udp", "rtsp,rtp,sdp,mpegts"),
    "rtmp": ("rtmp,tcp", "flv,live_flv"),
    "rtmps": ("rtmps,tls,tcp", "flv,live_flv"),
    "http": ("http,tcp", _STREAMS),
    "https": ("https,tls,tcp", _STREAMS),
    "tcp": ("tcp", _STREAMS),
    "udp": ("udp", "mpegts,h264,hevc"),
}
_HEAD_BYTES = 16
_NO_RANGES = (
    "; the server does not send parts of files (byte ranges), which an MP4 or MOV needs whose index is at its end: "
    "download it, and use `rtseg video`"
)

_PLAYLIST = ",hls,mpegts,mov,mp4,m4a,3gp,3g2,mj2,aac,mp3,webvtt"

SCHEMES = tuple(_PROTOCOLS)
"""What URLs may begin with, here; `srt://` goes through GStreamer."""


def open_stream(
    url: str,
    *,
    name: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    rtsp_transport: str = "tcp",
    decoder: str = "software",
) -> Connection:
    """Connects to a stream.

    Args:
        url: begins with one of `SCHEMES`; an address that ends in `.m3u8` is an HLS playlist.
        name: for messages; None: the URL without its secrets.
        timeout_seconds: for opening, and for any silence later.
        rtsp_transport: `tcp` or `udp`.
        decoder: as `rtseg.io.codecs.choose_decoder` gives it.

    Raises:
        OptionError: not such a URL or transport.
        SourceError: nobody answers, it is refused, or it is no video.
    """
    parts = parse_url(url, "the URL")
    scheme, name = parts.scheme, name or parts.redacted
    if scheme not in _PROTOCOLS:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise OptionError(f"can't open {name}: URLs begin with {known}; a file needs --realtime")
    if rtsp_transport not in ("tcp", "udp"):
        raise OptionError(f"RTSP goes over tcp or udp, not '{rtsp_transport}'")
    file: bool | None = False
    answer: Answer | None = None
    advice = ""
    if scheme in ("http", "https"):
        file = None
        if parts.path.lower().endswith(".m3u8"):
            check_playlist_at(parts.text, name, timeout_seconds)
        else:
            answer = HttpAnswer(parts.text, name, timeout_seconds)
    elif scheme == "tcp" and "?" not in parts.tail:  # its options, such as `?listen`, are FFmpeg's
        answer = TcpAnswer(parts.text, name, timeout_seconds)
    if answer is not None:
        jpegs = _jpegs(answer, name, timeout_seconds)
        if jpegs is not None:
            return Connection(jpegs, name)
        if answer.length is not None:
            file = True
            if isinstance(answer, HttpAnswer) and not answer.sends_ranges:
                answer.close()
                answer = answer.part(0, timeout_seconds)  # so that a server that sends parts says so
        elif _look(is_live_mp4, answer, name):
            file = False
        if not answer.sends_ranges and _look(has_index_last, answer, name):
            advice = _NO_RANGES
    # Without parts FFmpeg sees the first fragment alone, and gives its length for that of the file.
    unstated = bool(file) and answer is not None and not answer.sends_ranges and _look(has_fragments, answer, name)
    protocols, formats = _PROTOCOLS[scheme]
    options = {
        "protocol_whitelist": protocols,
        "format_whitelist": formats,
        "codec_whitelist": f"{VIDEO_CODECS},{OTHER_CODECS}",
        "max_streams": "64",
        "analyzeduration": "2000000",
        "fpsprobesize": "0",  # it would read two dozen pictures, most of a second, before the first is shown
    }
    if scheme in ("http", "https") and parts.path.lower().endswith(".m3u8"):
        options["format_whitelist"] += _PLAYLIST
        options["protocol_whitelist"] += ",crypto"
    if file:
        options["format_whitelist"] += f",{FORMATS}"
    if scheme in ("rtsp", "rtsps"):
        options["rtsp_transport"] = rtsp_transport
    if scheme == "udp":
        options |= {"overrun_nonfatal": "1", "fifo_size": "28672"}
    more = {**LENIENT, **acceleration(decoder)}
    source: Any = parts.text if answer is None else answer
    if file and isinstance(answer, HttpAnswer):
        kind_of_file = SeekableHttpFile if answer.sends_ranges else HttpFile
        source = kind_of_file(answer, parts.text, timeout_seconds)
    kind = None if answer is None or file else raw_codec(answer.peek(_HEAD_BYTES))
    if answer is not None and kind is not None and not acceleration(decoder):
        return _raw(answer, kind, name, timeout_seconds)
    if kind is not None:
        options["analyzeduration"] = "1"  # what is read while it is opened would all have arrived at once
    begin = time.monotonic()
    try:
        container = av.open(source, format=kind, options=options, timeout=(timeout_seconds, timeout_seconds), **more)
    except BaseException as error:
        if answer is not None:
            source.close()
        if isinstance(source, HttpFile) and not isinstance(error, Disconnected):
            error = source.failure or error
        if isinstance(error, Disconnected):
            raise Disconnected(f"{_not_opened(name, error)}{advice}") from None
        if not isinstance(error, (av.FFmpegError, OSError, ValueError)):
            raise
        # The cause is left out: its text holds the URL with its password.
        text = reason(error)
        if getattr(error, "errno", None) == errno.EINVAL:  # what FFmpeg says of a format that is not in the list
            text = f"what it sends is not a video that rtseg reads over {scheme}"
            if answer is not None:
                text += "; download it, and use `rtseg video`"
            else:
                text = f"nothing can be reached at this address, or {text}; check host and port"
        if isinstance(error, (av.ExitError, av.InvalidDataError, av.TimeoutError)):
            text = f"no video came within {timeout_seconds:g} s"
            # Where rtseg reads, or a file is, what takes too long has an error of its own.
            if answer is not None or time.monotonic() - begin < timeout_seconds / 2:
                text = "what it sends is not a video that rtseg reads"
        raise Disconnected(f"can't open {name}: {text}{advice}") from None
    if not isinstance(container, av.container.InputContainer):
        raise SourceError(f"can't open {name}")
    if answer is None:
        wrap = RTP_WRAP_SECONDS if scheme in ("rtsp", "rtsps") else TS_WRAP_SECONDS
        return Connection(DemuxedPackets(container, name, decoder=decoder, file=file), name, wrap_seconds=wrap)
    wait, close = partial(source.allow, timeout_seconds), source.close
    packets = DemuxedPackets(
        container, name, wait_readable=wait, decoder=decoder, file=file, on_end=source.check, on_close=close
    )
    if unstated:
        packets.file_seconds = 0.0
    answer.opened()
    try:
        return Connection(packets, name, arrival_ns=answer.arrival_ns)
    except Disconnected as error:
        raise Disconnected(f"{error}{advice}") from None


def _raw(answer: Answer, codec: str, name: str, timeout_seconds: float) -> Connection:
    try:
        return Connection(RawPackets(answer, codec, timeout_seconds), name)
    except Disconnected as error:
        raise _not_opened(name, error) from None


def _jpegs(answer: Answer, name: str, timeout_seconds: float) -> JpegPackets | None:
    """The packets of an answer that holds JPEGs; None: FFmpeg shall look at it. Closed where it is refused."""
    try:
        head = answer.peek(_HEAD_BYTES)
        if answer.content_type == "image/jpeg" and answer.length is not None:
            raise SourceError(f"{name}: {SINGLE_IMAGE}")
        if answer.multipart or head.startswith((b"\xff\xd8\xff", b"--", b"\r\n--", b"\n--")):
            if answer.length is not None:
                raise SourceError(f"{name} is an MJPEG file without time stamps; download it, and use `rtseg video`")
            return JpegPackets(answer, name, timeout_seconds)
        if head.lstrip().startswith(b"#EXTM3U"):
            raise SourceError(f"{name} is a playlist; playlists are read only where the address ends in .m3u8")
        if answer.content_type == "text/html" and head.lstrip().startswith(b"<"):
            raise SourceError(f"{name} is a web page, not a video; give the address of the stream itself")
        return None
    except Disconnected as error:
        answer.close()
        raise _not_opened(name, error) from None
    except BaseException:
        answer.close()
        raise


def _look(at: Callable[[Answer], bool], answer: Answer, name: str) -> bool:
    try:
        return at(answer)
    except Disconnected as error:
        answer.close()
        raise _not_opened(name, error) from None


def _not_opened(name: str, error: Disconnected) -> Disconnected:
    return Disconnected(f"can't open {name}: {str(error).removeprefix(f'{name}: ')}")
