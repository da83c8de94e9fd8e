"""Streams from a network: RTSP, RTMP, HTTP, HLS, and MPEG-TS over TCP or UDP, with time-outs that hold."""

from __future__ import annotations

import av

from rtseg.errors import Disconnected, OptionError, SourceError
from rtseg.hardware import acceleration
from rtseg.secrets import parse_url
from rtseg.sources.connection import Connection, reason
from rtseg.sources.demux import LENIENT, OTHER_CODECS, VIDEO_CODECS

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
    "udp": ("udp", "mpegts"),
}
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
        decoder: as `rtseg.hardware.choose_decoder` gives it.

    Raises:
        OptionError: not such a URL or transport.
        SourceError: nobody answers, it is refused, or it is no video.
    """
    parts = parse_url(url, "the URL")
    scheme, name = parts.scheme, name or parts.shown
    if scheme not in _PROTOCOLS:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise OptionError(f"can't open {name}: URLs begin with {known}; a file needs --realtime")
    if rtsp_transport not in ("tcp", "udp"):
        raise OptionError(f"RTSP goes over tcp or udp, not '{rtsp_transport}'")
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
    if scheme in ("rtsp", "rtsps"):
        options["rtsp_transport"] = rtsp_transport
    if scheme == "udp":
        options |= {"overrun_nonfatal": "1", "fifo_size": "28672"}
    more = {**LENIENT, **acceleration(decoder)}
    try:
        container = av.open(parts.text, options=options, timeout=(timeout_seconds, timeout_seconds), **more)
    except (av.FFmpegError, OSError, ValueError) as error:
        # The cause is left out: its text holds the URL with its password.
        text = reason(error)
        if isinstance(error, (av.ExitError, av.InvalidDataError, av.TimeoutError)):
            text = f"no video came within {timeout_seconds:g} s"
        raise Disconnected(f"can't open {name}: {text}") from None
    if not isinstance(container, av.container.InputContainer):
        raise SourceError(f"can't open {name}")
    return Connection(container, name, decoder=decoder)
