"""FileSource: frames, times and packets of files, and one clear line for invalid files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media import CORNERS, Audio, Text, corners_of, number_of, numbered_image, read, rgb_at, to_pix_fmt, write_video

from rtseg.core.color import rgb_to_yuv_matrix
from rtseg.core.errors import SourceError
from rtseg.core.frame import Frame, Passthrough
from rtseg.io.inputs import open_source
from rtseg.io.inputs.file import FileSource
from rtseg.io.inputs.frame_converter import FrameConverter

pytestmark = pytest.mark.timeout(180)


def test_real_videos_are_read_completely(clips: Path) -> None:
    for name, frames, size, rate, packets in (
        ("cambridge_15fps.mp4", 101, (480, 360), 15, 0),
        ("highway_540p25.mp4", 221, (960, 540), 25, 415),
    ):
        source = FileSource(str(clips / name))
        items = list(source)
        frames_read = [item for item in items if isinstance(item, Frame)]
        assert (len(frames_read), len(items) - len(frames_read)) == (frames, packets)
        assert (source.info.width, source.info.height, source.info.frame_rate) == (*size, rate)
        assert [frame.index for frame in frames_read] == list(range(frames))
        assert (source.corrupt, source.warnings, source.info.frame_count) == (0, (), frames)
        times = [frame.pts_seconds for frame in frames_read]
        assert np.allclose(np.diff(times), 1 / rate, atol=1e-9)
        source.close()


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts", "avi", "h264"])
def test_frames_with_b_frames_are_in_display_order(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"a.{ending}", frames=20, b_frames=3)
    frames = read(path)
    assert [number_of(frame) for frame in frames] == list(range(20))
    steps = np.diff([frame.pts_seconds for frame in frames])
    assert np.allclose(steps, 0.04, atol=1e-3)
    assert all(corners_of(frame) == "RGBY" for frame in frames)


@pytest.mark.parametrize(
    ("codec", "ending", "options"),
    [
        ("libx265", "mp4", {"preset": "ultrafast", "x265-params": "log-level=none"}),
        ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "8"}),
        ("libvpx", "webm", {"deadline": "realtime"}),
        ("libsvtav1", "mp4", {"preset": "12"}),
        ("mpeg4", "avi", {}),
        ("mpeg2video", "mpg", {}),
        ("mjpeg", "avi", {}),
        ("ffv1", "mkv", {}),
        ("prores_ks", "mov", {}),
        ("gif", "gif", {}),
    ],
)
def test_codec_is_decoded(tmp_path: Path, codec: str, ending: str, options: dict[str, str]) -> None:
    pix_fmt = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "gif": "rgb8"}.get(codec, "yuv420p")
    path = write_video(tmp_path / f"a.{ending}", codec=codec, options=options, pix_fmt=pix_fmt, frames=8)
    frames = read(path)
    assert [number_of(frame) for frame in frames] == list(range(8))
    assert corners_of(frames[3]) == "RGBY"


LAYOUTS = {
    "yuv420p": "yuv420p",
    "yuv422p": "yuv422p",
    "yuv444p": "yuv444p",
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yuv410p": "yuv420p",
    "yuv411p": "yuv422p",
    "yuv440p": "yuv444p",
    "yuva420p": "yuv420p",
    "yuv420p10le": "yuv420p",
    "yuv422p10le": "yuv422p",
    "yuv444p12le": "yuv444p",
    "p010le": "yuv420p",
    "rgb24": "yuv444p",
    "bgra": "yuv444p",
    "gbrp": "yuv444p",
    "rgb48le": "yuv444p",
}


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("pix_fmt", LAYOUTS)
def test_pixel_formats_are_converted_with_correct_color(pix_fmt: str, full_range: bool) -> None:
    """Compared with the decoded frame: the conversion differs by at most four levels."""
    decoded = to_pix_fmt(numbered_image(0), pix_fmt, 1, full_range)
    rgb = decoded.format.is_rgb
    decoded.colorspace, decoded.color_range = (0, 2) if rgb else (1, 2 if full_range else 1)
    reader = FrameConverter.of(decoded)
    planes = reader.read(decoded)
    frame = Frame(planes, reader.pixel_format, reader.color, 0, Fraction(1, 25), 0)
    assert reader.pixel_format == LAYOUTS[pix_fmt]
    assert reader.color.full_range is (full_range and not rgb)
    assert reader.color.matrix == ("bt601" if rgb else "bt709")
    for name, (x, y) in zip("RGBY", ((12, 8), (84, 8), (12, 56), (84, 56)), strict=True):
        assert np.abs(rgb_at(frame, x, y) - CORNERS[name]).max() <= 4, (name, rgb_at(frame, x, y))


@pytest.mark.parametrize("full_range", [False, True])
def test_gray_keeps_its_levels(tmp_path: Path, full_range: bool) -> None:
    path = write_video(tmp_path / "a.mkv", codec="ffv1", pix_fmt="gray", frames=2, full_range=full_range)
    frame = read(path)[1]
    with av.open(str(path)) as container:
        luma = list(container.decode(video=0))[1].to_ndarray()
    assert (frame.planes[0] == luma).all()
    assert all((plane == 128).all() for plane in frame.planes[1:])


@pytest.mark.parametrize(
    ("tags", "size", "matrix"),
    [
        ((1, 1, 1), (96, 64), "bt709"),
        ((5, 5, 6), (96, 64), "bt601"),
        ((6, 6, 6), (96, 64), "bt601"),
        ((9, 9, 14), (96, 64), "bt2020"),
        ((2, 2, 2), (96, 64), "bt601"),
        ((2, 2, 2), (1280, 720), "bt709"),
    ],
)
def test_color_matrix_and_tags_are_read(
    tmp_path: Path, tags: tuple[int, int, int], size: tuple[int, int], matrix: str
) -> None:
    color = read(write_video(tmp_path / "a.mp4", tags=tags, size=size, frames=1))[0].color
    assert color.matrix == matrix
    assert (color.space_tag, color.primaries_tag, color.transfer_tag) == tags


@pytest.mark.parametrize("range_tag", [0, 1, 2])
def test_range_tag_is_read(tmp_path: Path, range_tag: int) -> None:
    tags = (5, 5, 6) if range_tag else (2, 2, 2)
    frame = read(write_video(tmp_path / "a.mp4", tags=tags, range_tag=range_tag, full_range=range_tag == 2, frames=1))[
        0
    ]
    assert (frame.color.range_tag, frame.color.full_range) == (range_tag, range_tag == 2)
    assert np.abs(rgb_at(frame, 12, 8) - CORNERS["R"]).max() < 12


def test_full_range_jpeg_frames_are_read_as_full_range(tmp_path: Path) -> None:
    frame = read(write_video(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p", full_range=True, frames=1))[0]
    assert (frame.color.full_range, frame.pixel_format) == (True, "yuv420p")
    assert np.abs(rgb_at(frame, 12, 8) - CORNERS["R"]).max() < 12


TURNS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[float, bool, bool], str]] = {
    "90": (lambda image: np.rot90(image), (-90, False, False), "turned by 90 degrees clockwise"),
    "180": (lambda image: np.rot90(image, 2), (180, False, False), "turned by 180 degrees"),
    "270": (lambda image: np.rot90(image, 3), (90, False, False), "turned by 90 degrees counterclockwise"),
    "mirrored": (lambda image: image[:, ::-1], (0, True, False), "mirrored left to right"),
    "upside down": (lambda image: image[::-1], (0, False, True), "mirrored top to bottom"),
    "transposed": (lambda image: image.transpose(1, 0, 2), (90, False, True), "mirrored"),
    "anti-transposed": (lambda image: image.transpose(1, 0, 2)[::-1, ::-1], (90, True, False), "mirrored"),
}


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("turn", TURNS)
def test_display_matrix_is_applied(tmp_path: Path, turn: str, pix_fmt: str) -> None:
    undo, matrix, note = TURNS[turn]
    path = write_video(tmp_path / "a.mp4", turn=undo, rotation=matrix, frames=3, pix_fmt=pix_fmt, size=(96, 64))
    source = FileSource(str(path))
    frames = [item for item in source if isinstance(item, Frame)]
    assert (source.info.width, source.info.height) == (96, 64)
    assert [corners_of(frame) for frame in frames] == ["RGBY"] * 3
    assert [number_of(frame) for frame in frames] == [0, 1, 2]
    assert any(note in text for text in source.info.notes)
    assert all(plane.flags.c_contiguous for plane in frames[0].planes)


def test_other_rotation_angles_are_reported_and_not_applied(tmp_path: Path) -> None:
    source = FileSource(str(write_video(tmp_path / "a.mp4", rotation=(30, False, False), frames=2)))
    assert corners_of(next(item for item in source if isinstance(item, Frame))) == "RGBY"
    assert "no multiple of 90" in source.info.notes[0]


def test_pixel_aspect_is_kept_and_rotated_with_the_frame(tmp_path: Path) -> None:
    wide = write_video(tmp_path / "a.mp4", aspect=Fraction(4, 3), frames=1)
    assert FileSource(str(wide)).info.sample_aspect_ratio == Fraction(4, 3)
    rotated = write_video(
        tmp_path / "b.mp4",
        aspect=Fraction(4, 3),
        rotation=(90, False, False),
        turn=lambda image: np.rot90(image, 3),
        frames=1,
    )
    assert FileSource(str(rotated)).info.sample_aspect_ratio == Fraction(3, 4)


@pytest.mark.parametrize("size", [(97, 64), (96, 65), (97, 65)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "nv12", "rgb24"])
def test_odd_sizes_are_read(tmp_path: Path, size: tuple[int, int], pix_fmt: str) -> None:
    path = write_video(tmp_path / "a.nut", codec="rawvideo", pix_fmt=pix_fmt, size=size, frames=2)
    frame = read(path)[1]
    assert (frame.width, frame.height) == size
    assert (number_of(frame), corners_of(frame)) == (1, "RGBY")


def test_planes_equal_the_decoder_output(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, size=(98, 66))
    frames = read(path)
    with av.open(str(path)) as container:
        for frame, decoded in zip(frames, container.decode(video=0), strict=True):
            stacked = decoded.to_ndarray()
            assert (frame.planes[0] == stacked[:66]).all()
            assert (np.concatenate([plane.ravel() for plane in frame.planes]) == stacked.ravel()).all()


def test_frames_do_not_change_while_decoding_continues(tmp_path: Path) -> None:
    """Planes are views of the decoder's memory: none may be reused while a frame references it."""
    path = write_video(tmp_path / "a.mp4", frames=80)
    frames = read(path)
    assert [number_of(frame) for frame in frames] == list(range(80))


