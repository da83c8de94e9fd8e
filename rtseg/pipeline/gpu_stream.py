"""One picture at a time over the card: scaled, segmented and colored there, and only then brought down."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from rtseg.core.buffer_pool import BufferPool
from rtseg.core.frame import ClassMap, Color, Planes
from rtseg.core.letterbox import PADDING, Letterbox
from rtseg.gpu.cuda import Cuda
from rtseg.gpu.gpu_frame import GpuSurface
from rtseg.gpu.kernels import Job, Kernels
from rtseg.inference.tensorrt import TensorRtBackend


class GpuStream:
    """A stream with memory of its own, and the step that is recorded on it. For one thread at a time."""

    def __init__(
        self, cuda: Cuda, engine: TensorRtBackend, kernels: Kernels, box: Letterbox, color: Color, weights: int
    ) -> None:
        """Allocates, runs the network once, and records the step.

        Args:
            cuda: the card; what is allocated is given back when it is closed.
            engine: the network.
            kernels: made for this letterbox.
            box: where a picture lies in the network's input.
            color: of the pictures.
            weights: device address of what `Overlay.weights` gives.

        Raises:
            NoMemory: no room on the card.
            BackendError: CUDA or TensorRT failed.
        """
        (width, height), (input_width, input_height) = box.source_size, box.input_size
        self._cuda, self._kernels, self._box = cuda, kernels, box
        self._stream, self._fence, self._decoded = cuda.stream(), cuda.fence(), cuda.fence()
        self._input = (input_height, input_width, 3)
        self._picture = (height, width)
        self._image = cuda.device_buffer(int(np.prod(self._input)))
        self._classes = cuda.device_buffer(input_height * input_width)
        self._shown = cuda.device_buffer(width * height * 3 // 2)
        self._told = cuda.pinned_array((ctypes.sizeof(Job),))
        self._on_gpu = cuda.device_buffer(self._told.nbytes)
        self._job = Job.from_address(self._told.ctypes.data)
        self._job.set_sizes(box, color)
        self._job.image, self._job.classes, self._job.rendered = self._image, self._classes, self._shown
        self._job.weights = weights
        bars = cuda.pinned_array(self._input)
        bars.fill(PADDING)  # what is not the picture's stays so
        self._network = engine.over(self._image, self._classes)
        cuda.upload(self._image, bars, self._stream)
        self._network.enqueue(self._stream)  # TensorRT finishes its set-up in the first run, which can't be recorded
        cuda.wait(self._stream, self._fence)
        self._recorded = engine.record(self._network, self._stream, self._step)

    def run(self, picture: GpuSurface, memory: BufferPool) -> tuple[ClassMap, Planes]:
        """The class map (bars cut off) and the colored planes of a picture, in memory of theirs."""
        height, width = self._picture
        luma, chroma = height * width, (height // 2) * (width // 2)
        classes, rendered = memory.empty(*self._input[:2]), memory.empty(luma + 2 * chroma)
        self._job.set_picture(picture)
        try:
            self._cuda.after_decoder(self._stream, self._decoded)
            if self._recorded is not None:
                self._cuda.call("cudaGraphLaunch", self._recorded, self._stream)
            else:
                self._step()
            self._cuda.download(classes, self._classes, self._stream)
            self._cuda.download(rendered, self._shown, self._stream)
            self._cuda.wait(self._stream, self._fence)
        except BaseException:
            self._cuda.settle(self._stream)  # until then the card may read the picture and write what was to come down
            raise
        y, u, v = rendered[:luma], rendered[luma : luma + chroma], rendered[luma + chroma :]
        half = (height // 2, width // 2)
        return self._box.picture_part(classes), (y.reshape(self._picture), u.reshape(half), v.reshape(half))

    def network_input(self) -> npt.NDArray[np.uint8]:
        """What the network was given for the last picture: uint8 `[input height, input width, 3]`, RGB."""
        image = np.empty(self._input, np.uint8)
        self._cuda.download(image, self._image, self._stream)
        self._cuda.wait(self._stream, self._fence)
        return image

    def _step(self) -> None:
        """Puts all of one picture on the stream but what comes down."""
        self._cuda.upload(self._on_gpu, self._told, self._stream)
        self._kernels.scale(self._on_gpu, self._stream)
        self._network.enqueue(self._stream)
        self._kernels.color(self._on_gpu, self._stream)
