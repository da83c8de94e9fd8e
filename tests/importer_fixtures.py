"""Reference results of networks of other libraries, for the tests of the importers. `benchmarks/importers` creates them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from importer_weights import fill, image

FOLDER = Path(__file__).parent / "data" / "importers"


def load(name: str) -> dict[str, Any]:
    """Return the fixture with a name: library, size, seed, shapes, options."""
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def weights(fixture: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the state dict of the library's network."""
    arrays = fill(fixture["shapes"], fixture["seed"])
    arrays |= {key: np.array(values, dtype=np.float32) for key, values in fixture["last_bias"].items()}
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def expected(name: str) -> np.ndarray:
    """Return the class map of the library's network, uint8 `[H, W]`."""
    class_map = cv2.imread(str(FOLDER / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    assert class_map is not None
    return class_map


def class_map(imported: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the class map of an imported network for the same image, uint8 `[H, W]`."""
    x = torch.from_numpy(image(size[1], size[0])).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (imported.mean, imported.std))
    with torch.inference_mode():
        return imported.module((x - mean) / std).argmax(dim=1)[0].numpy().astype(np.uint8)
