"""The bundled models on pictures whose truth is known, through the whole road."""

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

pytestmark = pytest.mark.timeout(180)


def test_small_is_the_default_and_both_say_what_they_are() -> None:
    assert list(bundled_models()) == ["small", "nano", "small-int8"]
    told = json.loads(rtseg("models", "--json", "-").stdout)
    for name in ("small", "nano"):
        assert told[name]["classes"][3] == "road"
        assert "CamVid" in told[name]["trained_on"]
        assert "not for commercial use" in told[name]["license"]
        assert told[name]["precision"] == "fp16"
        assert 0.5 < told[name]["metrics"]["val/pixel_accuracy"] < 1


@pytest.mark.parametrize("fast", [True, False])
def test_int8_is_the_default_where_the_processor_is_fastest_so(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr("rtseg.inference.bundled_models.has_vnni", lambda: fast)
    picture, _ = SyntheticDrive(480, 360, 1).frame(0)
    with Segmenter(backend="openvino") as default, Segmenter("small", backend="openvino") as named:
        assert (default.precision == "int8", "INT8" in default.reason) == (fast, fast)
        assert named.precision in ("bf16", "fp32")
        assert (default(picture) == named(picture)).mean() > 0.98
    with Segmenter(backend="openvino", smooth=0.5) as smooth:
        assert smooth.precision in ("bf16", "fp32")


@pytest.mark.parametrize("seed", [0, 11])
def test_the_demo_is_segmented_as_it_was_drawn(tmp_path: Path, seed: int) -> None:
    with Segmenter() as segmenter:
        result = run_demo(
            str(tmp_path / "demo.mp4"), segmenter, Style("side-by-side"), OutputOptions(preset="ultrafast"),
            size=(480, 270), frames=12, seed=seed, quiet=True,
        )  # fmt: skip
    assert result["pixel_accuracy"] >= 0.95
    assert result["iou"]["road"] >= 0.95
    assert result["fidelity"]["ok"]
    with av.open(str(tmp_path / "demo.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12
        assert container.streams.video[0].width == 960


def test_a_real_street_makes_sense(clips: Path, tmp_path: Path) -> None:
    """Ahead of the bonnet there is road, at the top of the picture sky, tree or building; nowhere the other way round."""
    collector = ClassMapCollector(every=10)
    with Segmenter() as segmenter:
        process(
            str(clips / "cambridge_15fps.mp4"), str(tmp_path / "out.mp4"), segmenter, Style(), OutputOptions(preset="ultrafast"),
            quiet=True, extra_sinks=[collector],
        )  # fmt: skip
        names = np.array(segmenter.classes)
    for classes in collector.class_maps.values():
        height, width = classes.shape
        ahead = names[classes[int(height * 0.75) : int(height * 0.9), width // 3 : -width // 3]]
        top = names[classes[: height // 12]]
        assert (ahead == "road").mean() > 0.8
        assert np.isin(top, ["sky", "tree", "building", "pole", "sign"]).mean() > 0.95
