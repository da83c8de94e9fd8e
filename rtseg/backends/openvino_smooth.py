"""The second form of a model on OpenVINO, made of the first once that is read: scores kept in part from frame to frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.backends import Scores, check_images
from rtseg.backends.openvino import OpenVinoBackend, first_line
from rtseg.backends.openvino_graph import smooth_form
from rtseg.errors import BackendError


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
        lanes = self._lanes_for((image.shape[2], image.shape[1]))
        lane = lanes.get()
        request = lane.request
        try:
            place = request.get_tensor("scores")
            if scores is None or scores.shape != tuple(place.shape):
                scores, keep = np.zeros(place.shape, place.element_type.to_dtype()), 0.0
            given = {"image": image, "scores": scores, "keep": np.float32(keep)}
            result = request.infer(given, share_inputs=True, share_outputs=True)
            classes = np.empty(image.shape[:3], dtype=np.uint8)
            lane.classify(result, classes[0])
            return classes, result["new_scores"].copy()
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while computing: {first_line(error)}") from error
        finally:
            lanes.put(lane)

    def _form(self, network: Any) -> tuple[Any, tuple[int, int] | None]:
        return super()._form(smooth_form(network, self._model))
