"""rtseg colours every pixel of street video by what it is, in real time.

    from rtseg import Segmenter, open_source

The names below are the public ones; each is loaded when it is first used, so that `import rtseg` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtseg.errors import RtsegError
    from rtseg.frame import Frame, StreamInfo
    from rtseg.palette import Palette
    from rtseg.segmenter import Segmenter
    from rtseg.sources import open_source
    from rtseg.synthetic import SyntheticDrive

__version__ = "0.1.0"
__all__ = ["Frame", "Palette", "RtsegError", "Segmenter", "StreamInfo", "SyntheticDrive", "open_source"]

_HOMES = {
    "Frame": "rtseg.frame",
    "Palette": "rtseg.palette",
    "RtsegError": "rtseg.errors",
    "Segmenter": "rtseg.segmenter",
    "StreamInfo": "rtseg.frame",
    "SyntheticDrive": "rtseg.synthetic",
    "open_source": "rtseg.sources",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rtseg' has no attribute '{name}'")
