"""Network and overlay in one step on the GPU, for frames in GPU memory."""

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
"""Frames in flight: while one is computed, the previous one is downloaded."""

_CLOSE_TIMEOUT_SECONDS = 5.0
"""Time that `close` waits for a busy stream."""


class GpuRenderer:
    """Class maps and rendered frames of one video, computed on the GPU. Thread-safe."""

    def __init__(self, engine: TensorRtBackend, box: Letterbox, overlay: Overlay, color: Color) -> None:
        """Allocate GPU memory and run the network once on each stream.

        `engine` has the batch size 1 and must stay open until this is closed, `box` is the letterbox from the frames to its input,
        the view of `overlay` is `overlay`, and `color` is the frames' color space.

        Raises:
            GpuOutOfMemory: the GPU's memory is full.
            BackendError: CUDA or TensorRT failed.
        """
        self._cuda = Cuda(engine.gpu)
        try:
            weights = np.ascontiguousarray(overlay.weights(color))
            address = self._cuda.device_buffer(weights.nbytes)
            stream, event = self._cuda.create_stream(), self._cuda.create_sync_event()
            self._cuda.upload(address, weights.view(np.uint8), stream)
            self._cuda.synchronize(stream, event)
            kernels = Kernels(self._cuda, box)
            self._free: queue.SimpleQueue[GpuStream | None] = queue.SimpleQueue()
            for _ in range(GPU_STREAMS):
                self._free.put(GpuStream(self._cuda, engine, kernels, box, color, address))
        except BaseException:
            self._cuda.close()
            raise
        self._memory = BufferPool(self._cuda.pinned_block)

    def render(self, frame: GpuFrame) -> RenderedFrame:
        """Return the frame's class map and the rendered frame, in CPU memory.

        Raises:
            BackendError: CUDA or TensorRT failed.
        """
        with self._gpu_stream() as gpu_stream:
            return gpu_stream.run(frame, self._memory)

    def render_with_input(self, frame: GpuFrame) -> tuple[RenderedFrame, npt.NDArray[np.uint8]]:
        """Return the result of `render`, and the network's input: uint8 `[input height, input width, 3]`, RGB.

        Raises:
            BackendError: CUDA or TensorRT failed.
        """
        with self._gpu_stream() as gpu_stream:
            return gpu_stream.run(frame, self._memory), gpu_stream.network_input()

    def raise_if_unusable(self) -> None:
        """Check the GPU after a failure: some errors of a kernel end all work of this process on it.

        Raises:
            BackendError: the GPU is unusable in this process.
        """
        try:
            self._cuda.raise_if_unusable()
        except BackendError as error:
            raise BackendError(
                f"the GPU path failed, and the GPU is unusable in this process ({error}); "
                "--decoder software avoids the GPU path"
            ) from error

    def close(self) -> None:
        """Free the GPU memory after the last call of `render`; its results stay valid."""
        try:
            for _ in range(GPU_STREAMS):
                self._free.get(timeout=_CLOSE_TIMEOUT_SECONDS)
        except queue.Empty:
            return  # a stream is still busy: a leak is better than freeing memory that the GPU writes to
        self._free.put(None)
        self._cuda.make_current_for_cleanup()
        self._cuda.close()

    @contextmanager
    def _gpu_stream(self) -> Iterator[GpuStream]:
        gpu_stream = self._free.get()
        try:
            if gpu_stream is None:
                raise BackendError("the GPU renderer was closed")
            self._cuda.make_current()
            yield gpu_stream
        finally:
            self._free.put(gpu_stream)
