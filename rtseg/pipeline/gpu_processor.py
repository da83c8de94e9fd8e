"""Processing of frames in GPU memory, with a self-check against the CPU, and selection of a stream's processor."""

from __future__ import annotations

import threading

import numpy as np

from rtseg.core.errors import BackendError
from rtseg.core.frame import ClassMap, Frame, Plane, RenderedFrame, StreamInfo
from rtseg.core.letterbox import Letterbox
from rtseg.gpu.cuda import Cuda
from rtseg.gpu.gpu_frame import GpuFrame
from rtseg.inference.segmenter import Segmenter
from rtseg.io.codecs import try_nvdec
from rtseg.io.inputs import Source, open_source
from rtseg.io.options import InputOptions
from rtseg.pipeline.gpu_renderer import GPU_STREAMS, GpuRenderer
from rtseg.pipeline.processor import FrameProcessor
from rtseg.render.overlay import Overlay

MAX_INPUT_DIFFERENCE = 8
"""Largest difference between the GPU's and the CPU's network input, of 255; they round at different steps. The tests allow the
kernels half of it."""

MAX_RENDER_DIFFERENCE = 3
"""Largest difference between the GPU's and the CPU's rendered frame for one class map, of 255. The tests allow the kernels 2."""

MIN_CLASS_AGREEMENT = 0.95
"""Share of the pixels with the same class on both paths; inputs that differ by one level move class boundaries slightly."""

SELF_CHECK_FRAMES = 8
"""Frames compared before GPU results are used: several from each GPU stream, while the other stream is busy too."""

_MIN_LUMA_DEVIATION = 4.0
"""Standard deviation of luma below which a frame is too flat to count for the self-check."""


class GpuFrameProcessor(FrameProcessor):
    """Processor of one stream's frames in GPU memory: they stay there until they are rendered.

    The self-check compares the GPU's results for the first frames with the CPU's. Until it has passed, the CPU's are used.
    """

    def __init__(self, segmenter: Segmenter, overlay: Overlay, renderer: GpuRenderer, box: Letterbox) -> None:
        """Start a stream. `close` closes the renderer; `box` is the letterbox from the frames to the network's input."""
        super().__init__(segmenter, overlay)
        self._renderer, self._box = renderer, box
        self._cpu_reason: str | None = None
        self._checks_left = SELF_CHECK_FRAMES
        self._on_gpu = self._frames = 0
        self._lock = threading.Lock()

    @property
    def path(self) -> str:  # type: ignore[override]
        """`gpu` if the GPU rendered frames, else `cpu`."""
        return "gpu" if self._on_gpu else "cpu"

    @property
    def notes(self) -> tuple[str, ...]:
        """Human-readable notes about the path, one line each."""
        if self._cpu_reason is not None:
            return (_cpu_note(self._cpu_reason),)
        if self._on_gpu:
            return (f"path: {self._on_gpu} of {self._frames} frames stayed in GPU memory until they were rendered",)
        checked = f"{SELF_CHECK_FRAMES - self._checks_left} of {SELF_CHECK_FRAMES}"
        return (f"path: the CPU scaled and rendered: too few frames for the self-check of the GPU ({checked})",)

    @property
    def workers(self) -> int:
        """Number of threads that should call `process` at the same time."""
        return GPU_STREAMS

    def infer(self, frame: Frame, info: StreamInfo) -> ClassMap | RenderedFrame:
        """Return the rendered frame with its class map; the class map if the CPU has to compute it.

        Raises:
            BackendError: the network failed, or the GPU with an error that it does not recover from.
        """
        with self._lock:
            self._frames += 1
            ready = isinstance(frame, GpuFrame) and self._cpu_reason is None
            checked = self._checks_left <= 0
            self._on_gpu += ready and checked
        if not isinstance(frame, GpuFrame) or not ready:
            return super().infer(frame, info)
        return self._renderer.render(frame) if checked else self._self_check(frame, info)

    def close(self) -> None:
        """Free the memory of the GPU path."""
        self._renderer.close()

    def _self_check(self, frame: GpuFrame, info: StreamInfo) -> ClassMap | RenderedFrame:
        """Return the CPU's class map of a frame after comparing the GPU's result with the CPU's."""
        try:
            # The GPU runs first and not under a lock: downloading the planes would wait for the decoder, and the check must
            # show that the GPU waits for it too.
            rendered_frame, image = self._renderer.render_with_input(frame)
        except BackendError as error:
            self._renderer.raise_if_unusable()
            self._disable_gpu(f"the GPU failed in the self-check ({error})")
            return super().infer(frame, info)
        classes = super().infer(frame, info)
        difference = self._difference(frame, rendered_frame, image, classes)
        if difference is not None:
            self._disable_gpu(difference)
        elif float(frame.planes[0].std()) >= _MIN_LUMA_DEVIATION:
            with self._lock:
                self._checks_left -= 1
        return classes

    def _disable_gpu(self, reason: str) -> None:
        with self._lock:
            self._cpu_reason = self._cpu_reason or reason

    def _difference(
        self, frame: GpuFrame, rendered_frame: RenderedFrame, image: Plane, classes: ClassMap | RenderedFrame
    ) -> str | None:
        """Describe how the GPU's result for a frame differs from the CPU's; return None if it is within the limits."""
        self.overlay.annotate(rendered_frame.rendered, rendered_frame.rendered.width)  # `Overlay.apply` annotates too
        expected = self.overlay.apply(frame, rendered_frame.classes)
        input_difference = _max_difference(image, self._box.network_input(frame))
        render_difference = max(
            _max_difference(a, b) for a, b in zip(rendered_frame.rendered.planes, expected.planes, strict=True)
        )
        agreement = float((rendered_frame.classes == classes).mean())
        if (
            input_difference <= MAX_INPUT_DIFFERENCE
            and render_difference <= MAX_RENDER_DIFFERENCE
            and agreement >= MIN_CLASS_AGREEMENT
        ):
            return None
        return (
            "the GPU failed the self-check: its result differs from the CPU's "
            f"(network input by {input_difference} of 255, at most {MAX_INPUT_DIFFERENCE}; "
            f"rendered frame by {render_difference}, at most {MAX_RENDER_DIFFERENCE}; "
            f"{agreement:.1%} of the pixels in the same class, at least {MIN_CLASS_AGREEMENT:.0%}); please report this"
        )


