"""`FileSink`: complete and partial files, frames, color tags and temporary names."""

from __future__ import annotations

import resource
import signal
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import (
    CORNERS,
    copy_video,
    corners_of,
    fill,
    info,
    item,
    number_of,
    numbered_frame,
    read,
    rgb_at,
    run_script,
    video_sink,
    write_video,
)

from rtseg.core.frame import Frame
from rtseg.io.inputs.file import FileSource
from rtseg.io.outputs.file_sink import PartialFile


def write_file(path: Path, frames: int, **options: Any) -> Path:
    sink = video_sink(path, info(), **options)
    fill(sink, frames)
    sink.close()
    return path


# Creation, completion and abort


def test_abort_leaves_a_playable_partial_file(tmp_path: Path) -> None:
    for ending in ("mp4", "mkv", "ts", "avi", "mov"):
        sink = video_sink(tmp_path / f"out.{ending}", info())
        fill(sink, 30)
        sink.abort()
        assert [number_of(frame) for frame in read(tmp_path / f"out.partial.{ending}")] == list(range(30))
        assert not (tmp_path / f"out.{ending}").exists()


def test_abort_after_finish_keeps_the_partial_name(tmp_path: Path) -> None:
    sink = video_sink(tmp_path / "out.mp4", info())
    fill(sink)
    sink.finish()
    sink.abort()
    assert len(read(tmp_path / "out.partial.mp4")) == 10


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts", "webm"])
def test_partial_file_plays_after_sigkill(tmp_path: Path, ending: str) -> None:
    """SIGKILL after 150 frames at 25 FPS loses at most two seconds."""
    code = """
import os, signal
fill(video_sink(sys.argv[1], info()), 150)
os.kill(os.getpid(), signal.SIGKILL)
"""
    process = run_script(code, tmp_path / f"out.{ending}")
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    numbers = [number_of(frame) for frame in read(tmp_path / f"out.partial.{ending}")]
    assert numbers[:100] == list(range(100))  # B-frames may be missing near the end
    assert not (tmp_path / f"out.{ending}").exists()


def test_partial_file_can_be_the_input_of_its_final_name(tmp_path: Path) -> None:
    """The input `out.partial.mp4` of a killed run is not overwritten by the temporary file of the output `out.mp4`."""
    source = write_video(tmp_path / "out.partial.mp4")
    opened = FileSource(str(source))
    sink = video_sink(tmp_path / "out.mp4", opened.info, size=(96, 64))
    fill(sink, 3)
    sink.close()
    assert len(read(tmp_path / "out.mp4")) == 3
    assert len(read(source)) == 12


def test_longest_file_names_are_written(tmp_path: Path) -> None:
    for stem in ("x" * 250, "日" * 83):
        assert len(read(write_file(tmp_path / f"{stem}.mp4", 3))) == 3


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="no /proc/self/io")
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_close_of_a_long_recording_reads_only_a_part(tmp_path: Path, ending: str) -> None:
    """A live run has two seconds to complete its files, whatever their length."""

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    sink = video_sink(tmp_path / f"out.{ending}", info(), size=(64, 48), crf=1, preset="ultrafast", live=True)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
    for number in range(1800):
        planes = (np.roll(noise, number * 7, 1), *numbered_frame(number, (64, 48)).planes[1:])
        sink.write(item(replace(numbered_frame(number, (64, 48)), planes=planes)))
    before = bytes_read()
    sink.close()
    size = (tmp_path / f"out.{ending}").stat().st_size
    assert bytes_read() - before < size / 4, size
    assert len(read(tmp_path / f"out.{ending}")) == 1800


def test_standard_output_is_matroska(tmp_path: Path) -> None:
    process = run_script('sink = video_sink("-", info())\nfill(sink, 20)\nsink.close()')
    assert process.returncode == 0, process.stderr
    (tmp_path / "a.mkv").write_bytes(process.stdout)
    assert [number_of(frame) for frame in read(tmp_path / "a.mkv")] == list(range(20))


# Frames


