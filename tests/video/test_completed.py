"""`--resume` leaves out what is done and proven, and nothing else: a test for each reason to do a video again."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import rtseg, told_in_one_line
from media import read, write_video

from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.render.style import Style
from rtseg.video.batch import Item, Run, process_all
from rtseg.video.completed import LIST_NAME, NO_OUTPUT, DoneList
from rtseg.video.output_names import Task

pytestmark = pytest.mark.timeout(180)

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
QUICK = OutputOptions(preset="ultrafast")
LOOK, READING = Style(), InputOptions()


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    (tmp_path / "out").mkdir()
    return Task(str(write_video(tmp_path / "a.mp4", frames=6)), str(tmp_path / "out" / "a.mp4"))


def go(
    segmenter: Segmenter,
    task: Task,
    style: Style = LOOK,
    encoding: OutputOptions = QUICK,
    reading: InputOptions = READING,
) -> Item:
    return process_all([task], Run(segmenter, style, encoding, reading, quiet=True), resume=True)


def again(item: Item) -> str | None:
    """Why it was done again; empty: it was done for the first time; None: it was left out."""
    if "skipped" in item:
        assert "frames" not in item
        return None
    assert item["frames"]["written"] > 0
    return next((note.partition(": ")[2] for note in item["notes"] if note.startswith("done again: ")), "")


def test_what_is_done_is_left_out(segmenter: Segmenter, task: Task) -> None:
    assert again(go(segmenter, task)) == ""
    before = Path(task.output).stat()
    assert again(go(segmenter, task)) is None
    assert again(go(segmenter, task)) is None
    after = Path(task.output).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def _grow(path: str) -> None:
    write_video(path, frames=9)


def _touch(path: str) -> None:
    os.utime(path, (1_000_000_000, 1_000_000_000))


@pytest.mark.parametrize("change", [_grow, _touch], ids=["another video", "the same size at another time"])
def test_a_changed_input_is_done_again(segmenter: Segmenter, task: Task, change: Any) -> None:
    go(segmenter, task)
    change(task.source)
    assert again(go(segmenter, task)) == "the input is another one"
    assert len(read(task.output)) == len(read(task.source))
    assert again(go(segmenter, task)) is None


def test_an_input_that_changed_while_it_was_read_is_done_again(
    segmenter: Segmenter, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording that is still being copied: what came after it was opened is not in the output."""
    segment = segmenter.segment

    def grow(frame: Any, *rest: Any) -> Any:
        if frame.index == 3:
            with Path(task.source).open("ab") as file:
                file.write(b"more")
        return segment(frame, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(segmenter, "segment", grow)
        go(segmenter, task)
    assert again(go(segmenter, task)) == "the input is another one"
    assert again(go(segmenter, task)) is None


def test_an_output_of_another_input_is_done_again(segmenter: Segmenter, task: Task, tmp_path: Path) -> None:
    go(segmenter, task)
    other = tmp_path / "b.mp4"
    shutil.copy2(task.source, other)
    assert again(go(segmenter, replace(task, source=str(other)))) == "the input is another one"


def test_an_output_that_is_gone_is_done_again(segmenter: Segmenter, task: Task) -> None:
    go(segmenter, task)
    Path(task.output).unlink()
    assert again(go(segmenter, task)) == ""
    assert len(read(task.output)) == 6


@pytest.mark.parametrize("how", ["cut", "replaced"])
def test_an_output_that_was_changed_is_done_again(segmenter: Segmenter, task: Task, how: str) -> None:
    go(segmenter, task)
    output = Path(task.output)
    if how == "cut":
        output.write_bytes(output.read_bytes()[:-1])
    else:
        _touch(task.output)
    assert again(go(segmenter, task)) == f"{output} is not the file that was checked"
    assert len(read(output)) == 6


@pytest.mark.parametrize(
    ("look", "encoding", "reading", "reason"),
    [
        (replace(LOOK, view="mask"), QUICK, READING, 'view was "overlay", and is "mask"'),
        (replace(LOOK, alpha=0.7), QUICK, READING, "alpha was 0.5, and is 0.7"),
        (replace(LOOK, palette="camvid"), QUICK, READING, "palette was "),
        (replace(LOOK, only=("road", "car")), QUICK, READING, 'only was null, and is ["road", "car"]'),
        (replace(LOOK, legend=True), QUICK, READING, "legend was false, and is true"),
        (replace(LOOK, hud=True), QUICK, READING, "hud was false, and is true"),
        (LOOK, replace(QUICK, codec="mpeg4"), READING, 'codec was null, and is "mpeg4"'),
        (LOOK, replace(QUICK, crf=30), READING, "crf was null, and is 30"),
        (LOOK, replace(QUICK, preset="fast"), READING, 'preset was "ultrafast", and is "fast"'),
        (LOOK, replace(QUICK, audio=False), READING, "audio was true, and is false"),
        (LOOK, QUICK, replace(READING, start=0.04), "start was null, and is 0.04"),
        (LOOK, QUICK, replace(READING, duration=0.1), "duration was null, and is 0.1"),
        (LOOK, QUICK, replace(READING, strict=True), "strict was false, and is true"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_another_look_is_done_again(
    segmenter: Segmenter, task: Task, style: Style, encoding: OutputOptions, reading: InputOptions, reason: str
) -> None:
    go(segmenter, task)
    told = again(go(segmenter, task, style, encoding, reading))
    assert told is not None
    assert told.startswith(reason)
    assert again(go(segmenter, task, style, encoding, reading)) is None


def test_what_does_not_decide_the_look_is_no_reason(segmenter: Segmenter, task: Task) -> None:
    go(segmenter, task)
    other = replace(QUICK, overwrite=False)
    assert again(go(segmenter, task, LOOK, other, InputOptions(max_pixels=1000_000, allow_protocols=("file",)))) is None


def test_a_palette_that_changed_under_its_name_is_done_again(segmenter: Segmenter, task: Task, tmp_path: Path) -> None:
    file = tmp_path / "palette.json"
    style = replace(LOOK, palette=str(file))
    file.write_text('{"road": [10, 20, 200]}')
    go(segmenter, task, style)
    assert again(go(segmenter, task, style)) is None
    file.write_text('{"road": [200, 20, 10]}')
    assert (again(go(segmenter, task, style)) or "").startswith("palette was")


def test_a_model_that_changed_under_its_name_is_done_again(task: Task, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy2(MODEL, model)
    with Segmenter(model) as segmenter:
        go(segmenter, task)
        assert again(go(segmenter, task)) is None
    data = model.read_bytes()
    # An unknown field at the end of a protobuf message changes the file, and nothing that is read of it.
    model.write_bytes(data + b"\xfa\x3f\x00")
    with Segmenter(model) as segmenter:
        assert (again(go(segmenter, task)) or "").startswith("model_sha256 was")
    with Segmenter(model, size=(96, 64)) as segmenter:
        assert (again(go(segmenter, task)) or "").startswith("size was")
    with Segmenter(model, size=(96, 64), fit="stretch") as segmenter:
        assert again(go(segmenter, task)) == 'fit was "letterbox", and is "stretch"'


def test_masks_that_are_wanted_and_not_there_are_done_again(segmenter: Segmenter, task: Task, tmp_path: Path) -> None:
    go(segmenter, task)
    wanted = replace(task, masks=str(tmp_path / "masks"))
    assert (again(go(segmenter, wanted)) or "").endswith("are not there")
    assert again(go(segmenter, wanted)) is None
    assert again(go(segmenter, task)) is None  # it has all that is asked for
    shutil.rmtree(tmp_path / "masks")
    assert (again(go(segmenter, wanted)) or "").endswith("are not there")
    assert len(list((tmp_path / "masks").glob("*.png"))) == 6


def test_a_file_that_nobody_checked_is_done_again(segmenter: Segmenter, task: Task) -> None:
    write_video(task.output, frames=3)
    assert again(go(segmenter, task)) == f"{task.output} is not in the list of what is done and checked"
    assert len(read(task.output)) == 6


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe\x00", b"{", b"[]\n17\nnull\n", b'{"output": "a.mp4"}\n', b'{"output": ["a.mp4"]}\n']
)
def test_a_damaged_list_counts_as_nothing_done(segmenter: Segmenter, task: Task, text: bytes) -> None:
    go(segmenter, task)
    (Path(task.output).parent / LIST_NAME).write_bytes(text)
    assert again(go(segmenter, task)) not in (None, "")
    assert again(go(segmenter, task)) is None


def test_a_line_that_was_cut_off_does_not_swallow_the_next(segmenter: Segmenter, task: Task, tmp_path: Path) -> None:
    go(segmenter, task)
    file = tmp_path / "out" / LIST_NAME
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    other = Task(str(write_video(tmp_path / "b.mp4", frames=3)), str(tmp_path / "out" / "b.mp4"))
    go(segmenter, other)
    assert again(go(segmenter, task)) is None
    assert again(go(segmenter, other)) is None


def test_a_disk_that_rounds_its_times_is_no_reason(segmenter: Segmenter, task: Task) -> None:
    go(segmenter, task)
    for path in (task.source, task.output):
        facts = Path(path).stat()
        os.utime(path, (facts.st_atime, facts.st_mtime // 2 * 2))
    assert again(go(segmenter, task)) is None


def test_what_failed_its_check_is_not_in_the_list(segmenter: Segmenter, task: Task, monkeypatch: Any) -> None:
    def lose(*_: Any, **__: Any) -> Any:
        from rtseg.core.errors import FidelityError

        raise FidelityError("a frame is missing")

    with monkeypatch.context() as patched:
        patched.setattr("rtseg.video.verify.FidelityReport.raise_if_broken", lose)
        with pytest.raises(Exception, match="a frame is missing"):
            go(segmenter, task)
    assert not (Path(task.output).parent / LIST_NAME).exists()
    assert not Path(task.output).exists()
    assert again(go(segmenter, task)) == ""


def test_a_list_that_can_not_be_written_is_told(segmenter: Segmenter, task: Task) -> None:
    (Path(task.output).parent / LIST_NAME).mkdir()
    item = go(segmenter, task)
    assert any("--resume would do it again" in note for note in item["notes"])
    assert len(read(task.output)) == 6
    assert (again(go(segmenter, task)) or "").endswith("is not in the list of what is done and checked")


def test_why_again_needs_no_output(tmp_path: Path) -> None:
    assert DoneList({}).why_again("a.mp4", str(tmp_path / "none.mp4")) == NO_OUTPUT


def test_an_interrupted_folder_goes_on(tmp_path: Path) -> None:
    """As a user does: a run of several without --resume leaves a list; the next goes on with it, and says so."""
    folder, out = tmp_path / "drives", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_video(folder / f"{name}.mp4", frames=5)
    first = rtseg("video", folder / "a.mp4", folder / "b.mp4", "-o", out, "--model", MODEL)
    assert first.returncode == 0, first.stderr
    write_video(folder / "b.mp4", frames=8)
    (out / "c.partial.mp4").write_bytes(b"what a kill left")
    arguments = ("video", folder, "-o", out, "--model", MODEL, "--resume", "--jobs", 2, "--stats", tmp_path / "s.json")
    result = rtseg(*arguments)
    assert result.returncode == 0, result.stderr
    lines = result.stderr[result.stderr.index("3 of 3 videos done, 1 of them before") :].splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["skipped", "done", "done"]
    assert "note: done again: the input is another one" in result.stderr
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["frames"]["written"] == 13
    assert told["items"][0]["skipped"] == "already done"
    assert sorted(path.name for path in out.iterdir()) == [LIST_NAME, "a.mp4", "b.mp4", "c.mp4", "c.partial.mp4"]
    assert (out / "c.partial.mp4").read_bytes() == b"what a kill left"
    assert "c.partial.mp4 was there before and is left as it is" in result.stderr
    assert "3 of 3 videos done, 3 of them before" in rtseg(*arguments).stderr


def test_a_stream_can_not_be_resumed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=2)
    told_in_one_line(rtseg("video", path, "-o", "-", "--model", MODEL, "-q", "--resume"), "--resume", "name files")
