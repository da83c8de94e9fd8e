"""What the command line names as live inputs: cameras, URLs, pipelines, and files at their own pace."""

from __future__ import annotations

import threading
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
from rtseg.io.inputs.network import TIMEOUT_SECONDS, open_stream
from rtseg.live.camera import LiveSource
from rtseg.live.file_playback import Paced
from rtseg.live.reconnect import Reconnecting

PIPELINE_TIMEOUT_SECONDS = 10.0
"""How long what GStreamer reads may be silent: until its first picture a process starts, and a key frame is waited for."""


@dataclass(frozen=True)
class Input:
    """One camera of a run."""

    name: str
    """In file names and statistics: `camera0`, `url1`."""

    title: str
    """For people, without passwords: `camera 0`, `rtsp://10.0.0.5/stream`."""

    connect: Callable[[], Source]
    """Opens it once."""

    file: bool = False
    """A file that plays at its own pace, rather than something that comes back."""

    loop: bool = False
    """The file begins anew at its end."""

    pipeline: Callable[[], str] | None = None
    """The GStreamer pipeline that it is read by, if any, with its passwords; raises SourceError where an element is missing."""

    def source(
        self, longest_pause_seconds: float, log: Callable[[str], None], ready: threading.Event | None = None
    ) -> LiveSource:
        """What the live loop reads: with reconnections, or paced.

        Args:
            longest_pause_seconds: between two tries to connect; 0: no second try.
            log: told in one line what happened.
            ready: a file begins to play once it is set; None: at once.

        Raises:
            SourceError: a file that can't be read.
        """
        if self.file:
            return Paced(self.connect, loop=self.loop, ready=ready)
        return Reconnecting(self.title, self.connect, longest_pause_seconds=longest_pause_seconds, log=log, ready=ready)


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
    """The inputs in the order cameras, URLs, GStreamer pipelines, CSI cameras.

    Args:
        cameras: numbers or devices.
        urls: URLs, or files with `realtime`.
        pipelines: GStreamer pipelines that end in raw pictures.
        csi: numbers of cameras on a Jetson's CSI connectors.
        mode: what cameras are asked for.
        realtime: files are played at their own pace.
        loop: they begin anew at their end.
        timeout_seconds: how long opening may take, and how long an input may be silent; None: 5 seconds, and
            `PIPELINE_TIMEOUT_SECONDS` for what GStreamer reads.
        rtsp_transport: `tcp` or `udp`.
        decoder: of URLs and files, one of `rtseg.io.codecs.DECODERS`.

    Raises:
        OptionError: none, the same twice, a file without `realtime`, or a URL that GStreamer can't be given.
        SourceError: the decoder is not there.
    """
    chosen = choose_decoder(decoder)
    silence = timeout_seconds or PIPELINE_TIMEOUT_SECONDS
    mode = mode or CameraMode()
    found = [
        Input(
            _camera_name(camera),
            f"camera {camera}",
            partial(open_camera, camera, mode, timeout_seconds=timeout_seconds or TIMEOUT_SECONDS),
        )
        for camera in cameras
    ]
    rendered = [redacted_url(url) for url in urls]
    for number, url in enumerate(urls, 1):
        name, title = f"url{number}", rendered[number - 1]
        if rendered.count(title) > 1:
            title += f" ({name})"
        found.append(_from_url(url, name, title, realtime, loop, timeout_seconds, rtsp_transport, chosen, decoder))
    for number, given in enumerate(pipelines, 1):
        found.append(_from_pipeline(f"gst{number}", f"pipeline {number}", partial(str, given), silence))
    for number in csi:
        pipeline = partial(csi_pipeline, number, mode.size, mode.fps)
        found.append(_from_pipeline(f"csi{number}", f"CSI camera {number}", pipeline, silence))
    names = [entry.name for entry in found]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"{name} is named twice; name each input once")
    if not found:
        raise OptionError("no input: name --camera 0, --url rtsp://..., --gst 'PIPELINE' or --url FILE --realtime")
    remote = any(url.lower().startswith(("http://", "https://")) for url in urls)
    if (loop or (realtime and not remote)) and not any(entry.file for entry in found):
        raise OptionError("--realtime and --loop are for files: name one with --url FILE")
    return found


def _from_url(
    url: str,
    name: str,
    title: str,
    realtime: bool,
    loop: bool,
    timeout_seconds: float | None,
    transport: str,
    decoder: str,
    named: str,
) -> Input:
    if "://" not in url:
        if not looks_like_file(url):
            raise OptionError(
                "--url is no URL and no file; write it as rtsp://HOST/PATH, or name a file with --realtime"
            )
        if not realtime:
            raise OptionError(f"'{url}' is no URL; a file needs --realtime, or use `rtseg video {url}`")
        if not Path(url).exists():
            raise OptionError(f"no such file: {url}")
        pipeline = partial(file_pipeline, url) if decoder == "gstreamer" else None
        return Input(name, url, partial(open_source, url, decoder=decoder), file=True, loop=loop, pipeline=pipeline)
    parts, silence = parse_url(url), timeout_seconds or PIPELINE_TIMEOUT_SECONDS
    if parts.scheme == "srt":
        return _from_pipeline(name, title, partial(srt_pipeline, parts.text), silence, file_decoder())
    if decoder == "gstreamer":
        if parts.scheme == "rtsp" and parts.user_info is None:
            return _from_pipeline(name, title, partial(rtsp_pipeline, parts.text, transport), silence, file_decoder())
        if named == "gstreamer":
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


def _camera_name(camera: str) -> str:
    return "camera" + Path(camera_path(camera)).name.removeprefix("video")


def _from_pipeline(
    name: str, title: str, pipeline: Callable[[], str], timeout_seconds: float, codec: str = "rawvideo"
) -> Input:
    return Input(name, title, partial(_open_pipeline, pipeline, title, timeout_seconds, codec), pipeline=pipeline)


def _open_pipeline(pipeline: Callable[[], str], title: str, timeout_seconds: float, codec: str) -> Source:
    from rtseg.io.inputs.gstreamer import GStreamerSource

    return GStreamerSource(pipeline(), name=title, timeout=timeout_seconds, codec=codec)
