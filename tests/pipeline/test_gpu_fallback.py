"""Self-check and failures of the GPU path, with test doubles of NVDEC, CUDA and TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from gpu_machine import SMALL, GpuMachine, make_video, path_note

from rtseg.core.errors import BackendError, SourceError
from rtseg.gpu.cuda import Cuda
from rtseg.pipeline.gpu_processor import MAX_RENDER_DIFFERENCE

pytestmark = pytest.mark.system("g++")


def test_wrong_gpu_result_fails_the_self_check(orin: GpuMachine) -> None:
    video = make_video(orin.folder)
    orin.driver.darker = MAX_RENDER_DIFFERENCE + 3
    result = orin.run(video)
    assert result["path"] == "cpu"
    differences = [
        f"rendered frame by {MAX_RENDER_DIFFERENCE + extra}, at most {MAX_RENDER_DIFFERENCE}" for extra in (3, 4)
    ]
    assert any(difference in path_note(result) for difference in differences)
    orin.run(video, "software.mkv", "software")
    orin.assert_output_equals("software.mkv")
    assert orin.all_freed()


def test_flat_frames_do_not_count_for_the_self_check(orin: GpuMachine, tmp_path: Path) -> None:
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
        path_note(result) == "path: the CPU scaled and rendered: too few frames for the self-check of the GPU (0 of 8)"
    )
    orin.run(path, "software.mkv", "software")
    orin.assert_output_equals("software.mkv")


@pytest.mark.parametrize("call", ["cuModuleLoadData", "cuLaunchKernel"])
def test_gpu_failure_at_setup_falls_back_to_the_cpu_path(orin: GpuMachine, call: str) -> None:
    orin.driver.refuses = call
    result = orin.run(make_video(orin.folder))
    assert result["path"] == "cpu"
    assert f"CUDA failed in {call}: a PTX JIT compilation failed" in path_note(result)
    assert result["frames"]["written"] == 40
    assert orin.all_freed()


def test_sticky_cuda_error_ends_the_run_with_one_line(orin: GpuMachine) -> None:
    """After an illegal address, CUDA does no more work in the process."""
    orin.driver.breaks = True
    with pytest.raises(
        BackendError, match=r"unusable in this process .*illegal.*; --decoder software avoids the GPU path"
    ):
        orin.run(make_video(orin.folder))
    assert not (orin.folder / "out.mkv").exists()


def test_missing_wait_for_the_decoder_fails_the_self_check(orin: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wait, the kernels read the surface's previous contents."""
    monkeypatch.setattr("rtseg.gpu.cuda.Cuda.wait_for_decoder", lambda *_: None)
    result = orin.run(make_video(orin.folder))
    assert result["path"] == "cpu"
    assert "the GPU failed the self-check" in path_note(result)


@pytest.mark.parametrize(("decoder", "refused"), [("nvdec", True), ("auto", False)])
def test_gpu_that_decodes_no_frame_of_a_video(orin: GpuMachine, decoder: str, refused: bool) -> None:
    orin.nvdec.software_from = 0
    if refused:
        with pytest.raises(SourceError, match="the GPU can't decode the video of"):
            orin.run(make_video(orin.folder), decoder=decoder)
        return
    result = orin.run(make_video(orin.folder), decoder=decoder)
    assert (result["path"], result["decoder"]) == ("cpu", "h264")
    assert path_note(result).endswith("the GPU does not decode this h264 video")


def test_gpu_out_of_memory_while_decoding_ends_the_run(orin: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames lost for lack of memory are not counted as damage of the file."""
    from rtseg.io.inputs.file import FileSource

    decode, packets = FileSource._decode, []

    class FullDecoder:
        def decode(self, packet: Any) -> Any:
            raise av.MemoryError(12, "Cannot allocate memory")

    def decode_until_full(source: FileSource, packet: Any) -> Any:
        packets.append(packet)
        if len(packets) > 20:
            source._frame_decoder._context = FullDecoder()  # type: ignore[assignment]
        return decode(source, packet)

    monkeypatch.setattr(FileSource, "_decode", decode_until_full)
    with pytest.raises(SourceError, match="no GPU memory left to decode"):
        orin.run(make_video(orin.folder))


def test_gpu_out_of_memory_at_setup_falls_back_to_the_cpu_path(
    orin: GpuMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(cuda: Cuda, *arguments: Any) -> None:
        orin.cudart.fails = "cudaMalloc"
        cuda.device_buffer(1)

    monkeypatch.setattr("rtseg.pipeline.gpu_renderer.GpuStream", full)
    result = orin.run(make_video(orin.folder))
    assert result["path"] == "cpu"
    assert "the GPU path could not be set up (CUDA failed in cudaMalloc: out of memory" in path_note(result)
    assert orin.all_freed()


def test_gpu_failure_during_the_run_ends_it_with_one_line(orin: GpuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg.pipeline.gpu_renderer import GpuRenderer

    render, frames = GpuRenderer.render, []

    def failing(renderer: GpuRenderer, frame: Any) -> Any:
        frames.append(frame)
        orin.cudart.fails = "cudaGraphLaunch" if len(frames) > 5 else None
        return render(renderer, frame)

    monkeypatch.setattr(GpuRenderer, "render", failing)
    with pytest.raises(BackendError, match="CUDA failed in cudaGraphLaunch"):
        orin.run(make_video(orin.folder))
    orin.cudart.fails = None
    frames.clear()  # their surfaces are GPU memory
    assert orin.all_freed()
    assert not (orin.folder / "out.mkv").exists()


def test_gpu_decoder_failure_during_the_run_loses_no_frame(orin: GpuMachine) -> None:
    orin.nvdec.software_from = 25
    result = orin.run(make_video(orin.folder))
    assert result["path"] == "gpu"
    assert result["frames"]["written"] == 40
    assert "15 frames decoded in software: the GPU decoder refused them" in result["notes"]
