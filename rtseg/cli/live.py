"""Command `rtseg live`."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line

_LATENCY, _PAGE = "Latency and reconnect", "Web page"

_SAME_SIGNAL_SECONDS = 0.3
"""Maximum interval of two SIGINT that count as one: `timeout -s INT` sends it to the process and to its group."""

_SHOW_CURSOR = b"\x1b[?25h"


def live(
    camera: Annotated[list[str] | None, o.option(o.INPUT, "Camera. Repeatable.", metavar="N|DEVICE")] = None,
    url: Annotated[
        list[str] | None,
        o.option(
            o.INPUT,
            "Stream (rtsp, rtmp, http, HLS, tcp, udp, srt), or a file with --realtime. Repeatable.",
            metavar="URL|FILE",
            envvar="RTSEG_URL",
        ),
    ] = None,
    gst: Annotated[list[str] | None, o.option(o.INPUT, "GStreamer pipeline. Repeatable.", metavar="PIPELINE")] = None,
    csi: Annotated[list[int] | None, o.option(o.INPUT, "CSI camera of a Jetson. Repeatable.", metavar="N")] = None,
    list_cameras: Annotated[
        bool, o.option(o.INPUT, "List the cameras of this machine and exit.", "--list-cameras")
    ] = False,
    camera_size: Annotated[
        str | None, o.option(o.INPUT, "Requested frame size.", metavar="WxH", show_default="the camera's default")
    ] = None,
    camera_fps: Annotated[
        float | None, o.option(o.INPUT, "Requested frame rate.", min=0.1, show_default="the camera's default")
    ] = None,
    camera_format: Annotated[
        str | None,
        o.option(o.INPUT, "Requested format.", metavar="mjpeg|yuyv|h264", show_default="the camera's default"),
    ] = None,
    realtime: Annotated[bool, o.option(o.INPUT, "Play files at their frame rate.", "--realtime")] = False,
    loop: Annotated[bool, o.option(o.INPUT, "Restart files at their end.", "--loop")] = False,
    rtsp_transport: Annotated[str, o.option(o.INPUT, "Transport of RTSP.", metavar="tcp|udp")] = "tcp",
    decoder: o.DecoderOption = "software",
    show: Annotated[
        list[str] | None,
        o.option(
            o.OUTPUT,
            "Display of the rendered video. Repeatable.",
            metavar="window|web|none",
            show_default="window, else web",
        ),
    ] = None,
    record: Annotated[str | None, o.option(o.OUTPUT, "Record the rendered video.", metavar="FILE")] = None,
    split_every: Annotated[str | None, o.option(o.OUTPUT, "Start a new file at this interval.", metavar="TIME")] = None,
    keep: Annotated[
        str | None,
        o.option(o.OUTPUT, "Maximum total size of each camera's files; the oldest are removed.", metavar="10GB"),
    ] = None,
    encoder: o.EncoderOption = "software",
    codec: Annotated[str | None, o.option(o.OUTPUT, "FFmpeg encoder name.", show_default="H.264")] = None,
    crf: o.Crf = None,
    push: Annotated[
        list[str] | None,
        o.option(
            o.OUTPUT,
            "Publish the rendered video by rtsp, rtmp, udp or srt. Repeatable.",
            metavar="URL",
            envvar="RTSEG_PUSH",
        ),
    ] = None,
    jsonl: Annotated[
        str | None,
        o.option(
            o.OUTPUT, "Write a JSON line per frame; - for stdout. Replaces only JSON lines files.", metavar="FILE"
        ),
    ] = None,
    snapshots: Annotated[Path, o.option(o.OUTPUT, "Folder for snapshots.", metavar="FOLDER")] = Path(),
    overwrite: o.Overwrite = True,
    masks: o.Masks = None,
    stats: o.StatsFile = None,
    max_age_ms: Annotated[
        float | None, o.option(_LATENCY, "Maximum age of a displayed frame, in milliseconds.", min=1)
    ] = None,
    every_frame: Annotated[
        bool, o.option(_LATENCY, "Process every frame and accept delay; drop none.", "--every-frame")
    ] = False,
    adaptive: Annotated[
        bool, o.option(_LATENCY, "Under overload use a smaller model, then process fewer frames.", "--adaptive")
    ] = False,
    timeout: Annotated[
        float | None,
        o.option(
            _LATENCY,
            "Seconds without data before an input is disconnected.",
            min=0.1,
            show_default="5; 10 with GStreamer",
        ),
    ] = None,
    reconnect_max: Annotated[
        float, o.option(_LATENCY, "Maximum delay between reconnect attempts, in seconds; 0: do not reconnect.", min=0)
    ] = 30,
    wait: Annotated[bool, o.option(_LATENCY, "Wait for cameras that are not connected yet.", "--wait")] = False,
    address: Annotated[str, o.option(_PAGE, "Address of the web page.")] = "127.0.0.1:8080",
    token: Annotated[
        str | None,
        o.option(_PAGE, "Access token for non-local addresses.", envvar="RTSEG_TOKEN", show_default="random"),
    ] = None,
    model: o.Model = None,
    backend: o.Backend = "auto",
    device: o.Device = None,
    size: o.Size = None,
    fit: o.FitOption = "letterbox",
    view: o.ViewOption = "overlay",
    alpha: o.Alpha = 0.5,
    palette: o.PaletteOption = "street",
    only: o.Only = None,
    smooth: o.Smooth = 0.0,
    legend: o.Legend = False,
    hud: Annotated[bool, o.option(o.APPEARANCE, "Draw the frame rate and age.", "--hud")] = False,
    dry_run: Annotated[
        bool, o.option(None, "Print the GStreamer commands that would run, and exit.", "--dry-run")
    ] = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Segment cameras and streams in real time. Processes the latest frame; older frames are dropped and counted.

    Stops at q, Ctrl-C or SIGTERM, with complete files. Reconnects to a camera that was disconnected.

    Keys in the window: q quit, space pause, m view, l legend, + and - opacity, s snapshot.

    Examples:

        rtseg live --camera 0

        rtseg live --url rtsp://10.0.0.5/stream --record drive.mp4 --split-every 60 --keep 10GB

        rtseg live --url drive.mp4 --realtime --loop --show web
    """
    with error_handler(verbose):
        # Before PyAV: both contain an X11 library of the same name, and with that of PyAV a window of OpenCV hangs.
        import cv2  # noqa: F401

        from rtseg.core.process_setup import set_up_pipeline

        set_up_pipeline()
        if list_cameras:
            _list_cameras()
            return
        from rtseg.cli.live_status import LiveStatus
        from rtseg.core.cpu import usable_cores
        from rtseg.core.errors import OptionError
        from rtseg.core.files import write_json
        from rtseg.core.path_conflicts import Input, check_paths, model_inputs, option_inputs, side_outputs
        from rtseg.io.codecs import choose_encoder
        from rtseg.io.inputs.camera import CameraMode
        from rtseg.live.controls import Controls, DisplaySettings
        from rtseg.live.inputs import find_inputs
        from rtseg.live.options import LiveOptions, Outputs, parse_bytes
        from rtseg.live.run import run_live, smaller_model
        from rtseg.render.style import Style

        inputs = find_inputs(
            cameras=camera or (),
            urls=url or (),
            pipelines=gst or (),
            csi=csi or (),
            mode=CameraMode(o.parse_size(camera_size), camera_fps, camera_format),
            realtime=realtime,
            loop=loop,
            timeout_seconds=timeout,
            rtsp_transport=rtsp_transport,
            decoder=decoder,
        )
        outputs = Outputs(
            show=tuple(show or ()),
            record=record,
            segment_seconds=o.parse_seconds(split_every, "--split-every"),
            keep_bytes=None if keep is None else parse_bytes(keep),
            codec=choose_encoder(encoder, codec),
            crf=crf,
            masks=masks,
            jsonl=jsonl,
            push=tuple(push or ()),
            snapshots=snapshots,
            address=address,
            token=token,
            overwrite=overwrite,
        )
        outputs.check()
        names = [entry.name for entry in inputs] if len(inputs) > 1 else [None]
        check_paths(
            [*(Input(each) for each in url or ()), *model_inputs(model), *option_inputs(palette=palette)],
            [*(each for name in names for each in outputs.files(name)), *side_outputs(jsonl=jsonl, stats=stats)],
            overwrite=overwrite,
        )
        for name in names:
            outputs.check_masks(name)
        if dry_run:
            from rtseg.live.run import dry_run as dry_run_lines

            print(*dry_run_lines(inputs, outputs), sep="\n")
            return
        if adaptive and every_frame:
            raise OptionError("--adaptive drops frames, --every-frame does not allow it; give only one of them")
        style = Style(view, alpha, palette, o.parse_names(only), legend, hud)
        controls = Controls(DisplaySettings(view, alpha, legend))
        with ExitStack() as models:
            streams = min(len(inputs), usable_cores())  # with one camera, all cores work on one frame, for low latency
            segmenter = models.enter_context(
                o.open_segmenter(model, backend, device, size, fit=fit, streams=streams, smooth=smooth)
            )
            networks = [segmenter]
            if adaptive and (smaller := smaller_model(segmenter)):
                networks.append(
                    models.enter_context(
                        o.open_segmenter(smaller, segmenter.backend, device, size, fit=fit, smooth=smooth)
                    )
                )
            _quit_on_signal(controls)
            status = models.enter_context(LiveStatus(quiet=quiet))
            result = run_live(
                inputs,
                outputs,
                networks,
                style,
                controls,
                LiveOptions(max_age_ms, every_frame, adaptive, reconnect_max, wait),
                show_status=status.show,
            )
        if stats:
            write_json(result.to_dict(), stats)
        for line in result.failed or ():
            print_line(f"rtseg: {line}")
        _exit_process(1 if result.failed else 0)


def _list_cameras() -> None:
    from rtseg.io.inputs.camera import list_cameras

    cameras = list_cameras()
    for path, name in cameras:
        print(f"{path}  {name}")
    if not cameras:
        print_line("no cameras: none is connected, or this user has no access (group `video`)")


def _quit_on_signal(controls: Any) -> None:
    """Quit normally at SIGINT and SIGTERM. A second SIGINT exits at once with code 130."""
    times: list[float] = []

    def quit_live(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if controls.quitting and number == signal.SIGINT and (not times or now - times[0] > _SAME_SIGNAL_SECONDS):
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR)  # which the status line hides
            os._exit(130)
        times.append(now)
        controls.quit()

    signal.signal(signal.SIGINT, quit_live)
    signal.signal(signal.SIGTERM, quit_live)
    # Python removes its handlers at exit. An interrupt at that time, when all files are complete, must not look like a failure.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _exit_process(code: int) -> None:
    """Exit with a code, without waiting for threads that are blocked by a disk or a socket."""
    from rtseg.live.loop import has_running_threads

    if has_running_threads():
        sys.stderr.flush()
        os._exit(code)
    if code:
        raise typer.Exit(code)
