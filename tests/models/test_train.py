"""Training on a few synthetic frames, resuming a killed run, and fine-tuning the weights of another model."""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from class_maps import onnx_class_maps  # noqa: E402

from rtseg.core.errors import DataError, ModelError, OptionError  # noqa: E402
from rtseg.core.model_info import ModelInfo  # noqa: E402
from rtseg.models.training import train as training  # noqa: E402
from rtseg.models.training.optimizer import Muon, orthogonalize  # noqa: E402
from rtseg.models.training.options import TrainOptions  # noqa: E402
from rtseg.models.training.step import schedule  # noqa: E402
from rtseg.models.training.train import TrainResult, train  # noqa: E402
from rtseg.nn.checkpoint import load_checkpoint, load_weights, save_weights  # noqa: E402
from rtseg.nn.image_to_scores import ImageToScores  # noqa: E402
from rtseg.nn.unet import UNet  # noqa: E402
from rtseg.synthetic import SyntheticDrive  # noqa: E402

pytestmark = pytest.mark.torch

SIZE = (192, 128)
CLASSES = ("sky", "building", "ground", "other")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # more threads are slower on images this small


def write_scenes(root: Path, size: tuple[int, int], count: int) -> Path:
    """Write frames of a synthetic scene with four classes that are distinct in small images; `val` equals `train`."""
    root.mkdir()
    (root / "classes.txt").write_text("\n".join(CLASSES))
    class_table = np.full(256, 3, np.uint8)
    class_table[[0, 1, 3, 4]] = 0, 1, 2, 2
    scene = SyntheticDrive(384, 256, frames=40, seed=2)
    for number in range(count):
        rgb, classes = scene.frame(number * 10)
        for split in ("train", "val"):
            for kind, image in (("images", rgb[:, :, ::-1]), ("labels", class_table[classes])):
                folder = root / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                interpolation = cv2.INTER_AREA if kind == "images" else cv2.INTER_NEAREST_EXACT
                cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(image, size, interpolation=interpolation))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", SIZE, 2)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rtseg.models.training.data.SCALE", (0.95, 1.4))  # small scales need longer training
        return train(
            data, out, TrainOptions("nano", epochs=200, batch=2, lr=2e-2, evaluations=4, class_weighting=0.0, precision="fp32")
        )  # fmt: skip


def test_learns_two_frames(trained: TrainResult) -> None:
    assert trained.metrics["pixel_accuracy"] > 0.945
    assert trained.metrics["miou"] > 0.88
    assert trained.steps == 200


def test_exported_model_agrees_with_network(trained: TrainResult, data: Path) -> None:
    pytest.importorskip("onnxruntime")
    model, description = load_weights(trained.weights)
    assert description.classes == CLASSES
    assert description.input_size == SIZE
    assert description.name == "scenes-nano"
    right = same = 0.0
    for number in range(2):
        rgb = np.asarray(cv2.imread(str(data / f"images/val/{number}.png")))[None, :, :, ::-1].copy()
        truth = cv2.imread(str(data / f"labels/val/{number}.png"), cv2.IMREAD_UNCHANGED)
        classes = onnx_class_maps(trained.onnx, rgb)
        with torch.inference_mode():
            same += float((ImageToScores(model).classes(torch.from_numpy(rgb)).numpy() == classes).mean()) / 2
        right += float((classes[0] == truth).mean()) / 2
    assert same > 0.999
    assert right == pytest.approx(trained.metrics["pixel_accuracy"], abs=0.002)


def test_writes_log_and_curves(trained: TrainResult) -> None:
    with trained.log.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["step"])) for row in rows] == [50, 100, 150, 200]
    assert max(float(row["miou"]) for row in rows) == pytest.approx(trained.metrics["miou"], abs=1e-4)
    curves = cv2.imread(str(trained.curves))
    assert curves is not None
    assert np.asarray(curves).std() > 10
    assert not list(trained.log.parent.glob("*.partial*"))


def test_resumes_run_killed_within_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed with SIGKILL and resumed ends with the same weights as an uninterrupted run."""
    options = "variant='nano', epochs=8, batch=2, evaluations=2, precision='fp32'"
    script = f"""