# Timestamps


def test_variable_frame_rate_is_kept_exactly(tmp_path: Path) -> None:
    pts = [0, 1000, 1001, 5000, 90_000, 90_003, 123_456]
    frames = read(write_video(tmp_path / "a.mp4", time_base=Fraction(1, 90_000), pts=pts, frames=7))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(stamp, 90_000) for stamp in pts]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(60000, 1001), Fraction(24000, 1001), Fraction(1, 2)])
def test_fractional_frame_rates_are_kept(tmp_path: Path, rate: Fraction) -> None:
    source = FileSource(str(write_video(tmp_path / "a.mp4", rate=rate, frames=9)))
    frames = [item for item in source if isinstance(item, Frame)]
    assert source.info.frame_rate == rate
    assert [frame.pts * frame.time_base for frame in frames] == [index / rate for index in range(9)]


def test_single_frame_is_read(tmp_path: Path) -> None:
    assert len(read(write_video(tmp_path / "a.mp4", frames=1))) == 1


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_nonzero_start_time_is_kept(tmp_path: Path, ending: str) -> None:
    frames = read(write_video(tmp_path / f"a.{ending}", pts=list(range(250, 262)), b_frames=0))
    assert frames[0].pts_seconds == pytest.approx(10.0, abs=1e-3)
    assert len(frames) == 12


