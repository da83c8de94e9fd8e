"""`FileSource`: frames, timestamps and packets of files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import Audio, Text, corners_of, number_of, numbered_image, read, run_script, write_video

from rtseg.core.frame import Frame, Passthrough
from rtseg.io.inputs.file import FileSource
from rtseg.io.options import InputOptions


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
    """Planes are views of the decoder's memory, which must not be reused while a frame references it."""
    path = write_video(tmp_path / f"a.{ending}", frames=80, b_frames=3)
    frames = read(path)
    assert [number_of(frame) for frame in frames] == list(range(80))
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


def test_planes_equal_the_decoder_output(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, size=(98, 66))
    frames = read(path)
    with av.open(str(path)) as container:
        for frame, decoded in zip(frames, container.decode(video=0), strict=True):
            stacked = decoded.to_ndarray()
            assert (frame.planes[0] == stacked[:66]).all()
            assert (np.concatenate([plane.ravel() for plane in frame.planes]) == stacked.ravel()).all()


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


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("start", "duration", "expected"), [(1.0, 0.4, range(25, 35)), (0.5, None, range(13, 60)), (None, 0.2, range(5))]
)
def test_start_and_duration_are_exact_to_the_frame(
    tmp_path: Path, ending: str, start: float | None, duration: float | None, expected: range
) -> None:
    path = write_video(tmp_path / f"a.{ending}", frames=60, gop=20, after=[Audio(seconds=2.4)])
    whole = read(path)
    source = FileSource(str(path), InputOptions(start=start, duration=duration))
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
    packets = [
        (item.stream_index, bytes(item.packet)) for item in FileSource(str(path)) if isinstance(item, Passthrough)
    ]
    assert packets == expected
    assert len({index for index, _ in packets}) == 3


def test_subtitles_and_metadata_are_read(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mkv", after=[Text([(0.1, 0.3, "left"), (0.3, 0.4, "right")])], metadata={"title": "Test"}
    )
    source = FileSource(str(path))
    texts = [bytes(item.packet) for item in source if isinstance(item, Passthrough)]
    assert texts == [b"left", b"right"]
    assert source.info.metadata["title"] == "Test"


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


@pytest.mark.parametrize(
    "name", ["concat:a.mp4|b.mp4", "http:evil.mp4", "a b.mp4", "ünïcödé 日本.mp4", "-dash.mp4", "50%d.mp4", "x'\"y.mp4"]
)
def test_file_names_are_not_parsed_as_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_video(tmp_path / "plain.mp4", frames=2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read(name)) == 2


# Standard input


COUNT_FRAMES = """
from rtseg.core.frame import Frame
from rtseg.io.inputs import open_source
print(sum(isinstance(item, Frame) for item in open_source('-')))
"""


@pytest.mark.parametrize("ending", ["mkv", "ts", "mp4"])
def test_standard_input_is_read(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"a.{ending}", frames=7)
    with path.open("rb") as file:
        process = run_script(COUNT_FRAMES, stdin=file)
    assert process.stdout.strip() == b"7", process.stderr
    if ending != "mp4":  # its index is at the end
        process = run_script(COUNT_FRAMES, input=path.read_bytes())
        assert process.stdout.strip() == b"7", process.stderr


def test_mp4_with_index_at_the_end_is_refused_from_a_pipe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=40, size=(320, 240), codec="mjpeg", pix_fmt="yuvj420p")
    assert path.stat().st_size > 1 << 16  # a small one fits into FFmpeg's buffer
    process = run_script(COUNT_FRAMES, input=path.read_bytes())
    assert b"an MP4 or MOV with its index at the end can't be read from a pipe" in process.stderr