import sys, torch
from rtseg.models.training import train as t
torch.set_num_threads(1)
t.SAVE_SECONDS = 0.0
t.export_onnx = lambda *a: None
def report(line): print(line, flush=True)
options = t.TrainOptions({options})
t.train(sys.argv[1], sys.argv[2], options, resume=sys.argv[3] == "resume", log=report)
"""
    data = write_scenes(tmp_path / "scenes", (64, 64), 4)
    command = [sys.executable, "-c", script, str(data)]
    monkeypatch.setattr(training, "export_onnx", lambda *arguments: None)
    train(data, tmp_path / "uninterrupted", TrainOptions("nano", epochs=8, batch=2, evaluations=2, precision="fp32"))
    with subprocess.Popen([*command, str(tmp_path / "killed"), "new"], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        deadline = time.monotonic() + 150
        for line in run.stdout:
            if "step 5:" in line or time.monotonic() > deadline:  # of 16, two an epoch
                os.kill(run.pid, signal.SIGKILL)
                break
    killed_at = load_checkpoint(tmp_path / "killed/last.pt")["step"]
    assert 5 <= killed_at < 16
    script_resume = script.replace("epochs=8, ", "")  # the checkpoint contains the number of epochs
    subprocess.run(
        [sys.executable, "-c", script_resume, str(data), str(tmp_path / "killed"), "resume"],
        check=True, timeout=150, capture_output=True,
    )  # fmt: skip
    uninterrupted, killed = (load_checkpoint(tmp_path / name / "last.pt") for name in ("uninterrupted", "killed"))
    assert uninterrupted["step"] == killed["step"] == 16
    assert [row["step"] for row in uninterrupted["log"]] == [row["step"] for row in killed["log"]] == [8, 16]
    for name, tensor in uninterrupted["ema"].items():
        torch.testing.assert_close(killed["ema"][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_minutes_limit_duration_of_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock advances by a second at each call, so that the load of the machine has no effect."""
    ticks = itertools.count()
    monkeypatch.setattr(training, "export_onnx", lambda *arguments: None)
    monkeypatch.setattr(training, "estimate_validation_seconds", lambda *arguments: 10.0)
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))
    options = TrainOptions("nano", minutes=1, batch=2, evaluations=1, precision="fp32")
    result = train(data, tmp_path / "run", options)
    saved = load_checkpoint(tmp_path / "run/last.pt")
    assert 44.0 <= saved["elapsed"] <= 49.0  # of 60: the last evaluation takes ten, the export six
    assert 20 < result.steps == saved["step"] < 50
    assert load_weights(result.weights)[1].metrics["val/miou"] == result.metrics["miou"]


