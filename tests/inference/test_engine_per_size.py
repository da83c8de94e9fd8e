"""TensorRT without `size`: an engine for the aspect ratio of each frame size, on test doubles of TensorRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from building import build
from nvidia_doubles import VERSIONS
from nvidia_machine import Jetson
from onnx_models import CLASSES, contract_model, foreign_model, random_images

from rtseg.core.errors import BackendError
from rtseg.inference.open_model import description_of_free_size
from rtseg.inference.segmenter import Segmenter

SIZE, WIDE = (128, 96), (128, 32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return contract_model(tmp_path / "colors.onnx", size=SIZE)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int] | None]:
    """Sizes of the engines that were requested on a Jetson."""
    Jetson(monkeypatch, VERSIONS[0])
    return []


def open_model(model: Path, built: list[tuple[int, int] | None], **options: tuple[int, int]) -> Segmenter:
    def build_missing(path: Path, backend: str, size: tuple[int, int] | None) -> Path:
        built.append(size)
        return build(path, target=backend, out=path.parent / "engines", size=size, verify=False).path

    return Segmenter(model, backend="tensorrt", build_missing=build_missing, **options)  # type: ignore[arg-type]


def test_engine_has_the_aspect_ratio_of_the_frame(model: Path, built: list[tuple[int, int] | None]) -> None:
    with open_model(model, built) as segmenter:
        assert not built
        assert (segmenter.classes, segmenter.backend, segmenter.gpu) == (CLASSES, "tensorrt", 0)
        assert "Orin" in segmenter.device
        assert segmenter.input_size == SIZE
        assert segmenter.input_size_for(640, 160) == WIDE
        segmenter.prepare(640, 160)
        assert built == [WIDE]
        device, precision = segmenter.device, segmenter.precision
        engine = segmenter.engine_for(WIDE)
        assert engine is not None
        assert (engine.input_size, engine.device, engine.precision) == (WIDE, device, precision)
        image = random_images(1, 96, 128)[0]
        assert segmenter(image[:32]).shape == (32, 128)
        assert built == [WIDE]
        assert segmenter(image).shape == (96, 128)
        assert built == [WIDE, SIZE]
    with pytest.raises(BackendError, match="closed"):
        segmenter(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("given", ["size", "fixed model"])
def test_given_size_is_built_when_opened(given: str, tmp_path: Path, built: list[tuple[int, int] | None]) -> None:
    size = {"size": SIZE} if given == "size" else {}
    source = contract_model(tmp_path / "colors.onnx", size=SIZE)
    if given == "fixed model":
        fixed = onnx.load(source)
        for dim, length in zip(fixed.graph.input[0].type.tensor_type.shape.dim, (1, 96, 128, 3), strict=True):
            dim.dim_value = length
        onnx.save(fixed, source)
    with open_model(source, built, **size) as segmenter:
        assert built == [size.get("size")]
        assert segmenter.input_size_for(640, 160) == SIZE


def test_only_models_of_rtseg_have_a_free_size(tmp_path: Path, model: Path) -> None:
    assert description_of_free_size(model) is not None
    assert description_of_free_size(foreign_model(tmp_path / "theirs.onnx")) is None
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    assert description_of_free_size(tmp_path / "junk.onnx") is None