def test_timestamps_beyond_32_bits_are_kept(tmp_path: Path) -> None:
    first = 1 << 40
    frames = read(
        write_video(tmp_path / "a.mkv", pts=[first, first + 40, first + 80], frames=3, time_base=Fraction(1, 1000))
    )
    assert [frame.pts for frame in frames] == [first, first + 40, first + 80]


def test_clock_that_is_reset_continues_after_the_join(tmp_path: Path) -> None:
    """Two recordings joined end to end, as `cat a.ts b.ts` does."""
    parts = [write_video(tmp_path / f"{n}.ts", frames=60, b_frames=0, after=[Audio(seconds=2.4)]) for n in range(2)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = FileSource(str(joined))
    items = list(source)
    frames = [item for item in items if isinstance(item, Frame)]
    assert len(frames) == 120
    assert all(later.pts > earlier.pts for earlier, later in pairwise(frames))
    assert frames[-1].pts_seconds - frames[0].pts_seconds == pytest.approx(119 * 0.04, abs=0.1)
    decoding = [item.packet.dts for item in items if isinstance(item, Passthrough)]
    assert all(later > earlier for earlier, later in pairwise(decoding))
    assert any("the clock jumps" in warning for warning in source.warnings)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("start", "duration", "expected"), [(1.0, 0.4, range(25, 35)), (0.5, None, range(13, 60)), (None, 0.2, range(5))]
)
def test_start_and_duration_are_exact_to_the_frame(
    tmp_path: Path, ending: str, start: float | None, duration: float | None, expected: range
) -> None:
    path = write_video(tmp_path / f"a.{ending}", frames=60, gop=20, after=[Audio(seconds=2.4)])
    whole = read(path)
    source = FileSource(str(path), start=start, duration=duration)
    items = list(source)
    frames = [item for item in items if isinstance(item, Frame)]
    assert [number_of(frame) for frame in frames] == list(expected)
    assert frames[0].index == 0
    shift = round(Fraction(start or 0) / source.info.time_base)
    assert [frame.pts + shift for frame in frames] == [whole[number].pts for number in expected]
    audio = [float(item.packet.pts * item.packet.time_base) for item in items if isinstance(item, Passthrough)]
    first = whole[0].pts_seconds
    assert first - 0.03 <= min(audio)
    assert duration is None or max(audio) < first + duration
    assert len(audio) == pytest.approx((duration or 2.4 - (start or 0)) * 48000 / 1024, abs=2)
    assert source.corrupt == 0


