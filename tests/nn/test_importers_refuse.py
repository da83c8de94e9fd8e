"""Checkpoints that are damaged, of another network or malicious: the error is one line, and no code is run."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from importer_fixtures import load, weights  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from rtseg.core.errors import ModelError, OptionError  # noqa: E402
from rtseg.nn.importers import import_checkpoint  # noqa: E402
from rtseg.nn.importers.weights import Weights  # noqa: E402
from rtseg.nn.preprocessing import Preprocessing  # noqa: E402

FASTAI, CLASSIC, SMP = "fastai2-narrow-batch-norm", "classic-16-bilinear-odd", "smp-narrow-odd"


def refused(path: Path, size: tuple[int, int] | None = (64, 64), **options: Any) -> str:
    """Return the one-line message with which a file is refused."""
    with pytest.raises(ModelError) as caught:
        import_checkpoint(path, size, Preprocessing(**options))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


@pytest.fixture
def file(tmp_path: Path) -> Callable[[object], Path]:
    def save(content: object) -> Path:
        torch.save(content, tmp_path / "unet.pth")
        return tmp_path / "unet.pth"

    return save


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_refuses_truncated_file(form: str, share: float, tmp_path: Path) -> None:
    state = weights(load(CLASSIC))
    path = tmp_path / ("unet.safetensors" if form == "safetensors" else "unet.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert any(words in refused(path) for words in ("damaged", "cut short", "not a torch checkpoint"))


def test_changed_bytes_raise_only_model_error(tmp_path: Path) -> None:
    whole = io.BytesIO()
    torch.save(weights(load(CLASSIC)), whole)
    path = tmp_path / "unet.pth"
    size = len(whole.getvalue())
    for position in (*range(0, 3000, 199), *range(size - 3000, size, 337)):  # the pickle, and the table of contents
        data = bytearray(whole.getvalue())
        data[position] ^= 0xFF
        path.write_bytes(data)
        with contextlib.suppress(ModelError):  # some bytes have no effect
            import_checkpoint(path, (64, 64))


def test_refuses_weight_with_changed_bytes(file: Callable[[object], Path]) -> None:
    path = file(weights(load(CLASSIC)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data)
    assert "damaged" in refused(path)


def test_reads_file_saved_without_checksums(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights(load(CLASSIC)), tmp_path / "unet.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    import_checkpoint(tmp_path / "unet.pth", (64, 64))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged"),
        (b"not a checkpoint at all" * 50, "not a torch checkpoint"),
        (bytes(4096), "not a torch checkpoint"),
        (b"\x80\x02}q\x00.", "damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras"),
    ],
)
def test_refuses_file_that_is_not_a_checkpoint(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "unet.pth"
    path.write_bytes(content)
    assert words in refused(path)


def test_refuses_weights_that_are_not_finite(file: Callable[[object], Path]) -> None:
    state = weights(load(FASTAI))
    state["layers.5.conv1.0.weight"][0, 0, 1, 1] = float("nan")
    assert "'layers.5.conv1.0.weight' contains 1 values that are NaN" in refused(file({"model": state}))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (FASTAI, "layers.0.6.1.conv2.weight"),
        (CLASSIC, "down3.maxpool_conv.1.double_conv.1.running_var"),
        (SMP, "decoder.blocks.2.conv2.0.weight"),
    ],
)
def test_refuses_missing_or_resized_weight(name: str, key: str, file: Callable[[object], Path]) -> None:
    state = weights(load(name))
    without = {k: tensor for k, tensor in state.items() if k != key}
    assert key in refused(file(without))
    assert "do not fit together" in refused(file({**state, key: torch.cat([state[key], state[key]])}))


@pytest.mark.parametrize(
    ("name", "removed", "expected"),
    [
        (CLASSIC, "inc.double_conv.1.weight", "'inc.double_conv.1.weight' is missing"),
        (CLASSIC, "up2.conv.double_conv.4.bias", "'up2.conv.double_conv.4.bias' is missing"),
        (CLASSIC, "down1.maxpool_conv.1.double_conv.3.bias", "'down1.maxpool_conv.1.double_conv.3.bias' is missing"),
        (CLASSIC, "down2.maxpool_conv.1.double_conv.4.", "'down2.maxpool_conv.1.double_conv.4.bias' is missing"),
        (CLASSIC, "outc.conv.bias", "'outc.conv.bias' is missing"),
        ("classic-12-transposed-binary", "up3.up.bias", "'up3.up.bias' is missing"),
        (SMP, "encoder.layer2.0.bn1.weight", "'encoder.layer2.0.bn1.weight' is missing"),
        (SMP, "decoder.blocks.1.conv1.1.bias", "'decoder.blocks.1.conv1.1.bias' is missing"),
        (SMP, "decoder.blocks.1.conv1.1.", "'decoder.blocks.1.conv1.0.bias' is missing"),
        (SMP, "decoder.blocks.1.conv1.1.running_", "'decoder.blocks.1.conv1.1.running_mean' is missing"),
        (SMP, "segmentation_head.0.bias", "'segmentation_head.0.bias' is missing"),
        (SMP, "encoder.layer2.0.", "stage 'layer2' of the encoder is missing, or a part of it"),
        (FASTAI, "layers.1.weight", "'layers.1.weight' is missing"),
        (FASTAI, "layers.5.conv1.1.", "'layers.5.conv1.0.bias' is missing"),
        ("fastai2-narrow-no-cross", "layers.8.0.0.bias", "'layers.8.0.0.bias' is missing"),
    ],
)
def test_refuses_network_with_missing_part(
    name: str, removed: str, expected: str, file: Callable[[object], Path]
) -> None:
    state = weights(load(name))
    remaining = {key: tensor for key, tensor in state.items() if not key.startswith(removed)}
    assert len(remaining) < len(state)
    message = refused(file(remaining))
    assert expected in message
    assert "the file is incomplete" in message


def test_batch_norm_without_weights_equals_torch() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4, affine=False))
    for _ in range(3):
        theirs(torch.rand(2, 3, 8, 8))
    x = torch.rand(1, 3, 8, 8)
    ours = Weights(theirs.state_dict()).conv("0", norm="1")
    torch.testing.assert_close(ours(x), theirs.eval()(x))


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        (SMP, "decoder.blocks.1.gate", {"weight": torch.ones(3, 3, 3, 3)}),
        (CLASSIC, "inc.double_conv.2", {"weight": torch.full((1,), 0.25)}),
        (CLASSIC, "up1.conv.double_conv.5", {"weight": torch.full((8,), 0.25)}),
        (CLASSIC, "down1.maxpool_conv.1.double_conv.6", {"weight": torch.ones(8), "bias": torch.ones(8)}),
    ],
    ids=["convolution", "PReLU", "PReLU by channel", "GroupNorm"],
)
def test_names_parameters_that_the_network_does_not_have(
    name: str, module: str, extra: dict[str, torch.Tensor], file: Callable[[object], Path]
) -> None:
    added = {f"{module}.{key}": tensor for key, tensor in extra.items()}
    assert f"{module}.weight" in refused(file({**weights(load(name)), **added}))


def test_refuses_norms_without_statistics(file: Callable[[object], Path]) -> None:
    state = {key: tensor for key, tensor in weights(load(CLASSIC)).items() if "running_" not in key}
    assert ".double_conv.1.weight" in refused(file(state))


def test_refuses_two_networks_in_one_file(file: Callable[[object], Path]) -> None:
    state = {f"student.{key}": tensor for key, tensor in weights(load(CLASSIC)).items()}
    assert "more than one network" in refused(file({**state, "teacher.conv.weight": torch.ones(8, 3, 3, 3)}))


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("model.1.submodule.0.conv.unit0.conv.weight", "MONAI"),
        ("encoder.stages.0.0.convs.0.conv.weight", "nnU-Net"),
        ("backbone.layer1.0.conv1.weight", "DeepLab"),
        ("decoder.blocks.x_0_0.conv1.0.weight", "UnetPlusPlus"),
        ("segformer.encoder.block.0.0.attention.self.query.weight", "SegFormer"),
        ("layers.4.shuf.0.0.weight", "fastai's DynamicUnet over an encoder other"),
        ("dconv_down1.0.weight", "custom layer names"),
        ("layer1.0.conv1.weight", "image classifier"),
        ("something.else.weight", "does not support"),
        ("segmentation_head.0.weight", "segmentation_models.pytorch network with an encoder"),
    ],
)
def test_names_likely_library_of_unsupported_network(key: str, expected: str, file: Callable[[object], Path]) -> None:
    names = [key, *(key.replace("weight", f"{i}.weight") for i in range(1, 6))]
    message = refused(file(dict.fromkeys(names, torch.ones(4, 4))))
    assert expected in message
    assert "torch.onnx.export" in message


def test_refuses_network_for_gray_images(file: Callable[[object], Path]) -> None:
    state = weights(load(CLASSIC))
    state["inc.double_conv.0.weight"] = state["inc.double_conv.0.weight"][:, :1]
    assert "images of 1 channels" in refused(file(state))


def test_refuses_torchscript_program(tmp_path: Path) -> None:
    path = tmp_path / "unet.pt"
    with zipfile.ZipFile(path, "w") as archive:  # the layout of torch.jit.save
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"unet/{name}", b"\x80\x02}q\x00.")
    assert "TorchScript" in refused(path)


def test_refuses_checkpoint_without_weights(file: Callable[[object], Path]) -> None:
    assert "epoch" in refused(file({"epoch": 3, "best": 0.5}))
    assert "list" in refused(file([1, 2, 3]))


def test_refuses_missing_file_and_incomplete_or_unsupported_folder(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "unet.pth")
    assert "config.json" in refused(tmp_path)
    save_file(weights(load(SMP)), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json can't be read"):
        import_checkpoint(tmp_path, (64, 64))
    (tmp_path / "config.json").write_text(json.dumps({"_model_class": "UnetPlusPlus"}))
    assert "UnetPlusPlus" in refused(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"_model_class": "Unet", "decoder_interpolation": "lanczos"}))
    assert "lanczos" in refused(tmp_path)


def test_refuses_arguments_that_do_not_fit(file: Callable[[object], Path]) -> None:
    path = file(weights(load(CLASSIC)))
    assert "--size" in refused(path, size=None)
    assert "has 5 classes, but 2 names" in refused(path, classes=("a", "b"))
    assert "blur" in refused(path, blur=True)
    with pytest.raises(OptionError, match="above 0"):
        import_checkpoint(path, (64, 64), Preprocessing(std=(0.2, 0.0, 0.2)))
