"""GPU path with test doubles of NVDEC, CUDA and TensorRT. The last test needs a real GPU."""

from __future__ import annotations

import ctypes
import importlib.util
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import nvidia_doubles as doubles
from building import build
from command import MODEL, rtseg
from gpu_machine import SMALL, GpuMachine, make_video, path_note
from media import Audio, read, write_video
from onnx_models import contract_model

from rtseg.core.errors import BackendError
from rtseg.core.frame import Color, Frame
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.pipeline.gpu_processor import (
    MAX_RENDER_DIFFERENCE,
    SELF_CHECK_FRAMES,
    open_gpu_source,
    open_processor,
    unused_gpu_decoder_note,
)
from rtseg.render.style import Style
from rtseg.video.process import process

needs_compiler = pytest.mark.system("g++")
COLOR = Color("bt709", False)


@pytest.fixture(params=doubles.VERSIONS)
def machine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kernel_library: ctypes.CDLL, tmp_path: Path
) -> GpuMachine:
    return GpuMachine(monkeypatch, request.param, kernel_library, tmp_path)


@needs_compiler
@pytest.mark.parametrize("legend", [True, False])
def test_gpu_path_renders_the_same_frames_as_the_cpu_path(machine: GpuMachine, legend: bool) -> None:
    video = make_video(machine.folder, before=[Audio(seconds=1.6)])
    style = Style(legend=legend)
    gpu_result = machine.run(video, style=style)
    downloads = machine.nvdec.downloads
    cpu_result = machine.run(video, "cpu.mkv", "software", style=style)
    assert (gpu_result["path"], cpu_result["path"]) == ("gpu", "cpu")
    on_gpu = 40 - downloads
    assert path_note(gpu_result) == f"path: {on_gpu} of 40 frames stayed in GPU memory until they were rendered"
    assert SELF_CHECK_FRAMES <= downloads <= SELF_CHECK_FRAMES + 1, "only frames of the self-check are downloaded"
    assert machine.nvdec.requests[0] == ("nvdec", 0)
    assert gpu_result["fidelity"]["line"].split(",")[0] == cpu_result["fidelity"]["line"].split(",")[0]
    assert gpu_result["frames"]["written"] == 40
    gpu_frames, cpu_frames = machine.read_output(), machine.read_output("cpu.mkv")
    assert [frame.pts for frame in gpu_frames] == [frame.pts for frame in cpu_frames]
    for frame, other in zip(gpu_frames, cpu_frames, strict=True):
        # Some pixels of the scaled frame differ by a level, and therefore the classes of some pixels at boundaries.
        for plane, expected in zip(frame.planes, other.planes, strict=True):
            assert (np.abs(plane.astype(int) - expected) > MAX_RENDER_DIFFERENCE).mean() < 0.02
    assert machine.all_freed()


