"""Selection of decoders and encoders, and one-line errors for codecs that are not available."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from command import MODEL, assert_one_error_line, rtseg
from media import write_video

from rtseg.core.errors import OptionError, SinkError, SourceError
from rtseg.gpu.devices import find_gpus
from rtseg.io import codecs
from rtseg.io.codecs import choose_decoder, choose_encoder, try_nvdec, try_nvenc
from rtseg.io.gstreamer import pipelines
from rtseg.io.outputs.containers import encoder_options

JETSON = {"nvv4l2decoder", "nvv4l2h264enc", "nvvidconv", "parsebin", "h264parse", "rtspsrc"}
ORIN_NANO = JETSON - {"nvv4l2h264enc"} | {"x264enc"}
PC = {"parsebin", "h264parse", "x264enc", "rtspsrc"}
needs_gstreamer = pytest.mark.system("gst-launch-1.0", "gst-inspect-1.0")


NO_GPU = "no such device"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set what this machine has: why NVDEC and NVENC do not work (None: they do), and the elements of GStreamer."""

    def set_machine(refusal: str | None, elements: set[str]) -> None:
        monkeypatch.setattr(codecs, "try_nvdec", lambda: refusal)
        monkeypatch.setattr(codecs, "try_nvenc", lambda name: refusal)
        monkeypatch.setattr(codecs, "has_element", elements.__contains__)
        monkeypatch.setattr(pipelines, "has_element", elements.__contains__)

    return set_machine


@pytest.mark.parametrize(
    ("requested", "refusal", "elements", "expected"),
    [
        ("software", None, JETSON, "software"),
        ("auto", None, JETSON, "auto"),  # NVDEC decodes what it supports
        ("auto", NO_GPU, JETSON, "gstreamer"),
        ("auto", NO_GPU, PC, "software"),
        ("nvdec", None, PC, "nvdec"),
        ("gstreamer", NO_GPU, PC, "gstreamer"),
    ],
)
def test_decoder_is_chosen_by_hardware(
    machine: Callable[..., None], requested: str, refusal: str | None, elements: set[str], expected: str
) -> None:
    machine(refusal, elements)
    assert choose_decoder(requested) == expected


def test_auto_skips_gstreamer_if_audio_is_needed(machine: Callable[..., None]) -> None:
    machine(NO_GPU, JETSON)
    assert choose_decoder("auto", with_audio=True) == "software"
    assert choose_decoder("gstreamer", with_audio=True) == "gstreamer"


@pytest.mark.parametrize(
    ("requested", "codec", "refusal", "elements", "expected"),
    [
        ("software", None, None, JETSON, None),
        ("software", "libx265", None, JETSON, "libx265"),
        ("auto", None, None, JETSON, "h264_nvenc"),
        ("auto", "libx265", None, JETSON, "hevc_nvenc"),
        ("auto", None, NO_GPU, JETSON, "gstreamer"),
        ("auto", "libx265", NO_GPU, JETSON, "libx265"),
        ("auto", "ffv1", None, JETSON, "ffv1"),
        ("auto", None, NO_GPU, ORIN_NANO, None),  # no hardware encoder
        ("auto", None, NO_GPU, PC, None),
        ("nvenc", "libsvtav1", None, PC, "av1_nvenc"),
        ("gstreamer", None, None, PC, "gstreamer"),
    ],
)
def test_encoder_is_chosen_by_hardware_and_codec(
    machine: Callable[..., None],
    requested: str,
    codec: str | None,
    refusal: str | None,
    elements: set[str],
    expected: str | None,
) -> None:
    machine(refusal, elements)
    assert choose_encoder(requested, codec) == expected


def test_requested_but_unavailable_codec_is_an_error(machine: Callable[..., None]) -> None:
    machine(NO_GPU, set())
    with pytest.raises(SourceError, match=r"--decoder nvdec: .*no such device"):
        choose_decoder("nvdec")
    with pytest.raises(SourceError, match="GStreamer is not installed: `apt-get install"):
        choose_decoder("gstreamer")
    with pytest.raises(SinkError, match=r"--encoder nvenc: h264_nvenc .*no such device"):
        choose_encoder("nvenc")
    with pytest.raises(SinkError, match="GStreamer is not installed"):
        choose_encoder("gstreamer")
    with pytest.raises(OptionError, match="not --codec ffv1"):
        choose_encoder("nvenc", "ffv1")
    with pytest.raises(OptionError, match="not --codec libx265"):
        choose_encoder("gstreamer", "libx265")
    with pytest.raises(OptionError, match="--encoder gstreamer"):
        choose_encoder("software", "gstreamer")
    with pytest.raises(OptionError, match="there are software, auto"):
        choose_decoder("quartz")
    with pytest.raises(OptionError, match="there are software, auto"):
        choose_encoder("quartz")


