"""Copied and transcoded audio: samples, gaps and sync with the video."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import Audio, audio_packets, copy_video, numbered_image, to_pix_fmt, write_video
from timestamp_media import concatenate, remux, shift_timestamps

from rtseg.core.errors import SinkError

CLICKS = (0.5, 1.2, 2.7, 3.4)
SECONDS = 4


def _write_clicks(
    path: Path,
    codec: str,
    rate: int,
    layout: str = "mono",
    *,
    gap: bool = False,
    delay: float = 0.0,
    video: str = "mpeg4",
    clicks: Sequence[float] = CLICKS,
    click_seconds: float = 0.01,
) -> Path:
    """Write 4 s of video with audible clicks at `clicks` plus `delay`, seconds. `gap` drops the packets from 1.6 to 2.4 s."""
    wave = np.zeros(rate * SECONDS, np.int16)
    tone = (24000 * np.sin(np.arange(round(rate * click_seconds)) * 2 * np.pi * 1000 / rate)).astype(np.int16)
    for click in clicks:
        target = wave[round(click * rate) :][: len(tone)]
        target[:] = tone[: len(target)]
    out = av.open(str(path), "w")
    stream: Any = out.add_stream(video, rate=25)
    stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if video == "mjpeg" else "yuv420p"
    audio: Any = out.add_stream(codec, rate=rate)
    context = audio.codec_context
    context.layout, context.bit_rate = layout, 64_000
    context.options = {"strict": "-2"}
    context.open()
    packets = []
    for number in range(25 * SECONDS):
        frame = to_pix_fmt(numbered_image(number), stream.pix_fmt, 5, video == "mjpeg")
        frame.pts = number
        packets += stream.encode(frame)
    packets += stream.encode(None)
    samples = np.repeat(wave[:, None], context.layout.nb_channels, 1).reshape(1, -1)
    audio_frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
    audio_frame.sample_rate, audio_frame.pts, audio_frame.time_base = rate, 0, Fraction(1, rate)
    resampler = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 800)
    audio_packets = []
    for piece in [*resampler.resample(audio_frame), *resampler.resample(None)]:
        piece.pts = (piece.pts or 0) + round(delay * rate)
        audio_packets += audio.encode(piece)
    audio_packets += audio.encode(None)
    out.start_encoding()
    if gap:
        audio_packets = [
            packet for packet in audio_packets if not 1.6 <= float(packet.pts * packet.time_base) - delay < 2.4
        ]
    for packet in sorted([*packets, *audio_packets], key=lambda packet: packet.dts * packet.time_base):
        out.mux(packet)
    out.close()
    return path


def _clicks(path: Path, first: float | None = None) -> list[float]:
    """Decode a file with PyAV; return the start times of clicks, seconds after the first frame or after `first`."""
    with av.open(str(path)) as container:
        stamps = [p.dts if p.pts is None else p.pts for p in container.demux(video=0) if p.size]
        begin = float(min(stamp for stamp in stamps if stamp is not None) * container.streams.video[0].time_base)
        first = begin if first is None else first
    times, levels, end = [], [], 0.0
    resamplers: dict[tuple[str, str, int], av.AudioResampler] = {}
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            # Packed samples, because PyAV reads past the end of planar frames with eight or more channels.
            key = frame.format.name, frame.layout.name, frame.sample_rate
            if key not in resamplers:
                resamplers[key] = av.AudioResampler("flt", frame.layout, frame.sample_rate)
            (packed,) = resamplers[key].resample(frame)
            values = packed.to_ndarray().reshape(-1, frame.layout.nb_channels)[:, 0]
            begin = end if frame.pts is None else float(frame.pts * frame.time_base)
            times.append(begin + np.arange(len(values)) / frame.sample_rate)
            levels.append(np.abs(values))
            end = begin + len(values) / frame.sample_rate
    loud = np.concatenate(times)[np.concatenate(levels) > 0.25] - first
    return [float(time) for index, time in enumerate(loud) if not index or time - loud[index - 1] > 0.2]


def _output_clicks(path: Path) -> list[float]:
    """Return `_clicks` of an output. For H.264 in AVI, FFmpeg generates video timestamps that are one frame late."""
    return [time + (0.04 if path.suffix == ".avi" else 0) for time in _clicks(path)]


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "webm", "ts", "avi"])
@pytest.mark.parametrize(
    ("codec", "source", "rate", "layout"),
    [
        ("adpcm_ima_wav", "avi", 8000, "mono"),
        ("adpcm_ms", "avi", 22050, "stereo"),
        ("pcm_alaw", "mov", 8000, "mono"),
        ("pcm_s16be", "mkv", 96000, "5.1"),
        ("nellymoser", "flv", 11025, "mono"),
        ("wmav2", "asf", 44100, "stereo"),
        ("flac", "mkv", 48000, "5.1"),
        ("flac", "mkv", 48000, "7.1"),
        ("pcm_s16le", "mkv", 48000, "8 channels"),
        ("pcm_s24le", "mov", 48000, "hexadecagonal"),
        ("pcm_s16le", "mkv", 32000, "9 channels"),
    ],
)
def test_audio_of_any_codec_keeps_its_time_in_any_container(
    tmp_path: Path, codec: str, source: str, rate: int, layout: str, target: str
) -> None:
    video = {"flv": "flv", "asf": "wmv2"}.get(source, "mjpeg")
    path = _write_clicks(tmp_path / f"in.{source}", codec, rate, layout, video=video)
    before = _clicks(path)
    assert len(before) == len(CLICKS)
    result = copy_video(path, tmp_path / f"out.{target}")
    assert [stream.action for stream in result.report.streams] in (["copied"], ["re-encoded"])
    assert ("transcoded to" in " ".join(result.notes)) == (result.report.streams[0].action == "re-encoded")
    assert _output_clicks(tmp_path / f"out.{target}") == pytest.approx(before, abs=0.02)


@pytest.mark.parametrize("start", [None, 1.0])
@pytest.mark.parametrize("target", ["mp4", "mkv", "avi"])
def test_g726_in_avi_has_the_times_of_its_header(tmp_path: Path, target: str, start: float | None) -> None:
    path = _write_clicks(tmp_path / "in.avi", "g726", 8000, video="mjpeg")
    assert _clicks(path)[-1] > 60  # FFmpeg computes wrong times from its own file
    copy_video(path, tmp_path / f"out.{target}", start=start)
    expected = [click - (start or 0) for click in CLICKS if click > (start or 0)]
    assert _output_clicks(tmp_path / f"out.{target}") == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "webm", "ts", "avi"])
@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "flac"])
def test_audio_gap_and_late_start_are_kept(tmp_path: Path, codec: str, target: str) -> None:
    path = _write_clicks(tmp_path / "in.mkv", codec, 16000, gap=True, delay=0.3)
    assert _clicks(path) == pytest.approx([click + 0.3 for click in CLICKS], abs=0.02)
    copy_video(path, tmp_path / f"out.{target}")
    assert _output_clicks(tmp_path / f"out.{target}") == pytest.approx([click + 0.3 for click in CLICKS], abs=0.02)


def _samples(path: Path) -> np.ndarray:
    """Return the samples of the first channel, or of all channels if they are packed."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


