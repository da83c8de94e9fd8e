"""Selection of a video's path: the GPU path, on which frames stay in GPU memory until they are rendered, or the CPU path."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from rtseg.core.errors import BackendError
from rtseg.core.frame import ClassMap, Frame, Plane, RenderedFrame, StreamInfo
from rtseg.gpu.gpu_frame import GpuFrame
from rtseg.inference.segmenter import Segmenter
from rtseg.inference.temporal_smoothing import TemporalSmoothing
from rtseg.io.codecs import Refusal, try_nvdec
from rtseg.io.inputs import Source, open_source
from rtseg.pipeline.gpu_renderer import GpuRenderer
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


class FramePath:
    """GPU or CPU path of a video's frames, from the decoded frame to its class map; on the GPU also to the rendered frame.

    The self-check compares the GPU's results for the first frames with the CPU's. Until it has passed, the CPU's are used.
    """

    def __init__(
        self,
        info: StreamInfo,
        segmenter: Segmenter,
        overlay: Overlay,
        *,
        smoothing: TemporalSmoothing | None = None,
        cpu_reason: str | None = None,
    ) -> None:
        """Set up the GPU path where it is possible, else the CPU path.

        Args:
            info: stream information of the source.
            segmenter: the loaded model.
            overlay: rendering of the frames.
            smoothing: temporal smoothing of the stream, with `--smooth`.
            cpu_reason: result of `cpu_path_reason` before the source was opened.
        """
        self._segmenter, self._overlay, self._smoothing = segmenter, overlay, smoothing
        self._aspect = float(info.sample_aspect_ratio)
        self._box = segmenter.letterbox(info.width, info.height, self._aspect)
        self._cpu_reason = cpu_reason
        self._renderer: GpuRenderer | None = None
        self._gpu_usable = True
        self._checks_left = SELF_CHECK_FRAMES
        self._on_gpu = self._frames = 0
        self._lock = threading.Lock()
        engine = segmenter.engine
        if cpu_reason is not None or engine is None:
            return
        if not info.on_gpu:
            self._cpu_reason = (
                f"the GPU decodes {info.codec}, but not as upright 8-bit 4:2:0 of even size"
                if "nvdec" in info.codec
                else f"the GPU does not decode this {info.codec} video"
            )
            return
        try:
            self._renderer = GpuRenderer(engine, self._box, overlay, info.color)
        except BackendError as error:
            self._cpu_reason = f"the GPU path could not be set up ({error})"

    @property
    def kind(self) -> str:
        """`gpu` if the GPU rendered frames, else `cpu`."""
        return "gpu" if self._on_gpu else "cpu"

    @property
    def notes(self) -> list[str]:
        """Human-readable notes about the path, one line each."""
        if self._cpu_reason:
            return [f"path: the CPU scales and renders: {self._cpu_reason}"]
        if self._on_gpu:
            return [f"path: {self._on_gpu} of {self._frames} frames stayed in GPU memory until they were rendered"]
        if self._renderer is not None:
            checked = f"{SELF_CHECK_FRAMES - self._checks_left} of {SELF_CHECK_FRAMES}"
            return [f"path: the CPU scaled and rendered: too few frames for the self-check of the GPU ({checked})"]
        return []

    @property
    def streams(self) -> int:
        """Number of threads that should call `segment` at the same time."""
        return self._segmenter.streams if self._renderer is None else self._renderer.streams

    def segment(self, frame: Frame) -> ClassMap | RenderedFrame:
        """Return the class map of a frame; from the GPU, the rendered frame with its class map.

        Raises:
            BackendError: the network failed, or the GPU with an error that it does not recover from.
        """
        renderer = self._renderer
        if renderer is None or not self._gpu_usable or not isinstance(frame, GpuFrame):
            self._count(on_gpu=False)
            return self._segmenter.segment(frame, self._aspect, self._smoothing)
        if self._checks_left > 0:
            self._count(on_gpu=False)
            return self._self_check(frame, renderer)
        rendered_frame = renderer.render(frame)
        self._count(on_gpu=True)
        return rendered_frame

    def close(self) -> None:
        """Free the memory of the GPU path."""
        if self._renderer is not None:
            self._renderer.close()

    def _count(self, *, on_gpu: bool) -> None:
        with self._lock:
            self._frames += 1
            self._on_gpu += on_gpu

    def _self_check(self, frame: GpuFrame, renderer: GpuRenderer) -> ClassMap:
        """Return the CPU's class map of a frame after comparing the GPU's result with the CPU's."""
        try:
            # The GPU runs first and not under a lock: downloading the planes would wait for the decoder, and the check must
            # show that the GPU waits for it too.
            rendered_frame, image = renderer.render_with_input(frame)
        except BackendError as error:
            renderer.raise_if_unusable()
            self._disable_gpu(f"the GPU failed in the self-check ({error})")
            return self._segmenter.segment(frame, self._aspect)
        classes = self._segmenter.segment(frame, self._aspect)
        difference = self._difference(frame, rendered_frame, image, classes)
        if difference is not None:
            self._disable_gpu(difference)
        elif float(frame.planes[0].std()) >= _MIN_LUMA_DEVIATION:
            with self._lock:
                self._checks_left -= 1
        return classes

    def _disable_gpu(self, reason: str) -> None:
        with self._lock:
            if self._gpu_usable:
                self._gpu_usable, self._cpu_reason = False, reason

    def _difference(
        self, frame: GpuFrame, rendered_frame: RenderedFrame, image: Plane, classes: ClassMap
    ) -> str | None:
        """Describe how the GPU's result for a frame differs from the CPU's; return None if it is within the limits."""
        self._overlay.annotate(rendered_frame.rendered, rendered_frame.rendered.width)  # `Overlay.apply` annotates too
        expected = self._overlay.apply(frame, rendered_frame.classes)
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


