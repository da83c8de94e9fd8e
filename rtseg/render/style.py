"""How a result is rendered: view, opacity, palette and annotations."""

from __future__ import annotations

from dataclasses import dataclass

from rtseg.core.model_info import ModelInfo
from rtseg.core.palette import load_palette
from rtseg.render.overlay import Overlay


@dataclass(frozen=True)
class Style:
    """How the result is shown."""

    view: str = "overlay"
    """`overlay`, `mask` or `side-by-side`."""

    alpha: float = 0.5
    """Opacity of the colors, 0 to 1."""

    palette: str = "street"
    """Name or file, as `load_palette` takes it."""

    only: tuple[str, ...] | None = None
    """Class names to color; None: all."""

    legend: bool = False
    """Draw class names and colors."""

    hud: bool = False
    """Burn in frames per second and latency."""

    def overlay(self, model: ModelInfo) -> Overlay:
        """The overlay that looks like this, for a model's classes.

        Raises:
            OptionError: no such palette, class or view.
        """
        palette = load_palette(self.palette, model.classes, model.colors)
        only = palette.indices(self.only) if self.only is not None else None
        return Overlay(palette, view=self.view, alpha=self.alpha, only=only, legend=self.legend, hud=self.hud)  # type: ignore[arg-type]
