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
"""Maximum number of channels. More are mixed to stereo, because FFmpeg can't decode its own 16-channel AAC from MPEG-TS."""

DEFAULT_RATE = 48_000
"""Sample rate for Opus, and for inputs without a sample rate, Hz."""

_BITS_PER_SAMPLE = 4
_MAX_BITS_PER_CHANNEL = 64_000


def pcm_encoder(template: AudioStream) -> str | None:
    """Return the encoder that stores a PCM stream without loss; None for other codecs."""
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
    """Return the lowest supported sample rate that is not below `rate`, or the highest one; 48 kHz for Opus and unknown rates."""
    rates = sorted(Codec(encoder, "w").audio_rates or ())
    if encoder == "libopus" or not rate:
        return DEFAULT_RATE
    return next((value for value in rates if value >= rate), rates[-1]) if rates else rate


def output_layout(encoder: str, decoder: Any, rate: int) -> str:
    """Return the first supported channel layout: the input's, the default for its number of channels, 5.1, stereo, mono.

    Raises:
        ValueError: the encoder supports none of them.
    """
    channels = decoder.layout.nb_channels
    default = _LAYOUTS[channels] if 0 < channels < len(_LAYOUTS) else None
    # FFmpeg 9 can't read the eight-channel AAC that it writes to MPEG-TS.
    max_channels = 7 if encoder == "aac" else _MAX_CHANNELS
    surround = "5.1" if max_channels < channels == 8 else None
    for layout in (default_layout(decoder.layout), default, surround, "stereo", "mono"):
        if layout is None:
            continue
        if not encoder.startswith("pcm_") and ("channels" in layout or AudioLayout(layout).nb_channels > max_channels):
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
    """Return the bit rate for a sample rate and a number of channels, bits per second."""
    return min(_MAX_BITS_PER_CHANNEL, rate * _BITS_PER_SAMPLE) * channels