def open_gpu_source(
    name: str, segmenter: Segmenter, overlay: Overlay, *, decoder: str = "software", **reading: Any
) -> tuple[Source, str | None]:
    """Open a source whose frames stay in GPU memory if the GPU path is possible.

    Args:
        name: name of the source.
        segmenter: the loaded model.
        overlay: rendering of the frames.
        decoder: as from `rtseg.io.codecs.choose_decoder`.
        **reading: further arguments of `open_source`.

    Returns:
        The source, and the result of `cpu_path_reason`.

    Raises:
        SourceError: `open_source` can't open the source.
        OptionError: `open_source` refuses an argument.
    """
    cpu_reason = cpu_path_reason(segmenter, overlay, decoder)
    engine = segmenter.engine if cpu_reason is None else None
    if engine is not None:
        engine.make_gpu_current()  # the decoder uses the current context
    gpu = None if engine is None else engine.gpu
    return open_source(name, decoder=decoder, gpu=gpu, **reading), cpu_reason


def cpu_path_reason(segmenter: Segmenter, overlay: Overlay, decoder: str) -> str | None:
    """Return the reason for the CPU path; empty if the settings do not suggest the GPU path; None if it is possible.

    Args:
        segmenter: the loaded model.
        overlay: rendering of the frames.
        decoder: as from `rtseg.io.codecs.choose_decoder`.
    """
    if segmenter.engine is None or decoder not in ("nvdec", "auto"):
        return ""
    if overlay.view != "overlay":
        return f"--view {overlay.view} is rendered there"
    if segmenter.engine.batch > 1:
        return (
            f"the engine was built for batches of {segmenter.engine.batch}; "
            "`rtseg build --batch 1` builds one for the GPU path"
        )
    return None


def unused_gpu_decoder_note(
    segmenter: Segmenter, overlay: Overlay, decoder: str, nvdec_refusal: Refusal | None = None
) -> list[str]:
    """Return a note that the GPU could decode too, as a list of one line; an empty list if it could not or does already."""
    if decoder != "software" or cpu_path_reason(segmenter, overlay, "nvdec") is not None:
        return []
    if (nvdec_refusal or try_nvdec)() is not None:
        return []
    return ["the GPU can decode too: with --decoder auto, frames stay in its memory until they are rendered"]


def _max_difference(first: Plane, second: Plane) -> int:
    return int(np.abs(first.astype(np.int16) - second).max())
