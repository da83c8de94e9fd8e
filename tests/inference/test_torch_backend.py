"""Checkpoints: run by torch as they are, and built into what the other backends run."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from importer_fixtures import expected, load, weights  # noqa: E402
from importer_weights import image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from rtseg.core.errors import BackendError, ModelError  # noqa: E402
from rtseg.core.model_info import ModelInfo  # noqa: E402
from rtseg.core.palette import CAMVID_CLASSES  # noqa: E402
from rtseg.inference.openvino import OpenVinoBackend  # noqa: E402
from rtseg.inference.segmenter import Segmenter  # noqa: E402
from rtseg.inference.torch import TorchBackend  # noqa: E402
from rtseg.models.export.build import build  # noqa: E402
from rtseg.nn.checkpoint import save_checkpoint, save_weights  # noqa: E402
from rtseg.nn.load_network import is_rtseg_checkpoint, open_network  # noqa: E402
from rtseg.nn.preprocessing import Preprocessing  # noqa: E402
from rtseg.nn.unet import UNet  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = (96, 64)
DESCRIPTION = ModelInfo("test", CAMVID_CLASSES, SIZE, network="unet-nano", license="MIT")
FAMILIES = ["fastai2-narrow-batch-norm", "classic-16-bilinear-odd", "smp-narrow-odd"]


def _network() -> UNet:
    """A network as a trained one might be: every class occurs, in areas."""
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
    """A checkpoint as another library saves it, and its size."""
    fixture = load(name)
    path = folder / f"{name}.pth"
    torch.save(weights(fixture), path)
    if "config" in fixture:
        path = folder
        (folder / "config.json").write_text(json.dumps(fixture["config"]))
        save_file(weights(fixture), folder / "model.safetensors")
    return path, tuple(fixture["size"])


def _needs_rtx() -> None:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        if os.environ.get("RTSEG_REQUIRE_SYSTEM") == "1":
            pytest.fail("TensorRT for RTX is missing, but RTSEG_REQUIRE_SYSTEM=1 promises it", pytrace=False)
        pytest.skip("TensorRT for RTX is missing: pip install tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings")


# As they are.


def test_torch_says_what_the_network_says(own: Path) -> None:
    backend = TorchBackend(own, device="cpu")
    picture = image(64, 96)[None]
    with torch.inference_mode():
        direct = open_network(own).module(torch.from_numpy(picture)).numpy()
    np.testing.assert_array_equal(backend.infer(picture), direct)
    assert len(np.unique(direct)) > 2
    assert backend.precision == "fp32"
    assert backend.description == DESCRIPTION
    assert backend.device.startswith("processor")
    backend.close()


def test_batches_and_other_sizes(own: Path) -> None:
    backend = TorchBackend(own, size=(70, 50), device="cpu")
    pictures = np.stack([image(50, 70), image(50, 70)[::-1]])
    answers = backend.infer(pictures)
    assert answers.shape == (2, 50, 70)
    np.testing.assert_array_equal(answers[1], backend.infer(pictures[1:])[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_class_map_of_other_libraries(name: str, tmp_path: Path) -> None:
    path, size = foreign(name, tmp_path)
    backend = TorchBackend(path, size=size, device="cpu")
    answer = backend.infer(image(size[1], size[0])[None])[0]
    assert (answer == expected(name)).mean() >= 0.999


def test_devices_and_files_that_are_not_there(own: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="torch has no device 'cuda:0' here"):
            TorchBackend(own, device="cuda:0")
    with pytest.raises(BackendError, match="torch has no device 'abacus'"):
        TorchBackend(own, device="abacus")
    with pytest.raises(ModelError, match="the torch backend runs checkpoints"):
        TorchBackend(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="no such file"):
        TorchBackend(tmp_path / "none.safetensors", device="cpu")


def test_rtsegs_own_files_are_told_by_their_header(own: Path, tmp_path: Path) -> None:
    assert is_rtseg_checkpoint(own)
    model = _network()
    training = tmp_path / "last.pt"
    save_checkpoint(training, {"ema": model.state_dict(), "description": DESCRIPTION.to_json()})
    assert is_rtseg_checkpoint(training)
    assert open_network(training).unet is not None
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    assert not is_rtseg_checkpoint(tmp_path / "plain.pt")
    assert not is_rtseg_checkpoint(tmp_path / "plain.safetensors")


# Bad input.


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = _network()
    with torch.no_grad():
        model.head.bias[3] = float("nan")
    save_weights(model, DESCRIPTION, tmp_path / "nan.safetensors")
    with pytest.raises(ModelError, match=r"the weights 'head\.bias' are not finite; the training diverged"):
        build(tmp_path / "nan.safetensors", target="onnx", out=tmp_path / "built")
    assert not (tmp_path / "built").exists() or not list((tmp_path / "built").iterdir())


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/rtseg-was-here",)


@pytest.mark.parametrize(
    "make",
    [
        lambda own, path: path.write_bytes(b"no checkpoint"),
        lambda own, path: path.write_bytes(own.read_bytes()[: own.stat().st_size // 2]),
        lambda own, path: torch.save({"something": torch.zeros(3)}, path),
        lambda own, path: torch.save(Harmful(), path),
    ],
    ids=["garbage", "truncated", "other", "code"],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bad_checkpoints_get_one_line(make: Any, suffix: str, own: Path, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    make(own, path)
    with pytest.raises(ModelError) as caught:
        build(path, target="onnx", size=SIZE, out=tmp_path / "built")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "built").exists() or not list((tmp_path / "built").iterdir())
    assert not Path("/tmp/rtseg-was-here").exists()


def test_another_librarys_file_needs_a_size(tmp_path: Path) -> None:
    path, _ = foreign("classic-16-bilinear-odd", tmp_path)
    with pytest.raises(ModelError, match="does not record the size it was trained at; give it"):
        build(path, target="onnx", out=tmp_path / "built")


# Built.


@pytest.mark.system
def test_rtx_engine_of_an_own_checkpoint(own: Path, tmp_path: Path) -> None:
    _needs_rtx()
    built = build(own, target="tensorrt-rtx", out=tmp_path)
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
    assert built.sidecar.verification["agreement"]["pixels"] >= 0.995
    assert built.sidecar.description.classes == CAMVID_CLASSES
    assert built.path.stat().st_size > 100_000


@pytest.mark.system
@pytest.mark.parametrize("name", FAMILIES)
def test_rtx_engine_of_another_librarys_checkpoint(name: str, tmp_path: Path) -> None:
    _needs_rtx()
    path, size = foreign(name, tmp_path)
    built = build(path, target="tensorrt-rtx", size=size, out=tmp_path / "built", verify=False)
    assert built.path.read_bytes()[:4] == b"vtrt"
    assert built.sidecar.verification["precision"]["fp16_share"] == 1.0
    assert built.notes, "what the file does not say is told"


@pytest.mark.parametrize("name", [FAMILIES[0], *(pytest.param(name, marks=pytest.mark.proof) for name in FAMILIES[1:])])
def test_openvino_of_another_librarys_checkpoint(name: str, tmp_path: Path) -> None:
    path, size = foreign(name, tmp_path)
    said = Preprocessing(classes=tuple(f"thing{i}" for i in range(max(2, load(name)["scores"]))))
    # In FP32, so that what differs is the conversion; what FP16 changes in a trained network is shown by each build's proof.
    built = build(path, target="openvino", precision="fp32", size=size, out=tmp_path, preprocessing=said, verify=False)
    backend = OpenVinoBackend(built.path, precision="fp32")
    answer = backend.infer(image(size[1], size[0])[None])[0]
    assert (answer == expected(name)).mean() >= 0.999
    assert backend.description.classes == said.classes


def test_running_a_checkpoint_builds_it_once(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    path, size = foreign("classic-16-bilinear-odd", tmp_path)
    monkeypatch.setattr("rtseg.models.export.build.default_folder", lambda: tmp_path / "engines")
    picture = image(size[1], size[0])
    with Segmenter(path, backend="openvino", size=size) as segmenter:
        first = segmenter(picture)
    assert f"building {path.name} for openvino: it was not built yet" in capsys.readouterr().err
    with Segmenter(path, backend="openvino", size=size) as segmenter:
        np.testing.assert_array_equal(segmenter(picture), first)
    assert "building" not in capsys.readouterr().err
    assert (first == expected("classic-16-bilinear-odd")).mean() > 0.98  # the processor may compute in BF16


class _Small:
    """Stands for a network on a GPU with room for `room` pictures."""

    def __init__(self, module: Any, room: int) -> None:
        self._module, self._room = module, room
        self.tried: list[int] = []

    def __call__(self, images: Any) -> Any:
        self.tried.append(len(images))
        if len(images) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore words")
        return self._module(images)


def test_a_gpu_without_room_for_all_pictures_takes_fewer_at_once(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = TorchBackend(own)
    images = np.random.default_rng(0).integers(0, 256, (11, SIZE[1], SIZE[0], 3), dtype=np.uint8)
    expected = backend.infer(images)
    assert len({picture.tobytes() for picture in expected}) == 11
    small = backend._module = _Small(backend._module, 2)
    np.testing.assert_array_equal(backend.infer(images), expected)
    assert small.tried == [11, 5, 2, 2, 2, 2, 2, 1]
    said = caplog.messages
    assert len(said) == 2
    assert "out of memory on " in said[0]
    assert said[0].endswith("with 11 images per run; continuing with 5")
    backend.infer(images)
    assert max(small.tried[8:]) == 2  # what did not fit is not tried again
    assert len(caplog.messages) == 2


def test_a_gpu_without_room_for_one_picture_is_told(own: Path) -> None:
    backend = TorchBackend(own)
    backend._module = _Small(backend._module, 0)
    with pytest.raises(BackendError, match=r"for one picture of 96x64: .* smaller --size") as error:
        backend.infer(np.zeros((3, SIZE[1], SIZE[0], 3), np.uint8))
    assert "\n" not in str(error.value)
