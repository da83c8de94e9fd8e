"""Transcoder for audio that the output container does not support, with the same times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av import AudioFormat, AudioFrame, AudioLayout, AudioResampler, CodecContext, Packet
from av.audio.stream import AudioStream
from av.codec import Codec
from av.container import OutputContainer
from numpy.typing import NDArray

from rtseg.io.outputs.containers import add_global_header

_LAYOUTS = (None, "mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
"""Default channel layout by number of channels, for inputs without a layout."""

_MAX_CHANNELS = 8
"""More channels are mixed to stereo: FFmpeg can't decode its own 16-channel AAC from MPEG-TS."""

_DEFAULT_RATE = 48_000
_BITS_PER_SAMPLE = 4
_MAX_BITS_PER_CHANNEL = 64_000

_JUMP_SECONDS = Fraction(1, 10)
"""A timestamp with at least this difference is a gap or an overlap."""

_DRIFT_SECONDS = Fraction(1, 100)
"""A smaller difference counts if all timestamps of one second have it: those of network cameras jitter by more."""

_MAX_SILENCE_SECONDS = 60
"""Longest gap that is filled with silence, seconds; longer ones stay gaps."""


def pcm_encoder(template: AudioStream) -> str | None:
    """Return the PCM encoder that keeps every sample of a PCM stream, None for other codecs."""
    context = template.codec_context
    if not context.name.startswith("pcm_") or context.format is None:
        return None
    formats = {"s32": "pcm_s32le", "flt": "pcm_f32le", "dbl": "pcm_f64le"}
    return formats.get(context.format.packed.name, "pcm_s16le")


