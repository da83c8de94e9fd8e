"""What went in against what came out: frames, time stamps, the packets of copied streams, colour tags, rotation."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av import Packet
from av.container import InputContainer

from rtseg.errors import FidelityError, SinkError
from rtseg.frame import Colour, Frame, Passthrough, StreamInfo
from rtseg.sinks.others import codec_name
from rtseg.sinks.video import Written
from rtseg.sources.opened import GENERATE_PTS
from rtseg.sources.pictures import UPRIGHT, orientation_of
from rtseg.sources.timeline import fraction

_UNSPECIFIED = 2
_MOVES = frozenset({"mpegts", "matroska,webm", "avi"})
"""Formats without times before zero, where B-frames or early sound move all streams later by the same."""


@dataclass(slots=True)
class PacketLog:
    """What a stream's packets were, without keeping them."""

    codec: str
    kind: str
    time_base: Fraction = Fraction(1)
    pts: array[int] = field(default_factory=lambda: array("q"))
    digest: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))

    def see(self, packet: Packet[Any]) -> None:
        """Takes note of one packet."""
        payload = _payload(self.codec, packet)
        if payload is None:
            return
        self.digest.update(payload)
        stamp = packet.pts if packet.pts is not None else packet.dts
        self.pts.append(0 if stamp is None else stamp)
        self.time_base = fraction(packet.time_base) or self.time_base


