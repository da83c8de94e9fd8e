"""Rendering style: view, opacity, palette and annotations."""

from __future__ import annotations

from dataclasses import dataclass

from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import load_palette
from rtseg.render.overlay import Overlay


@dataclass(frozen=True)
class Style:
    """Rendering options of a result."""

    view: str = "overlay"
    """`overlay`, `mask` or `side-by-side`."""

    alpha: float = 0.5
    """Opacity of the colors, 0 to 1."""

    palette: str = "street"
    """Name or file of the palette; see `load_palette`."""

    only: tuple[str, ...] | None = None
    """Names of the classes to color; None means all."""

    legend: bool = False
    """Draw class names and colors."""

    hud: bool = False
    """Draw frames per second and latency."""

    def overlay(self, model: ModelInfo) -> Overlay:
        """Return an overlay with this style for the classes of a model.

        Raises:
            OptionError: the palette, a class or the view does not exist.
        """
        palette = load_palette(self.palette, model.classes, model.colors)
        only = palette.indices(self.only) if self.only is not None else None
        return Overlay(palette, view=self.view, alpha=self.alpha, only=only, legend=self.legend, hud=self.hud)  # type: ignore[arg-type]
