"""Charts of an evaluation: the confusion matrix, and the worst images with ground truth and prediction."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import SinkError, printable_name
from rtseg.core.files import mark_image, write_whole
from rtseg.core.palette import Palette
from rtseg.models.evaluation.datasets import DataSet, read_pair
from rtseg.models.evaluation.evaluate import Evaluation, Predict, class_table

WHITE, BLACK, GRAY = (255, 255, 255), (20, 20, 20), (90, 90, 90)
FONT = cv2.FONT_HERSHEY_SIMPLEX

Canvas = npt.NDArray[np.uint8]
"""uint8 `[H, W, 3]`, RGB."""


def draw_confusion_matrix(evaluation: Evaluation, path: Path | str) -> None:
    """Draw the confusion matrix as a PNG. Each row is a true class, in percent of its pixels; darker is more.

    Raises:
        SinkError: the file can't be written.
    """
    names = [*evaluation.classes, "no class"]
    shares = evaluation.confusion / np.maximum(1, evaluation.confusion.sum(axis=1, keepdims=True))
    if not evaluation.confusion[:, -1].any():
        names, shares = names[:-1], shares[:, :-1]
    cell, left, top = 58, 150, 150
    rows, columns = shares.shape
    canvas = np.full((top + rows * cell + 40, left + columns * cell + 20, 3), 255, np.uint8)
    for column, name in enumerate(names):
        _text(canvas, name, (left + column * cell + cell // 2 + 5, top - 8), upright=True)
    for row in range(rows):
        _text(canvas, names[row], (10, top + row * cell + cell // 2 + 5))
        for column in range(columns):
            share = float(shares[row, column])
            x, y = left + column * cell, top + row * cell
            tone = np.array([20, 80, 160] if row == column else [190, 40, 30])
            tone = (255 * (1 - share) + tone * share).astype(int)
            cv2.rectangle(canvas, (x, y), (x + cell - 2, y + cell - 2), tone.tolist(), -1)
            if share >= 0.0005:
                _text(canvas, f"{share * 100:.1f}", (x + 8, y + cell // 2 + 5), WHITE if share > 0.5 else BLACK)
    title = f"rows: truth, columns: prediction, percent; accuracy {evaluation.pixel_accuracy:.4f}, mean IoU {evaluation.miou:.4f}"
    _text(canvas, title, (10, top + rows * cell + 26))
    _write(canvas, path)


def draw_worst_images(
    evaluation: Evaluation, predict: Predict, dataset: DataSet, palette: Palette, path: Path | str, count: int = 6
) -> None:
    """Draw the images with the lowest pixel accuracy: image, ground truth, prediction, and errors in red.

    Args:
        evaluation: result that determines the images.
        predict: the model, which is run again on these images.
        dataset: the data set of the evaluation.
        palette: the model's classes and their colors.
        path: the file to write, PNG or JPEG.
        count: maximum number of images.

    Raises:
        SinkError: the file can't be written.
    """
    to_dataset = class_table(palette.classes, dataset.classes)
    model_names = {theirs: mine for mine, theirs, _ in evaluation.match.pairs}
    colors = tuple(_color_of(model_names.get(name, name), palette) for name in dataset.classes)
    dataset_palette = Palette(dataset.classes, colors)
    scored = np.isin(np.arange(256), [dataset.classes.index(name) for name in model_names])
    table = np.full((256, 3), GRAY, np.uint8)
    table[: len(dataset.classes)] = dataset_palette.table()
    accuracies = dict(evaluation.accuracies)
    rows = []
    for pair in evaluation.worst(count):
        rgb, label = read_pair(pair, dataset.table)
        truth, predicted = label.classes, to_dataset[predict(rgb)]
        wrong = (predicted != truth) & scored[truth]
        errors = rgb // 2 + 64
        errors[wrong] = (255, 30, 30)
        row = np.hstack([rgb, _blend(rgb, table[truth]), _blend(rgb, table[predicted]), errors])
        size = (1600, round(row.shape[0] * 1600 / row.shape[1]))
        row = np.asarray(cv2.resize(row, size, interpolation=cv2.INTER_AREA))
        strip = np.full((24, 1600, 3), 255, np.uint8)
        accuracy = f"{printable_name(pair.image.name)}: pixel accuracy {accuracies[pair]:.3f}"
        _text(strip, f"{accuracy}   (image, truth, prediction, errors)", (8, 17))
        rows += [strip, row]
    _write(np.vstack([*rows, _legend(dataset_palette)]), path)


def _color_of(name: str, palette: Palette) -> tuple[int, int, int]:
    return palette.colors[palette.classes.index(name)] if name in palette.classes else GRAY


def _blend(rgb: Canvas, colors: Canvas) -> Canvas:
    return np.asarray(cv2.addWeighted(rgb, 0.35, colors, 0.65, 0.0))


def _legend(palette: Palette) -> Canvas:
    strip = np.full((28, 1600, 3), 255, np.uint8)
    x = 8
    for name, color in zip(palette.classes, palette.colors, strict=True):
        cv2.rectangle(strip, (x, 7), (x + 14, 21), color, -1)
        _text(strip, name, (x + 20, 19))
        x += 40 + 9 * len(name)
    return strip


def _text(
    canvas: Canvas, text: str, at: tuple[int, int], color: tuple[int, int, int] = BLACK, *, upright: bool = False
) -> None:
    if not upright:
        cv2.putText(canvas, text, at, FONT, 0.45, color, 1, cv2.LINE_AA)
        return
    strip = np.full((16, 140, 3), 255, np.uint8)
    cv2.putText(strip, text, (0, 12), FONT, 0.45, color, 1, cv2.LINE_AA)
    rotated = np.rot90(strip)
    x, y = at[0] - 12, at[1] - rotated.shape[0]
    canvas[y : at[1], x : x + rotated.shape[1]] = rotated


def _write(canvas: Canvas, path: Path | str) -> None:
    path = Path(path)
    encoded, data = cv2.imencode(path.suffix or ".png", canvas[:, :, ::-1])
    if not encoded:
        raise SinkError(f"{path}: can't be written: OpenCV can't encode this kind of image")
    if not path.parent.is_dir():
        raise SinkError(f"{path}: can't be written: no such folder: {path.parent}")
    write_whole(path, mark_image(data.tobytes()))
