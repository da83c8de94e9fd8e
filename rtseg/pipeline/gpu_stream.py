"""CUDA stream that scales, segments and renders one frame at a time, and then downloads the result."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from rtseg.core.buffer_pool import BufferPool
from rtseg.core.frame import Color, RenderedFrame
from rtseg.core.letterbox import PADDING, Letterbox
from rtseg.gpu.cuda import Cuda
from rtseg.gpu.gpu_frame import GpuFrame
from rtseg.gpu.kernels import Job, Kernels
from rtseg.inference.tensorrt import TensorRtBackend


class GpuStream:
    """CUDA stream with its own memory and its captured graph. For one thread at a time."""

    def __init__(
        self, cuda: Cuda, engine: TensorRtBackend, kernels: Kernels, box: Letterbox, color: Color, weights: int
    ) -> None:
        """Allocate, run the network once, and capture the graph. `cuda.close` frees the allocations.

        `box` is the letterbox from the frames to the network's input, `weights` the device address of `Overlay.weights`.

        Raises:
            GpuOutOfMemory: the GPU's memory is full.
            BackendError: CUDA or TensorRT failed.
        """
        (width, height), (input_width, input_height) = box.source_size, box.input_size
        self._cuda, self._kernels, self._box = cuda, kernels, box
        self._stream = cuda.create_stream()
        self._done, self._decoded = cuda.create_sync_event(), cuda.create_sync_event()
        self._input_shape = (input_height, input_width, 3)
        self._frame_shape = (height, width)
        self._image = cuda.device_buffer(int(np.prod(self._input_shape)))
        self._classes = cuda.device_buffer(input_height * input_width)
        self._rendered = cuda.device_buffer(width * height * 3 // 2)
        output = engine.output
        self._has_scores = output.name == "scores"
        self._host_job = cuda.pinned_array((ctypes.sizeof(Job),))
        self._device_job = cuda.device_buffer(self._host_job.nbytes)
        self._job = Job.from_address(self._host_job.ctypes.data)
        self._job.set_sizes(box, color)
        self._job.image, self._job.classes, self._job.rendered = self._image, self._classes, self._rendered
        if self._has_scores:
            self._job.scores = cuda.device_buffer(int(np.prod(output.shape)) * output.dtype.itemsize)
            self._job.set_scores(output.shape[1:], output.dtype, engine.description.head_stride)
        self._job.weights = weights
        padding = cuda.pinned_array(self._input_shape)
        padding.fill(PADDING)  # the kernel overwrites only the frame's rectangle
        self._network = engine.bind(self._image, self._job.scores if self._has_scores else self._classes)
        cuda.upload(self._image, padding, self._stream)
        self._network.enqueue(self._stream)  # TensorRT finishes its setup in the first run, which can't be captured
        cuda.synchronize(self._stream, self._done)
        self._graph = engine.capture_graph(self._network, self._stream, self._enqueue)

    def run(self, frame: GpuFrame, memory: BufferPool) -> RenderedFrame:
        """Return the class map of a frame, without letterbox bars, and the rendered frame, in memory of `memory`."""
        height, width = self._frame_shape
        luma, chroma = height * width, (height // 2) * (width // 2)
        classes, rendered = memory.empty(*self._input_shape[:2]), memory.empty(luma + 2 * chroma)
        self._job.set_surface(frame.surface)
        try:
            self._cuda.wait_for_decoder(self._stream, self._decoded)
            if self._graph is not None:
                self._cuda.call("cudaGraphLaunch", self._graph, self._stream)
            else:
                self._enqueue()
            self._cuda.download(classes, self._classes, self._stream)
            self._cuda.download(rendered, self._rendered, self._stream)
            self._cuda.synchronize(self._stream, self._done)
        except BaseException:
            # Until then the GPU may read the surface and write into the downloaded arrays.
            self._cuda.synchronize_for_cleanup(self._stream)
            raise
        y, u, v = rendered[:luma], rendered[luma : luma + chroma], rendered[luma + chroma :]
        half = (height // 2, width // 2)
        planes = y.reshape(self._frame_shape), u.reshape(half), v.reshape(half)
        return RenderedFrame(self._box.remove_padding(classes), frame.with_planes(planes))

    def network_input(self) -> npt.NDArray[np.uint8]:
        """Download the network's input of the last frame: uint8 `[input height, input width, 3]`, RGB."""
        image = np.empty(self._input_shape, np.uint8)
        self._cuda.download(image, self._image, self._stream)
        self._cuda.synchronize(self._stream, self._done)
        return image

    def _enqueue(self) -> None:
        """Enqueue the work of one frame except the downloads."""
        self._cuda.upload(self._device_job, self._host_job, self._stream)
        self._kernels.enqueue("scale", self._device_job, self._stream)
        self._network.enqueue(self._stream)
        if self._has_scores:
            self._kernels.enqueue("argmax", self._device_job, self._stream)
        self._kernels.enqueue("color", self._device_job, self._stream)
