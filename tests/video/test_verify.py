"""Fidelity report: files of every kind are intact after source and sink, and every difference is detected."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from command import MODEL
from iso_media import tracks
from media import Audio, Text, audio_packets, copy_video, corners_of, item, number_of, read, video_sink, write_video
from proofs import keep_proof, resident_mib
from timestamp_media import concatenate, presentation_times

from rtseg.core.errors import FidelityError, SinkError, SourceError
from rtseg.core.frame import Frame, Passthrough
from rtseg.core.process_setup import keep_memory_flat
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs.file import FileSource
from rtseg.io.options import OutputOptions
from rtseg.io.outputs import Sink
from rtseg.render.style import Style
from rtseg.video.process import process
from rtseg.video.verify import Recorder, compare


def test_real_recordings(clips: Path, tmp_path: Path) -> None:
    result = copy_video(clips / "highway_540p25.mp4", tmp_path / "out.mp4", sink={"preset": "ultrafast"})
    assert result.report.line() == (
        "fidelity: 221 frames in and out, timestamps equal, length +0 ms, audio 415 packets equal, color tags kept"
    )
    assert audio_packets(clips / "highway_540p25.mp4") == audio_packets(tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as after:
        assert (after.streams.video[0].frames, after.streams.video[0].average_rate) == (221, 25)
        assert (after.streams.video[0].width, after.streams.video[0].height) == (960, 540)
    result = copy_video(clips / "cambridge_15fps.mp4", tmp_path / "out.mp4", sink={"preset": "ultrafast"})
    assert result.report.line() == "fidelity: 101 frames in and out, timestamps equal, length +0 ms, color tags kept"


# Containers


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "webm", "ts", "avi"])
@pytest.mark.parametrize("source", ["mp4", "mov", "mkv", "webm", "ts", "avi"])
def test_every_container_to_every_container(tmp_path: Path, source: str, target: str) -> None:
    webm = source == "webm"
    audio = {"webm": "libopus", "avi": "libmp3lame"}.get(source, "aac")
    path = write_video(
        tmp_path / f"in.{source}",
        codec="libvpx-vp9" if webm else "libx264",
        options={"deadline": "realtime"} if webm else {},
        before=[Audio(audio)],
        after=[Audio(audio, tone=880)],
        frames=25,
        b_frames=None if webm else 2 * (source != "avi"),
        pts=list(range(10, 35)) if source == "ts" and target != "avi" else None,
    )
    result = copy_video(path, tmp_path / f"out.{target}")
    frames = read(tmp_path / f"out.{target}")
    assert [number_of(frame) for frame in frames] == list(range(25))
    actions = {stream.action for stream in result.report.streams}
    supported = {"webm": {"libopus"}, "avi": {"libmp3lame"}}.get(target)
    copied = audio in supported if supported else not (target == "mov" and audio == "libopus")
    assert actions == ({"copied"} if copied else {"re-encoded"})
    assert len(result.report.streams) == 2


def test_raw_h264_input_and_output(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.h264", frames=20)
    result = copy_video(path, tmp_path / "out.mp4")
    assert any("without a time stamp" in note for note in result.notes)
    assert np.diff([frame.pts_seconds for frame in read(tmp_path / "out.mp4")]) == pytest.approx(0.04)
    result = copy_video(path, tmp_path / "out.h264")
    assert result.report.timestamp_error_ms is None
    assert len(read(tmp_path / "out.h264")) == 20


def test_gif_input(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.gif", codec="gif", pix_fmt="rgb8", rate=10, frames=9)
    copy_video(path, tmp_path / "out.mp4")
    assert [number_of(frame) for frame in read(tmp_path / "out.mp4")] == list(range(9))
    assert corners_of(read(tmp_path / "out.mp4")[4]) == "RGBY"


# Timestamps


@pytest.mark.parametrize("target", ["mp4", "mkv", "ts", "webm"])
@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1, 90_000), [0, 1000, 1090, 5000, 90_000, 90_090, 123_456]),
        (Fraction(1, 1000), [0, 1, 34, 500, 501, 9000, 9001]),
        (Fraction(1001, 30_000), list(range(7))),
        (Fraction(1001, 60_000), list(range(7))),
        (Fraction(1, 10_000_000), [0, 333_333, 666_667, 1_000_000, 1_333_333, 1_666_667, 2_000_000]),
    ],
    ids=["variable", "milliseconds", "29.97", "59.94", "100 ns"],
)
def test_timestamps_are_kept(tmp_path: Path, target: str, time_base: Fraction, pts: list[int]) -> None:
    path = write_video(tmp_path / "in.mp4", time_base=time_base, pts=pts, frames=7, rate=Fraction(30000, 1001))
    copy_video(path, tmp_path / f"out.{target}")
    after = [frame.pts * frame.time_base for frame in read(tmp_path / f"out.{target}")]
    tick = {"mp4": Fraction(0), "ts": Fraction(1, 90_000)}.get(target, Fraction(1, 1000))
    first = after[0]
    assert max(abs((time - first) - number * time_base) for time, number in zip(after, pts, strict=True)) <= tick


def test_single_frame(tmp_path: Path) -> None:
    for ending in ("mp4", "mkv", "webm", "ts", "avi"):
        result = copy_video(write_video(tmp_path / "in.mp4", frames=1), tmp_path / f"out.{ending}")
        assert result.report.frames_out == 1


@pytest.mark.parametrize(("first", "target"), [(10_000, "mp4"), (10_000, "mkv"), (1 << 40, "mkv")])
def test_nonzero_start_is_kept(tmp_path: Path, first: int, target: str) -> None:
    audio = Audio(start=first / 1000 - 0.5, seconds=1.5)
    times_ms = list(range(first, first + 1000, 40))
    path = write_video(tmp_path / "in.mkv", pts=times_ms, time_base=Fraction(1, 1000), after=[audio])
    copy_video(path, tmp_path / f"out.{target}")
    assert [round(frame.pts_seconds * 1000) for frame in read(tmp_path / f"out.{target}")] == times_ms


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_range_is_compared_with_the_same_range(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"in.{ending}", frames=60, gop=20, after=[Audio(seconds=2.4)])
    result = copy_video(path, tmp_path / "out.mp4", start=0.8, duration=1.0)
    assert [number_of(frame) for frame in read(tmp_path / "out.mp4")] == list(range(20, 45))
    assert result.report.streams[0].packets_out == pytest.approx(47, abs=2)


@pytest.mark.parametrize(("start", "first"), [(0.5005, 8), (0.6673, 11)])
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts", "avi"])
def test_part_of_matroska_may_begin_between_two_milliseconds(
    tmp_path: Path, ending: str, start: float, first: int
) -> None:
    path = write_video(tmp_path / "in.mkv", frames=40, rate=15, gop=10)
    copy_video(path, tmp_path / f"out.{ending}", start=start, duration=1.0)
    assert [number_of(frame) for frame in read(tmp_path / f"out.{ending}")] == list(range(first, first + 15))


@pytest.mark.parametrize(
    ("pts", "start"),
    [
        (range(60), 0.0),
        (range(60), 1.0),
        (range(50, 110), 0.0),
        (range(50, 110), 3.0),
        ([0, *range(2, 61)], 0.0),
        ([0, 1, 2, 30, 31, 33, 90, 91, 92, 93, 94, 95, 96, 120, 180], 0.5),
    ],
    ids=["aligned", "late audio", "late video", "both late", "gap at start", "variable"],
)
@pytest.mark.parametrize("time_base", [Fraction(1, 25), Fraction(1, 1000)])
def test_mp4_index_has_the_input_times(tmp_path: Path, pts: Any, start: float, time_base: Fraction) -> None:
    """The index of the MP4, parsed according to the standard, has the presentation times of the input."""
    pts = [round(number / 25 / time_base + 0.3) for number in pts]
    audio = Audio(start=start + 0.1, seconds=2)
    path = write_video(tmp_path / "in.mkv", pts=pts, time_base=time_base, after=[audio])
    expected = presentation_times(path)
    copy_video(path, tmp_path / "out.mp4")
    for track in tracks(tmp_path / "out.mp4"):
        assert [float(time) for time in track.times] == expected[["vide", "soun"].index(track.kind)]


# Frames


@pytest.mark.parametrize(("rotation", "quarter_turns"), [(-90, 1), (180, 2), (90, 3)])
def test_rotated_video_becomes_upright(tmp_path: Path, rotation: int, quarter_turns: int) -> None:
    path = tmp_path / "turned.mp4"
    write_video(path, turn=lambda image: np.rot90(image, quarter_turns), rotation=(rotation, False, False), frames=5)
    copy_video(path, tmp_path / "out.mp4")
    source = FileSource(str(tmp_path / "out.mp4"))
    assert (source.info.width, source.info.height, source.info.notes) == (96, 64, ())
    assert [corners_of(frame) for frame in source if isinstance(frame, Frame)] == ["RGBY"] * 5


@pytest.mark.parametrize("pix_fmt", ["yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuvj420p", "nv12"])
def test_pixel_formats_become_yuv420p(tmp_path: Path, pix_fmt: str) -> None:
    path = write_video(
        tmp_path / "in.mp4", pix_fmt=pix_fmt, frames=5, full_range=pix_fmt == "yuvj420p", options={"crf": "5"}
    )
    copy_video(path, tmp_path / "out.mp4", sink={"crf": 5})
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt in ("yuv420p", "yuvj420p")
    frames = read(tmp_path / "out.mp4")
    assert [number_of(frame) for frame in frames] == list(range(5))
    assert corners_of(frames[0]) == "RGBY"


@pytest.mark.parametrize(("transfer", "name"), [(16, "HDR10"), (18, "HLG")])
def test_hdr_becomes_8_bit_and_keeps_its_tags(tmp_path: Path, transfer: int, name: str) -> None:
    options = {"preset": "ultrafast", "x265-params": "log-level=none"}
    path = write_video(
        tmp_path / "in.mp4", codec="libx265", pix_fmt="yuv420p10le", tags=(9, 9, transfer), frames=3, options=options
    )
    result = copy_video(path, tmp_path / "out.mp4")
    assert any(name in note and "not tone-mapped" in note for note in result.notes)
    assert any("reduced to 8 bits" in note for note in result.notes)
    color = read(tmp_path / "out.mp4")[0].color
    assert (color.space_tag, color.primaries_tag, color.transfer_tag) == (9, 9, transfer)


@pytest.mark.parametrize(
    ("ending", "options", "expected"),
    [
        ("mp4", {"options": {"x264-params": "tff=1"}, "interlaced": True}, "not deinterlaced"),
        ("mkv", {"codec": "ffv1", "pix_fmt": "yuva420p"}, "transparency ignored"),
    ],
)
def test_ignored_property_is_reported(tmp_path: Path, ending: str, options: dict[str, Any], expected: str) -> None:
    path = write_video(tmp_path / f"in.{ending}", frames=6, **options)
    assert any(expected in note for note in copy_video(path, tmp_path / "out.mp4").notes)


def test_size_change_within_a_stream_is_stretched_and_reported(tmp_path: Path) -> None:
    sizes = (96, 64), (192, 128)
    parts = [write_video(tmp_path / f"{width}.h264", size=(width, height), frames=10) for width, height in sizes]
    joined = concatenate(tmp_path / "in.h264", *parts)
    result = copy_video(joined, tmp_path / "out.mp4")
    assert {(frame.width, frame.height) for frame in result.frames} == {(96, 64)}
    assert [number_of(frame) for frame in read(tmp_path / "out.mp4")] == [*range(10), *range(10)]
    assert any("10 frames stretched to 96x64" in note for note in result.notes)


# Streams


def _chapter(number: int, start_ms: int, end_ms: int, title: str) -> dict[str, Any]:
    times = {"start": start_ms, "end": end_ms, "time_base": Fraction(1, 1000)}
    return {"id": number, **times, "metadata": {"title": title}}


def test_subtitles_chapters_and_metadata(tmp_path: Path) -> None:
    chapters = [_chapter(1, 0, 400, "one"), _chapter(2, 400, 1000, "two")]
    for ending, codec in (("mkv", "subrip"), ("mp4", "mov_text")):
        path = write_video(
            tmp_path / f"in.{ending}",
            frames=25,
            before=[Audio(metadata={"language": "deu"})],
            after=[Text([(0.1, 0.3, "left"), (0.5, 0.8, "right")], codec, metadata={"language": "fra"})],
            metadata={"title": "Drive", "comment": "wet road"},
            chapters=chapters,
        )
        copy_video(path, tmp_path / f"out.{ending}")
        with av.open(str(tmp_path / f"out.{ending}")) as container:
            metadata = {name.lower(): value for name, value in container.metadata.items()}
            assert (metadata["title"], metadata["comment"]) == ("Drive", "wet road")
            assert [stream.language for stream in container.streams.audio] == ["deu"]
            assert [stream.language for stream in container.streams.subtitles] == ["fra"]
            titles = [(float(c["start"] * c["time_base"]), c["metadata"]["title"]) for c in container.chapters()]
            assert titles == [(0.0, "one"), (0.4, "two")]
            texts = [
                bytes(packet)[2 * (ending == "mp4") :] for packet in container.demux(subtitles=0) if packet.size > 2
            ]
        assert texts == [b"left", b"right"]


def test_chapters_of_a_range(tmp_path: Path) -> None:
    chapters = [_chapter(n, n * 400, n * 400 + 400, str(n)) for n in range(5)]
    path = write_video(tmp_path / "in.mkv", frames=50, chapters=chapters)
    copy_video(path, tmp_path / "out.mkv", start=0.6, duration=1.0)
    with av.open(str(tmp_path / "out.mkv")) as container:
        ranges = [(float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"])) for c in container.chapters()]
    assert [value for times in ranges for value in times] == pytest.approx([0.0, 0.2, 0.2, 0.6, 0.6, 1.0])


def test_unsupported_streams_are_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mkv", after=[Audio("flac"), Text([(0.1, 0.3, "left")])])
    result = copy_video(path, tmp_path / "out.ts")
    assert "mpegts can't hold audio stream 1 (flac): transcoded to aac" in result.notes
    assert any("subtitle stream 2" in note and "dropped" in note for note in result.notes)
    assert [stream.action for stream in result.report.streams] == ["re-encoded", "left out"]
    with av.open(str(tmp_path / "out.ts")) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        rate = container.streams.audio[0].rate
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(440, abs=3)
    assert len(samples) / rate == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("kind", ["audio", "subtitles"])
def test_strict_refuses_unsupported_streams(tmp_path: Path, kind: str) -> None:
    track: Any = Audio("aac") if kind == "audio" else Text([(0.1, 0.3, "left")])
    path = write_video(tmp_path / "in.mkv", after=[track])
    with pytest.raises(SinkError, match="without --strict"):
        copy_video(path, tmp_path / "out.webm", sink={"strict": True})
    assert [entry.name for entry in tmp_path.iterdir()] == ["in.mkv"]


def test_audio_can_be_omitted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mp4", before=[Audio()])
    copy_video(path, tmp_path / "out.mp4", sink={"audio": False})
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams) == 1


def test_gps_track_is_copied(tmp_path: Path) -> None:
    """Action cameras store positions in a data track; here the FourCC of a subtitle track is changed to one."""
    path = write_video(tmp_path / "in.mp4", after=[Text([(0.0, 0.2, "52.2,0.1"), (0.2, 0.4, "52.3,0.1")], "mov_text")])
    data = path.read_bytes()
    path.write_bytes(data.replace(b"tx3g", b"gpmd").replace(b"sbtl", b"meta"))
    with av.open(str(path)) as container:
        assert [stream.type for stream in container.streams] == ["video", "data"]
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.streams[0].action == "copied"
    assert b"gpmd" in (tmp_path / "out.mp4").read_bytes()
    result = copy_video(path, tmp_path / "out.mkv")
    assert any("can't hold data stream 1" in note for note in result.notes)


def test_second_video_stream_is_copied(tmp_path: Path) -> None:
    sizes = (96, 64), (192, 128)
    parts = [write_video(tmp_path / f"{width}.mp4", frames=15, size=(width, height)) for width, height in sizes]
    path = tmp_path / "two.mp4"
    with av.open(str(parts[0])) as first, av.open(str(parts[1])) as second, av.open(str(path), "w") as out:
        streams = {source: out.add_stream_from_template(source.streams.video[0]) for source in (first, second)}
        for source, stream in streams.items():
            for packet in source.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    copy_video(path, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sorted(stream.width for stream in container.streams.video) == [96, 192]
        small = next(stream for stream in container.streams.video if stream.width == 96)
        assert len(list(container.decode(small))) == 15


# Detection of differences


def _write_output(tmp_path: Path, default_audio: int = 1, **changes: Any) -> tuple[Recorder, Any]:
    """Write an output with changes at the frames or packets with these numbers, and audio up to the default stream."""
    path = write_video(tmp_path / "in.mp4", frames=20, after=[Audio()] * default_audio, tags=(1, 1, 1))
    source = FileSource(str(path))
    for stream in source.info.streams:
        stream.disposition = Disposition.default if stream.index == default_audio else Disposition(0)
    recorder = Recorder(source.info)
    sink = video_sink(tmp_path / "out.mp4", source.info, size=(96, 64))
    packets = 0
    for entry in source:
        recorder.observe(entry)
        if isinstance(entry, Passthrough):
            packets += 1
            if packets == changes.get("lose_packet"):
                continue
            if packets == changes.get("change_packet"):
                other = av.Packet(bytes(reversed(bytes(entry.packet))))
                other.pts, other.dts, other.time_base = entry.packet.pts, entry.packet.dts, entry.packet.time_base
                other.stream = entry.packet.stream
                entry = Passthrough(other, entry.stream_index)
            if packets >= changes.get("delay_packets", 1 << 30):
                entry.packet.pts += 4800
                entry.packet.dts += 4800
            sink.pass_through(entry)
            continue
        if entry.index == changes.get("lose_frame"):
            continue
        if entry.index == changes.get("move_frame"):
            entry = replace(entry, pts=entry.pts + entry.duration // 2)
        sink.write(item(entry))
    return recorder, sink.finish()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lose_frame": 7}, "20 frames in the input, 19 in the output"),
        ({"move_frame": 7}, "the timestamp of a frame is off by 20.0 ms"),
        ({"lose_packet": 7}, "audio stream 1: 48 packets in the input, 47 in the output"),
        ({"change_packet": 7}, "audio stream 1: the packets are not the same"),
        ({"delay_packets": 7}, "audio stream 1: the timestamp of a packet is off by 100.0 ms"),
    ],
)
def test_every_difference_is_detected(tmp_path: Path, change: dict[str, int], reason: str) -> None:
    recorder, written = _write_output(tmp_path, **change)
    report = compare(recorder, written)
    assert not report.ok
    assert report.problems == (reason,)
    with pytest.raises(FidelityError, match=reason):
        report.raise_if_broken()
    assert not (tmp_path / "out.mp4").exists()
    assert len(read(tmp_path / "out.partial.mp4")) >= 19
    assert json.loads(json.dumps(report.to_dict()))["problems"] == [reason]


@pytest.mark.parametrize("default_audio", [1, 2])
def test_intact_output_has_no_problem(tmp_path: Path, default_audio: int) -> None:
    recorder, written = _write_output(tmp_path, default_audio)
    report = compare(recorder, written)
    report.raise_if_broken()
    stats = json.loads(json.dumps(report.to_dict()))
    assert (stats["ok"], stats["frames_in"], stats["frames_out"], stats["timestamp_error_ms"]) == (True, 20, 20, 0.0)
    assert stats["streams"][0]["packets_in"] == stats["streams"][0]["packets_out"] == 48


def test_changed_color_tags_and_display_matrix_are_detected(tmp_path: Path) -> None:
    recorder, written = _write_output(tmp_path)
    changed = {"tags": (9, 9, 16), "rotation": (90, False, False)}
    other = write_video(tmp_path / "other.mp4", frames=20, after=[Audio()], **changed)
    report = compare(recorder, replace(written, path=other))
    assert "the color tags differ from the input's" in report.problems
    assert "players would rotate the video: the output has a display matrix" in report.problems


def test_standard_output_is_reported_as_not_verified(tmp_path: Path) -> None:
    recorder, written = _write_output(tmp_path)
    report = compare(recorder, replace(written, path=None))
    assert (report.ok, report.checked) == (True, False)
    assert "not verified" in report.line()


# Damage


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_corrupt_data_in_the_middle(tmp_path: Path, ending: str) -> None:
    audio = Audio("libmp3lame", seconds=4)
    path = tmp_path / f"in.{ending}"
    write_video(path, frames=100, gop=10, size=(192, 128), options={"crf": "5"}, after=[audio])
    data = bytearray(path.read_bytes())
    start = int(0.4 * len(data))
    data[start : start + 3000] = np.random.default_rng(3).bytes(3000)
    path.write_bytes(data)
    result = copy_video(path, tmp_path / "out.mp4")
    assert 60 <= result.report.frames_out < 100 or result.corrupt == 0
    assert result.report.frames_out == len(result.frames)
    if result.corrupt:
        assert f"{result.corrupt} damaged left out" in result.report.line()
        with pytest.raises(SourceError, match="without --strict"):
            read(path, strict=True)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("fraction", [0.9, 0.5])
def test_truncated_file(tmp_path: Path, ending: str, fraction: float) -> None:
    options = {"movflags": "faststart"} if ending == "mp4" else {}
    audio = Audio("libmp3lame", seconds=4)
    path = tmp_path / f"in.{ending}"
    write_video(path, frames=100, gop=10, after=[audio], container_options=options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    result = copy_video(path, tmp_path / "out.mp4")
    assert 100 * fraction - 20 < result.report.frames_out < 100


def test_stream_without_key_frame_at_the_start(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.ts", frames=60, gop=25, b_frames=0, options={"x264-params": "scenecut=0"})
    with av.open(str(path)) as container:
        keys = [packet.pos for packet in container.demux(video=0) if packet.is_keyframe]
    data = path.read_bytes()
    second = next(n for n in range(10) if data[n * 188 + 1] & 0x40 and n > 3)
    path.write_bytes(data[: 188 * 3] + data[188 * max(second, 3) + 188 * 6 :])
    assert len(keys) == 3
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.frames_out + result.corrupt >= 50
    assert 20 <= number_of(result.frames[-1]) < 60


def test_damaged_audio_is_copied_unchanged(tmp_path: Path) -> None:
    """Copied packets are not decoded, so damage in them does not matter. Transcoding reports it."""
    path = write_video(tmp_path / "in.mkv", frames=50, after=[Audio(seconds=2)])
    data = path.read_bytes()
    for packet in audio_packets(path)[10:60]:
        if len(packet) > 8:
            data = data.replace(packet, bytes(len(packet)))
    path.write_bytes(data)
    copy_video(path, tmp_path / "out.mp4")
    result = copy_video(path, tmp_path / "out.webm")
    assert result.report.frames_out == 50
    assert any("audio stream 1: " in note and "can't be decoded" in note for note in result.notes)


def test_wrong_size_in_the_header_is_ignored(tmp_path: Path) -> None:
    """The size is in the coded frames."""
    path = write_video(tmp_path / "in.mp4", frames=10)
    data = path.read_bytes()
    entry = data.index(b"avc1", data.index(b"stsd")) + 28
    assert data[entry : entry + 4] == bytes([0, 96, 0, 64])
    path.write_bytes(data[:entry] + bytes([0x10, 0, 0x10, 0]) + data[entry + 4 :])
    result = copy_video(path, tmp_path / "out.mp4")
    assert {(frame.width, frame.height) for frame in result.frames} == {(96, 64)}


def test_wrong_frame_rate_in_the_header_is_ignored(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.avi", frames=25, codec="mpeg4")
    data = path.read_bytes()
    position = data.index(b"strh") + 28
    path.write_bytes(data[:position] + (1).to_bytes(4, "little") + (1000).to_bytes(4, "little") + data[position + 8 :])
    result = copy_video(path, tmp_path / "out.mp4")
    assert result.report.frames_out == 25


def test_file_that_is_deleted_while_open_is_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mp4", frames=100)
    source = FileSource(str(path))
    path.unlink()
    assert sum(isinstance(entry, Frame) for entry in source) == 100


def test_late_subtitles_are_kept(tmp_path: Path) -> None:
    """With a fragmented MP4 FFmpeg aborts the process or moves frames: such an MP4 is written without fragments."""
    lines = [(11.0, 11.5, "first"), (12.0, 12.5, "second")]
    path = write_video(tmp_path / "in.mp4", frames=320, after=[Audio(seconds=12), Text(lines, "mov_text")])
    copy_video(path, tmp_path / "out.mp4", sink={"preset": "ultrafast"})
    with av.open(str(tmp_path / "out.mp4")) as container:
        texts = [(packet.pts / 1000, bytes(packet)[2:]) for packet in container.demux(subtitles=0) if packet.size > 2]
    assert texts == [(11.0, b"first"), (12.0, b"second")]


class Meter(Sink):
    """Sink that writes nothing and records memory and CPU time of the process at given frames."""

    name = "meter"
    written = 0

    def __init__(self, frames: tuple[int, ...]) -> None:
        self._frames = frames
        self.resident_mib: dict[int, float] = {}
        self.cpu_seconds: dict[int, float] = {}

    def write(self, _: Any) -> None:
        self.written += 1
        if self.written in self._frames:
            self.resident_mib[self.written] = resident_mib()
            self.cpu_seconds[self.written] = time.process_time()


@pytest.mark.proof
@pytest.mark.timeout(1200)
def test_memory_and_cpu_time_do_not_grow_over_10000_frames(tmp_path: Path) -> None:
    """Whole pipeline: memory at the end within 5 % of that after 500 frames, CPU time per frame within 20 % of the start."""
    keep_memory_flat()  # as `rtseg video` does
    path = write_video(tmp_path / "in.mp4", size=(320, 240), frames=10_000, after=[Audio(seconds=400)])
    meter = Meter((500, 2500, 8000, 10_000))
    with Segmenter(MODEL) as segmenter:
        options, out = OutputOptions(preset="ultrafast"), str(tmp_path / "out.mp4")
        result = process(str(path), out, segmenter, Style(legend=True), options, extra_sinks=[meter])
    assert result.fidelity.ok
    memory, clock = meter.resident_mib, meter.cpu_seconds
    early, late = (clock[2500] - clock[500]) / 2000, (clock[10_000] - clock[8000]) / 2000
    figures = {
        "frames": 10_000,
        "resident_mib": {str(frame): round(value, 1) for frame, value in memory.items()},
        "cpu_ms_a_frame": {"500 to 2500": round(early * 1e3, 3), "8000 to 10000": round(late * 1e3, 3)},
    }
    keep_proof("ten_thousand_frames", "pytest -m proof tests/video/test_verify.py", figures)
    assert memory[10_000] <= 1.05 * memory[500], figures
    assert late <= 1.2 * early, figures


def test_stream_without_packets(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mkv", frames=300, after=[Text([])])
    for ending in ("mkv", "mp4"):
        copy_video(path, tmp_path / f"out.{ending}", sink={"preset": "ultrafast"})