def test_start_after_the_end_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no frame at or after 100 s"):
        FileSource(str(write_video(tmp_path / "a.mp4")), start=100)


# Streams


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts"])
def test_packets_of_other_streams_are_returned_for_any_index(tmp_path: Path, ending: str) -> None:
    before, after = [Audio(tone=300), Audio(tone=600)], [Audio(tone=900)]
    path = write_video(tmp_path / f"a.{ending}", before=before, after=after, frames=25)
    with av.open(str(path)) as container:
        audio = {stream.index for stream in container.streams.audio}
        expected = [
            (packet.stream_index, bytes(packet))
            for packet in container.demux()
            if packet.size and packet.stream_index in audio
        ]
    got = [(item.stream_index, bytes(item.packet)) for item in FileSource(str(path)) if isinstance(item, Passthrough)]
    assert got == expected
    assert len({index for index, _ in got}) == 3


def test_subtitles_and_metadata_are_read(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mkv", after=[Text([(0.1, 0.3, "left"), (0.3, 0.4, "right")])], metadata={"title": "Drive"}
    )
    source = FileSource(str(path))
    texts = [bytes(item.packet) for item in source if isinstance(item, Passthrough)]
    assert texts == [b"left", b"right"]
    assert source.info.metadata["title"] == "Drive"


