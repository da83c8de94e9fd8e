"""Tests that the commands for a vehicle run without torch and do not import it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from media import write_video

from rtseg.inference.bundled_models import find_model

RUN = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"{name} is forbidden here", name=name)

sys.meta_path.insert(0, NoTorch())
from rtseg.cli.app import main
sys.argv = ["rtseg", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "torch")
    print("torch:", loaded)
    sys.exit(end.code)
"""


def run(*arguments: object) -> str:
    """Run `rtseg ARGUMENTS` with an import hook that forbids torch. Return its standard error."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "torch: []"
    return done.stderr


def test_video_runs_without_torch(tmp_path: Path) -> None:
    drive = write_video(tmp_path / "drive.mp4", frames=6)
    run("video", drive, "-o", tmp_path / "out.mp4", "--model", "nano", "--size", "96x64", "--masks", tmp_path / "m.mkv")
    assert (tmp_path / "out.mp4").exists()


def test_live_runs_without_torch(tmp_path: Path) -> None:
    drive = write_video(tmp_path / "drive.mp4", frames=6)
    out, lines = tmp_path / "out.mp4", tmp_path / "lines.jsonl"
    outputs = ("--show", "none", "--record", out, "--jsonl", lines, "--every-frame")
    run("live", "--url", drive, "--realtime", "--model", "nano", "--size", "96x64", *outputs)
    assert out.exists()
    assert len(lines.read_text().splitlines()) == 6


@pytest.mark.parametrize("target", ["onnx", "openvino", "tensorrt-rtx"])
def test_build_from_onnx_runs_without_torch(tmp_path: Path, target: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    if target == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx_bindings")
    name = {"onnx": "built.onnx", "openvino": "built.xml", "tensorrt-rtx": "built.engine"}[target]
    run("build", find_model("nano"), "--target", target, "--size", "96x64", "-o", tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000


def test_config_check_runs_without_torch(tmp_path: Path) -> None:
    unit = tmp_path / "rtseg.service"
    unit.write_text("ExecStart=/opt/rtseg/bin/rtseg live --camera 0\n")
    run("config", "check", unit)
