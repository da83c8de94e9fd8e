"""Which decoder and which encoder do the work: in software, on an NVIDIA card, or through GStreamer, as on a Jetson.

What a machine has is tried, with one picture, and not guessed: a driver may be missing, and some cards have no encoder.
Software is what runs unless something else is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, get_args

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.video.stream import VideoStream

from rtseg.core.choices import Decoder, Encoder
from rtseg.core.errors import OptionError, SinkError, SourceError
from rtseg.gpu.devices import find_gpus
from rtseg.io.gstreamer.process import INSTALL, has_element

DECODERS = get_args(Decoder)
"""What `--decoder` takes."""

ENCODERS = get_args(Encoder)
"""What `--encoder` takes."""

_NVENC = {"h264": "h264_nvenc", "hevc": "hevc_nvenc", "av1": "av1_nvenc"}
_FAMILY = {"libx264": "h264", "x264": "h264", "h265": "hevc", "libx265": "hevc", "x265": "hevc", "libsvtav1": "av1"}
_SIDE = 256
"""Of the picture that is tried: above the smallest that NVIDIA's engines take."""

Refusal = Callable[[], str | None]
"""Says why something does not work here; None: it works."""


def choose_decoder(
    wanted: str,
    *,
    with_audio: bool = False,
    why_no_nvdec: Refusal | None = None,
    has: Callable[[str], bool] = has_element,
) -> str:
    """What decodes: `software`, `gstreamer`, `nvdec`, or `auto` where the card decodes what it can and FFmpeg the rest.

    Args:
        wanted: one of `DECODERS`; `auto` takes the card's decoder, else a Jetson's, else software.
        with_audio: the sound is wanted too: `auto` leaves out GStreamer, which gives the pictures alone.
        why_no_nvdec: tells why the card can't; None: it is tried.
        has: tells whether GStreamer has an element.

    Raises:
        OptionError: no such choice.
        SourceError: what was named is not there.
    """
    refusal = why_no_nvdec or try_nvdec
    match wanted:
        case "software":
            return wanted
        case "nvdec":
            why = refusal()
            if why is not None:
                raise SourceError(f"--decoder nvdec: this machine has no NVIDIA decoder that works ({why}); try auto")
            return wanted
        case "gstreamer":
            if not has("parsebin"):
                raise SourceError(f"--decoder gstreamer: GStreamer is not installed here: `{INSTALL}`")
            return wanted
        case "auto":
            if refusal() is None:
                return wanted
            return "gstreamer" if has("nvv4l2decoder") and not with_audio else "software"
    raise OptionError(f"--decoder is '{wanted}'; there are {', '.join(DECODERS)}")


def choose_encoder(
    wanted: str,
    codec: str | None = None,
    *,
    why_no_nvenc: Callable[[str], str | None] | None = None,
    has: Callable[[str], bool] = has_element,
) -> str | None:
    """What encodes: FFmpeg's name of an encoder, `gstreamer`, or None for the software encoder that suits the container.

    Args:
        wanted: one of `ENCODERS`; `auto` takes the card's encoder, else a Jetson's, else software.
        codec: `--codec`: FFmpeg's name of an encoder, or of a format; None: H.264.
        why_no_nvenc: tells why the card's encoder of that name can't; None: it is tried.
        has: tells whether GStreamer has an element.

    Raises:
        OptionError: no such choice, or a codec that what was named does not encode.
        SinkError: what was named is not there.
    """
    if codec == "gstreamer":
        raise OptionError("--codec names a format or an encoder of FFmpeg's; GStreamer is --encoder gstreamer")
    refusal = why_no_nvenc or try_nvenc
    family = "h264" if codec is None else _FAMILY.get(codec, codec)
    nvenc = _NVENC.get(family)
    match wanted:
        case "software":
            return codec
        case "nvenc":
            if nvenc is None:
                raise OptionError(f"--encoder nvenc encodes {', '.join(_NVENC)}, not --codec {codec}")
            why = refusal(nvenc)
            if why is not None:
                raise SinkError(f"--encoder nvenc: {nvenc} does not work here ({why}); try auto")
            return nvenc
        case "gstreamer":
            if family != "h264":
                raise OptionError(f"--encoder gstreamer encodes h264, not --codec {codec}")
            if not has("h264parse"):
                raise SinkError(f"--encoder gstreamer: GStreamer is not installed here: `{INSTALL}`")
            return wanted
        case "auto":
            if nvenc is not None and refusal(nvenc) is None:
                return nvenc
            return "gstreamer" if family == "h264" and has("nvv4l2h264enc") else codec
    raise OptionError(f"--encoder is '{wanted}'; there are {', '.join(ENCODERS)}")


def acceleration(decoder: str, gpu: int | None = None) -> dict[str, Any]:
    """Arguments for `av.open` that have the card decode what it can; none for `software`.

    The pictures come in the card's memory, whoever wants them: what PyAV downloads by itself has lost its color tags,
    duration and rotation in PyAV 17.

    Args:
        decoder: as `choose_decoder` gives it.
        card: decode in the CUDA context that is current in this thread, on this card, so that others there can read the
            pictures; None: in a context of the decoder's own.
    """
    if decoder not in ("nvdec", "auto"):
        return {}
    # FFmpeg refuses the primary context once somebody else has made it (with other flags than its own), as TensorRT does.
    options: dict[str, object] = {"primary_ctx": "0", **({} if gpu is None else {"current_ctx": "1"})}
    device = None if gpu is None else str(gpu)
    return {"hwaccel": HWAccel("cuda", device=device, allow_software_fallback=True, options=options, is_hw_owned=True)}


def decoder_name(video: VideoStream, decoder: str) -> str:
    """What decodes a stream, for statistics: `h264`, or `h264 (nvdec)` where the card does.

    Raises:
        SourceError: `nvdec` was asked for, and the card does not decode this kind of video.
    """
    name = str(video.codec_context.name)
    if decoder not in ("nvdec", "auto"):
        return name
    if video.codec_context.is_hwaccel:
        return f"{name} (nvdec)"
    if decoder == "nvdec":
        raise SourceError(f"--decoder nvdec: the card does not decode {name} video; try auto")
    return name


@lru_cache(maxsize=1)
def try_nvdec() -> str | None:
    """Decodes one H.264 picture on the card. Why that fails; None: it works."""
    if not find_gpus():
        return "no NVIDIA GPU answers"
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = _SIDE, _SIDE, "yuv420p"
        container.mux(stream.encode(_picture()))
        container.mux(stream.encode(None))
    file.seek(0)
    try:
        with av.open(file, hwaccel=HWAccel("cuda", allow_software_fallback=False)) as container:
            next(container.decode(video=0))
            return None if container.streams.video[0].codec_context.is_hwaccel else "FFmpeg decodes in software"
    except (av.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError, StopIteration) as error:
        return _reason(error)


@lru_cache(maxsize=8)
def try_nvenc(name: str) -> str | None:
    """Encodes one picture on the card. Why that fails; None: it works."""
    if not find_gpus():
        return "no NVIDIA GPU answers"
    try:
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = _SIDE, _SIDE, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
        packets = [*context.encode(_picture()), *context.encode(None)]
    except (av.FFmpegError, OSError, ValueError) as error:
        return _reason(error)
    return None if packets else "no picture came out"


def _picture() -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(np.full((_SIDE * 3 // 2, _SIDE), 128, np.uint8), format="yuv420p")
    picture.pts, picture.time_base = 0, Fraction(1, 30)
    return picture


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text[:1].lower() + text[1:]