def test_largest_video_stream_is_decoded_and_the_other_passed_through(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as out:
        streams = []
        for size in ((96, 64), (192, 128)):
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height = size
            streams.append(stream)
        for number in range(5):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(numbered_image(number, stream.width, stream.height), format="rgb24")
                out.mux(stream.encode(frame.reformat(format="yuv420p")))
        for stream in streams:
            out.mux(stream.encode(None))
    items = list(FileSource(str(path)))
    assert [(item.width, number_of(item)) for item in items if isinstance(item, Frame)] == [(192, n) for n in range(5)]
    assert sum(isinstance(item, Passthrough) for item in items) == 5


# Invalid files


def _fifo(path: Path) -> None:
    os.mkfifo(path)


NOT_VIDEOS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("hello, this is a text\n" * 30), "a text file"),
    "short text": (lambda path: path.write_text("hi"), "a text file"),
    "zip": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 9), "a ZIP archive"),
    "png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200)), "a PNG image"),
    "jpeg": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(200)), "a JPEG image"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000)), "not a video"),
    "zeros": (lambda path: path.write_bytes(bytes(100_000)), "not a video"),
    "fifo": (_fifo, "named pipe"),
    "playlist": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), "a playlist"),
    "concat": (lambda path: path.write_text("ffconcat version 1.0\nfile '/etc/passwd'\n"), "a list of files"),
}


@pytest.mark.parametrize("kind", NOT_VIDEOS)
def test_invalid_file_is_a_one_line_error(tmp_path: Path, kind: str) -> None:
    make, message = NOT_VIDEOS[kind]
    path = tmp_path / "video.mp4"
    make(path)
    with pytest.raises(SourceError, match=message) as error:
        FileSource(str(path))
    assert "\n" not in str(error.value)
    assert "video.mp4" in str(error.value)


def test_renamed_image_is_reported_as_an_image(tmp_path: Path) -> None:
    import cv2

    for ending in ("png", "jpg", "bmp", "tiff", "webp"):
        cv2.imwrite(str(tmp_path / f"a.{ending}"), numbered_image(3))
        (tmp_path / f"a.{ending}").rename(tmp_path / "a.mp4")
        with pytest.raises(SourceError, match="image"):
            FileSource(str(tmp_path / "a.mp4"))


def test_audio_file_has_no_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        stream.codec_context.layout = "mono"
        audio = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        audio.rate = 48000
        out.mux(stream.encode(audio))
        out.mux(stream.encode(None))
    with pytest.raises(SourceError, match=r"no video stream \(it contains: audio\)"):
        FileSource(str(path))


def test_mp4_without_index_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=30)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(SourceError, match=r"index .moov. is missing"):
        FileSource(str(path))


def test_file_without_read_permission_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path.chmod(0)
    with pytest.raises(SourceError, match="permission denied"):
        FileSource(str(path))


def test_too_large_frames_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", size=(640, 480), frames=1)
    with pytest.raises(SourceError, match="640x480"):
        FileSource(str(path), max_pixels=100_000)
    assert len(read(path, max_pixels=640 * 480)) == 1
    with pytest.raises(SourceError, match="307199"):
        FileSource(str(path), max_pixels=640 * 480 - 1)


@pytest.mark.parametrize(("ending", "codec"), [("mkv", "subrip"), ("mp4", "mov_text")])
def test_too_many_streams_are_refused(tmp_path: Path, ending: str, codec: str) -> None:
    few, many = ([Text([(0.1, 0.2, "x")], codec)] * count for count in (60, 70))
    source = FileSource(str(write_video(tmp_path / f"few.{ending}", frames=3, after=few)))
    assert len(source.info.streams) == 60
    source.close()
    with pytest.raises(SourceError, match="64 streams or more"):
        FileSource(str(write_video(tmp_path / f"many.{ending}", frames=3, after=many)))


def test_frames_that_become_too_large_within_a_stream_are_refused(tmp_path: Path) -> None:
    parts = [write_video(tmp_path / f"{n}.h264", size=size, frames=5) for n, size in enumerate(((96, 64), (128, 96)))]
    path = tmp_path / "in.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(SourceError, match="a frame is 128x96"):
        read(path, max_pixels=96 * 64)


@pytest.mark.parametrize(
    "name", ["concat:a.mp4|b.mp4", "http:evil.mp4", "a b.mp4", "ünïcödé 日本.mp4", "-dash.mp4", "50%d.mp4", "x'\"y.mp4"]
)
def test_file_names_are_not_parsed_as_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_video(tmp_path / "plain.mp4", frames=2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read(name)) == 2


