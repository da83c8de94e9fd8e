"""Live inputs from the command line: cameras, URLs, GStreamer pipelines, and files at their own frame rate."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rtseg.core.errors import OptionError
from rtseg.core.secrets import looks_like_file, parse_url, redacted_url
from rtseg.io.codecs import choose_decoder
from rtseg.io.gstreamer.pipelines import csi_pipeline, file_decoder, file_pipeline, rtsp_pipeline, srt_pipeline
from rtseg.io.inputs import Source, open_source
from rtseg.io.inputs.camera import CameraMode, camera_path, open_camera
from rtseg.io.inputs.gstreamer import GStreamerSource
from rtseg.io.inputs.network import TIMEOUT_SECONDS, open_stream
from rtseg.io.options import InputOptions
from rtseg.live.camera import LiveSource
from rtseg.live.file_playback import FilePlayback
from rtseg.live.reconnect import ReconnectingSource

PIPELINE_TIMEOUT_SECONDS = 10.0
"""Timeout of GStreamer inputs. Longer than `TIMEOUT_SECONDS`: the first frame needs a new process and a key frame."""


@dataclass(frozen=True)
class Input:
    """Input of a run: a camera, a stream or a file."""

    name: str
    """Name in files and statistics: `camera0`, `url1`."""

    title: str
    """Human-readable title without passwords: `camera 0`, `rtsp://10.0.0.5/stream`."""

    connect: Callable[[], Source]
    """Opens the source once."""

    file: bool = False
    """True for a file that plays at its own frame rate, False for a source that reconnects."""

    loop: bool = False
    """Restart the file at its end."""

    pipeline: Callable[[], str] | None = None
    """Returns the GStreamer pipeline with its passwords; raises SourceError if an element is missing. None: not GStreamer."""

    def source(
        self, longest_pause_seconds: float, log: Callable[[str], None], ready: threading.Event | None = None
    ) -> LiveSource:
        """Return the source for the live loop: one that reconnects, or a file playback.

        Args:
            longest_pause_seconds: longest pause between two attempts to connect; 0: no second attempt.
            log: called with one line per event.
            ready: a file starts playing when it is set; None: immediately.

        Raises:
            SourceError: the file can't be read.
        """
        if self.file:
            return FilePlayback(self.connect, loop=self.loop, ready=ready)
        return ReconnectingSource(
            self.title, self.connect, longest_pause_seconds=longest_pause_seconds, log=log, ready=ready
        )


def find_inputs(
    *,
    cameras: Sequence[str] = (),
    urls: Sequence[str] = (),
    pipelines: Sequence[str] = (),
    csi: Sequence[int] = (),
    mode: CameraMode | None = None,
    realtime: bool = False,
    loop: bool = False,
    timeout_seconds: float | None = None,
    rtsp_transport: str = "tcp",
    decoder: str = "software",
) -> list[Input]:
    """Return the inputs in the order cameras, URLs, GStreamer pipelines, CSI cameras.

    Args:
        cameras: camera numbers or device paths.
        urls: URLs, or files with `realtime`.
        pipelines: GStreamer pipelines that end in raw video.
        csi: numbers of the CSI cameras of a Jetson.
        mode: camera mode to request.
        realtime: play files at their own frame rate.
        loop: restart files at their end.
        timeout_seconds: time limit for opening an input, and for its next frame; None: 5 seconds, and
            `PIPELINE_TIMEOUT_SECONDS` for GStreamer.
        rtsp_transport: `tcp` or `udp`.
        decoder: decoder of URLs and files, one of `rtseg.io.codecs.DECODERS`.

    Raises:
        OptionError: there is no input, an input is given twice, a file is given without `realtime`, or GStreamer can't read a
            URL.
        SourceError: the decoder is not available.
    """
    chosen_decoder = choose_decoder(decoder)
    mode = mode or CameraMode()
    inputs = [
        Input(
            "camera" + Path(camera_path(camera)).name.removeprefix("video"),
            f"camera {camera}",
            partial(open_camera, camera, mode, timeout_seconds=timeout_seconds or TIMEOUT_SECONDS),
        )
        for camera in cameras
    ]
    titles = [redacted_url(url) for url in urls]
    for number, url in enumerate(urls, 1):
        name, title = f"url{number}", titles[number - 1]
        if titles.count(title) > 1:
            title += f" ({name})"
        if "://" in url:
            inputs.append(_from_url(url, name, title, timeout_seconds, rtsp_transport, chosen_decoder, decoder))
        else:
            inputs.append(_from_file(url, name, realtime, loop, chosen_decoder))
    for number, text in enumerate(pipelines, 1):
        inputs.append(_from_pipeline(f"gst{number}", f"pipeline {number}", partial(str, text), timeout_seconds))
    for number in csi:
        pipeline = partial(csi_pipeline, number, mode.size, mode.fps)
        inputs.append(_from_pipeline(f"csi{number}", f"CSI camera {number}", pipeline, timeout_seconds))
    for name, count in Counter(entry.name for entry in inputs).items():
        if count > 1:
            raise OptionError(f"{name} is given twice; give each input once")
    if not inputs:
        raise OptionError("no input: give --camera 0, --url rtsp://..., --gst 'PIPELINE' or --url FILE --realtime")
    remote = any(url.lower().startswith(("http://", "https://")) for url in urls)
    if (loop or (realtime and not remote)) and not any(entry.file for entry in inputs):
        raise OptionError("--realtime and --loop are for files: give one with --url FILE")
    return inputs


def _from_file(path: str, name: str, realtime: bool, loop: bool, decoder: str) -> Input:
    if not looks_like_file(path):
        raise OptionError(
            "--url is neither a URL nor a file; write it as rtsp://HOST/PATH, or give a file with --realtime"
        )
    if not realtime:
        raise OptionError(f"'{path}' is not a URL; a file needs --realtime, or use `rtseg video {path}`")
    if not Path(path).exists():
        raise OptionError(f"no such file: {path}")
    pipeline = partial(file_pipeline, path) if decoder == "gstreamer" else None
    connect = partial(open_source, path, InputOptions(decoder=decoder))
    return Input(name, path, connect, file=True, loop=loop, pipeline=pipeline)


def _from_url(
    url: str, name: str, title: str, timeout_seconds: float | None, transport: str, decoder: str, requested_decoder: str
) -> Input:
    parts = parse_url(url)
    if parts.scheme == "srt":
        return _from_pipeline(name, title, partial(srt_pipeline, parts.text), timeout_seconds, file_decoder())
    if decoder == "gstreamer":
        if parts.scheme == "rtsp" and parts.user_info is None:
            pipeline = partial(rtsp_pipeline, parts.text, transport)
            return _from_pipeline(name, title, pipeline, timeout_seconds, file_decoder())
        if requested_decoder == "gstreamer":
            raise OptionError(f"--decoder gstreamer reads files, and rtsp:// without a password, not {title}; try auto")
        decoder = "software"
    connect = partial(
        open_stream,
        url,
        name=title,
        timeout_seconds=timeout_seconds or TIMEOUT_SECONDS,
        rtsp_transport=transport,
        decoder=decoder,
    )
    return Input(name, title, connect)


def _from_pipeline(
    name: str, title: str, pipeline: Callable[[], str], timeout_seconds: float | None, codec: str = "rawvideo"
) -> Input:
    def connect() -> Source:
        timeout = timeout_seconds or PIPELINE_TIMEOUT_SECONDS
        return GStreamerSource(pipeline(), name=title, timeout=timeout, codec=codec)

    return Input(name, title, connect, pipeline=pipeline)
