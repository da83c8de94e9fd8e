"""Write nearest-color.onnx: a model of rtseg's contract that gives each pixel the class with the nearest `street` color.

Its output is known without training, so tests know the expected classes. Run it to write the file again:

    python tests/data/nearest_color.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtseg.core.model_info import METADATA_KEY, ModelInfo
from rtseg.core.palette import CAMVID_CLASSES, STREET


def main() -> None:
    colors = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.float32)
    # argmin |x - c|^2 = argmax (2 c.x - c.c)
    constants = [
        numpy_helper.from_array(2 * colors.T.copy(), "weights"),
        numpy_helper.from_array(-(colors**2).sum(axis=1), "bias"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["pixels", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["sums"]),
        helper.make_node("Transpose", ["sums"], ["scores"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "nearest-color",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", len(colors), "H", "W"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    description = ModelInfo(
        "nearest-color", CAMVID_CLASSES, (320, 192), tuple(STREET[c] for c in CAMVID_CLASSES), precision="fp32"
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, description.to_json()
    onnx.checker.check_model(model)
    onnx.save(model, Path(__file__).with_name("nearest-color.onnx"))


if __name__ == "__main__":
    main()
