"""A frame as the live loop hands it to its sinks: with its camera, its stream, and its times."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from rtseg.core.frame import ClassMap, SegmentedFrame, StreamInfo


@dataclass(frozen=True, slots=True)
class LiveFrame(SegmentedFrame):
    """What live sinks are given. All times are of the monotonic clock, which knows nothing of the stream's time stamps."""

    camera: str
    """Name of the camera in this run: `camera0`, `url1`."""

    info: StreamInfo
    """The stream that the frame came from."""

    taken_ns: int
    """When the network took the frame."""

    infer_ms: float
    """How long the network worked on it, scaling to its size included."""

    @property
    def age_ms(self) -> float:
        """How old the picture is now."""
        return (time.monotonic_ns() - self.frame.captured_ns) / 1e6

    @property
    def waited_ms(self) -> float:
        """How old the picture was when the network took it."""
        return (self.taken_ns - self.frame.captured_ns) / 1e6


def class_shares(classes: ClassMap, names: tuple[str, ...]) -> dict[str, float]:
    """Share of a class map's pixels by class name, those that are there."""
    counts = np.bincount(classes.reshape(-1), minlength=256)
    return {name: round(float(counts[i]) / classes.size, 4) for i, name in enumerate(names) if counts[i]}
