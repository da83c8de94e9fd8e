"""Processing of one frame: network input, network, class map, overlay. The only place where a frame becomes a `ProcessedFrame`."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rtseg.core.frame import ClassMap, Frame, ProcessedFrame, RenderedFrame, StreamInfo
from rtseg.inference.segmenter import Segmenter
from rtseg.render.overlay import Overlay


class FrameProcessor:
    """Processor of the frames of one stream on the CPU; `rtseg.pipeline.gpu_processor` has the one for the GPU.

    `model` and `overlay` may be replaced between two frames. Without temporal smoothing, several threads may call `process`.
    """

    path = "cpu"
    """`gpu` if the GPU rendered frames, else `cpu`."""

    def __init__(self, model: Segmenter, overlay: Overlay, *, camera: str = "", notes: Sequence[str] = ()) -> None:
        """Start a stream, in a live run that of a camera. `notes` are lines about the path."""
        self.model, self.overlay = model, overlay
        self.smoothing = model.new_smoothing()
        """Temporal smoothing of the stream; None: off. Its frames must be passed in order."""
        self._camera = camera
        self._notes = tuple(notes)

    @property
    def notes(self) -> tuple[str, ...]:
        """Human-readable notes about the path, one line each."""
        return self._notes

    @property
    def workers(self) -> int:
        """Number of threads that should call `process` at the same time: one renders while the others wait for the network."""
        return 1 if self.smoothing else self.model.streams + 1

    def process(self, frame: Frame, info: StreamInfo, hud_lines: Sequence[str] = ()) -> ProcessedFrame:
        """Return the class map and the rendered frame of a frame, with `hud_lines` if the overlay shows performance numbers.

        Raises:
            BackendError: the network failed, or the GPU with an error that it does not recover from.
        """
        start_ns, start_seconds = time.monotonic_ns(), time.perf_counter()
        result = self.infer(frame, info)
        inferred_seconds = time.perf_counter()
        rendered = self.render(frame, result, hud_lines)
        return ProcessedFrame(
            frame,
            result.classes if isinstance(result, RenderedFrame) else result,
            rendered,
            info,
            self._camera,
            start_ns,
            inferred_seconds - start_seconds,
            time.perf_counter() - inferred_seconds,
        )

    def infer(self, frame: Frame, info: StreamInfo) -> ClassMap | RenderedFrame:
        """Return the class map of a frame: the first step of `process`. From the GPU, also the rendered frame."""
        return self.model.segment(frame, float(info.sample_aspect_ratio), self.smoothing)

    def render(self, frame: Frame, result: ClassMap | RenderedFrame, hud_lines: Sequence[str] = ()) -> Frame:
        """Return the rendered frame of a result of `infer`: the second step of `process`."""
        if not isinstance(result, RenderedFrame):
            return self.overlay.apply(frame, result, hud_lines)
        self.overlay.annotate(result.rendered, result.rendered.width, hud_lines)
        return result.rendered

    def close(self) -> None:
        """Free the memory of the stream."""
