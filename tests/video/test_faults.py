"""Faults in every stage of `rtseg video`: an error at once, no hang, no remaining thread, and a playable partial file."""

from __future__ import annotations

import itertools
import json
import os
import pkgutil
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import MODEL, assert_one_error_line, rtseg
from media import Audio, number_of, read, write_video

from rtseg.core.errors import BackendError, FidelityError, SinkError
from rtseg.core.progress import NoProgress
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.io.outputs.file_sink import FileSink
from rtseg.render.style import Style
from rtseg.video.process import process

FRAMES, FAULT_AT = 60, 20


class AtFault(NoProgress):
    """Progress that calls a function at frame number `FAULT_AT`."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._frame = 0

    def advance(self) -> None:
        if self._frame == FAULT_AT:
            self._function()
        self._frame += 1


class Bug(Exception):
    """Unexpected exception."""


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL, streams=0)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mp4", frames=FRAMES, after=[Audio(seconds=2.4)])


def run_video(segmenter: Segmenter, video: Path, **options: Any) -> dict[str, Any]:
    out = video.with_name("out.mp4")
    return process(str(video), str(out), segmenter, Style(), OutputOptions(preset="ultrafast"), **options).to_dict()


def fail_at(original: Callable[..., Any], error: Exception, at: int = FAULT_AT) -> Callable[..., Any]:
    """Return a wrapper of `original` whose call number `at` raises."""
    calls = itertools.count(1)

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) == at:
            raise error
        return original(*arguments, **options)

    return call


STAGES = {
    "decode": "rtseg.io.inputs.file.FileSource._decode",
    "infer": "rtseg.inference.segmenter.Segmenter.segment",
    "overlay": "rtseg.render.overlay.Overlay.apply",
    "encode": "rtseg.io.outputs.encoder.VideoEncoder.encode",
    "audio": "rtseg.io.outputs.stream_copy.StreamCopier.process",
    "recorder": "rtseg.video.verify.Recorder.observe",
}


def _patch(monkeypatch: pytest.MonkeyPatch, target: str, error: Exception, at: int = FAULT_AT) -> None:
    monkeypatch.setattr(target, fail_at(pkgutil.resolve_name(target), error, at))


@pytest.mark.parametrize("error", [Bug("unexpected"), BackendError("expected")], ids=["a bug", "an error"])
@pytest.mark.parametrize("stage", STAGES)
def test_exception_in_a_stage_leaves_a_playable_partial_file(
    segmenter: Segmenter, video: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    _patch(monkeypatch, STAGES[stage], error)
    with pytest.raises(type(error), match=str(error)):
        run_video(segmenter, video)
    monkeypatch.undo()
    assert not video.with_name("out.mp4").exists()
    numbers = [number_of(frame) for frame in read(video.with_name("out.partial.mp4"))]
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < FRAMES
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("rtseg-")]
    assert run_video(segmenter, video)["fidelity"]["ok"]  # the segmenter is still usable


def test_exception_before_the_first_frame_leaves_no_file(
    segmenter: Segmenter, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _patch(monkeypatch, STAGES["infer"], Bug("unexpected"), at=1)
    with pytest.raises(Bug):
        run_video(segmenter, video)
    assert [path.name for path in video.parent.iterdir()] == ["in.mp4"]


def test_exception_in_verification_keeps_the_partial_file(
    segmenter: Segmenter, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtseg.video.process.compare", fail_at(print, Bug("unexpected"), at=1))
    with pytest.raises(Bug):
        run_video(segmenter, video)
    assert not video.with_name("out.mp4").exists()
    assert len(read(video.with_name("out.partial.mp4"))) == FRAMES


def test_lost_frame_fails_verification(segmenter: Segmenter, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fidelity report detects a frame that a stage drops silently, and the file keeps its partial name."""
    write = FileSink.write
    monkeypatch.setattr(FileSink, "write", lambda self, item: None if item.frame.index == 7 else write(self, item))
    with pytest.raises(FidelityError, match="60 frames in the input, 59 in the output"):
        run_video(segmenter, video)
    assert not video.with_name("out.mp4").exists()


# Inference backends


