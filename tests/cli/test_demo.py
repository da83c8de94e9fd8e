"""Bundled models on videos with known classes, through the whole pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from command import rtseg

from rtseg.cli.demo_run import ClassMapCollector, run_demo
from rtseg.inference.bundled_models import bundled_models
from rtseg.inference.segmenter import Segmenter
from rtseg.io.options import OutputOptions
from rtseg.render.style import Style
from rtseg.synthetic import SyntheticDrive
from rtseg.video.process import process


def test_bundled_models_have_metadata_and_small_is_default() -> None:
    assert list(bundled_models()) == ["small", "nano", "small-int8"]
    models = json.loads(rtseg("models", "--json", "-").stdout)
    for name in ("small", "nano"):
        assert models[name]["classes"][3] == "road"
        assert "CamVid" in models[name]["trained_on"]
        assert "not for commercial use" in models[name]["license"]
        assert models[name]["precision"] == "fp16"
        assert 0.5 < models[name]["metrics"]["val/pixel_accuracy"] < 1


@pytest.mark.parametrize("fast", [True, False])
def test_int8_is_default_only_on_cpus_with_vnni(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr("rtseg.inference.bundled_models.has_vnni", lambda: fast)
    image, _ = SyntheticDrive(480, 360, 1).frame(0)
    with Segmenter(backend="openvino") as default, Segmenter("small", backend="openvino") as named:
        assert (default.precision == "int8", "INT8" in default.reason) == (fast, fast)
        assert named.precision in ("bf16", "fp32")
        assert (default(image) == named(image)).mean() > 0.98


@pytest.mark.parametrize("seed", [0, 11])
def test_demo_result_agrees_with_known_classes(tmp_path: Path, seed: int) -> None:
    with Segmenter() as segmenter:
        result = run_demo(
            str(tmp_path / "demo.mp4"), segmenter, Style("side-by-side"), OutputOptions(preset="ultrafast"),
            size=(480, 270), frames=12, seed=seed,
        )  # fmt: skip
    assert result.pixel_accuracy >= 0.95
    assert result.iou["road"] >= 0.95
    assert result.video.fidelity.ok
    with av.open(str(tmp_path / "demo.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
        assert container.streams.video[0].width == 960


def test_real_street_has_road_ahead_and_sky_above(clips: Path, tmp_path: Path) -> None:
    """Check that the area ahead of the hood is road, and the top of the frame is sky, tree or building."""
    collector = ClassMapCollector(every=10)
    with Segmenter() as segmenter:
        output = OutputOptions(preset="ultrafast")
        source, target = str(clips / "cambridge_15fps.mp4"), str(tmp_path / "out.mp4")
        process(source, target, segmenter, Style(), output, extra_sinks=[collector])
        names = np.array(segmenter.classes)
    for classes in collector.class_maps.values():
        height, width = classes.shape
        ahead = names[classes[int(height * 0.75) : int(height * 0.9), width // 3 : -width // 3]]
        top = names[classes[: height // 12]]
        assert (ahead == "road").mean() > 0.8
        assert np.isin(top, ["sky", "tree", "building", "pole", "sign"]).mean() > 0.95
