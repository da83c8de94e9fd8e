"""Output containers: muxers, codecs, and options that keep a file playable while it is written."""

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
"""Muxer that forwards packets to other muxers; see `Container.unlisted`."""

_PROMPT = {
    "flush_packets": "1",
    # Subtitle and data packets are rare: by default a muxer holds back all others for ten seconds to wait for them.
    "max_interleave_delta": "500000",
}

# Unit of track starts in MP4. The default of one millisecond would move audio against video.
_FINE = {"movie_timescale": "720000"}

_FRAGMENTED = {
    # Fragments while writing, a plain file with one index when closed. The index is written after the first packets
    # (`delay_moov`); otherwise B-frames and early audio would be moved in time.
    "movflags": "hybrid_fragmented+delay_moov",
    "frag_duration": "500000",
    **_FINE,
    **_PROMPT,
}

# Clusters of one second (milliseconds). By default a cluster is written at the next key frame and not below 4 KiB.
_CLUSTERED = {"cluster_time_limit": "1000", **_PROMPT}

KEYFRAME_SECONDS = 2
"""Seconds between key frames, to which players seek."""


@dataclass(frozen=True, slots=True)
class Container:
    """An output container."""

    format: str
    """Name of the muxer in FFmpeg."""

    video_codec: str = "libx264"
    """Default video encoder."""

    audio_codec: str | None = "aac"
    """Encoder for audio that the container does not support; None: the container has no audio."""

    options: Mapping[str, str] = field(default_factory=lambda: _PROMPT)
    """Options of the muxer."""

    constant_rate: bool = False
    """The container has a frame rate and no timestamps."""

    @property
    def fragmented(self) -> bool:
        """True for MP4 and MOV."""
        return self.options is _FRAGMENTED

    @property
    def options_unfragmented(self) -> Mapping[str, str]:
        """Muxer options without fragments, for an output with MP4 subtitles or a cover image.

        FFmpeg 8.1 ends a fragment at a subtitle, which moves the next frame, and aborts the process if the first subtitle is
        late. With a cover image it writes an empty video track into a fragmented MP4.
        """
        return {**_PROMPT, **_FINE} if self.fragmented else self.options

    timed: bool = True
    """The container stores timestamps."""

    held: frozenset[str] | None = None
    """Codecs of other streams that players can read, if the muxer accepts more; None: all that the muxer accepts."""

    holds_pcm: bool = False
    """Unsupported PCM formats are converted to a supported one without loss."""

    unlisted: frozenset[str] = frozenset()
    """Audio codecs that the muxer writes although FFmpeg's list of supported codecs, which PyAV checks, lacks them. They are
    written through the muxer `tee`, which has no such list."""

    holds_location: bool = True
    """The container has a metadata field for the location of a recording."""

    covers: frozenset[str] = frozenset()
    """Codecs of cover images: metadata in MP4, attachments in Matroska."""

    time_codes: Literal["tracks", "tags", "whole", ""] = ""
    """Storage of timecodes: a track that the muxer writes for a video stream with a `timecode`; metadata of any stream; metadata of
    the whole file only; none."""

    def tee(self, url: str) -> str:
        """Return the URL by which the muxer `tee` writes this container to `url`."""
        options = "".join(f":{key}={value}" for key, value in self.options.items())
        return f"[f={self.format}{options}]" + re.sub(r"[\\'|\s]", r"\\\g<0>", url)

    def holds(self, kind: str, codec: str) -> bool:
        """Return True if the lists allow streams of a type (`audio`, `data` ...) and codec. The muxer may reject more."""
        if self.fragmented and kind == "data" and codec not in _MP4_DATA:
            return False  # the muxer writes them without a description, so that no program can read them
        if self.format == "mp4" and codec in _MP4_UNREAD:
            return False
        return self.held is None or codec in self.held


_MP4_DATA = frozenset({"bin_data"})
"""GoPro's sensor data (`gpmd`)."""

_MP4_UNREAD = frozenset(
    {"pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"}
    | {"pcm_alaw", "pcm_mulaw"}
)
"""PCM that the MP4 muxer rejects, or writes since FFmpeg 6.0 in boxes that older players do not know: they play 24 and 32 bits
as 16-bit noise."""

# AVI has no audio timestamps: players count bytes or blocks. This fails for AAC without known block sizes, and for ADPCM and WMA,
# whose exact rate the muxer does not know: `ffmpeg -c copy` writes ADPCM too fast.
_AVI_HOLDS = frozenset(
    {"mp3", "mp2", "ac3", "pcm_s16le", "pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_alaw", "pcm_mulaw"}
    | {"mpeg4", "mjpeg", "h264"}
)

