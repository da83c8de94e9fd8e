"""U-Net, and its runnable forms."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rtseg.nn.image_to_scores import ImageToScores, fold_batch_norm, normalize  # noqa: E402
from rtseg.nn.unet import VARIANTS, UNet  # noqa: E402

pytestmark = pytest.mark.torch


def make_trained(variant: str = "nano", classes: int = 5) -> UNet:
    """Return a network whose BatchNorms and heads have uneven values, as after training."""
    torch.manual_seed(3)
    model = UNet(classes, variant)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model.eval()


def make_image(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand((count, 3, 6, 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_variant_has_its_shapes_cost_and_channel_counts(variant: str) -> None:
    model = UNet(7, variant).eval()
    multiplications: list[int] = []

    def count(module: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        multiplications.append(module.weight.numel() * output.shape[2] * output.shape[3])

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
            # Multiples of 16 for tensor cores, except in the first layer and the heads.
            assert module.groups == 1
            assert module.in_channels == 3 or module.in_channels % 16 == 0
            assert module.out_channels == 7 or module.out_channels % 16 == 0
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 64, 96)).shape == (2, 7, 32, 48)
        multiplications.clear()
        model(torch.zeros(1, 3, 352, 480))
    low, high = {"nano": (0.5e9, 0.9e9), "small": (2.9e9, 3.9e9), "medium": (7e9, 11e9)}[variant]
    assert low < sum(multiplications) < high


def test_inference_does_not_use_auxiliary_heads() -> None:
    model = make_trained()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        scores, aux = model.forward_with_aux(x)
        assert [other.shape[2] for other in aux] == [4, 8]
        assert torch.equal(scores, model(x))
    assert not any("aux" in name for name, _ in fold_batch_norm(model).named_parameters())


def test_folding_batch_norm_changes_scores_only_by_rounding() -> None:
    model = make_trained()
    flat = fold_batch_norm(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in flat.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())  # the original is unchanged
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(flat(x), model(x), rtol=1e-3, atol=1e-3)


def test_normalize_centers_and_scales_pixel_values() -> None:
    image = torch.zeros((1, 2, 3, 3), dtype=torch.uint8)
    image[0, 1, 2] = torch.tensor([112, 176, 48], dtype=torch.uint8)
    x = normalize(image)
    assert x.shape == (1, 3, 2, 3)
    assert x.dtype == torch.float32
    assert x[0, :, 1, 2].tolist() == [0.0, 1.0, -1.0]


@pytest.mark.parametrize("size", [(64, 96), (90, 120), (75, 101), (33, 31), (8, 8)])
def test_class_map_has_the_size_of_the_image(size: tuple[int, int]) -> None:
    module = ImageToScores(make_trained())
    with torch.inference_mode():
        classes = module.classes(make_image(*size, count=2))
        assert module(make_image(*size)).shape[2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    assert classes.shape == (2, *size)
    assert classes.dtype == torch.uint8
    assert int(classes.max()) < 5


def test_padding_equals_mean_gray() -> None:
    """An image that is extended with gray to a multiple of 32 has the same class map in its original part."""
    module = ImageToScores(make_trained())
    gray = torch.full((1, 96, 128, 3), 112, dtype=torch.uint8)
    gray[:, :90, :120] = make_image(90, 120)
    with torch.inference_mode():
        padded, extended = module.classes(make_image(90, 120)), module.classes(gray)[:, :90, :120]
    inside = slice(0, 89), slice(0, 119)  # upsampling mixes the border into the last row and column
    assert torch.equal(padded[0][inside], extended[0][inside])
