"""Shared code of the scripts here, which run a library's network and write fixtures for `tests/nn/test_importers.py`.

A fixture is NAME.json.gz (library and version, names and shapes of the weights, the seed that fills them) and NAME.png (the
class map of the library's network). Compatible with Python 3.7, for fastai 1.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
FIXTURES = ROOT / "tests" / "data" / "importers"

from importer_weights import fill, image  # noqa: E402

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalized(rgb, mean, std):
    """Convert uint8 `[H, W, 3]` to normalized float32 `[1, 3, H, W]`."""
    x = torch.from_numpy(rgb).permute(2, 0, 1).float().div(255)[None]
    return (x - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1)


def record(name, model, library, height, width, normalize, options=None, extra=None, seeds=range(6)):
    """Fill the model's weights by rule, run it and write the fixture.

    The last bias is set so that no class covers the whole image. Of several seeds, the one with the largest margins between
    classes is used: FP16 must give the same map.

    Args:
        name: name of the fixture.
        model: the library's network.
        library: the library's name and version.
        height: height of the test image.
        width: width of the test image.
        normalize: function from the uint8 image to the network's input, as in the library.
        options: arguments for `import_checkpoint`.
        extra: further entries of the fixture, such as another file format.
        seeds: candidate seeds.
    """
    model.eval()
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    last_bias = [key for key in shapes if key.endswith("bias")][-1]
    if "segmentation_head.0.bias" in shapes:
        last_bias = "segmentation_head.0.bias"
    x = normalize(image(height, width))
    best = None
    for seed in seeds:
        arrays = fill(shapes, seed)
        with torch.no_grad():
            model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
            bias = arrays[last_bias] - _scores(model, x).mean(dim=(0, 2, 3)).numpy()
            arrays[last_bias] = bias.astype(np.float32)
            model.load_state_dict({key: torch.from_numpy(array) for key, array in arrays.items()})
            scores = _scores(model, x)
        quality, text = _quality(scores)
        print(f"{name} seed {seed}: {text}")
        if best is None or quality > best[0]:
            best = quality, seed, arrays[last_bias], scores
    _, seed, bias, scores = best
    fixture = {
        "library": f"{library}, torch {torch.__version__.split('+')[0]}",
        "size": [width, height],
        "seed": seed,
        "shapes": shapes,
        "last_bias": {last_bias: [float(v) for v in bias]},
        "scores": scores.shape[1],
        "options": options or {},
    }
    fixture.update(extra or {})
    FIXTURES.mkdir(parents=True, exist_ok=True)
    with (FIXTURES / f"{name}.json.gz").open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(json.dumps(fixture).encode())
    class_map = scores.argmax(dim=1) if scores.shape[1] > 1 else (scores > 0)[:, 0].long()
    Image.fromarray(class_map[0].numpy().astype(np.uint8)).save(FIXTURES / f"{name}.png", optimize=True)
    print(f"{name}: seed {seed}, {sum(np.prod(s) for s in shapes.values()) / 1e6:.1f} M values")


def record_learn_save(name, learn, model, normalize, height, width):
    """Write NAME.pth.gz with fastai's `learn.save`, and NAME.png. The last bias is set so that the map has all classes."""
    model.eval()
    with torch.no_grad():
        last_bias = [p for key, p in model.named_parameters() if key.endswith("bias")][-1]
        last_bias -= _scores(model, normalize(image(height, width))).mean(dim=(0, 2, 3))
    with tempfile.TemporaryDirectory() as folder:
        learn.save(str(Path(folder).resolve() / "unet"))
        saved = (Path(folder) / "unet.pth").read_bytes()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    with (FIXTURES / f"{name}.pth.gz").open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(saved)
    with torch.no_grad():
        scores = _scores(model, normalize(image(height, width)))
    Image.fromarray(scores.argmax(dim=1)[0].numpy().astype(np.uint8)).save(FIXTURES / f"{name}.png", optimize=True)
    print(f"{name}: {len(saved)} bytes, {_quality(scores)[1]}")


def _scores(model, x):
    scores = model(x)
    scores = scores[0] if isinstance(scores, tuple) else scores
    return scores.as_subclass(torch.Tensor) if hasattr(scores, "as_subclass") else scores


def _quality(scores):
    """Return the number of classes above 3 % of the image and the share of pixels that FP16-like noise changes, also as text."""
    if scores.shape[1] == 1:
        scores = torch.cat([torch.zeros_like(scores), scores], dim=1)
    torch.manual_seed(0)
    changed = 0.0
    for _ in range(4):
        noisy = scores + 0.001 * scores.std() * torch.randn_like(scores)
        changed += float((noisy.argmax(dim=1) != scores.argmax(dim=1)).float().mean()) / 4
    share = np.bincount(scores.argmax(dim=1).flatten().numpy(), minlength=scores.shape[1]) / scores[0, 0].numel()
    class_count = int((share > 0.03).sum())
    target = min(4, scores.shape[1])
    return (
        min(class_count, target),
        -changed,
    ), f"{class_count} classes above 3 %, noise of 0.1 % changes {100 * changed:.3f} % of pixels"
