"""Frames whose planes lie on a card: where they lie is read right, and they come down once, when somebody looks."""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.video.format import VideoFormat
from media import made_frame

from rtseg.core.frame import Color, Frame, Planes
from rtseg.gpu.gpu_frame import Fetched, GpuFrame, GpuSurface, gpu_surface, in_gpu_memory, software_layout
from rtseg.io.codecs import acceleration

COLOR = Color("bt709", False)


class OnCard:
    """A picture of the processor's memory that says it is a card's."""

    def __init__(self, layout: str, size: tuple[int, int], *, tells: bool = True, device: int = 2) -> None:
        self.memory = av.VideoFrame(*size, layout)
        self.format = VideoFormat("cuda", *size)
        self.width, self.height = size
        if tells:
            self.sw_format = self.memory.format
        self.planes = tuple(Plane(plane, device) for plane in self.memory.planes)


class Plane:
    def __init__(self, plane: Any, device: int) -> None:
        self._plane, self._device = plane, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, 0

    def __dlpack__(self) -> Any:
        return self._plane.__dlpack__()


def frame_on_card(fetch: Any, size: tuple[int, int] = (8, 4)) -> GpuFrame:
    picture = GpuSurface(4096, 8192, 512, 512, *size, owner=None)
    return GpuFrame(Fetched(fetch), "yuv420p", COLOR, 7, Fraction(1, 25), 3, 1, 99, picture=picture)  # type: ignore[arg-type]


def test_where_nv12_lies() -> None:
    picture = OnCard("nv12", (100, 64))
    found = gpu_surface(picture)  # type: ignore[arg-type]
    assert found is not None
    luma, chroma = picture.memory.planes
    assert (found.luma, found.chroma) == (luma.buffer_ptr, chroma.buffer_ptr)
    assert (found.luma_pitch, found.chroma_pitch) == (luma.line_size, chroma.line_size)
    assert luma.line_size > 100
    assert (found.width, found.height) == (100, 64)
    assert found.owner is picture


@pytest.mark.parametrize(
    "picture",
    [
        OnCard("p010le", (96, 64)),
        OnCard("yuv444p", (96, 64)),
        OnCard("nv12", (95, 64)),
        OnCard("nv12", (96, 63)),
        OnCard("nv12", (96, 64), device=1),
        av.VideoFrame(96, 64, "nv12"),
    ],
    ids=["10 bits", "4:4:4", "odd width", "odd height", "of another kind of memory", "not on a card"],
)
def test_what_the_kernels_cannot_take_has_no_place(picture: Any) -> None:
    assert gpu_surface(picture) is None


@pytest.mark.parametrize("tells", [True, False], ids=["PyAV 18", "PyAV 17"])
@pytest.mark.parametrize("layout", ["nv12", "p010le", "yuv444p"])
def test_the_layout_in_its_memory(layout: str, tells: bool) -> None:
    picture: Any = OnCard(layout, (96, 64), tells=tells)
    assert in_gpu_memory(picture)
    assert software_layout(picture).name == layout
    plain = av.VideoFrame(96, 64, "yuv422p")
    assert not in_gpu_memory(plain)
    assert software_layout(plain).name == "yuv422p"


def test_planes_come_down_once_when_somebody_looks() -> None:
    calls = []
    wanted = made_frame(1, (8, 4)).planes

    def fetch() -> Planes:
        calls.append(threading.current_thread().name)
        return wanted

    frame = frame_on_card(fetch)
    assert (frame.width, frame.height, frame.pts_seconds) == (8, 4, 7 / 25)
    assert not calls, "size and time are known without a copy"
    threads = [threading.Thread(target=lambda: frame.planes[0].sum()) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(calls) == 1
    for plane, same in zip(frame.planes, wanted, strict=True):
        np.testing.assert_array_equal(plane, same)
    assert len(frame.planes) == 3


def test_what_it_becomes_has_planes_of_its_own() -> None:
    def never() -> Planes:
        raise AssertionError("nobody looked at them")

    frame, planes = frame_on_card(never), made_frame(1, (8, 4)).planes
    rendered = frame.with_planes(planes)
    assert type(rendered) is Frame
    assert rendered.planes is planes
    assert (rendered.pts, rendered.time_base, rendered.index, rendered.duration, rendered.captured_ns) == (
        7,
        Fraction(1, 25),
        3,
        1,
        99,
    )


def test_a_frame_on_a_card_is_420() -> None:
    picture = GpuSurface(0, 0, 8, 8, 8, 4, owner=None)
    with pytest.raises(ValueError, match="yuv420p, not yuv444p"):
        GpuFrame(made_frame(1, (8, 4)).planes, "yuv444p", COLOR, 0, Fraction(1), 0, picture=picture)


def test_whose_context_the_decoder_takes() -> None:
    assert acceleration("software", 0) == {}
    alone, shared = acceleration("auto")["hwaccel"], acceleration("nvdec", 1)["hwaccel"]
    assert alone.is_hw_owned
    assert shared.is_hw_owned
    assert alone.options == {"primary_ctx": "0"}
    assert shared.options == {"primary_ctx": "0", "current_ctx": "1"}
    assert (alone.device_id, shared.device_id) == (0, 1)
