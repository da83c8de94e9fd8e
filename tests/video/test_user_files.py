"""User files with names that rtseg uses: none is replaced or removed, unless the user named it as an output."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import MODEL, assert_one_error_line, rtseg
from media import read, write_video

pytestmark = pytest.mark.timeout(300)

SMALL = ("--model", MODEL, "-q")
LIVE = ("--realtime", "--every-frame", "--size", "96x64", "--show", "none", *SMALL)


def make_video(path: Path) -> Path:
    return write_video(path, frames=4)


def make_image(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((64, 96, 3), 90, np.uint8))
    return path


def run(*arguments: object) -> str:
    result = rtseg(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_files_with_names_of_temporary_files_are_kept(tmp_path: Path) -> None:
    video, photo = make_video(tmp_path / "video.mp4"), make_image(tmp_path / "photo.png")
    videos, others = ["o.partial.mp4", "m.partial.mkv", "r.partial.mp4"], ["s.partial.json", "c/photo.partial.png"]
    names = (*videos, *others, "p.partial.png")
    (tmp_path / "c").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"the user's " + name.encode())
    side_outputs = ("--masks", tmp_path / "m.mkv", "--stats", tmp_path / "s.json")
    messages = run("video", video, "-o", tmp_path / "o.mp4", *side_outputs, "--model", MODEL)
    assert "o.partial.mp4 existed before and was not changed" in messages
    run("image", photo, "-o", tmp_path / "p.png", "--masks", tmp_path / "c", *SMALL)
    run("live", "--url", video, "--record", tmp_path / "r.mp4", *LIVE)
    for name in names:
        assert (tmp_path / name).read_bytes() == b"the user's " + name.encode()
        assert (tmp_path / name.replace(".partial", "")).stat().st_size > 0
    assert [len(read(tmp_path / name.replace(".partial", ""))) for name in videos] == [4, 4, 4]
    partial_files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.partial*")}
    assert partial_files == set(names)


def test_automatic_name_replaces_only_a_result_of_rtseg(tmp_path: Path) -> None:
    """The output next to the input gets the next unused name. A second run replaces its own result; --resume skips it."""
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "a.mp4")
    make_video(folder / "b.mkv")
    user_files = (folder / "a.rtseg.mp4", folder / "a-2.rtseg.mp4")
    for path in user_files:
        path.write_bytes(b"the user's " + path.name.encode())
    messages = run("video", folder, "--model", MODEL)
    assert "a.rtseg.mp4 exists and is not a known result of rtseg: it is kept" in messages
    assert "b.rtseg.mkv exists" not in messages
    results = [folder / "a-3.rtseg.mp4", folder / "b.rtseg.mkv"]
    before = {path: path.stat().st_mtime_ns for path in results}
    run("video", folder / "b.mkv", *SMALL)
    assert before[results[1]] < results[1].stat().st_mtime_ns
    assert "2 of 2 videos done, 2 of them before" in run("video", folder, "--resume", "--model", MODEL)
    for path in user_files:
        assert path.read_bytes() == b"the user's " + path.name.encode()
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"a.mp4", "b.mkv", *(path.name for path in (*user_files, *results))}
    assert [len(read(path)) for path in results] == [4, 4]


def test_result_next_to_its_input_is_replaced_unless_edited(tmp_path: Path) -> None:
    video = make_video(tmp_path / "video.mp4")
    for _ in range(2):
        run("video", video, *SMALL)
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"video.mp4", "video.rtseg.mp4"}
    (tmp_path / "video.rtseg.mp4").write_bytes(b"edited")  # edited by the user
    run("video", video, *SMALL)
    assert (tmp_path / "video.rtseg.mp4").read_bytes() == b"edited"
    assert len(read(tmp_path / "video-2.rtseg.mp4")) == 4


def test_image_next_to_its_input_replaces_only_an_image_of_rtseg(tmp_path: Path) -> None:
    photo, user_file = make_image(tmp_path / "a.png"), make_image(tmp_path / "a.rtseg.png")
    data = user_file.read_bytes()
    for _ in range(2):
        run("image", photo, *SMALL)
    assert user_file.read_bytes() == data
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.rtseg.png", "a-2.rtseg.png"}


def test_demo_without_output_name_replaces_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.mp4").write_bytes(b"the user's")
    arguments = ("demo", "--frame-size", "96x64", "--frames", 4, "--model", "nano", "--size", "96x64")
    assert "demo-2.mp4" in run(*arguments)
    assert (tmp_path / "demo.mp4").read_bytes() == b"the user's"
    assert len(read(tmp_path / "demo-2.mp4")) == 4
    run(*arguments, "-o", "demo.mp4")
    assert len(read(tmp_path / "demo.mp4")) == 4


def test_recordings_of_several_cameras_replace_no_file(tmp_path: Path) -> None:
    """The names are derived from the name that the user gave."""
    one, two = make_video(tmp_path / "one.mp4"), make_video(tmp_path / "two.mp4")
    (tmp_path / "r-url1.mp4").write_bytes(b"the user's")
    run("live", "--url", one, "--url", two, "--record", tmp_path / "r.mp4", *LIVE)
    assert (tmp_path / "r-url1.mp4").read_bytes() == b"the user's"
    assert {path.name for path in tmp_path.glob("r*")} == {"r-url1.mp4", "r-url1-2.mp4", "r-url2.mp4"}
    assert len(read(tmp_path / "r-url1-2.mp4")) == len(read(tmp_path / "r-url2.mp4")) == 4


@pytest.mark.parametrize("folder", ["m", "m.partial", "m-url2"])
def test_live_mask_folder_with_other_files_is_refused_before_processing(tmp_path: Path, folder: str) -> None:
    video = make_video(tmp_path / "video.mp4")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "holiday.mp4").write_bytes(b"the user's")
    urls = ("--url", video) * (2 if "url2" in folder else 1)
    failed = rtseg("live", *urls, "--masks", tmp_path / "m", "--record", tmp_path / "r.mp4", *LIVE)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1, failed.stderr
    assert f"{tmp_path / folder} contains files other than masks, such as holiday.mp4" in failed.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"video.mp4", folder}
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["holiday.mp4"]


@pytest.mark.parametrize("pattern", ["in", "in/*.mp4"])
def test_output_of_a_folder_with_one_video_is_a_folder(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "in").mkdir()
    make_video(tmp_path / "in" / "a.mp4")
    run("video", tmp_path / pattern, "-o", tmp_path / "out.v2", "--masks", tmp_path / "m", *SMALL)
    assert len(read(tmp_path / "out.v2" / "a.mp4")) == 4
    assert len(list((tmp_path / "m" / "a").glob("*.png"))) == 4
    run("video", tmp_path / pattern, "-o", tmp_path / "one.mkv", "--masks", tmp_path / "m.mkv", *SMALL)
    assert len(read(tmp_path / "one.mkv")) == len(read(tmp_path / "m.mkv")) == 4


def modification_times(*paths: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths]


@pytest.mark.parametrize("count", [1, 2])
def test_results_in_the_input_folder_are_skipped(tmp_path: Path, count: int) -> None:
    """MPEG-PS becomes MP4: the second run finds `a.mp4` next to `a.mpg`, which is the first run's result."""
    for name in "ab"[:count]:
        make_video(tmp_path / f"{name}.mpg")
    results = [tmp_path / f"{name}.mp4" for name in "ab"[:count]]
    arguments = ("video", tmp_path, "-o", tmp_path, "--model", MODEL)
    run(*arguments)
    before = modification_times(*results)
    left_out = f"{count} result{'s' * (count > 1)} of rtseg"
    messages = run(*arguments, "--resume")
    assert left_out in messages
    assert modification_times(*results) == before
    messages = run(*arguments, "--masks", tmp_path / ("m.mkv" if count == 1 else "m"))
    assert left_out in messages
    assert all(after > earlier for after, earlier in zip(modification_times(*results), before, strict=True))
    assert f"{count + (count == 1)} results of rtseg" in run(*arguments)  # the mask video is one too
    names = {path.name for path in tmp_path.iterdir() if path.is_file() and not path.name.startswith(".")}
    assert names - {"m.mkv"} == {path.name for folder in ("mpg", "mp4") for path in tmp_path.glob(f"*.{folder}")}
    assert [len(read(path)) for path in results] == [4] * count


