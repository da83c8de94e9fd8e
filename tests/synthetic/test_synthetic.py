"""Tests of the synthetic video: deterministic, pixel-accurate class maps, smooth motion."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from rtseg.core.errors import OptionError
from rtseg.core.palette import CAMVID_CLASSES
from rtseg.synthetic import SyntheticDrive

Frame = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def same(first: Frame, second: Frame) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def agreement(first: Frame, second: Frame) -> float:
    return float((first[1] == second[1]).mean())


@pytest.fixture(scope="module")
def drive() -> SyntheticDrive:
    return SyntheticDrive(320, 240, frames=120, seed=0)


def test_same_seed_gives_identical_frames_in_any_access_order() -> None:
    forwards, backwards = (SyntheticDrive(240, 135, frames=90, seed=5) for _ in range(2))
    order = [0, 1, 44, 89]
    frames = {index: forwards.frame(index) for index in order}
    for index in reversed(order):
        assert same(backwards.frame(index), frames[index])
    rgb, labels = forwards.frame(1)
    assert same((rgb, labels), frames[1])
    rgb[:], labels[:] = 0, 0
    assert same(forwards.frame(1), frames[1]), "each frame is a new array"


def test_another_seed_gives_another_street() -> None:
    first, second = (SyntheticDrive(240, 135, seed=seed).frame(0) for seed in (1, 2))
    assert agreement(first, second) < 0.95
    assert np.abs(first[0].astype(int) - second[0]).mean() > 10


def test_another_size_gives_the_same_street() -> None:
    small, large = (SyntheticDrive(width, height, seed=4).frame(10)[1] for width, height in ((240, 135), (480, 270)))
    assert (cv2.resize(large, (240, 135), interpolation=cv2.INTER_NEAREST) == small).mean() > 0.93


@pytest.mark.parametrize("size", [(32, 32), (321, 181), (33, 400), (400, 33), (97, 64)])
def test_every_size_gives_an_image_and_a_complete_class_map(size: tuple[int, int]) -> None:
    width, height = size
    rgb, labels = SyntheticDrive(width, height, frames=2).frame(1)
    assert (rgb.shape, rgb.dtype) == ((height, width, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((height, width), np.uint8)
    assert rgb.flags.c_contiguous
    assert labels.flags.c_contiguous
    assert labels.max() < len(CAMVID_CLASSES)


def test_iteration_yields_all_frames() -> None:
    drive = SyntheticDrive(64, 48, frames=4, seed=9)
    frames = list(drive)
    assert len(frames) == len(drive) == 4
    assert all(same(frame, drive.frame(index)) for index, frame in enumerate(frames))
    for index in (-1, 4):
        with pytest.raises(IndexError):
            drive.frame(index)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_occurs_in_a_short_video(seed: int) -> None:
    drive = SyntheticDrive(240, 180, frames=90, seed=seed)
    labels = np.stack([drive.frame(index)[1] for index in range(0, 90, 15)])
    shares = dict(zip(CAMVID_CLASSES, np.bincount(labels.ravel(), minlength=11) / labels.size, strict=True))
    assert SyntheticDrive.classes == CAMVID_CLASSES
    assert shares["road"] > 0.35
    assert min(shares.values()) > 0.0005, shares


def test_layout_resembles_a_dashboard_camera(drive: SyntheticDrive) -> None:
    labels = np.stack([drive.frame(index)[1] for index in range(0, 120, 30)])
    names = np.array(CAMVID_CLASSES)
    assert (names[labels[:, -14:, 106:214]] == "road").mean() > 0.95
    assert (names[labels[:, :20, 134:186]] == "sky").mean() > 0.9
    outer = names[np.concatenate([labels[:, 54:106, :54], labels[:, 54:106, -54:]], axis=2)]
    assert np.isin(outer, ["building", "tree", "pole", "sign"]).mean() > 0.8


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_class_borders_are_edges_in_the_image(seed: int) -> None:
    """The difference of pixels two columns apart is far larger across a class border than inside a class.

    It has its maximum at the border and not next to it.
    """
    rgb, labels = SyntheticDrive(960, 540, seed=seed).frame(40)
    step = np.abs(rgb[:, 2:].astype(int) - rgb[:, :-2]).sum(axis=2)
    border = labels[:, 2:] != labels[:, :-2]
    assert step[border].mean() > 4 * step[~border].mean()
    inner, shifted = step[:, 8:-8], (np.roll(border, shift, axis=1)[:, 8:-8] for shift in range(-3, 4))
    strength = [float(inner[there].mean()) for there in shifted]
    assert int(np.argmax(strength)) == 3, strength
    # the blur is symmetric
    assert strength[2] == pytest.approx(strength[4], rel=0.15)


def test_sky_class_covers_only_sky_colors() -> None:
    """Inside its border, the sky contains no house, tree or lamp: its colors change slowly from row to row."""
    rgb, labels = SyntheticDrive(480, 360, seed=2).frame(20)
    inside = cv2.erode((labels == 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    both = inside[1:] & inside[:-1]
    steps = np.abs(rgb[1:].astype(int) - rgb[:-1]).max(axis=2)[both]
    assert both.sum() > 5000
    assert np.percentile(steps, 99.9) < 20


def test_motion_is_smooth_and_visible(drive: SyntheticDrive) -> None:
    frames = [drive.frame(index) for index in range(45)]
    adjacent = [agreement(frames[i], frames[i + 1]) for i in range(44)]
    distant = [agreement(frames[i], frames[i + 30]) for i in range(0, 15, 2)]
    assert min(adjacent) > 0.85
    assert max(distant) < 0.9
    assert np.mean(distant) < np.mean(adjacent) - 0.1
    images = [cv2.resize(rgb, (120, 90), interpolation=cv2.INTER_AREA).astype(int) for rgb, _ in frames[:4]]
    one, _, three = (np.abs(images[0] - image).mean() for image in images[1:])
    assert one < three


def test_frame_rate_determines_the_speed() -> None:
    slow, fast = (SyntheticDrive(240, 135, frames=61, fps=fps) for fps in (30, Fraction(60000, 1001)))
    assert (fast.frame(60)[1] == slow.frame(30)[1]).mean() > 0.98
    assert (fast.frame(60)[1] == slow.frame(60)[1]).mean() < 0.95


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"width": 31, "height": 100}, "31x100"),
        ({"width": 100, "height": 5}, "100x5"),
        ({"frames": 0}, "0"),
        ({"seed": -1}, "-1"),
        ({"fps": 0}, "0"),
        ({"fps": float("nan")}, "nan"),
    ],
)
def test_rejects_arguments_out_of_range_with_a_one_line_message(arguments: dict[str, int], value: str) -> None:
    with pytest.raises(OptionError) as caught:
        SyntheticDrive(**arguments)
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)