@pytest.mark.parametrize("codec", ["pcm_alaw", "pcm_mulaw"])
@pytest.mark.parametrize("source", ["avi", "mov", "mkv"])
def test_g711_is_copied_to_matroska_and_keeps_its_samples_from_it(tmp_path: Path, source: str, codec: str) -> None:
    path = _write_clicks(tmp_path / f"in.{'mov' if source == 'mkv' else source}", codec, 8000, video="mjpeg")
    expected = _samples(path)
    # The name contains all special characters of the muxer `tee`.
    matroska = tmp_path / "a [f=mov] b|'\\c.mkv"
    result = copy_video(path, matroska, sink={"strict": True})
    assert result.notes == ()
    path = matroska if source == "mkv" else path
    for target in ("mkv", "mov", "avi", "mp4"):
        out = tmp_path / f"out.{target}"
        result = copy_video(path, out)
        with av.open(str(out)) as container:
            output_codec = container.streams.audio[0].codec_context.name
            assert container.streams.video[0].codec_context.extradata
        if target == "mp4":
            assert result.notes == (f"mp4 can't hold audio stream 1 ({codec}): transcoded to aac",)
            continue
        # Of these containers, only Matroska supports gaps in audio.
        assert output_codec == (codec if target == "mkv" or source != "mkv" else "pcm_s16le")
        assert np.array_equal(_samples(out), expected)


@pytest.mark.parametrize("codec", ["adpcm_ms", "adpcm_ima_wav", "adpcm_yamaha", "wmav2"])
def test_codecs_with_avi_codec_numbers_are_copied_to_matroska(tmp_path: Path, codec: str) -> None:
    path = _write_clicks(tmp_path / "in.avi", codec, 22050, video="mjpeg")
    copy_video(path, tmp_path / "out.mkv", sink={"strict": True})
    assert np.array_equal(_samples(tmp_path / "out.mkv"), _samples(path))


