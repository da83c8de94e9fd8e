"""Test inputs written with PyAV: pictures that carry their number and their orientation, in any codec and container."""

from __future__ import annotations

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
from rtseg.core.frame import Color, Frame, Passthrough, SegmentedFrame, StreamInfo
from rtseg.io.inputs.file import FileSource
from rtseg.io.inputs.frame_converter import FrameConverter
from rtseg.io.outputs.video import VideoSink, Written
from rtseg.video.verify import InputFile, Recorder, compare
from rtseg.video.verify_report import FidelityReport

BITS = 8
CORNERS = {"R": (200, 30, 30), "G": (30, 180, 40), "B": (40, 50, 200), "Y": (220, 210, 40)}


def picture(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """RGB: red, green, blue and yellow quarters (top left, top right, bottom left, bottom right); `number` in the middle."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = CORNERS["R"], CORNERS["G"]
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = CORNERS["B"], CORNERS["Y"]
    for bit in range(BITS):
        left, right = (width * bit // BITS, width * (bit + 1) // BITS)
        image[height // 3 : 2 * height // 3, left:right] = 255 if number >> bit & 1 else 0
    return image


def number_of(frame: Frame) -> int:
    """The number in the middle of the picture."""
    row = frame.planes[0][frame.height // 2]
    centers = [frame.width * (2 * bit + 1) // (2 * BITS) for bit in range(BITS)]
    return sum(1 << bit for bit, x in enumerate(centers) if row[x] > 127)


def rgb_at(frame: Frame, x: int, y: int) -> np.ndarray:
    """The color of one pixel, by the frame's own matrix and range."""
    height, width = frame.planes[0].shape
    yuv = [float(plane[y * plane.shape[0] // height, x * plane.shape[1] // width]) for plane in frame.planes]
    matrix = yuv_to_rgb_matrix(frame.color)
    return np.clip(matrix[:, :3] @ yuv + matrix[:, 3], 0, 255)


def corners_of(frame: Frame) -> str:
    """The colors of the corners, top left, top right, bottom left, bottom right: `RGBY` where it is upright."""
    names = ""
    for y in (frame.height // 8, frame.height * 7 // 8):
        for x in (frame.width // 8, frame.width * 7 // 8):
            color = rgb_at(frame, x, y)
            names += min(CORNERS, key=lambda name: float(np.abs(color - CORNERS[name]).sum()))
    return names


@dataclass(frozen=True)
class Audio:
    """A sound track: a tone."""

    codec: str = "aac"
    rate: int = 48000
    seconds: float = 1.0
    start: float = 0.0
    tone: float = 440.0
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """A subtitle track: (start, end, text)."""

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
    """Writes a video of numbered pictures.

    `pts` are in `time_base` (default 1/rate). `turn` is applied to the RGB picture before encoding, `rotation` is the
    display matrix (degrees counterclockwise, mirrored, upside down), `tags` are H.273 matrix, primaries and transfer.
    """
    rate = Fraction(rate)
    time_base = time_base or 1 / rate
    pts = list(range(frames)) if pts is None else list(pts)
    out = av.open(str(path), "w", format=container, container_options=dict(container_options or {}))
    others = [(track, _add_track(out, track)) for track in before]
    coded_height, coded_width = turn(picture(0, *size)).shape[:2]
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
    if codec == "libsvtav1":  # opened by the first frame otherwise
        with without_real_time_priority():
            context.open()
    packets = []
    for number, stamp in enumerate(pts):
        frame = to_pix_fmt(turn(picture(number % (1 << BITS), *size)), pix_fmt, tags[0], full_range)
        frame.color_range = range_tag
        frame.colorspace, frame.color_primaries, frame.color_trc = tags
        frame.pts, frame.time_base, frame.pict_type = stamp, time_base, 0
        later = pts[number + 1] if number + 1 < len(pts) else stamp + max(1, round(1 / (rate * time_base)))
        frame.duration = max(1, later - stamp)
        if interlaced:
            pass  # x264 marks the stream by its own options.
        packets += video.encode(frame)
    packets += video.encode(None)
    # The header gives the streams their time bases; the rest is sorted by decoding time, as players expect it.
    out.start_encoding()
    for track, stream in others:
        packets += _packets(track, stream)
    for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
        out.mux(packet)
    out.close()
    return Path(path)


def to_pix_fmt(image: np.ndarray, pix_fmt: str, space_tag: int, full_range: bool) -> av.VideoFrame:
    """RGB as a frame of any layout, by the matrix that `space_tag` names (BT.601 where it names none)."""
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
        stream.codec_context.layout = "mono"
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
    wave = (np.sin(np.arange(int(track.rate * track.seconds)) * 2 * np.pi * track.tone / track.rate) * 12000).astype(
        np.int16
    )
    sound = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    sound.rate, sound.pts, sound.time_base = track.rate, 0, Fraction(1, track.rate)
    resampler = av.AudioResampler(context.format, context.layout, track.rate, frame_size=context.frame_size or 1024)
    pieces = [*resampler.resample(sound), *resampler.resample(None)]
    offset = round(track.start * track.rate)
    for piece in pieces:
        piece.pts = (piece.pts or 0) + offset
        packets += stream.encode(piece)
    return packets + stream.encode(None)


@dataclass(frozen=True)
class Result:
    """What one trip from a source to a sink gave."""

    frames: list[Frame]
    report: FidelityReport
    written: Written
    notes: tuple[str, ...]
    corrupt: int


def through(
    source_path: str | Path, output: str | Path, *, sink: Mapping[str, Any] | None = None, **source: Any
) -> Result:
    """Takes a file through source, sink and fidelity report as `rtseg video` does, without a model in between."""
    video = FileSource(str(source_path), **source)
    recorder = Recorder(video.info)
    target = VideoSink(output, video.info, size=(video.info.width, video.info.height), **(sink or {}))
    frames = []
    classes = np.zeros((4, 4), np.uint8)
    try:
        for item in video:
            recorder.observe(item)
            if isinstance(item, Passthrough):
                target.pass_through(item)
            else:
                frames.append(item)
                target.write(SegmentedFrame(item, classes, item))
        written = target.finish()
        asked = InputFile(
            str(source_path), source.get("start"), source.get("duration"), source.get("allow_protocols", ())
        )
        report = compare(recorder, written, corrupt=video.corrupt, source=asked)
        if report.ok:
            target.close()
        return Result(frames, report, written, (*video.info.notes, *video.warnings, *target.warnings), video.corrupt)
    except BaseException:
        target.abort()
        raise
    finally:
        video.close()


def read(path: str | Path, **options: Any) -> list[Frame]:
    """All frames of a file."""
    source = FileSource(str(path), **options)
    try:
        return [item for item in source if isinstance(item, Frame)]
    finally:
        source.close()


def made_frame(number: int, size: tuple[int, int] = (96, 64), pix_fmt: str = "yuv420p", **color: Any) -> Frame:
    """A numbered frame that did not come from a file."""
    decoded = to_pix_fmt(picture(number, *size), pix_fmt, 5, False)
    planes = FrameConverter.of(decoded).read(decoded)
    return Frame(planes, pix_fmt, Color("bt601", False, **color), number, Fraction(1, 25), number, 1)


def info(size: tuple[int, int] = (96, 64), pix_fmt: str = "yuv420p", **changes: Any) -> StreamInfo:
    """What a source of `made_frame`s would say of itself."""
    values: dict[str, Any] = {
        "color": Color("bt601", False),
        "time_base": Fraction(1, 25),
        "frame_rate": Fraction(25),
    }
    return StreamInfo("test", *size, pix_fmt, **{**values, **changes})


def item(rendered: Frame) -> SegmentedFrame:
    """A frame as sinks get it."""
    return SegmentedFrame(rendered, np.zeros((4, 4), np.uint8), rendered)


def fill(sink: VideoSink, count: int = 10, size: tuple[int, int] = (96, 64), pix_fmt: str = "yuv420p") -> None:
    """Writes numbered frames."""
    for number in range(count):
        sink.write(item(made_frame(number, size, pix_fmt)))
