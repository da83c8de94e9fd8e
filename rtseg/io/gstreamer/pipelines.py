"""Which elements do the work: NVIDIA's on a Jetson, software elsewhere. Chosen by what GStreamer has, never by a guess.

NVIDIA's elements and their properties: Jetson Linux Developer Guide, "Accelerated GStreamer"
(https://docs.nvidia.com/jetson/archives/r35.6.1/DeveloperGuide/SD/Multimedia/AcceleratedGstreamer.html).
All functions take `has`, which tells whether an element exists; tests give their own, so that the chains of a Jetson are
checked where there is none.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rtseg.core.errors import SinkError, SourceError
from rtseg.core.secrets import redacted_pipeline
from rtseg.io.gstreamer.process import INSTALL, LAUNCHER, OPTIONS, has_element

Has = Callable[[str], bool]

STDIN_FD = 0
"""Where a pipeline reads frames from."""

_NVMM = "'video/x-raw(memory:NVMM),format=NV12'"
_SOFTWARE = "videoconvert ! 'video/x-raw,format={I420,NV12}'"
"""`videoconvert` does nothing where the pictures are in one of the two already, as software decoders give them."""


@dataclass(frozen=True)
class GstEncoder:
    """The elements that make H.264 of raw pictures."""

    name: str
    """The element that encodes, for statistics."""

    chain: str
    """From raw pictures in system memory to `h264parse`."""

    hardware: bool


def to_pipe(pipeline: str, fd: int, has: Has = has_element) -> str:
    """A source's pipeline, whatever raw pictures it ends in, with what brings its frames into a pipe.

    Args:
        pipeline: elements in gst-launch's syntax, ending in raw pictures.
        fd: the descriptor that frames are written to.
        has: tells whether an element exists.
    """
    # nvvidconv takes pictures from system memory and from NVMM, the memory of the camera and the decoder.
    converted = "nvvidconv ! video/x-raw,format=NV12" if has("nvvidconv") else _SOFTWARE
    return f"{pipeline.strip().rstrip('!').strip()} ! {converted} ! gdppay ! fdsink fd={fd} sync=false"


def csi_pipeline(
    number: int, size: tuple[int, int] | None = None, fps: float | None = None, has: Has = has_element
) -> str:
    """A camera on the board's CSI connector.

    Args:
        number: of the camera, from 0.
        size: (width, height) that the sensor is asked for; None: 1280x720.
        fps: frames a second; None: 30.
        has: tells whether an element exists.

    Raises:
        SourceError: no element here reads such a camera.
    """
    width, height = size or (1280, 720)
    rate = Fraction(fps or 30).limit_denominator(1001)
    form = f"width={width},height={height},framerate={rate.numerator}/{rate.denominator}"
    if has("nvarguscamerasrc"):
        return f"nvarguscamerasrc sensor-id={number} ! 'video/x-raw(memory:NVMM),format=NV12,{form}'"
    if has("libcamerasrc"):
        return f"libcamerasrc ! video/x-raw,{form}"
    raise SourceError(
        f"--csi {number} needs nvarguscamerasrc (it comes with JetPack: nvidia-l4t-gstreamer) or libcamerasrc, and "
        "GStreamer has neither here; a USB camera is --camera 0"
    )


def file_decoder(has: Has = has_element) -> str:
    """The element that decodes: the Jetson's where there is one, else the one that finds the software decoder that fits."""
    return "nvv4l2decoder" if has("nvv4l2decoder") else "decodebin"


def file_pipeline(path: str, has: Has = has_element) -> str:
    """A video file: through the Jetson's decoder where there is one, else through the software decoder that fits."""
    return f"filesrc location={shlex.quote(str(Path(path)))} ! {_decoded(has)}"


def rtsp_pipeline(url: str, transport: str = "tcp", has: Has = has_element) -> str:
    """A camera's RTSP stream, decoded as a file is.

    Args:
        url: begins with `rtsp://`.
        transport: `tcp` or `udp`.
        has: tells whether an element exists.

    Raises:
        SourceError: GStreamer has no RTSP here.
    """
    if not has("rtspsrc"):
        raise SourceError(f"GStreamer's rtspsrc is not installed: `{INSTALL}`")
    return f"rtspsrc location={shlex.quote(url)} protocols={transport} latency=0 ! {_decoded(has)}"