# The MPEG-TS muxer accepts any codec as private data, which no player can read.
_TS_HOLDS = frozenset(
    {"aac", "aac_latm", "mp1", "mp2", "mp3", "ac3", "eac3", "dts", "opus"}
    | {"mpeg1video", "mpeg2video", "mpeg4", "h264", "hevc"}
    | {"dvb_subtitle", "dvb_teletext", "hdmv_pgs_subtitle", "klv", "timed_id3"}
)

_MATROSKA_UNLISTED = frozenset(
    {
        "pcm_alaw",
        "pcm_mulaw",
        "adpcm_ms",
        "adpcm_ima_wav",
        "adpcm_yamaha",
        "adpcm_g722",
        "gsm_ms",
        "g723_1",
        "wmav1",
        "wmav2",
    }
)
"""Written as `A_MS/ACM`, with their codec numbers of AVI and WAV."""

_COVERS = frozenset({"mjpeg", "png"})

CONTAINERS: Mapping[str, Container] = {
    ".mp4": Container("mp4", options=_FRAGMENTED, time_codes="tracks", covers=_COVERS),
    ".m4v": Container("mp4", options=_FRAGMENTED, time_codes="tracks", covers=_COVERS),
    ".mov": Container("mov", options=_FRAGMENTED, holds_pcm=True, time_codes="tracks"),
    ".mkv": Container(
        "matroska", options=_CLUSTERED, holds_pcm=True, unlisted=_MATROSKA_UNLISTED, time_codes="tags", covers=_COVERS
    ),
    ".webm": Container("webm", "libvpx-vp9", "libopus", options=_CLUSTERED, time_codes="tags"),
    ".ts": Container("mpegts", held=_TS_HOLDS, holds_location=False),
    ".m2ts": Container("mpegts", held=_TS_HOLDS, holds_location=False),
    ".mts": Container("mpegts", held=_TS_HOLDS, holds_location=False),
    ".avi": Container(
        "avi",
        audio_codec="libmp3lame",
        # AVI begins at zero; a shift for early audio would insert an empty frame.
        options={**_PROMPT, "avoid_negative_ts": "disabled"},
        constant_rate=True,
        holds_pcm=True,
        held=_AVI_HOLDS,
        holds_location=False,
        time_codes="whole",
    ),
    ".h264": Container("h264", audio_codec=None, timed=False, holds_location=False),
    ".264": Container("h264", audio_codec=None, timed=False, holds_location=False),
}
"""Containers by file suffix."""


def add_global_header(container: OutputContainer, context: CodecContext) -> None:
    """Request a global header from an encoder for the muxer `tee`, for which PyAV does not."""
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
        known = ", ".join(CONTAINERS)
        raise SinkError(f"unknown container suffix '{suffix}' of {output}; supported are {known}")
    return CONTAINERS[suffix]


_MIN_X264_THREADS = 6
"""The default of x264, 1.5 per core, leaves two cores idle at times if a network shares them, because its threads wait for each
other. Eight threads are slower again."""


def encoder_options(encoder: str, crf: int | None, preset: str | None, tune: str | None) -> dict[str, str]:
    """Return the options of an encoder for constant quality.

    Args:
        encoder: name of the encoder in FFmpeg.
        crf: constant rate factor on the encoder's scale; None: 23, or a similar quality on other scales.
        preset: preset of the encoder; None: a fast one.
        tune: tuning of the encoder; None: none.
    """
    options: dict[str, str] = {}
    match encoder:
        case "libx264" | "libx264rgb" | "libx265":
            options = {"crf": str(23 if crf is None else crf), "preset": preset or "veryfast"}
            if encoder != "libx265" and tune is None:
                options["threads"] = str(max(_MIN_X264_THREADS, usable_cores() * 3 // 2))
            if encoder == "libx265":
                options["x265-params"] = "log-level=error"
        case "libvpx-vp9" | "libvpx":
            options = {"crf": str(33 if crf is None else crf), "b:v": "0", "deadline": "realtime", "row-mt": "1"}
            options["cpu-used"] = preset or "7"
        case "libsvtav1":
            options = {"crf": str(35 if crf is None else crf), "preset": preset or "10"}
        case "h264_nvenc" | "hevc_nvenc" | "av1_nvenc":
            options = {"rc": "vbr", "cq": str(23 if crf is None else crf), "preset": preset or "p4"}
        case "mpeg4" | "mjpeg":
            options = {"flags": "+qscale", "global_quality": str(118 * (4 if crf is None else crf))}
        case _:
            if crf is not None:
                options["crf"] = str(crf)
            if preset is not None:
                options["preset"] = preset
    if tune is not None:
        options["tune"] = tune
    return options
