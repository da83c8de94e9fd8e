"""Contract of all backends: the same images in, the same class maps out."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import MODEL
from media import run_script

from rtseg.core.errors import BackendError, ModelError, OptionError
from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import CAMVID_CLASSES, STREET
from rtseg.gpu.devices import find_gpus
from rtseg.inference import BACKENDS, Backend, check_images, choose_backend, open_backend
from rtseg.inference.argmax import class_maps

COLORS = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.uint8)
SIZE = (64, 48)


class FakeBackend:
    """NumPy version of nearest-color.onnx: the class whose color is nearest."""

    name, device, precision = "fake", "NumPy", "fp32"
    free_size, streams, batch = False, 1, 1
    description = ModelInfo("nearest-color", CAMVID_CLASSES, (320, 192))

    def __init__(self, size: tuple[int, int]) -> None:
        self.input_size = size
        self.closed = False

    def infer(self, images: Any) -> Any:
        check_images(images, self.input_size)
        if self.closed:
            raise BackendError("closed")
        distance = (images[:, None].astype(np.float32) - COLORS[:, None, None]) ** 2
        return -distance.sum(axis=-1)

    def close(self) -> None:
        self.closed = True


def _torch(size: tuple[int, int], folder: Path, device: str = "cpu") -> Backend:
    """Open the torch backend with this network in place of a checkpoint's, since a checkpoint can't contain it."""
    torch = pytest.importorskip("torch")
    import rtseg.nn.load_network as network

    class Nearest(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.colors = torch.nn.Parameter(torch.from_numpy(COLORS).float())

        def forward(self, image: Any) -> Any:
            return -(image[:, None].float() - self.colors.float()[:, None, None]).square().sum(dim=-1)

    description = ModelInfo("nearest-color", CAMVID_CLASSES, (320, 192))
    with pytest.MonkeyPatch.context() as patch:
        opened = SimpleNamespace(module=Nearest(), description=description, notes=())
        patch.setattr(network, "open_network", lambda path, size: opened)
        return open_backend("torch", folder / "nearest.safetensors", size=size, device=device)


def _needs_gpu(missing: str | None = None) -> None:
    """Skip the test if there is no GPU; fail it if RTSEG_REQUIRE_GPU=1 requires one."""
    reason = None if find_gpus() else "no NVIDIA GPU was found"
    if reason is None and missing is not None and importlib.util.find_spec(missing) is None:
        reason = f"{missing} is not installed"
    if reason is not None:
        if os.environ.get("RTSEG_REQUIRE_GPU") == "1":
            pytest.fail(f"{reason}, but RTSEG_REQUIRE_GPU=1 requires it", pytrace=False)
        pytest.skip(reason)


def _engine(target: str, module: str) -> Callable[[tuple[int, int], Path], Backend]:
    def make(size: tuple[int, int], folder: Path) -> Backend:
        _needs_gpu(module)
        from building import build

        built = build(MODEL, target=target, precision="fp32", size=size, out=folder, batch=2, verify=False)
        return open_backend(target, built.path, size=size)

    return make


def _torch_cuda(size: tuple[int, int], folder: Path) -> Backend:
    _needs_gpu("torch")
    return _torch(size, folder, device="cuda:0")


MAKERS = [
    pytest.param(lambda size, folder: FakeBackend(size), id="fake"),
    pytest.param(lambda size, folder: open_backend("openvino", MODEL, size=size), id="openvino"),
    pytest.param(_torch, id="torch", marks=pytest.mark.torch),
    pytest.param(_torch_cuda, id="torch-cuda", marks=[pytest.mark.gpu, pytest.mark.torch]),
    pytest.param(_engine("tensorrt", "tensorrt"), id="tensorrt", marks=pytest.mark.gpu),
    pytest.param(_engine("tensorrt-rtx", "tensorrt_rtx_bindings"), id="tensorrt-rtx", marks=pytest.mark.gpu),
]


@pytest.fixture(params=MAKERS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    opened = request.param(SIZE, tmp_path)
    yield opened
    opened.close()
    opened.close()


def class_images(count: int, seed: int = 0) -> tuple[Any, Any]:
    """Return images of `SIZE` in the classes' colors, and their class maps."""
    classes = np.random.default_rng(seed).integers(0, 11, (count, SIZE[1] // 4, SIZE[0] // 4), dtype=np.uint8)
    classes = classes.repeat(4, axis=1).repeat(4, axis=2)
    return COLORS[classes], classes


@pytest.mark.parametrize("count", [1, 2, 5])
def test_scores_give_correct_class_maps(backend: Backend, count: int) -> None:
    images, classes = class_images(count)
    scores = backend.infer(images)
    assert scores.dtype in (np.float16, np.float32)
    assert scores.shape == (count, 11, SIZE[1], SIZE[0])
    assert scores.flags.c_contiguous
    np.testing.assert_array_equal(class_maps(backend, images), classes)


def test_result_is_a_new_array(backend: Backend) -> None:
    images, classes = class_images(2)
    first = backend.infer(images[:1])
    second = backend.infer(images[1:])
    expected = second.copy()
    first[:] = 77
    np.testing.assert_array_equal(second, expected)
    np.testing.assert_array_equal(class_maps(backend, images[:1]), classes[:1])
    np.testing.assert_array_equal(images, class_images(2)[0])


def test_images_may_be_views(backend: Backend) -> None:
    images, classes = class_images(1)
    np.testing.assert_array_equal(class_maps(backend, images[:, ::-1]), classes[:, ::-1])
    wide = np.concatenate([images, images], axis=2)
    np.testing.assert_array_equal(class_maps(backend, wide[:, :, SIZE[0] :]), classes)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 48, 64, 3), np.float32),
        np.zeros((48, 64, 3), np.uint8),
        np.zeros((1, 64, 48, 3), np.uint8),
        np.zeros((1, 48, 64, 4), np.uint8),
        np.zeros((1, 3, 48, 64), np.uint8),
    ],
)
def test_arrays_of_other_type_or_shape_are_refused(backend: Backend, images: Any) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \[N, 48, 64, 3\]"):
        backend.infer(images)


