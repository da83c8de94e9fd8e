"""Streams other than the segmented one: default camera, flags, attachments and cover images."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from media import Audio, copy_video, number_of, numbered_image, read, to_pix_fmt, write_video
from test_other_cameras import write_cameras

from rtseg.core.errors import SinkError, SourceError


@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "ts"])
@pytest.mark.parametrize(("default", "stream", "expected"), [(0, None, 0), (1, None, 1), (0, 1, 1), (1, 0, 0)])
def test_segmented_camera_is_the_default_stream(
    tmp_path: Path, default: int, stream: int | None, expected: int, target: str
) -> None:
    path = write_cameras(tmp_path / "in.mkv", gop=12, frames=10, default=default)
    result = copy_video(path, tmp_path / f"out.{target}", stream=stream)
    assert (
        f"video stream {expected} (96x64) of 2 is segmented; --stream N selects another: {1 - expected} (96x64)"
        in result.notes
    )
    with av.open(str(tmp_path / f"out.{target}")) as container:
        assert [s.type for s in container.streams] == ["audio", "video", "video"]
        if target != "ts":  # MPEG-TS has no such flag
            assert [s.disposition & 1 for s in container.streams.video] == [1, 0]
        assert container.streams.audio[0].language in ("deu", "ger")
        assert container.streams.best("video").index == 1
    assert number_of(read(tmp_path / f"out.{target}", stream=0)[3]) == 3 + 100 * expected
    assert number_of(read(tmp_path / f"out.{target}", stream=1)[3]) == 3 + 100 * (1 - expected)


def test_missing_video_stream_is_a_one_line_error(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / "in.mkv", gop=12, frames=10, default=0)
    with pytest.raises(SourceError, match=r"no video stream 2 \(--stream\); it has 0 \(96x64\), 1 \(96x64\)"):
        read(path, stream=2)


def test_flags_of_copied_streams_are_kept(tmp_path: Path) -> None:
    path = write_video(tmp_path / "plain.mkv", before=[Audio()], after=[Audio(tone=880)])
    with av.open(str(path)) as source, av.open(str(tmp_path / "in.mkv"), "w") as out:
        streams = [out.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        flags = [0x80, 1, 0x40]  # hearing impaired, default, forced
        for stream, flag in zip(streams, flags, strict=True):
            stream.disposition = flag
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    copy_video(tmp_path / "in.mkv", tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [int(stream.disposition) for stream in container.streams] == flags


def test_attachment_is_copied_to_matroska_and_reported_for_mp4(tmp_path: Path) -> None:
    out = av.open(str(tmp_path / "in.mkv"), "w")
    stream: Any = out.add_stream("libx264", rate=25)
    stream.width, stream.height = 96, 64
    out.add_attachment("font.ttf", "application/x-truetype-font", b"\0\1\0\0font")
    for number in range(5):
        out.mux(stream.encode(to_pix_fmt(numbered_image(number), "yuv420p", 5, False)))
    out.mux(stream.encode(None))
    out.close()
    copy_video(tmp_path / "in.mkv", tmp_path / "out.mkv")
    assert b"\0\1\0\0font" in (tmp_path / "out.mkv").read_bytes()
    result = copy_video(tmp_path / "in.mkv", tmp_path / "out.mp4")
    assert any("attachment stream 1" in note and "dropped" in note for note in result.notes), result.notes


def _write_cover(path: Path, codec: str) -> bytes:
    """Write audio, video and a cover image; return the encoded image."""
    pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}[codec]
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 48, 32, pix_fmt, Fraction(1, 25)
    image = av.VideoFrame.from_ndarray(numbered_image(7, 48, 32), format="rgb24").reformat(format=pix_fmt)
    data = b"".join(bytes(packet) for packet in [*encoder.encode(image), *encoder.encode(None)])
    plain = write_video(path.with_name(f"plain{path.suffix}"), before=[Audio()])
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        streams = [out.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        if path.suffix == ".mkv":
            out.add_attachment("cover", {"mjpeg": "image/jpeg", "png": "image/png"}[codec], data)
        else:
            cover: Any = out.add_stream(codec, rate=25)
            cover.width, cover.height, cover.pix_fmt, cover.disposition = 48, 32, pix_fmt, 0x400
            packet = av.Packet(data)
            packet.pts, packet.stream = 0, cover
            out.mux(packet)
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    return data


def _streams(path: Path) -> list[tuple[str, bool]]:
    """Return the type of each stream and whether it is a cover image."""
    with av.open(str(path)) as container:
        return [(stream.type, bool(stream.disposition & 0x400)) for stream in container.streams]


def _cover_data(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux() if packet.size and packet.stream.disposition & 0x400]


@pytest.mark.parametrize("start", [None, 0.2])
@pytest.mark.parametrize("target", ["mp4", "mkv", "mov", "avi", "ts", "webm"])
@pytest.mark.parametrize(("source", "codec"), [("mp4", "mjpeg"), ("mp4", "png"), ("mkv", "png")])
def test_cover_image_is_kept_or_reported(
    tmp_path: Path, source: str, codec: str, target: str, start: float | None
) -> None:
    data = _write_cover(tmp_path / f"in.{source}", codec)
    assert _cover_data(tmp_path / f"in.{source}") == [data]
    result = copy_video(tmp_path / f"in.{source}", tmp_path / f"out.{target}", start=start)
    others = [("audio", False), ("video", False)]
    supported = target in ("mp4", "mkv")
    assert _cover_data(tmp_path / f"out.{target}") == ([data] if supported else [])
    assert sorted(_streams(tmp_path / f"out.{target}")) == others + [("video", True)] * supported
    assert f"cover image {'kept' if supported else 'left out'}" in result.report.line()
    assert any(f"can't hold cover image 2 ({codec}): dropped" in note for note in result.notes) != supported
    assert not any("time stamp" in note for note in result.notes), result.notes


def test_cover_image_is_left_out_with_all_other_streams(tmp_path: Path) -> None:
    _write_cover(tmp_path / "in.mp4", "png")
    copy_video(tmp_path / "in.mp4", tmp_path / "out.mp4", sink={"audio": False})
    assert _streams(tmp_path / "out.mp4") == [("video", False)]


def test_two_frames_in_one_avi_slot_are_a_one_line_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.mkv", frames=3, rate=25, time_base=Fraction(1, 1000), pts=[0, 40, 42])
    with pytest.raises(
        SinkError, match=r"avi has a constant rate of 25 FPS, and two frames are at 0.042 s: write .mp4 or"
    ):
        copy_video(path, tmp_path / "out.avi")
