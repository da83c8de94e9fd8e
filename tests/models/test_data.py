"""Samples in memory and their augmentation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rtseg.core.errors import DataError  # noqa: E402
from rtseg.models.evaluation.layouts import open_dataset  # noqa: E402
from rtseg.models.training.augment import IGNORE, augment  # noqa: E402
from rtseg.models.training.data import Samples, crop_size, default_size, load, make_batch, synthetic_samples  # noqa: E402
from rtseg.models.training.loss import class_weights, pixel_loss, total_loss  # noqa: E402
from rtseg.models.training.options import TrainOptions  # noqa: E402
from rtseg.nn.image_to_scores import normalize  # noqa: E402

pytestmark = pytest.mark.torch


def write_pair(root: Path, name: str, size: tuple[int, int], value: int) -> None:
    for split in ("train", "val"):
        (root / split).mkdir(exist_ok=True)
        (root / f"{split}_labels").mkdir(exist_ok=True)
        cv2.imwrite(str(root / split / f"{name}.png"), np.full((size[1], size[0], 3), value * 20, np.uint8))
        cv2.imwrite(str(root / f"{split}_labels" / f"{name}.png"), np.full((size[1], size[0]), value, np.uint8))


def test_load_letterboxes_images_of_all_sizes(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", (64, 48), 2)
    write_pair(tmp_path, "b", (128, 48), 3)  # too wide: padded below with gray and Void
    samples = load(open_dataset(tmp_path), "train", (64, 48))
    assert samples.images.shape == (2, 48, 64, 3)
    assert (samples.labels[0] == 2).all()
    assert (samples.labels[1, :24] == 3).all()
    assert (samples.labels[1, 24:] == 255).all()
    assert (samples.images[0] == 40).all()


def test_load_names_all_bad_files(tmp_path: Path) -> None:
    for name in "abc":
        write_pair(tmp_path, name, (32, 32), 1)
    (tmp_path / "train/a.png").write_bytes(b"nothing")
    cv2.imwrite(str(tmp_path / "train_labels/b.png"), np.full((32, 32), 99, np.uint8))
    with pytest.raises(DataError, match=r"2 problems.*a\.png.*b\.png: label value 99") as caught:
        load(open_dataset(tmp_path), "train", (32, 32))
    assert "c.png" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "expected"), [((480, 360), (480, 360)), ((960, 720), (480, 360)), ((64, 48), (64, 48))]
)
def test_default_size(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), np.zeros((size[1], size[0], 3), np.uint8))
    assert default_size(file) == expected


def stripes() -> Samples:
    """Return images of four vertical stripes whose brightness is the class: 40 for class 0, 200 for class 1."""
    labels = torch.zeros((4, 96, 128), dtype=torch.uint8)
    labels[:, :, 32:64] = 1
    labels[:, :, 96:] = 1
    images = (labels.float() * 160 + 40).to(torch.uint8).unsqueeze(3).expand(-1, -1, -1, 3).contiguous()
    return Samples(images, labels)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("crop", [(64, 96), (160, 192)])
def test_augmentation_keeps_labels_aligned(crop: tuple[int, int], stride: int) -> None:
    samples = stripes()
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        x, y = augment(samples.images, samples.labels, crop, stride, generator)
        assert x.shape == (4, 3, *crop)
        assert y.shape == (4, crop[0] // stride, crop[1] // stride)
        assert set(y.unique().tolist()) <= {0, 1, IGNORE}
        gray = torch.nn.functional.avg_pool2d(x.mean(dim=1, keepdim=True), stride).squeeze(1)
        for i in range(4):
            dark, light = gray[i][y[i] == 0], gray[i][y[i] == 1]
            if len(dark) > 50 and len(light) > 50:  # brightness and blur vary, but one threshold separates the classes
                threshold = (dark.median() + light.median()) / 2
                wrong = (dark > threshold).sum() + (light <= threshold).sum()
                assert float(wrong) / (len(dark) + len(light)) < 0.06


def test_augmentation_pads_with_gray_and_ignored_labels() -> None:
    samples = stripes()
    x, y = augment(samples.images, samples.labels, (192, 256), 1, torch.Generator().manual_seed(1), (0.7, 0.8))
    outside = y == IGNORE
    assert outside.float().mean() > 0.5
    gray = x.abs().amax(dim=1) == 0
    assert gray[outside].float().mean() > 0.98  # the edges of image and labels differ by at most half a pixel
    assert gray[~outside].float().mean() < 0.05


def test_augmentation_is_random_and_reproducible() -> None:
    samples = stripes()
    one, same, other = (
        augment(samples.images, samples.labels, (64, 96), 2, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(one[0], same[0])
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])
    assert (one[0][0] - one[0][1]).abs().mean() > 0.1  # images of a batch are different too
    assert torch.equal(samples.labels, stripes().labels)  # the samples are unchanged


def test_augmented_images_are_normalized_like_model_input() -> None:
    samples = stripes()
    x, y = augment(samples.images, samples.labels, (96, 128), 1, torch.Generator().manual_seed(2))
    black, white = (float(normalize(torch.full((1, 1, 1, 3), v, dtype=torch.uint8)).mean()) for v in (0, 255))
    assert black - 1e-4 <= float(x.min())
    assert float(x.max()) <= white + 1e-4
    assert float(x[:, 0][y == 1].mean()) > float(x[:, 0][y == 0].mean()) + 0.5


def test_augmentation_keeps_void() -> None:
    samples = stripes()
    samples.labels[:, :48] = 255
    _, y = augment(samples.images, samples.labels, (96, 128), 2, torch.Generator().manual_seed(2))
    assert ((y >= 0) & ((y < 2) | (y == IGNORE))).all()
    assert (y == IGNORE).float().mean() > 0.2


def test_each_sample_occurs_once_per_epoch() -> None:
    images = torch.arange(12, dtype=torch.uint8).mul(20).view(12, 1, 1, 1).expand(12, 32, 32, 3).contiguous()
    labels = torch.arange(12, dtype=torch.uint8).view(12, 1, 1).expand(12, 32, 32).contiguous()
    samples = Samples(images, labels)
    for epoch in range(2):
        seen = []
        for step in range(epoch * 3, epoch * 3 + 3):
            _, y = make_batch(samples, None, TrainOptions(batch=4, seed=5), step, (32, 32), (32, 32))
            seen += [int(label[label != IGNORE][0]) for label in y]
        assert sorted(seen) == list(range(12))


def test_synthetic_samples_have_given_share() -> None:
    samples = Samples(torch.zeros((8, 32, 32, 3), dtype=torch.uint8), torch.zeros((8, 32, 32), dtype=torch.uint8))
    extra = Samples(torch.zeros((2, 32, 32, 3), dtype=torch.uint8), torch.ones((2, 32, 32), dtype=torch.uint8))
    options = TrainOptions(synthetic=0.25)
    batches = [make_batch(samples, extra, options, step, (32, 32), (32, 32))[1] for step in range(40)]
    swapped = sum(int(1 in label) for y in batches for label in y)
    assert 40 <= swapped <= 120  # 80 of 320 expected
    assert (samples.labels == 0).all()


def test_synthetic_samples_show_street_scenes() -> None:
    samples = synthetic_samples(9, (160, 120))
    assert samples.images.shape == (9, 120, 160, 3)
    assert {0, 1, 3} <= set(samples.labels.unique().tolist())  # sky, building, road
    assert not torch.equal(samples.images[0], samples.images[8])


def test_crop_size_increases_during_training() -> None:
    sizes = [crop_size(done, (352, 480)) for done in (0.0, 0.49, 0.5, 0.8, 1.0)]
    assert sizes == [(224, 288), (224, 288), (288, 384), (352, 480), (352, 480)]
    assert crop_size(0.0, (32, 32)) == (32, 32)


def test_rare_classes_have_larger_weights() -> None:
    labels = torch.zeros((1, 10, 100), dtype=torch.uint8)
    labels[:, 0] = 1
    labels[:, 1] = 255
    weight = class_weights(labels, 3, 0.7)
    assert weight[2] > weight[1] > weight[0]
    assert abs(float((weight[:2] * torch.tensor([8 / 9, 1 / 9])).sum()) - 1.0) < 1e-5
    assert class_weights(labels, 3, 0.0).tolist() == [1.0, 1.0, 1.0]


def test_loss_with_ohem_smoothing_and_ignored_pixels() -> None:
    scores = torch.zeros((1, 2, 4, 4))
    scores[:, 1, :2] = 20.0  # the upper half is certainly class 1
    labels = torch.ones((1, 4, 4), dtype=torch.long)
    flat = torch.ones(2)
    assert float(pixel_loss(scores, labels, flat)) == pytest.approx(np.log(2) / 2, rel=1e-4)
    assert float(pixel_loss(scores, labels, flat, ohem=0.5)) == pytest.approx(np.log(2), rel=1e-4)
    assert float(pixel_loss(scores, labels, flat, smoothing=0.1)) > np.log(2) / 2 + 0.4
    labels[:, 2:] = IGNORE
    assert float(pixel_loss(scores, labels, flat)) < 1e-6
    labels[:] = IGNORE
    assert float(pixel_loss(scores, labels, flat)) == 0.0


def test_auxiliary_heads_add_to_the_loss() -> None:
    labels = torch.zeros((1, 16, 16), dtype=torch.long)
    right = torch.zeros((1, 2, 16, 16))
    right[:, 0] = 20.0
    uncertain = torch.zeros((1, 2, 4, 4))
    total, main = total_loss(right, [uncertain], labels, torch.ones(2), 0.0, 1.0)
    assert float(main) < 1e-6
    assert float(total) == pytest.approx(0.3 * np.log(2), rel=1e-4)
