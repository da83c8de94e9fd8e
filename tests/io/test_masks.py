"""Mask sinks: lossless masks, final names only for complete results, and protection of other files."""

from __future__ import annotations

import json
import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from media import run_script

from rtseg.core.errors import OptionError, SinkError
from rtseg.core.frame import Color, Frame, ProcessedFrame, StreamInfo
from rtseg.core.letterbox import resize_classes
from rtseg.io.outputs import Sink
from rtseg.io.outputs.file_sink import FileSink
from rtseg.io.outputs.masks import MaskFolder, open_mask_sink

SIZES = [(96, 64), (97, 61), (3, 5), (1, 1)]
TIME_BASE = Fraction(1, 15360)
PTS = (0, 512, 1000, 1537, 40000)  # variable frame rate, as from a phone


def info_of(size: tuple[int, int], name: str = "video.mp4") -> StreamInfo:
    return StreamInfo(name, *size, "gbrp", Color("rgb", True), TIME_BASE, Fraction(30000, 1001))


def item_of(size: tuple[int, int], index: int, classes: np.ndarray, pts: int = 0) -> ProcessedFrame:
    plane = np.zeros((size[1], size[0]), dtype=np.uint8)
    frame = Frame((plane, plane, plane), "gbrp", Color("rgb", True), pts, TIME_BASE, index)
    return ProcessedFrame(frame, classes, frame, info_of(size))


def class_maps(count: int = 5, seed: int = 1) -> list[np.ndarray]:
    """Return random class maps. They are views of larger arrays, like those of `remove_padding`."""
    batch = np.random.default_rng(seed).integers(0, 11, (count, 30, 40), dtype=np.uint8)
    return [padded[3:27, :] for padded in batch]


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.glob("*.png"))}


def read_video(file: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(file)) as container:
        assert container.streams.video[0].codec_context.name == "ffv1"
        assert container.streams.video[0].codec_context.pix_fmt == "gray"
        return [(float(f.pts * f.time_base), f.to_ndarray(format="gray")) for f in container.decode(video=0)]


def read_masks(path: Path) -> list[np.ndarray]:
    return [mask for _, mask in read_video(path)] if path.suffix == ".mkv" else list(read_folder(path).values())


def filled_sink(path: Path, frames: int = 1, size: tuple[int, int] = (8, 8), **options: Any) -> Sink:
    """Return an open sink with the first frames of `class_maps`, one every 512 ticks."""
    sink = open_mask_sink(str(path), info_of(size), **options)
    for index, classes in enumerate(class_maps(frames)):
        sink.write(item_of(size, index, classes, index * 512))
    return sink


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mask_folder_is_lossless(tmp_path: Path, size: tuple[int, int]) -> None:
    target = tmp_path / "deep" / "masks"
    sink = open_mask_sink(str(target), info_of(size), classes=("sky", "road"))
    for index, classes in enumerate(class_maps()):
        sink.write(item_of(size, index * 3, classes))
        assert not target.exists(), "the final name exists too early"
    sink.close()
    masks = read_folder(target)
    assert list(masks) == ["000000.png", "000003.png", "000006.png", "000009.png", "000012.png"]
    for mask, classes in zip(masks.values(), class_maps(), strict=True):
        assert mask.dtype == np.uint8
        assert mask.shape == (size[1], size[0])
        assert (mask == resize_classes(classes, *size)).all()
    assert (sink.written, sink.name) == (5, "masks")
    assert [path.name for path in target.parent.iterdir()] == ["masks"]
    description = json.loads((target / "masks.json").read_text())
    assert description["classes"] == ["sky", "road"]
    assert (description["width"], description["height"], description["no_class"]) == (*size, 255)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mask_video_is_lossless_and_keeps_times(tmp_path: Path, size: tuple[int, int]) -> None:
    target = tmp_path / "masks.mkv"
    sink = open_mask_sink(str(target), info_of(size), classes=("sky", "road"))
    for index, (classes, pts) in enumerate(zip(class_maps(), PTS, strict=True)):
        sink.write(item_of(size, index, classes, pts))
        assert not target.exists()
    sink.close()
    masks = read_video(target)
    assert [mask.shape for _, mask in masks] == [(size[1], size[0])] * 5
    for (seconds, mask), classes, pts in zip(masks, class_maps(), PTS, strict=True):
        assert (mask == resize_classes(classes, *size)).all()
        assert seconds == pytest.approx(float(pts * TIME_BASE), abs=0.000501)
    assert [path.name for path in target.parent.iterdir()] == ["masks.mkv"]
    with av.open(str(target)) as container:
        assert container.metadata["CLASSES"] == "sky,road"


