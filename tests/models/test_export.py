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

from rtseg.core.errors import ModelError, OptionError  # noqa: E402
from rtseg.core.model_info import METADATA_KEY, ModelInfo  # noqa: E402
from rtseg.inference.bundled_models import ASSETS  # noqa: E402
from rtseg.models.export.to_onnx import check_contract, export_onnx, save_onnx, smoothing_graph  # noqa: E402
from rtseg.nn.checkpoint import load_checkpoint, load_weights, save_checkpoint, save_weights  # noqa: E402
from rtseg.nn.image_to_classes import ImageToClasses, SmoothImageToClasses  # noqa: E402
from rtseg.nn.unet import UNet  # noqa: E402
from rtseg.synthetic import SyntheticDrive  # noqa: E402

pytestmark = pytest.mark.torch

BUNDLED = "small"
SIZES = [(360, 480), (288, 512), (135, 187)]
Array = npt.NDArray[Any]


def make_description(model: UNet, **changes: Any) -> ModelInfo:
    names = tuple(f"class{i}" for i in range(model.classes))
    fields = {
        "name": "test",
        "classes": names,
        "input_size": (96, 64),
        "network": f"unet-{model.variant}",
        "precision": "fp32",
    }
    return ModelInfo(**{**fields, **changes})


def synthetic_frame(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a frame of a synthetic scene, uint8 `[1, H, W, 3]`."""
    return SyntheticDrive(width, height, frames=20, seed=4).frame(7)[0][None]


@pytest.fixture(scope="module")
def bundled() -> tuple[UNet, ModelInfo]:
    return load_weights(ASSETS / f"camvid-{BUNDLED}.safetensors")


@pytest.fixture(scope="module")
def network(bundled: tuple[UNet, ModelInfo]) -> UNet:
    return bundled[0]


@pytest.fixture(scope="module")
def onnx_file(bundled: tuple[UNet, ModelInfo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "plain.onnx"
    export_onnx(*bundled, path)
    return path


@pytest.fixture(scope="module")
def smoothing_file(onnx_file: Path) -> Path:
    path = onnx_file.with_name("smoothing.onnx")
    save_onnx(smoothing_graph(onnx.load(onnx_file), "plain.onnx"), path)
    return path


def test_export_follows_contract(onnx_file: Path, bundled: tuple[UNet, ModelInfo]) -> None:
    proto = onnx.load(onnx_file)
    check_contract(proto, "plain.onnx")
    assert [value.name for value in proto.graph.input] == ["image"]
    assert [value.name for value in proto.graph.output] == ["classes"]
    description = ModelInfo.from_json({p.key: p.value for p in proto.metadata_props}[METADATA_KEY], "plain.onnx")
    assert description == dataclasses.replace(bundled[1], precision="fp16", head_stride=0)
    weights = [tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4]
    assert len(weights) > 20
    assert all(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in weights)
    assert not {"BatchNormalization", "If", "Loop", "NonZero"} & {node.op_type for node in proto.graph.node}
    assert not any("aux" in tensor.name for tensor in proto.graph.initializer)


@pytest.mark.parametrize("size", SIZES)
def test_export_in_onnx_runtime_agrees_with_network(onnx_file: Path, network: UNet, size: tuple[int, int]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    image = np.concatenate([synthetic_frame(*size), synthetic_frame(*size)[:, :, ::-1]])  # N is free too
    (classes,) = session.run(["classes"], {"image": image})
    with torch.inference_mode():
        expected = ImageToClasses(network)(torch.from_numpy(image)).numpy()
    assert classes.dtype == np.uint8
    assert classes.shape == (2, *size)
    assert len(np.unique(expected)) >= 5
    assert (classes == expected).mean() > 0.999  # FP16 against FP32


@pytest.mark.parametrize("size", SIZES)
def test_export_in_openvino_agrees_with_network(onnx_file: Path, network: UNet, size: tuple[int, int]) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    model = core.read_model(onnx_file)
    model.reshape({"image": [1, *size, 3]})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    image = synthetic_frame(*size)
    classes = compiled({"image": image})["classes"]
    with torch.inference_mode():
        expected = ImageToClasses(network)(torch.from_numpy(image)).numpy()
    assert classes.dtype == np.uint8
    assert (classes == expected).mean() > 0.999


def test_smoothing_graph_averages_scores(smoothing_file: Path, network: UNet) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(smoothing_file), providers=["CPUExecutionProvider"])
    image, other = synthetic_frame(75, 101), synthetic_frame(75, 101)[:, :, ::-1].copy()
    scores = np.zeros((1, 11, 38, 51), np.float16)

    def run(image: Array, scores: Array, momentum: float) -> tuple[Array, Array]:
        classes, new = session.run(
            ["classes", "new_scores"], {"image": image, "scores": scores, "momentum": np.array(momentum, np.float32)}
        )
        return classes, new

    first, kept = run(image, scores, 0.0)
    assert kept.dtype == np.float16
    assert kept.shape == scores.shape
    again, _ = run(other, kept, 1.0)
    assert (again == first).all()
    _, mixed = run(other, kept, 0.75)
    _, unsmoothed = run(other, scores, 0.0)
    np.testing.assert_allclose(mixed, 0.75 * kept.astype(np.float32) + 0.25 * unsmoothed, rtol=2e-2, atol=2e-2)
    with torch.inference_mode():
        expected, _ = SmoothImageToClasses(network)(
            torch.from_numpy(image), torch.from_numpy(scores), torch.tensor(0.0)
        )
    assert (first == expected.numpy()).mean() > 0.999
    description = ModelInfo.from_json(onnx.load(smoothing_file).metadata_props[0].value, "smoothing.onnx")
    assert description.head_stride == 2


def test_smoothing_graph_with_momentum_0_equals_plain_graph(onnx_file: Path, smoothing_file: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    sessions = [
        runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in (onnx_file, smoothing_file)
    ]
    image = synthetic_frame(64, 96)
    (first,) = sessions[0].run(["classes"], {"image": image})
    inputs = {"image": image, "scores": np.zeros((1, 11, 32, 48), np.float16), "momentum": np.array(0, np.float32)}
    assert (sessions[1].run(["classes"], inputs)[0] == first).all()


def test_smoothing_in_openvino_agrees_with_network(onnx_file: Path, network: UNet) -> None:
    pytest.importorskip("openvino")
    from rtseg.inference.openvino import SmoothOpenVinoBackend

    backend = SmoothOpenVinoBackend(onnx_file, size=(101, 75), precision="fp32")
    reference = SmoothImageToClasses(network)
    kept, scores = None, torch.zeros((1, 11, 38, 51), dtype=torch.float16)
    for momentum, image in (
        (0.0, synthetic_frame(75, 101)),
        (0.6, synthetic_frame(75, 101)[:, :, ::-1].copy()),
        (0.9, synthetic_frame(75, 101)),
    ):
        classes, kept = backend.infer_next(image, kept, momentum)
        with torch.inference_mode():
            expected, scores = reference(torch.from_numpy(image), scores, torch.tensor(momentum))
        assert kept.dtype == np.float16
        assert kept.shape == tuple(scores.shape)
        np.testing.assert_allclose(kept, scores.numpy(), rtol=2e-2, atol=5e-2)
        assert (classes == expected.numpy()).mean() > 0.998


def test_smoothing_in_torch_agrees_with_network(network: UNet) -> None:
    from rtseg.inference.torch import SmoothTorchBackend

    backend = SmoothTorchBackend(ASSETS / f"camvid-{BUNDLED}.safetensors", size=(101, 75), device="cpu")
    image, other = synthetic_frame(75, 101), synthetic_frame(75, 101)[:, :, ::-1].copy()
    classes, first = backend.infer_next(image, None, 0.7)
    assert np.array_equal(classes, backend.infer(image))
    mixed, second = backend.infer_next(other, first, 0.7)
    with torch.inference_mode():
        expected, scores = SmoothImageToClasses(network)(
            torch.from_numpy(other), torch.from_numpy(first), torch.tensor(0.7)
        )
    np.testing.assert_allclose(second, scores.numpy(), rtol=2e-2, atol=2e-2)
    assert (mixed == expected.numpy()).mean() > 0.999
    assert second.dtype == np.float16


def test_refuses_graphs_that_violate_contract(onnx_file: Path) -> None:
    fixed = onnx.load(onnx_file)
    fixed.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64
    with pytest.raises(ModelError, match=r"x\.onnx: the size of 'image' is fixed"):
        check_contract(fixed, "x.onnx")
    renamed = onnx.load(onnx_file)
    renamed.graph.output[0].name = "mask"
    next(node for node in renamed.graph.node if "classes" in node.output).output[0] = "mask"
    with pytest.raises(ModelError, match="not 'image' and 'mask'"):
        check_contract(renamed, "x.onnx")


def test_refuses_smoothing_graph_of_other_models(onnx_file: Path, smoothing_file: Path) -> None:
    with pytest.raises(ModelError, match=r"x\.onnx: temporal smoothing needs a model that rtseg exported"):
        smoothing_graph(onnx.load(smoothing_file), "x.onnx")
    foreign = onnx.load(onnx_file)
    del foreign.metadata_props[:]
    with pytest.raises(ModelError, match=r"x\.onnx: temporal smoothing needs a model that rtseg exported"):
        smoothing_graph(foreign, "x.onnx")


def test_export_refuses_wrong_arguments(tmp_path: Path) -> None:
    network = UNet(5, "nano")
    with pytest.raises(OptionError, match="must be fp16 or fp32, not 'int4'"):
        export_onnx(network, make_description(network), tmp_path / "a.onnx", precision="int4")
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
