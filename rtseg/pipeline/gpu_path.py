"""Which road a video takes: over the card, where its pictures stay until they are colored, or over the processor."""

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

INPUT_LEVELS = 8
"""How far the card's input to the network may be from the processor's, of 255: they round at other places. The tests hold the
kernels to half of it."""

SHOWN_LEVELS = 3
"""How far the colored picture may be from the processor's for the same class map, of 255. The tests hold the kernels to 2."""

AGREEMENT = 0.95
"""Share of the pixels that must get the same class on both roads; inputs that differ by a level move boundaries a little."""

PROOFS = 8
"""Pictures that are compared before the card is believed: several from each of its lanes, while the other is at work too."""

_FLAT = 4.0
"""Standard deviation of luma below which a picture proves nothing."""


class FramePath:
    """From a frame to its class map, and to its colors where the card does both."""

    def __init__(
        self,
        info: StreamInfo,
        segmenter: Segmenter,
        overlay: Overlay,
        *,
        smoothing: TemporalSmoothing | None = None,
        why_not: str | None = None,
    ) -> None:
        """Takes the road over the card where that can be, else the processor's.

        Args:
            info: of the source.
            segmenter: the model.
            overlay: the look.
            steady: the stream's, with `--smooth`.
            why_not: what `why_not_on_gpu` said before the source was opened.
        """
        self._segmenter, self._overlay, self._smoothing = segmenter, overlay, smoothing
        self._aspect = float(info.sample_aspect_ratio)
        self._box = segmenter.letterbox(info.width, info.height, self._aspect)
        self._why_not = why_not
        self._renderer: GpuRenderer | None = None
        self._believed = True
        self._unproven = PROOFS
        self._rendered = self._seen = 0
        self._lock = threading.Lock()
        engine = segmenter.engine
        if why_not is not None or engine is None:
            return
        if not info.on_gpu:
            self._why_not = (
                f"the card decodes {info.codec}, but not as 8-bit 4:2:0 that is upright and of even size"
                if "nvdec" in info.codec
                else f"the card does not decode this {info.codec} video"
            )
            return
        try:
            self._renderer = GpuRenderer(engine, self._box, overlay, info.color)
        except BackendError as error:
            self._why_not = f"the card can't be set up for it ({error})"

    @property
    def taken(self) -> str:
        """`gpu` if the GPU rendered frames, else `cpu`."""
        return "gpu" if self._rendered else "cpu"

    @property
    def notes(self) -> list[str]:
        """What a user should know of the road, one line each."""
        if self._why_not:
            return [f"road: the processor scales and colors: {self._why_not}"]
        if self._rendered:
            return [f"road: {self._rendered} of {self._seen} pictures stayed on the card until they were colored"]
        if self._renderer is not None:
            compared = f"{PROOFS - self._unproven} of {PROOFS}"
            return [
                f"road: the processor scaled and colored: too few pictures to compare the card's work on ({compared})"
            ]
        return []

    @property
    def streams(self) -> int:
        """How many threads should call `segment` at the same time."""
        return self._segmenter.streams if self._renderer is None else self._renderer.streams

    def segment(self, frame: Frame) -> ClassMap | RenderedFrame:
        """The class map of a frame, and the colored frame where the card made that too.

        The card's work on the first pictures is compared with the processor's, which is what is given meanwhile.

        Raises:
            BackendError: the network failed, or the card in a way that does not pass.
        """
        renderer = self._renderer
        if renderer is None or not self._believed or not isinstance(frame, GpuFrame):
            self._count(0)
            return self._segmenter.segment(frame, self._aspect, self._smoothing)
        if self._unproven > 0:
            self._count(0)
            return self._prove(frame, renderer)
        rendered_frame = renderer.render(frame)
        self._count(1)
        return rendered_frame

    def close(self) -> None:
        """Gives back what the road took."""
        if self._renderer is not None:
            self._renderer.close()

    def _count(self, rendered_frame: int) -> None:
        with self._lock:
            self._seen += 1
            self._rendered += rendered_frame

    def _prove(self, frame: GpuFrame, renderer: GpuRenderer) -> ClassMap:
        """The processor's class map of a frame, compared with the card's."""
        try:
            # First, and not under a lock: whoever brings the picture down waits for the decoder, as the card has to by itself.
            rendered_frame, image = renderer.trial(frame)
        except BackendError as error:
            renderer.raise_if_broken()
            self._give_up(f"the card failed at the first pictures ({error})")
            return self._segmenter.segment(frame, self._aspect)
        classes = self._segmenter.segment(frame, self._aspect)
        different = self._difference(frame, rendered_frame, image, classes)
        if different is not None:
            self._give_up(different)
        elif float(frame.planes[0].std()) >= _FLAT:
            with self._lock:
                self._unproven -= 1
        return classes

    def _give_up(self, reason: str) -> None:
        with self._lock:
            if self._believed:
                self._believed, self._why_not = False, reason

    def _difference(
        self, frame: GpuFrame, rendered_frame: RenderedFrame, image: Plane, classes: ClassMap
    ) -> str | None:
        """How the card's work on a frame differs from the processor's; None: as little as it may."""
        self._overlay.annotate(rendered_frame.rendered, rendered_frame.rendered.width)  # as `apply` does
        wanted = self._overlay.apply(frame, rendered_frame.classes)
        network = _distance(image, self._box.network_input(frame))
        rendered = max(_distance(a, b) for a, b in zip(rendered_frame.rendered.planes, wanted.planes, strict=True))
        same = float((rendered_frame.classes == classes).mean())
        if network <= INPUT_LEVELS and rendered <= SHOWN_LEVELS and same >= AGREEMENT:
            return None
        return (
            f"one of the card's first pictures was not the processor's (network's input {network} of 255 apart, at most "
            f"{INPUT_LEVELS}; colors {rendered}, at most {SHOWN_LEVELS}; {same:.1%} of the pixels in the same class, at least "
            f"{AGREEMENT:.0%}); please report this"
        )