def test_results_are_skipped_among_several_names_but_not_as_the_only_one(tmp_path: Path) -> None:
    """A glob expanded by the shell, and a quoted glob. A file that only has the name of a result is the user's."""
    video, mine = make_video(tmp_path / "a.mp4"), make_video(tmp_path / "mine.rtseg.mp4")
    run("video", video, *SMALL)
    result = tmp_path / "a.rtseg.mp4"
    before = modification_times(result)
    messages = run("video", video, mine, result, "-o", tmp_path / "out", "--model", MODEL)
    assert "left out 1 result of rtseg\n" in messages
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"a.mp4", "mine.rtseg.mp4"}
    messages = run("video", tmp_path / "*.mp4", "-o", tmp_path / "out2", "--model", MODEL)
    assert "left out 1 result of rtseg, 1 file named like a result of rtseg (mine.rtseg.mp4)\n" in messages
    assert {path.name for path in (tmp_path / "out2").glob("*.mp4")} == {"a.mp4"}
    run("video", video, result, "-o", tmp_path / "out3", "--model", MODEL)  # one input is left: still a folder
    assert {path.name for path in (tmp_path / "out3").glob("*.mp4")} == {"a.mp4"}
    (folder := tmp_path / "single").mkdir()
    run("video", result, "-o", folder / "twice.mp4", *SMALL)
    assert len(read(folder / "twice.mp4")) == 4
    assert [path.name for path in folder.iterdir()] == ["twice.mp4"]  # no list next to an output that the user named
    assert modification_times(result) == before
    run("video", video, "--masks", tmp_path / "m.mkv", *SMALL)
    failed = rtseg("video", result, tmp_path / "m.mkv", "-o", tmp_path / "out4", *SMALL)
    assert_one_error_line(failed, "no videos but 2 results of rtseg", "name a single one")


