"""Where audio is heard that was encoded again: its loudness over time against the input's, both by a plain decode."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
import numpy.typing as npt

from rtseg.io.inputs.avi_audio_times import AviAudioTimes
from rtseg.io.inputs.file_clock import GAP_SECONDS
from rtseg.io.inputs.safe_open import open_input
from rtseg.io.inputs.timestamps import fraction

CELL_SECONDS = 0.004
"""Resolution of the comparison."""

WINDOW_SECONDS = 10.0
_REACH_SECONDS = 1.0
_SILENT = 1e-7
"""Mean square of samples from -1 to 1 that is silence: -70 dB."""

_VARIES = 0.2
"""Least spread of the loudness, relative to its mean, that tells where audio is: a steady tone is the same everywhere."""

_ALIKE = 0.5
_AS_GOOD = 0.8
_GONE = 0.01

Loudness = npt.NDArray[np.float64]


def loudness(path: str, index: int) -> list[tuple[float, Loudness]]:
    """Return the loudness of an audio stream over time: the mean square of the samples in each cell of 4 ms.

    Args:
        path: a media file.
        index: of its audio stream.

    Returns:
        When the first cell begins, in seconds, and the cells; several such parts where the clock jumps.

    Raises:
        SourceError: it can't be opened.
    """
    parts: list[list[tuple[float, int, Loudness]]] = []
    end: float | None = None
    for time, rate, power in _pieces(path, index):
        if end is None or not -_REACH_SECONDS <= time - end <= GAP_SECONDS:
            parts.append([])
        parts[-1].append((time, rate, power))
        end = time + len(power) / rate
    return [_cells(pieces) for pieces in parts]


def _cells(pieces: list[tuple[float, int, Loudness]]) -> tuple[float, Loudness]:
    begin = min(time for time, _, _ in pieces)
    count = int((max(time + len(power) / rate for time, rate, power in pieces) - begin) / CELL_SECONDS) + 1
    total, samples = np.zeros(count), np.zeros(count)
    for time, rate, power in pieces:
        places = ((time - begin + np.arange(len(power)) / rate) / CELL_SECONDS).astype(np.int64)
        total += np.bincount(places, power, count)[:count]
        samples += np.bincount(places, minlength=count)[:count]
    return begin, total / np.maximum(samples, 1)


def offset_ms(before: Loudness, after: Loudness) -> float | None:
    """Return how much later the second loudness is than the first, in milliseconds.

    Both cover the same time, in cells of 4 ms. None: they do not tell, as with silence or a steady tone. Infinite: it is gone,
    or it is something else.
    """
    size = min(len(before), len(after))
    first, second = before[:size], after[:size]
    if size * CELL_SECONDS < 0.2 or first.mean() < _SILENT:
        return None
    if second.mean() < _GONE * first.mean():
        return float("inf")
    first, second = np.sqrt(first), np.sqrt(second)
    if first.std() < _VARIES * first.mean():
        return None
    reach = min(int(_REACH_SECONDS / CELL_SECONDS), size // 2)
    alike = {lag: _alike(first, second, lag) for lag in range(-reach, reach + 1)}
    best = max(alike.values())
    if best < _ALIKE:
        return float("inf")
    # Sound that repeats itself is alike at many places: the nearest peak that is good is the right one.
    peaks = [
        lag
        for lag, value in alike.items()
        if value >= _AS_GOOD * best and value >= max(alike.get(lag - 1, -1.0), alike.get(lag + 1, -1.0))
    ]
    return min(peaks, key=abs) * CELL_SECONDS * 1000


def _alike(first: Loudness, second: Loudness, lag: int) -> float:
    """Correlation of the two where the second is later by `lag` cells."""
    ours = first[: len(first) - lag] if lag >= 0 else first[-lag:]
    theirs = second[lag:] if lag >= 0 else second[:lag]
    spread = ours.std() * theirs.std()
    return float(((ours - ours.mean()) * (theirs - theirs.mean())).mean() / spread) if spread > 0 else 0.0


def _pieces(path: str, index: int) -> Iterator[tuple[float, int, Loudness]]:
    """Time, sample rate and squared samples of each decoded frame, the mean of its channels."""
    with open_input(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, av.AudioStream)
        resampler: av.AudioResampler | None = None
        form: tuple[str, str, int] | None = None
        end: float | None = None
        avi_times = AviAudioTimes(container)
        for packet in container.demux(stream):
            avi_times.mend(packet)
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except (av.FFmpegError, OSError):
                continue
            for frame in frames:
                if not frame.rate or (frame.pts is None and end is None):
                    continue
                # Of several packets in one of MPEG-TS only the first may have a time.
                time = end if frame.pts is None else float(frame.pts * fraction(frame.time_base))
                assert time is not None
                end = time + frame.samples / frame.rate
                now = (frame.format.name, frame.layout.name, frame.rate)
                if resampler is None or form != now:
                    # Packed: PyAV reads beyond the end of planar frames of eight and more channels.
                    resampler, form = av.AudioResampler("flt", frame.layout, frame.rate), now
                channels, frame.pts = frame.layout.nb_channels, None
                for ready in resampler.resample(frame):
                    samples = ready.to_ndarray().reshape(-1, channels).astype(np.float64)
                    yield time, frame.rate, np.square(samples).mean(axis=1)
