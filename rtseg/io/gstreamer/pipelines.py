"""GStreamer pipelines: NVIDIA's elements on a Jetson, software elements elsewhere, by what is installed.

NVIDIA's elements and their properties: Jetson Linux Developer Guide, "Accelerated GStreamer"
(https://docs.nvidia.com/jetson/archives/r35.6.1/DeveloperGuide/SD/Multimedia/AcceleratedGstreamer.html).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rtseg.core.errors import SinkError, SourceError
from rtseg.core.secrets import redacted_pipeline
from rtseg.io.gstreamer.process import INSTALL, LAUNCHER, OPTIONS, has_element, words_of

STDIN_FD = 0
"""File descriptor from which a pipeline reads frames."""

_FROM_PIPE = f"fdsrc fd={STDIN_FD} ! gdpdepay ! queue max-size-buffers=2"
_NVMM = "'video/x-raw(memory:NVMM),format=NV12'"

_BITRATE = 8_000_000
"""Bits per second of encoders without constant quality."""


@dataclass(frozen=True)
class GstEncoder:
    """Elements that encode raw frames to H.264."""

    name: str
    """Name of the encoder element, for statistics."""

    chain: str
    """Elements from I420 frames in system memory to `h264parse`."""


def to_pipe(pipeline: str, fd: int) -> str:
    """Return the pipeline of a source, whose last element gives raw frames, with elements that write them into a pipe.

    Raises:
        OptionError: the pipeline can't be parsed.
    """
    words_of(pipeline)
    # nvvidconv reads frames from system memory and from NVMM, the memory of camera and decoder. videoconvert does nothing if frames
    # are I420 already, as from software decoders.
    converter = "nvvidconv" if has_element("nvvidconv") else "videoconvert"
    elements = pipeline.strip().rstrip("!").strip()
    return f"{elements} ! {converter} ! video/x-raw,format=I420 ! gdppay ! fdsink fd={fd} sync=false"


def csi_pipeline(number: int, size: tuple[int, int] | None = None, fps: float | None = None) -> str:
    """Return the pipeline of a camera on a CSI connector, by its number from 0.

    The size requested from the sensor is (width, height); None: 1280x720 and 30 frames per second.

    Raises:
        SourceError: no element for CSI cameras is installed.
    """
    width, height = size or (1280, 720)
    rate = Fraction(fps or 30).limit_denominator(1001)
    form = f"width={width},height={height},framerate={rate.numerator}/{rate.denominator}"
    if has_element("nvarguscamerasrc"):
        return f"nvarguscamerasrc sensor-id={number} ! 'video/x-raw(memory:NVMM),format=NV12,{form}'"
    if has_element("libcamerasrc"):
        return f"libcamerasrc ! video/x-raw,{form}"
    raise SourceError(
        f"--csi {number} needs nvarguscamerasrc (it comes with JetPack: nvidia-l4t-gstreamer) or libcamerasrc, and "
        "neither is installed; for a USB camera use --camera 0"
    )


def file_decoder() -> str:
    """Return the decoder element: the Jetson's if it exists, else `decodebin`."""
    return "nvv4l2decoder" if has_element("nvv4l2decoder") else "decodebin"


def file_pipeline(path: str) -> str:
    """Return the pipeline that decodes a video file, on the Jetson's decoder if it exists."""
    return f"filesrc location={shlex.quote(str(Path(path)))} ! {_decoded()}"


def rtsp_pipeline(url: str, transport: str = "tcp") -> str:
    """Return the pipeline that reads and decodes an RTSP stream over the transport `tcp` or `udp`.

    Raises:
        SourceError: GStreamer has no RTSP source.
    """
    if not has_element("rtspsrc"):
        raise SourceError(f"GStreamer's rtspsrc is not installed: `{INSTALL}`")
    return f"rtspsrc location={shlex.quote(url)} protocols={transport} latency=0 ! {_decoded()}"


def _decoded() -> str:
    decoder = file_decoder()
    return f"parsebin ! {decoder}" if decoder == "nvv4l2decoder" else decoder


def srt_pipeline(url: str) -> str:
    """Return the pipeline that reads and decodes MPEG-TS over SRT.

    Raises:
        SourceError: GStreamer has no SRT source.
    """
    if not has_element("srtsrc"):
        raise SourceError(f"SRT is read through GStreamer's srtsrc, which is not installed: `{INSTALL}`")
    return f"srtsrc uri={shlex.quote(url)} ! tsdemux latency=0 ! {_decoded()}"


def encoder(frame_rate: Fraction, *, quality: int = 23) -> GstEncoder:
    """Return the H.264 encoder: the Jetson's if it exists, else x264, with this constant quality, or OpenH264.

    There is one key frame per second.

    Raises:
        SinkError: no encoder is installed.
    """
    interval = max(1, round(frame_rate))
    chains = {
        # Parameter sets before each key frame, so that a player can join a stream and read a truncated file.
        "nvv4l2h264enc": f"nvvidconv ! {_NVMM} ! nvv4l2h264enc bitrate={_BITRATE} iframeinterval={interval} "
        f"idrinterval={interval} insert-sps-pps=true maxperf-enable=true",
        "x264enc": f"x264enc pass=qual quantizer={quality} tune=zerolatency speed-preset=ultrafast key-int-max={interval}",
        "openh264enc": f"openh264enc bitrate={_BITRATE} gop-size={interval}",
    }
    for name, chain in chains.items():
        if has_element(name):
            return GstEncoder(name, f"{chain} ! h264parse")
    raise SinkError(f"GStreamer has no H.264 encoder (nvv4l2h264enc, x264enc, openh264enc): `{INSTALL}`")


_MUXERS = {
    # Fragments of one second while writing, a plain file at the end (GStreamer 1.20 and newer).
    ".mp4": "mp4mux fragment-duration=1000 fragment-mode=first-moov-then-finalise",
    ".mkv": "matroskamux max-cluster-duration=1000000000",
    ".ts": "mpegtsmux",
}


def to_file(path: str, encoded: GstEncoder) -> str:
    """Return the pipeline from frames on standard input to an encoded file.

    Raises:
        SinkError: the container is not supported.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _MUXERS:
        raise SinkError(f"GStreamer writes {', '.join(_MUXERS)}, not '{suffix}': {path}")
    return f"{_FROM_PIPE} ! {encoded.chain} ! {_MUXERS[suffix]} ! filesink location={shlex.quote(path)}"


def to_srt(url: str, encoded: GstEncoder) -> str:
    """Return the pipeline from frames on standard input to MPEG-TS over SRT.

    Raises:
        SinkError: GStreamer has no SRT sink.
    """
    if not has_element("srtsink"):
        raise SinkError(f"SRT is sent through GStreamer's srtsink, which is not installed: `{INSTALL}`")
    return f"{_FROM_PIPE} ! {encoded.chain} ! mpegtsmux alignment=7 ! srtsink uri={shlex.quote(url)} wait-for-connection=false"


def command_line(pipeline: str) -> str:
    """Return the command line that `--dry-run` prints, cut off where a password may begin."""
    return f"{LAUNCHER} {' '.join(OPTIONS)} {redacted_pipeline(pipeline)}"
