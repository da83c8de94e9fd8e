"""The network, and the one function that it is to everybody else."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rtseg.core.errors import OptionError  # noqa: E402
from rtseg.nn.image_to_classes import ImageToClasses, SmoothImageToClasses, folded, normalize  # noqa: E402
from rtseg.nn.unet import VARIANTS, UNet  # noqa: E402

pytestmark = pytest.mark.torch


def settled(variant: str = "nano", classes: int = 5) -> UNet:
    """A network whose BatchNorms and heads are as uneven as after training."""
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


def picture(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand((count, 3, 6, 8), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_size_of_every_variant(variant: str) -> None:
    model = UNet(7, variant).eval()
    multiplications = 0

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal multiplications
        multiplications += module.weight.numel() * output.shape[2] * output.shape[3]  # type: ignore[union-attr,operator]

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 64, 96)).shape == (2, 7, 32, 48)
        multiplications = 0
        model(torch.zeros(1, 3, 352, 480))
    low, high = {"nano": (0.5e9, 0.9e9), "small": (2.9e9, 3.9e9), "medium": (7e9, 11e9)}[variant]
    assert low < multiplications < high


@pytest.mark.parametrize("variant", VARIANTS)
def test_widths_suit_tensor_cores(variant: str) -> None:
    for module in UNet(8, variant).modules():
        if isinstance(module, torch.nn.Conv2d) and module.in_channels > 3 and module.out_channels != 8:
            assert module.groups == 1
            assert module.in_channels % 16 == 0
            assert module.out_channels % 16 == 0


def test_auxiliary_heads_are_for_training_alone() -> None:
    model = settled()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        scores, aux = model.forward_with_aux(x)
        assert [other.shape[2] for other in aux] == [4, 8]
        assert torch.equal(scores, model(x))
    assert not any("aux" in name for name, _ in folded(model).named_parameters())


def test_unknown_variant() -> None:
    with pytest.raises(OptionError, match="no network 'huge'; there are nano, small, medium"):
        UNet(3, "huge")


def test_folding_batchnorm_changes_nothing_but_rounding() -> None:
    model = settled()
    flat = folded(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in flat.modules())
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())  # the original is untouched
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(flat(x), model(x), rtol=1e-3, atol=1e-3)


def test_normalize() -> None:
    image = torch.zeros((1, 2, 3, 3), dtype=torch.uint8)
    image[0, 1, 2] = torch.tensor([112, 176, 48], dtype=torch.uint8)
    x = normalize(image)
    assert x.shape == (1, 3, 2, 3)
    assert x.dtype == torch.float32
    assert x[0, :, 1, 2].tolist() == [0.0, 1.0, -1.0]


@pytest.mark.parametrize("size", [(64, 96), (90, 120), (75, 101), (33, 31), (8, 8)])
def test_any_size_goes_in_and_comes_out(size: tuple[int, int]) -> None:
    module = ImageToClasses(settled())
    with torch.inference_mode():
        classes = module(picture(*size, count=2))
        assert module.scores(picture(*size)).shape[2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    assert classes.shape == (2, *size)
    assert classes.dtype == torch.uint8
    assert int(classes.max()) < 5


def test_padding_is_what_the_mean_gray_would_be() -> None:
    """A picture with gray below and to the right, to a multiple of 32, says the same of the part that is not gray."""
    module = ImageToClasses(settled())
    gray = torch.full((1, 96, 128, 3), 112, dtype=torch.uint8)
    gray[:, :90, :120] = picture(90, 120)
    with torch.inference_mode():
        alone, within = module(picture(90, 120)), module(gray)[:, :90, :120]
    inside = slice(0, 89), slice(0, 119)  # the last row's upsampling sees the border
    assert torch.equal(alone[0][inside], within[0][inside])


def test_smoothing_keeps_what_it_is_told_to() -> None:
    first, second = ImageToClasses(settled()), SmoothImageToClasses(settled())
    one, other = picture(64, 96), picture(64, 96).flip(1)
    nothing = torch.zeros((1, 5, 32, 48), dtype=torch.float16)
    with torch.inference_mode():
        classes, scores = second(one, nothing, torch.tensor(0.0))
        assert scores.dtype == torch.float16
        assert (classes == first(one)).float().mean() > 0.999
        frozen, same = second(other, scores, torch.tensor(1.0))
        assert torch.equal(same, scores)
        assert (frozen == classes).float().mean() > 0.999
        _, half = second(other, scores, torch.tensor(0.5))
        expected = (scores.float() + first.scores(other)) / 2
    torch.testing.assert_close(half.float(), expected, rtol=5e-3, atol=5e-3)
