"""`rtseg live`."""

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

_INPUT, _OUTPUT, _AGE, _PAGE = "Input", "Output", "Age and faults", "Web page"


def _option(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


def live(
    camera: Annotated[
        list[str] | None, _option(_INPUT, "--camera", metavar="N|DEVICE", help="A camera; may be given again.")
    ] = None,
    url: Annotated[
        list[str] | None,
        _option(
            _INPUT,
            "--url",
            metavar="URL|FILE",
            envvar="RTSEG_URL",
            help="rtsp, rtmp, http, HLS, tcp, udp or srt; or a file, with --realtime.",
        ),
    ] = None,
    gst: Annotated[list[str] | None, _option(_INPUT, "--gst", metavar="PIPELINE", help="A GStreamer pipeline.")] = None,
    csi: Annotated[list[int] | None, _option(_INPUT, "--csi", metavar="N", help="A Jetson's CSI camera.")] = None,
    list_cameras: Annotated[bool, _option(_INPUT, "--list-cameras", help="List this machine's cameras.")] = False,
    camera_size: Annotated[
        str | None, _option(_INPUT, "--camera-size", metavar="WxH", show_default="its own", help="Size asked for.")
    ] = None,
    camera_fps: Annotated[
        float | None,
        _option(_INPUT, "--camera-fps", min=0.1, show_default="its own", help="Frames a second asked for."),
    ] = None,
    camera_format: Annotated[
        str | None,
        _option(_INPUT, "--camera-format", metavar="mjpeg|yuyv|h264", show_default="its own", help="As it comes."),
    ] = None,
    realtime: Annotated[bool, _option(_INPUT, "--realtime", help="Play files at their own pace.")] = False,
    loop: Annotated[bool, _option(_INPUT, "--loop", help="Begin files anew at their end.")] = False,
    rtsp_transport: Annotated[
        str, _option(_INPUT, "--rtsp-transport", metavar="tcp|udp", help="What RTSP goes over.")
    ] = "tcp",
    decoder: o.DecoderOption = "software",
    show: Annotated[
        list[str] | None,
        _option(
            _OUTPUT, "--show", metavar="window|web|none", show_default="window, else web", help="May be given again."
        ),
    ] = None,
    record: Annotated[str | None, _option(_OUTPUT, "--record", metavar="FILE", help="Record what is shown.")] = None,
    split_every: Annotated[
        str | None, _option(_OUTPUT, "--split-every", metavar="TIME", help="A new file every so long.")
    ] = None,
    keep: Annotated[
        str | None, _option(_OUTPUT, "--keep", metavar="10GB", help="Remove the oldest files beyond this size.")
    ] = None,
    encoder: o.EncoderOption = "software",
    codec: Annotated[
        str | None, _option(_OUTPUT, "--codec", show_default="H.264", help="FFmpeg encoder of the recording.")
    ] = None,
    crf: Annotated[
        int | None, _option(_OUTPUT, "--crf", min=0, max=63, show_default="23", help="Quality of the recording.")
    ] = None,
    push: Annotated[
        list[str] | None,
        _option(_OUTPUT, "--push", metavar="URL", envvar="RTSEG_PUSH", help="Send it by rtsp, rtmp, udp, srt."),
    ] = None,
    jsonl: Annotated[
        str | None,
        _option(
            _OUTPUT, "--jsonl", metavar="FILE", help="A line for each frame; - for stdout. Replaces only JSON lines."
        ),
    ] = None,
    snapshots: Annotated[Path, _option(_OUTPUT, "--snapshots", metavar="FOLDER", help="For single pictures.")] = Path(),
    overwrite: Annotated[bool, _option(_OUTPUT, "--overwrite/--no-overwrite", help="Replace existing files.")] = True,
    masks: o.Masks = None,
    stats: o.StatsFile = None,
    max_age_ms: Annotated[
        float | None, _option(_AGE, "--max-age-ms", min=1, help="Show no frame older than this.")
    ] = None,
    every_frame: Annotated[bool, _option(_AGE, "--every-frame", help="Drop nothing; accept delay.")] = False,
    adaptive: Annotated[
        bool, _option(_AGE, "--adaptive", help="Smaller model, then fewer frames, while the machine can't keep up.")
    ] = False,
    timeout: Annotated[
        float | None,
        _option(
            _AGE,
            "--timeout",
            min=0.1,
            help="Seconds of silence that an input may have.",
            show_default="5; 10 through GStreamer",
        ),
    ] = None,
    reconnect_max: Annotated[
        float,
        _option(_AGE, "--reconnect-max", min=0, help="Longest pause between tries, seconds; 0: do not reconnect."),
    ] = 30,
    wait: Annotated[bool, _option(_AGE, "--wait", help="Wait for cameras that are not there yet.")] = False,
    address: Annotated[str, _option(_PAGE, "--address", help="Where the page is served.")] = "127.0.0.1:8080",
    token: Annotated[
        str | None, _option(_PAGE, "--token", envvar="RTSEG_TOKEN", show_default="made up", help="For other addresses.")
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
    hud: Annotated[bool, _option("Style", "--hud", help="Burn in frames per second and age.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the GStreamer processes that would run, and end.")
    ] = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Color cameras and streams as they come: the newest frame, never an old one; what is too much is dropped and counted.

    Ends by q, Ctrl-C or SIGTERM, with files complete. A camera that goes away is waited for.

    Keys in the window: q quit, space pause, m view, l legend, + and - opacity, s snapshot.

    Examples:

        rtseg live --camera 0

        rtseg live --url rtsp://10.0.0.5/stream --record drive.mp4 --split-every 60 --keep 10GB

        rtseg live --url drive.mp4 --realtime --loop --show web
    """
    with error_handler(verbose):
        # Before PyAV: both bring an X11 library of the same name, and with PyAV's a window of OpenCV waits for the screen for ever.
        import cv2  # noqa: F401

        from rtseg.core.process_setup import keep_memory_flat, keep_opencv_single

        keep_memory_flat()
        keep_opencv_single()
        if list_cameras:
            _list_cameras()
            return
        from rtseg.core.cpu import usable_cores
        from rtseg.core.errors import OptionError
        from rtseg.core.files import write_json
        from rtseg.core.path_conflicts import Input, check_paths, model_inputs, option_inputs, side_outputs
        from rtseg.inference.segmenter import Segmenter
        from rtseg.io.codecs import choose_encoder
        from rtseg.io.inputs.camera import CameraMode
        from rtseg.live.controls import Controls
        from rtseg.live.inputs import find_inputs
        from rtseg.live.outputs import Outputs, parse_bytes
        from rtseg.live.run import open_smaller, run_live
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
            keep_bytes=parse_bytes(keep),
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
        several = [entry.name for entry in inputs] if len(inputs) > 1 else [None]
        check_paths(
            [*(Input(each) for each in url or ()), *model_inputs(model), *option_inputs(palette=palette)],
            [*(each for name in several for each in outputs.files(name)), *side_outputs(jsonl=jsonl, stats=stats)],
            overwrite=overwrite,
        )
        for name in several:
            outputs.check_masks(name)
        if dry_run:
            from rtseg.live.run import dry_run as lines_of

            print(*lines_of(inputs, outputs), sep="\n")
            return
        if adaptive and every_frame:
            raise OptionError("--adaptive leaves frames out, --every-frame forbids it; give one of them")
        style = Style(view, alpha, palette, o.parse_names(only), legend, hud)
        controls = Controls(view=view, alpha=alpha, legend=legend)
        with ExitStack() as models:
            network = o.parse_size(size)
            at_once = min(len(inputs), usable_cores())  # one camera: all cores on one picture, which is soonest done
            segmenter = models.enter_context(
                Segmenter(
                    model,
                    backend=backend,
                    device=device,
                    size=network,
                    fit=fit,
                    streams=at_once,
                    smooth=smooth,
                    build_missing=o.build_missing,
                )
            )
            smaller = None
            if adaptive:
                smaller = open_smaller(
                    segmenter, device=device, size=network, fit=fit, smooth=smooth, build_missing=o.build_missing
                )
            if smaller:
                models.enter_context(smaller)
            _end_by_signal(controls)
            result = run_live(
                inputs,
                outputs,
                segmenter,
                style,
                controls,
                max_age_ms=max_age_ms,
                every_frame=every_frame,
                adaptive=adaptive,
                smaller=smaller,
                reconnect_max_seconds=reconnect_max,
                wait=wait,
                quiet=quiet,
            )
        if stats:
            write_json(result, stats)
        for line in result["failed"]:
            print_line(f"rtseg: {line}")
        _leave(1 if result["failed"] else 0)


_ONE_KEY_SECONDS = 0.3


def _end_by_signal(controls: Any) -> None:
    """SIGINT and SIGTERM are the normal end; a second SIGINT does not wait for anything.

    Two within `_ONE_KEY_SECONDS` are one: `timeout -s INT` sends it to the process and to its group.
    """
    first: list[float] = []

    def end(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if controls.quitting and number == signal.SIGINT and (not first or now - first[0] > _ONE_KEY_SECONDS):
            os._exit(130)
        first.append(now)
        controls.quit()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    # Python gives up its handlers as it ends: an interrupt that comes then, all being complete, would look like a failure.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _leave(code: int) -> None:
    """Ends the process with an exit code, without waiting for a thread that hangs in a dead disk or socket."""
    from rtseg.live.loop import left_behind

    if left_behind():
        sys.stderr.flush()
        os._exit(code)
    if code:
        raise typer.Exit(code)


def _list_cameras() -> None:
    from rtseg.io.inputs.camera import list_cameras

    found = list_cameras()
    for path, name in found:
        print(f"{path}  {name}")
    if not found:
        print_line("no cameras: none is plugged in, or this user may not see them (group `video`)")
