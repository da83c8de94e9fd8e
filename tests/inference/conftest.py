"""Fixtures for the tests of engines, and the tests that need the packages of `rtseg build`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nvidia_machine import Jetson

if find_spec("onnx") and find_spec("onnxruntime"):
    from nvidia_doubles import VERSIONS
else:
    VERSIONS = ()
    collect_ignore_glob = ["test_engine_per_size.py", "test_tensorrt*"]


@pytest.fixture(params=VERSIONS)
def jetson(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Jetson:
    """A Jetson with each TensorRT version."""
    from nvidia_machine import Jetson

    return Jetson(monkeypatch, request.param)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of the model contract in FP16."""
    from onnx_models import contract_model

    return contract_model(tmp_path / "colors.onnx")
