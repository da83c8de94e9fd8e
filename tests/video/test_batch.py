"""Batch processing: parallel jobs, failing files, output names and interrupts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from command import ENABLE_SIGINT, MODEL, assert_one_error_line, interpreter_command, rtseg
from media import Audio, audio_packets, read, write_video

from rtseg.cli.progress import ProgressDisplay
from rtseg.core.errors import OptionError, SinkError, SourceError
from rtseg.core.video_report import UnprocessedVideo
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs.safe_open import FORMATS, VIDEO_SUFFIXES
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.io.outputs.file_sink import PartialFile
from rtseg.render.style import Style
from rtseg.video.batch import BatchOptions, parse_jobs, process_all
from rtseg.video.output_names import Task, find_inputs, name_outputs, name_tasks

QUICK = OutputOptions(preset="ultrafast")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL, streams=0)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return write_video(path, frames=1200, size=(320, 192), options={"preset": "ultrafast"})


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Create four videos of different length, size and audio, and a text file with a video's name."""
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "a.mp4", frames=40, after=[Audio(seconds=1.6)])
    write_video(folder / "b.mkv", frames=25, size=(128, 96))
    (folder / "broken.mp4").write_text("not a video\n")
    write_video(folder / "c d ü.mp4", frames=30, turn=np.fliplr)
    write_video(folder / "e.ts", frames=12, pts=list(range(5, 17)))
    return folder


def run_batch(segmenter: Segmenter, tasks: list[Task], **options: Any) -> dict[str, Any]:
    """Return the JSON report."""
    return process_all(tasks, BatchOptions(segmenter, Style(), QUICK, InputOptions()), **options).to_dict()


def read_masks(folder: Path) -> list[bytes]:
    files = sorted(folder.glob("*.png"))  # not imread: OpenCV crashes on names that are not UTF-8
    return [cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED).tobytes() for file in files]


def test_parallel_jobs_do_not_change_results(segmenter: Segmenter, videos: Path, tmp_path: Path) -> None:
    """Class maps, timestamps and audio do not depend on the number of jobs, nor differ between runs."""
    runs = {}
    for name, jobs in (("one", 1), ("two", 2), ("repeated", 2), ("more", 8)):
        tasks = name_tasks([str(videos)], f"{tmp_path / name}/", str(tmp_path / f"masks-{name}"))
        runs[name] = run_batch(segmenter, tasks, jobs=jobs)
    for name in ("two", "repeated", "more"):
        for item, other in zip(runs["one"]["items"], runs[name]["items"], strict=True):
            assert Path(item["input"]) == Path(other["input"])
            if "error" in item:
                assert item["error"] == other["error"]
                continue
            stem = Path(item["output"]).stem
            masks = read_masks(tmp_path / "masks-one" / stem)
            assert len(masks) == item["frames"]["written"] == other["frames"]["written"] > 0
            assert len(set(masks)) > 1
            assert read_masks(tmp_path / f"masks-{name}" / stem) == masks
            assert item["classes"] == other["classes"]
            assert other["fidelity"]["ok"]
            times = [[frame.pts for frame in read(path["output"])] for path in (item, other)]
            assert times[0] == times[1]
    assert audio_packets(tmp_path / "two" / "a.mp4") == audio_packets(videos / "a.mp4")


