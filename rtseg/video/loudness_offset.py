"""Time offset of re-encoded audio against the input: both are decoded, and their loudness over time is correlated."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
import numpy.typing as npt

from rtseg.io.inputs.avi_audio_times import AviAudioTimes
from rtseg.io.inputs.safe_open import open_input
from rtseg.io.inputs.stream_state import GAP_SECONDS
from rtseg.io.inputs.timestamps import fraction

CELL_SECONDS = 0.004
"""Resolution of the comparison."""

WINDOW_SECONDS = 10.0
_MAX_OFFSET_SECONDS = 1.0
_SILENCE_POWER = 1e-7
"""Mean square below which samples from -1 to 1 are silence: -70 dB."""

_MIN_VARIATION = 0.2
"""Minimum standard deviation of the loudness, relative to its mean, for a measurable offset. A constant tone has none."""

_MIN_CORRELATION = 0.5
_PEAK_RATIO = 0.8
"""Minimum correlation of a peak, relative to the best correlation, to be a candidate offset."""

_LOST_RATIO = 0.01
"""Mean loudness of the output, relative to the input, below which the audio is lost."""

Loudness = npt.NDArray[np.float64]


def loudness(path: str, index: int) -> list[tuple[float, Loudness]]:
    """Return the loudness of an audio stream over time: the mean square of the samples in each cell of 4 ms.

    Args:
        path: media file.
        index: index of the audio stream.

    Returns:
        A list of parts: the start of the first cell in seconds, and the cells. There is more than one part where the clock
        jumps.

    Raises:
        SourceError: the file can't be opened.
    """
    parts: list[list[tuple[float, int, Loudness]]] = []
    end: float | None = None
    for time, rate, power in _frame_powers(path, index):
        if end is None or not -_MAX_OFFSET_SECONDS <= time - end <= GAP_SECONDS:
            parts.append([])
        parts[-1].append((time, rate, power))
        end = time + len(power) / rate
    return [_average_cells(frames) for frames in parts]


def _average_cells(frames: list[tuple[float, int, Loudness]]) -> tuple[float, Loudness]:
    begin = min(time for time, _, _ in frames)
    count = int((max(time + len(power) / rate for time, rate, power in frames) - begin) / CELL_SECONDS) + 1
    total, samples = np.zeros(count), np.zeros(count)
    for time, rate, power in frames:
        cells = ((time - begin + np.arange(len(power)) / rate) / CELL_SECONDS).astype(np.int64)
        total += np.bincount(cells, power, count)[:count]
        samples += np.bincount(cells, minlength=count)[:count]
    return begin, total / np.maximum(samples, 1)


def offset_ms(before: Loudness, after: Loudness) -> float | None:
    """Return the delay of the second loudness curve against the first, in milliseconds.

    Both cover the same time in cells of 4 ms. The result is None where there is nothing to measure (silence, a constant
    tone), and infinite where the second curve is silent or does not correlate with the first.
    """
    size = min(len(before), len(after))
    first, second = before[:size], after[:size]
    if size * CELL_SECONDS < 0.2 or first.mean() < _SILENCE_POWER:
        return None
    if second.mean() < _LOST_RATIO * first.mean():
        return float("inf")
    first, second = np.sqrt(first), np.sqrt(second)
    if first.std() < _MIN_VARIATION * first.mean():
        return None
    max_lag = min(int(_MAX_OFFSET_SECONDS / CELL_SECONDS), size // 2)
    correlations = {lag: _correlation(first, second, lag) for lag in range(-max_lag, max_lag + 1)}
    best = max(correlations.values())
    if best < _MIN_CORRELATION:
        return float("inf")
    # Repetitive audio has many peaks: the one nearest to zero is the offset.
    peaks = [
        lag
        for lag, value in correlations.items()
        if value >= _PEAK_RATIO * best
        and value >= max(correlations.get(lag - 1, -1.0), correlations.get(lag + 1, -1.0))
    ]
    return min(peaks, key=abs) * CELL_SECONDS * 1000


def _correlation(first: Loudness, second: Loudness, lag: int) -> float:
    """Return the correlation coefficient with the second curve `lag` cells later."""
    head = first[: len(first) - lag] if lag >= 0 else first[-lag:]
    tail = second[lag:] if lag >= 0 else second[:lag]
    spread = head.std() * tail.std()
    return float(((head - head.mean()) * (tail - tail.mean())).mean() / spread) if spread > 0 else 0.0


def _frame_powers(path: str, index: int) -> Iterator[tuple[float, int, Loudness]]:
    """Yield the time, sample rate and squared samples (mean of the channels) of each decoded frame."""
    with open_input(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, av.AudioStream)
        resampler: av.AudioResampler | None = None
        resampler_format: tuple[str, str, int] | None = None
        end: float | None = None
        avi_times = AviAudioTimes(container)
        for packet in container.demux(stream):
            avi_times.correct(packet)
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except (av.FFmpegError, OSError):
                continue
            for frame in frames:
                if not frame.rate or (frame.pts is None and end is None):
                    continue
                # In MPEG-TS several AAC packets may share one timestamp: only the first has it.
                time = end if frame.pts is None else float(frame.pts * fraction(frame.time_base))
                assert time is not None
                end = time + frame.samples / frame.rate
                frame_format = (frame.format.name, frame.layout.name, frame.rate)
                if resampler is None or resampler_format != frame_format:
                    # Packed: PyAV reads beyond the end of planar frames of eight and more channels.
                    resampler = av.AudioResampler("flt", frame.layout, frame.rate)
                    resampler_format = frame_format
                channels, frame.pts = frame.layout.nb_channels, None
                for resampled in resampler.resample(frame):
                    samples = resampled.to_ndarray().reshape(-1, channels).astype(np.float64)
                    yield time, frame.rate, np.square(samples).mean(axis=1)
