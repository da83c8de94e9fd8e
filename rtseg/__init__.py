"""Real-time semantic segmentation of street video.

    from rtseg import Segmenter, open_source

`__all__` lists the public names. Each is imported on first use, so `import rtseg` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rtseg._version import __version__

if TYPE_CHECKING:
    from rtseg.core.errors import RtsegError
    from rtseg.core.frame import Frame, StreamInfo
    from rtseg.core.palette import Palette
    from rtseg.inference.segmenter import Segmenter
    from rtseg.io.inputs import open_source
    from rtseg.synthetic import SyntheticDrive

__all__ = ["Frame", "Palette", "RtsegError", "Segmenter", "StreamInfo", "SyntheticDrive", "__version__", "open_source"]

_MODULES = {
    "Frame": "rtseg.core.frame",
    "Palette": "rtseg.core.palette",
    "RtsegError": "rtseg.core.errors",
    "Segmenter": "rtseg.inference.segmenter",
    "StreamInfo": "rtseg.core.frame",
    "SyntheticDrive": "rtseg.synthetic",
    "open_source": "rtseg.io.inputs",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'rtseg' has no attribute '{name}'")
