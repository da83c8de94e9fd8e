"""Tests that the scripts in examples/ run as documented in their first lines."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

EXAMPLES = Path(__file__).parents[1] / "examples"
FRAMES = 4


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "drive.mp4"
    write_video(SyntheticDrive(160, 120, frames=FRAMES), str(path))
    return path


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_class_shares_of_each_frame_add_up_to_one(drive: Path, tmp_path: Path) -> None:
    run("class_shares.py", drive, tmp_path / "shares.csv")
    with (tmp_path / "shares.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["seconds"]) for row in rows] == pytest.approx([i / 30 for i in range(FRAMES)], abs=0.001)
    for row in rows:
        assert sum(float(value) for name, value in row.items() if name != "seconds") == pytest.approx(1, abs=0.001)


def test_custom_sink_receives_every_frame_and_the_video_is_written(drive: Path, tmp_path: Path) -> None:
    lines = run("custom_sink.py", drive, tmp_path / "out.mp4").splitlines()
    assert lines[0].startswith(f"{FRAMES} frames at ")
    assert lines[1].startswith("pedestrian ahead at ")
    assert (tmp_path / "out.mp4").exists()


def test_webcam_script_reads_a_file_to_its_end(drive: Path) -> None:
    assert run("webcam.py", "--video", drive, "--no-window").startswith(f"{FRAMES} frames, ")


def test_readme_lists_every_script() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{script.name} " in text for script in EXAMPLES.glob("*.py"))