def test_fine_tuning_with_other_classes_reinitializes_only_heads(tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = UNet(9, "nano")
    names = tuple(f"c{i}" for i in range(9))
    file = tmp_path / "other.safetensors"
    description = ModelInfo(name="other", classes=names, input_size=SIZE, network="unet-nano", precision="fp32")
    save_weights(other, description, file)
    messages: list[str] = []

    start = training._initial_network(CLASSES, TrainOptions(None, file), messages.append)
    assert messages == [
        "starting from other with new last layers: its 9 classes are not these 4, and classes are not matched by name"
    ]
    assert start.variant == "nano"
    assert start.head.out_channels == 4
    assert torch.equal(start.encoder[1].down[0].weight, other.encoder[1].down[0].weight)
    same = training._initial_network(names, TrainOptions("nano", file), messages.append)
    assert torch.equal(same.head.weight, other.head.weight)
    assert messages[1] == "starting from other with all weights: it has the same 9 classes"
    reordered = training._initial_network(names[::-1], TrainOptions("nano", file), messages.append)
    assert not any(torch.equal(one, two) for one, two in zip(reordered.head.weight, other.head.weight, strict=True))
    assert "its 9 classes are in another order, and classes are not matched by name" in messages[2]
    with pytest.raises(OptionError, match="is a unet-nano"):
        training._initial_network(CLASSES, TrainOptions("small", file), messages.append)


def test_fine_tuning_starts_with_accuracy_of_source(
    trained: TrainResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "export_onnx", lambda *arguments: None)
    options = TrainOptions(from_=trained.weights, epochs=2, batch=2, lr=1e-4, evaluations=1, precision="fp32")
    result = train(data, tmp_path / "tuned", options)
    assert result.metrics["pixel_accuracy"] > trained.metrics["pixel_accuracy"] - 0.02


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    """A copy of the data set, to be changed."""
    return Path(shutil.copytree(data, tmp_path / "copy"))


def test_refuses_bad_labels_before_training(copy: Path, tmp_path: Path) -> None:
    label = copy / "labels/val/1.png"
    cv2.imwrite(str(label), np.full((SIZE[1], SIZE[0]), 77, np.uint8))
    with pytest.raises(DataError, match=r"labels/val/1\.png: label value 77"):
        train(copy, tmp_path / "run", TrainOptions(epochs=1))
    (copy / "classes.txt").write_text("other\nsky\n")
    for label in (copy / "labels").glob("*/*.png"):  # masks of 0 and 255
        mask = np.asarray(cv2.imread(str(label), cv2.IMREAD_UNCHANGED)) == 0
        cv2.imwrite(str(label), mask.astype(np.uint8) * 255)
    with pytest.raises(DataError, match="'255 sky'"):
        train(copy, tmp_path / "run", TrainOptions(epochs=1))
    assert not (tmp_path / "run").exists()


def test_reports_labels_before_training(copy: Path, tmp_path: Path) -> None:
    (copy / "classes.txt").write_text("\n".join([*CLASSES, "animal"]))
    lines: list[str] = []
    with pytest.raises(OptionError, match="no network 'giant'"):  # this check follows the report
        train(copy, tmp_path / "run", TrainOptions("giant"), log=lines.append)
    assert "sky" in lines[1]
    assert lines[2:] == [
        "warning: train: no label has 'animal'; they can't be learned",
        "warning: val: no label has 'animal'; they don't count in the mean IoU",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1, "minutes": 1}, "either --epochs or --minutes"),
        ({"minutes": -1}, "--minutes is -1"),
        ({"batch": 0}, "--batch is 0"),
        ({"metric": "dice"}, "no metric 'dice'; there are miou"),
        ({"synthetic": 0.5}, "CamVid's classes"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"variant": "giant"}, "no network 'giant'; there are nano, small, medium"),
    ],
)  # fmt: skip
def test_training_refuses_invalid_options(data: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        train(data, tmp_path / "run", TrainOptions(**options))  # type: ignore[arg-type]


def test_refuses_minutes_too_short_for_training(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "estimate_validation_seconds", lambda *arguments: 90.0)
    with pytest.raises(OptionError, match=r"--minutes 1 is too short: reading and evaluation take 1\.5"):
        train(data, tmp_path / "run", TrainOptions("nano", minutes=1, precision="fp32"))


def test_resume_requires_matching_checkpoint(trained: TrainResult, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such checkpoint"):
        train(data, tmp_path / "none", resume=True)
    with pytest.raises(OptionError, match="--resume"):
        train(data, trained.weights.parent)
    with pytest.raises(OptionError, match="network is unet-nano, not unet-small"):
        train(data, trained.weights.parent, TrainOptions("small"), resume=True)


def test_schedule_warms_up_and_ends_at_zero() -> None:
    assert schedule(0.0, 0) < 0.01
    assert schedule(0.01, 100) == pytest.approx(0.5, abs=0.02)
    # The warm-up of a short run is a twentieth of its duration.
    assert schedule(0.06, 3) == pytest.approx(0.94, abs=0.02)
    assert schedule(0.5, 9999) == pytest.approx(0.5**0.9)
    assert schedule(1.0, 9999) == 0.0


def test_muon_updates_have_equal_singular_values() -> None:
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(0, -2, 60))
    for m in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonalize(m))
        assert float(values.min()) > 0.5
        assert float(values.max()) < 1.3
    weight = torch.nn.Parameter(torch.zeros(24, 5, 3, 4))
    weight.grad = matrix.view(24, 5, 3, 4).clone()
    Muon([weight], lr=0.1).step()
    assert float((weight.detach() * matrix.view(24, 5, 3, 4)).sum()) < 0  # downhill
    rms = float(weight.detach().square().mean().sqrt())
    assert rms == pytest.approx(0.1 * 0.2, rel=0.25)  # the usual RMS of AdamW updates


def test_training_imports_neither_av_nor_openvino() -> None:
    code = (
        "import sys, rtseg.models.training.train, rtseg.models.evaluation.evaluate\n"
        "print([m for m in ('av', 'openvino') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=150, check=True)
    assert done.stdout.strip() == "[]"
