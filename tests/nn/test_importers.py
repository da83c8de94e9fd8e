"""U-Nets of other libraries: the class map equals that of the library, for every file format."""

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
from rtseg.nn.preprocessing import Preprocessing  # noqa: E402

NAMES = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))
FULL_SIZE = ("fastai1-resnet", "fastai2-resnet", "classic-64", "smp-res")
"""Start of the names of networks with realistic widths."""

SMALL = ("fastai1-narrow-weight-norm", "fastai2-narrow-batch-norm", "classic-16-bilinear-odd", "smp-narrow-odd")


def save(name: str, folder: Path) -> Path:
    """Save a fixture as users of the library would."""
    fixture = load(name)
    state = weights(fixture)
    path = folder / "My U-Net_3.pth"
    if "config" in fixture:
        (folder / "config.json").write_text(json.dumps(fixture["config"]))
        save_file(state, folder / "model.safetensors")
        return folder
    torch.save({"model": state, "opt": {}} if name.startswith("fastai") else state, path)
    return path


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.proof) if n.startswith(FULL_SIZE) else n for n in NAMES]
)
def test_class_map_equals_that_of_the_library(name: str, tmp_path: Path) -> None:
    fixture = load(name)
    width, height = fixture["size"]
    imported = import_checkpoint(save(name, tmp_path), (width, height), Preprocessing(**fixture["options"]))
    agreement = (class_map(imported, (width, height)) == expected(name)).mean()
    assert agreement >= 0.999
    assert len(imported.description.classes) == max(2, fixture["scores"])
    assert imported.description.input_size == (width, height)


@pytest.mark.parametrize("version", ["fastai1", "fastai2"])
def test_reads_learn_save_with_optimizer_state(version: str, tmp_path: Path) -> None:
    path = tmp_path / "stage-2.pth"
    path.write_bytes(gzip.decompress((FOLDER / f"{version}-learn-save.pth.gz").read_bytes()))
    imported = import_checkpoint(path, (96, 64), Preprocessing(classes=("Road", "car", "sky", "tree")))
    np.testing.assert_array_equal(class_map(imported, (96, 64)), expected(f"{version}-learn-save"))
    assert imported.description.classes == ("road", "car", "sky", "tree")
    assert imported.description.name == "stage-2"


@pytest.mark.parametrize(
    "form",
    ["lightning", "safetensors", "half", "old-torch-format", "mask-values", "names-of-2019", "module.", "model.",
     "_orig_mod.", "module._orig_mod.", "net."],
)  # fmt: skip
def test_reads_each_file_form(form: str, tmp_path: Path) -> None:
    state = weights(load(SMALL[2]))
    path = tmp_path / "unet.ckpt"
    if form == "lightning":
        extra = {"loss.weight": torch.ones(5), "mean": torch.zeros(1, 3, 1, 1)}
        prefixed = {f"model.{key}": tensor for key, tensor in state.items()} | extra
        torch.save({"epoch": 3, "state_dict": prefixed, "optimizer_states": [{"lr": 0.1}]}, path)
    elif form == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif form == "half":
        torch.save({k: t.half() if t.is_floating_point() else t for k, t in state.items()}, path)
    elif form == "old-torch-format":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    elif form == "mask-values":
        torch.save({**state, "mask_values": [[0, 0, 0], [255, 255, 255]]}, path)
    elif form.endswith("."):  # the prefix of a wrapped network
        torch.save({form + key: tensor for key, tensor in state.items()}, path)
    else:
        old = {
            key.replace("maxpool_conv.1.double_conv", "mpconv.1.conv")
            .replace("inc.double_conv", "inc.conv.conv")
            .replace("conv.double_conv", "conv.conv"): tensor
            for key, tensor in state.items()
        }
        torch.save(old, path)
    agreement = (class_map(import_checkpoint(path, (75, 101)), (75, 101)) == expected(SMALL[2])).mean()
    assert agreement >= (0.99 if form == "half" else 0.999)


