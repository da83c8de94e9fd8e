"""Fixtures for the tests of models, and the tests that need the packages of `rtseg build`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from foreign_networks import ForeignNetwork

if not (find_spec("onnx") and find_spec("onnxruntime")):
    collect_ignore_glob = ["test_build*", "test_*_weights.py", "test_onnx_*", "test_quantize*", "test_verification.py"]


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Images to verify on: patches of all colors that the small networks distinguish."""
    import cv2
    from foreign_networks import HEIGHT, WIDTH
    from onnx_models import random_images

    folder = tmp_path / "frames"
    folder.mkdir()
    for i, image in enumerate(random_images(3, HEIGHT, WIDTH, seed=3)):
        cv2.imwrite(str(folder / f"{i}.png"), image[:, :, ::-1])
    return folder


@pytest.fixture
def theirs(tmp_path: Path, frames: Path) -> ForeignNetwork:
    """A foreign network that the test writes and builds."""
    from foreign_networks import ForeignNetwork

    return ForeignNetwork(tmp_path, frames)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network of the model contract in FP16."""
    from onnx_models import contract_model

    return contract_model(tmp_path / "colors.onnx")
