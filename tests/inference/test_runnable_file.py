"""Files that a backend can't run directly: the library raises an error with the command, a callback builds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtseg.core.errors import BackendError
from rtseg.inference.bundled_models import ASSETS, find_model
from rtseg.inference.segmenter import Segmenter

CHECKPOINT = ASSETS / "camvid-nano.safetensors"


def test_error_names_the_command_that_builds_the_file() -> None:
    with pytest.raises(BackendError) as error:
        Segmenter(CHECKPOINT, backend="openvino", size=(96, 64))
    assert f"run `rtseg build {CHECKPOINT} --target openvino --size 96x64` once" in str(error.value)
    assert "\n" not in str(error.value)


def test_callback_builds_the_file_that_runs() -> None:
    calls: list[tuple[Path, str, tuple[int, int] | None]] = []

    def build(model: Path, backend: str, size: tuple[int, int] | None) -> Path:
        calls.append((model, backend, size))
        return find_model("nano")

    with Segmenter(CHECKPOINT, backend="openvino", size=(96, 64), build_missing=build) as segmenter:
        assert segmenter.description.name == "camvid-nano"
    assert calls == [(CHECKPOINT, "openvino", (96, 64))]


def test_callback_is_not_called_for_a_file_that_runs_directly() -> None:
    def build(model: Path, backend: str, size: tuple[int, int] | None) -> Path:
        raise AssertionError(f"{model} runs on {backend}")

    with Segmenter("nano", backend="openvino", size=(96, 64), build_missing=build) as segmenter:
        assert segmenter.input_size == (96, 64)
