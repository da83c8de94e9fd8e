"""U-Nets of other libraries: the class map is the library's own, whatever the file's form."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from importer_fixtures import FOLDER, class_map, expected, load, weights  # noqa: E402
from importer_weights import image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from rtseg.nn.importers import import_checkpoint  # noqa: E402

NAMES = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))
FULL_SIZE = ("fastai1-resnet", "fastai2-resnet", "classic-64", "smp-res")
"""How the names of networks start that are as wide as people train them."""

SMALL = ("fastai1-narrow-weight-norm", "fastai2-narrow-batch-norm", "classic-16-bilinear-odd", "smp-narrow-odd")


def save(name: str, folder: Path) -> Path:
    """A file as the library's users have it."""
    fixture = load(name)
    state = weights(fixture)
    path = folder / "My U-Net_3.pth"
    if "config" in fixture:
        (folder / "config.json").write_text(json.dumps(fixture["config"]))
        save_file(state, folder / "model.safetensors")
        return folder
    torch.save({"model": state, "opt": {}} if name.startswith("fastai") else state, path)
    return path


def names() -> list[object]:
    """All fixtures; those of tens of millions of weights run as proofs."""
    return [pytest.param(n, marks=pytest.mark.proof) if n.startswith(FULL_SIZE) else n for n in NAMES]


@pytest.mark.parametrize("name", names())
def test_the_class_map_is_the_librarys(name: str, tmp_path: Path) -> None:
    fixture = load(name)
    width, height = fixture["size"]
    imported = import_checkpoint(save(name, tmp_path), size=(width, height), **fixture["options"])
    agreement = (class_map(imported, (width, height)) == expected(name)).mean()
    assert agreement >= 0.999
    assert len(imported.description.classes) == max(2, fixture["scores"])
    assert imported.description.input_size == (width, height)


