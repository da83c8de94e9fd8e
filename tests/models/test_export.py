"""Exported ONNX files: the model contract, agreement with the network in ONNX Runtime and OpenVINO, and the bundled models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from class_maps import onnx_class_maps  # noqa: E402

from rtseg.core.errors import ModelError  # noqa: E402
from rtseg.core.model_info import METADATA_KEY, ModelInfo  # noqa: E402
from rtseg.inference.argmax import class_maps  # noqa: E402
from rtseg.inference.bundled_models import ASSETS  # noqa: E402
from rtseg.models.export.onnx_file import shape_of  # noqa: E402
from rtseg.models.export.to_onnx import export_onnx  # noqa: E402
from rtseg.nn.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights  # noqa: E402
from rtseg.nn.image_to_scores import ImageToScores  # noqa: E402
from rtseg.nn.unet import UNet  # noqa: E402
from rtseg.synthetic import SyntheticDrive  # noqa: E402

pytestmark = pytest.mark.torch

BUNDLED = "small"


def make_description(model: UNet, **changes: Any) -> ModelInfo:
    names = tuple(f"class{i}" for i in range(model.classes))
    base = ModelInfo("test", names, (96, 64), network=f"unet-{model.variant}", precision="fp32", head_stride=2)
    return dataclasses.replace(base, **changes)


def synthetic_frame(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a frame of a synthetic scene, uint8 `[1, H, W, 3]`."""
    return SyntheticDrive(width, height, frames=20, seed=4).frame(7)[0][None]


@pytest.fixture(scope="module")
def bundled() -> tuple[UNet, ModelInfo]:
    return load_weights(ASSETS / f"camvid-{BUNDLED}.safetensors")


@pytest.fixture(scope="module")
def onnx_file(bundled: tuple[UNet, ModelInfo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "plain.onnx"
    export_onnx(*bundled, path)
    return path


def test_export_follows_contract(onnx_file: Path, bundled: tuple[UNet, ModelInfo]) -> None:
    proto = onnx.load(onnx_file)
    onnx.checker.check_model(proto)
    (image,), (scores,) = proto.graph.input, proto.graph.output
    assert (image.name, image.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
    assert (scores.name, scores.type.tensor_type.elem_type) == ("scores", onnx.TensorProto.FLOAT16)
    assert shape_of(image) == (None, None, None, 3)
    assert shape_of(scores) == (None, 11, None, None)
    assert {node.op_type for node in proto.graph.node if "image" in node.input} <= {"Cast", "Shape"}, "for TensorRT"
    description = ModelInfo.from_json({p.key: p.value for p in proto.metadata_props}[METADATA_KEY], "plain.onnx")
    assert description == dataclasses.replace(bundled[1], precision="fp16")
    weights = [tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4]
    assert len(weights) > 20
    assert all(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights)
    assert not {"BatchNormalization", "If", "Loop", "NonZero"} & {node.op_type for node in proto.graph.node}
    assert not any("aux" in tensor.name for tensor in proto.graph.initializer)


@pytest.mark.parametrize("size", [(360, 480), (288, 512), (135, 187)])
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_export_agrees_with_network(
    runtime: str, onnx_file: Path, bundled: tuple[UNet, ModelInfo], size: tuple[int, int]
) -> None:
    pytest.importorskip(runtime)
    image = np.concatenate([synthetic_frame(*size), synthetic_frame(*size)[:, :, ::-1]])  # N is free too
    if runtime == "openvino":
        from rtseg.inference.openvino import OpenVinoBackend

        classes = class_maps(OpenVinoBackend(onnx_file, precision="fp32"), image)
    else:
        classes = onnx_class_maps(onnx_file, image)
    with torch.inference_mode():
        expected = ImageToScores(bundled[0]).classes(torch.from_numpy(image)).numpy()
    assert classes.shape == (2, *size)
    assert len(np.unique(expected)) >= 5
    assert (classes == expected).mean() > 0.999  # FP16 against FP32


def test_export_refuses_description_with_other_number_of_classes(tmp_path: Path) -> None:
    network = UNet(5, "nano")
    with pytest.raises(ModelError, match="has 2 classes, the network has 5"):
        export_onnx(network, make_description(network, classes=("a", "b")), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_saved_weights_load_unchanged(tmp_path: Path) -> None:
    network = UNet(5, "nano").eval()
    file = tmp_path / "model.safetensors"
    save_weights(network, make_description(network, license="none"), file)
    loaded, description = load_weights(file)
    assert description == make_description(network, license="none")
    assert not loaded.training
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(x), network(x))


def test_refuses_damaged_or_unknown_weights(tmp_path: Path) -> None:
    network = UNet(5, "nano")
    file = tmp_path / "model.safetensors"
    with pytest.raises(ModelError, match="no such file"):
        load_weights(file)
    file.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="damaged"):
        load_weights(file)
    save_weights(network, make_description(network, network="unet-small"), file)
    with pytest.raises(ModelError, match="do not fit a unet-small of 5 classes"):
        load_weights(file)
    save_weights(network, make_description(network, network="resnet"), file)
    with pytest.raises(ModelError, match="is a 'resnet', not one of unet-nano"):
        load_weights(file)


def test_loading_checkpoint_executes_no_code(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"rtseg_checkpoint": 1, "model": Malicious()}, tmp_path / "malicious.pt")
    with pytest.raises(ModelError, match=r"malicious\.pt"):
        load_checkpoint(tmp_path / "malicious.pt")
    assert not (tmp_path / "executed").exists()
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(ModelError, match=r"half\.pt.*damaged"):
        load_checkpoint(tmp_path / "half.pt")
    torch.save({"anything": 1}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="not a training checkpoint"):
        load_checkpoint(tmp_path / "other.pt")
    save_checkpoint(tmp_path / "good.pt", {"step": 3})
    assert load_checkpoint(tmp_path / "good.pt")["step"] == 3


def assert_same_model(bundled: Path, exported: Path) -> None:
    """Assert that two files have the same graph, description, and FP16 weights except for rounding of the last bit."""
    files = [onnx.load(file) for file in (bundled, exported)]
    description = [ModelInfo.from_json(file.metadata_props[0].value, str(bundled)) for file in files]
    assert description[0] == description[1]
    tensors = [{t.name: onnx.numpy_helper.to_array(t) for t in file.graph.initializer} for file in files]
    assert tensors[0].keys() == tensors[1].keys()
    for key, values in tensors[0].items():
        np.testing.assert_allclose(values, tensors[1][key], rtol=2e-3, atol=1e-6, err_msg=key)
    assert [node.op_type for node in files[0].graph.node] == [node.op_type for node in files[1].graph.node]


def test_bundled_onnx_equals_export_of_bundled_weights(onnx_file: Path) -> None:
    assert_same_model(ASSETS / f"camvid-{BUNDLED}.onnx", onnx_file)


@pytest.mark.proof
def test_each_bundled_onnx_equals_export_of_its_weights(tmp_path: Path) -> None:
    names = [file.stem for file in ASSETS.glob("*.safetensors")]
    assert len(names) >= 2
    for name in names:
        export_onnx(*load_weights(ASSETS / f"{name}.safetensors"), tmp_path / f"{name}.onnx")
        assert_same_model(ASSETS / f"{name}.onnx", tmp_path / f"{name}.onnx")


def test_bundled_models_are_small() -> None:
    assert sum(file.stat().st_size for file in ASSETS.iterdir()) < 25e6
