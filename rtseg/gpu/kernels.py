"""Launch of the CUDA kernels in `kernels.cu`, and their argument structure."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.color import yuv_to_rgb_matrix
from rtseg.core.frame import Color
from rtseg.core.letterbox import Letterbox, halvings
from rtseg.gpu.cuda import Cuda
from rtseg.gpu.gpu_frame import GpuSurface

_BLOCK = (32, 8)
"""Threads of a block, (x, y)."""


class Job(ctypes.Structure):
    """Arguments of the kernels for one frame: device addresses and sizes. `kernels.cu` has the same structure."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("luma", "chroma", "image", "scores", "classes", "weights", "rendered")),
        *((name, ctypes.c_int) for name in ("luma_pitch", "chroma_pitch", "width", "height")),
        *((name, ctypes.c_int) for name in ("input_width", "input_height", "left", "top")),
        *((name, ctypes.c_int) for name in ("inner_width", "inner_height", "luma_halvings", "chroma_halvings")),
        *((name, ctypes.c_int) for name in ("scores_width", "scores_height", "class_count", "half_scores")),
        *((name, ctypes.c_int) for name in ("upsampled_width", "upsampled_height")),
        ("rgb", ctypes.c_float * 12),
    ]

    def set_sizes(self, box: Letterbox, color: Color) -> None:
        """Set the fields that are the same for all frames of a stream."""
        self.width, self.height = box.source_size
        self.input_width, self.input_height = box.input_size
        self.left, self.top, self.inner_width, self.inner_height = box.inner
        inner = box.inner[2:]
        self.luma_halvings = halvings((self.width, self.height), inner)
        self.chroma_halvings = halvings((self.width // 2, self.height // 2), inner)
        self.rgb[:] = [float(value) for value in yuv_to_rgb_matrix(color).reshape(-1)]

    def set_scores(self, shape: tuple[int, ...], dtype: npt.DTypeLike, head_stride: int) -> None:
        """Set the shape of the scores, `[classes, h, w]`, and their type, float16 or float32; see `ModelInfo.head_stride`."""
        self.class_count, self.scores_height, self.scores_width = shape
        self.half_scores = dtype == np.float16
        self.upsampled_width = head_stride * self.scores_width or self.input_width
        self.upsampled_height = head_stride * self.scores_height or self.input_height

    def set_surface(self, surface: GpuSurface) -> None:
        """Set the addresses and pitches of the next frame."""
        self.luma, self.chroma = surface.luma, surface.chroma
        self.luma_pitch, self.chroma_pitch = surface.luma_pitch, surface.chroma_pitch


class Kernels:
    """The three kernels on one GPU, by name.

    `scale` scales the frame and writes it as RGB into its rectangle of the network's input. `argmax` upsamples the network's scores
    and writes the class map. `color` blends the colors of the class map over the frame.
    """

    def __init__(self, cuda: Cuda, box: Letterbox) -> None:
        """Load the PTX. Raises BackendError if the driver refuses it."""
        self._cuda = cuda
        ptx = Path(__file__).with_name("kernels.ptx").read_bytes()
        width, height = box.source_size
        self._threads = {"scale": box.inner[2:], "argmax": box.input_size, "color": (width // 2, height // 2)}
        self._functions = dict(zip(self._threads, cuda.load_kernels(ptx, *self._threads), strict=True))

    def enqueue(self, name: str, job: int, stream: Any) -> None:
        """Enqueue a kernel. Its only argument is `job`, the device address of a `Job`."""
        width, height = self._threads[name]
        blocks = -(-width // _BLOCK[0]), -(-height // _BLOCK[1])
        self._cuda.launch(self._functions[name], blocks, _BLOCK, job, stream)