@pytest.mark.parametrize(
    "change",
    [
        lambda scores: scores[0],
        lambda scores: scores[:, :-1].copy(),
        lambda scores: scores[..., None],
        lambda scores: np.concatenate([scores, scores]),
        lambda scores: scores[:0],
        lambda scores: scores.astype(np.int64),
        lambda scores: scores.argmax(axis=1).astype(np.uint8),
    ],
    ids=["no batch", "a class less", "extra axis", "batch of 2", "batch of 0", "int64", "class map"],
)
def test_wrong_output_of_a_backend_is_an_error(
    segmenter: Segmenter, video: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    infer = segmenter._backend.infer
    calls = iter(range(1_000_000))
    monkeypatch.setattr(
        segmenter._backend, "infer", lambda images: infer(images) if next(calls) < FAULT_AT else change(infer(images))
    )
    with pytest.raises(
        BackendError, match=r"openvino returned .* instead of scores, float16 or float32 \[1, "
    ) as error:
        run_video(segmenter, video)
    assert "\n" not in str(error.value)
    assert 0 < len(read(video.with_name("out.partial.mp4"))) < FRAMES


FAILING_BACKEND = """
from rtseg.inference.openvino import OpenVinoBackend
from rtseg.core.errors import BackendError
infer, calls = OpenVinoBackend.infer, iter(range(10**9))
def fail(self, images):
    if next(calls) >= 20:
        raise BackendError("the device is disconnected")
    return infer(self, images)
OpenVinoBackend.infer = fail
"""


def test_backend_error_is_one_line(video: Path) -> None:
    out = video.with_name("out.mp4")
    result = rtseg("video", video, "-o", out, "--model", MODEL, "--stats", "-", setup=FAILING_BACKEND)
    assert result.returncode == 1
    assert "rtseg: the device is disconnected\n" in result.stderr
    assert f"the unfinished output is kept as {out.with_name('out.partial.mp4')}" in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads(result.stdout)["error"] == "the device is disconnected"
    assert 0 < len(read(out.with_name("out.partial.mp4"))) < FRAMES


# Environment


def test_full_disk_is_an_error_in_one_line(tmp_path: Path) -> None:
    """The file size limit of 20 kB makes write() fail as on a full disk."""
    video = write_video(tmp_path / "in.mp4", frames=200, size=(320, 240))

    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    limit += "; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    out = tmp_path / "out.mp4"
    result = rtseg("video", video, "-o", out, "--model", MODEL, "--crf", 1, "-q", setup=limit)
    assert result.returncode == 1, result.stderr
    assert_one_error_line(result, "can't write", "out.partial.mp4")
    assert not out.exists()
    assert 10 < len(read(tmp_path / "out.partial.mp4")) < 200


def test_removed_output_folder_is_an_error(segmenter: Segmenter, video: Path) -> None:
    folder = video.with_name("out")
    folder.mkdir()
    remove = AtFault(lambda: shutil.rmtree(folder))
    with pytest.raises(SinkError) as error:
        process(str(video), str(folder / "out.mp4"), segmenter, Style(), OutputOptions(), progress=remove)
    assert "\n" not in str(error.value)
    assert not folder.exists()


@pytest.mark.parametrize("start", [None, 0.4])
def test_source_that_is_deleted_during_the_run_is_processed(
    segmenter: Segmenter, video: Path, start: float | None
) -> None:
    stats = run_video(segmenter, video, progress=AtFault(video.unlink), input_options=InputOptions(start=start))
    assert stats["frames"]["written"] == (FRAMES if start is None else FRAMES - 10)
    assert stats["fidelity"]["ok"]


def test_source_that_is_truncated_during_the_run_keeps_its_first_frames(segmenter: Segmenter, tmp_path: Path) -> None:
    """The frames that were read before the truncation are in the output, and the run does not hang."""
    video = write_video(tmp_path / "in.ts", frames=400, size=(320, 240), gop=10)
    size = video.stat().st_size // 3
    stats = run_video(segmenter, video, progress=AtFault(lambda: os.truncate(video, size)))
    assert stats["fidelity"]["ok"]
    assert FAULT_AT < stats["frames"]["written"] < 400


def test_pixel_limit_and_protocols_of_the_command_line(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"

    def run(source: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return rtseg("video", source, "-o", out, "--model", MODEL, "-q", *options)

    assert_one_error_line(run(video, "--max-pixels", "64x64"), "96x64", "4096")
    assert_one_error_line(run(video, "--max-pixels", "many"), "--max-pixels")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\nin.ts\n#EXT-X-ENDLIST\n")
    write_video(tmp_path / "in.ts", frames=FRAMES)
    assert_one_error_line(run(playlist), "playlist", "--allow-protocols")
    assert_one_error_line(run(playlist, "--allow-protocols", "ftp"), "ftp", "https")
    assert not out.exists()
    result = run(playlist, "--allow-protocols", "file", "--max-pixels", "6144")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(read(out)) == FRAMES
