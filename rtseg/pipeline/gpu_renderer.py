"""The network and the overlay in one step on the card, for frames that lie there."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from rtseg.core.buffer_pool import BufferPool
from rtseg.core.errors import BackendError
from rtseg.core.frame import Color, RenderedFrame
from rtseg.core.letterbox import Letterbox
from rtseg.gpu.cuda import Cuda
from rtseg.gpu.gpu_frame import GpuFrame
from rtseg.gpu.kernels import Kernels
from rtseg.inference.tensorrt import TensorRtBackend
from rtseg.pipeline.gpu_stream import GpuStream
from rtseg.render.overlay import Overlay

GPU_STREAMS = 2
"""Frames under way at the same time: while one is computed, the one before is coming down."""

_PATIENCE_SECONDS = 5.0
"""How long `close` waits for a lane that is at work."""


class GpuRenderer:
    """Makes class map and colored picture of frames of one stream. May be called by several threads at once."""

    def __init__(self, engine: TensorRtBackend, box: Letterbox, overlay: Overlay, color: Color) -> None:
        """Takes memory on the card and runs the network once in each lane.

        Args:
            engine: built for one picture at a time, and not closed before this.
            box: from the frames to the engine's input.
            overlay: the colors; its view is `overlay`.
            color: of the frames.

        Raises:
            NoMemory: no room on the card.
            BackendError: CUDA or TensorRT failed.
        """
        self._cuda = Cuda(engine.gpu)
        try:
            weights = np.ascontiguousarray(overlay.weights(color))
            address = self._cuda.device_buffer(weights.nbytes)
            stream, fence = self._cuda.stream(), self._cuda.fence()
            self._cuda.upload(address, weights.view(np.uint8), stream)
            self._cuda.wait(stream, fence)
            kernels = Kernels(self._cuda, box)
            self._free: queue.SimpleQueue[GpuStream | None] = queue.SimpleQueue()
            for _ in range(GPU_STREAMS):
                self._free.put(GpuStream(self._cuda, engine, kernels, box, color, address))
        except BaseException:
            self._cuda.close()
            raise
        self._memory = BufferPool(self._cuda.pinned_block)

    @property
    def streams(self) -> int:
        """How many threads should call `paint` at the same time."""
        return GPU_STREAMS

    def render(self, frame: GpuFrame) -> RenderedFrame:
        """The frame's class map, and the frame under its colors, in the processor's memory.

        Raises:
            BackendError: CUDA or TensorRT failed.
        """
        with self._gpu_stream() as gpu_stream:
            return self._rendered(frame, gpu_stream)

    def trial(self, frame: GpuFrame) -> tuple[RenderedFrame, npt.NDArray[np.uint8]]:
        """As `paint`, and what the network was given: uint8 `[input height, input width, 3]`, RGB."""
        with self._gpu_stream() as gpu_stream:
            return self._rendered(frame, gpu_stream), gpu_stream.network_input()

    def raise_if_broken(self) -> None:
        """Whether the card goes on after a failure: some of a kernel's end all work of this process there.

        Raises:
            BackendError: it does not.
        """
        try:
            self._cuda.check()
        except BackendError as error:
            raise BackendError(
                f"the card failed for good while pictures stayed on it ({error}); --decoder software leaves that out"
            ) from error

    def close(self) -> None:
        """Gives the card's memory back once nobody is in `paint` any more; what came from there stays valid."""
        try:
            for _ in range(GPU_STREAMS):
                self._free.get(timeout=_PATIENCE_SECONDS)
        except queue.Empty:
            return  # somebody is: to free what the card writes to would be worse than to keep it
        self._free.put(None)
        self._cuda.use_again()
        self._cuda.close()

    @contextmanager
    def _gpu_stream(self) -> Iterator[GpuStream]:
        gpu_stream = self._free.get()
        try:
            if gpu_stream is None:
                raise BackendError("the road over the card was closed")
            self._cuda.use()
            yield gpu_stream
        finally:
            self._free.put(gpu_stream)

    def _rendered(self, frame: GpuFrame, gpu_stream: GpuStream) -> RenderedFrame:
        classes, planes = gpu_stream.run(frame.picture, self._memory)
        return RenderedFrame(classes, frame.with_planes(planes))