class Recorder:
    """Sees everything that leaves a source, before any stage touches it, and keeps what a comparison needs: 8 bytes a frame.

    Args:
        info: the source's.
    """

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        self.pts = array("q")
        self.last_duration = 0
        self.streams = {stream.index: PacketLog(codec_name(stream), stream.type) for stream in info.streams}

    def see(self, item: Frame | Passthrough) -> None:
        """Takes note of one frame or packet."""
        if isinstance(item, Frame):
            self.pts.append(item.pts)
            self.last_duration = item.duration
        elif item.stream_index in self.streams:
            self.streams[item.stream_index].see(item.packet)


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One stream beside the picture."""

    index: int
    """In the input."""

    kind: str
    """`audio`, `subtitle`, `data` …"""

    codec: str

    fate: str
    """`copied`, `re-encoded` or `left out`."""

    packets_in: int
    packets_out: int

    equal: bool
    """Copied: the same bytes in the same order at the same times."""

    def describe(self) -> str:
        """For people, without the time stamps."""
        if self.fate != "copied":
            return f"{self.kind} {self.codec} {self.fate}"
        return f"{self.kind} {self.packets_out} packets {'equal' if self.equal else 'NOT equal'}"


@dataclass(frozen=True, slots=True)
class FidelityReport:
    """The comparison of an output with what was read from its input."""

    frames_in: int
    """Frames that the source yielded."""

    frames_out: int
    """Frames in the output."""

    corrupt: int
    """Frames of the input that could not be decoded; not among `frames_in`."""

    timestamp_error_ms: float | None
    """Largest difference of a frame's time; None: the container keeps no times, or the counts differ."""

    duration_difference_ms: float | None
    """Length of the output less that of the input's picture stream."""

    colour_tags: str
    """`kept`, `not held by the format` or `changed`."""

    streams: tuple[StreamReport, ...]

    problems: tuple[str, ...]
    """Why it is broken; empty: it is whole."""

    moved_ms: float = 0.0
    """How much later (less than zero: earlier) all streams are, in a container that has no such times."""

    checked: bool = True
    """False: the output went to a pipe and could not be read back."""

    @property
    def ok(self) -> bool:
        """Whether what came out is what went in."""
        return not self.problems

    def line(self) -> str:
        """One line for people."""
        if not self.checked:
            return f"fidelity: {self.frames_out} frames went to standard output, not read back"
        if self.problems:
            return "fidelity broken: " + "; ".join(self.problems)
        parts = [f"{self.frames_in} frames in and out"]
        if self.corrupt:
            parts[0] += f", {self.corrupt} damaged left out"
        if self.timestamp_error_ms is not None:
            parts.append(
                "time stamps equal"
                if self.timestamp_error_ms == 0
                else f"times within {self.timestamp_error_ms:.1f} ms"
            )
        if self.moved_ms:
            way = (
                "later, as the container has no times before zero"
                if self.moved_ms > 0
                else "earlier, as it begins at zero"
            )
            parts.append(f"all streams {abs(self.moved_ms):.0f} ms {way}")
        if self.duration_difference_ms is not None:
            parts.append(f"length {self.duration_difference_ms:+.0f} ms")
        parts += [stream.describe() for stream in self.streams]
        parts.append(f"colour tags {self.colour_tags}")
        return "fidelity: " + ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """For `--stats`."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "line": self.line(),
            "frames_in": self.frames_in,
            "frames_out": self.frames_out,
            "corrupt": self.corrupt,
            "timestamp_error_ms": self.timestamp_error_ms,
            "duration_difference_ms": self.duration_difference_ms,
            "moved_ms": self.moved_ms,
            "colour_tags": self.colour_tags,
            "streams": [
                {
                    "index": stream.index,
                    "type": stream.kind,
                    "codec": stream.codec,
                    "fate": stream.fate,
                    "packets_in": stream.packets_in,
                    "packets_out": stream.packets_out,
                    "equal": stream.equal,
                }
                for stream in self.streams
            ],
            "problems": list(self.problems),
        }

    def raise_if_broken(self) -> None:
        """Raises FidelityError with all problems where there are any."""
        if self.problems:
            raise FidelityError("what came out is not what went in: " + "; ".join(self.problems))


def compare(recorder: Recorder, written: Written, *, corrupt: int = 0) -> FidelityReport:
    """Reads the output and compares it with what the recorder saw.

    Args:
        recorder: saw all that the source yielded.
        written: what `VideoSink.finish` returned.
        corrupt: frames that the source could not decode.

    Raises:
        SinkError: the output can't be read.
    """
    if written.path is None:
        return FidelityReport(len(recorder.pts), written.frames, corrupt, None, None, "kept", (), (), checked=False)
    try:
        with av.open(f"file:{written.path}") as container:
            container.flags &= ~GENERATE_PTS
            return _compare(recorder, written, container, corrupt)
    except (av.FFmpegError, OSError) as error:
        raise SinkError(f"{written.path} can't be read back: {error}") from error


def _compare(recorder: Recorder, written: Written, container: InputContainer, corrupt: int) -> FidelityReport:
    video = container.streams.video[0]
    fates = {**dict.fromkeys(written.copied, "copied"), **dict.fromkeys(written.reencoded, "re-encoded")}
    indices = {**written.copied, **written.reencoded}
    logs = {index: PacketLog(recorder.streams[source].codec, "") for source, index in indices.items()}
    stamps: list[int] = []
    last = (0, 0)
    upright = False
    for packet in container.demux():
        if not packet.size:
            continue
        if packet.stream_index == video.index:
            if packet.is_discard:
                continue  # An edit list hides it.
            stamp = packet.pts if packet.pts is not None else packet.dts or 0
            stamps.append(stamp)
            last = max(last, (stamp, packet.duration or 0))
            if not upright and (pictures := video.codec_context.decode(packet)):
                upright = orientation_of(pictures[0]) == UPRIGHT
        elif packet.stream_index in logs:
            logs[packet.stream_index].see(packet)
    if not upright:
        upright = all(orientation_of(picture) == UPRIGHT for picture in video.codec_context.decode(None))
    stamps.sort()
    problems: list[str] = []
    if len(stamps) != len(recorder.pts):
        problems.append(f"{len(recorder.pts)} frames went in, {len(stamps)} came out")
    error_ms = difference_ms = None
    moved, tick = Fraction(0), fraction(video.time_base) or Fraction(1)
    if written.timed and stamps and len(stamps) == len(recorder.pts):
        if container.format.name in _MOVES:
            moved = stamps[0] * tick - recorder.pts[0] * recorder.info.time_base
            moved = moved if abs(moved) >= tick else Fraction(0)
        error_ms, difference_ms = _times(recorder, stamps, last[1], tick, moved, problems)
    coarse = tick if moved or container.format.name == "avi" else Fraction(0)
    streams = []
    for source, log in recorder.streams.items():
        fate = fates.get(source, "left out")
        out = logs[indices[source]] if source in indices else PacketLog(log.codec, "")
        trouble = _packets_differ(log, out, moved, coarse) if fate == "copied" else ""
        if fate == "re-encoded" and log.pts and not out.pts:
            trouble = "encoded anew, it is empty"
        if trouble:
            problems.append(f"{log.kind} stream {source}: {trouble}")
        streams.append(StreamReport(source, log.kind, log.codec, fate, len(log.pts), len(out.pts), not trouble))
    colour = _colour_tags(recorder.info.colour, video.codec_context)
    if colour == "changed":
        problems.append("the colour tags are not the input's")
    if not upright:
        problems.append("players would turn the picture: it carries a display matrix")
    if (video.codec_context.width, video.codec_context.height) != written.size:
        problems.append(f"the picture is {video.codec_context.width}x{video.codec_context.height}, not {written.size}")
    return FidelityReport(
        frames_in=len(recorder.pts),
        frames_out=len(stamps),
        corrupt=corrupt,
        timestamp_error_ms=error_ms,
        duration_difference_ms=difference_ms,
        colour_tags=colour,
        streams=tuple(streams),
        problems=tuple(problems),
        moved_ms=float(moved) * 1000,
    )


def _times(
    recorder: Recorder, stamps: list[int], last_duration: int, tick: Fraction, moved: Fraction, problems: list[str]
) -> tuple[float, float | None]:
    unit = recorder.info.time_base
    worst = max(abs(ours * tick - theirs * unit - moved) for ours, theirs in zip(stamps, recorder.pts, strict=True))
    if worst > (tick if moved else tick / 2):
        problems.append(f"a frame is shown {float(worst) * 1000:.1f} ms off its time")
    length_in = (recorder.pts[-1] - recorder.pts[0] + recorder.last_duration) * unit
    if not (recorder.last_duration and last_duration):
        return float(worst) * 1000, None
    return float(worst) * 1000, float((stamps[-1] + last_duration - stamps[0]) * tick - length_in) * 1000


def _packets_differ(log: PacketLog, out: PacketLog, moved: Fraction, coarse: Fraction) -> str:
    """Why two logs are not of the same packets at the same times (within `coarse` seconds more); empty: they are."""
    pcm = log.codec.startswith("pcm_")  # Containers cut it into packets as they like.
    if not pcm and len(log.pts) != len(out.pts):
        return f"{len(log.pts)} packets went in, {len(out.pts)} came out"
    if log.digest.digest() != out.digest.digest():
        return "the packets are not the same"
    if pcm or not log.pts:
        return ""
    pairs = zip(out.pts, log.pts, strict=True)
    worst = max(abs(ours * out.time_base - theirs * log.time_base - moved) for ours, theirs in pairs)
    return f"a packet is {float(worst) * 1000:.1f} ms off its time" if worst > out.time_base + coarse else ""


def _colour_tags(colour: Colour, context: Any) -> str:
    pairs = [
        (colour.space_tag, context.colorspace, _UNSPECIFIED),
        (colour.primaries_tag, context.color_primaries, _UNSPECIFIED),
        (colour.transfer_tag, context.color_trc, _UNSPECIFIED),
        (2 if colour.full_range else 0, context.color_range if context.color_range == 2 else 0, 0),
    ]
    told = [(ours, theirs, nothing) for ours, theirs, nothing in pairs if ours != nothing]
    if all(ours == theirs for ours, theirs, _ in told):
        return "kept"
    if all(theirs in (ours, nothing) for ours, theirs, nothing in told):
        return "not held by the format"
    return "changed"


def _payload(codec: str, packet: Packet[Any]) -> bytes | None:
    """The part of a packet that no container changes; None: nothing is in it."""
    payload = bytes(packet)
    if codec in ("mov_text", "text", "subrip") and payload == b"\0\0":
        return None  # MP4 fills the gaps between subtitles with empty ones.
    if codec == "aac" and len(payload) > 7 and payload[0] == 0xFF and payload[1] & 0xF6 == 0xF0:
        # MPEG-TS puts an ADTS header before each packet (ISO/IEC 13818-7, 6.2): 7 bytes, 9 with a checksum.
        return payload[7 if payload[1] & 1 else 9 :]
    if codec in ("h264", "hevc"):
        return _slices(codec, payload)
    return payload


def _slices(codec: str, payload: bytes) -> bytes:
    """The slices of an H.264 or HEVC packet, framed by start codes (MPEG-TS) or by lengths of 4 bytes (MP4, Matroska)."""
    if payload[:3] == b"\0\0\1" or payload[:4] == b"\0\0\0\1":
        units = [unit.rstrip(b"\0") for unit in payload.split(b"\0\0\1")]
    else:
        units, start = [], 0
        while start + 4 <= len(payload):
            size = int.from_bytes(payload[start : start + 4], "big")
            units.append(payload[start + 4 : start + 4 + size].rstrip(b"\0"))
            start += 4 + size
    kinds = range(1, 6) if codec == "h264" else range(32)
    return b"".join(
        unit for unit in units if unit and (unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63) in kinds
    )
