"""CUDA kernels: compiled for the CPU and compared with the CPU path, their PTX, and their launch through `cuda-bindings`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from gpu_doubles import launch

from rtseg.core.frame import Color, Frame, Plane
from rtseg.core.letterbox import PADDING, Letterbox
from rtseg.core.palette import load_palette
from rtseg.gpu import compile_kernels
from rtseg.gpu.gpu_frame import GpuSurface
from rtseg.gpu.kernels import Job, Kernels
from rtseg.inference import Scores
from rtseg.inference.argmax import ScoresToClasses
from rtseg.pipeline.gpu_processor import MAX_INPUT_DIFFERENCE, MAX_RENDER_DIFFERENCE
from rtseg.render.overlay import Overlay

needs_compiler = pytest.mark.system("g++")


def synthetic_planes(width: int, height: int, worst_case: bool, seed: int = 0) -> tuple[Plane, Plane, Plane]:
    """Return planes with gradients, edges and noise as in real frames; or, `worst_case`, black, white and full-range noise."""
    rng = np.random.default_rng(seed)
    planes = []
    for number in range(3):
        across, down = (2, 2) if number else (1, 1)
        y, x = np.mgrid[: height // down, : width // across]
        if worst_case:
            boxes = 255 * ((x * across // 47 + y * down // 31 + number) % 2)
            noise = rng.integers(0, 256, x.shape)
            planes.append(np.where(x * 2 < x.shape[1], boxes, noise).astype(np.uint8))
            continue
        gradient = 90 + 60 * np.sin(x * across / 37 + number) * np.cos(y * down / 23)
        edges = 60.0 * ((x * across // 50 + y * down // 34) % 2)
        planes.append(np.clip(gradient + edges + rng.normal(0, 6, gradient.shape), 0, 255).astype(np.uint8))
    return planes[0], planes[1], planes[2]


class KernelsOnCpu:
    """The kernels on one frame, with NumPy arrays as device memory; pitches exceed the row length, as NVDEC's do."""

    def __init__(self, library: ctypes.CDLL, frame: Frame, box: Letterbox, overlay: Overlay) -> None:
        self._library, self._frame = library, frame
        width, height = frame.width, frame.height
        self.luma = np.full((height, width + 40), 255, np.uint8)
        self.luma[:, :width] = frame.planes[0]
        self.chroma = np.full((height // 2, width + 24), 255, np.uint8)
        self.chroma[:, 0:width:2], self.chroma[:, 1:width:2] = frame.planes[1:]
        self.image = np.full((box.input_size[1], box.input_size[0], 3), PADDING, np.uint8)
        self.classes = np.zeros((box.input_size[1], box.input_size[0]), np.uint8)
        self.rendered = np.zeros(width * height * 3 // 2, np.uint8)
        self.weights = np.ascontiguousarray(overlay.weights(frame.color))
        self.job = Job()
        self.job.set_sizes(box, frame.color)
        self.job.set_surface(
            GpuSurface(
                self.luma.ctypes.data, self.chroma.ctypes.data, width + 40, width + 24, width, height, owner=self
            )
        )
        for name in ("image", "classes", "rendered", "weights"):
            setattr(self.job, name, getattr(self, name).ctypes.data)
        self._kernels = Kernels(self, box)  # type: ignore[arg-type]

    def load_kernels(self, ptx: bytes, *names: str) -> tuple[str, ...]:
        return names

    def launch(self, kernel: str, blocks: Any, threads: Any, address: int, stream: Any) -> None:
        launch(self._library, kernel, blocks, threads, address)

    def scale(self) -> Plane:
        self._kernels.enqueue("scale", ctypes.addressof(self.job), None)
        return self.image

    def argmax(self, scores: Scores, head_stride: int) -> Plane:
        self.job.scores = scores.ctypes.data
        self.job.set_scores(scores.shape, scores.dtype, head_stride)
        self._kernels.enqueue("argmax", ctypes.addressof(self.job), None)
        return self.classes

    def color(self, classes: Plane) -> list[Plane]:
        self.classes[:] = classes
        self._kernels.enqueue("color", ctypes.addressof(self.job), None)
        height, width = self._frame.planes[0].shape
        luma, half = height * width, (height // 2, width // 2)
        u, v = np.split(self.rendered[luma:], 2)
        return [self.rendered[:luma].reshape(height, width), u.reshape(half), v.reshape(half)]


def max_difference(first: Plane, second: Plane) -> int:
    return int(np.abs(first.astype(int) - second).max())


LIMITED, FULL = Color("bt709", False), Color("bt601", True)
GEOMETRIES = [
    ((1920, 1080), (512, 288), 1.0),
    ((1280, 720), (480, 288), 1.0),
    ((1280, 720), (512, 288), 1.0),
    ((3840, 2160), (512, 288), 1.0),
    ((640, 480), (480, 360), 1.0),
    ((640, 480), (320, 240), 1.0),  # exactly half
    ((960, 540), (512, 288), 1.0),  # chroma is smaller than the class map
    ((320, 180), (480, 288), 1.0),  # luma and chroma are
    ((720, 576), (480, 288), 16 / 15),
    ((1366, 768), (320, 192), 1.0),  # odd after one halving, and still twice as large
    ((1600, 900), (192, 128), 1.0),
    ((854, 480), (200, 120), 1.0),
    ((354, 290), (80, 64), 1.0),
    ((2, 2), (64, 64), 1.0),
]


@needs_compiler
@pytest.mark.parametrize(
    ("color", "worst_case"), [(LIMITED, False), (FULL, True)], ids=["limited, street", "full, black and white"]
)
@pytest.mark.parametrize(("size", "input_size", "aspect"), GEOMETRIES)
def test_kernels_match_the_cpu_path(
    kernel_library: ctypes.CDLL,
    size: tuple[int, int],
    input_size: tuple[int, int],
    aspect: float,
    color: Color,
    worst_case: bool,
) -> None:
    palette = load_palette("street", ("road", "car", "sky", "tree"), None)
    box = Letterbox(size, input_size, pixel_aspect=aspect)
    frame = Frame(synthetic_planes(*size, worst_case), "yuv420p", color, 0, Fraction(1, 25), 0)
    rng = np.random.default_rng(1)
    blobs = rng.integers(0, 4, (-(-input_size[1] // 12), -(-input_size[0] // 12))).astype(np.uint8)
    classes = blobs.repeat(12, axis=0).repeat(12, axis=1)[: input_size[1], : input_size[0]].copy()
    for overlay in (Overlay(palette), Overlay(palette, alpha=1.0), Overlay(palette, alpha=0.3, only=[1, 3])):
        kernels = KernelsOnCpu(kernel_library, frame, box, overlay)
        assert max_difference(kernels.scale(), box.network_input(frame)) <= MAX_INPUT_DIFFERENCE // 2
        without_class = classes.copy()
        without_class[: input_size[1] // 2] = 255  # the frame stays unchanged
        for each in (classes, without_class):
            expected_planes = overlay.apply(frame, box.remove_padding(each)).planes
            for actual, expected in zip(kernels.color(each), expected_planes, strict=True):
                assert max_difference(actual, expected) < MAX_RENDER_DIFFERENCE


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("shape", "input_size", "head_stride"),
    [
        ((11, 144, 256), (512, 288), 2),
        ((3, 25, 38), (75, 49), 2),  # the last upsampled row and column are cropped
        ((2, 30, 40), (317, 233), 0),
        ((5, 48, 64), (64, 48), 1),
        ((1, 8, 8), (64, 64), 8),
    ],
)
def test_argmax_matches_the_cpu_path(
    kernel_library: ctypes.CDLL, shape: tuple[int, int, int], input_size: tuple[int, int], head_stride: int, dtype: Any
) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 8, shape).astype(dtype)
    scores[:, : shape[1] // 4] = rng.integers(-2, 2, (shape[0], shape[1] // 4, shape[2]))  # ties
    planes = synthetic_planes(64, 48, worst_case=False)
    frame = Frame(planes, "yuv420p", LIMITED, 0, Fraction(1, 25), 0)
    overlay = Overlay(load_palette("street", tuple("abcdefghijk"), None))
    kernels = KernelsOnCpu(kernel_library, frame, Letterbox((64, 48), input_size), overlay)
    np.testing.assert_array_equal(kernels.argmax(scores, head_stride), ScoresToClasses(head_stride)(scores, input_size))


@needs_compiler
def test_every_fp16_number_is_read_exactly(kernel_library: ctypes.CDLL) -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    plane = np.empty(len(numbers), np.float32)
    kernel_library.read_fp16(*(ctypes.c_void_p(array.ctypes.data) for array in (numbers, plane)), len(numbers))
    np.testing.assert_array_equal(plane, numbers.astype(np.float32))


@needs_compiler
def test_job_has_the_same_layout_in_python_and_cuda(kernel_library: ctypes.CDLL) -> None:
    fields = ("luma", "scores", "rendered", "width", "class_count", "rgb")
    offsets = [ctypes.sizeof(Job), *(getattr(Job, name).offset for name in fields)]
    assert [kernel_library.layout(field) for field in range(7)] == offsets


def test_ptx_is_compiled_from_the_present_source() -> None:
    text = compile_kernels.PTX.read_text()
    assert text.splitlines()[0] == compile_kernels.source_mark(), "kernels.cu has changed: make kernels"
    assert all(f".visible .entry {name}(" in text for name in ("scale", "argmax", "color"))


def test_nvrtc_reproduces_the_ptx() -> None:
    try:
        compile_kernels._library()
    except RuntimeError as error:
        pytest.skip(str(error))
    code = "from rtseg.gpu import compile_kernels as c; print(c.compile_ptx(), end='')"  # NVRTC changes the locale
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120)
    assert result.stdout == compile_kernels.PTX.read_text(), result.stderr


@needs_compiler
def test_cuda_bindings_pass_the_arguments_to_the_driver(tmp_path: Path) -> None:
    """The real `cuda-bindings` with a driver that only prints its calls."""
    pytest.importorskip("cuda.bindings.driver")
    tests = Path(__file__).parents[1]
    library = tmp_path / "libcuda.so.1"
    command = ["g++", "-std=c++17", "-shared", "-fPIC", "-Wall", "-Werror", str(tests / "fake_cuda_driver.cpp")]
    subprocess.run([*command, "-ldl", "-o", str(library)], check=True, timeout=120)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, str(tests / "fake_cuda_driver.py")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"cuModuleLoadData {compile_kernels.source_mark()}",
        "cuModuleGetFunction scale of 7",
        "cuModuleGetFunction color of 7",
        "cuLaunchKernel 11: 3x4x1 blocks of 32x8x1, 0 bytes, stream 9, parameter 0x12345678",
        "CUDA failed in cuModuleGetFunction: named symbol not found (code 500); `rtseg doctor` checks the driver",
        "cuModuleUnload 7",
    ]


def test_cuda_runtime_bindings_accept_the_arguments() -> None:
    """The real bindings, without a driver: each call must return an error code and not raise TypeError."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    stream, event = runtime.cudaStream_t(), runtime.cudaEvent_t()
    codes = [
        runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking),
        runtime.cudaHostAlloc(16, runtime.cudaHostAllocDefault),
        runtime.cudaMemcpyAsync(16, 32, 0, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, stream),
        runtime.cudaStreamBeginCapture(stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
        runtime.cudaGraphInstantiate(runtime.cudaGraph_t(), 0),
        runtime.cudaEventCreateWithFlags(runtime.cudaEventBlockingSync | runtime.cudaEventDisableTiming),
        runtime.cudaEventRecord(event, 1),
        runtime.cudaStreamWaitEvent(stream, event, 0),
        runtime.cudaEventSynchronize(event),
        runtime.cudaEventElapsedTime(event, event),
        runtime.cudaGetErrorString(runtime.cudaError_t.cudaErrorMemoryAllocation),
    ]
    assert all(int(code[0]) >= 0 for code in codes)
    assert codes[-1][1] == b"out of memory"