def test_nvenc_options_have_nvenc_names() -> None:
    assert encoder_options("h264_nvenc", None, None) == {"rc": "vbr", "cq": "23", "preset": "p4"}
    assert encoder_options("hevc_nvenc", 30, None, live=True) == {"rc": "vbr", "cq": "30", "preset": "p1", "tune": "ll"}


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_self_checks_without_a_gpu_return_the_reason() -> None:
    assert try_nvdec() == "no NVIDIA GPU was detected"
    assert try_nvenc("h264_nvenc") == "no NVIDIA GPU was detected"


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
@pytest.mark.parametrize(("option", "value"), [("--decoder", "nvdec"), ("--encoder", "nvenc")])
def test_missing_hardware_codec_is_a_one_line_error_without_output(tmp_path: Path, option: str, value: str) -> None:
    video, out = write_video(tmp_path / "video.mp4", frames=5), tmp_path / "out.mp4"
    result = rtseg("video", video, "-o", out, "--model", MODEL, option, value)
    assert result.returncode == 1
    assert_one_error_line(result, f"{option} {value}", "no NVIDIA GPU was detected", "try auto")
    assert not out.exists()


def test_rtsp_pipeline_on_jetson_uses_its_decoder(machine: Callable[..., None]) -> None:
    machine(NO_GPU, JETSON)
    pipeline = pipelines.rtsp_pipeline("rtsp://10.0.0.5/x")
    assert pipeline == "rtspsrc location=rtsp://10.0.0.5/x protocols=tcp latency=0 ! parsebin ! nvv4l2decoder"
    machine(NO_GPU, PC)
    assert pipelines.rtsp_pipeline("rtsp://a/x", "udp").endswith("protocols=udp latency=0 ! decodebin")
    machine(NO_GPU, set())
    with pytest.raises(SourceError, match="rtspsrc is not installed"):
        pipelines.rtsp_pipeline("rtsp://a/x")


@needs_gstreamer
def test_gstreamer_decoder_and_encoder_keep_frames_and_times(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", frames=24)
    out, stats = tmp_path / "out.mp4", tmp_path / "run.json"
    options = ("--decoder", "gstreamer", "--encoder", "gstreamer")
    result = rtseg("video", video, "-o", out, "--model", MODEL, "--stats", stats, *options)
    assert result.returncode == 0, result.stderr
    report = json.loads(stats.read_text())
    decoder = "decodebin" if not pipelines.has_element("nvv4l2decoder") else "nvv4l2decoder"
    assert (report["decoder"], report["encoder"]) == (decoder, pipelines.encoder(25).name)  # type: ignore[arg-type]
    assert report["frames"]["written"] == 24
    assert report["fidelity"]["timestamp_error_ms"] == pytest.approx(0, abs=1)
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 24


@needs_gstreamer
def test_gstreamer_rejects_start_and_passwords(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", frames=5)
    part = rtseg(
        "video", video, "-o", tmp_path / "out.mp4", "--model", MODEL, "--decoder", "gstreamer", "--start", "0.1"
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
    result = rtseg("live", "--gst", "videotestsrc", "--record", out, "--encoder", "gstreamer", "--dry-run")
    assert result.returncode == 0, result.stderr
    source, record = result.stdout.splitlines()
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
def test_live_run_with_gstreamer_reports_decoder_and_encoder(tmp_path: Path) -> None:
    video = write_video(tmp_path / "video.mp4", frames=30)
    out, stats = tmp_path / "out.mp4", tmp_path / "run.json"
    options = ("--decoder", "gstreamer", "--encoder", "gstreamer", "--every-frame")
    result = rtseg(
        "live", "--url", video, "--realtime", "--show", "none", "--record", out, "--model", MODEL,
        "--stats", stats, *options,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    report = json.loads(stats.read_text())
    assert report["encoder"] == pipelines.encoder(25).name  # type: ignore[arg-type]
    assert report["decoder"] == pipelines.file_decoder()
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == report["frames"]["written"] == 30