def open_gpu_source(
    name: str, segmenter: Segmenter, overlay: Overlay, *, decoder: str = "software", **reading: Any
) -> tuple[Source, str | None]:
    """Opens a source so that its pictures stay on the card where the road over it can be taken.

    Returns:
        The source, and what `why_not_on_gpu` said.

    Raises:
        SourceError, OptionError: as `open_source`, which gets `reading`.
    """
    why_not = why_not_on_gpu(segmenter, overlay, decoder)
    engine = segmenter.engine if why_not is None else None
    if engine is not None:
        engine.use_gpu()  # the decoder takes the context that is current
    gpu = None if engine is None else engine.gpu
    return open_source(name, decoder=decoder, gpu=gpu, **reading), why_not


def why_not_on_gpu(segmenter: Segmenter, overlay: Overlay, decoder: str) -> str | None:
    """Why a video's pictures are not to stay on the card; empty where nobody would expect them to; None: they are.

    Args:
        segmenter: the model.
        overlay: the look.
        decoder: as `rtseg.io.codecs.choose_decoder` gives it.
    """
    if segmenter.engine is None or decoder not in ("nvdec", "auto"):
        return ""
    if overlay.view != "overlay":
        return f"--view {overlay.view} is put together there"
    if segmenter.engine.batch > 1:
        return f"the engine was built for batches of {segmenter.engine.batch}; `rtseg build --batch 1` makes another"
    return None


def idle_decoder(
    segmenter: Segmenter, overlay: Overlay, decoder: str, why_no_nvdec: Refusal | None = None
) -> list[str]:
    """A line for who has a card that could decode too and does not ask for it, as a list; else an empty one."""
    if decoder != "software" or why_not_on_gpu(segmenter, overlay, "nvdec") is not None:
        return []
    if (why_no_nvdec or try_nvdec)() is not None:
        return []
    return ["the card decodes too: with --decoder auto pictures stay there until they are colored"]


def _distance(first: Plane, second: Plane) -> int:
    return int(np.abs(first.astype(np.int16) - second).max())
