"""The JSON of all commands matches `docs/reference/report.schema.json`, which allows no other fields."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from command import MODEL as NEAREST_COLOR
from command import invoke
from media import Audio, write_video
from timestamp_media import concatenate

from rtseg.core.report import TelemetryReport
from rtseg.gpu.telemetry import Telemetry
from rtseg.live.controls import LiveMetrics

MODEL = ("--model", str(NEAREST_COLOR))
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "reference" / "report.schema.json").read_text())
SENSORS = {"power_mode": "25W", "gpu0_celsius": 71.5, "vdd_in_watts": 14.2, "gpu_load_ratio": 0.9, "cpu_max_hertz": 1e9}
TELEMETRY = TelemetryReport(sensors=SENSORS, throttled=True, throttled_by=("heat",))


@pytest.fixture
def sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Telemetry, "read", lambda self: TELEMETRY)


def validate(report: Any, kind: str) -> dict[str, Any]:
    """Check a report against the definition of its kind and against the whole schema."""
    jsonschema.validate(report, {"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{kind}"})
    jsonschema.validate(report, SCHEMA)
    return dict(report)


def report_of(command: str, *arguments: object, json_file: Path, exit_code: int = 0) -> Any:
    option = "--json" if command in ("bench", "eval") else "--stats"
    result = invoke(command, *arguments, option, json_file, "--quiet")
    assert result.exit_code == exit_code, result.output
    return json.loads(json_file.read_text())


def joined_video(folder: Path) -> Path:
    """Write two recordings with audio into one file: its clock starts again in the middle."""
    parts = [write_video(folder / f"{n}.ts", frames=25, after=[Audio(codec="mp2")]) for n in range(2)]
    (folder / "in").mkdir()
    return concatenate(folder / "in" / "joined.ts", *parts)


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_reports_of_videos(tmp_path: Path, sensors: None) -> None:
    video = joined_video(tmp_path)
    options = (*MODEL, "-o", tmp_path / "out.mp4", "--smooth", 0.3)
    report = validate(report_of("video", video, *options, json_file=tmp_path / "a.json"), "video")
    assert report["fidelity"]["repairs"]
    assert report["fidelity"]["sync"]
    assert report["telemetry"]["throttled_seconds"] > 0
    assert any(note.startswith("the device throttled for") for note in report["notes"])
    part = report_of("video", video, *options, "--start", 0.5, "--duration", 1, json_file=tmp_path / "b.json")
    assert validate(part, "video")["fidelity"]["not_compared"]

    broken = video.parent / "broken.mp4"
    broken.write_bytes(b"no video")
    failed = report_of("video", broken, *MODEL, "-o", tmp_path / "no.mp4", json_file=tmp_path / "a.json", exit_code=1)
    assert validate(failed, "unprocessed_video")["input"] == str(broken)
    options = (video.parent, *MODEL, "-o", tmp_path / "out", "--resume", "--jobs")
    first = report_of("video", *options, 2, json_file=tmp_path / "c.json", exit_code=1)
    again = report_of("video", *options, 1, json_file=tmp_path / "d.json", exit_code=1)
    no_video, done = validate(first, "batch")["items"]
    assert no_video["error"] == failed["error"]
    assert done["cpu_seconds"] is None  # measured only for the whole process
    assert [item.get("skipped") for item in validate(again, "batch")["items"]] == [None, "already done"]


def test_demo_report(tmp_path: Path) -> None:
    options = ("--size", "96x64", "--frames", 5, "-o", tmp_path / "demo.mp4")
    validate(report_of("demo", *options, json_file=tmp_path / "a.json"), "demo")


def test_reports_of_cameras(tmp_path: Path, sensors: None, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[dict[str, Any]] = []
    monkeypatch.setattr(LiveMetrics, "publish", lambda self, report: published.append(report.to_dict()))
    video = write_video(tmp_path / "drive.mp4", frames=40, size=(192, 108))
    options = (*MODEL, "--realtime", "--show", "none", "--adaptive")
    one = report_of("live", "--url", video, *options, "--record", tmp_path / "out.mp4", json_file=tmp_path / "a.json")
    two = report_of("live", "--url", video, "--url", video, *options, "--smooth", 0.3, json_file=tmp_path / "b.json")
    assert {"encoder", "adaptive", "telemetry", "camera", "failed"} <= set(validate(one, "live"))
    assert "temporal_smoothing" in validate(two, "live")
    assert len(two["items"]) == 2
    assert one["input_size"] == two["items"][0]["input_size"] == [320, 192]  # what 16:9 frames fill of 320x240
    for report in published:
        assert all("now" in item for item in (validate(report, "live"), *report.get("items", ())))
    assert {len(report.get("items", ())) for report in published} == {0, 2}


def test_bench_reports(tmp_path: Path) -> None:
    options = ("--frame-size", "96x64", "--frames", 5, "--seconds", 0.1, "--rounds", 1, "--preset", "ultrafast")
    one, two = tmp_path / "a.json", tmp_path / "b.json"
    validate(report_of("bench", *options, *MODEL, json_file=one), "bench")
    validate(report_of("bench", *options, *MODEL, "--size", "64x32", "--size", "96x64", json_file=two), "bench_items")
    validate(report_of("bench", "--compare", two, two, json_file=tmp_path / "c.json"), "bench_comparison")


def test_evaluation_reports(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for kind, image in (("images", np.full((64, 96, 3), 90, np.uint8)), ("labels", np.eye(64, 96, dtype=np.uint8))):
        (folder / kind / "val").mkdir(parents=True)
        cv2.imwrite(str(folder / kind / "val" / "0.png"), image)
    (folder / "classes.txt").write_text("road\nspaceship\n")
    validate(report_of("eval", folder, "--model", "nano", json_file=tmp_path / "a.json"), "evaluation")
    video = write_video(tmp_path / "drive.mp4", frames=3)
    validate(report_of("eval", video, "--flicker", "--model", "nano", json_file=tmp_path / "b.json"), "flicker")


@pytest.mark.parametrize(
    "path", [(), ("frames",), ("latency_ms",), ("stages", "infer"), ("fidelity",), ("fidelity", "streams", 0)]
)
def test_schema_refuses_unknown_and_missing_fields(tmp_path: Path, path: tuple[Any, ...]) -> None:
    video = write_video(tmp_path / "drive.mp4", frames=3, after=[Audio(seconds=0.2)])
    report = report_of("video", video, *MODEL, "-o", tmp_path / "out.mp4", json_file=tmp_path / "a.json")
    for change in (lambda part: part.update(unknown=1), lambda part: part.popitem()):
        changed = copy.deepcopy(report)
        part = changed
        for key in path:
            part = part[key]
        change(part)
        with pytest.raises(jsonschema.ValidationError):
            validate(changed, "video")
