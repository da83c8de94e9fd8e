"""Data outside of streams is reported. Padding, damaged boxes and standard boxes are not reported."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import pytest
from fuzz_boxes import _rows, _set_rows, parse
from media import Audio, copy_video, read, write_video

from rtseg.io.inputs.extra_data import outside_streams

APPLE_LOCATION = "com.apple.quicktime.location.ISO6709"


def _box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, name) + data


def _append_to_last_box(path: Path, name: bytes, box: bytes) -> None:
    """Append a box inside the last box of a file. `name` is the name of the last box."""
    data = bytearray(path.read_bytes())
    at = data.rindex(name) - 4
    (size,) = struct.unpack(">I", data[at : at + 4])
    assert at + size == len(data)
    data[at : at + 4] = struct.pack(">I", size + len(box))
    path.write_bytes(bytes(data) + box)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (_box(b"free", b"GPS " + bytes(range(100))), "GPS data in box 'free' (104 bytes)"),
        (_box(b"skip", b"$GPRMC,092750.000,A,5321.6802,N,00630.3372,W"), "GPS data in box 'skip'"),
        (_box(b"gps ", bytes(16)), "GPS data in box 'gps' (16 bytes)"),
        (struct.pack(">I4sQ", 1, b"gps ", 32) + bytes(16), "GPS data in box 'gps' (16 bytes)"),
        (struct.pack(">I4s", 0, b"gps ") + bytes(16), "GPS data in box 'gps' (16 bytes)"),
        (_box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + b"<xmp/>"), "XMP metadata in box 'uuid'"),
        (_box(b"thma", b"\xff\xd8\xff" * 50), "vendor data in box 'thma'"),
        (_box(b"free", bytes(range(256)) * 4), "data in box 'free'"),
        (_box(b"free", bytes(range(100, 200)) + b"GPRMC" * 20), "data in box 'free' (200 bytes)"),
        (
            struct.pack(">I4sQ", 1, b"free", 136) + bytes(100) + b"GPRMC,092750.000,A,5",
            "GPS data in box 'free' (120 bytes)",
        ),
        (b"$GPRMC,081836,A,3751.65,S,14507.36,E*62\r\n" * 30, "GPS data after the last box (1230 bytes)"),
        (b"\0" * 8 + b"$GNGGA,081836,3751.65,S,14507.36,E", "GPS data after the last box (42 bytes)"),
        (bytes(range(1, 256)), "data after the last box (255 bytes)"),
        (_box(b"mdat", b"freeGPS " + bytes(range(200))), "GPS data in box 'mdat' (208 bytes)"),
        (_box(b"mdat", bytes(range(200))), "data in box 'mdat' (200 bytes)"),
        (_box(b"meta", bytes(4) + _box(b"xml ", bytes(4) + b"<NonRealTimeMeta/>")), "metadata in box 'meta/xml'"),
    ],
)
def test_box_with_data_is_reported(tmp_path: Path, box: bytes, message: str) -> None:
    path = write_video(tmp_path / "in.mp4", frames=5)
    path.write_bytes(path.read_bytes() + box)
    notes = copy_video(path, tmp_path / "out.mp4").notes
    assert any(note.startswith(message) and note.endswith("is not copied") for note in notes), notes


@pytest.mark.parametrize(
    ("box", "box_path"),
    [
        (_box(b"gps ", bytes(64)), "moov/gps"),
        (_box(b"udta", _box(b"gpmf", b"DEVC" * 9) + bytes(4)), "moov/udta/gpmf"),
        (_box(b"meta", bytes(4) + _box(b"xml ", bytes(4) + b'<gps lat="1"/>')), "moov/meta/xml"),
        (_box(b"meta", _box(b"hdlr", bytes(24)) + _box(b"xml ", bytes(4) + b'<gps lat="1"/>')), "moov/meta/xml"),
    ],
)
def test_box_inside_moov_is_reported(tmp_path: Path, box: bytes, box_path: str) -> None:
    path = write_video(tmp_path / "in.mp4", frames=5)
    _append_to_last_box(path, b"moov", box)
    assert any(f"GPS data in box '{box_path}'" in line for line in outside_streams(path)), outside_streams(path)


@pytest.mark.parametrize(
    "box",
    [
        b"",
        _box(b"free", bytes(5000)),
        _box(b"free", b"IsoMedia File Produced with GPAC 0.5.1"),
        struct.pack(">I4s", 2, b"abcd"),
        struct.pack(">I4s", 1 << 31, b"gps "),
        struct.pack(">I4sQ", 1, b"gps ", 1 << 63),
        struct.pack(">I4sQ", 1, b"gps ", 3),
        b"\0\0\0",
        bytes(1000),
        b"\xff" * 1000,
        _box(b"mdat", b""),
        _box(b"mdat", bytes(1000)),
        struct.pack(">I4s", 5000, b"mdat") + bytes(range(256)),
        _box(b"meta", bytes(4) + _box(b"hdlr", bytes(24)) + _box(b"free", bytes(100))),
    ],
)
def test_padding_and_damage_are_not_reported(tmp_path: Path, box: bytes) -> None:
    path = write_video(tmp_path / "in.mp4", frames=5, metadata={"title": "x", "location": "+52.2+000.1/"})
    path.write_bytes(path.read_bytes() + box)
    assert outside_streams(path) == ()


@pytest.mark.parametrize("key", ["location", APPLE_LOCATION])
@pytest.mark.parametrize("target", ["mp4", "mov", "mkv", "webm", "ts", "avi", "h264"])
def test_location_metadata_is_kept_or_reported(tmp_path: Path, target: str, key: str) -> None:
    options = {"movflags": "use_metadata_tags"} if key == APPLE_LOCATION else {}
    model = "com.apple.quicktime.model"
    metadata = {key: "+52.2000+000.1000/", model: "iPhone 14"}
    path = write_video(tmp_path / "in.mov", frames=5, metadata=metadata, container_options=options)
    result = copy_video(path, tmp_path / f"out.{target}")
    with av.open(str(tmp_path / f"out.{target}")) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    kept = tags.get("location", tags.get(APPLE_LOCATION.lower()))
    assert kept in ("+52.2000+000.1000/", None)
    has_model = tags.get(model) == "iPhone 14" or not options
    lost = [key.removeprefix("com.apple.quicktime.") for key in [key] * (kept is None) + [model] * (not has_model)]
    assert sorted(result.report.metadata_lost) == sorted(lost)
    assert all(key in result.report.line() for key in lost)


def test_extra_avi_chunks_are_reported_and_standard_ones_are_not(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.avi", frames=5, codec="mjpeg", pix_fmt="yuvj420p")
    assert outside_streams(path) == ()
    text = b"$GPRMC,092750.000,A,5321.6802,N,00630.3372,W"
    path.write_bytes(path.read_bytes() + b"JUNK" + struct.pack("<I", len(text)) + text)
    assert outside_streams(path) == (f"GPS data in box 'JUNK' ({len(text)} bytes) is not copied",)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("data", [b"freeGPS " + bytes(range(100)), b"", bytes(200), bytes(range(200))])
def test_gps_between_mp4_samples_is_reported(tmp_path: Path, data: bytes, count: int) -> None:
    """Dashcams write boxes in unused ranges of `mdat`."""
    path = write_video(tmp_path / "in.mp4", frames=5, after=[Audio()])
    boxes = parse(path.read_bytes())
    mdat, moov = boxes[-2:]
    assert (mdat.name, moov.name) == (b"mdat", b"moov")
    blocks = _box(b"free", data) * count
    mdat.payload = blocks + mdat.payload + blocks
    for table in moov.all(b"stco"):
        _set_rows(table, [[offset + len(blocks)] for (offset,) in _rows(table)])
    path.write_bytes(b"".join(box.encode() for box in boxes))
    assert len(read(path)) == 5
    expected = (f"GPS data in box 'mdat' ({len(blocks)} bytes) is not copied",) if b"GPS" in data else ()
    assert outside_streams(path) == expected


def test_gps_in_avi_metadata_and_second_riff_chunk_is_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.avi", frames=5, codec="mjpeg", pix_fmt="yuvj420p", metadata={"title": "x"})
    whole = path.read_bytes()
    assert b"INFO" in whole
    assert outside_streams(path) == ()
    info = b"LIST" + struct.pack("<I", 4 + 8 + 10) + b"INFOIGPS" + struct.pack("<I", 10) + b"N48.1,E11\0"
    path.write_bytes(whole + info)
    assert outside_streams(path) == ("GPS data in box 'INFO/IGPS' (10 bytes) is not copied",)
    path.write_bytes(whole + b"RIFF" + struct.pack("<I", 104) + b"GPS " + bytes(range(100)))
    assert outside_streams(path) == ("GPS data in box 'GPS' (104 bytes) is not copied",)


def test_text_after_avi_is_reported_and_truncated_chunk_is_not(tmp_path: Path) -> None:
    path = write_video(tmp_path / "in.avi", frames=5, codec="mjpeg", pix_fmt="yuvj420p")
    whole = path.read_bytes()
    path.write_bytes(whole + b"$GPRMC,092750.000,A,5321.6802,N,00630.3372,W")
    assert outside_streams(path) == ("GPS data after the last box (44 bytes) is not copied",)
    path.write_bytes(whole[:-20])
    assert outside_streams(path) == ()


def test_other_containers_are_not_searched(tmp_path: Path) -> None:
    assert outside_streams(write_video(tmp_path / "in.mkv", frames=5)) == ()


@pytest.mark.parametrize(
    ("target", "lost"),
    [("mp4", {"com.android.version"}), ("mkv", set()), ("ts", {"title", "creation_time", "com.android.version"})],
)
def test_metadata_that_the_container_does_not_keep_is_named(tmp_path: Path, target: str, lost: set[str]) -> None:
    metadata = {"title": "Drive", "creation_time": "2026-05-01T08:11:12Z", "com.android.version": "14"}
    options = {"movflags": "use_metadata_tags"}
    path = write_video(tmp_path / "in.mp4", frames=5, metadata=metadata, container_options=options)
    result = copy_video(path, tmp_path / f"out.{target}")
    assert set(result.report.metadata_lost) == lost
    assert ("metadata not kept" in result.report.line()) == bool(lost)
