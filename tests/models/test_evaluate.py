"""Evaluation compared with manually computed metrics, its report images, and flicker."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock, call

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from command import rtseg

from rtseg.core.errors import DataError, SinkError
from rtseg.core.palette import Palette
from rtseg.core.progress import NoProgress
from rtseg.models.evaluation.datasets import DataSet
from rtseg.models.evaluation.evaluate import class_table, evaluate, flicker
from rtseg.models.evaluation.layouts import open_dataset
from rtseg.models.evaluation.report_images import draw_confusion_matrix, draw_worst_images

Array = npt.NDArray[np.uint8]


@pytest.fixture
def dataset(tmp_path: Path) -> DataSet:
    """Two images of 10x10: road left, car right, lowest row Void. Image 0 is black, image 1 has a gray level of 50."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "classes.txt").write_text("road\ncar\ntree\n")
    for number in range(2):
        label = np.zeros((10, 10), np.uint8)
        label[:, 6:] = 1
        label[9] = 255
        for kind, image in (("images", np.full((10, 10, 3), 50 * number, np.uint8)), ("labels", label)):
            for split in ("train", "val"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / kind / split / f"{number}.png"), image)
    return open_dataset(root)


def predict_car_only_in_first_image(rgb: Array) -> Array:
    """Return the true classes of image 0, and road for all pixels of image 1."""
    classes = np.zeros(rgb.shape[:2], np.uint8)
    if rgb[0, 0, 0] == 0:
        classes[:, 6:] = 1
    return classes


def test_metrics_equal_manual_computation(dataset: DataSet) -> None:
    evaluation = evaluate(predict_car_only_in_first_image, dataset)
    # 90 pixels per image count: 54 road, 36 car. Image 0 is right; in image 1 the 36 car pixels are wrong.
    assert evaluation.pixel_accuracy == pytest.approx(144 / 180)
    assert evaluation.iou == {"road": pytest.approx(108 / 144), "car": pytest.approx(36 / 72)}  # no label has tree
    assert evaluation.miou == pytest.approx((108 / 144 + 36 / 72) / 2)
    assert evaluation.confusion[:2, :2].tolist() == [[108, 0], [36, 36]]
    assert [pair.image.name for pair in evaluation.worst(1)] == ["1.png"]
    report = json.loads(json.dumps(evaluation.to_dict()))
    assert report["pixel_accuracy"] == 0.8
    assert report["miou"] == 0.625
    assert report["iou"] == {"road": 0.75, "car": 0.5}
    assert report["images"] == 2


def test_matches_classes_by_name(dataset: DataSet) -> None:
    def swapped(rgb: Array) -> Array:
        return 1 - predict_car_only_in_first_image(rgb)

    assert evaluate(swapped, dataset, classes=["car", "Road"]).pixel_accuracy == pytest.approx(144 / 180)
    # A model without `car`: its pixels are not scored, and the class is listed.
    evaluation = evaluate(predict_car_only_in_first_image, dataset, classes=["road", "lorry"])
    assert evaluation.pixel_accuracy == 1.0
    assert evaluation.confusion[1].tolist() == [0, 0, 0, 0]
    assert evaluation.not_scored == {"car": "the model has no such class", "tree": "occurs in no label"}
    assert evaluation.miou == 1.0
    assert evaluation.miou_all_classes == 0.5
    report = evaluation.to_dict()
    assert report["model_only"] == ["lorry"]
    assert report["not_scored_share"] == pytest.approx(72 / 180)
    assert report["void_share"] == pytest.approx(0.1)
    with pytest.raises(DataError, match="no name in common"):
        class_table(["lorry"], ["road", "car"])


def test_matches_and_reports_synonyms(dataset: DataSet) -> None:
    (dataset.root / "classes.txt").write_text("sidewalk\nPersons\nvegetation\n")
    evaluation = evaluate(
        predict_car_only_in_first_image, open_dataset(dataset.root), classes=["pavement", "pedestrian", "tree"]
    )
    assert evaluation.iou == {"sidewalk": pytest.approx(108 / 144), "persons": pytest.approx(36 / 72)}
    assert evaluation.to_dict()["class_matches"] == [
        {"model": "pavement", "data": "sidewalk", "how": "synonym"},
        {"model": "pedestrian", "data": "persons", "how": "synonym"},
        {"model": "tree", "data": "vegetation", "how": "similar"},
    ]


def test_class_without_labels_is_not_in_mean(dataset: DataSet) -> None:
    tree_where_car = np.repeat(np.array([[0, 2]], np.uint8), [6, 4], axis=1).repeat(10, axis=0)
    evaluation = evaluate(lambda rgb: tree_where_car, dataset)
    assert evaluation.iou == {"road": 1.0, "car": 0.0}  # the error counts for car; no label has `tree`
    assert evaluation.miou == 0.5
    assert evaluation.warnings[0].startswith("val: no label has 'tree'; they don't count in the mean IoU")


def test_limits_images_and_reports_progress(dataset: DataSet) -> None:
    progress = Mock(NoProgress)
    evaluation = evaluate(predict_car_only_in_first_image, dataset, limit=1, progress=progress)
    assert evaluation.pixel_accuracy == 1.0
    assert progress.mock_calls == [call.start("evaluating", 1), call.advance(), call.stop()]