@pytest.mark.parametrize("start", [None, 1.0])
@pytest.mark.parametrize(("codec", "rate"), [("ac3", 48000), ("mp2", 48000), ("libmp3lame", 44100)])
def test_avi_audio_is_copied_to_avi(tmp_path: Path, codec: str, rate: int, start: float | None) -> None:
    """The AVI header of AC-3 has a block size, from which FFmpeg's muxer computes wrong times."""
    path = _write_clicks(tmp_path / "in.avi", codec, rate, video="mjpeg")
    result = copy_video(path, tmp_path / "out.avi", start=start, sink={"strict": True})
    assert [stream.action for stream in result.report.streams] == ["copied"]
    expected = [click - (start or 0) for click in _clicks(path, 0.0) if click > (start or 0)]
    tolerance = 0.002 if start is None else 0.033  # AVI times have a resolution of one packet: 32 ms in AC-3
    assert _clicks(tmp_path / "out.avi", 0.0) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("start", [0.6, 0.7, 0.8, 0.9])
def test_part_with_repetitive_and_late_audio_is_in_sync(tmp_path: Path, start: float) -> None:
    """Clicks of a turn signal in packets of 0.37 s. The audio begins with the first packet that begins in the part."""
    signal_clicks = np.arange(0.1, SECONDS, 0.322)
    path = _write_clicks(
        tmp_path / "in.asf", "wmav2", 22050, video="wmv2", clicks=list(signal_clicks), click_seconds=0.12
    )
    copy_video(path, tmp_path / "out.mp4", start=start, duration=0.9)
    clicks = _clicks(tmp_path / "out.mp4")
    assert clicks
    assert all(min(abs(signal_clicks - start - click)) < 0.02 for click in clicks[1:])


