"""Transcoder for audio that the output container does not support. Keeps timestamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av import AudioFifo, AudioFrame, AudioLayout, AudioResampler, Packet
from av.audio.stream import AudioStream
from av.container import OutputContainer
from numpy.typing import NDArray

from rtseg.io.outputs.audio_parameters import DEFAULT_RATE, output_bit_rate, output_layout, output_rate
from rtseg.io.outputs.containers import add_global_header
from rtseg.io.outputs.copied_stream import OtherStream

_JUMP_SECONDS = Fraction(1, 10)
"""Smallest timestamp offset that counts as a gap or an overlap, seconds."""

_DRIFT_SECONDS = Fraction(1, 100)
"""Smallest timestamp offset that counts as drift, seconds. All timestamps of one second must have it, because timestamps of
network cameras jitter by more."""

_MAX_SILENCE_SECONDS = 60
"""Longest gap that is filled with silence, seconds. Longer gaps are kept."""


class AudioTranscoder(OtherStream):
    """Transcoder of an audio stream. Create it before the header of the container is written.

    Gaps between packets are filled with silence, and overlaps are cut. Audio after a change of sample rate or channels is
    converted to the initial parameters. In a container that counts samples from zero (`starts_at_zero`), audio before zero is
    cut, and a late start is filled with silence.

    Raises:
        av.FFmpegError, ValueError: FFmpeg can't decode the stream, or the encoder supports no channel layout for it.
    """

    def __init__(self, container: OutputContainer, template: AudioStream, encoder: str, starts_at_zero: bool) -> None:
        self._decoder = template.codec_context
        self._decoder.open(strict=False)
        self._rate = output_rate(encoder, self._decoder.rate)
        layout = output_layout(encoder, self._decoder, self._rate)
        stream = container.add_stream(encoder, rate=self._rate)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        context = stream.codec_context
        context.layout = layout
        add_global_header(container, context)
        if not encoder.startswith("pcm_"):
            context.bit_rate = output_bit_rate(self._rate, context.layout.nb_channels)
        if encoder == "libmp3lame":
            # Without a bit reservoir a packet can be decoded without earlier ones, which may be cut.
            context.options = {"reservoir": "0"}
        stream.time_base = context.time_base = Fraction(1, self._rate)
        context.open()
        # Packed samples only: PyAV reads past the end of planar frames with eight or more channels. It converts them for
        # the encoder.
        self._format = context.format.packed
        self._frame_size = context.frame_size
        stream.disposition = template.disposition
        self.index = stream.index
        self.metadata: dict[str, str] = stream.metadata
        self.channels: int = context.layout.nb_channels
        self.damaged = 0
        """Number of packets that could not be decoded."""
        self._starts_at_zero = starts_at_zero
        self._resampler: AudioResampler | None = None
        self._parameters: tuple[str, str, int] | None = None
        self._mix_to_mono = False
        self._expected_pts: int | None = None
        """Expected timestamp of the next packet, in ticks of the input."""
        self._packets_missing = False
        """True if packets before the next frame are missing or damaged."""
        self._first_sample: int | None = 0 if starts_at_zero else None
        self._next_sample = 0
        """Expected position of the next sample, in samples."""
        self._fifo = AudioFifo()
        """Samples that are not encoded yet. They end at `_next_sample`."""
        self._recent_offsets: deque[tuple[int, int, int]] = deque()
        """Position, smallest and largest timestamp offset for each 10 ms of the last second, in samples."""

    @property
    def has_audio(self) -> bool:
        """True if any audio was decoded."""
        return self._parameters is not None

    def problems(self, source: int) -> list[str]:
        """Return a message if packets could not be decoded; `source` is the index of the stream in the input."""
        return [f"audio stream {source}: {self.damaged} packets can't be decoded"] if self.damaged else []

    def process(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Decode a packet of the input and return the encoded packets that are ready; none for a damaged packet."""
        if packet.pts is not None and packet.duration:
            # A timestamp offset after missing packets is a gap, not drift.
            self._packets_missing |= (
                self._expected_pts is not None and packet.pts - self._expected_pts > packet.duration // 2
            )
            self._expected_pts = packet.pts + packet.duration
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError:
            self.damaged += 1
            self._packets_missing = True
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
        if self._first_sample is None:
            return packets
        return [*packets, *self._encode(last=True), *self._without_encoder_delay(self._stream.encode(None))]

    def _convert(self, frame: AudioFrame) -> Iterator[Packet[Any]]:
        parameters = frame.format.name, frame.layout.name, frame.sample_rate
        layout = self._stream.codec_context.layout
        if parameters != self._parameters:
            yield from self._flush_resampler()
            self._parameters = parameters
            self._resampler = AudioResampler(self._format, layout, self._rate)
            self._mix_to_mono = not _can_mix(frame.layout, layout)
        assert self._resampler is not None
        if self._mix_to_mono:
            frame = _mean_of_channels(frame)
        for chunk in self._resampler.resample(frame):
            yield from self._place_at_timestamp(chunk)

    def _flush_resampler(self) -> Iterator[Packet[Any]]:
        if self._resampler is not None:
            for chunk in self._resampler.resample(None):
                if chunk is not None:
                    yield from self._place_at_timestamp(chunk)

    def _place_at_timestamp(self, chunk: AudioFrame) -> Iterator[Packet[Any]]:
        """Insert samples at their timestamp and encode complete frames."""
        channels = self._stream.codec_context.layout.nb_channels
        samples = chunk.to_ndarray().reshape(-1, channels)
        if chunk.pts is not None and chunk.time_base:
            position = round(Fraction(chunk.pts * chunk.time_base.numerator, chunk.time_base.denominator) * self._rate)
            if self._first_sample is None:
                self._first_sample = self._next_sample = position
            offset = self._correction(position)
            if offset > _MAX_SILENCE_SECONDS * self._rate and not self._starts_at_zero:
                self._append(np.zeros((-self._fifo.samples % max(1, self._frame_size), channels), samples.dtype))
                yield from self._encode()
                self._next_sample = position
            elif offset > 0:
                for _ in range(offset // self._rate):  # one second at a time, to limit memory
                    self._append(np.zeros((self._rate, channels), samples.dtype))
                    yield from self._encode()
                self._append(np.zeros((offset % self._rate, channels), samples.dtype))
            elif offset < 0:
                samples = samples[-offset:]
        elif self._first_sample is None:
            self._first_sample = self._next_sample = 0
        self._append(samples)
        yield from self._encode()

    def _correction(self, position: int) -> int:
        """Return the number of samples of silence to insert; if negative, the number of samples to cut."""
        offset = position - self._next_sample
        after_gap, self._packets_missing = self._packets_missing, False
        if after_gap and offset > 0:
            self._recent_offsets.clear()
            return offset
        if abs(offset) >= _JUMP_SECONDS * self._rate or (self._starts_at_zero and not self._next_sample):
            self._recent_offsets.clear()
            return offset
        if self._recent_offsets and self._next_sample - self._recent_offsets[-1][0] < self._rate // 100:
            begin, low, high = self._recent_offsets.pop()
            self._recent_offsets.append((begin, min(low, offset), max(high, offset)))
        else:
            self._recent_offsets.append((self._next_sample, offset, offset))
        window_full = self._next_sample - self._recent_offsets[0][0] >= self._rate
        while self._next_sample - self._recent_offsets[0][0] >= self._rate:
            self._recent_offsets.popleft()
        low, high = min(low for _, low, _ in self._recent_offsets), max(high for _, _, high in self._recent_offsets)
        drift = low if low > 0 else min(high, 0)
        if not window_full or abs(drift) < _DRIFT_SECONDS * self._rate:
            return 0
        self._recent_offsets.clear()
        return drift

    def _append(self, samples: NDArray[Any]) -> None:
        if len(samples):
            layout = self._stream.codec_context.layout.name
            packed = np.ascontiguousarray(samples).reshape(1, -1)
            frame = AudioFrame.from_ndarray(packed, format=self._format.name, layout=layout)
            frame.sample_rate = self._rate
            self._fifo.write(frame)
            self._next_sample += len(samples)

    def _encode(self, last: bool = False) -> Iterator[Packet[Any]]:
        while frame := self._fifo.read(self._frame_size, partial=last):
            frame.pts = self._next_sample - self._fifo.samples - frame.samples
            frame.time_base = Fraction(1, self._rate)
            yield from self._without_encoder_delay(self._stream.encode(frame))

    def _without_encoder_delay(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """Drop the packets of the encoder delay if the container can't mark them to be skipped."""
        if not self._starts_at_zero:
            return packets
        return [packet for packet in packets if (packet.pts or 0) + (packet.duration or 0) // 2 >= 0]


def _can_mix(before: AudioLayout, after: AudioLayout) -> bool:
    """Return True if FFmpeg can mix one channel layout to another. It can't mix nine channels without a layout."""
    frame = AudioFrame("s16", before, 16)  # of any content
    frame.sample_rate = DEFAULT_RATE
    try:
        AudioResampler("s16", after, DEFAULT_RATE).resample(frame)
    except (av.FFmpegError, ValueError):
        return False
    return True


def _mean_of_channels(frame: AudioFrame) -> AudioFrame:
    """Return the mean of all channels, with the timestamp of the frame."""
    (packed,) = AudioResampler("flt", frame.layout, frame.sample_rate).resample(frame)
    mean = packed.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(axis=1, dtype=np.float32)
    mixed = AudioFrame.from_ndarray(mean.reshape(1, -1), format="flt", layout="mono")
    mixed.sample_rate, mixed.pts = frame.sample_rate, frame.pts
    if frame.time_base is not None:
        mixed.time_base = frame.time_base
    return mixed
