"""Fixtures and hooks of all tests: external data, skip rules and isolated caches."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from gpu_machine import GpuMachine

# The same examples in each run, without a time limit.
settings.register_profile("rtseg", deadline=None, derandomize=True)
settings.load_profile("rtseg")


def shared_folder(name: str) -> Path:
    folder = Path(__file__).parents[2] / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"no external data at {folder}")
    return folder


@pytest.fixture(scope="session")
def clips() -> Path:
    """Return the folder of real dashcam videos; skip the test if it is absent."""
    return shared_folder("clips")


@pytest.fixture(scope="session")
def camvid() -> Path:
    """Return the folder of CamVid at 480x360; skip the test if it is absent."""
    return shared_folder("camvid")


@pytest.fixture(scope="session", autouse=True)
def short_measurements() -> Iterator[None]:
    """Shorten the benchmark of `rtseg build` from 2.5 s of a core to 0.1 s. No test depends on its precision."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("onnx") is None:  # `rtseg build` is not available
            yield
            return
        patch.setattr("rtseg.models.export.verify.MEASURE_SECONDS", 0.1)
        patch.setattr("rtseg.models.export.verify.WARMUP_SECONDS", 0.0)
        yield


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def on_gpu(request: pytest.FixtureRequest) -> str:
    """Return a TensorRT target that can run here. Without one, skip the test, or fail it if RTSEG_REQUIRE_GPU=1."""
    from rtseg.gpu.devices import find_gpus

    modules = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}[request.param]
    reason = None if find_gpus() else "no NVIDIA GPU was detected here"
    if reason is None and not any(importlib.util.find_spec(module) for module in modules):
        if request.param == "tensorrt":
            pytest.skip("tensorrt is not installed")  # RTSEG_REQUIRE_GPU does not require it
        reason = "tensorrt-rtx is not installed"
    if reason is not None:
        if os.environ.get("RTSEG_REQUIRE_GPU") == "1":
            pytest.fail(f"{reason}, but RTSEG_REQUIRE_GPU=1 requires it", pytrace=False)
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="session")
def kernel_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Return the CUDA kernels, compiled for the CPU."""
    from gpu_doubles import compiled_kernels

    return compiled_kernels(tmp_path_factory.getbasetemp())


@pytest.fixture
def orin(monkeypatch: pytest.MonkeyPatch, kernel_library: ctypes.CDLL, tmp_path: Path) -> GpuMachine:
    """Return a machine with one TensorRT version, for tests that do not depend on the version."""
    from gpu_machine import GpuMachine  # imports onnx
    from nvidia_doubles import VERSIONS

    return GpuMachine(monkeypatch, VERSIONS[0], kernel_library, tmp_path)


_TORCH = ("cli_train", "export", "importers", "importers_export", "importers_refuse", "torch_backend", "train", "unet")
WORKER_GROUPS = {
    "test_kernels": "kernels",
    "test_gpu_path": "kernels",
    "test_gpu_fallback": "kernels",
    **{f"test_{name}": "torch" for name in _TORCH},
}
"""Files that run in one worker, because they share expensive work such as torch's first export in a process."""


def pytest_configure(config: pytest.Config) -> None:
    """Use a temporary cache folder, so that the user's cache is neither read nor modified."""
    folder = tempfile.TemporaryDirectory(prefix="rtseg-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ["XDG_CACHE_HOME"] = folder.name


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Assign files to workers, and skip tests with the marker `proof` unless `-m proof` selects them."""
    proofs = "proof" in (config.option.markexpr or "")
    for item in items:
        if item.path.stem in WORKER_GROUPS:
            item.add_marker(pytest.mark.xdist_group(WORKER_GROUPS[item.path.stem]))
        if item.get_closest_marker("proof") and not proofs:
            item.add_marker(pytest.mark.skip(reason="takes longer than 30 seconds: make proofs"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the packages without which folders of tests leave out files."""
    if missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        terminalreporter.write_line(f"tests of `rtseg build` were left out: {' and '.join(missing)} not installed")


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Fail a test that leaves its process at real-time priority, which all later tests and programs would inherit."""
    if sys.platform == "linux" and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        pytest.fail("this test left the process at real-time priority", pytrace=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test with `@pytest.mark.system("prog", ...)` if the program is missing, or fail it if RTSEG_REQUIRE_SYSTEM=1."""
    for mark in item.iter_markers("system"):
        for program in mark.args:
            if shutil.which(program) is None:
                message = f"the system program {program} is missing"
                if os.environ.get("RTSEG_REQUIRE_SYSTEM") == "1":
                    pytest.fail(message + ", but RTSEG_REQUIRE_SYSTEM=1 requires it", pytrace=False)
                pytest.skip(message)