@pytest.mark.parametrize("name", ["masks", "masks.mkv"])
def test_only_sets_other_classes_to_no_class(tmp_path: Path, name: str) -> None:
    filled_sink(tmp_path / name, size=(96, 64), only=(3, 8)).close()
    full = resize_classes(class_maps(1)[0], 96, 64)
    expected = np.where(np.isin(full, (3, 8)), full, 255)
    (mask,) = read_masks(tmp_path / name)
    assert (mask == expected).all()
    assert (mask == 255).any()


def test_suffix_selects_the_sink(tmp_path: Path) -> None:
    for name, kind in (("a", MaskFolder), ("v1.2", MaskFolder), ("a.mkv", FileSink), ("a.MKV", FileSink)):
        sink = open_mask_sink(str(tmp_path / name), info_of((8, 8)))
        assert isinstance(sink, kind)
        sink.abort()
    for name in ("a.mp4", "a.png"):
        with pytest.raises(OptionError, match=r"name an \.mkv file, or a folder"):
            open_mask_sink(str(tmp_path / name), info_of((8, 8)))
    assert list(tmp_path.iterdir()) == [], "a refused sink left files"


@pytest.mark.parametrize("name", ["masks", "masks.mkv"])
def test_interrupted_run_keeps_masks_under_the_partial_name(tmp_path: Path, name: str) -> None:
    filled_sink(tmp_path / name, 3, (96, 64)).abort()
    (partial,) = tmp_path.iterdir()
    assert partial.name == name.replace("masks", "masks.partial")
    for mask, classes in zip(read_masks(partial), class_maps(3), strict=True):
        assert (mask == resize_classes(classes, 96, 64)).all()


@pytest.mark.parametrize("name", ["masks", "masks.mkv"])
def test_earlier_result_is_replaced_only_by_a_complete_one(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    filled_sink(target, 4).close()
    assert len(read_masks(target)) == 4
    filled_sink(target, 2).abort()
    assert len(read_masks(target)) == 4, "an interrupted run replaced the earlier result"
    filled_sink(target, 3).close()
    assert len(read_masks(target)) == 3
    # An existing partial file may belong to the user and stays. A folder with a masks.json is replaced.
    partial = ["masks.partial.mkv"] if name.endswith("mkv") else []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, *partial])
    with pytest.raises(SinkError, match="exists; leave out --no-overwrite"):
        filled_sink(target, overwrite=False)
    assert len(read_masks(target)) == 3


def test_longest_folder_names_are_written_and_replaced(tmp_path: Path) -> None:
    """Names of up to 255 bytes leave no space for `.partial`. Two have a common prefix, and all are written at the same time."""
    names = ["日" * 84 + "a" * 3, "日" * 84 + "b" * 3, "x" * 251]
    for count in (3, 2):
        sinks = [open_mask_sink(str(tmp_path / name), info_of((8, 8))) for name in names]
        for index, classes in enumerate(class_maps(count)):
            for sink in sinks:
                sink.write(item_of((8, 8), index, classes))
        for sink in sinks:
            sink.close()
        assert [len(read_folder(tmp_path / name)) for name in names] == [count] * 3
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("other_files", [["000000.png"], ["notes.txt", "masks.json"], ["sub/000000.png"]], ids=str)
@pytest.mark.parametrize("folder", ["masks", "masks.partial"])
def test_folder_with_other_files_is_never_changed(tmp_path: Path, folder: str, other_files: list[str]) -> None:
    """A data set can contain files named like masks: only a folder with a masks.json and no other files is replaced."""
    for name in other_files:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    with pytest.raises(SinkError, match="contains files other than masks, such as"):
        open_mask_sink(str(tmp_path / "masks"), info_of((8, 8)))
    assert all((tmp_path / folder / name).read_text() == "precious" for name in other_files)


