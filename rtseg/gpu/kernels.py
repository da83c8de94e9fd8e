"""What the kernels are told: `kernels.cu` has the same structure."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from rtseg.core.color import yuv_to_rgb_matrix
from rtseg.core.frame import Color
from rtseg.core.letterbox import Letterbox, halvings
from rtseg.gpu.cuda import Cuda
from rtseg.gpu.gpu_frame import GpuSurface

_THREADS = (32, 8)
"""Of a block, across and down."""


class Job(ctypes.Structure):
    """One picture's way: addresses on the card, and sizes."""

    _fields_ = [
        ("luma", ctypes.c_uint64),
        ("chroma", ctypes.c_uint64),
        ("image", ctypes.c_uint64),
        ("classes", ctypes.c_uint64),
        ("weights", ctypes.c_uint64),
        ("shown", ctypes.c_uint64),
        *((name, ctypes.c_int) for name in ("luma_pitch", "chroma_pitch", "width", "height")),
        *((name, ctypes.c_int) for name in ("input_width", "input_height", "left", "top")),
        *((name, ctypes.c_int) for name in ("inner_width", "inner_height", "luma_halvings", "chroma_halvings")),
        ("rgb", ctypes.c_float * 12),
    ]

    def set_sizes(self, box: Letterbox, color: Color) -> None:
        """What is the same for all pictures of a stream."""
        self.width, self.height = box.source_size
        self.input_width, self.input_height = box.input_size
        self.left, self.top, self.inner_width, self.inner_height = box.inner
        inner = box.inner[2:]
        self.luma_halvings = halvings((self.width, self.height), inner)
        self.chroma_halvings = halvings((self.width // 2, self.height // 2), inner)
        self.rgb[:] = [float(value) for value in yuv_to_rgb_matrix(color).reshape(-1)]

    def set_picture(self, picture: GpuSurface) -> None:
        """Where the next picture lies."""
        self.luma, self.chroma = picture.luma, picture.chroma
        self.luma_pitch, self.chroma_pitch = picture.luma_pitch, picture.chroma_pitch


class Kernels:
    """The two kernels, on one card. A `Job` on the card tells them everything."""

    def __init__(self, cuda: Cuda, box: Letterbox) -> None:
        """Has the driver make machine code of the PTX.

        Raises:
            BackendError: the driver does not take it.
        """
        self._cuda = cuda
        ptx = Path(__file__).with_name("kernels.ptx").read_bytes()
        self._scale, self._color = cuda.kernels(ptx, "scale", "color")
        self._for_scale = _blocks(*box.inner[2:])
        self._for_color = _blocks(box.source_size[0] // 2, box.source_size[1] // 2)

    def scale(self, job: int, stream: Any) -> None:
        """Puts on a stream: the picture, as RGB, into its rectangle of the network's input."""
        self._cuda.launch(self._scale, self._for_scale, _THREADS, job, stream)

    def color(self, job: int, stream: Any) -> None:
        """Puts on a stream: the picture under the colors of its class map."""
        self._cuda.launch(self._color, self._for_color, _THREADS, job, stream)


def _blocks(width: int, height: int) -> tuple[int, int]:
    return -(-width // _THREADS[0]), -(-height // _THREADS[1])