def open_processor(info: StreamInfo, segmenter: Segmenter, overlay: Overlay, cpu_reason: str | None) -> FrameProcessor:
    """Return the processor of a stream: on the GPU where that is possible, else on the CPU.

    The segmenter must be prepared for the size of the frames; `cpu_reason` is from `open_gpu_source`.
    """
    box = segmenter.letterbox(info.width, info.height, float(info.sample_aspect_ratio))
    engine = segmenter.engine_for(box.input_size)
    if cpu_reason is None and engine is not None:
        if info.on_gpu:
            try:
                return GpuFrameProcessor(segmenter, overlay, GpuRenderer(engine, box, overlay, info.color), box)
            except BackendError as error:
                cpu_reason = f"the GPU path could not be set up ({error})"
        elif "nvdec" in info.codec:
            cpu_reason = f"the GPU decodes {info.codec}, but not as upright 8-bit 4:2:0 of even size"
        else:
            cpu_reason = f"the GPU does not decode this {info.codec} video"
    return FrameProcessor(segmenter, overlay, notes=[_cpu_note(cpu_reason)] if cpu_reason else [])


def _cpu_note(reason: str) -> str:
    return f"path: the CPU scales and renders: {reason}"


def open_gpu_source(
    name: str, segmenter: Segmenter, overlay: Overlay, options: InputOptions
) -> tuple[Source, str | None]:
    """Open a file whose frames stay in GPU memory if the GPU path is possible.

    Returns:
        The source, and the result of `cpu_path_reason`.

    Raises:
        SourceError: the file (`-`: stdin) can't be opened.
        OptionError: an option does not fit the file.
    """
    cpu_reason = cpu_path_reason(segmenter, overlay, options.decoder)
    gpu = segmenter.gpu if cpu_reason is None else None
    if gpu is not None:
        Cuda(gpu)  # makes its context current, which the decoder uses
    return open_source(name, options, gpu=gpu), cpu_reason


def cpu_path_reason(segmenter: Segmenter, overlay: Overlay, decoder: str) -> str | None:
    """Return the reason for the CPU path; empty if the settings do not suggest the GPU path; None if it is possible.

    `decoder` is as from `rtseg.io.codecs.choose_decoder`.
    """
    if segmenter.gpu is None or decoder not in ("nvdec", "auto"):
        return ""
    if segmenter.new_smoothing() is not None:
        return "--smooth is computed there"
    if overlay.view != "overlay":
        return f"--view {overlay.view} is rendered there"
    if segmenter.batch > 1:
        return (
            f"the engine was built for batches of {segmenter.batch}; "
            "`rtseg build --batch 1` builds one for the GPU path"
        )
    return None


def unused_gpu_decoder_note(segmenter: Segmenter, overlay: Overlay, decoder: str) -> list[str]:
    """Return a note that the GPU could decode too, as a list of one line; an empty list if it could not or does already."""
    if decoder != "software" or cpu_path_reason(segmenter, overlay, "nvdec") is not None:
        return []
    if try_nvdec() is not None:
        return []
    return ["the GPU can decode too: with --decoder auto, frames stay in its memory until they are rendered"]


def _max_difference(first: Plane, second: Plane) -> int:
    return int(np.abs(first.astype(np.int16) - second).max())
