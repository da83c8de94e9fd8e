"""Checkpoints: run by torch directly, and built for the other backends."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from building import build, needs_rtx  # noqa: E402
from importer_fixtures import expected, load, weights  # noqa: E402
from importer_weights import image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from rtseg.core.errors import BackendError, ModelError  # noqa: E402
from rtseg.core.model_info import ModelInfo  # noqa: E402
from rtseg.core.palette import CAMVID_CLASSES  # noqa: E402
from rtseg.inference.argmax import class_maps  # noqa: E402
from rtseg.inference.openvino import OpenVinoBackend  # noqa: E402
from rtseg.inference.segmenter import Segmenter  # noqa: E402
from rtseg.inference.torch import TorchBackend  # noqa: E402
from rtseg.models.export.auto_build import auto_build  # noqa: E402
from rtseg.nn.checkpoint import save_checkpoint, save_weights  # noqa: E402
from rtseg.nn.load_network import is_rtseg_checkpoint, open_network  # noqa: E402
from rtseg.nn.preprocessing import Preprocessing  # noqa: E402
from rtseg.nn.unet import UNet  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = (96, 64)
DESCRIPTION = ModelInfo("test", CAMVID_CLASSES, SIZE, network="unet-nano", license="MIT")
FAMILIES = ["fastai2-narrow-batch-norm", "classic-16-bilinear-odd", "smp-narrow-odd"]


def _network() -> UNet:
    """Return an untrained network whose class maps contain regions of every class."""
    torch.manual_seed(0)
    model = UNet(11, "nano").eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "model.safetensors"
    save_weights(_network(), DESCRIPTION, path)
    return path


def foreign(name: str, folder: Path) -> tuple[Path, tuple[int, int]]:
    """Write a checkpoint as another library saves it; return its path and its input size."""
    fixture = load(name)
    path = folder / f"{name}.pth"
    torch.save(weights(fixture), path)
    if "config" in fixture:
        path = folder
        (folder / "config.json").write_text(json.dumps(fixture["config"]))
        save_file(weights(fixture), folder / "model.safetensors")
    return path, tuple(fixture["size"])


# Run directly.


def test_torch_backend_matches_the_network(own: Path) -> None:
    backend = TorchBackend(own, device="cpu")
    images = image(64, 96)[None]
    with torch.inference_mode():
        direct = open_network(own).module(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(backend.infer(images), direct)
    assert len(np.unique(direct.argmax(axis=1))) > 2
    assert backend.precision == "fp32"
    assert backend.description == replace(DESCRIPTION, head_stride=2)
    assert backend.device.startswith("CPU")
    backend.close()


def test_batches_and_other_sizes_are_supported(own: Path) -> None:
    backend = TorchBackend(own, device="cpu")
    assert backend.free_size
    images = np.stack([image(50, 70), image(50, 70)[::-1]])
    scores = backend.infer(images)
    assert scores.shape == (2, 11, 25, 35)
    np.testing.assert_allclose(scores[1], backend.infer(images[1:])[0], atol=1e-3)
    with Segmenter(own, backend="torch", device="cpu") as segmenter:
        assert segmenter.input_size_for(900, 300) == (96, 32)
    assert not TorchBackend(own, device="cpu", size=(70, 50)).free_size


@pytest.mark.parametrize("name", FAMILIES)
def test_class_maps_match_other_libraries(name: str, tmp_path: Path) -> None:
    path, size = foreign(name, tmp_path)
    backend = TorchBackend(path, size=size, device="cpu")
    classes = class_maps(backend, image(size[1], size[0])[None])[0]
    assert (classes == expected(name)).mean() >= 0.999


def test_missing_devices_and_files_are_refused(own: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="torch has no device 'cuda:0' here"):
            TorchBackend(own, device="cuda:0")
    with pytest.raises(BackendError, match="torch has no device 'abacus'"):
        TorchBackend(own, device="abacus")
    with pytest.raises(ModelError, match="the torch backend runs checkpoints"):
        TorchBackend(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="no such file"):
        TorchBackend(tmp_path / "none.safetensors", device="cpu")


def test_own_checkpoints_are_recognized_by_their_header(own: Path, tmp_path: Path) -> None:
    assert is_rtseg_checkpoint(own)
    model = _network()
    training = tmp_path / "last.pt"
    save_checkpoint(training, {"ema": model.state_dict(), "description": DESCRIPTION.to_json()})
    assert is_rtseg_checkpoint(training)
    assert isinstance(open_network(training).original, UNet)
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    assert not is_rtseg_checkpoint(tmp_path / "plain.pt")
    assert not is_rtseg_checkpoint(tmp_path / "plain.safetensors")


# Bad input.


def test_non_finite_weights_are_refused(tmp_path: Path) -> None:
    model = _network()
    with torch.no_grad():
        model.head.bias[3] = float("nan")
    save_weights(model, DESCRIPTION, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"the weights 'head\.bias' are not finite; the training diverged"):
        build(tmp_path / "nan.safetensors", target="onnx", out=tmp_path / "built")
    assert not (tmp_path / "built").exists() or not list((tmp_path / "built").iterdir())


class MaliciousPickle:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/rtseg-code-ran",)


@pytest.mark.parametrize(
    "make",
    [
        lambda own, path: path.write_bytes(b"no checkpoint"),
        lambda own, path: path.write_bytes(own.read_bytes()[: own.stat().st_size // 2]),
        lambda own, path: torch.save({"something": torch.zeros(3)}, path),
        lambda own, path: torch.save(MaliciousPickle(), path),
    ],
    ids=["garbage", "truncated", "other", "code"],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bad_checkpoints_are_refused_with_one_line(make: Any, suffix: str, own: Path, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    make(own, path)
    with pytest.raises(ModelError) as error:
        build(path, target="onnx", size=SIZE, out=tmp_path / "built")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "built").exists() or not list((tmp_path / "built").iterdir())
    assert not Path("/tmp/rtseg-code-ran").exists()


def test_checkpoint_of_another_library_needs_a_size(tmp_path: Path) -> None:
    path, _ = foreign("classic-16-bilinear-odd", tmp_path)
    with pytest.raises(ModelError, match="does not record the size it was trained at; give it"):
        build(path, target="onnx", out=tmp_path / "built")


# Built.


@pytest.mark.system
def test_rtx_engine_of_an_own_checkpoint(own: Path, tmp_path: Path) -> None:
    needs_rtx()
    built = build(own, target="tensorrt-rtx", out=tmp_path)
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
    assert built.sidecar.verification["agreement"]["pixels"] >= 0.995
    assert built.sidecar.description.classes == CAMVID_CLASSES
    assert built.path.stat().st_size > 100_000


@pytest.mark.system
@pytest.mark.parametrize("name", FAMILIES)
def test_rtx_engine_of_another_librarys_checkpoint(name: str, tmp_path: Path) -> None:
    needs_rtx()
    path, size = foreign(name, tmp_path)
    built = build(path, target="tensorrt-rtx", size=size, out=tmp_path / "built", verify=False)
    assert built.path.read_bytes()[:4] == b"vtrt"
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
    assert built.notes, "assumptions are reported"


@pytest.mark.parametrize("name", [FAMILIES[0], *(pytest.param(name, marks=pytest.mark.proof) for name in FAMILIES[1:])])
def test_openvino_of_another_librarys_checkpoint(name: str, tmp_path: Path) -> None:
    path, size = foreign(name, tmp_path)
    preparation = Preprocessing(classes=tuple(f"thing{i}" for i in range(max(2, load(name)["scores"]))))
    # In FP32, so that only the conversion can differ; each build verifies the effect of FP16 on a trained network.
    built = build(
        path, target="openvino", precision="fp32", size=size, out=tmp_path, preprocessing=preparation, verify=False
    )
    backend = OpenVinoBackend(built.path, precision="fp32")
    classes = class_maps(backend, image(size[1], size[0])[None])[0]
    assert (classes == expected(name)).mean() >= 0.999
    assert backend.description.classes == preparation.classes


def test_checkpoint_is_built_once_for_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, size = foreign("classic-16-bilinear-odd", tmp_path)
    monkeypatch.setattr("rtseg.models.export.build.default_folder", lambda: tmp_path / "engines")
    rgb = image(size[1], size[0])
    lines: list[str] = []
    build_missing = partial(auto_build, log=lines.append)
    with Segmenter(path, backend="openvino", size=size, build_missing=build_missing) as segmenter:
        first = segmenter(rgb)
    assert any(line.startswith(f"building {path.name} for openvino: ") for line in lines)
    lines.clear()
    with Segmenter(path, backend="openvino", size=size, build_missing=build_missing) as segmenter:
        np.testing.assert_array_equal(segmenter(rgb), first)
    assert not any("building" in line for line in lines)
    assert (first == expected("classic-16-bilinear-odd")).mean() > 0.98  # the CPU may compute in BF16


class _LimitedMemory:
    """Network on a GPU with memory for `max_images` images."""

    def __init__(self, module: Any, max_images: int) -> None:
        self._module, self._max_images = module, max_images
        self.batch_sizes: list[int] = []

    def __call__(self, images: Any) -> Any:
        self.batch_sizes.append(len(images))
        if len(images) > self._max_images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore text")
        return self._module(images)


def test_out_of_memory_halves_the_number_of_images_per_run(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = TorchBackend(own)
    images = np.random.default_rng(0).integers(0, 256, (11, SIZE[1], SIZE[0], 3), dtype=np.uint8)
    expected = backend.infer(images)
    assert len({scores.tobytes() for scores in expected}) == 11
    limited = backend._module = _LimitedMemory(backend._module, 2)
    np.testing.assert_allclose(backend.infer(images), expected, atol=1e-3)
    assert limited.batch_sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    messages = caplog.messages
    assert len(messages) == 2
    assert "out of memory on " in messages[0]
    assert messages[0].endswith("with 11 images per run; continuing with 5")
    backend.infer(images)
    assert max(limited.batch_sizes[8:]) == 2  # sizes that did not fit are not tried again
    assert len(caplog.messages) == 2


def test_out_of_memory_for_one_image_raises_an_error(own: Path) -> None:
    backend = TorchBackend(own)
    backend._module = _LimitedMemory(backend._module, 0)
    with pytest.raises(BackendError, match=r"for one image of 96x64: .* smaller --size") as error:
        backend.infer(np.zeros((3, SIZE[1], SIZE[0], 3), np.uint8))
    assert "\n" not in str(error.value)
