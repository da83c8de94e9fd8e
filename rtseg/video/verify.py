"""Verification of an output against its input: frames, timestamps, synchronization, packets and color tags.

Both files are read again, independently of the run that wrote the output.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from rtseg.core.errors import SinkError
from rtseg.core.fidelity_report import FidelityReport
from rtseg.core.frame import Color, Frame, Passthrough, StreamInfo
from rtseg.io.inputs.frame_converter import UPRIGHT, orientation_of
from rtseg.io.inputs.safe_open import STDIN, open_input
from rtseg.io.inputs.timestamps import Span
from rtseg.io.options import DEFAULT_INPUT, InputOptions
from rtseg.io.outputs.file_sink import WrittenFile
from rtseg.io.outputs.video import CONTAINER_METADATA
from rtseg.video.container_reader import NO_TIME, ContainerPackets, StreamPackets, empty_packets, read_container
from rtseg.video.verify_frames import ComparedInput, FrameComparison
from rtseg.video.verify_streams import StreamComparison

_UNSPECIFIED = 2  # value of H.273
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


class Recorder:
    """Recorder of all frames and packets that a source yields, before any processing: 8 bytes per frame.

    Its data replaces the input in the comparison only where the input can't be read again, such as a pipe.
    """

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        # Stored now: a stream must not be accessed after its container is closed.
        self.video_index: int | None = None if info.template is None else info.template.index
        self.video = StreamPackets("", "video", info.time_base)
        self.streams = {stream.index: empty_packets(stream) for stream in info.streams}
        for index, cover in info.covers.items():
            self.streams[index].add(cover, 0)

    def observe(self, item: Frame | Passthrough) -> None:
        """Record a frame or packet."""
        if isinstance(item, Frame):
            self.video.pts.append(item.pts)
            self.video.dts.append(NO_TIME)
            self.video.last_duration = item.duration
        elif item.stream_index in self.streams:
            self.streams[item.stream_index].add(item.packet, 0)


def compare(
    recorder: Recorder,
    written: WrittenFile,
    *,
    corrupt: int = 0,
    source: str = STDIN,
    options: InputOptions = DEFAULT_INPUT,
) -> FidelityReport:
    """Compare an output with its input by reading both files.

    Args:
        recorder: recorder of all that the source yielded.
        written: result of `FileSink.finish`.
        corrupt: number of frames that the source could not decode.
        source: the input, to be read again; standard input: compare with the recorder's data.
        options: the processed range, and the protocols that were allowed.

    Raises:
        SinkError: the output can't be read.
        SourceError: the input can't be read.
    """
    if written.path is None:
        return FidelityReport(
            frames_in=len(recorder.video.pts),
            frames_out=written.frames,
            corrupt=corrupt,
            timestamp_error_ms=None,
            duration_difference_ms=None,
            color_tags="kept",
            streams=(),
            problems=(),
            moved_ms=0.0,
            checked=False,
            repairs=(),
            not_compared=(),
            sync=(),
            metadata_lost=(),
        )
    before = _read_input(recorder, corrupt, source, options)
    try:
        with av.open(f"file:{written.path}") as container:
            return _compare(recorder, before, written, container)
    except (av.FFmpegError, OSError) as error:
        raise SinkError(f"{written.path} can't be read back: {error}") from error


def _compare(
    recorder: Recorder, before: ComparedInput, written: WrittenFile, container: InputContainer
) -> FidelityReport:
    """Compare an open output with its input."""
    video = container.streams.video[0]
    after = read_container(container, video.index)
    frames = FrameComparison(before, after)
    streams = StreamComparison(before, after, written, frames.match)
    stream_reports = tuple(streams.reports())
    color_tags = _compare_color_tags(recorder.info.color, video.codec_context)
    return FidelityReport(
        frames_in=frames.frames_in,
        frames_out=frames.frames_out,
        corrupt=before.corrupt,
        timestamp_error_ms=frames.timestamp_error_ms,
        duration_difference_ms=frames.duration_difference_ms,
        color_tags=color_tags,
        streams=stream_reports,
        problems=(
            *frames.problems,
            *streams.problems,
            *_frame_problems(video.codec_context, written, color_tags),
            *_selection_problems(before.packets, after, written, video.index),
        ),
        moved_ms=float(frames.moved_seconds) * 1000,
        reference=frames.reference,
        repairs=(*frames.repairs, *streams.repairs),
        not_compared=tuple(frames.not_compared),
        sync=tuple(streams.sync),
        metadata_lost=_metadata_lost(recorder.info, container),
    )


def _metadata_lost(info: StreamInfo, output: InputContainer) -> tuple[str, ...]:
    """Return the keys of metadata whose values are under no key of the output: containers have other names for them."""
    kept = set(map(_normalized, output.metadata.values()))
    described = {*CONTAINER_METADATA, "timecode"}  # time codes have messages of their own
    described |= {f"{key}-eng" for key in info.metadata}  # FFmpeg's second name for it
    lost = [
        key for key, value in info.metadata.items() if key.lower() not in described and _normalized(value) not in kept
    ]
    return tuple(key.removeprefix("com.apple.quicktime.") for key in lost)


def _normalized(value: str) -> str:
    """Return a location (ISO 6709) or a time (ISO 8601) without zeros at the end; any other value as it is."""
    if re.fullmatch(r"([+-]\d+(\.\d+)?){2,3}/?", value):
        return str([float(number) for number in re.findall(r"[+-][\d.]+", value)])
    return re.sub(r"\.0+Z\Z", "Z", value)


def _read_input(recorder: Recorder, corrupt: int, source: str, options: InputOptions) -> ComparedInput:
    """Read the input again, or return the recorder's data, which has only the processed range, if this is not possible."""
    index, streams = recorder.video_index, recorder.streams
    if index is None or source == STDIN or not Path(source).exists():
        packets = ContainerPackets(recorder.video, streams, "", False)
        return ComparedInput(packets, index, streams, corrupt, None, (), Span(Fraction(0), None))
    with open_input(source, allow_protocols=options.allow_protocols) as container:
        packets = read_container(container, index)
    start, duration = (
        None if seconds is None else Fraction(seconds).limit_denominator(1_000_000)
        for seconds in (options.start, options.duration)
    )
    span = Span(start or Fraction(0), duration)
    return ComparedInput(packets, index, streams, corrupt, source, options.allow_protocols, span)


