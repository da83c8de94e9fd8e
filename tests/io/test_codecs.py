"""Decoders and encoders: the choice, its report, and one line for a codec that is not available."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from command import assert_one_error_line, rtseg
from media import write_video

from rtseg.core.errors import OptionError, SinkError, SourceError
from rtseg.gpu.devices import find_gpus
from rtseg.io.codecs import choose_decoder, choose_encoder, try_nvdec, try_nvenc
from rtseg.io.gstreamer import pipelines as elements
from rtseg.io.outputs.containers import encoder_options

pytestmark = pytest.mark.timeout(180)

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
JETSON = {"nvv4l2decoder", "nvv4l2h264enc", "nvvidconv", "parsebin", "h264parse", "rtspsrc"}
ORIN_NANO = JETSON - {"nvv4l2h264enc"} | {"x264enc"}
PC = {"parsebin", "h264parse", "x264enc", "rtspsrc"}
needs_gstreamer = pytest.mark.system("gst-launch-1.0", "gst-inspect-1.0")


def works(*_: str) -> None:
    return None


def fails(*_: str) -> str:
    return "no such device"


@pytest.mark.parametrize(
    ("wanted", "gpu", "there", "chosen"),
    [
        ("software", works, JETSON, "software"),
        ("auto", works, JETSON, "auto"),  # NVDEC decodes what it supports
        ("auto", fails, JETSON, "gstreamer"),
        ("auto", fails, PC, "software"),
        ("nvdec", works, PC, "nvdec"),
        ("gstreamer", fails, PC, "gstreamer"),
    ],
)
def test_which_decoder(wanted: str, gpu: object, there: set[str], chosen: str) -> None:
    assert choose_decoder(wanted, why_no_nvdec=gpu, has=there.__contains__) == chosen  # type: ignore[arg-type]


def test_no_choice_that_loses_the_sound_is_made_unasked() -> None:
    arguments = {"why_no_nvdec": fails, "has": JETSON.__contains__}
    assert choose_decoder("auto", with_audio=True, **arguments) == "software"  # type: ignore[arg-type]
    assert choose_decoder("gstreamer", with_audio=True, **arguments) == "gstreamer"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "codec", "gpu", "there", "chosen"),
    [
        ("software", None, works, JETSON, None),
        ("software", "libx265", works, JETSON, "libx265"),
        ("auto", None, works, JETSON, "h264_nvenc"),
        ("auto", "libx265", works, JETSON, "hevc_nvenc"),
        ("auto", None, fails, JETSON, "gstreamer"),
        ("auto", "libx265", fails, JETSON, "libx265"),
        ("auto", "ffv1", works, JETSON, "ffv1"),
        ("auto", None, fails, ORIN_NANO, None),  # it has no encoder
        ("auto", None, fails, PC, None),
        ("nvenc", "libsvtav1", works, PC, "av1_nvenc"),
        ("gstreamer", None, works, PC, "gstreamer"),
    ],
)
def test_which_encoder(wanted: str, codec: str | None, gpu: object, there: set[str], chosen: str | None) -> None:
    assert choose_encoder(wanted, codec, why_no_nvenc=gpu, has=there.__contains__) == chosen  # type: ignore[arg-type]


def test_what_was_named_and_is_missing_is_an_error() -> None:
    nothing = set[str]().__contains__
    with pytest.raises(SourceError, match=r"--decoder nvdec: .*no such device"):
        choose_decoder("nvdec", why_no_nvdec=fails)
    with pytest.raises(SourceError, match="GStreamer is not installed: `apt-get install"):
        choose_decoder("gstreamer", has=nothing)
    with pytest.raises(SinkError, match=r"--encoder nvenc: h264_nvenc .*no such device"):
        choose_encoder("nvenc", why_no_nvenc=fails)
    with pytest.raises(SinkError, match="GStreamer is not installed"):
        choose_encoder("gstreamer", has=nothing)
    with pytest.raises(OptionError, match="not --codec ffv1"):
        choose_encoder("nvenc", "ffv1", why_no_nvenc=works)
    with pytest.raises(OptionError, match="not --codec libx265"):
        choose_encoder("gstreamer", "libx265", has=PC.__contains__)
    with pytest.raises(OptionError, match="--encoder gstreamer"):
        choose_encoder("software", "gstreamer")
    with pytest.raises(OptionError, match="there are software, auto"):
        choose_decoder("quartz")
    with pytest.raises(OptionError, match="there are software, auto"):
        choose_encoder("quartz")


def test_nvenc_gets_its_own_options() -> None:
    assert encoder_options("h264_nvenc", None, None, None) == {"rc": "vbr", "cq": "23", "preset": "p4"}
    assert encoder_options("hevc_nvenc", 30, "p1", "ll") == {"rc": "vbr", "cq": "30", "preset": "p1", "tune": "ll"}


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_trials_without_a_gpu_return_the_reason() -> None:
    assert try_nvdec() == "no NVIDIA GPU was detected"
    assert try_nvenc("h264_nvenc") == "no NVIDIA GPU was detected"


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
@pytest.mark.parametrize(("option", "value"), [("--decoder", "nvdec"), ("--encoder", "nvenc")])
def test_a_missing_one_is_told_in_one_line_and_nothing_is_made(tmp_path: Path, option: str, value: str) -> None:
    drive, out = write_video(tmp_path / "drive.mp4", frames=5), tmp_path / "out.mp4"
    result = rtseg("video", drive, "-o", out, "--model", MODEL, option, value)
    assert result.returncode == 1
    assert_one_error_line(result, f"{option} {value}", "no NVIDIA GPU was detected", "try auto")
    assert not out.exists()


def test_the_chain_of_a_jetson_for_rtsp() -> None:
    chain = elements.rtsp_pipeline("rtsp://10.0.0.5/x", has=JETSON.__contains__)
    assert chain == "rtspsrc location=rtsp://10.0.0.5/x protocols=tcp latency=0 ! parsebin ! nvv4l2decoder"
    assert elements.rtsp_pipeline("rtsp://a/x", "udp", PC.__contains__).endswith("protocols=udp latency=0 ! decodebin")
    with pytest.raises(SourceError, match="rtspsrc is not installed"):
        elements.rtsp_pipeline("rtsp://a/x", has=set[str]().__contains__)


@needs_gstreamer
def test_a_video_through_gstreamer_alone_keeps_frames_and_times(tmp_path: Path) -> None:
    drive = write_video(tmp_path / "drive.mp4", frames=24)
    out, stats = tmp_path / "out.mp4", tmp_path / "run.json"
    choice = ("--decoder", "gstreamer", "--encoder", "gstreamer")
    result = rtseg("video", drive, "-o", out, "--model", MODEL, "--stats", stats, *choice)
    assert result.returncode == 0, result.stderr
    report = json.loads(stats.read_text())
    software = "decodebin" if not elements.has_element("nvv4l2decoder") else "nvv4l2decoder"
    assert (report["decoder"], report["encoder"]) == (software, elements.encoder(25).name)  # type: ignore[arg-type]
    assert report["frames"]["written"] == 24
    assert report["fidelity"]["timestamp_error_ms"] == pytest.approx(0, abs=1)
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 24


@needs_gstreamer
def test_gstreamer_reads_whole_files_and_no_passwords(tmp_path: Path) -> None:
    drive = write_video(tmp_path / "drive.mp4", frames=5)
    part = rtseg(
        "video", drive, "-o", tmp_path / "out.mp4", "--model", MODEL, "--decoder", "gstreamer", "--start", "0.1"
    )
    assert part.returncode == 1
    assert_one_error_line(part, "reads whole files")
    camera = rtseg("live", "--url", "rtsp://user:secret@127.0.0.1:9/x", "--decoder", "gstreamer", "--dry-run")
    assert camera.returncode == 1
    assert_one_error_line(camera, "rtsp:// without a password")
    assert "secret" not in camera.stdout + camera.stderr


@needs_gstreamer
def test_dry_run_prints_the_processes_of_a_live_run(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    rendered = rtseg("live", "--gst", "videotestsrc", "--record", out, "--encoder", "gstreamer", "--dry-run")
    assert rendered.returncode == 0, rendered.stderr
    source, record = rendered.stdout.splitlines()
    assert source.startswith("gst1: gst-launch-1.0 ")
    assert "videotestsrc" in source
    assert record.startswith("record: gst-launch-1.0 ")
    assert f"filesink location={out}" in record
    assert not out.exists()
    wrong = rtseg("live", "--gst", "videotestsrc", "--record", "out.avi", "--encoder", "gstreamer", "--dry-run")
    assert_one_error_line(wrong, "not '.avi'")
    plain = rtseg("live", "--camera", "0", "--dry-run")
    assert "no GStreamer process" in plain.stdout


@needs_gstreamer
def test_a_live_run_through_gstreamer_says_what_decodes_and_encodes(tmp_path: Path) -> None:
    drive = write_video(tmp_path / "drive.mp4", frames=30)
    out, stats = tmp_path / "out.mp4", tmp_path / "run.json"
    choice = ("--decoder", "gstreamer", "--encoder", "gstreamer", "--every-frame")
    result = rtseg(
        "live", "--url", drive, "--realtime", "--show", "none", "--record", out, "--model", MODEL,
        "--stats", stats, *choice,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(stats.read_text())
    assert report["encoder"] == elements.encoder(25).name  # type: ignore[arg-type]
    assert report["decoder"] == elements.file_decoder()
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == report["frames"]["written"] == 30
