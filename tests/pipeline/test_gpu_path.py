"""The road over the card: its kernels, compiled for the processor, against the processor's own pictures; and the whole road
with doubles of NVDEC, CUDA and TensorRT. The last test is for a real card."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import nvidia_doubles as doubles
from command import rtseg
from gpu_doubles import Driver, Nvdec, compiled_kernels, launch
from media import Audio, read, write_video
from nvidia_machine import Jetson
from onnx_models import contract_model

from rtseg.core.errors import BackendError, SourceError
from rtseg.core.frame import Color, Frame, Plane
from rtseg.core.letterbox import PADDING, Letterbox
from rtseg.core.palette import load_palette
from rtseg.gpu import compile_kernels as compiling
from rtseg.gpu.gpu_frame import GpuSurface
from rtseg.gpu.kernels import Job, Kernels
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.models.export.build import build
from rtseg.pipeline.gpu_path import INPUT_LEVELS, PROOFS, SHOWN_LEVELS, idle_decoder
from rtseg.render.overlay import Overlay
from rtseg.render.style import Style
from rtseg.video.process import process

needs_compiler = pytest.mark.system("g++")
SMALL = (128, 96)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled_kernels(tmp_path_factory.getbasetemp())


def street(width: int, height: int, hard: bool, seed: int = 0) -> tuple[Plane, Plane, Plane]:
    """Planes with soft areas, edges and noise, as pictures have them; or, `hard`, of the worst: black, white and noise."""
    rng = np.random.default_rng(seed)
    planes = []
    for number in range(3):
        across, down = (2, 2) if number else (1, 1)
        y, x = np.mgrid[: height // down, : width // across]
        if hard:
            boxes = 255 * ((x * across // 47 + y * down // 31 + number) % 2)
            noise = rng.integers(0, 256, x.shape)
            planes.append(np.where(x * 2 < x.shape[1], boxes, noise).astype(np.uint8))
            continue
        soft = 90 + 60 * np.sin(x * across / 37 + number) * np.cos(y * down / 23)
        edges = 60.0 * ((x * across // 50 + y * down // 34) % 2)
        planes.append(np.clip(soft + edges + rng.normal(0, 6, soft.shape), 0, 255).astype(np.uint8))
    return planes[0], planes[1], planes[2]


class OnProcessor:
    """A card's memory for one picture, in arrays; pitches are wider than rows, as NVDEC's are."""

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
        self.job.set_picture(
            GpuSurface(
                self.luma.ctypes.data, self.chroma.ctypes.data, width + 40, width + 24, width, height, owner=self
            )
        )
        for name in ("image", "classes", "shown", "weights"):
            setattr(self.job, name, getattr(self, name).ctypes.data)
        self._kernels = Kernels(self, box)  # type: ignore[arg-type]

    def kernels(self, ptx: bytes, *names: str) -> tuple[str, ...]:
        return names

    def launch(self, kernel: str, blocks: Any, threads: Any, address: int, stream: Any) -> None:
        launch(self._library, kernel, blocks, threads, address)

    def scale(self) -> Plane:
        self._kernels.scale(ctypes.addressof(self.job), None)
        return self.image

    def color(self, classes: Plane) -> list[Plane]:
        self.classes[:] = classes
        self._kernels.color(ctypes.addressof(self.job), None)
        height, width = self._frame.planes[0].shape
        luma, half = height * width, (height // 2, width // 2)
        u, v = np.split(self.rendered[luma:], 2)
        return [self.rendered[:luma].reshape(height, width), u.reshape(half), v.reshape(half)]


def apart(first: Plane, second: Plane) -> int:
    return int(np.abs(first.astype(int) - second).max())


LIMITED, FULL = Color("bt709", False), Color("bt601", True)
GEOMETRIES = [
    ((1920, 1080), (512, 288), 1.0),
    ((1280, 720), (480, 288), 1.0),
    ((1280, 720), (512, 288), 1.0),
    ((3840, 2160), (512, 288), 1.0),
    ((640, 480), (480, 360), 1.0),
    ((640, 480), (320, 240), 1.0),  # halves exactly
    ((960, 540), (512, 288), 1.0),  # chroma is smaller than the class map
    ((320, 180), (480, 288), 1.0),  # all of it is
    ((720, 576), (480, 288), 16 / 15),
    ((1366, 768), (320, 192), 1.0),  # odd after one halving, and still twice as large
    ((1600, 900), (192, 128), 1.0),
    ((854, 480), (200, 120), 1.0),
    ((354, 290), (80, 64), 1.0),
    ((2, 2), (64, 64), 1.0),
]


@needs_compiler
@pytest.mark.parametrize(
    ("color", "hard"), [(LIMITED, False), (FULL, True)], ids=["limited, street", "full, black and white"]
)
@pytest.mark.parametrize(("size", "network", "aspect"), GEOMETRIES)
def test_the_kernels_make_the_processor_s_pictures(
    library: ctypes.CDLL, size: tuple[int, int], network: tuple[int, int], aspect: float, color: Color, hard: bool
) -> None:
    palette = load_palette("street", ("road", "car", "sky", "tree"), None)
    box = Letterbox(size, network, pixel_aspect=aspect)
    frame = Frame(street(*size, hard), "yuv420p", color, 0, Fraction(1, 25), 0)
    rng = np.random.default_rng(1)
    blobs = rng.integers(0, 4, (-(-network[1] // 12), -(-network[0] // 12))).astype(np.uint8)
    classes = blobs.repeat(12, axis=0).repeat(12, axis=1)[: network[1], : network[0]].copy()
    for overlay in (
        Overlay(palette),
        Overlay(palette, alpha=1.0),
        Overlay(palette, alpha=0.3, only=[1, 3]),
    ):
        gpu = OnProcessor(library, frame, box, overlay)
        assert apart(gpu.scale(), box.network_input(frame)) <= INPUT_LEVELS // 2
        rendered = overlay.apply(frame, box.picture_part(classes)).planes
        for ours, wanted in zip(gpu.color(classes), rendered, strict=True):
            assert apart(ours, wanted) < SHOWN_LEVELS
    classes[: network[1] // 2] = 255  # no class: the picture stays as it came
    for ours, wanted in zip(gpu.color(classes), overlay.apply(frame, box.picture_part(classes)).planes, strict=True):
        assert apart(ours, wanted) < SHOWN_LEVELS


@needs_compiler
def test_both_sides_have_the_same_job(library: ctypes.CDLL) -> None:
    ours = [
        ctypes.sizeof(Job),
        *(getattr(Job, name).offset for name in ("luma", "shown", "width", "inner_width", "rgb")),
    ]
    assert [library.layout(what) for what in range(6)] == ours


def test_the_ptx_is_of_this_source() -> None:
    text = compiling.PTX.read_text()
    assert text.splitlines()[0] == compiling.source_mark(), "kernels.cu has changed: make kernels"
    assert all(f".visible .entry {name}(" in text for name in ("scale", "color"))


def test_nvrtc_makes_the_same_ptx() -> None:
    try:
        compiling._library()
    except RuntimeError as error:
        pytest.skip(str(error))
    code = "from rtseg.pipeline import compile as c; print(c.compiled(), end='')"  # NVRTC changes its process's locale
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120)
    assert result.stdout == compiling.PTX.read_text(), result.stderr


# The whole road.


class Car:
    """A Jetson with a decoder whose pictures stay on the card, and an engine for it."""

    def __init__(self, patch: pytest.MonkeyPatch, version: str, library: ctypes.CDLL, folder: Path) -> None:
        self.jetson = Jetson(patch, version, driver=lambda cudart: Driver(cudart, library))
        self.cudart, self.driver = self.jetson.cudart, self.jetson.driver
        self.nvdec = Nvdec(patch, self.cudart)
        patch.setattr("rtseg.pipeline.gpu_path.try_nvdec", lambda: None)
        self.folder = folder
        self.model = contract_model(folder / "colors.onnx")
        self.engine = build(self.model, target="tensorrt", out=folder, verify=False).path

    def run(self, drive: Path, out: str = "out.mkv", decoder: str = "nvdec", **more: Any) -> dict[str, Any]:
        """`rtseg video`, without loss: pixels can be compared."""
        style, engine = more.pop("look", Style()), more.pop("engine", self.engine)
        with Segmenter(engine, backend="tensorrt") as segmenter:
            return process(
                str(drive),
                str(self.folder / out),
                segmenter,
                style,
                OutputOptions("ffv1"),
                InputOptions(decoder=decoder),
                quiet=True,
                **more,
            )

    def nothing_left(self) -> bool:
        """Whether all that was taken of the card was given back; a traceback may have held frames."""
        gc.collect()
        return not self.cudart.alive and self.driver.modules == 0

    def rendered(self, out: str = "out.mkv") -> list[Frame]:
        return read(self.folder / out)


@pytest.fixture(params=doubles.VERSIONS)
def car(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, library: ctypes.CDLL, tmp_path: Path) -> Car:
    return Car(monkeypatch, request.param, library, tmp_path)


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch, library: ctypes.CDLL, tmp_path: Path) -> Car:
    """One version alone, for what does not depend on it."""
    return Car(monkeypatch, doubles.VERSIONS[0], library, tmp_path)


def drive(folder: Path, **how: Any) -> Path:
    return write_video(folder / "drive.mp4", **{"frames": 40, "size": SMALL, **how})


def road_note(result: dict[str, Any]) -> str:
    notes = [note for note in result["notes"] if note.startswith("road: ")]
    assert len(notes) == 1, result["notes"]
    return str(notes[0])


@needs_compiler
@pytest.mark.parametrize(("threads", "legend"), [(True, True), (False, False)])
def test_pictures_stay_on_the_card_and_look_as_the_processor_s(car: Car, threads: bool, legend: bool) -> None:
    video = drive(car.folder, before=[Audio(seconds=1.6)])
    style = Style(legend=legend)
    over_card = car.run(video, style=style, threads=threads)
    brought_down = car.nvdec.downloads
    over_processor = car.run(video, "processor.mkv", "software", style=style)
    assert (over_card["path"], over_processor["path"]) == ("gpu", "cpu")
    on_gpu = 40 - brought_down
    assert road_note(over_card) == f"road: {on_gpu} of 40 pictures stayed on the card until they were colored"
    assert PROOFS <= brought_down <= PROOFS + 1, "to compare; no other"
    assert car.nvdec.asked[0] == ("nvdec", 0)
    assert over_card["fidelity"]["line"].split(",")[0] == over_processor["fidelity"]["line"].split(",")[0]
    assert over_card["frames"]["written"] == 40
    ours, wanted = car.rendered(), car.rendered("processor.mkv")
    assert [frame.pts for frame in ours] == [frame.pts for frame in wanted]
    for frame, other in zip(ours, wanted, strict=True):
        # The scaled picture differs by a level here and there, and so does the class of a pixel at a boundary.
        for plane, same in zip(frame.planes, other.planes, strict=True):
            assert (np.abs(plane.astype(int) - same) > SHOWN_LEVELS).mean() < 0.02
    assert car.nothing_left()


@needs_compiler
def test_what_cannot_be_recorded_runs_call_by_call(orin: Car) -> None:
    video = drive(orin.folder)
    # With threads it depends on them which frames the card and the processor color; the two round at other places.
    assert orin.run(video, threads=False)["path"] == "gpu"
    orin.cudart.capture_works = False
    assert orin.run(video, "again.mkv", threads=False)["path"] == "gpu"
    for frame, same in zip(orin.rendered(), orin.rendered("again.mkv"), strict=True):
        np.testing.assert_array_equal(frame.planes[0], same.planes[0])


@needs_compiler
def test_a_step_is_one_launch_and_one_wait(orin: Car) -> None:
    video = drive(orin.folder)
    orin.run(video, threads=False)
    calls = orin.cudart.calls
    launches = [number for number, name in enumerate(calls) if name == "cudaGraphLaunch"]
    last = calls[launches[-1] : calls.index("cudaSetDevice", launches[-1])]
    assert last.count("cudaEventSynchronize") == 1
    assert last.count("cudaMemcpyAsync") == 2, "class map and colored picture"
    assert "cudaStreamSynchronize" not in last


@needs_compiler
@pytest.mark.parametrize(
    ("how", "look", "why"),
    [
        ({}, Style(view="mask"), "--view mask is put together there"),
        ({}, Style(view="side-by-side"), "--view side-by-side is put together there"),
        (
            {"rotation": (90.0, False, False)},
            Style(),
            "the card decodes h264 (nvdec), but not as 8-bit 4:2:0 that is upright",
        ),
    ],
)
def test_what_the_card_cannot_do_is_told_and_done_by_the_processor(
    orin: Car, how: dict[str, Any], style: Style, why: str
) -> None:
    video = drive(orin.folder, **how)
    result = orin.run(video, style=style)
    assert result["path"] == "cpu"
    assert road_note(result).startswith(f"road: the processor scales and colors: {why}")
    orin.run(video, "software.mkv", "software", style=style)
    for frame, same in zip(orin.rendered(), orin.rendered("software.mkv"), strict=True):
        for plane, other in zip(frame.planes, same.planes, strict=True):
            np.testing.assert_array_equal(plane, other)


@needs_compiler
@pytest.mark.parametrize("tells_layout", [True, False], ids=["PyAV 18", "PyAV 17"])
@pytest.mark.parametrize("layout", ["p010le", "yuv444p"])
def test_other_layouts_come_down(orin: Car, layout: str, tells_layout: bool) -> None:
    orin.nvdec.layout, orin.nvdec.tells_layout = layout, tells_layout
    result = orin.run(drive(orin.folder, frames=5))
    assert result["path"] == "cpu"
    assert any("reduced to 8 bits" in note for note in result["notes"]) == (layout == "p010le")
    assert result["frames"]["written"] == 5
    assert orin.nvdec.downloads == 5


@needs_compiler
def test_an_engine_built_for_batches_takes_the_processor_s_road(orin: Car) -> None:
    engine = build(orin.model, target="tensorrt", out=orin.folder, batch=2, verify=False).path
    result = orin.run(drive(orin.folder), engine=engine)
    assert result["path"] == "cpu"
    assert "`rtseg build --batch 1` makes another" in road_note(result)


@needs_compiler
def test_a_card_whose_pictures_are_wrong_is_not_believed(orin: Car) -> None:
    video = drive(orin.folder)
    orin.driver.darker = SHOWN_LEVELS + 3
    result = orin.run(video)
    assert result["path"] == "cpu"
    assert f"colors {SHOWN_LEVELS + 3}, at most {SHOWN_LEVELS}" in road_note(result).replace(
        f"colors {SHOWN_LEVELS + 4}", f"colors {SHOWN_LEVELS + 3}"
    )
    orin.run(video, "software.mkv", "software")
    for frame, same in zip(orin.rendered(), orin.rendered("software.mkv"), strict=True):
        np.testing.assert_array_equal(frame.planes[0], same.planes[0])
    assert orin.nothing_left()


@needs_compiler
def test_flat_pictures_prove_nothing(orin: Car, tmp_path: Path) -> None:
    """Until there is something to see, the processor does the work."""
    path = tmp_path / "flat.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SMALL, "yuv420p"
        for _ in range(6):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((144, 128), 70, np.uint8), format="yuv420p")))
        out.mux(stream.encode(None))
    result = orin.run(path)
    assert result["path"] == "cpu"
    assert (
        road_note(result)
        == "road: the processor scaled and colored: too few pictures to compare the card's work on (0 of 8)"
    )
    orin.run(path, "software.mkv", "software")
    for frame, same in zip(orin.rendered(), orin.rendered("software.mkv"), strict=True):
        np.testing.assert_array_equal(frame.planes[0], same.planes[0])


@needs_compiler
@pytest.mark.parametrize("call", ["cuModuleLoadData", "cuLaunchKernel"])
def test_a_card_that_fails_at_the_start_is_told_and_left_alone(orin: Car, call: str) -> None:
    orin.driver.refuses = call
    result = orin.run(drive(orin.folder))
    assert result["path"] == "cpu"
    assert f"CUDA failed in {call}: a PTX JIT compilation failed" in road_note(result)
    assert result["frames"]["written"] == 40
    assert orin.nothing_left()


@needs_compiler
def test_a_card_that_a_kernel_breaks_is_told_in_one_line(orin: Car) -> None:
    """An illegal address ends all work of the process on the card: there is no going on."""
    orin.driver.breaks = True
    with pytest.raises(BackendError, match=r"the card failed for good .*illegal.*; --decoder software leaves that out"):
        orin.run(drive(orin.folder))
    assert not (orin.folder / "out.mkv").exists()


@needs_compiler
def test_a_card_that_is_late_is_not_believed(orin: Car, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not wait for the decoder colors what was there before."""
    monkeypatch.setattr("rtseg.gpu.cuda.Cuda.after_decoder", lambda *_: None)
    result = orin.run(drive(orin.folder))
    assert result["path"] == "cpu"
    assert "was not the processor's" in road_note(result)


