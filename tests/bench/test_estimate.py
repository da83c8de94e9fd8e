"""Theoretical estimate: operations and bytes of the graph, and published rates of boards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import assert_one_error_line, rtseg

from rtseg.bench.estimate import BOARDS, Layer, estimate, format_estimate, layers_of
from rtseg.core.errors import ModelError, OptionError
from rtseg.inference.bundled_models import find_model

pytestmark = pytest.mark.timeout(180)

NANO = find_model("nano")


def test_cost_of_a_convolution() -> None:
    layers, size = layers_of(find_model("small"), (480, 384))
    assert size == (480, 384)
    # The first layer: 3x3, 3 to 32 channels, stride 2, 480x384.
    assert layers[0] == Layer(
        macs=240 * 192 * 32 * 3 * 9, weight_bytes=2 * 32 * 3 * 9, map_bytes=2 * (3 * 480 * 384 + 32 * 240 * 192)
    )


def test_depthwise_convolution_costs_less_than_dense() -> None:
    layers, _ = layers_of(NANO)
    dense, _ = layers_of(find_model("small"))
    assert sum(layer.macs for layer in layers) < sum(layer.macs for layer in dense) / 2


@pytest.mark.parametrize("board", BOARDS)
def test_bound_follows_from_the_reported_figures(board: str) -> None:
    result = estimate(NANO, board)
    rates = BOARDS[board]
    compute_ms = 2 * result["gmacs"] * 1e9 / rates.half_flops * 1e3
    assert result["compute_ms"] == pytest.approx(compute_ms, rel=0.01)
    assert result["at_most_fps"] == pytest.approx(1e3 / max(result["compute_ms"], result["memory_ms"]), rel=0.01)
    assert result["by_layer_fps"] < result["at_most_fps"]
    assert (result["estimate"], result["measured"]) == (True, False)
    assert format_estimate(result).startswith("ESTIMATE, nothing was measured")


def test_larger_input_or_smaller_board_is_slower() -> None:
    assert estimate(NANO, "orin-nano", (960, 704))["at_most_fps"] < estimate(NANO, "orin-nano")["at_most_fps"] / 3
    bounds = [estimate(NANO, board)["at_most_fps"] for board in ("orin-nano", "orin-nx", "agx-orin", "thor")]
    assert bounds == sorted(bounds)


def test_published_rates_match_cores_and_clocks() -> None:
    """A tensor core computes 512 FP16 operations per cycle."""
    assert BOARDS["orin-nano"].half_flops == pytest.approx(32 * 512 * 1.02e9, rel=0.01)
    assert BOARDS["agx-orin"].half_flops == pytest.approx(64 * 512 * 1.3e9, rel=0.01)


def test_unknown_board_and_missing_model_are_errors() -> None:
    with pytest.raises(OptionError, match="unknown board 'xavier'; known boards are orin-nano"):
        estimate(NANO, "xavier")
    with pytest.raises(ModelError):
        estimate(Path("missing.onnx"), "thor")


def test_command_output_is_marked_as_an_estimate(tmp_path: Path) -> None:
    out = tmp_path / "estimate.json"
    result = rtseg("bench", "--estimate", "orin-nano", "--model", "nano", "--size", "480x288", "--json", out)
    assert result.returncode == 0, result.stderr
    assert "ESTIMATE, nothing was measured: camvid-nano at 480x288 on Jetson Orin Nano" in result.stdout
    estimates = json.loads(out.read_text())["estimates"]
    assert [(each["measured"], each["input_size"]) for each in estimates] == [(False, [480, 288])]
    failed = rtseg("bench", "--estimate", "xavier")
    assert failed.returncode == 1
    assert_one_error_line(failed, "'xavier'", "orin-nano, orin-nx, agx-orin, thor")
