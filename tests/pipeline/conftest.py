"""Fixtures of the tests of the GPU path."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gpu_machine import GpuMachine


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    from gpu_doubles import compiled_kernels

    return compiled_kernels(tmp_path_factory.getbasetemp())


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch, library: ctypes.CDLL, tmp_path: Path) -> GpuMachine:
    """A machine with one TensorRT version, for tests that do not depend on the version."""
    from gpu_machine import GpuMachine  # imports onnx
    from nvidia_doubles import VERSIONS

    return GpuMachine(monkeypatch, VERSIONS[0], library, tmp_path)
