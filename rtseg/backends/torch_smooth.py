"""The second form of a checkpoint on torch: class scores kept in part from frame to frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.backends import Scores, check_images
from rtseg.backends.torch import TorchBackend
from rtseg.errors import BackendError


class SmoothTorchBackend(TorchBackend):
    """A checkpoint of `rtseg train` whose answers can be steadied from one frame of a stream to the next."""

    def __init__(self, model: Path, *, size: tuple[int, int] | None = None, device: str | None = None) -> None:
        """As `TorchBackend` does it; raises BackendError too where the checkpoint is another library's."""
        super().__init__(model, size=size, device=device)
        self._parts: Any = self._module
        if not hasattr(self._parts, "scores"):
            raise BackendError(
                f"--smooth runs checkpoints of `rtseg train` on torch, and {model} is another's: `rtseg build {model} "
                "--target openvino` makes a model of it that it runs"
            )

    def infer_next(
        self, image: npt.NDArray[np.uint8], scores: Scores | None, keep: float
    ) -> tuple[npt.NDArray[np.uint8], Scores]:
        """The class map of one picture, and its scores; see `SmoothBackend.infer_next`."""
        check_images(image, self.input_size)
        torch = self._torch
        try:
            with torch.inference_mode():
                given = torch.from_numpy(np.ascontiguousarray(image)).to(self._device)
                new = self._parts.scores(given)
                if scores is not None and scores.shape == tuple(new.shape):
                    new = keep * torch.from_numpy(scores).to(new) + (1.0 - keep) * new
                classes: npt.NDArray[np.uint8] = self._parts.classes(new, given).cpu().numpy()
                return classes, new.to(torch.float16).cpu().numpy()
        except RuntimeError as error:
            raise BackendError(f"torch failed while computing: {str(error).splitlines()[0]}") from error

    def close(self) -> None:
        """Gives the network's memory back."""
        self._parts = None
        super().close()