def test_invalid_file_does_not_stop_the_others(videos: Path, tmp_path: Path) -> None:
    result = rtseg(
        "video", videos, "-o", tmp_path / "out", "--model", MODEL, "--jobs", 2, "--stats", tmp_path / "all.json"
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    names = [".rtseg-done.jsonl", "a.mp4", "b.mkv", "c d ü.mp4", "e.ts"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    summary = result.stderr[result.stderr.index("4 of 5 videos done") :].splitlines()
    assert re.fullmatch(r"4 of 5 videos done: 107 frames in [\d.]+ s, [\d.]+ fps, 2 at a time", summary[0])
    assert [line.split()[0] for line in summary[1:]] == ["done", "done", "failed", "done", "done"]
    assert re.search(r"a\.mp4: 40 frames, [\d.]+ fps$", summary[1])
    assert summary[3].endswith("broken.mp4 is not a video: it is a text file")
    stats = json.loads((tmp_path / "all.json").read_text())
    assert stats["frames"] == {"read": 107, "segmented": 107, "written": 107, "dropped": 0, "corrupt": 0}
    assert [item.get("frames", {}).get("written") for item in stats["items"]] == [40, 25, None, 30, 12]


def test_totals_of_parallel_jobs_are_of_the_whole_run(segmenter: Segmenter, videos: Path, tmp_path: Path) -> None:
    begin = time.perf_counter()
    totals = run_batch(segmenter, name_tasks([str(videos)], f"{tmp_path / 'out'}/"), jobs=2)
    elapsed = time.perf_counter() - begin
    done = [item for item in totals["items"] if "frames" in item]
    assert totals["jobs"] == 2
    assert max(item["seconds"] for item in done) <= totals["seconds"] <= elapsed
    assert totals["fps"] == pytest.approx(107 / totals["seconds"], rel=0.01)
    assert totals["cpu_seconds"] > 0
    assert totals["peak_rss_mib"] > 10
    assert [(item["cpu_seconds"], item["peak_rss_mib"]) for item in done] == [(None, None)] * 4
    assert "null in items" in totals["notes"][0]
    assert all(item["latency_ms"]["p50"] > 0 for item in done)
    sequential = run_batch(segmenter, name_tasks([str(videos)], f"{tmp_path / 'out'}/"), jobs=1)
    done = [item for item in sequential["items"] if "frames" in item]
    assert sequential["seconds"] == pytest.approx(sum(item["seconds"] for item in done), abs=0.01)
    assert sequential["cpu_seconds"] == pytest.approx(sum(item["cpu_seconds"] for item in done), abs=0.01)


def test_requested_number_of_jobs_runs_at_the_same_time(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of three jobs waits for the other two: with fewer at a time none would end."""
    barrier = threading.Barrier(3)

    def work(source: str, output: str, *_: Any, **__: Any) -> UnprocessedVideo:
        barrier.wait(120)
        return UnprocessedVideo(input=source, output=output)

    monkeypatch.setattr("rtseg.video.batch.process", work)
    totals = run_batch(segmenter, [Task(str(number), f"{number}.mp4") for number in range(6)], jobs=3)
    assert [item["input"] for item in totals["items"]] == list("012345")
    assert not any(thread.name.startswith("rtseg-video") for thread in threading.enumerate())


@pytest.mark.parametrize("jobs", [1, 2])
def test_bug_in_one_video_is_reported_and_the_others_are_processed(
    segmenter: Segmenter,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    jobs: int,
) -> None:
    segment = segmenter.segment

    def fail(frame: Any, *rest: Any) -> Any:
        if frame.width == 128 and frame.index == 7:
            raise ZeroDivisionError("the model broke")
        return segment(frame, *rest)

    monkeypatch.setattr(segmenter, "segment", fail)
    totals = run_batch(segmenter, name_tasks([str(videos)], f"{tmp_path / 'out'}/"), jobs=jobs)
    assert [("error" in item) for item in totals["items"]] == [False, True, True, False, False]
    assert "ZeroDivisionError: the model broke" in totals["items"][1]["error"]
    assert capsys.readouterr().err == ""
    assert caplog.text.count("Traceback") == 1
    assert "b.partial.mkv" in caplog.text
    assert len(read(tmp_path / "out" / "b.partial.mkv")) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_ends_all_jobs_and_leaves_playable_files(
    long_video: Path, tmp_path: Path, signal_number: int, code: int
) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        shutil.copy(long_video, folder / name)
    command = [*interpreter_command(ENABLE_SIGINT), "video", str(folder), "-o", str(out), "--model", str(MODEL)]
    stats = tmp_path / "stats.json"
    stats.write_text(json.dumps({"rtseg": "0.1.0", "command": "video"}))  # of an earlier run
    command += ["--jobs", "2", "--preset", "slow", "-q", "--stats", str(stats)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        partial_files = [out / "a.partial.mp4", out / "b.partial.mp4"]
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if all(path.exists() and path.stat().st_size > 10_000 for path in partial_files):
                break
            time.sleep(0.05)
        process.send_signal(signal_number)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert [item["error"] for item in json.loads(stats.read_text())["items"]] == ["interrupted"] * 3
    assert sorted(path.name for path in out.iterdir()) == ["a.partial.mp4", "b.partial.mp4"]
    for path in partial_files:
        assert str(path) in stderr
        assert 0 < len(read(path)) < 1200


def test_progress_of_parallel_jobs_is_one_line(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rtseg.cli.progress.PLAIN_SECONDS", 0.0)
    inputs = [str(write_video(tmp_path / name, frames=150)) for name in ("a.mp4", "c d ü.mp4")]
    run_batch(segmenter, name_tasks(inputs, f"{tmp_path / 'out'}/"), jobs=2, new_progress=ProgressDisplay().task)
    lines = [line for line in capsys.readouterr().err.splitlines() if "; " in line]
    assert lines
    entry = r"(a|c d ü)\.mp4: \d+ of 150 frames, [\d.]+/s"
    assert all(re.fullmatch(f"{entry}; {entry}", line) for line in lines), lines


def test_parse_jobs() -> None:
    assert parse_jobs("1", 5) == 1
    assert parse_jobs("3", 5) == 3
    assert parse_jobs("30", 5) == 5
    assert 1 <= parse_jobs("auto", 100) <= max(1, (os.cpu_count() or 1) // 4)
    for text in ("0", "-1", "two", "", "1.5", "²"):
        with pytest.raises(OptionError, match="--jobs"):
            parse_jobs(text, 5)


# Names


def test_duplicate_output_name_is_refused_before_processing(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "a.mp4", frames=2)
    result = rtseg("video", tmp_path / "x", tmp_path / "y", "-o", tmp_path / "out", "--model", MODEL, "--jobs", 2)
    assert result.returncode == 1
    assert_one_error_line(result, "x/a.mp4", "y/a.mp4", "both", "different folders")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "pair",
    [
        ("a.mp4", "A.mp4"),
        ("ü.mp4", "u\u0308.mp4"),
        ("a.mpg", "a.mp4"),
        ("a.gif", "a.h264"),
        ("Straße.mp4", "STRASSE.mp4"),
    ],
)
def test_names_that_are_equal_on_some_file_systems_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    inputs = [str(tmp_path / name) for name in pair]
    with pytest.raises(SinkError, match="both"):
        name_outputs(inputs, f"{tmp_path / 'out'}/")
    with pytest.raises(SinkError, match="both"):
        name_outputs(inputs, None)


def test_output_that_is_another_input_is_refused(tmp_path: Path) -> None:
    """The output of sub/b.mp4 would be b.mp4, which is a link to the input a.mp4."""
    write_video(tmp_path / "a.mp4", frames=2)
    (tmp_path / "b.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "sub").mkdir()
    write_video(tmp_path / "sub" / "b.mp4", frames=2)
    with pytest.raises(SinkError, match=r"b\.mp4 would overwrite the input .*a\.mp4"):
        name_outputs([str(tmp_path / "sub" / "b.mp4"), str(tmp_path / "a.mp4")], str(tmp_path))
    with pytest.raises(SinkError, match="overwrite the input"):
        name_outputs([str(tmp_path / "a.mp4")], str(tmp_path / "b.mp4"))
    with pytest.raises(SinkError, match="overwrite the input"):
        name_outputs([str(tmp_path / "a.mp4"), str(tmp_path / "sub" / "b.mp4")], f"{tmp_path / 'sub'}/")


def test_results_and_partial_files_in_a_folder_are_skipped(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.rtseg.mp4", "b.partial.mp4", "b.partial-2.mp4", ".hidden.mkv", "notes.txt", "c.MOV"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    names = [Path(path).name for path in find_inputs([str(tmp_path)])]
    assert names == ["a.mp4", "c.MOV"]
    assert find_inputs([str(tmp_path / ".hidden.mkv")]) == [str(tmp_path / ".hidden.mkv")]
    assert find_inputs([str(tmp_path / "a.rtseg.mp4")]) == [str(tmp_path / "a.rtseg.mp4")]


def test_folder_search_reports_skipped_files(tmp_path: Path) -> None:
    videos = [
        "a.3gp", "b.FLV", "c.wmv", "d.asf", "e.vob", "f.MTS", "g.m2ts", "h.mxf", "i.ogv", "j.hevc", "k.264", "l.3g2", "m.webm",
        "n.mpg", "o.dv", "p.y4m", "q.tp", "r.dav", "s.ps", "t.dvr-ms",
    ]  # fmt: skip
    system_files = ["._a.mp4", ".DS_Store", ".x.mp4", "Thumbs.db", "desktop.ini"]
    sidecars = ["a.srt", "a.json", "a.THM", "a.lrv", "a.gpx"]
    for name in (*videos, *system_files, *sidecars, "notes.txt", "b.docx", "c.docx", "README"):
        (tmp_path / name).touch()
    for folder in ("$RECYCLE.BIN", "@eaDir", ".Trash-1000", "sub"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "z.mp4").touch()
    messages: list[str] = []
    assert find_inputs([str(tmp_path)], log=messages.append) == [str(tmp_path / name) for name in sorted(videos)]
    assert len(messages) == 1
    assert "left out 4 files with other endings (.docx 2, " in messages[0]
    assert ".txt 1" in messages[0]
    assert "no ending 1" in messages[0]
    assert messages[0].endswith("), 5 sidecar files, 1 folder (sub)")
    found = find_inputs([str(tmp_path / "**" / "*.mp4")])
    assert found == [str(tmp_path / "sub" / "z.mp4")]
    for name in ("notes.txt", "b.docx", "c.docx", "README"):
        (tmp_path / name).unlink()
    messages.clear()
    find_inputs([str(tmp_path)], results=[str(tmp_path / "sub")], log=messages.append)
    assert messages == []
    (tmp_path / "mine.rtseg.mp4").touch()
    assert str(tmp_path / "mine.rtseg.mp4") not in find_inputs([str(tmp_path)], log=messages.append)
    assert messages == [f"{tmp_path}: left out 1 folder (sub), 1 file named like a result of rtseg (mine.rtseg.mp4)"]


def test_folder_search_finds_every_video_ending_of_ffmpeg() -> None:
    """Compare with the extensions of FFmpeg's demuxers, without those of audio, images, subtitles and XML."""
    other_endings = {"m4a", "m4b", "isma", "ism", "mka", "mks", "ogg", "heic", "heif", "avif", "mpo"}
    endings = {
        ending for demuxer in FORMATS.split(",") for ending in av.format.ContainerFormat(demuxer, "r").extensions
    }
    assert {"mp4", "h26l", "webm", "gif"} <= endings
    assert {f".{ending}" for ending in endings - other_endings} <= VIDEO_SUFFIXES


def test_output_folder_below_inputs_is_skipped(tmp_path: Path) -> None:
    for name in ("a.mp4", "sub/b.mp4", "out/a.mp4", "sub/b.rtseg.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    tasks = name_tasks([str(tmp_path / "**" / "*.mp4")], str(tmp_path / "out"))
    assert [task.source for task in tasks] == [str(tmp_path / "a.mp4"), str(tmp_path / "sub" / "b.mp4")]


def test_file_that_is_named_twice_is_processed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    assert find_inputs(["a.mp4", "./a.mp4", str(tmp_path), "*.mp4"]) == ["a.mp4"]


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are UTF-16 there")
def test_names_that_are_not_utf8_are_escaped_in_messages_and_stats(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = [os.fsdecode(name) for name in (b"caf\xe9.mp4", b"caf\xe8.mp4")]
    for number, name in enumerate(names):
        write_video(folder / "plain.mp4", frames=3 + number)
        (folder / "plain.mp4").rename(folder / name)
    (folder / os.fsdecode(b"br\xfcken.mp4")).write_text("broken")
    stats, out = tmp_path / "s.json", tmp_path / "out"
    arguments = ("video", folder, "-o", out, "--model", MODEL, "--masks", tmp_path / "m", "--jobs", 2, "--stats")
    result = rtseg(*arguments, stats)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert r"caf\xe9.mp4: 3 frames" in result.stderr
    assert r"br\xfcken.mp4 is not a video" in result.stderr
    totals = json.loads(stats.read_bytes().decode("utf-8"))
    inputs = sorted(Path(os.fsencode(item["input"]).decode(errors="surrogateescape")).name for item in totals["items"])
    assert inputs == sorted([*names, os.fsdecode(b"br\xfcken.mp4")])
    assert [len(read(out / name)) for name in names] == [3, 4]
    assert [len(read_masks(tmp_path / "m" / Path(name).stem)) for name in names] == [3, 4]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}
    resumed = rtseg(*arguments, "-", "--resume", env=environment)
    assert "Traceback" not in resumed.stderr
    assert [item.get("skipped") for item in json.loads(resumed.stdout)["items"]] == [None, *["already done"] * 2]


@pytest.mark.parametrize(
    "name",
    [
        "a b  c",
        "ünïcödé 日本 🚗",
        "-dash",
        "50%d",
        "x'\"y;$(z)",
        "line\nbreak",
        "[ab]*?",
        "c:x",
        "~a",
        "http:x",
        "concat:a|b",
        "%04d",
        "end ",
        "end.",
        "NUL",
        "\u202egpj",
    ],
)
def test_unusual_names_are_processed(segmenter: Segmenter, tmp_path: Path, name: str) -> None:
    folder = tmp_path / f"in {name}"
    folder.mkdir()
    write_video(folder / f"{name}.mp4", frames=4)
    write_video(folder / "plain.mp4", frames=3)
    totals = run_batch(segmenter, name_tasks([str(folder)], f"{tmp_path / f'out {name}'}/"), jobs=2)
    assert not any("error" in item for item in totals["items"]), totals
    assert len(read(tmp_path / f"out {name}" / f"{name}.mp4")) == 4
    assert len(read(tmp_path / f"out {name}" / "plain.mp4")) == 3


def test_control_characters_in_names_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "a\x1b]0;title\x07\r.mp4", frames=3)
    (folder / "b\x1b[31m\x9b2J.mp4").write_text("broken")
    result = rtseg("video", folder, "-o", tmp_path / "out", "--model", MODEL)
    assert result.returncode == 1
    assert not set(result.stderr) & {"\x1b", "\x07", "\r", "\x9b"}
    assert r"a\x1b]0;title\x07\x0d.mp4: 3 frames" in result.stderr
    assert r"b\x1b[31m\x9b2J.mp4 is not a video" in result.stderr
    assert (tmp_path / "out" / "a\x1b]0;title\x07\r.mp4").exists()


def test_long_names_with_a_common_prefix_in_parallel(segmenter: Segmenter, tmp_path: Path) -> None:
    """The names are too long for `.partial`; their shortened names must differ."""
    stems = ["x" * 249 + end for end in "ab"] + ["日" * 82 + end for end in "本国"]
    for number, stem in enumerate(stems):
        write_video(tmp_path / f"{stem}.mp4", frames=10 + number)
    totals = run_batch(segmenter, name_tasks([str(tmp_path)], f"{tmp_path / 'out'}/"), jobs=4)
    assert not any("error" in item for item in totals["items"]), totals
    assert [len(read(tmp_path / "out" / f"{stem}.mp4")) for stem in stems] == [10, 11, 12, 13]
    names = {PartialFile(str(tmp_path / f"{stem}.avi")).path.name for stem in stems}
    assert len(names) == 4
    assert all(len(os.fsencode(name)) <= 255 for name in names)


def test_very_long_paths(segmenter: Segmenter, tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(6):
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    write_video(tmp_path / "a.mp4", frames=3)
    write_video(tmp_path / "b.mp4", frames=3)
    tasks = name_tasks([str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")], f"{deep}/")
    assert not any("error" in item for item in run_batch(segmenter, tasks, jobs=2)["items"])
    assert len(read(deep / "a.mp4")) == 3
    too_long = "y" * 5000
    for arguments in ((f"{too_long}.mp4",), (tmp_path / "a.mp4", "-o", f"{too_long}.mp4"), (tmp_path, "-o", too_long)):
        result = rtseg("video", *arguments, "--model", MODEL, "-q")
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert "ame too long" in result.stderr or "can't be created" in result.stderr


def test_several_inputs_need_a_folder(tmp_path: Path) -> None:
    inputs = ["a.mp4", "b.mp4"]
    with pytest.raises(SinkError, match="one output file"):
        name_outputs(inputs, str(tmp_path / "out.mp4"))
    with pytest.raises(SinkError, match="standard output"):
        name_outputs(inputs, "-")
    with pytest.raises(OptionError, match="name a folder"):
        name_tasks([*inputs, "c.mp4"], f"{tmp_path}/", "masks.mkv")
    with pytest.raises(SinkError, match="both"):
        name_tasks(["a.mp4", "a.mkv"], f"{tmp_path}/", "masks")
    with pytest.raises(SourceError, match="nothing matches"):
        find_inputs([str(tmp_path / "*.mp4")])
    tasks = name_tasks(inputs, f"{tmp_path / 'o'}/", "masks")
    assert [task.masks for task in tasks] == [str(Path("masks/a")), str(Path("masks/b"))]