def test_reports_single_void_pixel(tmp_path: Path) -> None:
    label = np.zeros((64, 64), np.uint8)
    label[:, 32:], label[0, 0] = 1, 255
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    for kind, image in (("images", np.full((64, 64, 3), 90, np.uint8)), ("labels", label)):
        (tmp_path / kind / "val").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / kind / "val" / "0.png"), image)
    done = rtseg("eval", tmp_path, "--model", "nano")
    assert done.returncode == 0, done.stderr
    assert "Void           <0.1% of all pixels" in done.stdout


def test_evaluation_names_bad_files(dataset: DataSet) -> None:
    cv2.imwrite(str(dataset.root / "labels/val/0.png"), np.full((10, 10), 9, np.uint8))
    (dataset.root / "images/val/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 problems.*0\.png: label value 9.*1\.png"):
        evaluate(predict_car_only_in_first_image, dataset)


def test_refuses_class_map_of_other_size(dataset: DataSet) -> None:
    with pytest.raises(DataError, match=r"class map is \(5, 5\), the labels are \(10, 10\)"):
        evaluate(lambda rgb: np.zeros((5, 5), np.uint8), dataset)


def test_draws_confusion_matrix_and_worst_images(dataset: DataSet, tmp_path: Path) -> None:
    evaluation = evaluate(predict_car_only_in_first_image, dataset)
    draw_confusion_matrix(evaluation, tmp_path / "confusion.png")
    palette = Palette(("road", "car", "tree"), ((110, 60, 170), (20, 70, 255), (40, 150, 40)))
    draw_worst_images(evaluation, predict_car_only_in_first_image, dataset, palette, tmp_path / "worst.png", count=1)
    matrix, sheet = (np.asarray(cv2.imread(str(tmp_path / name))) for name in ("confusion.png", "worst.png"))
    # Columns: image (gray 50), truth (road left, car right), prediction (all road), errors (red at the car).
    row = sheet[24 + 100, :, ::-1].astype(int)
    assert np.abs(row[150] - 50).max() <= 2
    road, car = row[400 + 50], row[400 + 350]
    assert np.abs(row[800 + 350] - road).max() <= 2
    assert np.abs(road - car).max() > 50
    assert row[1200 + 350][0] > 240 > row[1200 + 50][0]
    # Red next to the diagonal: half of the car pixels were predicted as road.
    left, top, cell = 150, 150, 58
    off, empty = matrix[top + cell + 5, left + 5, ::-1].astype(int), matrix[top + 5, left + cell + 5]
    assert off[0] > off[2] + 30
    assert (empty == 255).all()
    assert not list(tmp_path.glob("*.partial*"))
    with pytest.raises(SinkError, match="nowhere"):
        draw_confusion_matrix(evaluation, tmp_path / "nowhere" / "a.png")


def still_frames(count: int = 3) -> list[Array]:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (80, 60), interpolation=cv2.INTER_LINEAR)
    noise = rng.integers(-3, 4, (count, *image.shape))
    return list(np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8))


def test_flicker_counts_changes_in_still_regions() -> None:
    classes = np.zeros((60, 80), np.uint8)
    changed = classes.copy()
    changed[:, :20] = 1
    assert flicker((frame, classes) for frame in still_frames()).flicker == 0.0
    measured = flicker(zip(still_frames(), (classes, changed, classes), strict=True))
    assert measured.flicker == pytest.approx(0.25, abs=0.01)
    assert measured.still > 0.99
    assert measured.frames == 3
    with pytest.raises(DataError, match="at least two frames"):
        flicker([(still_frames()[0], classes)])


def test_flicker_ignores_motion() -> None:
    first = np.full((60, 80, 3), 100, np.uint8)
    second = first.copy()
    second[:, :40] = 200  # a bright object enters, and the class changes with it
    classes = np.zeros((60, 80), np.uint8)
    changed = classes.copy()
    changed[:, :40] = 1
    measured = flicker([(first, classes), (second, changed)])
    assert measured.flicker == 0.0
    assert 0.4 < measured.still < 0.5


@pytest.mark.proof
@pytest.mark.parametrize(("name", "accuracy", "miou"), [("small", 0.9333, 0.70), ("nano", 0.92, 0.0)])
def test_bundled_models_on_camvid(camvid: Path, name: str, accuracy: float, miou: float) -> None:
    """The accuracy is above the notebook's 0.9333, and equal in OpenVINO, torch in FP32 and ONNX Runtime in FP16."""
    pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    from class_maps import onnx_class_maps

    from rtseg.inference.bundled_models import ASSETS
    from rtseg.inference.segmenter import Segmenter
    from rtseg.nn.checkpoint import load_weights
    from rtseg.nn.image_to_scores import ImageToScores, fold_batch_norm

    val = open_dataset(camvid)
    with Segmenter(name, backend="openvino") as segmenter:
        measured = [evaluate(segmenter, val, classes=segmenter.classes)]
    exported = (ASSETS / f"camvid-{name}.onnx").read_bytes()
    measured.append(evaluate(lambda rgb: onnx_class_maps(exported, rgb[None])[0], val))
    module = ImageToScores(fold_batch_norm(load_weights(ASSETS / f"camvid-{name}.safetensors")[0]))
    with torch.inference_mode():
        measured.append(evaluate(lambda rgb: module.classes(torch.from_numpy(rgb[None]))[0].numpy(), val))
    assert all(evaluation.pixel_accuracy >= accuracy for evaluation in measured)
    assert all(evaluation.miou >= miou for evaluation in measured)
    accuracies = [evaluation.pixel_accuracy for evaluation in measured]
    assert max(accuracies) - min(accuracies) < 0.001
