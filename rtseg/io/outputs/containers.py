"""Output containers: muxers, supported codecs, and muxer options that keep a file playable while it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from av.codec.context import CodecContext, Flags
from av.container import OutputContainer

from rtseg.core.cpu import usable_cores
from rtseg.core.errors import SinkError

STDOUT = "-"
"""Name of standard output."""

TEE = "tee"
"""Muxer that forwards packets to other muxers; see `Container.unlisted_codecs`."""

_LOW_LATENCY = {
    "flush_packets": "1",
    # Subtitle and data packets are rare. By default a muxer delays all other packets by up to ten seconds to wait for them.
    "max_interleave_delta": "500000",
}

# Resolution of track start times in MP4, ticks per second. The default of 1000 would shift audio against video.
_FINE_TIMESCALE = {"movie_timescale": "720000"}

_FRAGMENTED = {
    # The file consists of fragments while it is written, and gets one index when it is closed. The index is written after
    # the first packets (`delay_moov`); otherwise times of B-frames and of early audio would change.
    "movflags": "hybrid_fragmented+delay_moov",
    "frag_duration": "500000",
    **_FINE_TIMESCALE,
    **_LOW_LATENCY,
}

# Clusters of one second (in milliseconds). By default a cluster ends at a key frame and has at least 4 KiB.
_CLUSTERED = {"cluster_time_limit": "1000", **_LOW_LATENCY}


@dataclass(frozen=True, slots=True)
class Container:
    """An output container."""

    format: str
    """Name of the muxer in FFmpeg."""

    video_codec: str = "libx264"
    """Default video encoder."""

    audio_codec: str | None = "aac"
    """Encoder for audio whose codec the container does not support; None: the container has no audio."""

    options: Mapping[str, str] = field(default_factory=lambda: _LOW_LATENCY)
    """Options of the muxer."""

    constant_rate: bool = False
    """True if the container stores a frame rate and no timestamps."""

    has_timestamps: bool = True
    """True if the container stores timestamps."""

    readable_codecs: frozenset[str] | None = None
    """Codecs of other streams that players can read; None: all codecs that the muxer accepts."""

    keeps_pcm: bool = False
    """True if unsupported PCM formats are converted without loss to a supported PCM format."""

    unlisted_codecs: frozenset[str] = frozenset()
    """Audio codecs that the muxer supports but that are missing from FFmpeg's codec list, which PyAV checks. They are written
    through the muxer `tee`, which has no such list."""

    cover_codecs: frozenset[str] = frozenset()
    """Codecs of cover images."""

    time_codes: Literal["tracks", "tags", "file", ""] = ""
    """Storage of time codes.

    - `tracks`: a track that the muxer writes for each video stream with a `timecode`
    - `tags`: metadata of any stream
    - `file`: metadata of the file only
    - empty: none
    """

    @property
    def fragmented(self) -> bool:
        """True if the file consists of fragments while it is written (MP4 and MOV)."""
        return self.options is _FRAGMENTED

    @property
    def options_unfragmented(self) -> Mapping[str, str]:
        """Muxer options without fragments, for an output with MP4 subtitles or a cover image.

        FFmpeg 8.1 ends a fragment at a subtitle, which changes the time of the next frame, and aborts the process if the first
        subtitle is late. With a cover image it writes an empty video track to a fragmented MP4.
        """
        return {**_LOW_LATENCY, **_FINE_TIMESCALE} if self.fragmented else self.options

    def tee(self, url: str) -> str:
        """Return the URL with which the muxer `tee` writes this container to `url`."""
        options = "".join(f":{key}={value}" for key, value in self.options.items())
        return f"[f={self.format}{options}]" + re.sub(r"[\\'|\s]", r"\\\g<0>", url)

    def supports(self, kind: str, codec: str) -> bool:
        """Return True if a stream type (`audio`, `data` ...) and codec are supported. The muxer may reject more codecs."""
        if self.fragmented and kind == "data" and codec != "bin_data":  # GoPro's sensor data (`gpmd`)
            return False  # the muxer writes them without a description, so no program can read them
        if self.format == "mp4" and codec in _MP4_UNREADABLE_CODECS:
            return False
        return self.readable_codecs is None or codec in self.readable_codecs


_MP4_UNREADABLE_CODECS = frozenset(
    {"pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"}
    | {"pcm_alaw", "pcm_mulaw"}
)
"""PCM codecs that the MP4 muxer rejects, or that it writes since FFmpeg 6.0 in boxes that older players do not support: those
play 24-bit and 32-bit samples as 16-bit noise."""

# AVI has no audio timestamps: players count bytes or blocks. This fails for AAC with unknown block sizes. It also fails for ADPCM
# and WMA, because the muxer has no exact rate for them: ADPCM written by `ffmpeg -c copy` plays too fast.
_AVI_CODECS = frozenset(
    {"mp3", "mp2", "ac3", "pcm_s16le", "pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_alaw", "pcm_mulaw"}
    | {"mpeg4", "mjpeg", "h264"}
)

# The MPEG-TS muxer writes any other codec as private data, which no player can read.
_TS_CODECS = frozenset(
    {"aac", "aac_latm", "mp1", "mp2", "mp3", "ac3", "eac3", "dts", "opus"}
    | {"mpeg1video", "mpeg2video", "mpeg4", "h264", "hevc"}
    | {"dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle", "klv", "timed_id3"}
)

_MATROSKA_UNLISTED_CODECS = frozenset(
    {"pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav", "adpcm_yamaha", "adpcm_g722"}
    | {"gsm_ms", "g723_1", "wmav1", "wmav2"}
)
"""Audio codecs that Matroska stores as `A_MS/ACM`, with the codec numbers of AVI and WAV."""

_COVER_CODECS = frozenset({"mjpeg", "png"})

_MP4 = Container("mp4", options=_FRAGMENTED, time_codes="tracks", cover_codecs=_COVER_CODECS)
_MPEG_TS = Container("mpegts", readable_codecs=_TS_CODECS)
_H264 = Container("h264", audio_codec=None, has_timestamps=False)

CONTAINERS: Mapping[str, Container] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container("mov", options=_FRAGMENTED, keeps_pcm=True, time_codes="tracks"),
    ".mkv": Container(
        "matroska",
        options=_CLUSTERED,
        keeps_pcm=True,
        unlisted_codecs=_MATROSKA_UNLISTED_CODECS,
        time_codes="tags",
        cover_codecs=_COVER_CODECS,
    ),
    ".webm": Container("webm", "libvpx-vp9", "libopus", options=_CLUSTERED, time_codes="tags"),
    ".ts": _MPEG_TS,
    ".m2ts": _MPEG_TS,
    ".mts": _MPEG_TS,
    ".avi": Container(
        "avi",
        audio_codec="libmp3lame",
        # AVI starts at zero. A shift for early audio would insert an empty frame.
        options={**_LOW_LATENCY, "avoid_negative_ts": "disabled"},
        constant_rate=True,
        keeps_pcm=True,
        readable_codecs=_AVI_CODECS,
        time_codes="file",
    ),
    ".h264": _H264,
    ".264": _H264,
}
"""Mapping of the file suffix to the container."""


def add_global_header(container: OutputContainer, context: CodecContext) -> None:
    """Set the global header flag of an encoder for the muxer `tee`. PyAV sets it for other muxers only."""
    if container.format.name == TEE:
        context.flags |= Flags.global_header


def container_for(output: str) -> Container:
    """Return the container for the suffix of `output`; Matroska for standard output.

    Raises:
        SinkError: the suffix is unknown.
    """
    if output == STDOUT:
        return CONTAINERS[".mkv"]
    suffix = Path(output).suffix.lower()
    if suffix not in CONTAINERS:
        raise SinkError(f"unknown container suffix '{suffix}' of {output}; supported are {', '.join(CONTAINERS)}")
    return CONTAINERS[suffix]


_MIN_X264_THREADS = 6
"""Minimum number of x264 threads. With x264's default of 1.5 per core, two cores that it shares with a network are idle at times,
because its threads wait for each other. Eight threads are slower than six."""


def encoder_options(encoder: str, crf: int | None, preset: str | None, *, live: bool = False) -> dict[str, str]:
    """Return the options of an encoder for constant quality.

    Args:
        encoder: its name in FFmpeg.
        crf: constant rate factor on the encoder's scale; None: 23 for x264, and a similar quality for other encoders.
        preset: preset of the encoder; None: a fast preset.
        live: encode with low latency: no frame waits for later ones.
    """

    def quality(default: int) -> int:
        return default if crf is None else crf

    match encoder:
        case "libx264" | "libx264rgb" | "libx265":
            options = {"crf": f"{quality(23)}", "preset": preset or "veryfast"}
            if live:
                options["tune"] = "zerolatency"
            elif encoder != "libx265":
                options["threads"] = str(max(_MIN_X264_THREADS, usable_cores() * 3 // 2))
            return options | ({"x265-params": "log-level=error"} if encoder == "libx265" else {})
        case "libvpx-vp9" | "libvpx":
            options = {"crf": f"{quality(33)}", "b:v": "0", "deadline": "realtime", "row-mt": "1"}
            return options | {"cpu-used": preset or "7"}
        case "libsvtav1":
            return {"crf": f"{quality(35)}", "preset": preset or "10"}
        case "h264_nvenc" | "hevc_nvenc" | "av1_nvenc":
            options = {"rc": "vbr", "cq": f"{quality(23)}", "preset": preset or ("p1" if live else "p4")}
            return options | ({"tune": "ll"} if live else {})
        case "mpeg4" | "mjpeg":
            return {"flags": "+qscale", "global_quality": f"{118 * quality(4)}"}
    given = {"crf": None if crf is None else str(crf), "preset": preset}
    return {name: value for name, value in given.items() if value is not None}
