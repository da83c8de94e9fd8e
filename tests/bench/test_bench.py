"""`rtseg bench`: consistent figures, reports, and comparison."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import MODEL, invoke

from rtseg.bench.measure import advice, bench
from rtseg.bench.report import StageCostReport
from rtseg.core.stats import STAGES
from rtseg.gpu.devices import find_gpus
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import OutputOptions
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

QUICK = ("--model", str(MODEL), "--seconds", "0.1", "--rounds", "1", "--preset", "ultrafast")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "video.mp4"
    write_video(SyntheticDrive(160, 96, 20), str(path))
    return path


def test_figures_of_stages_pipeline_and_bound_are_consistent(video: Path, tmp_path: Path) -> None:
    file = tmp_path / "now.json"
    result = invoke("bench", video, *QUICK, "--json", file)
    assert result.exit_code == 0, result.output
    stats = json.loads(file.read_text())
    assert stats["command"] == "bench"
    assert stats["input"] == "video.mp4"
    assert stats["frames"]["written"] == 20
    stages_cpu_ms = sum(stats["alone"][stage]["cpu_ms"] for stage in STAGES)
    assert stats["bound_fps"] == pytest.approx(stats["cores"] * 1000 / stages_cpu_ms, rel=0.01)
    assert stats["of_bound"] == pytest.approx(stats["fps"] / stats["bound_fps"], rel=0.01)
    assert stats["cpu_ratio"] == pytest.approx(stats["cpu_ms_a_frame"] / stages_cpu_ms, rel=0.01)
    assert "bound" in result.output
    assert not list(tmp_path.glob("*.mp4"))  # the output file is deleted


def test_each_stage_runs_at_least_once_in_a_short_time(video: Path) -> None:
    with Segmenter(str(MODEL)) as segmenter:
        result = bench(str(video), segmenter, Style(), OutputOptions(), seconds=1e-9, rounds=1)
    assert all(result.alone[stage].fps > 0 for stage in STAGES)


def test_several_results_are_items_and_have_a_chart(video: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file, chart = tmp_path / "now.json", tmp_path / "now.png"
    result = invoke("bench", video, *QUICK, "--size", "64x32", "--size", "96x64", "--json", file, "--chart", chart)
    assert result.exit_code == 0, result.output
    items = json.loads(file.read_text())["items"]
    assert [item["input_size"] for item in items] == [[64, 32], [96, 64]]
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_synthetic_video_is_the_default(tmp_path: Path) -> None:
    result = invoke("bench", *QUICK, "--frame-size", "128x64", "--frames", 5, "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["frames"]["written"] == 5


def test_compare_reports_the_ratio_of_each_figure(video: Path, tmp_path: Path) -> None:
    before, after, rows = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "rows.json"
    assert invoke("bench", video, *QUICK, "--json", before).exit_code == 0
    faster = json.loads(before.read_text())
    faster["fps"] *= 2
    after.write_text(json.dumps(faster))
    result = invoke("bench", "--compare", before, after, "--json", rows)
    assert result.exit_code == 0, result.output
    ratios = {row["what"]: row["ratio"] for row in json.loads(rows.read_text())["rows"]}
    assert ratios["fps"] == 2.0
    assert ratios["infer cpu ms"] == 1.0
    assert "fps" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "one.json"), "--compare takes two files"),
        (("--compare", "missing.json", "missing.json"), "missing.json is not a result"),
        (("missing.mp4",), "rtseg: no such file: missing.mp4\n"),
    ],
    ids=["one file", "missing result", "missing video"],
)
def test_user_error_is_reported_without_traceback(arguments: tuple[str, ...], message: str) -> None:
    result = invoke("bench", *arguments, *QUICK)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_missing_matplotlib_is_reported_before_measurement(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtseg.bench.report.importlib.util.find_spec", lambda name: None)
    result = invoke("bench", video, *QUICK, "--chart", "x.png")
    assert result.exit_code == 1
    assert result.output.strip() == (
        'rtseg: a chart needs matplotlib: pip install "rtseg[train]", or leave --chart out'
    )


def cost(cpu_ms: float, fps: float | None = None) -> StageCostReport:
    return StageCostReport(p50=cpu_ms, p95=cpu_ms, p99=cpu_ms, cpu_ms=cpu_ms, fps=fps or 1000 / cpu_ms)


def test_advice_names_the_bottleneck() -> None:
    stages = {"decode": cost(3), "infer": cost(30), "overlay": cost(1), "encode": cost(6)}
    assert advice(stages, 2).startswith("infer takes 75% of the CPU time: a smaller model")
    stages["encode"] = cost(60)
    assert advice(stages, 2).startswith("encode takes 64%")
    slow = cost(0.1, fps=10.0)  # waits for a GPU
    line = advice({**stages, "infer": slow}, 2, ("decode", "infer"))
    assert line.startswith("infer, on an accelerator, reaches no more than 10 fps: a smaller model")


@pytest.mark.torch
@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_gpu_benchmark_without_gpu_is_an_error_in_one_line(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    result = subprocess.run(
        [sys.executable, str(script), "--json", str(tmp_path / "gpu.json")], capture_output=True, text=True, timeout=150
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "no NVIDIA GPU was found; `rtseg doctor` shows the reason\n"
    assert not (tmp_path / "gpu.json").exists()
