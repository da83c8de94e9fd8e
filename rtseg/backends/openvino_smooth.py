"""The second form of a model on OpenVINO, made of the first once that is read: scores kept in part from frame to frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.backends import Scores, check_images
from rtseg.backends.openvino import OpenVinoBackend, first_line
from rtseg.errors import BackendError, ModelError


class SmoothOpenVinoBackend(OpenVinoBackend):
    """An ONNX or OpenVINO model whose answers can be steadied from one frame of a stream to the next."""

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Class maps of pictures that have nothing to do with each other; see `Backend.infer`."""
        return np.concatenate([self.infer_next(image[None], None, 0.0)[0] for image in images])

    def infer_next(
        self, image: npt.NDArray[np.uint8], scores: Scores | None, keep: float
    ) -> tuple[npt.NDArray[np.uint8], Scores]:
        """The class map of one picture, and its scores; see `SmoothBackend.infer_next`."""
        check_images(image, None if self.free_size else self.input_size)
        requests = self._requests_for((image.shape[2], image.shape[1]))
        request = requests.get()
        try:
            place = request.get_tensor("scores")
            if scores is None or scores.shape != tuple(place.shape):
                scores, keep = np.zeros(place.shape, place.element_type.to_dtype()), 0.0
            given = {"image": image, "scores": scores, "keep": np.float32(keep)}
            result = request.infer(given, share_inputs=True, share_outputs=True)
            return result["classes"].copy(), result["new_scores"].copy()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while computing: {first_line(error)}") from error
        finally:
            requests.put(request)

    def _form(self, network: Any) -> Any:
        return smooth_form(network, self._model)


def smooth_form(network: Any, origin: str) -> Any:
    """The second form of an `openvino.Model` that follows the model contract.

    New scores = keep * scores + (1 - keep) * scores of the image, put in where the class scores are upsampled for argmax (in a
    model that does not upsample them: where argmax takes them). That is what `rtseg.models.contract.SmoothImageToClasses`
    does; made here it needs no second file. Inputs: `image`, `scores` (as the model has them: float16 in a model that
    rtseg exported) and `keep` (float32 scalar); outputs: `classes` and `new_scores` (OpenVINO has no two values of one name).

    Args:
        network: not compiled yet, its image's size set; not changed.
        origin: its file name, for messages.

    Raises:
        ModelError: its classes do not come from an argmax over scores.
    """
    from openvino import opset13 as ops

    network = network.clone()
    place = _place_of_scores(network, origin)
    new = place.get_source_output()
    kind = new.get_element_type()
    scores = ops.parameter(new.get_partial_shape(), kind, name="scores")
    keep = ops.parameter([], np.float32, name="keep")
    kept = ops.convert(keep, kind)
    mixed = ops.add(ops.multiply(scores, kept), ops.multiply(new, ops.subtract(ops.constant(1.0, kind), kept)))
    place.replace_source_output(mixed.output(0))
    result = ops.result(mixed)
    scores.output(0).set_names({"scores"})
    keep.output(0).set_names({"keep"})
    mixed.output(0).set_names({"new_scores"})
    network.add_parameters([scores, keep])
    network.add_results([result])
    network.validate_nodes_and_infer_types()
    return network


def _place_of_scores(network: Any, origin: str) -> Any:
    """The input of the last upsampling before argmax, or of argmax itself."""
    node = network.output("classes").get_node()
    while node.get_type_name() in ("Result", "Convert", "Squeeze", "Reshape"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "TopK":
        raise ModelError(
            f"{origin}: --smooth mixes class scores before argmax, but this model's classes come out of "
            f"'{node.get_type_name()}'; leave --smooth out"
        )
    argmax = node.input(0)
    node = node.input_value(0).get_node()
    while node.get_type_name() in ("Slice", "StridedSlice", "Convert"):
        node = node.input_value(0).get_node()
    return node.input(0) if node.get_type_name() == "Interpolate" else argmax
