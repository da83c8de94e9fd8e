"""Encoder parameters for transcoded audio: encoder, sample rate, channel layout and bit rate."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av import AudioFormat, AudioLayout, CodecContext
from av.audio.stream import AudioStream
from av.codec import Codec

_LAYOUTS = (None, "mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
"""Default channel layout by number of channels, for inputs without a layout."""

_MAX_CHANNELS = 8
"""More channels are mixed to stereo: FFmpeg can't decode its own 16-channel AAC from MPEG-TS."""

DEFAULT_RATE = 48_000
_BITS_PER_SAMPLE = 4
_MAX_BITS_PER_CHANNEL = 64_000


def pcm_encoder(template: AudioStream) -> str | None:
    """Return the PCM encoder that keeps every sample of a PCM stream, None for other codecs."""
    context = template.codec_context
    if not context.name.startswith("pcm_") or context.format is None:
        return None
    formats = {"s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
    return formats.get(context.format.packed.name, "pcm_s16le")


def default_layout(layout: Any) -> str:
    """Return the name of a channel layout, or FFmpeg's default for its number of channels if it has no name."""
    count = layout.nb_channels
    if "channels" not in layout.name:
        return str(layout.name)
    return (_LAYOUTS[count] if count < len(_LAYOUTS) else None) or str(layout.name)


def output_rate(encoder: str, rate: int) -> int:
    """Return the lowest supported sample rate that is not below the input's; 48 kHz for Opus and unknown rates."""
    rates = sorted(Codec(encoder, "w").audio_rates or ())
    if encoder == "libopus" or not rate:
        return DEFAULT_RATE
    return next((value for value in rates if value >= rate), rates[-1]) if rates else rate


def output_layout(encoder: str, decoder: Any, rate: int) -> str:
    """Return the first supported channel layout: the input's, the default of its number of channels, stereo, mono."""
    channels = decoder.layout.nb_channels
    count = _LAYOUTS[channels] if 0 < channels < len(_LAYOUTS) else None
    # FFmpeg 9 writes eight-channel AAC to MPEG-TS that it can't read.
    most = 7 if encoder == "aac" else _MAX_CHANNELS
    surround = "5.1" if most < channels == 8 else None
    for layout in (default_layout(decoder.layout), count, surround, "stereo", "mono"):
        if layout is None:
            continue
        if not encoder.startswith("pcm_") and ("channels" in layout or AudioLayout(layout).nb_channels > most):
            continue
        context: Any = CodecContext.create(encoder, "w")
        try:
            context.sample_rate, context.layout = rate, layout
            context.format = (Codec(encoder, "w").audio_formats or [AudioFormat("s16")])[0]
            context.time_base = Fraction(1, rate)
            context.bit_rate = output_bit_rate(rate, context.layout.nb_channels)
            context.open()
        except (av.FFmpegError, ValueError):
            continue
        return layout
    raise ValueError(f"{encoder} supports none of its channel layouts")


def output_bit_rate(rate: int, channels: int) -> int:
    return min(_MAX_BITS_PER_CHANNEL, rate * _BITS_PER_SAMPLE) * channels
