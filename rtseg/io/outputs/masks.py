"""Lossless class masks at the source's size: a folder of PNGs or a video.

A mask is uint8 `[height, width]` and contains the class index of each pixel; 255 means no class. It is resized from the network's
class map by nearest neighbor (`rtseg.core.letterbox.resize_classes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rtseg.core.frame import StreamInfo
from rtseg.io.outputs import Sink
from rtseg.io.outputs.mask_folder import MaskFolder, check_mask_path
from rtseg.io.outputs.mask_video import MaskVideo


def open_mask_sink(
    path: str,
    info: StreamInfo,
    *,
    only: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    overwrite: bool = True,
) -> Sink:
    """Open the sink for `--masks PATH`: `MaskVideo` for .mkv, `MaskFolder` for a name without a file suffix.

    Args:
        path: file or folder.
        info: the source.
        only: class indices to keep; all others become 255. None: keep all classes.
        classes: class names of the model, stored with the masks.
        overwrite: replace an existing result when the new one is complete.

    Raises:
        OptionError: the suffix is that of a lossy video or an image.
        SinkError: the file or folder can't be created or must not be replaced.
    """
    if Path(path).suffix.lower() == ".mkv":
        return MaskVideo(path, info, only=only, classes=classes, overwrite=overwrite)
    check_mask_path(path, overwrite=overwrite)
    return MaskFolder(path, info, only=only, classes=classes, overwrite=overwrite)
