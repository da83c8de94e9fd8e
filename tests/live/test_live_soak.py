"""One-minute version of `benchmarks/live_soak.py`: age and memory do not grow if the camera is faster than the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import MODEL

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.proof, pytest.mark.timeout(600)]


def test_age_and_memory_are_stable_for_one_minute_with_slow_model() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "live_soak.py"), "--minutes", "1.2", "--slow-ms", "60"]
    command += ["--model", str(MODEL), "--size", "160x96"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=True, cwd=ROOT)
    report = json.loads(done.stdout)
    frames = report["frames"]
    assert frames["read"] == frames["segmented"] + frames["dropped"] + frames["corrupt"]
    assert frames["dropped"] > 0, "the model must be slower than the camera"
    assert report["sinks"]["out.mp4"]["dropped"] == 0
    assert report["p99_change"] <= 0.10
    assert report["memory_growth_mib"] < 5