def test_blur_and_normalization_options_replace_assumptions(tmp_path: Path) -> None:
    path = save("fastai2-narrow-batch-norm", tmp_path)
    plain = import_checkpoint(path, (128, 96))
    blurred = import_checkpoint(path, (128, 96), Preprocessing(blur=True))
    assert (class_map(plain, (128, 96)) != class_map(blurred, (128, 96))).mean() > 0.01
    assert any("blur" in sentence for sentence in plain.assumptions)
    assert not any("blur" in sentence for sentence in blurred.assumptions)
    shifted = import_checkpoint(path, (128, 96), Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))
    assert (shifted.mean, shifted.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert not any("normalization" in sentence for sentence in shifted.assumptions)


def test_normalization_on_the_255_scale_equals_that_on_the_unit_scale(tmp_path: Path) -> None:
    path = save(SMALL[2], tmp_path)
    small = import_checkpoint(path, (64, 64), Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.25, 0.25, 0.25)))
    large = import_checkpoint(path, (64, 64), Preprocessing(mean=(127.5, 102, 76.5), std=(63.75, 63.75, 63.75)))
    np.testing.assert_allclose(small.mean + small.std, large.mean + large.std)


def test_each_family_has_its_default_normalization(tmp_path: Path) -> None:
    means = {name: import_checkpoint(save(name, tmp_path), (64, 64)).mean for name in SMALL}
    assert means[SMALL[2]] == (0.0, 0.0, 0.0)
    assert {means[SMALL[0]], means[SMALL[1]], means[SMALL[3]]} == {(0.485, 0.456, 0.406)}


def test_single_score_becomes_two_classes(tmp_path: Path) -> None:
    imported = import_checkpoint(save("classic-12-transposed-binary", tmp_path), (128, 96))
    assert imported.description.classes == ("background", "foreground")
    assert set(np.unique(class_map(imported, (128, 96)))) == {0, 1}


@pytest.mark.parametrize("name", SMALL)
def test_scores_have_the_size_of_the_image(name: str, tmp_path: Path) -> None:
    module = import_checkpoint(save(name, tmp_path), (64, 64)).module
    for height, width in ((33, 65), (64, 32), (47, 50)):
        x = torch.from_numpy(image(height, width)).permute(2, 0, 1)[None] / 255
        assert module(x).shape[2:] == (height, width)


def test_note_names_used_network_and_command_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = weights(load(SMALL[2]))
    zeros = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    optimizer = {"state": {i: {"exp_avg": tensor} for i, tensor in enumerate(state.values())}}
    path = tmp_path / "both.pth"
    torch.save({"model": zeros, "ema": {"shadow": state, "decay": 0.999}, "optimizer": optimizer}, path)
    imported = import_checkpoint(path, (75, 101))
    assert set(np.unique(class_map(imported, (75, 101)))) == {0}
    (note,) = [sentence for sentence in imported.assumptions if "networks in the file" in sentence]
    used, _, command = note.partition("; to use another, save it to its own file: ")
    assert used == "'model' is used, of 2 networks in the file"
    monkeypatch.chdir(tmp_path)
    exec(command, {"torch": torch})
    other = import_checkpoint(tmp_path / "other.pth", (75, 101))
    assert (class_map(other, (75, 101)) == expected(SMALL[2])).mean() >= 0.999
    assert not any("networks in the file" in sentence for sentence in other.assumptions)
    torch.save({"model": state, "optimizer": optimizer, "best": {"miou": torch.tensor(0.5)}}, path)
    assert import_checkpoint(path, (75, 101)).assumptions == other.assumptions


@pytest.mark.parametrize("name", SMALL)
def test_note_lists_assumptions_that_weights_do_not_show(name: str, tmp_path: Path) -> None:
    assumptions = import_checkpoint(
        save(name, tmp_path), (64, 64), Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
    ).assumptions
    (note,) = [sentence for sentence in assumptions if sentence.startswith("a checkpoint contains only weights")]
    assert "with ReLU, max pooling" in note
    assert ("the encoder's features first" in note) == name.startswith("classic")
    assert "torch.onnx.export" in note
