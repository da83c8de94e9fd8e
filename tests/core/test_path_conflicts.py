"""Tests that no option writes to an input, to another output, or over a file with other content."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import MODEL, invoke
from media import write_video

from rtseg.core.errors import SinkError
from rtseg.core.files import is_marked_image, mark_image
from rtseg.core.path_conflicts import Input, Output, check_paths, mask_output, side_outputs

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    file = tmp_path / "drive.mp4"
    file.write_bytes(b"a video")
    return file


def assert_refused(inputs: list[Input], outputs: list[Output], *words: str, overwrite: bool = True) -> None:
    with pytest.raises(SinkError) as caught:
        check_paths(inputs, outputs, overwrite=overwrite)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("spelling", ["same", "dots", "folder link", "link", "hard link", "relative"])
def test_output_equal_to_the_input_is_refused_in_every_spelling(
    drive: Path, tmp_path: Path, spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path)
    (tmp_path / "link.mp4").symlink_to(drive)
    os.link(drive, tmp_path / "hard.mp4")
    name = {
        "same": str(drive),
        "dots": f"{tmp_path}/sub/../drive.mp4",
        "folder link": f"{tmp_path}/linked/drive.mp4",
        "link": str(tmp_path / "link.mp4"),
        "hard link": str(tmp_path / "hard.mp4"),
        "relative": "./drive.mp4",
    }[spelling]
    for output in (Output(name, "-o"), Output(name, "--stats", "json"), mask_output(name)):
        assert_refused([Input(str(drive))], [output], "would overwrite the input")
        assert_refused([Input(f"file:{drive}")], [output], "would overwrite the input")
        assert_refused([Input(f"file://{drive}")], [output], "would overwrite the input")


def test_two_outputs_to_one_file_are_refused(drive: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(tmp_path)
    for first, second in (
        ("o.json", "o.json"),
        ("o.json", "linked/o.json"),
        ("new/o.json", "new/./O.json"),
        ("\u00fc.json", "u\u0308.json"),
    ):
        assert_refused(
            [Input(str(drive))],
            [Output(str(tmp_path / first), "-o"), *side_outputs(stats=tmp_path / second)],
            "-o and --stats would both be written to",
            "name two files",
        )
    assert_refused([], [Output("-", "-o"), *side_outputs(stats="-")], "-o and --stats both write to standard output")
    check_paths([Input("-")], [Output("-", "-o"), *side_outputs(stats=tmp_path / "s.json")])
    check_paths([], [Output("/dev/null", "-o"), *side_outputs(stats="/dev/null")])


def test_output_equal_to_a_temporary_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.partial.mp4").write_bytes(b"the user's")
    out = Output(str(tmp_path / "a.mp4"), "-o")
    check_paths([Input(str(tmp_path / "a.partial.mp4"))], [out])  # the output uses another temporary name
    assert_refused([], [out, *side_outputs(stats=tmp_path / "a.partial.mp4")], "--stats", "temporary name")
    assert_refused([], [mask_output(tmp_path / "m"), Output(str(tmp_path / "m.partial"), "-o")], "temporary name")


def test_output_in_a_replaced_folder_or_below_a_file_is_refused(drive: Path, tmp_path: Path) -> None:
    masks = mask_output(tmp_path)
    assert_refused([Input(str(drive))], [masks], "the input", "drive.mp4", "replaced as a whole")
    assert_refused(
        [], [mask_output(tmp_path / "m"), *side_outputs(stats=tmp_path / "m" / "s.json")], "--stats", "--masks"
    )
    assert_refused(
        [], [Output(str(tmp_path / "o.mp4"), "-o"), *side_outputs(stats=tmp_path / "o.mp4" / "s.json")], "a file"
    )
    assert_refused([Input(str(drive))], side_outputs(stats=drive / "s.json"), "drive.mp4", "a file")
    (tmp_path / "f.txt").write_text("the user's")
    for output in (
        Output(str(tmp_path / "f.txt" / "a" / "o.png"), "-o"),
        *side_outputs(stats=tmp_path / "f.txt" / "s"),
    ):
        assert_refused([Input(str(drive))], [output], "f.txt is a file and not a folder")
    check_paths([Input(str(drive))], [mask_output(tmp_path / "m"), *side_outputs(stats=tmp_path / "m.json")])


def _png(path: Path, mark: bool) -> None:
    data = cv2.imencode(path.suffix, np.full((8, 8), 3, np.uint8))[1].tobytes()
    path.write_bytes(mark_image(data) if mark else data)


def test_side_outputs_replace_only_files_with_the_same_content(tmp_path: Path) -> None:
    contents = {
        "clip.mp4": b"\0\0\0\x20ftypisom" + bytes(99),
        "photo.jpg": b"\xff\xd8\xff\xe0" + bytes(99),
        "notes.txt": b"my notes\n",
        "list.json": b"[1, 2]\n",
        "mine.json": b'{"x": 1}\n',
        "mine.jsonl": b'{"x": 1}\n{"x": 2}\n',
        "binary.json": b"{\xff}",
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        for option in ("stats", "json", "jsonl", "chart", "worst"):
            assert_refused([], side_outputs(**{option: tmp_path / name}), f"--{option}", name, "left as it is")
    (tmp_path / "s.json").write_text(json.dumps({"rtseg": "1"}, indent=2) + "\n")
    (tmp_path / "l.jsonl").write_text('{"camera": "0", "index": 0, "latency_ms": 1, "classes": {}}\n{"camera"')
    (tmp_path / "empty.json").touch()
    for option, name in (("stats", "s.json"), ("jsonl", "l.jsonl"), ("stats", "empty.json"), ("stats", "new.json")):
        check_paths([], side_outputs(**{option: tmp_path / name}))
    for option, name in (("stats", "l.jsonl"), ("jsonl", "s.json"), ("worst", "s.json")):
        assert_refused([], side_outputs(**{option: tmp_path / name}), "left as it is")
    assert_refused([], side_outputs(stats=tmp_path / "s.json"), "--no-overwrite", overwrite=False)
    assert_refused([], side_outputs(stats=tmp_path), "is a folder")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_chart_replaces_a_chart_but_not_a_photo(tmp_path: Path, suffix: str) -> None:
    photo, chart = tmp_path / f"photo{suffix}", tmp_path / f"chart{suffix}"
    _png(photo, mark=False)
    _png(chart, mark=True)
    assert (
        cv2.imread(str(chart), cv2.IMREAD_UNCHANGED).tolist() == cv2.imread(str(photo), cv2.IMREAD_UNCHANGED).tolist()
    )
    assert is_marked_image(chart)
    check_paths([], side_outputs(worst=chart))
    assert_refused([], side_outputs(worst=photo), "an image that rtseg wrote")


# Each option that writes, of each command


CASES = [
    ("video drive.mp4 --stats drive.mp4", "--stats", "the input"),
    ("video drive.mp4 --stats clip.mp4", "--stats", "not a report that rtseg wrote"),
    ("video drive.mp4 --stats photo.png", "--stats", "not a report that rtseg wrote"),
    ("video drive.mp4 --masks other.mkv", "--masks", "an .mkv that --masks wrote"),
    ("video drive.mp4 -o out.mp4 --stats out.mp4", "-o", "--stats"),
    ("video drive.mp4 -o out.mp4 --stats out.partial.mp4", "--stats", "temporary name"),
    ("video drive.mp4 -o drive.mp4", "would overwrite the input", "drive.mp4"),
    ("video drive.mp4 -o out.mkv --masks out.mkv", "-o", "--masks"),
    ("video drive.mp4 -o m/out.mp4 --masks m", "m/out.mp4", "--masks"),
    ("video drive.mp4 --masks m --stats m/s.json", "--stats", "--masks"),
    ("video q/drive.mp4 -o o.mp4 --masks q", "the input q/drive.mp4", "--masks"),
    ("video drive.mp4 --masks .", "drive.rtseg.mp4", "--masks"),
    ("video drive.mp4 -o - --stats -", "-o", "standard output"),
    ("video drive.mp4 --palette colors.json --stats colors.json", "--stats", "--palette"),
    ("video drive.mp4 --model net.onnx --stats net.onnx.json", "--stats", "--model"),
    ("video drive.mp4 --model net.onnx --stats net.onnx", "--stats", "--model"),
    ("video drive.mp4 -o hard.mp4", "hard.mp4", "the input"),
    ("video drive.mp4 clip.mp4 -o .", "would overwrite the input", ""),
    ("image photo.png -o photo.png", "would overwrite the input", ""),
    ("image photo.png -o out/photo.png --masks .", "the class map of photo.png", "the input"),
    ("image data/images/val --masks data/labels/val", "class map of", "left as it is"),
    ("image q/**/*.png --masks m", "q/x/1.png", "q/y/1.png"),
    ("image photo.png -o m/photo.png --masks m", "-o and --masks", "m/photo.png"),
    ("image same --masks m", "same/1.jpg", "same/1.png"),
    ("image photo.png --palette colors.json -o colors.json", "--palette", "colors.json"),
    ("live --url drive.mp4 --realtime --jsonl drive.mp4", "--jsonl", "the input"),
    ("live --url drive.mp4 --realtime --stats drive.mp4", "--stats", "the input"),
    ("live --url drive.mp4 --realtime --record drive.mp4", "--record", "the input"),
    ("live --url drive.mp4 --realtime --record hard.mp4", "--record", "the input"),
    ("live --url drive.mp4 --realtime --masks other.mkv", "--masks", "an .mkv that --masks wrote"),
    ("live --url drive.mp4 --realtime --jsonl colors.json", "--jsonl", "not JSON lines that rtseg wrote"),
    ("live --url drive.mp4 --realtime --jsonl - --stats -", "--jsonl", "standard output"),
    ("live --url drive.mp4 --realtime --record r.mp4 --stats r.mp4", "--record", "--stats"),
    ("live --url drive.mp4 --realtime --record r.mp4 --jsonl r.partial.mp4", "--jsonl", "temporary name"),
    ("live --url drive.mp4 --realtime --record r.mkv --masks r.mkv", "--record", "--masks"),
    ("live --url drive.mp4 --url clip.mp4 --realtime --record r.mp4 --stats r-url2.mp4", "--record", "--stats"),
    ("live --url drive.mp4 --realtime --record - --split-every 60", "--split-every", ""),
    ("live --url drive.mp4 --realtime --snapshots photo.png", "--snapshots", "is a file"),
    ("live --url drive.mp4 --realtime --no-overwrite --stats s.json", "--stats", "--no-overwrite"),
    ("demo -o d.mp4 --stats d.mp4", "-o", "--stats"),
    ("demo --palette colors.json --stats colors.json", "--stats", "--palette"),
    ("bench drive.mp4 --json drive.mp4", "--json", "the input"),
    ("bench drive.mp4 --chart photo.png", "--chart", "that rtseg wrote"),
    ("bench --compare s.json colors.json --json s.json", "--json", "the input"),
    ("bench --json clip.mp4", "--json", "not a report that rtseg wrote"),
    ("build net.onnx --json net.onnx.json", "--json", "the model"),
    ("build net.onnx --json clip.mp4", "--json", "not a report that rtseg wrote"),
    ("doctor --json clip.mp4", "--json", "not a report that rtseg wrote"),
    ("models --json photo.png", "--json", "not a report that rtseg wrote"),
    ("eval data --json data/classes.txt", "--json", "the data set's"),
    ("eval data --worst data/labels/val/1.png", "--worst", "the data set's"),
    ("eval data --worst w.png --chart w.png", "--chart", "--worst"),
    ("eval data --chart photo.png", "--chart", "that rtseg wrote"),
    ("eval drive.mp4 --flicker --json drive.mp4", "--json", "the input"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files of a user."""
    folder = tmp_path_factory.mktemp("user")
    write_video(folder / "drive.mp4", frames=2)
    os.link(folder / "drive.mp4", folder / "hard.mp4")
    (folder / "q").mkdir()
    write_video(folder / "q" / "drive.mp4", frames=2)
    write_video(folder / "clip.mp4", frames=2)
    write_video(folder / "other.mkv", frames=2)
    for name in ("photo.png", "q/x/1.png", "q/y/1.png", "same/1.png", "same/1.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _png(folder / name, mark=False)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / "data" / kind / split).mkdir(parents=True)
            _png(folder / "data" / kind / split / "1.png", mark=False)
    (folder / "data" / "classes.txt").write_text("a\nb\nc\nd\n")
    (folder / "colors.json").write_text(json.dumps({"road": [1, 2, 3]}, indent=2))
    (folder / "s.json").write_text(json.dumps({"rtseg": "1"}, indent=2))
    (folder / "net.onnx").write_bytes(MODEL.read_bytes())
    (folder / "net.onnx.json").write_text(json.dumps({"mean": 1}))
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="links")
@pytest.mark.parametrize(("line", "one", "two"), CASES, ids=[case[0] for case in CASES])
def test_command_that_would_overwrite_a_file_is_refused_before_it_starts(
    files: Path, monkeypatch: pytest.MonkeyPatch, line: str, one: str, two: str
) -> None:
    if line.startswith("build"):
        pytest.importorskip("onnx", reason="`rtseg build` needs onnx (extra `build`)")
    monkeypatch.chdir(files)
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    result = invoke(*line.split())
    assert result.exit_code == 1, (result.output, result.exception)
    messages = [text for text in result.output.splitlines() if text.startswith("rtseg:")]
    assert len(messages) == 1, result.output
    assert one in messages[0], messages
    assert two in messages[0], messages
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("list.m3u8", "#EXTM3U\n#EXTINF:2,\nseg0.ts\n#EXTINF:2,\nseg1.ts\n#EXT-X-ENDLIST\n", "seg1.ts"),
        ("list.m3u8", '#EXTM3U\n#EXT-X-MAP:URI="init.mp4"\n#EXTINF:2,\nseg0.ts\n', "init.mp4"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nsub/low.m3u8\n", "sub/part.ts"),
        ("list.ffconcat", "ffconcat version 1.0\nfile 'seg0.ts'\nfile seg1.ts\n", "seg1.ts"),
        ("list.ffconcat", "ffconcat version 1.0\nfile 'seg0.ts'\n", "seg0.ts"),
    ],
)
def test_files_in_a_playlist_are_inputs(tmp_path: Path, name: str, text: str, part: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "low.m3u8").write_text("#EXTM3U\n#EXTINF:2,\npart.ts\n")
    for file in ("seg0.ts", "seg1.ts", "init.mp4", "sub/part.ts"):
        (tmp_path / file).write_bytes(b"the user's")
    (tmp_path / name).write_text(text)
    with pytest.raises(SinkError, match="would overwrite a part of the input"):
        check_paths([Input(str(tmp_path / name))], [Output(str(tmp_path / part), "-o")])
    check_paths([Input(str(tmp_path / name))], [Output(str(tmp_path / "other.ts"), "-o")])
