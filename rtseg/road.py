"""Which road a video takes: over the card, where its pictures stay until they are coloured, or over the processor."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from rtseg.card_frame import CardFrame
from rtseg.card_road.painter import CardPainter
from rtseg.errors import BackendError
from rtseg.frame import ClassMap, Frame, Painted, Plane, StreamInfo
from rtseg.hardware import Refusal, try_nvdec
from rtseg.overlay import Overlay
from rtseg.segmenter import Segmenter
from rtseg.sources import Source, open_source
from rtseg.steady import Steady

INPUT_LEVELS = 12
"""How far the card's input to the network may be from the processor's, of 255: they round at other places, and at sizes that
do not halve they average over slightly different squares. The tests hold the kernels to 8."""

SHOWN_LEVELS = 2
"""How far the coloured picture may be from the processor's for the same class map, of 255."""

AGREEMENT = 0.95
"""Share of the pixels that must get the same class on both roads; inputs that differ by a level move boundaries a little."""

_FLAT = 4.0
"""Standard deviation of luma below which a picture proves nothing."""


class Road:
    """From a frame to its class map, and to its colours where the card does both."""

    def __init__(
        self,
        info: StreamInfo,
        segmenter: Segmenter,
        overlay: Overlay,
        *,
        steady: Steady | None = None,
        refusal: str | None = None,
    ) -> None:
        """Takes the road over the card where that can be, else the processor's, and says in `notes` why.

        Args:
            info: of the source.
            segmenter: the model.
            overlay: the look.
            steady: the stream's, with `--smooth`.
            refusal: why the source was not asked to leave pictures on the card, where somebody would like to know; None: it was.
        """
        self.notes: list[str] = []
        """What a user should know of the road, one line each."""
        self._segmenter, self._overlay, self._steady = segmenter, overlay, steady
        self._aspect = float(info.sample_aspect_ratio)
        self._box = segmenter.letterbox(info.width, info.height, self._aspect)
        self._painter: CardPainter | None = None
        self._proven = False
        self._proving = threading.Lock()
        engine = segmenter.engine
        if info.on_card and engine is not None:
            try:
                self._painter = CardPainter(engine, self._box, overlay, info.colour)
                self.notes.append("road: pictures stay on the card until they are coloured")
            except BackendError as error:
                refusal = f"the card can't be set up for it ({error})"
        elif refusal is None:
            refusal = "the card's decoder does not give these pictures as 8-bit 4:2:0, upright and of even size"
        if self._painter is None and refusal:
            self.notes.append(f"road: the processor scales and colours: {refusal}")

    @property
    def taken(self) -> str:
        """`card` or `processor`, for statistics."""
        return "processor" if self._painter is None else "card"

    @property
    def streams(self) -> int:
        """How many threads should call `segment` at the same time."""
        return self._segmenter.streams if self._painter is None else self._painter.streams

    def segment(self, frame: Frame) -> ClassMap | Painted:
        """The class map of a frame, and the coloured frame where the card made that too.

        Until the card's work was compared with the processor's on a picture that is not flat, the processor's is given.
        """
        painter = self._painter
        if painter is None or not isinstance(frame, CardFrame):
            return self._segmenter.segment(frame, self._aspect, self._steady)
        if not self._proven:
            with self._proving:
                if not self._proven and self._painter is not None:
                    return self._prove(frame, self._painter)
            return self.segment(frame)
        return painter.paint(frame)

    def close(self) -> None:
        """Gives back what the road took; nobody may be in `segment` any more."""
        if self._painter is not None:
            self._painter.close()

    def _prove(self, frame: CardFrame, painter: CardPainter) -> ClassMap:
        """The processor's class map of a frame, compared with the card's if there is something to see on it."""
        classes = self._segmenter.segment(frame, self._aspect)
        if float(frame.planes[0].std()) < _FLAT:
            return classes
        try:
            different = self._difference(frame, painter, classes)
        except BackendError as error:
            different = f"the card failed ({error})"
        if different is None:
            self._proven = True
            return classes
        self.notes[:] = [f"road: the processor scales and colours: {different}"]
        self._painter = None
        painter.close()
        return classes

    def _difference(self, frame: CardFrame, painter: CardPainter, classes: ClassMap) -> str | None:
        """How the card's work on a frame differs from the processor's; None: as little as it may."""
        painted, image = painter.trial(frame)
        self._overlay.annotate(painted.shown, painted.shown.width)  # as `apply` does
        wanted = self._overlay.apply(frame, painted.classes)
        network = _distance(image, self._box.network_input(frame))
        shown = max(_distance(a, b) for a, b in zip(painted.shown.planes, wanted.planes, strict=True))
        same = float((painted.classes == classes).mean())
        if network <= INPUT_LEVELS and shown <= SHOWN_LEVELS and same >= AGREEMENT:
            return None
        return (
            f"the card's first picture was not the processor's (network's input {network} of 255 apart, at most {INPUT_LEVELS}; "
            f"colours {shown}, at most {SHOWN_LEVELS}; {same:.1%} of the pixels in the same class, at least {AGREEMENT:.0%}); "
            "please report this"
        )


def open_on_road(
    name: str, segmenter: Segmenter, overlay: Overlay, *, decoder: str = "software", **reading: Any
) -> tuple[Source, str | None]:
    """Opens a source so that its pictures stay on the card where the road over it can be taken.

    Returns:
        The source, and why it was not asked to leave them there, for `Road`.

    Raises:
        SourceError, OptionError: as `open_source`, which gets `reading`.
    """
    refused = refusal(segmenter, overlay, decoder)
    engine = segmenter.engine if refused is None else None
    if engine is not None:
        engine.use_card()  # the decoder is to share its context
    card = None if engine is None else engine.card
    return open_source(name, decoder=decoder, card=card, **reading), refused


def refusal(segmenter: Segmenter, overlay: Overlay, decoder: str) -> str | None:
    """Why a video's pictures are not to stay on the card; an empty string where nobody expects them to; None: they are.

    Args:
        segmenter: the model.
        overlay: the look.
        decoder: as `rtseg.hardware.choose_decoder` gives it.
    """
    if segmenter.engine is None or decoder not in ("nvdec", "auto"):
        return ""
    if overlay.view != "overlay":
        return f"--view {overlay.view} is put together there"
    if segmenter.engine.batch > 1:
        return f"the engine was built for batches of {segmenter.engine.batch}; `rtseg build --batch 1` makes another"
    return None


def advice(segmenter: Segmenter, decoder: str, why_no_nvdec: Refusal | None = None) -> list[str]:
    """A line for who has a card that decodes and does not use it, as a list; else an empty one."""
    idle = segmenter.engine is not None and decoder == "software" and (why_no_nvdec or try_nvdec)() is None
    return ["the card decodes too: with --decoder auto pictures stay there until they are coloured"] if idle else []


def _distance(first: Plane, second: Plane) -> int:
    return int(np.abs(first.astype(np.int16) - second).max())