def test_g711_with_chapters_becomes_lossless_pcm_in_matroska(tmp_path: Path) -> None:
    chapter = {"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}
    path = write_video(
        tmp_path / "in.mov",
        codec="mjpeg",
        pix_fmt="yuvj420p",
        frames=25,
        after=[Audio("pcm_mulaw", 8000)],
        chapters=[chapter],
    )
    result = copy_video(path, tmp_path / "out.mkv")
    assert np.array_equal(_samples(tmp_path / "out.mkv"), _samples(path))
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["one"]
    reason = "audio stream 1 (pcm_mulaw) can't be copied to matroska together with chapters"
    assert f"{reason}: transcoded to pcm_s16le" in result.notes


def _write_pcm(path: Path, layout: str) -> None:
    """Write 1 s of video with PCM audio, whose channels have different samples."""
    channels = av.AudioLayout(layout).nb_channels
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("mjpeg", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuvj420p"
        audio: Any = out.add_stream("pcm_s16le", rate=44100)
        audio.codec_context.layout = layout
        for number in range(25):
            frame = to_pix_fmt(numbered_image(number), "yuvj420p", 5, True)
            frame.pts = number
            out.mux(video.encode(frame))
            samples = np.arange(1764)[:, None] + 1000 * np.arange(channels)
            piece = av.AudioFrame.from_ndarray(samples.astype(np.int16).reshape(1, -1), format="s16", layout=layout)
            piece.sample_rate, piece.pts = 44100, 1764 * number
            out.mux(audio.encode(piece))
        out.mux(video.encode(None))


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("layout", ["stereo", "2 channels", "4 channels", "9 channels"])
def test_pcm_channels_without_a_layout_are_kept(tmp_path: Path, layout: str, target: str) -> None:
    _write_pcm(tmp_path / "in.avi", layout)
    with av.open(str(tmp_path / "in.avi")) as container:
        assert "channels" in container.streams.audio[0].layout.name
    result = copy_video(tmp_path / "in.avi", tmp_path / f"out.{target}")
    if (layout, target) == ("9 channels", "mp4"):
        assert any("transcoded to aac, mixed from 9 channels to 2" in note for note in result.notes), result.notes
        return
    assert np.array_equal(_samples(tmp_path / "in.avi"), _samples(tmp_path / f"out.{target}"))


@pytest.mark.parametrize(
    ("codec", "target"),
    [("mp2", "webm"), ("aac", "mp4"), ("aac", "mov"), ("aac", "mkv"), ("aac", "ts")],
)
def test_audio_that_changes_rate_and_channels_is_complete(tmp_path: Path, codec: str, target: str) -> None:
    parts = [
        write_video(
            tmp_path / f"{number}.ts",
            frames=25,
            pts=range(25 * number, 25 * number + 25),
            codec="mpeg2video",
            b_frames=0,
            container_options={"muxdelay": "0"},
            after=[Audio(codec, rate, start=number, tone=500, layout=layout)],
        )
        for number, (rate, layout) in enumerate([(44100, "mono"), (48000, "stereo")])
    ]
    path = concatenate(tmp_path / "in.ts", *parts)
    copy_video(path, tmp_path / f"out.{target}")
    with av.open(str(tmp_path / f"out.{target}")) as container:
        values = np.concatenate([f.to_ndarray()[0] for f in _resample_to_48_khz(container)])
    assert len(values) / 48000 == pytest.approx(2.0, abs=0.1)
    for second in (0.5, 1.5):  # both halves have the same frequency
        part = values[round(second * 48000) - 9600 :][:19200]
        assert np.argmax(np.abs(np.fft.rfft(part))) * 48000 / len(part) == pytest.approx(500, abs=10)
        assert np.abs(part).max() > 0.1


def _resample_to_48_khz(container: Any) -> list[Any]:
    """Decode audio whose format may change; return mono frames at 48 kHz."""
    frames: list[Any] = []
    resamplers: dict[tuple[int, str], av.AudioResampler] = {}
    for frame in container.decode(audio=0):
        key = (frame.sample_rate, frame.layout.name)
        frames += resamplers.setdefault(key, av.AudioResampler("flt", "mono", 48000)).resample(frame)
    return frames


NO_TIMES = "has no times for audio stream 1"


@pytest.mark.parametrize(
    ("codec", "layout", "target", "note"),
    [
        ("pcm_s16le", "mono", "mov", f"{NO_TIMES} (pcm_s16le): transcoded to pcm_s16le, to keep gaps"),
        ("pcm_s16le", "mono", "avi", f"{NO_TIMES} (pcm_s16le): transcoded to pcm_s16le, to keep gaps"),
        ("mp2", "mono", "avi", f"{NO_TIMES} (mp2): transcoded to mp3, to keep gaps"),
        ("flac", "5.1", "avi", "can't hold audio stream 1 (flac): transcoded to mp3, mixed from 6 channels to 2"),
    ],
)
def test_reason_for_transcoding_is_reported(tmp_path: Path, codec: str, layout: str, target: str, note: str) -> None:
    result = copy_video(_write_clicks(tmp_path / "in.mkv", codec, 16000, layout), tmp_path / f"out.{target}")
    assert f"{target} {note}" in result.notes


def test_strict_refuses_to_transcode(tmp_path: Path) -> None:
    path = _write_clicks(tmp_path / "in.avi", "adpcm_ima_wav", 8000, video="mjpeg")
    with pytest.raises(SinkError, match="without --strict it is transcoded to aac"):
        copy_video(path, tmp_path / "out.mp4", sink={"strict": True})


@pytest.mark.parametrize("target", ["mp4", "mkv", "ts", "mov"])
@pytest.mark.parametrize(("first", "count"), [(40, 3), (60, 1), (20, 6)])
def test_damaged_aac_in_mpeg_ts_loses_only_its_own_packets(tmp_path: Path, first: int, count: int, target: str) -> None:
    """MPEG-TS packets are missing, as in files of cameras and broadcast recorders."""
    path = write_video(tmp_path / "whole.ts", frames=75, gop=250, b_frames=0, after=[Audio(seconds=3)])
    data = path.read_bytes()
    (tmp_path / "in.ts").write_bytes(data[: first * 188] + data[(first + count) * 188 :])
    result = copy_video(tmp_path / "in.ts", tmp_path / f"out.{target}")
    with av.open(str(tmp_path / "in.ts")) as container:
        container.streams.video[0].thread_type = "NONE"
        decoded = 0
        for packet in container.demux(video=0):
            with contextlib.suppress(av.FFmpegError):
                decoded += sum(not frame.is_corrupt for frame in packet.decode())
    assert len(result.frames) == decoded
    counts = [len(audio_packets(tmp_path / name)) for name in ("whole.ts", "in.ts", f"out.{target}")]
    left_out = sum(int(note.split(":")[1].split()[0]) for note in result.notes if "damaged packet" in note)
    assert counts[2] == counts[1] - left_out >= counts[0] - 8


@pytest.mark.parametrize("begins", [0.5, 0.7, 0.72])
def test_pcm_with_an_edit_list_is_copied(tmp_path: Path, begins: float) -> None:
    """A losslessly cut MOV, whose edit list hides the packets before the start."""
    path = write_video(
        tmp_path / "whole.mov", frames=75, codec="mjpeg", pix_fmt="yuvj420p", after=[Audio("pcm_s16le", seconds=3)]
    )
    remux(path, tmp_path / "in.mov", shift_timestamps(-begins))
    for target in ("mp4", "mov", "mkv"):
        copy_video(tmp_path / "in.mov", tmp_path / f"out.{target}")


def test_transcoded_audio_keeps_the_gap_of_missing_packets(tmp_path: Path) -> None:
    path = write_video(tmp_path / "whole.mkv", frames=75, after=[Audio(seconds=3)])
    remux(path, tmp_path / "in.mkv", lambda packet, number: packet.stream.type == "video" or not 59 <= number < 62)
    copy_video(tmp_path / "in.mkv", tmp_path / "out.webm")
    with av.open(str(tmp_path / "out.webm")) as container:
        audio_seconds = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    assert audio_seconds == pytest.approx(3.0, abs=0.03)