@needs_compiler
def test_nothing_is_freed_under_who_is_at_work(orin: Car, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg.pipeline import gpu_renderer as renderer
    from rtseg.pipeline.gpu_renderer import GpuRenderer

    monkeypatch.setattr(renderer, "_PATIENCE_SECONDS", 0.1)
    with Segmenter(orin.engine, backend="tensorrt") as segmenter:
        assert segmenter.engine is not None
        overlay = Style().overlay(segmenter.description)
        at_work = GpuRenderer(segmenter.engine, segmenter.letterbox(*SMALL), overlay, LIMITED)
        with at_work._lane():
            at_work.close()
            assert orin.driver.modules == 1
        at_work = GpuRenderer(segmenter.engine, segmenter.letterbox(*SMALL), overlay, LIMITED)
        at_work.close()
        assert orin.driver.modules == 1
        with pytest.raises(BackendError, match="closed"), at_work._lane():
            pass


@needs_compiler
@pytest.mark.parametrize(("decoder", "refused"), [("nvdec", True), ("auto", False)])
def test_a_card_that_decodes_nothing_of_a_video(orin: Car, decoder: str, refused: bool) -> None:
    orin.nvdec.software_from = 0
    if refused:
        with pytest.raises(SourceError, match="the card does not decode the pictures of"):
            orin.run(drive(orin.folder), decoder=decoder)
        return
    result = orin.run(drive(orin.folder), decoder=decoder)
    assert (result["path"], result["decoder"]) == ("cpu", "h264")
    assert road_note(result).endswith("the card does not decode this h264 video")


@needs_compiler
def test_a_card_without_memory_to_decode_ends_the_run(orin: Car, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that were lost for want of memory are no damage of the file."""
    from rtseg.io.inputs.file import FileSource

    decode, count = FileSource._decode, []

    class Full:
        def decode(self, packet: Any) -> Any:
            raise av.MemoryError(12, "Cannot allocate memory")

    def full(source: FileSource, packet: Any) -> Any:
        count.append(packet)
        if len(count) > 20:
            source._decoding._context = Full()  # type: ignore[assignment]
        return decode(source, packet)

    monkeypatch.setattr(FileSource, "_decode", full)
    with pytest.raises(SourceError, match="no memory left on the card to decode"):
        orin.run(drive(orin.folder))


@needs_compiler
def test_a_card_without_room_is_told_and_left_alone(orin: Car, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.video.process.FramePath", _on_full_card(orin))
    result = orin.run(drive(orin.folder))
    assert result["path"] == "cpu"
    assert "the card can't be set up for it (CUDA failed in cudaMalloc: out of memory" in road_note(result)
    assert orin.nothing_left()


def _on_full_card(car: Car) -> Any:
    from rtseg.pipeline.gpu_path import FramePath

    def opened(*arguments: Any, **more: Any) -> FramePath:
        car.cudart.fails = "cudaMalloc"
        try:
            return FramePath(*arguments, **more)
        finally:
            car.cudart.fails = None

    return opened


@needs_compiler
def test_a_card_that_fails_on_the_way_ends_the_run_in_one_line(orin: Car, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg.pipeline.gpu_renderer import GpuRenderer

    paint, seen = GpuRenderer.paint, []

    def failing(renderer: GpuRenderer, frame: Any) -> Any:
        seen.append(frame)
        orin.cudart.fails = "cudaGraphLaunch" if len(seen) > 5 else None
        return paint(renderer, frame)

    monkeypatch.setattr(GpuRenderer, "paint", failing)
    with pytest.raises(BackendError, match="CUDA failed in cudaGraphLaunch"):
        orin.run(drive(orin.folder))
    orin.cudart.fails = None
    seen.clear()
    assert orin.nothing_left()
    assert not (orin.folder / "out.mkv").exists()


@needs_compiler
def test_a_decoder_that_gives_up_on_the_way_is_told_and_nothing_is_lost(orin: Car) -> None:
    orin.nvdec.software_from = 25
    result = orin.run(drive(orin.folder))
    assert result["path"] == "gpu"
    assert result["frames"]["written"] == 40
    assert "15 frames decoded in software: the card's decoder would not" in result["notes"]


@needs_compiler
def test_two_videos_share_the_card(orin: Car) -> None:
    from rtseg.video.batch import Run, process_all
    from rtseg.video.output_names import name_tasks

    first, second = (write_video(orin.folder / f"{name}.mp4", frames=20, size=SMALL) for name in "ab")
    with Segmenter(orin.engine, backend="tensorrt") as segmenter:
        run = Run(segmenter, Style(), OutputOptions("ffv1"), InputOptions(decoder="nvdec"), quiet=True)
        tasks = name_tasks([str(first), str(second)], str(orin.folder / "out"), None)
        result = process_all(tasks, run, jobs=2)
    assert [item["path"] for item in result["items"]] == ["gpu", "gpu"], [item["notes"] for item in result["items"]]
    assert orin.nothing_left()


@needs_compiler
def test_who_leaves_the_card_s_decoder_idle_is_told(orin: Car) -> None:
    result = orin.run(drive(orin.folder, frames=3), decoder="software")
    assert "the card decodes too: with --decoder auto pictures stay there until they are colored" in result["notes"]
    with Segmenter(orin.engine, backend="tensorrt") as segmenter:
        plain, mask = (
            Style().overlay(segmenter.description),
            Style(view="mask").overlay(segmenter.description),
        )
        assert idle_decoder(segmenter, plain, "software", lambda: "no decoder") == []
        assert idle_decoder(segmenter, plain, "auto", lambda: None) == []
        assert idle_decoder(segmenter, mask, "software", lambda: None) == [], "it would be refused"


@needs_compiler
@pytest.mark.parametrize(("view", "road"), [("overlay", "gpu"), ("mask", "cpu")])
def test_bench_measures_the_road_that_is_taken(orin: Car, view: str, frame_path: str) -> None:
    from rtseg.bench.measure import bench

    video = drive(orin.folder, frames=12)
    with Segmenter(orin.engine, backend="tensorrt") as segmenter:
        reading = InputOptions(decoder="nvdec")
        found = bench(str(video), segmenter, Style(view=view), OutputOptions(), reading, seconds=0.05, rounds=1)
    assert found["path"] == frame_path
    assert found["bound_fps"] <= min(found["alone"][stage]["fps"] for stage in ("decode", "infer")) + 0.1
    assert orin.nothing_left()


@needs_compiler
def test_the_harness_for_gpus_measures_every_road(orin: Car, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu", script)
    assert spec is not None
    assert spec.loader is not None
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    monkeypatch.setattr(gpu, "choose_decoder", lambda name: name)
    video = str(drive(orin.folder, frames=12))
    result: dict[str, Any] = {"refused": {}, "backends": {"tensorrt": {"batch 1": [1e9, 1e9, 1e9]}}}
    result["decoders"] = gpu.decoders(video, result)
    found = gpu.frame_paths(video, {"tensorrt": orin.engine}, str(orin.folder), result)
    assert not result["refused"]
    assert {name: run["path"] for name, run in found.items()} == {
        "tensorrt, card": "gpu",
        "tensorrt, processor, nvdec": "cpu",
        "tensorrt, processor, software": "cpu",
    }
    assert all(run["share_of_limit"] > 0 for run in found.values())


def test_the_road_is_told_without_a_card_too(tmp_path: Path) -> None:
    video, stats = write_video(tmp_path / "drive.mp4", frames=3), tmp_path / "stats.json"
    model = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
    assert rtseg("video", video, "-o", tmp_path / "out.mp4", "--model", model, "--stats", stats).returncode == 0
    found = json.loads(stats.read_text())
    assert found["path"] == "cpu"
    assert not any("road" in note for note in found["notes"])


@needs_compiler
def test_the_real_bindings_hand_on_what_they_are_given(tmp_path: Path) -> None:
    """`cuda-bindings` with a driver that only writes down what it is asked: no call fails for its arguments."""
    pytest.importorskip("cuda.bindings.driver")
    fake = Path(__file__).parents[1]
    library = tmp_path / "libcuda.so.1"
    command = ["g++", "-std=c++17", "-shared", "-fPIC", "-Wall", "-Werror", str(fake / "fake_cuda_driver.cpp")]
    subprocess.run([*command, "-ldl", "-o", str(library)], check=True, timeout=120)
    paths = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, str(fake / "fake_cuda_driver.py")], capture_output=True, text=True, timeout=120, env=paths
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"cuModuleLoadData {compiling.source_mark()}",
        "cuModuleGetFunction scale of 7",
        "cuModuleGetFunction color of 7",
        "cuLaunchKernel 11: 3x4x1 blocks of 32x8x1, 0 bytes, stream 9, parameter 0x12345678",
        "CUDA failed in cuModuleGetFunction: named symbol not found (code 500); `rtseg doctor` looks at the driver",
        "cuModuleUnload 7",
    ]


def test_the_run_time_takes_the_arguments_it_is_given() -> None:
    """The real bindings, without a driver: each call must come back with an error code, not with a TypeError."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    stream, event = runtime.cudaStream_t(), runtime.cudaEvent_t()
    codes = [
        runtime.cudaEventCreateWithFlags(runtime.cudaEventBlockingSync | runtime.cudaEventDisableTiming),
        runtime.cudaEventRecord(event, 1),
        runtime.cudaStreamWaitEvent(stream, event, 0),
        runtime.cudaEventSynchronize(event),
    ]
    assert all(int(code[0]) >= 0 for code in codes)


# On a real card.


@pytest.mark.gpu
def test_gpu_the_card_s_pictures_are_the_processor_s(on_gpu: str, tmp_path: Path) -> None:
    video = drive(tmp_path, size=(640, 360), before=[Audio(seconds=1.6)])
    engine = build("nano", target=on_gpu, out=tmp_path, verify=False).path
    results = {}
    for decoder in ("nvdec", "software"):
        with Segmenter(engine, backend=on_gpu) as segmenter:
            out = str(tmp_path / f"{decoder}.mkv")
            results[decoder] = process(
                str(video), out, segmenter, Style(), OutputOptions("ffv1"), InputOptions(decoder=decoder), quiet=True
            )
    assert results["nvdec"]["path"] == "gpu", results["nvdec"]["notes"]
    pairs = zip(read(tmp_path / "nvdec.mkv"), read(tmp_path / "software.mkv"), strict=True)
    for frame, other in pairs:
        assert (np.abs(frame.planes[0].astype(int) - other.planes[0]) > SHOWN_LEVELS).mean() < 0.05