def test_password_in_a_name_is_not_printed() -> None:
    with pytest.raises(SourceError) as error:
        FileSource("rtsp://user:secret@camera/stream")
    assert "secret" not in str(error.value)


# Standard input, closing


CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from rtseg.core.frame import Frame
from rtseg.io.inputs import open_source
print(sum(isinstance(item, Frame) for item in open_source('-')))
"""


@pytest.mark.parametrize("ending", ["mkv", "ts", "mp4"])
def test_standard_input_is_read(tmp_path: Path, ending: str) -> None:
    root = str(Path(__file__).parents[2])
    path = write_video(tmp_path / f"a.{ending}", frames=7)
    command = [sys.executable, "-c", CODE, root]
    with path.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=150, check=False)
    assert done.stdout.strip() == "7", done.stderr
    if ending != "mp4":  # The index of an MP4 is at its end, which can't be read from a pipe.
        done = subprocess.run(command, input=path.read_bytes(), capture_output=True, timeout=150, check=False)
        assert done.stdout.strip() == b"7", done.stderr


def test_close_from_another_thread_ends_iteration(tmp_path: Path) -> None:
    source = FileSource(str(write_video(tmp_path / "a.mp4", frames=200)))
    frames = []
    for item in source:
        frames.append(item)
        if len(frames) == 20:
            closer = threading.Thread(target=source.close)
            closer.start()
            closer.join(60)
            assert not closer.is_alive()
    assert 20 <= len(frames) < 200
    source.close()


def test_open_source_accepts_paths(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3)
    assert sum(isinstance(item, Frame) for item in open_source(path)) == 3


def test_helper_colors_match_the_conversion_formula(tmp_path: Path) -> None:
    """Check the reference colors of these tests: a known color through `rgb_to_yuv_matrix` and a lossless file."""
    frame = read(write_video(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuv444p", tags=(1, 1, 1), frames=1))[0]
    matrix = rgb_to_yuv_matrix(frame.color)
    expected = matrix[:, :3] @ np.array(CORNERS["B"]) + matrix[:, 3]
    assert np.abs(np.array([plane[56, 12] for plane in frame.planes]) - expected).max() <= 1


# EXIF in the JPEG frames of cameras


def _jpeg_with_exif(number: int, orientation: int, turns: int) -> bytes:
    """Return a JPEG of an image rotated by `turns` times 90 degrees counterclockwise, with an EXIF orientation."""
    image = np.ascontiguousarray(np.rot90(numbered_image(number), turns)[..., ::-1])
    encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert encoded
    # A TIFF header, one directory, two entries: the maker's name and the orientation (CIPA DC-008, 4.6).
    tiff = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 2)
    tiff += struct.pack("<HHI4s", 0x010F, 2, 4, b"Cam\0") + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    segment = b"Exif\0\0" + tiff + struct.pack("<I", 0)
    jpeg = data.tobytes()
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 1), (8, 3), (3, 2)])
@pytest.mark.parametrize("suffix", ["avi", "mjpeg"])
def test_frames_with_exif_orientation_are_rotated(tmp_path: Path, orientation: int, turns: int, suffix: str) -> None:
    jpegs = [_jpeg_with_exif(number, orientation, turns) for number in range(6)]
    path = tmp_path / f"in.{suffix}"
    if suffix == "mjpeg":
        path.write_bytes(b"".join(jpegs))
    else:
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mjpeg", rate=25)
            stream.width, stream.height = (64, 96) if turns % 2 else (96, 64)
            stream.pix_fmt = "yuvj420p"
            out.start_encoding()
            for number, jpeg in enumerate(jpegs):
                packet = av.Packet(jpeg)
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
                out.mux(packet)
    frames = read(path)
    assert [number_of(frame) for frame in frames] == list(range(6))
    assert {corners_of(frame) for frame in frames} == {corners_of(read(write_video(tmp_path / "upright.mp4"))[0])}
