"""Training, evaluation and use of a model by commands only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest
from command import MODEL, assert_one_error_line, invoke

from rtseg.core.palette import CAMVID_CLASSES
from rtseg.synthetic import SyntheticDrive

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.timeout(400), pytest.mark.torch]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # more threads are slower on images this small


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set in the layout `folders`: four images in `train`, two in `val`."""
    root = tmp_path_factory.mktemp("data")
    scene = SyntheticDrive(96, 64, frames=60, seed=5)
    for split, numbers in (("train", (0, 10, 20, 30)), ("val", (40, 50))):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in numbers:
            rgb, labels = scene.frame(number)
            cv2.imwrite(str(root / "images" / split / f"{number:03d}.png"), rgb[:, :, ::-1])
            cv2.imwrite(str(root / "labels" / split / f"{number:03d}.png"), labels)
    (root / "classes.txt").write_text("\n".join(CAMVID_CLASSES))
    return root


def test_trained_model_runs_in_eval_and_image(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    trained = invoke("train", data, "--out", run, "--variant", "nano", "--epochs", 2, "--batch", 2, "--evaluations", 1)
    assert trained.exit_code == 0, trained.stderr
    assert {"model.onnx", "model.safetensors", "log.csv", "curves.png", "last.pt"} <= {
        path.name for path in run.iterdir()
    }

    measured = invoke(
        "eval", data, "--model", run / "model.onnx", "--json", tmp_path / "val.json", "--worst", tmp_path / "worst.png"
    )
    assert measured.exit_code == 0, measured.stderr
    report = json.loads((tmp_path / "val.json").read_text())
    assert 0 <= report["pixel_accuracy"] <= 1
    assert report["images"] == 2
    assert set(report["iou"]) <= set(CAMVID_CLASSES)
    assert "pixel accuracy" in measured.stdout
    assert (tmp_path / "worst.png").exists()

    rendered = invoke(
        "image", data / "images" / "val" / "040.png", "-o", tmp_path / "out.png", "--model", run / "model.onnx", "-q"
    )
    assert rendered.exit_code == 0, rendered.stderr

    again = invoke("train", data, "--out", run, "--variant", "nano", "--epochs", 2)
    assert again.exit_code == 1
    assert_one_error_line(again, "--resume")


def test_missing_data_is_reported_before_training(data: Path, tmp_path: Path) -> None:
    missing = invoke("train", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert missing.exit_code == 1
    assert_one_error_line(missing, "nowhere")
    assert not (tmp_path / "run").exists()


def test_eval_of_a_video_suggests_flicker(tmp_path: Path) -> None:
    (tmp_path / "drive.mp4").touch()
    result = invoke("eval", tmp_path / "drive.mp4")
    assert result.exit_code == 1
    assert_one_error_line(result, "--flicker")


def test_eval_reports_class_matches_and_unscored_classes(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    other = {"pavement": "sidewalk", "pedestrian": "Person", "building": "wall"}
    (copy / "classes.txt").write_text("\n".join(other.get(name, name) for name in CAMVID_CLASSES))
    result = invoke("eval", copy, "--model", MODEL, "--json", tmp_path / "val.json")
    assert result.exit_code == 0, result.stderr
    assert "'sidewalk' of the labels is 'pavement' of the model" in result.stderr
    assert "'person' of the labels is 'pedestrian' of the model" in result.stderr
    assert "not scored: the model has no such class" in result.stdout
    assert "of all pixels, not counted" in result.stdout
    report = json.loads((tmp_path / "val.json").read_text())
    assert report["not_scored"]["wall"] == "the model has no such class"
    assert 0 < report["not_scored_share"] < 1
    assert report["miou_all_classes"] < report["miou"]


def test_eval_measures_flicker_of_a_folder(data: Path) -> None:
    result = invoke("eval", data / "images" / "train", "--flicker", "--model", MODEL, "--json", "-", "-q")
    report = json.loads(result.stdout)
    assert 0 <= report["flicker"] <= 1
    assert report["frames"] == 4
