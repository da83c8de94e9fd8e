"""Frames in GPU memory: device addresses of their planes, and planes that are downloaded once, on first access."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from cuda_runtime_double import Cudart
from gpu_doubles import GpuVideoFrame
from media import numbered_frame

from rtseg.core.frame import Color, Frame, Planes
from rtseg.gpu.gpu_frame import GpuFrame, GpuSurface, LazyPlanes, gpu_surface, in_gpu_memory, software_layout
from rtseg.io.codecs import acceleration

COLOR = Color("bt709", False)


def video_frame(layout: str, size: tuple[int, int], *, has_sw_format: bool = True) -> Any:
    """Return a double of NVDEC's frames."""
    return GpuVideoFrame(av.VideoFrame(*size, "yuv420p"), layout, Cudart(), has_sw_format=has_sw_format)


def gpu_frame(fetch: Any, size: tuple[int, int] = (8, 4)) -> GpuFrame:
    surface = GpuSurface(4096, 8192, 512, 512, *size, owner=None)
    return GpuFrame(LazyPlanes(fetch), "yuv420p", COLOR, 7, Fraction(1, 25), 3, 1, 99, surface=surface)  # type: ignore[arg-type]


def test_surface_has_the_addresses_and_pitches_of_nv12() -> None:
    frame = video_frame("nv12", (100, 64))
    surface = gpu_surface(frame)
    assert surface is not None
    luma, chroma = frame.memory.planes
    assert (surface.luma, surface.chroma) == (luma.buffer_ptr, chroma.buffer_ptr)
    assert (surface.luma_pitch, surface.chroma_pitch) == (luma.line_size, chroma.line_size)
    assert luma.line_size > 100
    assert (surface.width, surface.height) == (100, 64)
    assert surface.owner is frame


@pytest.mark.parametrize(
    "frame",
    [
        video_frame("p010le", (96, 64)),
        video_frame("yuv444p", (96, 64)),
        video_frame("nv12", (95, 64)),
        video_frame("nv12", (96, 63)),
        av.VideoFrame(96, 64, "nv12"),
    ],
    ids=["10 bits", "4:4:4", "odd width", "odd height", "CPU memory"],
)
def test_unsupported_layout_has_no_surface(frame: Any) -> None:
    assert gpu_surface(frame) is None


@pytest.mark.parametrize("has_sw_format", [True, False], ids=["PyAV 18", "PyAV 17"])
@pytest.mark.parametrize("layout", ["nv12", "p010le", "yuv444p"])
def test_software_layout_is_the_layout_in_gpu_memory(layout: str, has_sw_format: bool) -> None:
    frame = video_frame(layout, (96, 64), has_sw_format=has_sw_format)
    assert in_gpu_memory(frame)
    assert software_layout(frame).name == layout
    plain = av.VideoFrame(96, 64, "yuv422p")
    assert not in_gpu_memory(plain)
    assert software_layout(plain).name == "yuv422p"


def test_planes_are_downloaded_once_on_first_access() -> None:
    calls = []
    expected = numbered_frame(1, (8, 4)).planes

    def fetch() -> Planes:
        calls.append(threading.current_thread().name)
        return expected

    frame = gpu_frame(fetch)
    assert (frame.width, frame.height, frame.pts_seconds) == (8, 4, 7 / 25)
    assert not calls, "size and time need no copy"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: frame.planes[0].sum(), range(8)))
    assert len(calls) == 1
    for plane, other in zip(frame.planes, expected, strict=True):
        np.testing.assert_array_equal(plane, other)
    assert len(frame.planes) == 3


def test_with_planes_returns_a_cpu_frame() -> None:
    def fail() -> Planes:
        raise AssertionError("nothing accessed the planes")

    frame, planes = gpu_frame(fail), numbered_frame(1, (8, 4)).planes
    rendered = frame.with_planes(planes)
    assert type(rendered) is Frame
    assert rendered.planes is planes
    assert (rendered.pts, rendered.time_base, rendered.index) == (7, Fraction(1, 25), 3)
    assert (rendered.duration, rendered.captured_ns) == (1, 99)


def test_gpu_frame_refuses_other_layouts_than_420() -> None:
    surface = GpuSurface(0, 0, 8, 8, 8, 4, owner=None)
    with pytest.raises(ValueError, match="yuv420p, not yuv444p"):
        GpuFrame(numbered_frame(1, (8, 4)).planes, "yuv444p", COLOR, 0, Fraction(1), 0, surface=surface)


def test_decoder_context_is_primary_or_shared() -> None:
    assert acceleration("software", 0) == {}
    primary, shared = acceleration("auto")["hwaccel"], acceleration("nvdec", 1)["hwaccel"]
    assert primary.is_hw_owned
    assert shared.is_hw_owned
    assert primary.options == {"primary_ctx": "0"}
    assert shared.options == {"primary_ctx": "0", "current_ctx": "1"}
    assert (primary.device_id, shared.device_id) == (0, 1)
