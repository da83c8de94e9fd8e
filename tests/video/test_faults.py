"""Faults in every stage of `rtseg video`: told at once, nothing hangs, no thread stays, and what was written until then plays."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import rtseg, told_in_one_line
from media import Audio, number_of, read, write_video

from rtseg.core.errors import BackendError, FidelityError, SinkError
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import OutputOptions
from rtseg.render.style import Style
from rtseg.video.process import process

pytestmark = pytest.mark.timeout(180)

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
FRAMES, AT = 60, 20


class Bug(Exception):
    """What no stage foresees."""


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL, streams=0)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    return write_video(tmp_path / "in.mp4", frames=FRAMES, after=[Audio(seconds=2.4)])


def go(segmenter: Segmenter, drive: Path, **options: Any) -> dict[str, Any]:
    out = drive.with_name("out.mp4")
    return process(str(drive), str(out), segmenter, Style(), OutputOptions(preset="ultrafast"), quiet=True, **options)


def failing(original: Callable[..., Any], error: Exception, at: int = AT) -> Callable[..., Any]:
    """Does as `original` until its call number `at`, which raises."""
    calls = iter(range(1, 1_000_000))

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
    "sound": "rtseg.io.outputs.stream_copy.StreamCopier.take",
    "recorder": "rtseg.video.verify.Recorder.see",
}


def _patch(monkeypatch: pytest.MonkeyPatch, target: str, error: Exception, at: int = AT) -> None:
    import importlib

    module, kind, method = target.rsplit(".", 2)
    owner = getattr(importlib.import_module(module), kind)
    monkeypatch.setattr(owner, method, failing(getattr(owner, method), error, at))


@pytest.mark.parametrize("error", [Bug("unforeseen"), BackendError("told")], ids=["a bug", "an error"])
@pytest.mark.parametrize("stage", STAGES)
def test_an_exception_in_a_stage(
    segmenter: Segmenter, drive: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    _patch(monkeypatch, STAGES[stage], error)
    with pytest.raises(type(error), match=str(error)):
        go(segmenter, drive)
    monkeypatch.undo()
    assert not drive.with_name("out.mp4").exists()
    numbers = [number_of(frame) for frame in read(drive.with_name("out.partial.mp4"))]
    assert numbers == list(range(len(numbers)))
    assert 0 < len(numbers) < FRAMES
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("rtseg-")]
    assert go(segmenter, drive)["fidelity"]["ok"]  # the same segmenter goes on


def test_an_exception_before_the_first_frame_leaves_nothing(
    segmenter: Segmenter, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _patch(monkeypatch, STAGES["infer"], Bug("unforeseen"), at=1)
    with pytest.raises(Bug):
        go(segmenter, drive)
    assert [path.name for path in drive.parent.iterdir()] == ["in.mp4"]


def test_an_exception_in_the_check_keeps_the_complete_file_partial(
    segmenter: Segmenter, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtseg.video.process.compare", failing(print, Bug("unforeseen"), at=1))
    with pytest.raises(Bug):
        go(segmenter, drive)
    assert not drive.with_name("out.mp4").exists()
    assert len(read(drive.with_name("out.partial.mp4"))) == FRAMES


def test_a_frame_that_is_lost_on_the_way_is_seen(
    segmenter: Segmenter, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves out a frame without a word is found by the report, and the file does not get its name."""
    from rtseg.io.outputs.video import VideoSink

    write = VideoSink.write
    monkeypatch.setattr(VideoSink, "write", lambda self, item: None if item.frame.index == 7 else write(self, item))
    with pytest.raises(FidelityError, match="60 frames went in, 59 came out"):
        go(segmenter, drive)
    assert not drive.with_name("out.mp4").exists()


# A backend


@pytest.mark.parametrize(
    "answer",
    [
        lambda classes: classes[0],
        lambda classes: classes[:, ::2, ::2].copy(),
        lambda classes: classes[..., None],
        lambda classes: np.concatenate([classes, classes]),
        lambda classes: classes[:0],
        lambda classes: classes.astype(np.int64),
        lambda classes: classes.astype(np.float32),
        lambda classes: classes.tolist(),
        lambda classes: None,
    ],
    ids=["no batch", "half the size", "one more axis", "two", "none", "int64", "float32", "a list", "nothing"],
)
def test_a_backend_that_returns_a_wrong_shape(
    segmenter: Segmenter, drive: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Any], Any]
) -> None:
    infer = segmenter._backend.infer
    calls = iter(range(1_000_000))
    monkeypatch.setattr(
        segmenter._backend, "infer", lambda images: infer(images) if next(calls) < AT else answer(infer(images))
    )
    with pytest.raises(BackendError, match=r"openvino returned .* instead of a class map, uint8 \[1, ") as error:
        go(segmenter, drive)
    assert "\n" not in str(error.value)
    assert 0 < len(read(drive.with_name("out.partial.mp4"))) < FRAMES


