"""What all tests share: where the outside data lies, and the promise that nothing is skipped silently."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile(
    "rtseg", deadline=None, derandomize=True
)  # the same examples each time, however slow the machine
settings.load_profile("rtseg")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def clips() -> Path:
    """The folder of real drives; the test skips where it is absent."""
    folder = SHARED / "clips"
    if not folder.is_dir():
        pytest.skip(f"no real drives at {folder}")
    return folder


@pytest.fixture(scope="session")
def camvid() -> Path:
    """CamVid at 480x360; the test skips where it is absent."""
    folder = SHARED / "camvid"
    if not folder.is_dir():
        pytest.skip(f"no CamVid at {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def short_measurements() -> Iterator[None]:
    """A build measures what it has built for 0.1 s, not for 2.5 s of a whole core: no test looks at how exact that is."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("onnx") is None:  # nothing can be built
            yield
            return
        patch.setattr("rtseg.models.export.verify.MEASURE_SECONDS", 0.1)
        patch.setattr("rtseg.models.export.verify.WARMUP_SECONDS", 0.0)
        yield


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def on_gpu(request: pytest.FixtureRequest) -> str:
    """A target that can run here: skips with the reason where there is none, fails under RTSEG_REQUIRE_GPU=1."""
    from rtseg.gpu.devices import find_gpus

    modules = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}[request.param]
    reason = None if find_gpus() else "no NVIDIA GPU was detected here"
    if reason is None and not any(importlib.util.find_spec(module) for module in modules):
        if request.param == "tensorrt":
            pytest.skip("tensorrt is not installed")  # a GPU may be promised without it
        reason = "tensorrt-rtx is not installed"
    if reason is not None:
        if os.environ.get("RTSEG_REQUIRE_GPU") == "1":
            pytest.fail(f"{reason}, but RTSEG_REQUIRE_GPU=1 promises it", pytrace=False)
        pytest.skip(reason)
    return str(request.param)


_TORCH = ("cli_train", "export", "importers", "importers_export", "importers_refuse", "torch_backend", "train", "unet")
TOGETHER = {
    "test_kernels": "kernels",
    "test_gpu_path": "kernels",
    "test_gpu_fallback": "kernels",
    **{f"test_{name}": "torch" for name in _TORCH},
}
"""Files that one worker runs: they share what takes seconds to make, such as torch's first export in a process."""


def pytest_configure(config: pytest.Config) -> None:
    """Caches of this run are its own: neither what this user has tuned or built counts, nor is anything left to them."""
    folder = tempfile.TemporaryDirectory(prefix="rtseg-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ["XDG_CACHE_HOME"] = folder.name


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Proofs run only when asked for by `-m proof`."""
    for item in items:
        if item.path.stem in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(TOGETHER[item.path.stem]))
    if "proof" in (config.option.markexpr or ""):
        return
    for item in items:
        if item.get_closest_marker("proof"):
            item.add_marker(pytest.mark.skip(reason="takes longer than 30 seconds: make proofs"))


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """No test leaves its process at real-time priority: all later tests and programs would inherit it, and starve the machine."""
    if sys.platform == "linux" and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        pytest.fail("this test left the process at real-time priority", pytrace=False)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.system("prog", ...)`: skips without the program, fails where RTSEG_REQUIRE_SYSTEM=1 promises it."""
    for mark in item.iter_markers("system"):
        for program in mark.args:
            if shutil.which(program) is None:
                message = f"the system program {program} is missing"
                if os.environ.get("RTSEG_REQUIRE_SYSTEM") == "1":
                    pytest.fail(message + ", but RTSEG_REQUIRE_SYSTEM=1 promises it", pytrace=False)
                pytest.skip(message)