@pytest.mark.parametrize("quoted", [True, False])
def test_sidecar_files_of_cameras_are_skipped(tmp_path: Path, quoted: bool) -> None:
    folder = tmp_path / "DCIM"
    folder.mkdir()
    for name in ("MVI_1.MP4", "MVI_2.mp4"):
        make_video(folder / name)
    (folder / "MVI_1.THM").write_bytes(b"thumbnail")
    (folder / "MVI_2.srt").write_text("1\n")
    names = [folder / "*"] if quoted else sorted(folder.iterdir())
    messages = run("video", *names, "-o", tmp_path / "out", "--model", MODEL)
    assert "left out 2 sidecar files (MVI_1.THM, MVI_2.srt)\n" in messages
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"MVI_1.mp4", "MVI_2.mp4"}


def test_image_results_are_skipped_among_several_names_but_not_as_the_only_one(tmp_path: Path) -> None:
    photo, mine = make_image(tmp_path / "a.bmp"), make_image(tmp_path / "mine.rtseg.png")
    messages = ""
    for _ in range(2):
        messages = run("image", tmp_path, "-o", tmp_path, "--model", MODEL)
    assert "left out 1 result of rtseg, 1 file named like a result of rtseg (mine.rtseg.png)\n" in messages
    result = tmp_path / "a.png"
    messages = run("image", photo, mine, result, "-o", tmp_path / "out", "--model", MODEL)
    assert "left out 1 result of rtseg\n" in messages
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "mine.rtseg.png"}
    run("image", result, "-o", tmp_path / "twice.png", *SMALL)
    failed = rtseg("image", result, tmp_path / "twice.png", "-o", tmp_path / "out4", *SMALL)
    assert_one_error_line(failed, "no images but 2 results of rtseg")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_redirected_input_is_an_input(tmp_path: Path) -> None:
    """The file behind `< drive.mp4` is not overwritten, and its data outside the streams is reported."""
    drive = write_video(tmp_path / "drive.mp4", frames=5)
    drive.write_bytes(drive.read_bytes() + struct.pack(">I4s", 5008, b"gps ") + bytes(range(250)) * 20)
    before = drive.read_bytes()
    with drive.open("rb") as file:
        refused = rtseg("video", "-", "-o", drive, "--model", MODEL, stdin=file)
    assert_one_error_line(refused, "would overwrite the input")
    assert drive.read_bytes() == before
    with drive.open("rb") as file:
        processed = rtseg("video", "-", "-o", tmp_path / "out.mp4", "--model", MODEL, stdin=file)
    assert "GPS data in box 'gps" in processed.stderr


def test_output_that_is_redirected_to_the_input_is_refused(tmp_path: Path) -> None:
    drive = make_video(tmp_path / "drive.mp4")
    before = drive.read_bytes()
    with drive.open("ab") as file:
        command = [sys.executable, "-m", "rtseg", "video", str(drive), "-o", "-", *SMALL]
        result = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, timeout=120, check=False)
    assert b"standard output is the input" in result.stderr
    assert drive.read_bytes() == before


def test_live_without_overwrite_records_to_the_next_name(tmp_path: Path) -> None:
    drive, record = make_video(tmp_path / "drive.mp4"), tmp_path / "out.mp4"
    record.write_bytes(b"the user's")
    run("live", "--url", drive, *LIVE, "--record", record, "--no-overwrite")
    assert record.read_bytes() == b"the user's"
    assert len(read(tmp_path / "out-2.mp4")) == 4


def test_results_next_to_images_of_several_folders_are_counted_together(tmp_path: Path) -> None:
    images = [make_image(tmp_path / folder / "a.png") for folder in ("day1", "day2")]
    assert run("image", *images, "--model", MODEL).endswith("2 folders: 2 of 2 images done\n")
