"""Files of the user that are named like what rtseg writes: none is replaced or removed without being asked for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from command import rtseg, told_in_one_line
from media import read, write_video

pytestmark = pytest.mark.timeout(300)

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
SMALL = ("--model", MODEL, "-q")
LIVE = ("--realtime", "--every-frame", "--size", "96x64", "--show", "none", *SMALL)


def video(path: Path) -> Path:
    return write_video(path, frames=4)


def image(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((64, 96, 3), 90, np.uint8))
    return path


def run(*arguments: object) -> str:
    done = rtseg(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_files_named_like_temporary_files_stay_as_they_are(tmp_path: Path) -> None:
    drive, photo = video(tmp_path / "drive.mp4"), image(tmp_path / "photo.png")
    names = (
        "o.partial.mp4",
        "m.partial.mkv",
        "s.partial.json",
        "p.partial.png",
        "c/photo.partial.png",
        "r.partial.mp4",
    )
    (tmp_path / "c").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"the user's " + name.encode())
    side = ("--masks", tmp_path / "m.mkv", "--stats", tmp_path / "s.json")
    told = run("video", drive, "-o", tmp_path / "o.mp4", *side, "--model", MODEL)
    assert "o.partial.mp4 was there before and is left as it is" in told
    run("image", photo, "-o", tmp_path / "p.png", "--masks", tmp_path / "c", *SMALL)
    run("live", "--url", drive, "--record", tmp_path / "r.mp4", *LIVE)
    for name in names:
        assert (tmp_path / name).read_bytes() == b"the user's " + name.encode()
        assert (tmp_path / name.replace(".partial", "")).stat().st_size > 0
    assert len(read(tmp_path / "o.mp4")) == len(read(tmp_path / "m.mkv")) == len(read(tmp_path / "r.mp4")) == 4
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.partial*")}
    assert left == set(names)


def test_a_name_that_the_user_did_not_write_replaces_only_a_result_of_rtseg(tmp_path: Path) -> None:
    """Beside the input: the next name is free. A second run replaces its own result, and --resume knows it."""
    folder = tmp_path / "drives"
    folder.mkdir()
    video(folder / "a.mp4")
    video(folder / "b.mkv")
    mine = (folder / "a.rtseg.mp4", folder / "a-2.rtseg.mp4")
    for path in mine:
        path.write_bytes(b"the user's " + path.name.encode())
    told = run("video", folder, "--model", MODEL)
    assert "a.rtseg.mp4 exists and is not known as a result of rtseg: it is left as it is" in told
    assert "b.rtseg.mkv exists" not in told
    made = [folder / "a-3.rtseg.mp4", folder / "b.rtseg.mkv"]
    before = {path: path.stat().st_mtime_ns for path in made}
    run("video", folder / "b.mkv", *SMALL)
    assert before[made[1]] < made[1].stat().st_mtime_ns
    assert "2 of 2 videos done, 2 of them before" in run("video", folder, "--resume", "--model", MODEL)
    for path in mine:
        assert path.read_bytes() == b"the user's " + path.name.encode()
    visible = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert visible == {"a.mp4", "b.mkv", *(path.name for path in (*mine, *made))}
    assert [len(read(path)) for path in made] == [4, 4]


def test_a_single_video_beside_its_input_is_known_by_the_next_run(tmp_path: Path) -> None:
    drive = video(tmp_path / "drive.mp4")
    for _ in range(2):
        run("video", drive, *SMALL)
    assert {path.name for path in tmp_path.glob("*.mp4")} == {"drive.mp4", "drive.rtseg.mp4"}
    (tmp_path / "drive.rtseg.mp4").write_bytes(b"edited")  # it is the user's now
    run("video", drive, *SMALL)
    assert (tmp_path / "drive.rtseg.mp4").read_bytes() == b"edited"
    assert len(read(tmp_path / "drive-2.rtseg.mp4")) == 4


def test_an_image_beside_its_input_replaces_only_an_image_of_rtseg(tmp_path: Path) -> None:
    photo, taken = image(tmp_path / "a.png"), image(tmp_path / "a.rtseg.png")
    data = taken.read_bytes()
    for _ in range(2):
        run("image", photo, *SMALL)
    assert taken.read_bytes() == data
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.rtseg.png", "a-2.rtseg.png"}


def test_demo_without_a_name_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.mp4").write_bytes(b"the user's")
    arguments = ("demo", "--frame-size", "96x64", "--frames", 4, "--model", "nano", "--size", "96x64")
    assert "demo-2.mp4" in run(*arguments)
    assert (tmp_path / "demo.mp4").read_bytes() == b"the user's"
    assert len(read(tmp_path / "demo-2.mp4")) == 4
    run(*arguments, "-o", "demo.mp4")
    assert len(read(tmp_path / "demo.mp4")) == 4


def test_recordings_of_several_cameras_replace_nothing(tmp_path: Path) -> None:
    """Their names are made of the one that the user gave."""
    one, two = video(tmp_path / "one.mp4"), video(tmp_path / "two.mp4")
    (tmp_path / "r-url1.mp4").write_bytes(b"the user's")
    run("live", "--url", one, "--url", two, "--record", tmp_path / "r.mp4", *LIVE)
    assert (tmp_path / "r-url1.mp4").read_bytes() == b"the user's"
    assert {path.name for path in tmp_path.glob("r*")} == {"r-url1.mp4", "r-url1-2.mp4", "r-url2.mp4"}
    assert len(read(tmp_path / "r-url1-2.mp4")) == len(read(tmp_path / "r-url2.mp4")) == 4


@pytest.mark.parametrize("folder", ["m", "m.partial", "m-url2"])
def test_live_masks_into_a_folder_of_other_things_are_refused_before_work(tmp_path: Path, folder: str) -> None:
    drive = video(tmp_path / "drive.mp4")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "holiday.mp4").write_bytes(b"the user's")
    urls = ("--url", drive) * (2 if "url2" in folder else 1)
    done = rtseg("live", *urls, "--masks", tmp_path / "m", "--record", tmp_path / "r.mp4", *LIVE)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"{tmp_path / folder} holds files other than masks, such as holiday.mp4" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"drive.mp4", folder}
    assert [path.name for path in (tmp_path / folder).iterdir()] == ["holiday.mp4"]


@pytest.mark.parametrize("given", ["in", "in/*.mp4"])
def test_the_output_of_a_folder_with_one_video_is_a_folder(tmp_path: Path, given: str) -> None:
    (tmp_path / "in").mkdir()
    video(tmp_path / "in" / "a.mp4")
    run("video", tmp_path / given, "-o", tmp_path / "out.v2", "--masks", tmp_path / "m", *SMALL)
    assert len(read(tmp_path / "out.v2" / "a.mp4")) == 4
    assert len(list((tmp_path / "m" / "a").glob("*.png"))) == 4
    run("video", tmp_path / given, "-o", tmp_path / "one.mkv", "--masks", tmp_path / "m.mkv", *SMALL)
    assert len(read(tmp_path / "one.mkv")) == len(read(tmp_path / "m.mkv")) == 4


def states(*paths: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths]


@pytest.mark.parametrize("count", [1, 2])
def test_results_in_the_folder_of_their_inputs_are_never_inputs(tmp_path: Path, count: int) -> None:
    """MPEG-PS becomes MP4: the second run finds `a.mp4` beside `a.mpg`, and it is the first one's."""
    for name in "ab"[:count]:
        video(tmp_path / f"{name}.mpg")
    made = [tmp_path / f"{name}.mp4" for name in "ab"[:count]]
    arguments = ("video", tmp_path, "-o", tmp_path, "--model", MODEL)
    run(*arguments)
    before = states(*made)
    left_out = f"{count} result{'s' * (count > 1)} of rtseg"
    told = run(*arguments, "--resume")
    assert left_out in told
    assert states(*made) == before
    told = run(*arguments, "--masks", tmp_path / ("m.mkv" if count == 1 else "m"))
    assert left_out in told
    assert all(now > then for now, then in zip(states(*made), before, strict=True))
    assert f"{count + (count == 1)} results of rtseg" in run(*arguments)  # the video of the masks is one too
    visible = {path.name for path in tmp_path.iterdir() if path.is_file() and not path.name.startswith(".")}
    assert visible - {"m.mkv"} == {path.name for folder in ("mpg", "mp4") for path in tmp_path.glob(f"*.{folder}")}
    assert [len(read(path)) for path in made] == [4] * count