def test_folder_that_gets_other_files_during_the_run_is_not_replaced(tmp_path: Path) -> None:
    sink = filled_sink(tmp_path / "masks")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "precious.txt").write_text("x")
    with pytest.raises(SinkError, match=r"such as precious\.txt"):
        sink.close()
    assert (tmp_path / "masks" / "precious.txt").exists()
    assert len(read_folder(tmp_path / "masks.partial")) == 1


def test_empty_folder_behind_a_link_is_filled(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    filled_sink(tmp_path / "link").close()
    assert (tmp_path / "link").is_symlink()
    assert len(read_folder(tmp_path / "real")) == 1


def test_unwritable_paths_are_one_line_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.mkv").mkdir()
    for name, message in (
        ("file", "a file has that name"),
        ("file/masks", "a file has that name"),
        ("file/deep/masks", "a file has that name"),
        ("file/masks.mkv", "is not a folder"),
        ("nowhere/masks.mkv", "no such folder"),
        ("folder.mkv", "is a folder; name a file"),
    ):
        with pytest.raises(SinkError, match=message) as caught:
            open_mask_sink(str(tmp_path / name), info_of((8, 8)))
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "x"


def test_input_is_not_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "source.mkv"
    source.write_bytes(b"video")
    (tmp_path / "link.mkv").symlink_to(source)
    for name in ("source.mkv", "link.mkv"):
        with pytest.raises(SinkError, match="would overwrite the input"):
            open_mask_sink(str(tmp_path / name), info_of((8, 8), name=str(source)))
    assert source.read_bytes() == b"video"


def test_size_change_is_an_error(tmp_path: Path) -> None:
    sink = filled_sink(tmp_path / "masks.mkv")
    with pytest.raises(SinkError, match="frame 1 is 16x8, not 8x8"):
        sink.write(item_of((16, 8), 1, class_maps(1)[0], 512))
    sink.abort()


def test_mask_video_with_a_missing_frame_is_not_renamed(tmp_path: Path) -> None:
    sink = filled_sink(tmp_path / "masks.mkv")
    assert isinstance(sink, FileSink)
    sink.written += 1  # as if one frame was lost
    with pytest.raises(SinkError, match="contains 1 of 2 frames"):
        sink.close()
    sink.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["masks.partial.mkv"]


def test_abort_after_close_keeps_the_result(tmp_path: Path) -> None:
    for name in ("masks", "masks.mkv"):
        sink = filled_sink(tmp_path / name)
        sink.close()
        sink.abort()
        assert (tmp_path / name).exists()


SCRIPT = """
import os, resource, signal
from test_masks import *
sink = open_mask_sink(sys.argv[1], info_of((320, 240)))
def fill(count, shape, step=512):
    for index in range(count):
        noise = np.random.default_rng(index).integers(0, 11, shape, dtype=np.uint8)
        sink.write(item_of((320, 240), index, noise, index * step))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file size")
@pytest.mark.parametrize(("name", "count"), [("masks.mkv", 1), ("masks.mkv", 60), ("masks", 60)])
def test_full_disk_is_an_error_without_result(tmp_path: Path, name: str, count: int) -> None:
    """For a video of one frame, `close` raises the error; for many frames, `write` does."""
    code = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    fill(int(sys.argv[2]), (240, 320))
    sink.close()
except SinkError as error:
    sink.abort()
    print(error)
"""
    process = run_script(SCRIPT + code, tmp_path / name, count)
    assert re.search(rb"(can't (write|finish) .*masks\.partial|contains)", process.stdout), process.stderr
    assert process.stdout.count(b"\n") == 1
    assert not (tmp_path / name).exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_kill_leaves_a_readable_video(tmp_path: Path) -> None:
    """SIGKILL after 60 frames at 5 FPS loses at most 7 frames."""
    run_script(SCRIPT + "fill(60, (1, 1), 3072)\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path / "masks.mkv")
    assert [path.name for path in tmp_path.iterdir()] == ["masks.partial.mkv"]
    masks = read_video(tmp_path / "masks.partial.mkv")
    assert len(masks) >= 53
    classes = np.random.default_rng(5).integers(0, 11, (1, 1), dtype=np.uint8)
    assert (masks[5][1] == resize_classes(classes, 320, 240)).all()
