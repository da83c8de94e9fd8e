"""The estimate on paper: operations and bytes counted from the graph, published rates, and the word that it is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import rtseg, told_in_one_line

from rtseg.bench.estimate import BOARDS, Layer, estimate, layers_of, working
from rtseg.core.errors import ModelError, OptionError
from rtseg.inference.bundled_models import find_model

pytestmark = pytest.mark.timeout(180)

NANO = find_model("nano")


def test_a_convolution_is_counted_as_by_hand() -> None:
    layers, size = layers_of(find_model("small"), (480, 384))
    assert size == (480, 384)
    # The first: 3 to 32 channels, 3x3, every second pixel of 480x384.
    assert layers[0] == Layer(
        macs=240 * 192 * 32 * 3 * 9, weight_bytes=2 * 32 * 3 * 9, map_bytes=2 * (3 * 480 * 384 + 32 * 240 * 192)
    )


def test_depthwise_convolutions_are_not_counted_as_dense() -> None:
    layers, _ = layers_of(NANO)
    dense, _ = layers_of(find_model("small"))
    assert sum(layer.macs for layer in layers) < sum(layer.macs for layer in dense) / 2


@pytest.mark.parametrize("board", BOARDS)
def test_the_bound_is_its_own_working(board: str) -> None:
    told = estimate(NANO, board)
    rates = BOARDS[board]
    compute_ms = 2 * told["gmacs"] * 1e9 / rates.half_flops * 1e3
    assert told["compute_ms"] == pytest.approx(compute_ms, rel=0.01)
    assert told["at_most_fps"] == pytest.approx(1e3 / max(told["compute_ms"], told["memory_ms"]), rel=0.01)
    assert told["by_layer_fps"] < told["at_most_fps"]
    assert (told["estimate"], told["measured"]) == (True, False)
    assert working(told).startswith("ESTIMATE, nothing was measured")


def test_a_larger_picture_and_a_smaller_board_are_slower() -> None:
    assert estimate(NANO, "orin-nano", (960, 704))["at_most_fps"] < estimate(NANO, "orin-nano")["at_most_fps"] / 3
    bounds = [estimate(NANO, board)["at_most_fps"] for board in ("orin-nano", "orin-nx", "agx-orin", "thor")]
    assert bounds == sorted(bounds)


def test_the_published_rates_agree_with_cores_and_clocks() -> None:
    """512 FP16 operations for each tensor core and cycle."""
    assert BOARDS["orin-nano"].half_flops == pytest.approx(32 * 512 * 1.02e9, rel=0.01)
    assert BOARDS["agx-orin"].half_flops == pytest.approx(64 * 512 * 1.3e9, rel=0.01)


def test_what_can_not_be_estimated() -> None:
    with pytest.raises(OptionError, match="no published rates of 'xavier' here; there are orin-nano"):
        estimate(NANO, "xavier")
    with pytest.raises(ModelError):
        estimate(Path("missing.onnx"), "thor")


def test_the_command_says_that_it_is_an_estimate(tmp_path: Path) -> None:
    out = tmp_path / "estimate.json"
    rendered = rtseg("bench", "--estimate", "orin-nano", "--model", "nano", "--size", "480x288", "--json", out)
    assert rendered.returncode == 0, rendered.stderr
    assert "ESTIMATE, nothing was measured: camvid-nano at 480x288 on Jetson Orin Nano" in rendered.stdout
    told = json.loads(out.read_text())["estimates"]
    assert [(each["measured"], each["input_size"]) for each in told] == [(False, [480, 288])]
    wrong = rtseg("bench", "--estimate", "xavier")
    assert wrong.returncode == 1
    told_in_one_line(wrong, "'xavier'", "orin-nano, orin-nx, agx-orin, thor")
