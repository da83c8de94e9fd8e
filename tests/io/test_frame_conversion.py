"""Conversion of decoded frames: pixel format, color, orientation and aspect ratio."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from media import CORNERS, corners_of, number_of, numbered_image, read, rgb_at, to_pix_fmt, write_video

from rtseg.core.color import rgb_to_yuv_matrix
from rtseg.core.frame import Frame
from rtseg.io.inputs.file import FileSource
from rtseg.io.inputs.frame_converter import FrameConverter

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
    """The colors differ from the original image by at most four levels."""
    decoded = to_pix_fmt(numbered_image(0), pix_fmt, 1, full_range)
    rgb = decoded.format.is_rgb
    decoded.colorspace, decoded.color_range = (0, 2) if rgb else (1, 2 if full_range else 1)
    converter = FrameConverter.of(decoded)
    planes = converter.read(decoded)
    frame = Frame(planes, converter.pixel_format, converter.color, 0, Fraction(1, 25), 0)
    assert converter.pixel_format == LAYOUTS[pix_fmt]
    assert converter.color.full_range is (full_range and not rgb)
    assert converter.color.matrix == ("bt601" if rgb else "bt709")
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


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("mp4", {"tags": (2, 2, 2), "range_tag": 0}),
        ("mp4", {"tags": (5, 5, 6), "range_tag": 1}),
        ("mp4", {"tags": (5, 5, 6), "range_tag": 2, "full_range": True}),
        ("avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "full_range": True}),
    ],
)
def test_color_range_is_read(tmp_path: Path, ending: str, options: dict[str, Any]) -> None:
    (frame,) = read(write_video(tmp_path / f"a.{ending}", frames=1, **options))
    full_range = "full_range" in options
    assert (frame.color.full_range, frame.pixel_format) == (full_range, "yuv420p")
    assert frame.color.range_tag == options.get("range_tag", 2)
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
    inverse, matrix, message = TURNS[turn]
    path = write_video(tmp_path / "a.mp4", turn=inverse, rotation=matrix, frames=3, pix_fmt=pix_fmt, size=(96, 64))
    source = FileSource(str(path))
    frames = [item for item in source if isinstance(item, Frame)]
    assert (source.info.width, source.info.height) == (96, 64)
    assert [corners_of(frame) for frame in frames] == ["RGBY"] * 3
    assert [number_of(frame) for frame in frames] == [0, 1, 2]
    assert any(message in note for note in source.info.notes)
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


def test_helper_colors_match_the_conversion_formula(tmp_path: Path) -> None:
    """Check the reference colors of these tests with `rgb_to_yuv_matrix` and a lossless file."""
    frame = read(write_video(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuv444p", tags=(1, 1, 1), frames=1))[0]
    matrix = rgb_to_yuv_matrix(frame.color)
    expected = matrix[:, :3] @ np.array(CORNERS["B"]) + matrix[:, 3]
    assert np.abs(np.array([plane[56, 12] for plane in frame.planes]) - expected).max() <= 1


# EXIF orientation in JPEG frames, as some cameras write it


def _jpeg_with_exif(number: int, orientation: int, turns: int) -> bytes:
    """Return a JPEG with an EXIF orientation. The image is rotated counterclockwise by `turns` times 90 degrees."""
    image = np.ascontiguousarray(np.rot90(numbered_image(number), turns)[..., ::-1])
    encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert encoded
    # A TIFF header and one directory with two entries, the manufacturer and the orientation (CIPA DC-008, 4.6).
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