@pytest.mark.parametrize("version", ["fastai1", "fastai2"])
def test_a_file_of_learn_save_with_its_optimizer(version: str, tmp_path: Path) -> None:
    path = tmp_path / "stage-2.pth"
    path.write_bytes(gzip.decompress((FOLDER / f"{version}-learn-save.pth.gz").read_bytes()))
    imported = import_checkpoint(path, size=(96, 64), classes=["Road", "car", "sky", "tree"])
    np.testing.assert_array_equal(class_map(imported, (96, 64)), expected(f"{version}-learn-save"))
    assert imported.description.classes == ("road", "car", "sky", "tree")
    assert imported.description.name == "stage-2"


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "net."])
def test_prefixes_of_wrapped_networks(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pt"
    torch.save({prefix + key: tensor for key, tensor in weights(load(SMALL[2])).items()}, path)
    assert (class_map(import_checkpoint(path, size=(75, 101)), (75, 101)) == expected(SMALL[2])).mean() >= 0.999


@pytest.mark.parametrize(
    "form", ["lightning", "safetensors", "half", "old-torch-format", "mask-values", "names-of-2019"]
)
def test_forms_of_the_file(form: str, tmp_path: Path) -> None:
    state = weights(load(SMALL[2]))
    path = tmp_path / "unet.ckpt"
    if form == "lightning":
        extra = {"loss.weight": torch.ones(5), "mean": torch.zeros(1, 3, 1, 1)}
        inside = {f"model.{key}": tensor for key, tensor in state.items()} | extra
        torch.save({"epoch": 3, "state_dict": inside, "optimizer_states": [{"lr": 0.1}]}, path)
    elif form == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif form == "half":
        torch.save({k: t.half() if t.is_floating_point() else t for k, t in state.items()}, path)
    elif form == "old-torch-format":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif form == "mask-values":
        torch.save({**state, "mask_values": [[0, 0, 0], [255, 255, 255]]}, path)
    else:
        old = {
            key.replace("maxpool_conv.1.double_conv", "mpconv.1.conv")
            .replace("inc.double_conv", "inc.conv.conv")
            .replace("conv.double_conv", "conv.conv"): tensor
            for key, tensor in state.items()
        }
        torch.save(old, path)
    agreement = (class_map(import_checkpoint(path, size=(75, 101)), (75, 101)) == expected(SMALL[2])).mean()
    assert agreement >= (0.99 if form == "half" else 0.999)


def test_blur_and_normalization_change_the_class_map_and_can_be_said(tmp_path: Path) -> None:
    path = save("fastai2-narrow-batch-norm", tmp_path)
    plain = import_checkpoint(path, size=(128, 96))
    blurred = import_checkpoint(path, size=(128, 96), blur=True)
    assert (class_map(plain, (128, 96)) != class_map(blurred, (128, 96))).mean() > 0.01
    assert any("blur" in sentence for sentence in plain.assumptions)
    assert not any("blur" in sentence for sentence in blurred.assumptions)
    shifted = import_checkpoint(path, size=(128, 96), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert (shifted.mean, shifted.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert not any("normalization" in sentence for sentence in shifted.assumptions)


def test_normalization_on_the_scale_of_0_to_255_is_the_same(tmp_path: Path) -> None:
    path = save(SMALL[2], tmp_path)
    small = import_checkpoint(path, size=(64, 64), mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25))
    large = import_checkpoint(path, size=(64, 64), mean=(127.5, 102, 76.5), std=(63.75, 63.75, 63.75))
    np.testing.assert_allclose(small.mean + small.std, large.mean + large.std)


def test_each_family_has_its_own_normalization(tmp_path: Path) -> None:
    means = {name: import_checkpoint(save(name, tmp_path), size=(64, 64)).mean for name in SMALL}
    assert means[SMALL[2]] == (0.0, 0.0, 0.0)
    assert {means[SMALL[0]], means[SMALL[1]], means[SMALL[3]]} == {(0.485, 0.456, 0.406)}


def test_one_score_a_pixel_becomes_two_classes(tmp_path: Path) -> None:
    imported = import_checkpoint(save("classic-12-transposed-binary", tmp_path), size=(128, 96))
    assert imported.description.classes == ("background", "foreground")
    assert set(np.unique(class_map(imported, (128, 96)))) == {0, 1}


@pytest.mark.parametrize("name", SMALL)
def test_any_size_goes_in_and_comes_out(name: str, tmp_path: Path) -> None:
    module = import_checkpoint(save(name, tmp_path), size=(64, 64)).module
    for height, width in ((33, 65), (64, 32), (47, 50)):
        picture = torch.from_numpy(image(height, width)).permute(2, 0, 1)[None] / 255
        assert module(picture).shape[2:] == (height, width)


def test_of_two_networks_in_a_file_the_note_says_which_is_taken_and_how_to_take_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = weights(load(SMALL[2]))
    zeros = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    optimizer = {"state": {i: {"exp_avg": tensor} for i, tensor in enumerate(state.values())}}
    path = tmp_path / "both.pth"
    torch.save({"model": zeros, "ema": {"shadow": state, "decay": 0.999}, "optimizer": optimizer}, path)
    imported = import_checkpoint(path, size=(75, 101))
    assert set(np.unique(class_map(imported, (75, 101)))) == {0}
    (note,) = [sentence for sentence in imported.assumptions if "networks in the file" in sentence]
    assert note.startswith("'model' is taken, of 2 networks in the file; for another, save it alone: torch.save(")
    monkeypatch.chdir(tmp_path)
    exec(note.partition("save it alone: ")[2], {"torch": torch})
    other = import_checkpoint(tmp_path / "other.pth", size=(75, 101))
    assert (class_map(other, (75, 101)) == expected(SMALL[2])).mean() >= 0.999
    assert not any("networks in the file" in sentence for sentence in other.assumptions)
    torch.save({"model": state, "optimizer": optimizer, "best": {"miou": torch.tensor(0.5)}}, path)
    assert import_checkpoint(path, size=(75, 101)).assumptions == other.assumptions


@pytest.mark.parametrize("name", SMALL)
def test_what_no_weight_shows_is_said_in_one_note(name: str, tmp_path: Path) -> None:
    said = import_checkpoint(save(name, tmp_path), size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1)).assumptions
    (note,) = [sentence for sentence in said if sentence.startswith("a checkpoint holds weights only")]
    assert "with ReLU, max pooling" in note
    assert ("the encoder's features first" in note) == name.startswith("classic")
    assert "torch.onnx.export" in note