def test_a_class_that_the_model_does_not_have_stays_uncolored(
    segmenter: Segmenter, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter._backend, "infer", lambda images: np.full(images.shape[:3], 200, np.uint8))
    assert go(segmenter, drive)["fidelity"]["ok"]
    rendered, before = read(drive.with_name("out.mp4"))[5], read(drive)[5]
    assert np.abs(rendered.planes[0].astype(int) - before.planes[0]).mean() < 3


BROKEN = """
import sys
from rtseg.inference.openvino import OpenVinoBackend
from rtseg.core.errors import BackendError
infer, calls = OpenVinoBackend.infer, iter(range(10**9))
def broken(self, images):
    if next(calls) >= 20:
        raise BackendError("the device went away; plug it in")
    return infer(self, images)
OpenVinoBackend.infer = broken
from rtseg.cli.app import main
main()
"""


def test_a_backend_that_raises_is_told_in_one_line(drive: Path) -> None:
    out = drive.with_name("out.mp4")
    command = [sys.executable, "-c", BROKEN, "video", str(drive), "-o", str(out), "--model", str(MODEL)]
    done = subprocess.run([*command, "--stats", "-"], capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 1
    assert "rtseg: the device went away; plug it in\n" in done.stderr
    assert f"the unfinished output is kept as {out.with_name('out.partial.mp4')}" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert 0 < len(read(out.with_name("out.partial.mp4"))) < FRAMES


# Around us


def test_a_full_disk_ends_the_run_in_one_line(tmp_path: Path) -> None:
    """No file may grow beyond 20 kB, which fails as a full disk does: by an error of write()."""
    drive = write_video(tmp_path / "in.mp4", frames=200, size=(320, 240))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    out = tmp_path / "out.mp4"
    result = rtseg("video", drive, "-o", out, "--model", MODEL, "--crf", 1, "-q", preexec_fn=limit)
    assert result.returncode == 1, result.stderr
    told_in_one_line(result, "can't write", "out.partial.mp4")
    assert not out.exists()
    assert 10 < len(read(tmp_path / "out.partial.mp4")) < 200


def test_the_output_folder_vanishes(segmenter: Segmenter, drive: Path) -> None:
    folder = drive.with_name("out")
    folder.mkdir()
    frames = iter(range(1_000))

    def vanish() -> None:
        if next(frames) == AT:
            shutil.rmtree(folder)

    with pytest.raises(SinkError) as error:
        process(str(drive), str(folder / "out.mp4"), segmenter, Style(), OutputOptions(), quiet=True, on_frame=vanish)
    assert "\n" not in str(error.value)
    assert not folder.exists()


def test_the_source_is_deleted_in_mid_run(segmenter: Segmenter, drive: Path) -> None:
    frames = iter(range(1_000))
    told = go(segmenter, drive, on_frame=lambda: drive.unlink() if next(frames) == AT else None)
    assert told["frames"]["written"] == FRAMES
    assert told["fidelity"]["ok"]


def test_the_source_is_cut_in_mid_run(segmenter: Segmenter, tmp_path: Path) -> None:
    """Written over while it is read: what was read until then is kept; never a hang."""
    drive = write_video(tmp_path / "in.ts", frames=400, size=(320, 240), gop=10)
    frames = iter(range(1_000))
    cut = drive.stat().st_size // 3
    told = go(segmenter, drive, on_frame=lambda: os.truncate(drive, cut) if next(frames) == AT else None)
    assert told["fidelity"]["ok"]
    assert AT < told["frames"]["written"] < 400


def test_limits_of_the_command_line(drive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    told_in_one_line(rtseg("video", drive, "-o", out, "--model", MODEL, "-q", "--max-pixels", "64x64"), "96x64", "4096")
    told_in_one_line(rtseg("video", drive, "-o", out, "--model", MODEL, "-q", "--max-pixels", "many"), "--max-pixels")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\nin.ts\n#EXT-X-ENDLIST\n")
    write_video(tmp_path / "in.ts", frames=FRAMES)
    told_in_one_line(rtseg("video", playlist, "-o", out, "--model", MODEL, "-q"), "playlist", "--allow-protocols")
    told_in_one_line(
        rtseg("video", playlist, "-o", out, "--model", MODEL, "-q", "--allow-protocols", "ftp"), "ftp", "https"
    )
    assert not out.exists()
    result = rtseg(
        "video", playlist, "-o", out, "--model", MODEL, "-q", "--allow-protocols", "file", "--max-pixels", "6144"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert len(read(out)) == FRAMES
