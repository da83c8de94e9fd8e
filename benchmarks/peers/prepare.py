"""Export a bundled model for the peers: its scores as a plain FP32 ONNX file of one size. Needs rtseg[train].

python benchmarks/peers/prepare.py small 480 288 FOLDER
"""

import sys
from pathlib import Path

import torch

from rtseg.inference.bundled_models import find_weights
from rtseg.nn.checkpoint import load_weights

name, width, height, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
model, _ = load_weights(find_weights(name))
model.eval()
torch.onnx.export(
    model,
    (torch.zeros(1, 3, height, width),),
    str(folder / f"{name}-scores.onnx"),
    input_names=["image"],
    output_names=["scores"],
    dynamo=True,
    external_data=False,
)
