"""The public way in: a loaded model that tells what each pixel of a picture shows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from rtseg.core.choices import Fit
from rtseg.core.errors import BackendError, OptionError
from rtseg.core.frame import ClassMap, Frame, Passthrough, rgb_frame
from rtseg.core.letterbox import Letterbox, resize_classes
from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import Palette
from rtseg.inference import RUNS, Backend, SmoothBackend, choose_backend, open_backend, open_smooth_backend
from rtseg.inference.batching import Batching
from rtseg.inference.bundled_models import default_for_cpu, find_model
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.inference.tensorrt import TensorRtBackend
from rtseg.inference.tensorrt_loader import import_tensorrt
from rtseg.inference.tuning import tuned_streams

BuildMissing = Callable[[Path, str, tuple[int, int] | None], Path]
"""Takes a model file, a backend and an input size; returns the file that the backend runs."""

_STEP = 32
"""The networks' stride, pixels."""


class Segmenter:
    """A trained model on the best backend of this machine. What that backend needs is built first if it is missing.

    Called on a picture it gives the class of each pixel:

        segmenter = Segmenter()
        classes = segmenter(rgb)                                    # uint8 [H, W, 3] -> uint8 [H, W]
        road = classes == segmenter.classes.index("road")

    On a source it gives frames with their class maps, one after the other:

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
        """Loads the model and runs it once, so that the first picture is not slower than the others.

        Args:
            model: a bundled model's name or a model file; None: the bundled default, in INT8 where the processor is fastest so.
            backend: `auto`, `openvino`, `tensorrt`, `tensorrt-rtx` or `torch`.
            device: as the backend names devices; None: its default.
            size: (width, height) of the network's input; None: the model's own, cut to the picture's aspect where the backend
                takes any size, so that no time is spent on bars.
            fit: `letterbox` keeps the picture's aspect, `stretch` fills the input.
            streams: pictures computed at the same time, where the backend has a choice (OpenVINO): 1 for the least latency, more
                for throughput, 0 for what `rtseg bench --tune` found, else one a core. `segment` may be called by any number
                of threads; on an engine that was built for a batch, what they ask for at the same time is computed together.
            smooth: steadier videos, on OpenVINO and torch: share of the class scores that is kept of the frames before, 0 to
                0.9; see `steady`. One picture is computed at a time then.
            build_missing: called with the model file, the backend and the input size where the backend can't run the model file
                itself; returns the file to run. `rtseg.models.export.auto_build.auto_build` builds it. None: raise BackendError,
                which names the command that builds it.

        Raises:
            ModelError: no such model, or a damaged one.
            BackendError: the backend is not installed or failed.
            OptionError: an option's value makes no sense.
        """
        if fit not in ("letterbox", "stretch"):
            raise OptionError(f"fit is '{fit}'; letterbox or stretch is allowed")
        if size is not None and not all(32 <= side <= 8192 for side in size):
            raise OptionError(f"the network's input can't be {size[0]}x{size[1]}; each side is 32 to 8192 pixels")
        TemporalSmoothing(smooth)  # a wrong share is told before anything is loaded
        self._smooth = smooth
        begin = time.perf_counter()
        path = self._path = find_model(model)
        chosen = choose_backend(path) if backend == "auto" else None
        name = chosen.backend if chosen else backend
        quantized = None
        if model is None and name == "openvino" and device in (None, "CPU") and not smooth:
            quantized = default_for_cpu()
            path = self._path = quantized or path
        self._next: SmoothBackend | None = None
        self._backend: Backend
        if smooth:
            runnable = path if name != "openvino" else _runnable(path, name, size, build_missing)
            self._backend = self._next = open_smooth_backend(name, runnable, size=size, device=device)
        else:
            several = streams or tuned_streams(path.stem) or 0
            self._backend = open_backend(
                name, _runnable(path, name, size, build_missing), size=size, device=device, streams=several
            )
        # All pictures go in here.
        self._entrance = Batching(self._backend) if self._backend.batch > 1 else self._backend
        self.reason = chosen.reason if chosen else "chosen by --backend"
        if quantized:
            self.reason += "; this processor is fastest in INT8 (--model small: as trained)"
        self._fit: Fit = fit
        self._letterboxes: dict[tuple[int, int, float], Letterbox] = {}
        self._warm: set[tuple[int, int]] = set()
        self._warm_up(self.input_size)
        self.warmup_ms = (time.perf_counter() - begin) * 1e3
        """Time that loading and the first run of each input size took, milliseconds."""

    @property
    def file(self) -> Path:
        """The model file: what was named, or what was taken where none was."""
        return self._path

    @property
    def description(self) -> ModelInfo:
        """What the model says of itself."""
        return self._backend.description

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a class map holds indices into them."""
        return self.description.classes

    @property
    def palette(self) -> Palette:
        """The model's own colors."""
        return self.description.palette()

    @property
    def input_size(self) -> tuple[int, int]:
        """(width, height) of the network's input; see `input_size_for`."""
        return self._backend.input_size

    @property
    def streams(self) -> int:
        """How many threads should call `segment` at the same time, where throughput counts."""
        return self._entrance.streams

    @property
    def engine(self) -> TensorRtBackend | None:
        """The engine that runs on an NVIDIA card, for one who keeps pictures there; None: the model runs otherwise."""
        return self._backend if isinstance(self._backend, TensorRtBackend) else None

    def input_size_for(self, width: int, height: int, pixel_aspect: float = 1.0) -> tuple[int, int]:
        """(width, height) of the network's input for pictures of this size: `input_size`, or what the picture fills of it.

        Args:
            width: pixels across.
            height: pixels down.
            pixel_aspect: width of a pixel divided by its height.
        """
        whole = self.input_size
        if not self._backend.free_size or self._fit == "stretch":
            return whole
        inner = Letterbox((width, height), whole, self._fit, pixel_aspect).inner[2:]
        # In steps of the network's stride: what is between is padded inside it, at the same cost.
        across, down = (min(side, -(-part // _STEP) * _STEP) for side, part in zip(whole, inner, strict=True))
        return across, down

    def prepare(self, width: int, height: int, pixel_aspect: float = 1.0) -> None:
        """Makes the model ready for pictures of this size, so that the first is not slower than the others."""
        begin = time.perf_counter()
        if self._warm_up(self.input_size_for(width, height, pixel_aspect)):
            self.warmup_ms += (time.perf_counter() - begin) * 1e3

    @property
    def backend(self) -> str:
        """Name of the backend that runs."""
        return self._backend.name

    @property
    def device(self) -> str:
        """What it runs on, in words."""
        return self._backend.device

    @property
    def precision(self) -> str:
        """Precision of the arithmetic."""
        return self._backend.precision

    def __call__(self, rgb: npt.NDArray[np.uint8], smoothing: TemporalSmoothing | None = None) -> ClassMap:
        """The class of each pixel.

        Args:
            rgb: uint8 `[H, W, 3]`, red, green, blue.
            steady: where the picture is the next of a video: what `steady()` gave for it.

        Returns:
            uint8 `[H, W]`, indices into `classes`.

        Raises:
            OptionError: not such an array.
        """
        if (
            not isinstance(rgb, np.ndarray)
            or rgb.dtype != np.uint8
            or rgb.ndim != 3
            or rgb.shape[2] != 3
            or 0 in rgb.shape
        ):
            given = f"{rgb.dtype} {list(rgb.shape)}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
            raise OptionError(f"a picture must be a uint8 array [H, W, 3] in RGB order, not {given}")
        height, width = rgb.shape[:2]
        return resize_classes(self.segment(rgb_frame(rgb), smoothing=smoothing), width, height)

    def smoothing(self) -> TemporalSmoothing | None:
        """What `segment` is to keep of one stream's frames, with `smooth`: one of these for each camera or file; else None."""
        return TemporalSmoothing(self._smooth) if self._smooth else None

    def segment(self, frame: Frame, pixel_aspect: float = 1.0, smoothing: TemporalSmoothing | None = None) -> ClassMap:
        """The class map of a frame's picture at the network's resolution, bars cut off: uint8 `[inner height, inner width]`.

        Args:
            frame: the picture.
            pixel_aspect: width of a pixel divided by its height.
            steady: what `steady()` gave for this frame's stream; its frames then come one after the other, by one thread.
        """
        box = self.letterbox(frame.width, frame.height, pixel_aspect)
        image = box.network_input(frame)
        if smoothing is None or self._next is None:
            return box.picture_part(self._checked(self._entrance.infer(image[None]), image)[0])
        momentum = smoothing.look(frame, box.picture_part(image))
        classes, smoothing.scores = self._next.infer_next(image[None], smoothing.scores, momentum)
        return box.picture_part(self._checked(classes, image)[0])

    def stream(self, source: Iterable[Frame | Passthrough]) -> Iterator[tuple[Frame, ClassMap]]:
        """Each frame of a source with its class map at the frame's own size, uint8 `[H, W]`."""
        smoothing = self.smoothing()
        for item in source:
            if isinstance(item, Frame):
                yield item, resize_classes(self.segment(item, smoothing=smoothing), item.width, item.height)

    def infer(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The network alone: class maps, uint8 `[N, H, W]`, of pictures uint8 `[N, H, W, 3]` of an input size."""
        return self._entrance.infer(images)

    def settings(self) -> dict[str, object]:
        """All that decides the class maps, for a result to be tied to: the model with its file's hash, and how it is run."""
        digest = hashlib.sha256()
        for file in (self._path, self._path.with_suffix(".bin") if self._path.suffix == ".xml" else None):
            if file is not None and file.is_file():
                digest.update(file.read_bytes())
        return {
            "model": self.description.name,
            "model_sha256": digest.hexdigest(),
            "backend": self.backend,
            "precision": self.precision,
            "size": list(self.input_size),
            "fit": self._fit,
            "smooth": self._smooth,
        }

    def close(self) -> None:
        """Gives back the model's memory."""
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _checked(self, classes: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """What a backend gave, if it is what it must give: cut and resized, anything else would look like a class map."""
        if not isinstance(classes, np.ndarray) or classes.dtype != np.uint8 or classes.shape != (1, *image.shape[:2]):
            kind = (
                f"{classes.dtype} {list(classes.shape)}" if isinstance(classes, np.ndarray) else type(classes).__name__
            )
            raise BackendError(
                f"{self.backend} gave {kind} in place of a class map, uint8 [1, {image.shape[0]}, {image.shape[1]}]: "
                "the model does not follow rtseg's contract"
            )
        return classes

    def letterbox(self, width: int, height: int, pixel_aspect: float = 1.0) -> Letterbox:
        """Where a picture of a size lies in the network's input."""
        key = (width, height, pixel_aspect)
        if key not in self._letterboxes:
            size = self.input_size_for(width, height, pixel_aspect)
            self._letterboxes[key] = Letterbox((width, height), size, self._fit, pixel_aspect)
        return self._letterboxes[key]

    def _warm_up(self, size: tuple[int, int]) -> bool:
        """Runs the model once at an input size, unless it has."""
        if size in self._warm:
            return False
        self._warm.add(size)
        self._entrance.infer(np.zeros((1, size[1], size[0], 3), dtype=np.uint8))
        return True


def _runnable(model: Path, backend: str, size: tuple[int, int] | None, build_missing: BuildMissing | None) -> Path:
    """Return the file that the backend runs: the model itself, or the file that `build_missing` makes of it."""
    if backend not in RUNS or model.suffix in RUNS[backend]:
        return model
    if backend.startswith("tensorrt"):
        import_tensorrt(backend)  # report that TensorRT is missing before anything that a build needs
    if build_missing is not None:
        return build_missing(model, backend, size)
    command = f"rtseg build {model} --target {backend}" + (f" --size {size[0]}x{size[1]}" if size else "")
    raise BackendError(
        f"{backend} runs {' and '.join(RUNS[backend])} files, and {model.name} is none: run `{command}` once "
        "and open the file that it writes"
    )