def _compare_color_tags(color: Color, context: Any) -> str:
    """Return `kept`, `not held by the format` or `changed`, by the input's color and the output's codec context."""
    tags = [
        (color.space_tag, context.colorspace, _UNSPECIFIED),
        (color.primaries_tag, context.color_primaries, _UNSPECIFIED),
        (color.transfer_tag, context.color_trc, _UNSPECIFIED),
        (color.full_range, context.color_range == _FULL_RANGE, False),
    ]
    changed = [(tag_out, unset) for tag_in, tag_out, unset in tags if tag_in not in (unset, tag_out)]
    if not changed:
        return "kept"
    return "not held by the format" if all(tag_out == unset for tag_out, unset in changed) else "changed"


def _frame_problems(context: Any, written: WrittenFile, color_tags: str) -> list[str]:
    """Return the problems with color tags, orientation and frame size, by the output's codec context and first frame."""
    problems = []
    if color_tags == "changed":
        problems.append("the color tags differ from the input's")
    with av.open(f"file:{written.path}") as container:
        frame = next(container.decode(video=0), None)
        if frame is None or orientation_of(frame) != UPRIGHT:
            problems.append("players would rotate the video: the output has a display matrix")
    if (context.width, context.height) != written.size:
        width, height = written.size
        problems.append(f"the frame size is {context.width}x{context.height}, not {width}x{height}")
    return problems


def _selection_problems(
    before: ContainerPackets, after: ContainerPackets, written: WrittenFile, video: int
) -> list[str]:
    """Return the problems with the order of the streams, and with the video and audio streams that players select.

    `video` is the index of the segmented video stream in the output.
    """
    problems = []
    selected = _selected_stream("video", {video: after.video, **after.others})
    if selected != video:
        problems.append(f"players would show video stream {selected} instead of the segmented one")
    indices = written.copied | written.reencoded
    # Time codes and cover images are written after all other streams.
    kinds = {index: packets.kind for index, packets in sorted(before.others.items()) if index in indices}
    order = [indices[index] for index, kind in kinds.items() if kind not in ("data", "cover")]
    input_indices = {out: index for index, out in indices.items()}
    if order != sorted(order):
        problems.append("the streams are not in the input's order")
    audio_in = _selected_stream(
        "audio", {index: packets for index, packets in before.others.items() if index in indices}
    )
    audio_out = _selected_stream("audio", after.others)
    if audio_in is not None and input_indices.get(-1 if audio_out is None else audio_out) != audio_in:
        problems.append(f"players would not play audio stream {audio_in}, which they play in the input")
    return problems


def _selected_stream(kind: str, streams: dict[int, StreamPackets]) -> int | None:
    """Return the stream of a kind that players select: the first default one, else the first."""
    indices = sorted(index for index, packets in streams.items() if packets.kind == kind)
    return next((index for index in indices if streams[index].default), indices[0] if indices else None)
