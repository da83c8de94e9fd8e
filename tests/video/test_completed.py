"""`--resume`: verified outputs are skipped; one test for each reason to process a video again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import MODEL, assert_one_error_line, rtseg
from media import read, write_video

from rtseg.core.errors import FidelityError
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.render.style import Style
from rtseg.video.batch import BatchOptions, process_all
from rtseg.video.completed import LIST_NAME
from rtseg.video.output_names import Task

QUICK = OutputOptions(preset="ultrafast")
STYLE, INPUT = Style(), InputOptions()
OTHER_SETTINGS = "the settings are not the same"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "out").mkdir()
    return Task(str(write_video(tmp_path / "a.mp4", frames=6)), str(tmp_path / "out" / "a.mp4"))


def run_resumed(
    segmenter: Segmenter,
    task: Task,
    style: Style = STYLE,
    output_options: OutputOptions = QUICK,
    input_options: InputOptions = INPUT,
) -> dict[str, Any]:
    return process_all([task], BatchOptions(segmenter, style, output_options, input_options), resume=True).to_dict()


def reason(item: dict[str, Any]) -> str | None:
    """Return the reported reason to process again; empty if it was the first time, None if the video was skipped."""
    if "skipped" in item:
        assert "frames" not in item
        return None
    assert item["frames"]["written"] > 0
    return next((note.partition(": ")[2] for note in item["notes"] if note.startswith("processed again: ")), "")


def test_verified_output_is_skipped(segmenter: Segmenter, task: Task) -> None:
    assert reason(run_resumed(segmenter, task)) == ""
    before = Path(task.output).stat()
    assert reason(run_resumed(segmenter, task)) is None
    assert reason(run_resumed(segmenter, task)) is None
    after = Path(task.output).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def _touch(path: str) -> None:
    os.utime(path, (1_000_000_000, 1_000_000_000))


def _truncate(path: str) -> None:
    os.truncate(path, Path(path).stat().st_size - 1)


@pytest.mark.parametrize(
    ("side", "change", "expected"),
    [
        ("source", lambda path: write_video(path, frames=9), "the input is not the same file"),
        ("source", _touch, "the input is not the same file"),
        ("output", _truncate, "{output} changed after it was verified"),
        ("output", _touch, "{output} changed after it was verified"),
        ("output", os.remove, ""),
    ],
)
def test_changed_input_or_output_is_processed_again(
    segmenter: Segmenter, task: Task, side: str, change: Any, expected: str
) -> None:
    run_resumed(segmenter, task)
    change(getattr(task, side))
    assert reason(run_resumed(segmenter, task)) == expected.format(output=task.output)
    assert len(read(task.output)) == len(read(task.source))
    assert reason(run_resumed(segmenter, task)) is None


def test_input_that_changed_during_the_run_is_processed_again(
    segmenter: Segmenter, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that is still being copied: data that was appended after opening is not in the output."""
    segment = segmenter.segment

    def grow(frame: Any, *rest: Any) -> Any:
        if frame.index == 3:
            with Path(task.source).open("ab") as file:
                file.write(b"more")
        return segment(frame, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(segmenter, "segment", grow)
        run_resumed(segmenter, task)
    assert reason(run_resumed(segmenter, task)) == "the input is not the same file"
    assert reason(run_resumed(segmenter, task)) is None


def test_output_of_another_input_is_processed_again(segmenter: Segmenter, task: Task, tmp_path: Path) -> None:
    run_resumed(segmenter, task)
    other = tmp_path / "b.mp4"
    shutil.copy2(task.source, other)
    assert reason(run_resumed(segmenter, replace(task, source=str(other)))) == "the input is not the same file"


@pytest.mark.parametrize(
    ("style", "output_options", "input_options"),
    [
        (replace(STYLE, view="mask"), QUICK, INPUT),
        (replace(STYLE, alpha=0.7), QUICK, INPUT),
        (replace(STYLE, palette="camvid"), QUICK, INPUT),
        (replace(STYLE, only=("road", "car")), QUICK, INPUT),
        (replace(STYLE, legend=True), QUICK, INPUT),
        (replace(STYLE, hud=True), QUICK, INPUT),
        (STYLE, replace(QUICK, codec="mpeg4"), INPUT),
        (STYLE, replace(QUICK, crf=30), INPUT),
        (STYLE, replace(QUICK, preset="fast"), INPUT),
        (STYLE, replace(QUICK, audio=False), INPUT),
        (STYLE, QUICK, replace(INPUT, start=0.04)),
        (STYLE, QUICK, replace(INPUT, duration=0.1)),
        (STYLE, QUICK, replace(INPUT, strict=True)),
    ],
)
def test_changed_setting_is_processed_again(
    segmenter: Segmenter, task: Task, style: Style, output_options: OutputOptions, input_options: InputOptions
) -> None:
    run_resumed(segmenter, task)
    assert reason(run_resumed(segmenter, task, style, output_options, input_options)) == OTHER_SETTINGS
    assert reason(run_resumed(segmenter, task, style, output_options, input_options)) is None


def test_setting_that_does_not_affect_the_output_is_ignored(segmenter: Segmenter, task: Task) -> None:
    run_resumed(segmenter, task)
    output, limits = replace(QUICK, overwrite=False), InputOptions(max_pixels=1000_000, allow_protocols=("file",))
    assert reason(run_resumed(segmenter, task, STYLE, output, limits)) is None


def test_changed_palette_file_is_processed_again(segmenter: Segmenter, task: Task, tmp_path: Path) -> None:
    file = tmp_path / "palette.json"
    style = replace(STYLE, palette=str(file))
    file.write_text('{"road": [10, 20, 200]}')
    run_resumed(segmenter, task, style)
    assert reason(run_resumed(segmenter, task, style)) is None
    file.write_text('{"road": [200, 20, 10]}')
    assert reason(run_resumed(segmenter, task, style)) == OTHER_SETTINGS


def test_changed_model_file_is_processed_again(task: Task, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy2(MODEL, model)
    with Segmenter(model) as segmenter:
        run_resumed(segmenter, task)
        assert reason(run_resumed(segmenter, task)) is None
    data = model.read_bytes()
    # An unknown field at the end of a protobuf message changes the file but not the model.
    model.write_bytes(data + b"\xfa\x3f\x00")
    changes: list[dict[str, Any]] = [{}, {"size": (96, 64)}, {"size": (96, 64), "fit": "stretch"}]
    for options in changes:
        with Segmenter(model, **options) as segmenter:
            assert reason(run_resumed(segmenter, task)) == OTHER_SETTINGS


def test_missing_masks_are_processed_again(segmenter: Segmenter, task: Task, tmp_path: Path) -> None:
    run_resumed(segmenter, task)
    with_masks = replace(task, masks=str(tmp_path / "masks"))
    assert (reason(run_resumed(segmenter, with_masks)) or "").endswith("are missing")
    assert reason(run_resumed(segmenter, with_masks)) is None
    assert reason(run_resumed(segmenter, task)) is None  # without masks the output is complete
    shutil.rmtree(tmp_path / "masks")
    assert (reason(run_resumed(segmenter, with_masks)) or "").endswith("are missing")
    assert len(list((tmp_path / "masks").glob("*.png"))) == 6


def test_unverified_output_is_processed_again(segmenter: Segmenter, task: Task) -> None:
    write_video(task.output, frames=3)
    assert reason(run_resumed(segmenter, task)) == f"{task.output} is not in the list of verified outputs"
    assert len(read(task.output)) == 6


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe\x00", b"{", b"[]\n17\nnull\n", b'{"output": "a.mp4"}\n', b'{"output": ["a.mp4"]}\n']
)
def test_damaged_list_is_ignored(segmenter: Segmenter, task: Task, text: bytes) -> None:
    run_resumed(segmenter, task)
    (Path(task.output).parent / LIST_NAME).write_bytes(text)
    assert reason(run_resumed(segmenter, task)) not in (None, "")
    assert reason(run_resumed(segmenter, task)) is None


def test_incomplete_line_does_not_affect_the_next_one(segmenter: Segmenter, task: Task, tmp_path: Path) -> None:
    run_resumed(segmenter, task)
    file = tmp_path / "out" / LIST_NAME
    content = file.read_bytes()
    file.write_bytes(content + content[: len(content) // 2])
    other = Task(str(write_video(tmp_path / "b.mp4", frames=3)), str(tmp_path / "out" / "b.mp4"))
    run_resumed(segmenter, other)
    assert reason(run_resumed(segmenter, task)) is None
    assert reason(run_resumed(segmenter, other)) is None


def test_rounded_modification_time_is_accepted(segmenter: Segmenter, task: Task) -> None:
    run_resumed(segmenter, task)
    for path in (task.source, task.output):
        stat = Path(path).stat()
        os.utime(path, (stat.st_atime, stat.st_mtime // 2 * 2))
    assert reason(run_resumed(segmenter, task)) is None


def test_output_that_failed_verification_is_not_listed(segmenter: Segmenter, task: Task, monkeypatch: Any) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise FidelityError("a frame is missing")

    with monkeypatch.context() as patched:
        patched.setattr("rtseg.video.verify.FidelityReport.raise_if_broken", fail)
        with pytest.raises(FidelityError, match="a frame is missing"):
            run_resumed(segmenter, task)
    assert not (Path(task.output).parent / LIST_NAME).exists()
    assert not Path(task.output).exists()
    assert reason(run_resumed(segmenter, task)) == ""


def test_unwritable_list_is_reported(segmenter: Segmenter, task: Task) -> None:
    (Path(task.output).parent / LIST_NAME).mkdir()
    item = run_resumed(segmenter, task)
    assert any("--resume would process it again" in note for note in item["notes"])
    assert len(read(task.output)) == 6
    assert (reason(run_resumed(segmenter, task)) or "").endswith("is not in the list of verified outputs")


def test_resume_continues_an_interrupted_folder(tmp_path: Path) -> None:
    """A run of several videos without --resume writes a list, with which the next run continues."""
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_video(folder / f"{name}.mp4", frames=5)
    first = rtseg("video", folder / "a.mp4", folder / "b.mp4", "-o", out, "--model", MODEL)
    assert first.returncode == 0, first.stderr
    write_video(folder / "b.mp4", frames=8)
    (out / "c.partial.mp4").write_bytes(b"partial file of a killed run")
    arguments = ("video", folder, "-o", out, "--model", MODEL, "--resume", "--jobs", 2, "--stats", tmp_path / "s.json")
    result = rtseg(*arguments)
    assert result.returncode == 0, result.stderr
    lines = result.stderr[result.stderr.index("3 of 3 videos done, 1 of them before") :].splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["skipped", "done", "done"]
    assert "note: processed again: the input is not the same file" in result.stderr
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["frames"]["written"] == 13
    assert stats["items"][0]["skipped"] == "already done"
    assert sorted(path.name for path in out.iterdir()) == [LIST_NAME, "a.mp4", "b.mp4", "c.mp4", "c.partial.mp4"]
    assert (out / "c.partial.mp4").read_bytes() == b"partial file of a killed run"
    assert "c.partial.mp4 existed before and was not changed" in result.stderr
    assert "3 of 3 videos done, 3 of them before" in rtseg(*arguments).stderr


def test_resume_refuses_stdout(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=2)
    assert_one_error_line(
        rtseg("video", path, "-o", "-", "--model", MODEL, "-q", "--resume"), "--resume", "not stdin or stdout"
    )
