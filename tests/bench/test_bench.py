"""`rtseg bench`: what it measures adds up, and what it tells can be read and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import rtseg
from typer.testing import CliRunner

from rtseg.bench.measure import advice, bench
from rtseg.bench.stages import StageCost
from rtseg.cli.app import app
from rtseg.core.stats import STAGES, Histogram
from rtseg.gpu.devices import find_gpus
from rtseg.inference.segmenter import Segmenter
from rtseg.inference.tuning import save_tuned_streams, tuned_streams, tuning_file
from rtseg.io.options import OutputOptions
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.synthetic.video_file import write_video

pytestmark = pytest.mark.timeout(180)

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
QUICK = ("--model", str(MODEL), "--seconds", "0.1", "--rounds", "1", "--preset", "ultrafast")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "drive.mp4"
    write_video(SyntheticDrive(160, 96, 20), str(path), quiet=True)
    return path


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def test_stages_road_and_bound(drive: Path, tmp_path: Path) -> None:
    file = tmp_path / "now.json"
    result = invoke(drive, *QUICK, "--json", file)
    assert result.exit_code == 0, result.output
    told = json.loads(file.read_text())
    assert told["command"] == "bench"
    assert told["input"] == "drive.mp4"
    assert told["frames"]["written"] == 20
    assert set(told["alone"]) == set(STAGES)
    together = sum(told["alone"][stage]["cpu_ms"] for stage in STAGES)
    assert told["bound_fps"] == pytest.approx(told["cores"] * 1000 / together, rel=0.01)
    assert told["of_bound"] == pytest.approx(told["fps"] / told["bound_fps"], rel=0.01)
    assert told["cpu_ratio"] == pytest.approx(told["cpu_ms_a_frame"] / together, rel=0.01)
    assert {"processor", "cores", "packages"} <= set(told["machine"])
    assert "bound" in result.output
    assert not list(tmp_path.glob("*.mp4"))  # what it encodes is thrown away


def test_each_stage_runs_once_at_least_on_a_machine_that_is_held_up(drive: Path) -> None:
    with Segmenter(str(MODEL)) as segmenter:
        found = bench(str(drive), segmenter, Style(), OutputOptions(), seconds=1e-9, rounds=1)
    assert all(found["alone"][stage]["fps"] > 0 for stage in STAGES)


def test_several_are_items_with_a_picture(drive: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file, chart = tmp_path / "now.json", tmp_path / "now.png"
    result = invoke(drive, *QUICK, "--size", "64x32", "--size", "96x64", "--json", file, "--chart", chart)
    assert result.exit_code == 0, result.output
    items = json.loads(file.read_text())["items"]
    assert [item["input_size"] for item in items] == [[64, 32], [96, 64]]
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_the_drawn_street_is_the_default(tmp_path: Path) -> None:
    result = invoke(*QUICK, "--frame-size", "128x64", "--frames", 5, "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["frames"]["written"] == 5


def test_two_results_are_compared(drive: Path, tmp_path: Path) -> None:
    before, after, rows = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "rows.json"
    assert invoke(drive, *QUICK, "--json", before).exit_code == 0
    faster = json.loads(before.read_text())
    faster["fps"] *= 2
    after.write_text(json.dumps(faster))
    result = invoke("--compare", before, after, "--json", rows)
    assert result.exit_code == 0, result.output
    ratios = {row["what"]: row["ratio"] for row in json.loads(rows.read_text())["rows"]}
    assert ratios["fps"] == 2.0
    assert ratios["infer cpu ms"] == 1.0
    assert "fps" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--compare", "one.json"), "--compare takes two files"),
        (("--compare", "missing.json", "missing.json"), "missing.json is not a result"),
        (("missing.mp4",), "missing.mp4"),
    ],
    ids=["one", "no-result", "no-video"],
)
def test_what_the_user_can_mend_is_told(arguments: tuple[str, ...], words: str) -> None:
    result = invoke(*arguments, *QUICK)
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output


def test_tune_remembers_what_is_fastest(drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = invoke(drive, *QUICK, "--tune", "--json", "-")
    assert result.exit_code == 0, result.output
    (told,) = json.loads(result.stdout)["tuned"]
    assert str(told["streams"]) in told["fps"]
    assert tuned_streams(MODEL.stem) == told["streams"]


def test_what_was_tuned_is_what_runs_where_no_model_is_named(
    drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --model the file that runs may be the INT8 one: the setting has to be found under that name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("rtseg.inference.bundled_models.has_vnni", lambda: True)
    assert invoke(drive, "--backend", "openvino", "--preset", "ultrafast", "--tune").exit_code == 0
    with Segmenter() as segmenter:
        assert segmenter.file.stem == "camvid-small-int8"
        assert tuned_streams(segmenter.file.stem) is not None


def test_a_picture_that_can_not_be_drawn_is_told_before_anything_is_measured(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtseg.bench.report.importlib.util.find_spec", lambda name: None)
    result = invoke(drive, *QUICK, "--chart", "x.png")
    assert result.exit_code == 1
    assert result.output.strip() == (
        'rtseg: a chart needs matplotlib: pip install "rtseg[train]", or leave --chart out'
    )


def test_a_picture_that_can_not_be_written_is_one_line(drive: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    result = invoke(drive, *QUICK, "--chart", tmp_path / "file" / "x.png")
    assert result.exit_code == 1
    assert "can't be written" in result.output
    assert "Traceback" not in result.output


def test_tuning_of_another_machine_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tuned_streams("x") is None
    save_tuned_streams("x", 3)
    save_tuned_streams("y", 2)
    assert (tuned_streams("x"), tuned_streams("y"), tuned_streams("z")) == (3, 2, None)
    kept = tuning_file().read_text()
    tuning_file().write_text(kept.replace('"cores": ', '"cores": 1'))
    assert tuned_streams("x") is None
    for damaged in ("", "[]", "{}", kept.replace('"x": 3', '"x": "many"'), kept.replace('"x": 3', '"x": 0')):
        tuning_file().write_text(damaged)
        assert tuned_streams("x") is None


def cost(cpu_ms: float) -> StageCost:
    return StageCost(Histogram(), cpu_ms, 1000 / cpu_ms)


def test_advice_names_what_limits() -> None:
    stages = {"decode": cost(3), "infer": cost(30), "overlay": cost(1), "encode": cost(6)}
    assert advice(stages, 2).startswith("infer takes 75% of the processor time: a smaller model")
    stages["encode"] = cost(60)
    assert advice(stages, 2).startswith("encode takes 64%")
    slow = StageCost(Histogram(), 0.1, 10.0)  # it waits for a card
    told = advice({**stages, "infer": slow}, 2, ("decode", "infer"))
    assert told.startswith("infer, on hardware of its own, reaches no more than 10 fps: a smaller model")


@pytest.mark.torch
@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_the_harness_for_gpus_says_in_one_line_that_there_is_none(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    done = subprocess.run(
        [sys.executable, str(script), "--json", str(tmp_path / "gpu.json")], capture_output=True, text=True, timeout=150
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no NVIDIA GPU was found; `rtseg doctor` shows the reason\n"
    assert not (tmp_path / "gpu.json").exists()


def test_a_file_that_is_not_there_is_told_in_one_line_before_anything_is_measured() -> None:
    result = rtseg("bench", "nothing.mp4")
    assert result.returncode == 1
    assert result.stderr == "rtseg: no such file: nothing.mp4\n"
