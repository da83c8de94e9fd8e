"""Frame of a live run as passed to the sinks, with its camera, its stream and its times."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from rtseg.core.frame import ClassMap, SegmentedFrame, StreamInfo


@dataclass(frozen=True, slots=True)
class LiveFrame(SegmentedFrame):
    """Input of the live sinks. All times are of the monotonic clock, which is independent of the timestamps in the stream."""

    camera: str
    """Name of the camera in this run: `camera0`, `url1`."""

    info: StreamInfo
    """Stream of the frame."""

    inference_start_ns: int
    """Start of the inference, `time.monotonic_ns()`."""

    infer_ms: float
    """Duration of the inference, including the resize to the input size of the network."""

    @property
    def age_ms(self) -> float:
        """Current age of the frame."""
        return (time.monotonic_ns() - self.frame.captured_ns) / 1e6

    @property
    def age_at_inference_ms(self) -> float:
        """Age of the frame at the start of the inference."""
        return (self.inference_start_ns - self.frame.captured_ns) / 1e6


def class_shares(classes: ClassMap, names: tuple[str, ...]) -> dict[str, float]:
    """Return the share of pixels of each class that is in a class map, by class name."""
    counts = np.bincount(classes.reshape(-1), minlength=256)
    return {name: round(float(counts[i]) / classes.size, 4) for i, name in enumerate(names) if counts[i]}
