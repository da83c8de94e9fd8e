"""Test videos, written with PyAV in any codec and container. Each frame displays its number and its orientation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags

from rtseg.core.color import yuv_to_rgb_matrix
from rtseg.core.cpu import without_real_time_priority
from rtseg.core.fidelity_report import FidelityReport
from rtseg.core.frame import Color, Frame, Passthrough, ProcessedFrame, StreamInfo
from rtseg.io.inputs.file import FileSource
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.options import InputOptions, OutputOptions
from rtseg.io.outputs.file_sink import FileSink, WrittenFile
from rtseg.io.outputs.video import open_video
from rtseg.video.verify import Recorder, compare

BITS = 8
_TESTS = Path(__file__).parent
CORNERS = {"R": (200, 30, 30), "G": (30, 180, 40), "B": (40, 50, 200), "Y": (220, 210, 40)}


def numbered_image(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Return an RGB image, uint8 `[height, width, 3]`, with a number and an orientation.

    The quarters are red (top left), green (top right), blue (bottom left) and yellow (bottom right). The number is in the
    middle, as `BITS` black or white columns.
    """
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = CORNERS["R"], CORNERS["G"]
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = CORNERS["B"], CORNERS["Y"]
    for bit in range(BITS):
        left, right = (width * bit // BITS, width * (bit + 1) // BITS)
        image[height // 3 : 2 * height // 3, left:right] = 255 if number >> bit & 1 else 0
    return image


def number_of(frame: Frame) -> int:
    """Return the number in the middle of a frame."""
    row = frame.planes[0][frame.height // 2]
    centers = [frame.width * (2 * bit + 1) // (2 * BITS) for bit in range(BITS)]
    return sum(1 << bit for bit, x in enumerate(centers) if row[x] > 127)


def rgb_at(frame: Frame, x: int, y: int) -> np.ndarray:
    """Return the RGB color of a pixel, converted with the matrix and range of the frame."""
    height, width = frame.planes[0].shape
    yuv = [float(plane[y * plane.shape[0] // height, x * plane.shape[1] // width]) for plane in frame.planes]
    matrix = yuv_to_rgb_matrix(frame.color)
    return np.clip(matrix[:, :3] @ yuv + matrix[:, 3], 0, 255)


def corners_of(frame: Frame) -> str:
    """Return the colors of the corners (top left, top right, bottom left, bottom right): `RGBY` if the frame is upright."""
    names = ""
    for y in (frame.height // 8, frame.height * 7 // 8):
        for x in (frame.width // 8, frame.width * 7 // 8):
            color = rgb_at(frame, x, y)
            names += min(CORNERS, key=lambda name: float(np.abs(color - CORNERS[name]).sum()))
    return names


@dataclass(frozen=True)
class Audio:
    """Audio track with a tone."""

    codec: str = "aac"
    rate: int = 48000
    seconds: float = 1.0
    start: float = 0.0
    tone: float = 440.0
    layout: str = "mono"
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """Subtitle track with lines of (start, end, text)."""

    lines: Sequence[tuple[float, float, str]]
    codec: str = "subrip"
    metadata: Mapping[str, str] = field(default_factory=dict)


def write_video(
    path: str | Path,
    *,
    frames: int = 12,
    size: tuple[int, int] = (96, 64),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction | int = 25,
    time_base: Fraction | None = None,
    pts: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    tags: tuple[int, int, int] = (2, 2, 2),
    full_range: bool = False,
    range_tag: int | None = None,
    turn: Callable[[np.ndarray], np.ndarray] = lambda image: image,
    rotation: tuple[float, bool, bool] | None = None,
    aspect: Fraction | None = None,
    before: Sequence[Audio | Text] = (),
    after: Sequence[Audio | Text] = (),
    metadata: Mapping[str, str] | None = None,
    chapters: Sequence[Mapping[str, Any]] = (),
    gop: int | None = None,
    b_frames: int | None = None,
    container: str | None = None,
    container_options: Mapping[str, str] | None = None,
    interlaced: bool = False,
) -> Path:
    """Write a video of numbered frames.

    `pts` are in units of `time_base` (default 1/rate). `turn` is applied to the RGB image before encoding. `rotation` is the
    display matrix (degrees counterclockwise, mirrored, upside down). `tags` are the H.273 matrix, primaries and transfer.
    """
    rate = Fraction(rate)
    time_base = time_base or 1 / rate
    pts = list(range(frames)) if pts is None else list(pts)
    out = av.open(str(path), "w", format=container, container_options=dict(container_options or {}))
    others = [(track, _add_track(out, track)) for track in before]
    coded_height, coded_width = turn(numbered_image(0, *size)).shape[:2]
    video = out.add_stream(codec, rate=rate, options=dict(options or {}))
    context = video.codec_context
    video.width, video.height, video.pix_fmt = coded_width, coded_height, pix_fmt
    video.time_base = context.time_base = time_base
    context.flags |= Flags.frame_duration
    if interlaced:
        context.flags |= Flags.interlaced_dct | Flags.interlaced_me
    if gop is not None:
        context.gop_size = gop
    if b_frames is not None:
        context.max_b_frames = b_frames
    context.colorspace, context.color_primaries, context.color_trc = tags
    range_tag = (2 if full_range else 0) if range_tag is None else range_tag
    context.color_range = range_tag
    if aspect:
        context.sample_aspect_ratio = aspect
    if rotation:
        video.set_display_rotation(*rotation)
    others += [(track, _add_track(out, track)) for track in after]
    out.metadata.update(metadata or {})
    if chapters:
        out.set_chapters([dict(chapter) for chapter in chapters])
    if codec == "libsvtav1":  # otherwise the first frame would open it
        with without_real_time_priority():
            context.open()
    packets = []
    for number, stamp in enumerate(pts):
        frame = to_pix_fmt(turn(numbered_image(number % (1 << BITS), *size)), pix_fmt, tags[0], full_range)
        frame.color_range = range_tag
        frame.colorspace, frame.color_primaries, frame.color_trc = tags
        frame.pts, frame.time_base, frame.pict_type = stamp, time_base, 0
        later = pts[number + 1] if number + 1 < len(pts) else stamp + max(1, round(1 / (rate * time_base)))
        frame.duration = max(1, later - stamp)
        packets += video.encode(frame)
    packets += video.encode(None)
    # Writing the header sets the time bases of the streams. Packets are sorted by decoding time, as players expect.
    out.start_encoding()
    for track, stream in others:
        packets += _packets(track, stream)
    for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
        out.mux(packet)
    out.close()
    return Path(path)


def to_pix_fmt(image: np.ndarray, pix_fmt: str, space_tag: int, full_range: bool) -> av.VideoFrame:
    """Convert an RGB image to a pixel format, with the matrix of `space_tag` (BT.601 if it is unspecified)."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    if pix_fmt.startswith(("rgb", "bgr", "gbr", "pal", "0rgb")):
        return frame.reformat(format=pix_fmt, threads=1)
    matrix = {1: 1, 9: 9}.get(space_tag, 5)
    return frame.reformat(
        format=pix_fmt,
        src_color_range=2,
        dst_colorspace=matrix,
        dst_color_range=2 if full_range else 1,
        interpolation="BICUBIC",
        threads=1,
    )


def _add_track(out: Any, track: Audio | Text) -> Any:
    if isinstance(track, Text):
        stream = out.add_mux_stream(track.codec, time_base=Fraction(1, 1000))
    else:
        stream = out.add_stream(track.codec, rate=track.rate)
        stream.codec_context.layout = track.layout
        if track.codec == "libopus":
            stream.codec_context.format = "s16"
    stream.metadata.update(track.metadata)
    return stream


def _packets(track: Audio | Text, stream: Any) -> list[av.Packet]:
    packets = []
    if isinstance(track, Text):
        for start, end, text in track.lines:
            data = text.encode()
            if track.codec == "mov_text":
                data = len(data).to_bytes(2, "big") + data
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = round(start * 1000)
            packet.duration = round((end - start) * 1000)
            packets.append(packet)
        return packets
    context = stream.codec_context
    samples = np.arange(int(track.rate * track.seconds))
    wave = np.sin(samples * 2 * np.pi * track.tone / track.rate) * 12000
    audio = av.AudioFrame.from_ndarray(wave[None].astype(np.int16), format="s16", layout="mono")
    audio.rate, audio.pts, audio.time_base = track.rate, 0, Fraction(1, track.rate)
    resampler = av.AudioResampler(context.format, context.layout, track.rate, frame_size=context.frame_size or 1024)
    frames = [*resampler.resample(audio), *resampler.resample(None)]
    offset = round(track.start * track.rate)
    for frame in frames:
        frame.pts = (frame.pts or 0) + offset
        packets += stream.encode(frame)
    return packets + stream.encode(None)


@dataclass(frozen=True)
class Result:
    """Result of `copy_video`."""

    frames: list[Frame]
    report: FidelityReport
    written: WrittenFile
    notes: tuple[str, ...]
    corrupt: int


def copy_video(
    source_path: str | Path,
    output: str | Path,
    *,
    sink: Mapping[str, Any] | None = None,
    verified: bool = True,
    **source: Any,
) -> Result:
    """Process a file with source, sink and fidelity report like `rtseg video`, but without a model.

    With `verified`, the output must be the same as the input.
    """
    options = InputOptions(**source)
    video = FileSource(str(source_path), options)
    recorder = Recorder(video.info)
    target = video_sink(output, video.info, **(sink or {}))
    frames = []
    classes = np.zeros((4, 4), np.uint8)
    try:
        for item in video:
            recorder.observe(item)
            if isinstance(item, Passthrough):
                target.pass_through(item)
            else:
                frames.append(item)
                target.write(ProcessedFrame(item, classes, item, video.info))
        written = target.finish()
        report = compare(recorder, written, corrupt=video.corrupt, source=str(source_path), options=options)
        assert report.ok or not verified, report.line()
        if report.ok:
            target.close()
        return Result(frames, report, written, (*video.info.notes, *video.warnings, *target.warnings), video.corrupt)
    except BaseException:
        target.abort()
        raise
    finally:
        video.close()


def read(path: str | Path, **options: Any) -> list[Frame]:
    """Return all frames of a file."""
    source = FileSource(str(path), InputOptions(**options))
    try:
        return [item for item in source if isinstance(item, Frame)]
    finally:
        source.close()


def audio_packets(path: str | Path) -> list[bytes]:
    """Return the packets of the first audio stream of a file."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def numbered_frame(number: int, size: tuple[int, int] = (96, 64), pix_fmt: str = "yuv420p", **color: Any) -> Frame:
    """Return a numbered frame that was not read from a file."""
    decoded = to_pix_fmt(numbered_image(number, *size), pix_fmt, 5, False)
    planes = FrameConverter.of(decoded).read(decoded)
    return Frame(planes, pix_fmt, Color("bt601", False, **color), number, Fraction(1, 25), number, 1)


def info(size: tuple[int, int] = (96, 64), pix_fmt: str = "yuv420p", **changes: Any) -> StreamInfo:
    """Return the properties of a stream of `numbered_frame`s."""
    usual = {"color": Color("bt601", False), "time_base": Fraction(1, 25), "frame_rate": Fraction(25)}
    return StreamInfo("test", *size, pix_fmt, **{**usual, **changes})


def item(rendered: Frame) -> ProcessedFrame:
    """Return the input of a sink for a frame."""
    stream = info((rendered.width, rendered.height), rendered.pixel_format)
    return ProcessedFrame(rendered, np.zeros((4, 4), np.uint8), rendered, stream)


def video_sink(
    path: str | Path,
    stream: StreamInfo,
    size: tuple[int, int] | None = None,
    *,
    strict: bool = False,
    live: bool = False,
    **options: Any,
) -> FileSink:
    """Open the sink of a video; `options` are those of `OutputOptions`, and `size` is that of the stream if not given."""
    size = size or (stream.width, stream.height)
    return open_video(path, stream, size, OutputOptions(**options), strict=strict, live=live)


def fill(sink: FileSink, count: int = 10, size: tuple[int, int] = (96, 64), pix_fmt: str = "yuv420p") -> None:
    """Write numbered frames to a sink."""
    for number in range(count):
        sink.write(item(numbered_frame(number, size, pix_fmt)))


def run_script(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run code in another process, in which `fill`, `info`, `video_sink`, `SinkError` and `sys` are imported.

    `options` are those of `subprocess.run`.
    """
    imports = "import sys\nfrom media import fill, info, video_sink\nfrom rtseg.core.errors import SinkError\n"
    command = [sys.executable, "-c", imports + code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (_TESTS.parent, _TESTS, _TESTS / "io")))}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, env=environment, timeout=150, check=False, **options)