class Transcoded:
    """A transcoded audio stream.

    Gaps between packets become silence, overlaps are cut, and audio after a change of rate or channels is converted to the
    parameters of the beginning.

    Args:
        container: the output, before its header is written.
        template: stream of the input.
        encoder: name of the encoder in FFmpeg.
        from_zero: the container counts samples from zero: earlier audio is cut, and a late start is filled with silence.

    Raises:
        av.FFmpegError, ValueError: FFmpeg can't decode the stream, or the encoder supports none of its channel layouts.
    """

    def __init__(self, container: OutputContainer, template: AudioStream, encoder: str, from_zero: bool) -> None:
        self._decoder = template.codec_context
        self._decoder.open(strict=False)
        self._rate = _rate(encoder, self._decoder.rate)
        layout = _layout(encoder, self._decoder, self._rate)
        stream = container.add_stream(encoder, rate=self._rate)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        context = stream.codec_context
        context.layout = layout
        add_global_header(container, context)
        if not encoder.startswith("pcm_"):
            context.bit_rate = _bit_rate(self._rate, context.layout.nb_channels)
        if encoder == "libmp3lame":
            # Without a bit reservoir each packet can be decoded without earlier ones, which may be cut.
            context.options = {"reservoir": "0"}
        stream.time_base = context.time_base = Fraction(1, self._rate)
        context.open()
        # Packed samples only: PyAV reads past the end of planar frames with eight or more channels. It converts them for
        # the encoder.
        self._format = context.format.packed
        self._frame_size = context.frame_size
        stream.disposition = template.disposition
        self.index: int = stream.index
        self.metadata: dict[str, str] = stream.metadata
        self.channels: int = context.layout.nb_channels
        self.damaged = 0
        """Number of packets that could not be decoded."""
        self._from_zero = from_zero
        self._resampler: AudioResampler | None = None
        self._parameters: tuple[str, str, int] | None = None
        self._mixed = False
        self._due: int | None = None
        """Expected timestamp of the next packet, in ticks of the input."""
        self._missing = False
        """True if packets are missing before the next frame."""
        self._begin: int | None = 0 if from_zero else None
        self._end = 0
        """Position of the next sample, in samples."""
        self._pieces: list[NDArray[Any]] = []
        """Samples, `(n, channels)`, that end at `_end` and are not encoded yet."""
        self._waiting = 0
        """Number of samples in `_pieces`."""
        self._late: deque[tuple[int, int, int]] = deque()
        """For each 10 ms of the last second: position, and the smallest and largest lateness of its timestamps against `_end`,
        in samples."""

    @property
    def has_audio(self) -> bool:
        """True if any audio was decoded."""
        return self._parameters is not None

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return the packets that are ready after one more packet of the input; a damaged packet gives none."""
        if packet.pts is not None and packet.duration:
            # A difference after missing packets is a gap, not drift.
            self._missing |= self._due is not None and packet.pts - self._due > packet.duration // 2
            self._due = packet.pts + packet.duration
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError:
            self.damaged += 1
            self._missing = True
            return []
        return [ready for frame in frames for ready in self._convert(frame)]

    def flush(self) -> list[Packet[Any]]:
        """Return the packets that remain in decoder, resampler and encoder."""
        try:
            frames = self._decoder.decode(None)
        except av.FFmpegError:  # nothing was decoded, or the last packet is damaged
            frames = []
        packets = [ready for frame in frames for ready in self._convert(frame)]
        packets += self._flush_resampler()
        if self._begin is None:
            return packets
        return [*packets, *self._encode(last=True), *self._without_encoder_delay(self._stream.encode(None))]

    def _convert(self, frame: AudioFrame) -> Iterator[Packet[Any]]:
        parameters = frame.format.name, frame.layout.name, frame.sample_rate
        layout = self._stream.codec_context.layout
        if parameters != self._parameters:
            yield from self._flush_resampler()
            self._parameters = parameters
            self._resampler = AudioResampler(self._format, layout, self._rate)
            self._mixed = not _can_convert(frame.layout, layout)
        assert self._resampler is not None
        if self._mixed:
            frame = _mono(frame)
        for piece in self._resampler.resample(frame):
            yield from self._place(piece)

    def _flush_resampler(self) -> Iterator[Packet[Any]]:
        if self._resampler is not None:
            for piece in self._resampler.resample(None):
                if piece is not None:
                    yield from self._place(piece)

    def _place(self, piece: AudioFrame) -> Iterator[Packet[Any]]:
        """Place samples at their timestamp, and encode complete frames."""
        channels = self._stream.codec_context.layout.nb_channels
        samples = piece.to_ndarray().reshape(-1, channels)
        if piece.pts is not None and piece.time_base:
            stamp = round(Fraction(piece.pts * piece.time_base.numerator, piece.time_base.denominator) * self._rate)
            if self._begin is None:
                self._begin = self._end = stamp
            late = self._lateness(stamp)
            if late > _MAX_SILENCE_SECONDS * self._rate and not self._from_zero:
                self._append(np.zeros((-self._waiting % max(1, self._frame_size), channels), samples.dtype))
                yield from self._encode()
                self._end = stamp
            elif late > 0:
                for _ in range(late // self._rate):  # one second at a time, to limit memory
                    self._append(np.zeros((self._rate, channels), samples.dtype))
                    yield from self._encode()
                self._append(np.zeros((late % self._rate, channels), samples.dtype))
            elif late < 0:
                samples = samples[-late:]
        elif self._begin is None:
            self._begin = self._end = 0
        self._append(samples)
        yield from self._encode()

    def _lateness(self, stamp: int) -> int:
        """Return the number of samples of silence to insert, or to cut if negative."""
        late = stamp - self._end
        missing, self._missing = self._missing, False
        if missing and late > 0:
            self._late.clear()
            return late
        if abs(late) >= _JUMP_SECONDS * self._rate or (self._from_zero and not self._end):
            self._late.clear()
            return late
        if self._late and self._end - self._late[-1][0] < self._rate // 100:
            begin, low, high = self._late.pop()
            self._late.append((begin, min(low, late), max(high, late)))
        else:
            self._late.append((self._end, late, late))
        full = self._end - self._late[0][0] >= self._rate
        while self._end - self._late[0][0] >= self._rate:
            self._late.popleft()
        low, high = min(low for _, low, _ in self._late), max(high for _, _, high in self._late)
        drift = low if low > 0 else min(high, 0)
        if not full or abs(drift) < _DRIFT_SECONDS * self._rate:
            return 0
        self._late.clear()
        return drift

    def _append(self, samples: NDArray[Any]) -> None:
        if len(samples):
            self._pieces.append(samples)
            self._waiting += len(samples)
            self._end += len(samples)

    def _encode(self, last: bool = False) -> Iterator[Packet[Any]]:
        waiting = self._waiting
        size = self._frame_size or waiting
        if not waiting or (waiting < size and not last):
            return
        samples = np.concatenate(self._pieces)
        start = self._end - waiting
        full = waiting if last else waiting - waiting % size
        self._pieces, self._waiting = [samples[full:]] if full < waiting else [], waiting - full
        for offset in range(0, full, size):
            part = samples[offset : min(offset + size, full)].reshape(1, -1)
            layout = self._stream.codec_context.layout.name
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(part), format=self._format.name, layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = self._rate, start + offset, Fraction(1, self._rate)
            yield from self._without_encoder_delay(self._stream.encode(frame))

    def _without_encoder_delay(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """Drop the encoder delay if the container can't mark it for skipping."""
        if not self._from_zero:
            return packets
        return [packet for packet in packets if (packet.pts or 0) + (packet.duration or 0) // 2 >= 0]


def _can_convert(before: AudioLayout, after: AudioLayout) -> bool:
    """Return True if FFmpeg can mix one channel layout to another; it can't for nine channels without a layout."""
    try:
        AudioResampler("s16", after, _DEFAULT_RATE).resample(_silence(before))
    except (av.FFmpegError, ValueError):
        return False
    return True


def _silence(layout: AudioLayout) -> AudioFrame:
    frame = AudioFrame("s16", layout, 16)
    frame.planes[0].update(bytes(frame.planes[0].buffer_size))
    frame.sample_rate = _DEFAULT_RATE
    return frame


def _mono(frame: AudioFrame) -> AudioFrame:
    """Return the mean of all channels, with the timestamp of the frame."""
    (packed,) = AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
    mean = packed.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1, dtype=np.float32)
    mixed = AudioFrame.from_ndarray(mean.reshape(1, -1), format="flt", layout="mono")
    mixed.sample_rate, mixed.pts = frame.sample_rate, frame.pts
    if frame.time_base is not None:
        mixed.time_base = frame.time_base
    return mixed


def default_layout(layout: Any) -> str:
    """Return the name of a channel layout, or FFmpeg's default for its number of channels if it has no name."""
    count = layout.nb_channels
    if "channels" not in layout.name:
        return str(layout.name)
    return (_LAYOUTS[count] if count < len(_LAYOUTS) else None) or str(layout.name)


def _rate(encoder: str, rate: int) -> int:
    """Return the lowest supported sample rate that is not below the input's; 48 kHz for Opus and unknown rates."""
    rates = sorted(Codec(encoder, "w").audio_rates or ())
    if encoder == "libopus" or not rate:
        return _DEFAULT_RATE
    return next((value for value in rates if value >= rate), rates[-1]) if rates else rate


def _layout(encoder: str, decoder: Any, rate: int) -> str:
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
            context.bit_rate = _bit_rate(rate, context.layout.nb_channels)
            context.open()
        except (av.FFmpegError, ValueError):
            continue
        return layout
    raise ValueError(f"{encoder} supports none of its channel layouts")


def _bit_rate(rate: int, channels: int) -> int:
    return min(_MAX_BITS_PER_CHANNEL, rate * _BITS_PER_SAMPLE) * channels
