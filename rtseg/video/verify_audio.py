"""Synchronization of re-encoded audio with the video: both files are decoded, and their loudness over time is correlated."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf

import av
import numpy as np
import numpy.typing as npt

from rtseg.core.fidelity_report import SyncPoint
from rtseg.io.inputs.avi_audio_times import AviAudioTimes
from rtseg.io.inputs.safe_open import open_input
from rtseg.io.inputs.stream_state import GAP_SECONDS
from rtseg.io.inputs.timestamps import fraction
from rtseg.video.timestamp_match import Match

_MAX_PACKET_SECONDS = 1.0
"""Maximum duration of an audio packet. ASF packets contain some tenths of a second."""

_CELL_SECONDS = 0.004
"""Resolution of the comparison."""

_WINDOW_SECONDS = 10.0
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


def reencoded_audio_sync(
    index: int, path_in: str, path_out: str, index_out: int, video: Match, *, whole: bool
) -> list[SyncPoint] | None:
    """Return the offsets of a re-encoded audio stream; None if its content is not the input's.

    The list is empty if the loudness varies too little to measure an offset. `index` and `index_out` are the indices of the
    stream in the input and the output. `video` is the match of the frames, with at least one segment. `whole` is False if only a
    range of the input was processed.
    """
    parts, parts_out = _loudness(path_in, index), _loudness(path_out, index_out)
    points: list[SyncPoint] = []
    for begin, cells in parts:
        # Where the clock jumps, a part belongs to one of the segments, which only the audio itself determines.
        shifts = [float(segment.shift * video.unit) for segment in video.segments]
        candidates = [_sync_points(index, begin, cells, shift, parts_out, video, whole) for shift in shifts]
        points += min(candidates, key=lambda points: max((abs(point.out_ms) for point in points), default=0.0))
    return None if any(isinf(point.out_ms) for point in points) else points


def _sync_points(
    index: int,
    begin: float,
    cells: Loudness,
    shift: float,
    parts_out: list[tuple[float, Loudness]],
    video: Match,
    whole: bool,
) -> list[SyncPoint]:
    """Return the offsets at the start and the end of a part of the input's audio, if it was moved by `shift` seconds."""
    first = max(begin, float(video.segments[0].first_in * video.unit)) if len(video.segments) == 1 else begin
    if not whole:
        # The audio of a range begins with its first complete packet, which may be some tenths of a second later.
        begin_out = min((begin for begin, _ in parts_out), default=0.0) - shift
        first = min(max(first, begin_out), first + _MAX_PACKET_SECONDS)
    last = begin + len(cells) * _CELL_SECONDS
    if len(video.segments) == 1:
        last = min(last, float(video.segments[0].last_in * video.unit))
    points = []
    for at_seconds in sorted({first, max(first, last - _WINDOW_SECONDS)}):
        windows = [_window(part, at_seconds + shift - begin_out, last - at_seconds) for begin_out, part in parts_out]
        window_out = sum(windows[1:], windows[0]) if windows else np.zeros(0)
        offset = _offset_ms(_window(cells, at_seconds - begin, last - at_seconds), window_out)
        if offset is not None:
            points.append(SyncPoint(index, at_seconds + shift, 0.0, offset))
    return points


def _window(cells: Loudness, at_seconds: float, seconds: float) -> Loudness:
    """Return the loudness from a time after the first cell on, for 10 s at most; zero outside of the cells."""
    first = round(at_seconds / _CELL_SECONDS)
    count = max(0, int(min(seconds, _WINDOW_SECONDS) / _CELL_SECONDS))
    inside = cells[max(0, first) : max(0, first + count)]
    padded = np.concatenate([np.zeros(min(count, max(0, -first))), inside])
    return np.pad(padded, (0, max(0, count - len(padded))))


def _loudness(path: str, index: int) -> list[tuple[float, Loudness]]:
    """Return the loudness of an audio stream over time: the mean square of the samples in each cell of 4 ms.

    The result is a list of parts: the start of the first cell in seconds, and the cells. There is more than one part where
    the clock jumps.
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
    count = int((max(time + len(power) / rate for time, rate, power in frames) - begin) / _CELL_SECONDS) + 1
    total, samples = np.zeros(count), np.zeros(count)
    for time, rate, power in frames:
        cells = ((time - begin + np.arange(len(power)) / rate) / _CELL_SECONDS).astype(np.int64)
        total += np.bincount(cells, power, count)[:count]
        samples += np.bincount(cells, minlength=count)[:count]
    return begin, total / np.maximum(samples, 1)


def _offset_ms(before: Loudness, after: Loudness) -> float | None:
    """Return the delay of the second loudness curve against the first, in milliseconds.

    Both cover the same time in cells of 4 ms. The result is None where there is nothing to measure (silence, a constant
    tone), and infinite where the second curve is silent or does not correlate with the first.
    """
    size = min(len(before), len(after))
    first, second = before[:size], after[:size]
    if size * _CELL_SECONDS < 0.2 or first.mean() < _SILENCE_POWER:
        return None
    if second.mean() < _LOST_RATIO * first.mean():
        return float("inf")
    first, second = np.sqrt(first), np.sqrt(second)
    if first.std() < _MIN_VARIATION * first.mean():
        return None
    max_lag = min(int(_MAX_OFFSET_SECONDS / _CELL_SECONDS), size // 2)
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
    return min(peaks, key=abs) * _CELL_SECONDS * 1000


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
        resamplers: dict[tuple[str, str, int], av.AudioResampler] = {}
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
                if frame_format not in resamplers:
                    # Packed: PyAV reads beyond the end of planar frames of eight and more channels.
                    resamplers[frame_format] = av.AudioResampler("flt", frame.layout, frame.rate)
                channels, frame.pts = frame.layout.nb_channels, None
                for resampled in resamplers[frame_format].resample(frame):
                    samples = resampled.to_ndarray().reshape(-1, channels).astype(np.float64)
                    yield time, frame.rate, np.square(samples).mean(axis=1)
