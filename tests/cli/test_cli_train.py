"""From labeled pictures to a model that runs, by the commands alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest
from command import told_in_one_line
from typer.testing import CliRunner

from rtseg.cli.app import app
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.synthetic import SyntheticDrive

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.timeout(400), pytest.mark.torch]


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`rtseg ARGUMENTS` in this process: torch and its first export cost twenty seconds of CPU time in a new one."""
    result = CliRunner().invoke(app, list(map(str, arguments)))
    return subprocess.CompletedProcess(["rtseg"], result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # on pictures this small, threads cost more than they give


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures to train on and two to validate, as a plain folder pair with a class list."""
    root = tmp_path_factory.mktemp("data")
    drive = SyntheticDrive(96, 64, frames=60, seed=5)
    for split, numbers in (("train", (0, 10, 20, 30)), ("val", (40, 50))):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in numbers:
            rgb, labels = drive.frame(number)
            cv2.imwrite(str(root / "images" / split / f"{number:03d}.png"), rgb[:, :, ::-1])
            cv2.imwrite(str(root / "labels" / split / f"{number:03d}.png"), labels)
    (root / "classes.txt").write_text("\n".join(CAMVID_CLASSES))
    return root


def test_train_then_eval_then_image(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = run_here(
        "train", data, "--out", run, "--variant", "nano", "--epochs", 2, "--batch", 2, "--evaluations", 1
    )
    assert trained.returncode == 0, trained.stderr
    assert {"model.onnx", "model.safetensors", "log.csv", "curves.png", "last.pt"} <= {
        path.name for path in run.iterdir()
    }

    measured = run_here(
        "eval", data, "--model", run / "model.onnx", "--json", tmp_path / "val.json", "--worst", tmp_path / "worst.png"
    )
    assert measured.returncode == 0, measured.stderr
    told = json.loads((tmp_path / "val.json").read_text())
    assert 0 <= told["pixel_accuracy"] <= 1
    assert told["images"] == 2
    assert set(told["iou"]) <= set(CAMVID_CLASSES)
    assert "pixel accuracy" in measured.stdout
    assert (tmp_path / "worst.png").exists()

    rendered = run_here(
        "image", data / "images" / "val" / "040.png", "-o", tmp_path / "out.png", "--model", run / "model.onnx", "-q"
    )
    assert rendered.returncode == 0, rendered.stderr

    again = run_here("train", data, "--out", run, "--variant", "nano", "--epochs", 2)
    assert again.returncode == 1
    told_in_one_line(again, "--resume")


def test_wrong_data_is_told_before_training(data: Path, tmp_path: Path) -> None:
    missing = run_here("train", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert missing.returncode == 1
    told_in_one_line(missing, "nowhere")
    assert not (tmp_path / "run").exists()


def test_a_video_is_not_taken_for_labeled_pictures(tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").touch()
    result = run_here("eval", tmp_path / "drive.mp4")
    assert result.returncode == 1
    told_in_one_line(result, "--flicker")


def test_eval_reports_how_classes_were_matched_and_what_is_not_scored(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    other = {"pavement": "sidewalk", "pedestrian": "Person", "building": "wall"}
    (copy / "classes.txt").write_text("\n".join(other.get(name, name) for name in CAMVID_CLASSES))
    model = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
    result = run_here("eval", copy, "--model", model, "--json", tmp_path / "val.json")
    assert result.returncode == 0, result.stderr
    assert "'sidewalk' of the labels is 'pavement' of the model" in result.stderr
    assert "'person' of the labels is 'pedestrian' of the model" in result.stderr
    assert "not scored: the model has no such class" in result.stdout
    assert "of all pixels, counted nowhere" in result.stdout
    told = json.loads((tmp_path / "val.json").read_text())
    assert told["not_scored"]["wall"] == "the model has no such class"
    assert 0 < told["not_scored_share"] < 1
    assert told["miou_all_classes"] < told["miou"]


def test_flicker_of_a_folder(data: Path) -> None:
    model = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
    result = run_here("eval", data / "images" / "train", "--flicker", "--model", model, "--json", "-", "-q")
    told = json.loads(result.stdout)
    assert 0 <= told["flicker"] <= 1
    assert told["frames"] == 4
