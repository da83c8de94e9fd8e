"""`rtseg image`: pictures, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import SinkError, SourceError
from rtseg.core.files import IMAGE_SUFFIXES, is_marked_image, mark_image, write_whole
from rtseg.core.frame import ClassMap, Frame, SegmentedFrame, rgb_frame
from rtseg.core.letterbox import Letterbox, resize_classes
from rtseg.core.palette import NO_CLASS
from rtseg.core.path_conflicts import Input, Output, check_paths
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs import open_source
from rtseg.render.overlay import Overlay
from rtseg.video.input_search import RESULT_MARK, Wanted, find_files
from rtseg.video.output_names import unused_name

WRITTEN_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""What is written."""


def find_images(
    patterns: Sequence[str], *, results: Sequence[str] = (), log: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """The pictures that the command line names; see `rtseg.video.input_search.find_files`. Proven results carry rtseg's mark.

    Raises:
        SourceError: as it says.
    """
    wanted = Wanted("pictures", IMAGE_SUFFIXES, is_marked_image)
    return [Path(path) for path in find_files(patterns, wanted, results=results, log=log)]


def name_images(inputs: Sequence[Path], output: Path | None) -> list[Path]:
    """One output for each image: `output` itself for one image, files of the same name in the folder `output` for several.

    Images whose format is not written become PNG.

    Raises:
        SinkError: several images but one file, two of the same name, or an output that is an input.
    """
    if output is None:
        usual = [path.with_name(f"{path.stem}{RESULT_MARK}{_written_suffix(path)}") for path in inputs]
        names = [unused_name(path, is_marked_image) for path in usual]
    elif len(inputs) == 1 and not output.is_dir() and output.suffix:
        names = [output]
    elif output.suffix.lower() in WRITTEN_SUFFIXES and not output.is_dir():
        raise SinkError(f"{len(inputs)} pictures but one output file '{output}'; name a folder instead")
    else:
        names = [output / f"{path.stem}{_written_suffix(path)}" for path in inputs]
    _check(inputs, [Output(str(name), str(path)) for path, name in zip(inputs, names, strict=True)])
    return names


def name_masks(inputs: Sequence[Path], folder: Path) -> list[Path]:
    """The class map of each image: `FOLDER/NAME.png`.

    Raises:
        SinkError: `folder` is a file, two would get the same name, one would replace an input, or a file that rtseg did not
            write.
    """
    if folder.exists() and not folder.is_dir():
        raise SinkError(f"{folder} is a file; --masks takes a folder here")
    names = [folder / f"{path.stem}.png" for path in inputs]
    labels = [f"the class map of {path}" for path in inputs]
    _check(inputs, [Output(str(name), label, "image") for label, name in zip(labels, names, strict=True)])
    return names


def _check(inputs: Sequence[Path], outputs: Sequence[Output]) -> None:
    check_paths([Input(str(path)) for path in inputs], outputs)


def _written_suffix(path: Path) -> str:
    return path.suffix if path.suffix.lower() in WRITTEN_SUFFIXES else ".png"


def check_suffix(path: Path) -> None:
    """Checks that a picture can be written under a name.

    Raises:
        SinkError: its ending is none of `WRITTEN_SUFFIXES`.
    """
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise SinkError(f"'{path}': pictures are written as {', '.join(sorted(WRITTEN_SUFFIXES))}, not '{path.suffix}'")


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """A picture as uint8 `[H, W, 3]`, RGB, upright as its EXIF orientation says; alpha is ignored, 16 bits become 8.

    Raises:
        SourceError: missing, a folder, not a picture, or too large to be one.
    """
    if path.is_dir():
        raise SourceError(f"'{path}' is a folder, not a picture")
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except FileNotFoundError:
        raise SourceError(f"no picture '{path}'") from None
    except OSError as error:
        raise SourceError(f"'{path}' can't be read: {error.strerror}") from error
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise SourceError(f"'{path}' can't be decoded: {error.err}") from error
    if bgr is None:
        raise SourceError(
            f"'{path}' is not a picture that can be read (JPEG, PNG, WebP, BMP, TIFF and others), or is damaged"
        )
    return np.ascontiguousarray(bgr[:, :, ::-1])


def frame_images(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames of a video, or the pictures of a folder in the order of their names, uint8 `[H, W, 3]`, RGB.

    Raises:
        SourceError: it can't be read.
    """
    if path.is_dir():
        for picture in find_images([str(path)]):
            yield read_image(picture)
        return
    source = open_source(str(path))
    try:
        for item in source:
            if isinstance(item, Frame):
                yield Letterbox((item.width, item.height), (item.width, item.height)).network_input(item)
    finally:
        source.close()


def write_image(path: Path, picture: npt.NDArray[np.uint8], *, mark: bool = False) -> None:
    """Writes uint8 `[H, W, 3]` RGB or `[H, W]` in the format of the suffix; the file appears whole or not at all.

    With `mark` the file says that it is a result of rtseg, which is never an input found in a folder.

    Raises:
        SinkError: an unknown suffix, or the file can't be written.
    """
    check_suffix(path)
    try:
        done, data = cv2.imencode(path.suffix.lower(), picture[:, :, ::-1] if picture.ndim == 3 else picture)
    except cv2.error as error:
        raise SinkError(f"'{path}' can't be encoded: {error.err}") from error
    if not done:
        raise SinkError(f"'{path}' can't be encoded as {path.suffix}")
    write_whole(path, mark_image(data.tobytes()) if mark else data.tobytes())


def process_image(
    path: Path, output: Path, segmenter: Segmenter, overlay: Overlay, *, masks: Path | None = None
) -> ClassMap:
    """Segments one picture and writes it colored, and its class indices as `masks/NAME.png` where asked.

    (`name_images` and `name_masks` check before that nothing of the user's is replaced.)

    Returns:
        The class map at the picture's size, uint8 `[H, W]`.

    Raises:
        SourceError, SinkError, BackendError: as they say.
    """
    frame = rgb_frame(read_image(path))
    part = segmenter.segment(frame)
    rendered = SegmentedFrame(frame, part, overlay.apply(frame, part)).rendered
    classes = resize_classes(part, frame.width, frame.height)
    if masks is not None:
        kept = (
            classes
            if overlay.only is None
            else np.where(np.isin(classes, overlay.only), classes, NO_CLASS).astype(np.uint8)
        )
        write_image(masks / f"{path.stem}.png", kept, mark=True)
    write_image(output, frame_rgb(rendered), mark=True)
    return classes


def frame_rgb(frame: Frame) -> npt.NDArray[np.uint8]:
    """A frame of planar RGB as uint8 `[H, W, 3]`."""
    green, blue, red = frame.planes
    return np.stack([red, green, blue], axis=2)