def _decoded(has: Has) -> str:
    return "parsebin ! nvv4l2decoder" if has("nvv4l2decoder") else "decodebin"


def srt_pipeline(url: str, has: Has = has_element) -> str:
    """An MPEG transport stream that comes over SRT.

    Raises:
        SourceError: GStreamer has no SRT here.
    """
    if not has("srtsrc"):
        raise SourceError(f"SRT is read through GStreamer's srtsrc, which is not installed: `{INSTALL}`")
    return f"srtsrc uri={shlex.quote(url)} ! tsdemux latency=0 ! {_decoded(has)}"


def encoder(frame_rate: Fraction, *, quality: int = 23, bitrate: int = 8_000_000, has: Has = has_element) -> GstEncoder:
    """H.264: the board's encoder where there is one, else x264 or OpenH264.

    Args:
        frame_rate: frames a second; a key frame comes each second.
        quality: x264's constant quality.
        bitrate: bits a second, for encoders that have no constant quality.
        has: tells whether an element exists.

    Raises:
        SinkError: there is none.
    """
    interval = max(1, round(frame_rate))
    if has("nvv4l2h264enc"):
        # Sets of parameters before each key frame, so that a stream can be joined and a cut file be read.
        options = f"bitrate={bitrate} iframeinterval={interval} idrinterval={interval} insert-sps-pps=true"
        chain = f"nvvidconv ! {_NVMM} ! nvv4l2h264enc {options} maxperf-enable=true ! h264parse"
        return GstEncoder("nvv4l2h264enc", chain, hardware=True)
    if has("x264enc"):
        options = f"pass=qual quantizer={quality} tune=zerolatency speed-preset=ultrafast key-int-max={interval}"
        return GstEncoder("x264enc", f"videoconvert ! video/x-raw,format=I420 ! x264enc {options} ! h264parse", False)
    if has("openh264enc"):
        options = f"bitrate={bitrate} gop-size={interval}"
        return GstEncoder(
            "openh264enc", f"videoconvert ! video/x-raw,format=I420 ! openh264enc {options} ! h264parse", False
        )
    raise SinkError(f"GStreamer has no H.264 encoder here (nvv4l2h264enc, x264enc, openh264enc): `{INSTALL}`")


_MUXERS = {
    # Fragments of a second while it is written, an ordinary file at the end (GStreamer 1.20 and newer).
    ".mp4": "mp4mux fragment-duration=1000 fragment-mode=first-moov-then-finalise",
    ".mkv": "matroskamux max-cluster-duration=1000000000",
    ".ts": "mpegtsmux",
}


def to_file(path: str, encoded: GstEncoder, has: Has = has_element) -> str:
    """From frames on standard input to an encoded file.

    Raises:
        SinkError: no such container.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _MUXERS:
        raise SinkError(f"GStreamer writes {', '.join(_MUXERS)} here, not '{suffix}': {path}")
    return f"{_from_pipe()} ! {encoded.chain} ! {_MUXERS[suffix]} ! filesink location={shlex.quote(path)}"


def to_srt(url: str, encoded: GstEncoder, has: Has = has_element) -> str:
    """From frames on standard input to an MPEG transport stream over SRT.

    Raises:
        SinkError: GStreamer has no SRT here.
    """
    if not has("srtsink"):
        raise SinkError(f"SRT is sent through GStreamer's srtsink, which is not installed: `{INSTALL}`")
    return f"{_from_pipe()} ! {encoded.chain} ! mpegtsmux alignment=7 ! srtsink uri={shlex.quote(url)} wait-for-connection=false"


def command_line(pipeline: str) -> str:
    """What `--dry-run` prints: the command as one would type it, cut off where a password may begin."""
    return f"{LAUNCHER} {' '.join(OPTIONS)} {redacted_pipeline(pipeline)}"


def _from_pipe() -> str:
    return f"fdsrc fd={STDIN_FD} ! gdpdepay ! queue max-size-buffers=2"
