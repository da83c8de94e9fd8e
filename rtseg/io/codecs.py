"""Choice of decoder and encoder: software, an NVIDIA GPU, or GStreamer (Jetson).

Hardware codecs are tried with one frame before they are used: a driver may be missing, and some GPUs have no encoder.
The default is software.
"""

from __future__ import annotations

import io
from fractions import Fraction
from functools import lru_cache
from typing import Any, get_args

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.stream import VideoStream

from rtseg.core.choices import Decoder, Encoder
from rtseg.core.errors import OptionError, SinkError, SourceError, reason
from rtseg.gpu.devices import find_gpus
from rtseg.io.gstreamer.process import INSTALL, has_element

DECODERS = get_args(Decoder)
"""Values of `--decoder`."""

ENCODERS = get_args(Encoder)
"""Values of `--encoder`."""

_NVENC = {"h264": "h264_nvenc", "hevc": "hevc_nvenc", "av1": "av1_nvenc"}
_FAMILY = {"libx264": "h264", "x264": "h264", "h265": "hevc", "libx265": "hevc", "x265": "hevc", "libsvtav1": "av1"}
_SIDE = 256
"""Width and height of the test frame, pixels: above the minimum of NVDEC and NVENC."""


def choose_decoder(requested: str, *, with_audio: bool = False) -> str:
    """Return the decoder: `software`, `gstreamer`, `nvdec`, or `auto` (NVDEC where it supports the stream, else FFmpeg).

    Args:
        requested: one of `DECODERS`; `auto` selects NVDEC, else a Jetson's decoder, else software.
        with_audio: audio is needed: `auto` skips GStreamer, which reads video only.

    Raises:
        OptionError: not one of `DECODERS`.
        SourceError: the decoder that was named is not available.
    """
    match requested:
        case "software":
            return requested
        case "nvdec":
            why = try_nvdec()
            if why is not None:
                raise SourceError(f"--decoder nvdec: NVDEC does not work on this machine ({why}); try auto")
            return requested
        case "gstreamer":
            if not has_element("parsebin"):
                raise SourceError(f"--decoder gstreamer: GStreamer is not installed: `{INSTALL}`")
            return requested
        case "auto":
            if try_nvdec() is None:
                return requested
            return "gstreamer" if has_element("nvv4l2decoder") and not with_audio else "software"
    raise OptionError(f"--decoder is '{requested}'; there are {', '.join(DECODERS)}")


def choose_encoder(requested: str, codec: str | None = None) -> str | None:
    """Return the encoder: its name in FFmpeg, `gstreamer`, or None for the software encoder of the container.

    Args:
        requested: one of `ENCODERS`; `auto` selects NVENC, else a Jetson's encoder, else software.
        codec: `--codec`: name of an encoder or format in FFmpeg; None: H.264.

    Raises:
        OptionError: not one of `ENCODERS`, or it does not encode the codec.
        SinkError: the encoder that was named is not available.
    """
    if codec == "gstreamer":
        raise OptionError("--codec is a format or encoder of FFmpeg; for GStreamer use --encoder gstreamer")
    family = "h264" if codec is None else _FAMILY.get(codec, codec)
    nvenc = _NVENC.get(family)
    match requested:
        case "software":
            return codec
        case "nvenc":
            if nvenc is None:
                raise OptionError(f"--encoder nvenc encodes {', '.join(_NVENC)}, not --codec {codec}")
            why = try_nvenc(nvenc)
            if why is not None:
                raise SinkError(f"--encoder nvenc: {nvenc} does not work ({why}); try auto")
            return nvenc
        case "gstreamer":
            if family != "h264":
                raise OptionError(f"--encoder gstreamer encodes h264, not --codec {codec}")
            if not has_element("h264parse"):
                raise SinkError(f"--encoder gstreamer: GStreamer is not installed: `{INSTALL}`")
            return requested
        case "auto":
            if nvenc is not None and try_nvenc(nvenc) is None:
                return nvenc
            return "gstreamer" if family == "h264" and has_element("nvv4l2h264enc") else codec
    raise OptionError(f"--encoder is '{requested}'; there are {', '.join(ENCODERS)}")


def acceleration(decoder: str, gpu: int | None = None) -> dict[str, Any]:
    """Return the arguments for `av.open` that enable NVDEC; none for `software`.

    Frames stay in GPU memory: frames that PyAV 17 downloads have lost their color tags, duration and rotation.

    Args:
        decoder: as `choose_decoder` returns it.
        gpu: decode in the CUDA context that is current in this thread, on this GPU, so that other code can read the frames;
            None: in a separate context.
    """
    if decoder not in ("nvdec", "auto"):
        return {}
    # FFmpeg refuses a primary context that other code (TensorRT) created with other flags.
    options: dict[str, object] = {"primary_ctx": "0", **({} if gpu is None else {"current_ctx": "1"})}
    device = None if gpu is None else str(gpu)
    return {"hwaccel": HWAccel("cuda", device=device, allow_software_fallback=True, options=options, is_hw_owned=True)}


def decoder_name(video: VideoStream, decoder: str) -> str:
    """Return the name of a stream's decoder, for statistics: `h264` or `h264 (nvdec)`.

    Raises:
        SourceError: `nvdec` was requested, and the GPU does not support this codec.
    """
    name = str(video.codec_context.name)
    if decoder not in ("nvdec", "auto"):
        return name
    if video.codec_context.is_hwaccel:
        return f"{name} (nvdec)"
    if decoder == "nvdec":
        raise SourceError(f"--decoder nvdec: the GPU does not decode {name} video; try auto")
    return name


@lru_cache(maxsize=1)
def try_nvdec() -> str | None:
    """Decode one H.264 frame with NVDEC; return why it fails, None if it works."""
    if not find_gpus():
        return "no NVIDIA GPU was detected"
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, "yuv420p"
        container.mux(stream.encode(_test_frame()))
        container.mux(stream.encode(None))
    file.seek(0)
    try:
        with av.open(file, hwaccel=HWAccel("cuda", allow_software_fallback=False)) as container:
            next(container.decode(video=0))
            return None if container.streams.video[0].codec_context.is_hwaccel else "FFmpeg decodes in software"
    except (av.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError, StopIteration) as error:
        return reason(error)


@lru_cache(maxsize=8)
def try_nvenc(name: str) -> str | None:
    """Encode one frame with an NVENC encoder; return why it fails, None if it works."""
    if not find_gpus():
        return "no NVIDIA GPU was detected"
    try:
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = _SIDE, _SIDE, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
        packets = [*context.encode(_test_frame()), *context.encode(None)]
    except (av.FFmpegError, OSError, ValueError) as error:
        return reason(error)
    return None if packets else "it returned no frame"


def _test_frame() -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.full((_SIDE * 3 // 2, _SIDE), 128, np.uint8), format="yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1, 30)
    return frame
