"""Command `rtseg live`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from rtseg.cli import options as o
from rtseg.cli.errors import error_handler, print_line
from rtseg.cli.live_exit import exit_process, quit_on_signal

_LATENCY, _PAGE = "Latency and reconnect", "Web page"


def _option(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


def live(
    camera: Annotated[
        list[str] | None, _option(o.INPUT, "--camera", metavar="N|DEVICE", help="Camera. Repeatable.")
    ] = None,
    url: Annotated[
        list[str] | None,
        _option(
            o.INPUT,
            "--url",
            metavar="URL|FILE",
            envvar="RTSEG_URL",
            help="Stream (rtsp, rtmp, http, HLS, tcp, udp, srt), or a file with --realtime. Repeatable.",
        ),
    ] = None,
    gst: Annotated[
        list[str] | None, _option(o.INPUT, "--gst", metavar="PIPELINE", help="GStreamer pipeline. Repeatable.")
    ] = None,
    csi: Annotated[
        list[int] | None, _option(o.INPUT, "--csi", metavar="N", help="CSI camera of a Jetson. Repeatable.")
    ] = None,
    list_cameras: Annotated[
        bool, _option(o.INPUT, "--list-cameras", help="List the cameras of this machine and exit.")
    ] = False,
    camera_size: Annotated[
        str | None,
        _option(
            o.INPUT, "--camera-size", metavar="WxH", show_default="the camera's default", help="Requested frame size."
        ),
    ] = None,
    camera_fps: Annotated[
        float | None,
        _option(o.INPUT, "--camera-fps", min=0.1, show_default="the camera's default", help="Requested frame rate."),
    ] = None,
    camera_format: Annotated[
        str | None,
        _option(
            o.INPUT,
            "--camera-format",
            metavar="mjpeg|yuyv|h264",
            show_default="the camera's default",
            help="Requested format.",
        ),
    ] = None,
    realtime: Annotated[bool, _option(o.INPUT, "--realtime", help="Play files at their frame rate.")] = False,
    loop: Annotated[bool, _option(o.INPUT, "--loop", help="Restart files at their end.")] = False,
    rtsp_transport: Annotated[
        str, _option(o.INPUT, "--rtsp-transport", metavar="tcp|udp", help="Transport of RTSP.")
    ] = "tcp",
    decoder: o.DecoderOption = "software",
    show: Annotated[
        list[str] | None,
        _option(
            o.OUTPUT,
            "--show",
            metavar="window|web|none",
            show_default="window, else web",
            help="Display of the rendered video. Repeatable.",
        ),
    ] = None,
    record: Annotated[
        str | None, _option(o.OUTPUT, "--record", metavar="FILE", help="Record the rendered video.")
    ] = None,
    split_every: Annotated[
        str | None, _option(o.OUTPUT, "--split-every", metavar="TIME", help="Start a new file at this interval.")
    ] = None,
    keep: Annotated[
        str | None,
        _option(o.OUTPUT, "--keep", metavar="10GB", help="Maximum total size; the oldest files are removed."),
    ] = None,
    encoder: o.EncoderOption = "software",
    codec: Annotated[
        str | None, _option(o.OUTPUT, "--codec", show_default="H.264", help="FFmpeg encoder name.")
    ] = None,
    crf: Annotated[
        int | None,
        _option(o.OUTPUT, "--crf", min=0, max=63, show_default="23", help="Quality; lower is better and larger."),
    ] = None,
    push: Annotated[
        list[str] | None,
        _option(
            o.OUTPUT,
            "--push",
            metavar="URL",
            envvar="RTSEG_PUSH",
            help="Publish the rendered video by rtsp, rtmp, udp or srt. Repeatable.",
        ),
    ] = None,
    jsonl: Annotated[
        str | None,
        _option(
            o.OUTPUT,
            "--jsonl",
            metavar="FILE",
            help="Write a JSON line per frame; - for stdout. Replaces only JSON lines files.",
        ),
    ] = None,
    snapshots: Annotated[
        Path, _option(o.OUTPUT, "--snapshots", metavar="FOLDER", help="Folder for snapshots.")
    ] = Path(),
    overwrite: Annotated[bool, _option(o.OUTPUT, "--overwrite/--no-overwrite", help="Replace existing files.")] = True,
    masks: o.Masks = None,
    stats: o.StatsFile = None,
    max_age_ms: Annotated[
        float | None,
        _option(_LATENCY, "--max-age-ms", min=1, help="Maximum age of a displayed frame, in milliseconds."),
    ] = None,
    every_frame: Annotated[
        bool, _option(_LATENCY, "--every-frame", help="Process every frame and accept delay; drop none.")
    ] = False,
    adaptive: Annotated[
        bool, _option(_LATENCY, "--adaptive", help="Under overload use a smaller model, then process fewer frames.")
    ] = False,
    timeout: Annotated[
        float | None,
        _option(
            _LATENCY,
            "--timeout",
            min=0.1,
            help="Seconds without data before an input is disconnected.",
            show_default="5; 10 with GStreamer",
        ),
    ] = None,
    reconnect_max: Annotated[
        float,
        _option(
            _LATENCY,
            "--reconnect-max",
            min=0,
            help="Maximum delay between reconnect attempts, in seconds; 0: do not reconnect.",
        ),
    ] = 30,
    wait: Annotated[bool, _option(_LATENCY, "--wait", help="Wait for cameras that are not connected yet.")] = False,
    address: Annotated[str, _option(_PAGE, "--address", help="Address of the web page.")] = "127.0.0.1:8080",
    token: Annotated[
        str | None,
        _option(
            _PAGE, "--token", envvar="RTSEG_TOKEN", show_default="random", help="Access token for non-local addresses."
        ),
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
    hud: Annotated[bool, _option(o.APPEARANCE, "--hud", help="Draw the frame rate and age.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the GStreamer commands that would run, and exit.")
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
        controls = Controls(view=view, alpha=alpha, legend=legend)
        with ExitStack() as models:
            network_size = o.parse_size(size)
            streams = min(len(inputs), usable_cores())  # with one camera, all cores work on one frame, for low latency
            segmenter = models.enter_context(
                Segmenter(
                    model,
                    backend=backend,
                    device=device,
                    size=network_size,
                    fit=fit,
                    streams=streams,
                    smooth=smooth,
                    build_missing=o.build_missing,
                )
            )
            smaller = None
            if adaptive:
                smaller = open_smaller(
                    segmenter, device=device, size=network_size, fit=fit, smooth=smooth, build_missing=o.build_missing
                )
            if smaller:
                models.enter_context(smaller)
            quit_on_signal(controls)
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
        exit_process(1 if result["failed"] else 0)


def _list_cameras() -> None:
    from rtseg.io.inputs.camera import list_cameras

    cameras = list_cameras()
    for path, name in cameras:
        print(f"{path}  {name}")
    if not cameras:
        print_line("no cameras: none is connected, or this user has no access (group `video`)")
