"""Public entry point: a loaded model that classifies each pixel of an image."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtseg.core.choices import Fit
from rtseg.core.errors import BackendError, OptionError
from rtseg.core.frame import ClassMap, Frame, Passthrough, rgb_frame
from rtseg.core.letterbox import Letterbox, resize_classes
from rtseg.core.report import RunIdentity
from rtseg.inference import check_output
from rtseg.inference.argmax import ScoresToClasses
from rtseg.inference.batching import DynamicBatcher
from rtseg.inference.engine_metadata import sha256
from rtseg.inference.engine_per_size import BuildMissing, EnginePerSize
from rtseg.inference.open_model import choose_model, open_model
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.inference.tensorrt import TensorRtBackend

_log = logging.getLogger("rtseg.inference")

_STEP = 32
"""Stride of the networks, pixels."""


class Segmenter:
    """A trained model on the best backend of this machine. A missing engine is built first.

    Called on an image, it returns the class of each pixel:

        segmenter = Segmenter()
        classes = segmenter(rgb)                                    # uint8 [H, W, 3] -> uint8 [H, W]
        road = classes == segmenter.classes.index("road")

    On a source, it yields frames with their class maps:

        for frame, classes in segmenter.stream(open_source("drive.mp4")):
            ...
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        backend: str = "auto",
        device: str | None = None,
        size: tuple[int, int] | None = None,
        fit: Fit = "letterbox",
        streams: int = 1,
        smooth: float = 0.0,
        build_missing: BuildMissing | None = None,
    ) -> None:
        """Load the model and run it once, so that the first image is not slower than the others.

        Args:
            model: a bundled model's name or a model file; None: the bundled default, in INT8 on CPUs where INT8 is fastest.
            backend: `auto`, `openvino`, `tensorrt`, `tensorrt-rtx` or `torch`.
            device: the backend's name of a device; None: its default.
            size: (width, height) of the network's input; None: the model's own, cut to the image's aspect ratio, so that no time
                is spent on letterbox bars. Models of other programs, and files built for one size, keep their size.
            fit: `letterbox` keeps the image's aspect ratio, `stretch` fills the input.
            streams: number of images computed concurrently (OpenVINO only): 1 for the lowest latency, more for throughput, 0
                for OpenVINO's choice. Any number of threads may call `segment`; on an engine with a batch size, simultaneous
                calls are computed together.
            smooth: momentum of temporal smoothing: the share of the class scores that is kept from the previous frames, 0 to 0.9;
                see `new_smoothing`. With it, one image is computed at a time.
            build_missing: called with the model file, the backend and the input size if the backend can't run the model file
                directly; returns the file to run. `rtseg.models.export.auto_build.auto_build` builds it. None: raise
                BackendError with the command that builds it.

        Raises:
            ModelError: the model is missing or damaged.
            BackendError: the backend is not installed or failed.
            OptionError: an option's value is invalid.
        """
        if fit not in ("letterbox", "stretch"):
            raise OptionError(f"fit is '{fit}'; letterbox or stretch is allowed")
        if size is not None and not all(32 <= side <= 8192 for side in size):
            raise OptionError(f"the network's input can't be {size[0]}x{size[1]}; each side is 32 to 8192 pixels")
        TemporalSmoothing(smooth)  # raises for an invalid momentum before anything is loaded
        self._momentum = smooth
        begin = time.perf_counter()
        self.file, choice = choose_model(model, backend, device)
        """The model file, named or default."""
        self.reason = choice.reason
        """Human-readable reason for the backend."""
        stream_count = 1 if smooth else streams
        self._backend = open_model(self.file, choice.backend, size, device, stream_count, build_missing)
        self.description = self._backend.description
        """The model's metadata."""
        if smooth and self.description.output == "classes":
            self._backend.close()
            again = ", or build it again with this version" if self.description.format_version < 2 else ""
            raise BackendError(
                f"--smooth averages class scores, and {self.file.name} outputs class maps: leave --smooth out{again}"
            )
        self.classes = self.description.classes
        """Class names; a class map contains indices into them."""
        self.palette = self.description.palette()
        """The model's own colors."""
        self.backend = self._backend.name
        """Name of the backend."""
        self.device = self._backend.device
        """Human-readable name of the CPU or GPU."""
        self.gpu = self._backend.gpu if isinstance(self._backend, (TensorRtBackend, EnginePerSize)) else None
        """CUDA device number of the GPU that TensorRT uses; None: the model runs on another backend."""
        self.input_size = self._backend.input_size
        """(width, height) of the network's input; see `input_size_for`."""
        self.batch = self._backend.batch
        """Number of images that are computed together."""
        self._batcher = DynamicBatcher(self._backend) if self.batch > 1 else self._backend
        self.streams = 1 if smooth else self._batcher.streams
        """Number of threads that should call `segment` at the same time for the highest throughput."""
        self._to_classes = ScoresToClasses(self.description.head_stride)
        self._fit: Fit = fit
        self._letterboxes: dict[tuple[int, int, float], Letterbox] = {}
        self._warm: set[tuple[int, int]] = set()
        self.warmup_ms = (time.perf_counter() - begin) * 1e3
        """Time of loading and of the first run of each input size, milliseconds."""
        if not isinstance(self._backend, EnginePerSize):
            self._warm_up(self.input_size)
        text = "loaded %s on %s (%s, %s) in %.0f ms"
        _log.info(text, self.file, self.backend, self.device, self.precision, self.warmup_ms)

    @property
    def precision(self) -> str:
        """Arithmetic precision."""
        return self._backend.precision

    def describe(self) -> str:
        """Return the model, its backend and the reason for the backend in one human-readable line."""
        width, height = self.input_size
        limit = "up to " if self._backend.free_size and self._fit != "stretch" else ""
        return (
            f"model {self.description.name} at {limit}{width}x{height} on {self.backend} ({self.device}, {self.precision}): "
            f"{self.reason}"
        )

    def engine_for(self, size: tuple[int, int]) -> TensorRtBackend | None:
        """Return the engine for an input size, for frames in GPU memory; None: the model runs on another backend.

        Args:
            size: (width, height), a result of `input_size_for`.

        Raises:
            BackendError, ModelError: the engine for this size can't be built or loaded.
        """
        backend = self._backend.load(size) if isinstance(self._backend, EnginePerSize) else self._backend
        return backend if isinstance(backend, TensorRtBackend) else None

    def input_size_for(self, width: int, height: int, pixel_aspect: float = 1.0) -> tuple[int, int]:
        """Return (width, height) of the network's input for an image size: `input_size`, or the part that the image fills.

        `pixel_aspect` is the width of a pixel divided by its height.
        """
        full = self.input_size
        if not self._backend.free_size or self._fit == "stretch":
            return full
        inner = Letterbox((width, height), full, self._fit, pixel_aspect).inner[2:]
        # Round up to the network's stride: it pads other sizes internally, at the same cost.
        across, down = (min(side, -(-part // _STEP) * _STEP) for side, part in zip(full, inner, strict=True))
        return across, down

    def prepare(self, width: int, height: int, pixel_aspect: float = 1.0) -> None:
        """Prepare the model for images of this size, so that the first is not slower than the others.

        Raises:
            BackendError, ModelError: the engine for this size can't be built or loaded.
        """
        self._warm_up(self.input_size_for(width, height, pixel_aspect))

    def __call__(self, rgb: npt.NDArray[np.uint8], smoothing: TemporalSmoothing | None = None) -> ClassMap:
        """Return the class of each pixel.

        Args:
            rgb: uint8 `[H, W, 3]`, red, green, blue.
            smoothing: for the next frame of a video, that video's `new_smoothing()`.

        Returns:
            uint8 `[H, W]`, indices into `classes`.

        Raises:
            OptionError: `rgb` is not such an array.
            BackendError: the backend failed.
        """
        if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.shape[2:] != (3,) or not rgb.size:
            actual = f"{rgb.dtype} {list(rgb.shape)}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise OptionError(f"an image must be a uint8 array [H, W, 3] in RGB order, not {actual}")
        return resize_classes(self.segment(rgb_frame(rgb), smoothing=smoothing), rgb.shape[1], rgb.shape[0])

    def new_smoothing(self) -> TemporalSmoothing | None:
        """Return a new smoothing state for one stream, a camera or a file; None without `smooth`."""
        return TemporalSmoothing(self._momentum) if self._momentum else None

    def segment(self, frame: Frame, pixel_aspect: float = 1.0, smoothing: TemporalSmoothing | None = None) -> ClassMap:
        """Return a frame's class map at the network's resolution, without letterbox bars: uint8 `[inner height, inner width]`.

        Args:
            frame: the frame.
            pixel_aspect: width of a pixel divided by its height.
            smoothing: the `new_smoothing()` of the frame's stream; the stream's frames must then be passed in order.

        Raises:
            BackendError: the backend failed.
        """
        box = self.letterbox(frame.width, frame.height, pixel_aspect)
        image = box.network_input(frame)
        output = self._run(image[None])[0]
        if self.description.output == "classes":
            return box.remove_padding(output)
        if smoothing is not None:
            output = smoothing.smooth(frame, box.remove_padding(image), output)
        return box.remove_padding(self._to_classes(output, box.input_size))

    def stream(self, source: Iterable[Frame | Passthrough]) -> Iterator[tuple[Frame, ClassMap]]:
        """Yield each frame of a source with its class map at the frame's size, uint8 `[H, W]`."""
        smoothing = self.new_smoothing()
        for item in source:
            if isinstance(item, Frame):
                yield item, resize_classes(self.segment(item, smoothing=smoothing), item.width, item.height)

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Run only network and argmax: return class maps, uint8 `[N, H, W]`, of images uint8 `[N, H, W, 3]` of an input size."""
        outputs = self._run(images)
        if self.description.output == "classes":
            return outputs
        return np.stack([self._to_classes(scores, (images.shape[2], images.shape[1])) for scores in outputs])

    def run_identity(
        self, command: str, source_name: str, output: str, input_size: tuple[int, int] | None = None
    ) -> RunIdentity:
        """Return the fields that identify a run of a subcommand in its report.

        `source_name` is the input without passwords, `output` is empty if there is none, and `input_size` is that for the frames of
        this run; None: the model's default.
        """
        return RunIdentity(
            command=command,
            input=source_name,
            output=output,
            model=self.description.name,
            backend=self.backend,
            precision=self.precision,
            device=self.device,
            input_size=input_size or self.input_size,
        )

    def settings(self) -> dict[str, object]:
        """Return the settings that determine the class maps, to identify a result: the model, its file's hash, and the options."""
        return {
            "model": self.description.name,
            "model_sha256": sha256(self.file),
            "backend": self.backend,
            "precision": self.precision,
            "size": list(self.input_size),
            "fit": self._fit,
            "smooth": self._momentum,
        }

    def close(self) -> None:
        """Free the model's memory."""
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        result = self._batcher.infer(images)
        check_output(result, self._backend, images)
        return result

    def letterbox(self, width: int, height: int, pixel_aspect: float = 1.0) -> Letterbox:
        """Return the letterbox for images of a size."""
        key = (width, height, pixel_aspect)
        if key not in self._letterboxes:
            size = self.input_size_for(width, height, pixel_aspect)
            self._letterboxes[key] = Letterbox((width, height), size, self._fit, pixel_aspect)
        return self._letterboxes[key]

    def _warm_up(self, size: tuple[int, int]) -> None:
        """Run the model once at an input size, unless it has run before."""
        if size not in self._warm:
            self._warm.add(size)
            begin = time.perf_counter()
            self._batcher.infer(np.zeros((1, size[1], size[0], 3), dtype=np.uint8))
            self.warmup_ms += (time.perf_counter() - begin) * 1e3
