"""Where audio is heard that was encoded again: its loudness over time against the input's, both by a plain decode."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
import numpy.typing as npt

from rtseg.sources.demux import open_input
from rtseg.sources.timeline import fraction

CELL_SECONDS = 0.004
"""Resolution of the comparison."""

WINDOW_SECONDS = 10.0
_REACH_SECONDS = 1.0
_SILENT = 1e-7
"""Mean square of samples from -1 to 1 that is silence: -70 dB."""

_VARIES = 0.2
"""Least spread of the loudness, relative to its mean, that tells where audio is: a steady tone is the same everywhere."""

_ALIKE = 0.5
_AS_GOOD = 0.95
_GONE = 0.01

Loudness = npt.NDArray[np.float64]


def loudness(path: str, index: int) -> tuple[float, Loudness]:
    """Return when the first cell begins, in seconds, and the mean square of the samples in each cell of 4 ms.

    Args:
        path: a media file.
        index: of its audio stream.

    Raises:
        SourceError: it can't be opened.
    """
    pieces = list(_pieces(path, index))
    if not pieces:
        return 0.0, np.zeros(0)
    begin = min(time for time, _, _ in pieces)
    cells = int((max(time + len(power) / rate for time, rate, power in pieces) - begin) / CELL_SECONDS) + 1
    total, count = np.zeros(cells), np.zeros(cells)
    for time, rate, power in pieces:
        places = ((time - begin + np.arange(len(power)) / rate) / CELL_SECONDS).astype(np.int64)
        total += np.bincount(places, power, cells)[:cells]
        count += np.bincount(places, minlength=cells)[:cells]
    return begin, total / np.maximum(count, 1)


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
    best = max(alike, key=lambda lag: alike[lag])
    if alike[0] >= _AS_GOOD * alike[best] and alike[0] > 0:
        return 0.0
    return best * CELL_SECONDS * 1000 if alike[best] >= _ALIKE else float("inf")


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
        for packet in container.demux(stream):
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except (av.FFmpegError, OSError):
                continue
            for frame in frames:
                if frame.pts is None or not frame.rate:
                    continue
                time = float(frame.pts * fraction(frame.time_base))
                now = (frame.format.name, frame.layout.name, frame.rate)
                if resampler is None or form != now:
                    resampler, form = av.AudioResampler("fltp", frame.layout, frame.rate), now
                frame.pts = None
                for ready in resampler.resample(frame):
                    samples = ready.to_ndarray().astype(np.float64)
                    yield time, frame.rate, np.square(samples).mean(axis=0)