def test_of_several_names_results_are_left_out_and_a_single_one_is_taken(tmp_path: Path) -> None:
    """What a shell makes of `*.mp4`, and of a glob in quotes; a file that only has the name of a result is the user's."""
    drive, mine = video(tmp_path / "a.mp4"), video(tmp_path / "mine.rtseg.mp4")
    run("video", drive, *SMALL)
    result = tmp_path / "a.rtseg.mp4"
    before = states(result)
    told = run("video", drive, mine, result, "-o", tmp_path / "out", "--model", MODEL)
    assert "left out 1 result of rtseg\n" in told
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"a.mp4", "mine.rtseg.mp4"}
    told = run("video", tmp_path / "*.mp4", "-o", tmp_path / "out2", "--model", MODEL)
    assert "left out 1 result of rtseg, 1 file named like a result of rtseg (mine.rtseg.mp4)\n" in told
    assert {path.name for path in (tmp_path / "out2").glob("*.mp4")} == {"a.mp4"}
    told = run(
        "video", drive, result, "-o", tmp_path / "out3", "--model", MODEL
    )  # one is left: it goes into the folder
    assert {path.name for path in (tmp_path / "out3").glob("*.mp4")} == {"a.mp4"}
    (alone := tmp_path / "alone").mkdir()
    run("video", result, "-o", alone / "twice.mp4", *SMALL)
    assert len(read(alone / "twice.mp4")) == 4
    assert [path.name for path in alone.iterdir()] == ["twice.mp4"]  # the user named it, and it is the user's
    assert states(result) == before
    run("video", drive, "--masks", tmp_path / "m.mkv", *SMALL)
    done = rtseg("video", result, tmp_path / "m.mkv", "-o", tmp_path / "out4", *SMALL)
    told_in_one_line(done, "no videos but 2 results of rtseg", "name a single one")


