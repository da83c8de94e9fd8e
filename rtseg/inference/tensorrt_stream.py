"""Execution contexts of a TensorRT engine, and the stream context that takes one batch to the GPU and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.errors import BackendError
from rtseg.gpu.cuda import Cuda


@dataclass(frozen=True)
class OutputTensor:
    """Output of an engine."""

    name: str
    """`scores` or `classes`."""

    shape: tuple[int, ...]
    """`[batch, C, h, w]` of scores, `[batch, H, W]` of classes."""

    dtype: np.dtype[Any]
    """float16 or float32 of scores, uint8 of classes."""


@dataclass(frozen=True)
class BoundContext:
    """Execution context bound to device memory; for one run at a time."""

    context: Any
    logger: Any

    def enqueue(self, stream: Any) -> None:
        """Enqueue one run on a stream.

        Raises:
            BackendError: TensorRT failed.
        """
        if not self.context.execute_async_v3(int(stream)):
            raise BackendError(f"TensorRT failed while computing: {self.logger.errors()}")


class StreamContext:
    """Stream with host and device memory for one batch, and the captured graph of its run where capture works."""

    def __init__(
        self,
        cuda: Cuda,
        image_shape: tuple[int, int, int, int],
        output: OutputTensor,
        bind: Callable[[int, int], BoundContext],
    ) -> None:
        """Allocate and run the network once. `cuda.close` frees the allocations.

        `image_shape` is `[batch, H, W, 3]`; `bind` binds the engine to the device addresses of images and output.

        Raises:
            GpuOutOfMemory: the GPU's memory is full.
            BackendError: CUDA or TensorRT failed.
        """
        self._cuda = cuda
        self.host_images = cuda.pinned_array(image_shape)
        self._host_outputs = cuda.pinned_array(output.shape, output.dtype)
        self._device_images = cuda.device_buffer(self.host_images.nbytes)
        self._device_outputs = cuda.device_buffer(self._host_outputs.nbytes)
        self.bound = bind(self._device_images, self._device_outputs)
        self.stream = cuda.create_stream()
        self.graph: Any = None
        """Captured graph of `enqueue`; None: `start` enqueues call by call."""
        self.rows: slice | None = None
        """Rows of the caller's arrays that are in flight."""
        self.enqueue()  # TensorRT finishes its setup in the first run, which therefore can't be captured
        self.wait()

    def start(self) -> None:
        """Start the run of a batch."""
        if self.graph is not None:
            self._cuda.call("cudaGraphLaunch", self.graph, self.stream)
        else:
            self.enqueue()

    def enqueue(self, events: list[Any] | None = None) -> None:
        """Enqueue upload, computation and download; `events`, if given, are four events recorded around the three."""

        def record(number: int) -> None:
            if events:
                self._cuda.call("cudaEventRecord", events[number], self.stream)

        record(0)
        self._cuda.upload(self._device_images, self.host_images, self.stream)
        record(1)
        self.bound.enqueue(self.stream)
        record(2)
        self._cuda.download(self._host_outputs, self._device_outputs, self.stream)
        record(3)

    def wait(self) -> None:
        """Block until the run has finished."""
        self._cuda.call("cudaStreamSynchronize", self.stream)

    def collect(self, outputs: npt.NDArray[Any]) -> None:
        """Wait for the rows in flight, if any, and write their outputs into `outputs`."""
        if self.rows is not None:
            rows, self.rows = self.rows, None
            self.wait()
            outputs[rows] = self._host_outputs[: rows.stop - rows.start]
