"""Makes nearest-colour.onnx: a model of rtseg's contract that gives each pixel the class whose `street` colour is nearest.

Its answers are known without any training, so tests can say what must come out. Run it to make the file again:

    python tests/data/nearest_colour.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rtseg.description import METADATA_KEY, ModelDescription
from rtseg.palette import CAMVID_CLASSES, STREET


def main() -> None:
    colours = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.float32)
    # argmin |x - c|^2 = argmax (2 c.x - c.c)
    constants = [
        numpy_helper.from_array(2 * colours.T.copy(), "weights"),
        numpy_helper.from_array(-(colours**2).sum(axis=1), "bias"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["pixels", "weights"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["indices"], axis=3, keepdims=0),
        helper.make_node("Cast", ["indices"], ["classes"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "nearest-colour",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("classes", TensorProto.UINT8, ["N", "H", "W"])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    description = ModelDescription(
        "nearest-colour", CAMVID_CLASSES, (320, 192), tuple(STREET[c] for c in CAMVID_CLASSES), precision="fp32"
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, description.to_json()
    onnx.checker.check_model(model)
    onnx.save(model, Path(__file__).with_name("nearest-colour.onnx"))


if __name__ == "__main__":
    main()