@pytest.mark.parametrize("size", [(97, 64), (96, 65), (97, 65)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_odd_sizes_are_rounded_up_by_repeating_the_edge(tmp_path: Path, size: tuple[int, int], pix_fmt: str) -> None:
    sink = video_sink(tmp_path / "out.mp4", info(size, pix_fmt), size=size, crf=5)
    fill(sink, 3, size, pix_fmt)
    sink.close()
    frame = read(tmp_path / "out.mp4")[2]
    width, height = size[0] + size[0] % 2, size[1] + size[1] % 2
    assert (frame.width, frame.height) == (width, height)
    assert (number_of(frame), corners_of(frame)) == (2, "RGBY")
    assert np.abs(rgb_at(frame, width - 1, height - 1) - CORNERS["Y"]).max() < 25
    assert any("rounded up" in warning for warning in sink.warnings)


@pytest.mark.parametrize(
    ("codec", "ending"),
    [
        (None, "mp4"),
        ("libx265", "mp4"),
        ("hevc", "mkv"),
        ("libsvtav1", "mp4"),
        ("libvpx-vp9", "webm"),
        (None, "webm"),
        ("mpeg4", "avi"),
        ("mpeg4", "mp4"),
        ("ffv1", "mkv"),
        (None, "h264"),
        (None, "avi"),
        (None, "m4v"),
    ],
)
def test_encoder_writes_all_frames_at_their_times(tmp_path: Path, codec: str | None, ending: str) -> None:
    sink = video_sink(tmp_path / f"out.{ending}", info(time_base=Fraction(1, 90_000)), size=(96, 64), codec=codec)
    for number in range(10):
        frame = numbered_frame(number)
        sink.write(item(Frame(frame.planes, "yuv420p", frame.color, number * 3600, Fraction(1, 90_000), number, 3600)))
    sink.close()
    frames = read(tmp_path / f"out.{ending}")
    assert [number_of(frame) for frame in frames] == list(range(10))
    assert np.diff([frame.pts_seconds for frame in frames]) == pytest.approx(0.04, abs=0.002)


def test_crf_and_preset_reach_the_encoder(tmp_path: Path) -> None:
    sizes = []
    for name, options in (("a", {"crf": 5}), ("b", {"crf": 45}), ("c", {"preset": "placebo"})):
        sizes.append(write_file(tmp_path / f"{name}.mp4", 20, **options).stat().st_size)
    assert sizes[0] > 1.15 * sizes[1]
    assert (
        b"subme=11" in (tmp_path / "c.mp4").read_bytes()
    )  # settings in the x264 stream; 11 is from the preset `placebo`


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("tags", [(1, 1, 1), (6, 6, 6), (9, 9, 16), (2, 2, 2)])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_color_tags_are_kept(tmp_path: Path, ending: str, tags: tuple[int, int, int], full_range: bool) -> None:
    source = write_video(tmp_path / "in.mp4", tags=tags, full_range=full_range, frames=3, options={"crf": "5"})
    result = copy_video(source, tmp_path / f"out.{ending}", sink={"crf": 5})
    assert result.report.color_tags == "kept"
    before, after = result.frames[1], read(tmp_path / f"out.{ending}")[1]
    assert (after.color.matrix, after.color.full_range) == (before.color.matrix, full_range)
    assert (after.color.space_tag, after.color.primaries_tag, after.color.transfer_tag) == tags
    for x, y in ((12, 8), (84, 8), (12, 56), (84, 56)):
        assert np.abs(rgb_at(after, x, y) - rgb_at(before, x, y)).max() < 8


def test_untagged_color_gets_a_tag_if_the_size_changes_the_default(tmp_path: Path) -> None:
    """A side-by-side output of untagged 640x360 frames is 1280 pixels wide, for which players assume BT.709."""
    sink = video_sink(tmp_path / "out.mp4", info((640, 360)), size=(1280, 360))
    fill(sink, 2, (1280, 360))
    sink.close()
    frame = read(tmp_path / "out.mp4")[0]
    assert frame.color.matrix == "bt601"
    assert np.abs(rgb_at(frame, 100, 50) - CORNERS["R"]).max() < 12


def test_pixel_aspect_is_kept(tmp_path: Path) -> None:
    for ending in ("mp4", "mkv", "ts"):
        source = write_video(tmp_path / "in.mp4", aspect=Fraction(4, 3))
        copy_video(source, tmp_path / f"out.{ending}")
        assert FileSource(str(tmp_path / f"out.{ending}")).info.sample_aspect_ratio == Fraction(4, 3)


# libx265 is not tested with one or two frames, which FFmpeg's MP4 muxer sometimes rejects.
@pytest.mark.parametrize(
    ("frames", "codec"), [*((n, "libx264") for n in (1, 2, 3, 4, 31)), *((n, "libx265") for n in (3, 4, 31))]
)
def test_average_frame_rate_is_kept(tmp_path: Path, frames: int, codec: str) -> None:
    """The average rate is the number of frames over the duration: a last packet that is too long turns 15 FPS into 14.85."""
    source = write_video(tmp_path / "in.mp4", frames=frames, rate=Fraction(30000, 1001))
    copy_video(source, tmp_path / "out.mp4", sink={"codec": codec})
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
    numbers = [number_of(frame) for frame in FileSource(str(tmp_path / "out.mp4")) if isinstance(frame, Frame)]
    assert numbers == list(range(frames))


def test_memory_does_not_grow_with_frames(tmp_path: Path) -> None:
    sink = video_sink(tmp_path / "out.mp4", info((320, 240)), size=(320, 240), preset="ultrafast")
    frame = numbered_frame(1, (320, 240))

    def write(numbers: range) -> int:
        for number in numbers:
            sink.write(item(Frame(frame.planes, "yuv420p", frame.color, number, Fraction(1, 25), number, 1)))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    memory_before = write(range(500))
    memory_after = write(range(500, 1500))
    sink.abort()
    assert memory_after < memory_before * 1.05


# Temporary names


def test_existing_temporary_names_are_not_changed(tmp_path: Path) -> None:
    """The names are a link, a broken link, a file and a folder. Two concurrent runs for one output use different names."""
    linked = tmp_path / "linked"
    linked.write_text("precious")
    (tmp_path / "out.partial.mp4").symlink_to(linked)
    (tmp_path / "out.partial-2.mp4").symlink_to(tmp_path / "missing")
    (tmp_path / "out.partial-3.mp4").write_text("precious")
    (tmp_path / "out.partial-4.mp4").mkdir()
    first, second = PartialFile(str(tmp_path / "out.mp4")), PartialFile(str(tmp_path / "out.mp4"))
    assert [first.path.name, second.path.name] == ["out.partial-5.mp4", "out.partial-6.mp4"]
    assert "out.partial.mp4 existed before" in first.warnings[0]
    assert linked.read_text() == (tmp_path / "out.partial-3.mp4").read_text() == "precious"
    first.discard()
    second.path.write_bytes(b"new")
    second.publish()
    assert (tmp_path / "out.mp4").read_bytes() == b"new"
    assert not (tmp_path / "missing").exists()
    assert len(list(tmp_path.iterdir())) == 6
    assert PartialFile(str(tmp_path / "other.mp4")).warnings == ()


def test_existing_file_is_replaced_atomically(tmp_path: Path) -> None:
    """The older file is readable until the new one replaces it in one step."""
    out = tmp_path / "out.mp4"
    out.write_bytes(b"older")
    partial = PartialFile(str(out))
    partial.path.write_bytes(b"newer")
    time.sleep(0.01)
    assert out.read_bytes() == b"older"
    partial.publish()
    assert out.read_bytes() == b"newer"


def test_key_frames_are_at_most_two_seconds_apart(tmp_path: Path) -> None:
    with av.open(str(write_file(tmp_path / "out.mp4", 200))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
        key_seconds = [float(packet.pts * packet.time_base) for packet in packets]
    assert max(np.diff([*key_seconds, 8.0])) <= 2.0