def test_a_clash_of_outputs_leaves_no_empty_folder(tmp_path: Path) -> None:
    for folder in ("front", "rear"):
        (tmp_path / folder).mkdir()
    drives = [video(tmp_path / folder / "1.mp4") for folder in ("front", "rear")]
    done = rtseg("video", *drives, "-o", tmp_path / "out", "--model", MODEL)
    told_in_one_line(done, "would both be written to")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quoted", [True, False])
def test_what_a_camera_puts_beside_its_videos_is_left_out_of_globs_and_several_names(
    tmp_path: Path, quoted: bool
) -> None:
    gpu = tmp_path / "card"
    gpu.mkdir()
    for name in ("MVI_1.MP4", "MVI_2.mp4"):
        video(gpu / name)
    (gpu / "MVI_1.THM").write_bytes(b"a small picture")
    (gpu / "MVI_2.srt").write_text("1\n")
    names = [gpu / "*"] if quoted else sorted(gpu.iterdir())
    told = run("video", *names, "-o", tmp_path / "out", "--model", MODEL)
    assert "left out 2 sidecar files (MVI_1.THM, MVI_2.srt)\n" in told
    assert {path.name for path in (tmp_path / "out").glob("*.mp4")} == {"MVI_1.mp4", "MVI_2.mp4"}


def test_of_several_names_images_of_rtseg_are_left_out_and_a_single_one_is_taken(tmp_path: Path) -> None:
    photo, mine = image(tmp_path / "a.bmp"), image(tmp_path / "mine.rtseg.png")
    told = ""
    for _ in range(2):
        told = run("image", tmp_path, "-o", tmp_path, "--model", MODEL)
    assert "left out 1 result of rtseg, 1 file named like a result of rtseg (mine.rtseg.png)\n" in told
    result = tmp_path / "a.png"
    told = run("image", photo, mine, result, "-o", tmp_path / "out", "--model", MODEL)
    assert "left out 1 result of rtseg\n" in told
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "mine.rtseg.png"}
    run("image", result, "-o", tmp_path / "twice.png", *SMALL)
    done = rtseg("image", result, tmp_path / "twice.png", "-o", tmp_path / "out4", *SMALL)
    told_in_one_line(done, "no pictures but 2 results of rtseg")