def test_backend_properties(backend: Backend) -> None:
    assert backend.input_size == SIZE
    assert backend.description.classes == CAMVID_CLASSES
    assert backend.precision in ("fp32", "fp16", "bf16")
    assert backend.device
    assert backend.name in (*BACKENDS, "fake")


def test_infer_works_from_another_thread(backend: Backend) -> None:
    images, classes = class_images(3)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(class_maps(backend, images)))
    thread.start()
    thread.join(60)
    np.testing.assert_array_equal(results[0], classes)


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(OptionError, match="no backend 'cuda': there are auto, openvino, tensorrt, tensorrt-rtx, torch"):
        open_backend("cuda", MODEL)


NATIVE_IMPORT = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:  # as pybind11 reports it
    raise ImportError("KeyboardInterrupt")
"""


@pytest.mark.parametrize(
    ("openvino", "code", "message"),
    [
        (NATIVE_IMPORT, 130, "rtseg: interrupted"),
        ("raise ImportError('no libtbb.so')", 1, "OpenVINO can't be loaded (no libtbb.so): install it again"),
        ("raise ModuleNotFoundError('openvino')", 1, "OpenVINO is not installed: `pip install openvino`"),
    ],
)
def test_failed_import_of_openvino_is_explained(tmp_path: Path, openvino: str, code: int, message: str) -> None:
    (tmp_path / "openvino.py").write_text(openvino)
    script = "sys.path.insert(0, sys.argv[1])\nfrom rtseg.cli.app import main\nsys.argv[1:] = sys.argv[2:]\nmain()"
    result = run_script(script, tmp_path, "bench", "--model", MODEL, "--backend", "openvino", "--frames", 2)
    assert result.returncode == code
    assert message in result.stderr.decode()


def test_engine_without_a_sidecar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(b"anything")
    with pytest.raises(ModelError, match=r"has no x\.engine\.json next to it"):
        choose_backend(tmp_path / "x.engine")


def test_required_gpu_that_is_missing_fails_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """With RTSEG_REQUIRE_GPU=1, tests that need a GPU fail instead of being skipped."""
    monkeypatch.setattr(f"{__name__}.find_gpus", lambda: ())
    monkeypatch.setenv("RTSEG_REQUIRE_GPU", "1")
    with pytest.raises(pytest.fail.Exception, match="RTSEG_REQUIRE_GPU=1 requires it"):
        _needs_gpu()
    monkeypatch.delenv("RTSEG_REQUIRE_GPU")
    with pytest.raises(pytest.skip.Exception, match="no NVIDIA GPU was found"):
        _needs_gpu()
