"""Agreement of rtseg's class maps with those of the libraries: torch in FP32, ONNX in FP32 and FP16, OpenVINO in FP16.

`python benchmarks/importers/agreement.py [NAME…]` prints one line per fixture: the share of pixels with the library's class. The
weights are random, so scores are closer together than a trained network's: the FP16 columns are a lower bound.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

import onnxruntime
import openvino
import torch
from importer_fixtures import FOLDER, expected, load, weights
from importer_weights import image
from safetensors.torch import save_file

from rtseg.models.export.checkpoint_source import CheckpointModel
from rtseg.nn.preprocessing import Preprocessing


def save(fixture, folder):
    if "config" in fixture:
        (folder / "config.json").write_text(json.dumps(fixture["config"]))
        save_file(weights(fixture), folder / "model.safetensors")
        return folder
    torch.save(weights(fixture), folder / "unet.pth")
    return folder / "unet.pth"


def shares(name):
    fixture = load(name)
    width, height = size = tuple(fixture["size"])
    rgb, truth = image(height, width), expected(name)
    with tempfile.TemporaryDirectory() as folder:
        origin = CheckpointModel(save(fixture, Path(folder)), Preprocessing(**fixture["options"]), size)
        graphs = {precision: origin.graph(size, 1, precision).SerializeToString() for precision in ("fp32", "fp16")}
        maps = [origin.reference_model(size)(rgb)]
    for precision in ("fp32", "fp16"):
        session = onnxruntime.InferenceSession(graphs[precision], providers=["CPUExecutionProvider"])
        maps.append(session.run(["classes"], {"image": rgb[None]})[0][0])
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graphs["fp16"]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    maps.append(compiled(rgb[None])[0][0])
    return fixture["library"], [(class_map == truth).mean() for class_map in maps]


if __name__ == "__main__":
    names = sys.argv[1:] or sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))
    print(
        "| network | library | torch | ONNX Runtime, FP32 | FP16 | OpenVINO, FP16 weights |\n|---|---|---|---|---|---|"
    )
    for name in names:
        library, values = shares(name)
        print(f"| {name} | {library} | " + " | ".join(f"{100 * v:.3f} %" for v in values) + " |", flush=True)