@pytest.fixture
def one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the frames, and not the scheduling, decide which are rendered on the CPU, which rounds at other steps."""
    monkeypatch.setattr("rtseg.pipeline.gpu_processor.GPU_STREAMS", 1)


@needs_compiler
@pytest.mark.parametrize(
    ("capture_works", "options", "precision"),
    [(False, {}, "fp16"), (True, {"output": "classes"}, "fp16"), (True, {"precision": "fp32"}, "fp32")],
    ids=["capture fails", "engine with classes", "scores in FP32"],
)
def test_frames_do_not_depend_on_capture_and_output_of_the_engine(
    orin: GpuMachine, one_worker: None, capture_works: bool, options: dict[str, Any], precision: str
) -> None:
    video = make_video(orin.folder)
    model = contract_model(orin.folder / "other.onnx", **options)
    engine = build(model, target="tensorrt", precision=precision, out=orin.folder, verify=False).path
    assert orin.run(video)["path"] == "gpu"
    orin.cudart.capture_works = capture_works
    assert orin.run(video, "other.mkv", engine=engine)["path"] == "gpu"
    orin.assert_output_equals("other.mkv")


@needs_compiler
def test_frame_takes_one_graph_launch_and_one_synchronization(orin: GpuMachine, one_worker: None) -> None:
    video = make_video(orin.folder)
    orin.run(video)
    calls = orin.cudart.calls
    launches = [number for number, name in enumerate(calls) if name == "cudaGraphLaunch"]
    last = calls[launches[-1] : calls.index("cudaSetDevice", launches[-1])]
    assert last.count("cudaEventSynchronize") == 1
    assert last.count("cudaMemcpyAsync") == 2, "class map and rendered frame"
    assert "cudaStreamSynchronize" not in last


@needs_compiler
@pytest.mark.parametrize(
    ("video_options", "style", "reason"),
    [
        ({}, Style(view="mask"), "--view mask is rendered there"),
        ({}, Style(view="side-by-side"), "--view side-by-side is rendered there"),
        (
            {"rotation": (90.0, False, False)},
            Style(),
            "the GPU decodes h264 (nvdec), but not as upright 8-bit 4:2:0",
        ),
    ],
)
def test_cpu_path_is_used_with_a_note_when_the_gpu_path_is_impossible(
    orin: GpuMachine, video_options: dict[str, Any], style: Style, reason: str
) -> None:
    video = make_video(orin.folder, **video_options)
    result = orin.run(video, style=style)
    assert result["path"] == "cpu"
    assert path_note(result).startswith(f"path: the CPU scales and renders: {reason}")
    orin.run(video, "software.mkv", "software", style=style)
    orin.assert_output_equals("software.mkv")


@needs_compiler
@pytest.mark.parametrize("has_sw_format", [True, False], ids=["PyAV 18", "PyAV 17"])
@pytest.mark.parametrize("layout", ["p010le", "yuv444p"])
def test_frames_of_other_layouts_are_downloaded(orin: GpuMachine, layout: str, has_sw_format: bool) -> None:
    orin.nvdec.layout, orin.nvdec.has_sw_format = layout, has_sw_format
    result = orin.run(make_video(orin.folder, frames=5))
    assert result["path"] == "cpu"
    assert any("reduced to 8 bits" in note for note in result["notes"]) == (layout == "p010le")
    assert result["frames"]["written"] == 5
    assert orin.nvdec.downloads == 5


@needs_compiler
def test_engine_with_a_batch_size_uses_the_cpu_path(orin: GpuMachine) -> None:
    engine = build(orin.model, target="tensorrt", out=orin.folder, batch=2, verify=False).path
    result = orin.run(make_video(orin.folder), engine=engine)
    assert result["path"] == "cpu"
    assert "`rtseg build --batch 1` builds one for the GPU path" in path_note(result)


@needs_compiler
def test_close_frees_nothing_while_a_stream_is_busy(orin: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg.pipeline.gpu_renderer import GpuRenderer

    monkeypatch.setattr("rtseg.pipeline.gpu_renderer._CLOSE_TIMEOUT_SECONDS", 0.1)
    with Segmenter(orin.engine, backend="tensorrt") as segmenter:
        engine = segmenter.engine_for(segmenter.input_size)
        assert engine is not None
        overlay = Style().overlay(segmenter.description)
        renderer = GpuRenderer(engine, segmenter.letterbox(*SMALL), overlay, COLOR)
        with renderer._gpu_stream():
            renderer.close()
            assert orin.driver.modules == 1
        renderer = GpuRenderer(engine, segmenter.letterbox(*SMALL), overlay, COLOR)
        renderer.close()
        assert orin.driver.modules == 1
        with pytest.raises(BackendError, match="closed"), renderer._gpu_stream():
            pass


@needs_compiler
def test_two_videos_share_the_gpu(orin: GpuMachine) -> None:
    from rtseg.core.video_report import BatchReport, VideoReport
    from rtseg.video.batch import BatchOptions, process_all
    from rtseg.video.output_names import name_tasks

    first, second = (write_video(orin.folder / f"{name}.mp4", frames=20, size=SMALL) for name in "ab")
    with Segmenter(orin.engine, backend="tensorrt") as segmenter:
        run = BatchOptions(segmenter, Style(), OutputOptions("ffv1"), InputOptions(decoder="nvdec"))
        tasks = name_tasks([str(first), str(second)], str(orin.folder / "out"), None)
        result = process_all(tasks, run, jobs=2)
    assert isinstance(result, BatchReport)
    videos = [item for item in result.items if isinstance(item, VideoReport)]
    assert [video.path for video in videos] == ["gpu", "gpu"], [video.notes for video in videos]
    assert orin.all_freed()


@needs_compiler
def test_each_size_of_frames_has_its_own_engine(orin: GpuMachine) -> None:
    def build_missing(model: Path, target: str, size: tuple[int, int] | None) -> Path:
        return build(model, target=target, size=size, out=orin.folder, verify=False).path

    videos = {size: write_video(orin.folder / f"{size}.mp4", frames=20, size=size) for size in (SMALL, (128, 40))}
    with Segmenter(orin.model, backend="tensorrt", build_missing=build_missing) as segmenter:
        overlay = Style().overlay(segmenter.description)
        for size in videos:  # as several files at the same time
            segmenter.prepare(*size)
        for size, video in videos.items():
            source, reason = open_gpu_source(str(video), segmenter, overlay, InputOptions(decoder="nvdec"))
            with closing(source), closing(open_processor(source.info, segmenter, overlay, reason)) as processor:
                frames = (item for item in source if isinstance(item, Frame))
                shapes = {processor.process(frame, source.info).classes.shape for frame in frames}
                assert processor.path == "gpu", processor.notes
            assert shapes == {segmenter.letterbox(*size).inner[:1:-1]}


@needs_compiler
def test_unused_gpu_decoder_is_noted(orin: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    result = orin.run(make_video(orin.folder, frames=3), decoder="software")
    assert (
        "the GPU can decode too: with --decoder auto, frames stay in its memory until they are rendered"
        in result["notes"]
    )
    with Segmenter(orin.engine, backend="tensorrt") as segmenter:
        plain, mask = (Style(view=view).overlay(segmenter.description) for view in ("overlay", "mask"))
        assert unused_gpu_decoder_note(segmenter, plain, "auto") == []
        assert unused_gpu_decoder_note(segmenter, mask, "software") == [], "the GPU path is impossible"
        monkeypatch.setattr("rtseg.pipeline.gpu_processor.try_nvdec", lambda: "no decoder")
        assert unused_gpu_decoder_note(segmenter, plain, "software") == []


@needs_compiler
@pytest.mark.parametrize(("view", "path"), [("overlay", "gpu"), ("mask", "cpu")])
def test_bench_measures_the_path_in_use(orin: GpuMachine, view: str, path: str) -> None:
    from rtseg.bench.measure import bench

    video = make_video(orin.folder, frames=12)
    with Segmenter(orin.engine, backend="tensorrt") as segmenter:
        reading = InputOptions(decoder="nvdec")
        result = bench(str(video), segmenter, Style(view=view), OutputOptions(), reading, seconds=0.05, rounds=1)
    assert result.video.path == path
    assert result.bound_fps <= min(result.alone[stage].fps for stage in ("decode", "infer")) + 0.1
    assert orin.all_freed()


@needs_compiler
def test_gpu_benchmark_measures_every_path(orin: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu", script)
    assert spec is not None
    assert spec.loader is not None
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    monkeypatch.setattr(gpu, "choose_decoder", lambda name: name)
    video = str(make_video(orin.folder, frames=12))
    result: dict[str, Any] = {"refused": {}, "backends": {"tensorrt": {"batch 1": [1e9, 1e9, 1e9]}}}
    result["decoders"] = gpu.measure_decoders(video, result)
    runs = gpu.measure_paths(video, {"tensorrt": orin.engine}, str(orin.folder), result)
    assert not result["refused"]
    assert {name: run["path"] for name, run in runs.items()} == {
        "tensorrt, gpu": "gpu",
        "tensorrt, cpu, nvdec": "cpu",
        "tensorrt, cpu, software": "cpu",
    }
    assert all(run["share_of_limit"] > 0 for run in runs.values())


def test_statistics_contain_the_path_without_a_gpu(tmp_path: Path) -> None:
    video, stats = write_video(tmp_path / "drive.mp4", frames=3), tmp_path / "stats.json"
    assert rtseg("video", video, "-o", tmp_path / "out.mp4", "--model", MODEL, "--stats", stats).returncode == 0
    report = json.loads(stats.read_text())
    assert report["path"] == "cpu"
    assert not any(note.startswith("path: ") for note in report["notes"])


# On a real GPU.


@pytest.mark.gpu
def test_real_gpu_path_renders_the_same_frames_as_the_cpu_path(on_gpu: str, tmp_path: Path) -> None:
    video = make_video(tmp_path, size=(640, 360), before=[Audio(seconds=1.6)])
    engine = build("nano", target=on_gpu, out=tmp_path, verify=False).path
    results = {}
    for decoder in ("nvdec", "software"):
        with Segmenter(engine, backend=on_gpu) as segmenter:
            out = str(tmp_path / f"{decoder}.mkv")
            results[decoder] = process(
                str(video), out, segmenter, Style(), OutputOptions("ffv1"), InputOptions(decoder=decoder)
            )
    assert results["nvdec"]["path"] == "gpu", results["nvdec"]["notes"]
    pairs = zip(read(tmp_path / "nvdec.mkv"), read(tmp_path / "software.mkv"), strict=True)
    for frame, other in pairs:
        assert (np.abs(frame.planes[0].astype(int) - other.planes[0]) > MAX_RENDER_DIFFERENCE).mean() < 0.05
