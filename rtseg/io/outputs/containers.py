"""What each output container is called, holds, and needs to stay playable while it is being written."""

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
"""The name that stands for standard output."""

TEE = "tee"
"""FFmpeg's name of the muxer that hands on to others, see `Container.unlisted`."""

_PROMPT = {
    "flush_packets": "1",
    # Subtitles and data come seldom: a muxer would hold everything else back for ten seconds, waiting for them.
    "max_interleave_delta": "500000",
}

# An MP4 counts the starts of its tracks in this unit; the default of a millisecond would move sound off its picture.
_FINE = {"movie_timescale": "720000"}

_FRAGMENTED = {
    # Fragments while it is written, an ordinary file with one index once it is closed. The index of a fragmented file
    # waits for the first packets (`delay_moov`), without which B-frames and early audio would be moved in time.
    "movflags": "hybrid_fragmented+delay_moov",
    "frag_duration": "500000",
    **_FINE,
    **_PROMPT,
}

# Clusters of a second, in milliseconds; by default one is not written before the next key frame, nor before it is 4 KiB.
_CLUSTERED = {"cluster_time_limit": "1000", **_PROMPT}

KEYFRAME_SECONDS = 2
"""Time between key frames: players seek to them."""


@dataclass(frozen=True, slots=True)
class Container:
    """An output container."""

    format: str
    """FFmpeg's name of the muxer."""

    video_codec: str = "libx264"
    """Encoder where the user names none."""

    audio_codec: str | None = "aac"
    """Encoder for audio that the container can't hold as it is; None: it holds no audio."""

    options: Mapping[str, str] = field(default_factory=lambda: _PROMPT)
    """Options of the muxer."""

    constant_rate: bool = False
    """It counts frames instead of telling when each is shown."""

    @property
    def fragmented(self) -> bool:
        """Whether it is an MP4 or its like."""
        return self.options is _FRAGMENTED

    @property
    def options_unfragmented(self) -> Mapping[str, str]:
        """Options of the muxer for an output that has subtitles of MP4's own kinds, or a cover picture: it gets no fragments.

        FFmpeg 8.1 ends a fragment at a subtitle, moves the picture that comes next in doing so, and aborts the process
        where the first subtitle comes late. Beside a cover picture it writes an empty video track into a fragmented MP4.
        """
        return {**_PROMPT, **_FINE} if self.fragmented else self.options

    timed: bool = True
    """It keeps time stamps."""

    held: frozenset[str] | None = None
    """Codecs of other streams that players find in it, where its muxer takes more than that; None: what the muxer takes."""

    holds_pcm: bool = False
    """PCM of a kind that it does not hold is transcoded to one that it holds, without loss."""

    unlisted: frozenset[str] = frozenset()
    """Codecs of audio that its muxer writes though FFmpeg's list of what it holds, which PyAV asks, lacks them. They are written
    by way of FFmpeg's muxer `tee`, which has no such list."""

    holds_location: bool = True
    """It has a place for where a video was taken."""

    covers: frozenset[str] = frozenset()
    """Codecs of the cover pictures that it holds: MP4 in its metadata, Matroska as attachments."""

    time_codes: Literal["tracks", "tags", "whole", ""] = ""
    """How it says time codes: a track that its muxer writes where a video stream has a `timecode`; in the metadata of any stream;
    in that of the whole file alone; not at all."""

    def tee(self, url: str) -> str:
        """Return the URL by which the muxer `tee` writes this container to `url`."""
        options = "".join(f":{key}={value}" for key, value in self.options.items())
        return f"[f={self.format}{options}]" + re.sub(r"[\\'|\s]", r"\\\g<0>", url)

    def holds(self, kind: str, codec: str) -> bool:
        """Whether streams of a type (`audio`, `data` ...) and codec may be in it, by the lists; the muxer may refuse more."""
        if self.fragmented and kind == "data" and codec not in _MP4_DATA:
            return False  # The muxer writes them without a description, and nothing can read them.
        if self.format == "mp4" and codec in _MP4_UNREAD:
            return False
        return self.held is None or codec in self.held


_MP4_DATA = frozenset({"bin_data"})
"""GoPro's sensor data (`gpmd`)."""

_MP4_UNREAD = frozenset(
    {"pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"}
    | {"pcm_alaw", "pcm_mulaw"}
)
"""PCM that FFmpeg's muxer does not take, or takes since 6.0 in boxes that players of before do not know: they play 24 and 32 bits
as noise of 16."""

# AVI tells the time of sound by counting bytes or blocks, which goes wrong for AAC without known block sizes, and for ADPCM and
# WMA, of which FFmpeg's muxer does not know the exact rate: `ffmpeg -c copy` writes ADPCM too fast.
_AVI_HOLDS = frozenset(
    {"mp3", "mp2", "ac3", "pcm_s16le", "pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_alaw", "pcm_mulaw"}
    | {"mpeg4", "mjpeg", "h264"}
)

# MPEG-TS takes anything, as private data that nobody can read.
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
"""Written as `A_MS/ACM`, under the numbers that they have in AVI and WAV."""

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
        # AVI counts from zero; a shift for early sound would put an empty picture among the first.
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
"""Containers by the ending of the file's name."""


def add_global_header(container: OutputContainer, context: CodecContext) -> None:
    """Have an encoder give its header apart from its packets where PyAV does not: it does not know what stands behind `tee`."""
    if container.format.name == TEE:
        context.flags |= Flags.global_header


def container_for(output: str) -> Container:
    """The container that the ending of `output` names; Matroska for standard output.

    Raises:
        SinkError: no such ending.
    """
    if output == STDOUT:
        return CONTAINERS[".mkv"]
    suffix = Path(output).suffix.lower()
    if suffix not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise SinkError(f"can't tell a container by the ending '{suffix}' of {output}; these are known: {known}")
    return CONTAINERS[suffix]


_FEWEST_X264_THREADS = 6
"""x264's own choice, one and a half a core, leaves two cores idle now and then where a network shares them: they wait for each
other. With eight it gets worse again."""


def encoder_options(encoder: str, crf: int | None, preset: str | None, tune: str | None) -> dict[str, str]:
    """Options of an encoder for a constant quality.

    Args:
        encoder: FFmpeg's name.
        crf: constant rate factor on the encoder's own scale; None: 23, or what looks alike on other scales.
        preset: the encoder's own name of a preset; None: a fast one.
        tune: the encoder's own; None: none.
    """
    options: dict[str, str] = {}
    match encoder:
        case "libx264" | "libx264rgb" | "libx265":
            options = {"crf": str(23 if crf is None else crf), "preset": preset or "veryfast"}
            if encoder != "libx265" and tune is None:
                options["threads"] = str(max(_FEWEST_X264_THREADS, usable_cores() * 3 // 2))
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
