"""Reading, segmenting and writing of single images, for `rtseg image`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.core.errors import SinkError, SourceError, reason
from rtseg.core.files import IMAGE_SUFFIXES, is_marked_image, mark_image, write_whole
from rtseg.core.frame import ClassMap, Frame, StreamInfo, rgb_frame
from rtseg.core.letterbox import Letterbox
from rtseg.core.path_conflicts import Input, Output, check_paths
from rtseg.inference.segmenter import Segmenter
from rtseg.io.inputs import open_source
from rtseg.io.outputs.masks import class_mask
from rtseg.pipeline.processor import FrameProcessor
from rtseg.render.overlay import Overlay
from rtseg.video.input_search import RESULT_MARK, FileFilter, find_files
from rtseg.video.output_names import unused_name

WRITTEN_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""Suffixes of the image formats that rtseg writes."""


def find_images(
    patterns: Sequence[str], *, results: Sequence[str] = (), log: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Return the images that the command line names; see `rtseg.video.input_search.find_files`.

    Results of rtseg are recognized by a mark in the file.

    Raises:
        SourceError: a folder or glob has no images, a folder can't be read, or all named files are results.
    """
    images = FileFilter("images", IMAGE_SUFFIXES, is_marked_image)
    return [Path(path) for path in find_files(patterns, images, results=results, log=log)]


def name_images(inputs: Sequence[Path], output: Path | None) -> list[Path]:
    """Return one output for each image: `output` for one image, files of the same name in the folder `output` for several.

    Images in a format that rtseg does not write become PNG.

    Raises:
        SinkError: there are several images but one output file, two outputs have the same name, or an output is an input.
    """
    if output is None:
        usual = [path.with_name(f"{path.stem}{RESULT_MARK}{_written_suffix(path)}") for path in inputs]
        names = [unused_name(path, is_marked_image) for path in usual]
    elif len(inputs) == 1 and not output.is_dir() and output.suffix:
        names = [output]
    elif output.suffix.lower() in WRITTEN_SUFFIXES and not output.is_dir():
        raise SinkError(f"{len(inputs)} images but one output file '{output}'; name a folder instead")
    else:
        names = [output / f"{path.stem}{_written_suffix(path)}" for path in inputs]
    outputs = [Output(str(name), str(path)) for path, name in zip(inputs, names, strict=True)]
    check_paths([Input(str(path)) for path in inputs], outputs)
    return names


def name_masks(inputs: Sequence[Path], folder: Path) -> list[Path]:
    """Return the file of each image's class map: `FOLDER/NAME.png`.

    Raises:
        SinkError: `folder` is a file, two class maps have the same name, or one would replace an input or a file that rtseg
            did not write.
    """
    if folder.exists() and not folder.is_dir():
        raise SinkError(f"{folder} is a file; --masks takes a folder here")
    names = [folder / f"{path.stem}.png" for path in inputs]
    outputs = [Output(str(n), f"the class map of {path}", "image") for path, n in zip(inputs, names, strict=True)]
    check_paths([Input(str(path)) for path in inputs], outputs)
    return names


def _written_suffix(path: Path) -> str:
    return path.suffix if path.suffix.lower() in WRITTEN_SUFFIXES else ".png"


def check_suffix(path: Path) -> None:
    """Check that an image can be written under a name.

    Raises:
        SinkError: the suffix is not in `WRITTEN_SUFFIXES`.
    """
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise SinkError(f"'{path}': images are written as {', '.join(sorted(WRITTEN_SUFFIXES))}, not '{path.suffix}'")


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as uint8 `[H, W, 3]`, RGB, upright by its EXIF orientation. Alpha is ignored; 16 bits become 8.

    Raises:
        SourceError: the file is missing, is a folder, is not an image, or has too many pixels.
    """
    if path.is_dir():
        raise SourceError(f"'{path}' is a folder, not an image")
    try:
        data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except FileNotFoundError:
        raise SourceError(f"no image '{path}'") from None
    except OSError as error:
        raise SourceError(f"'{path}' can't be read: {reason(error)}") from error
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise SourceError(f"'{path}' can't be decoded: {error.err}") from error
    if bgr is None:
        raise SourceError(f"'{path}' is not a readable image (JPEG, PNG, WebP, BMP, TIFF and others), or is damaged")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def frame_images(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames of a video, or the images of a folder sorted by name, as uint8 `[H, W, 3]`, RGB.

    Raises:
        SourceError: the file or folder can't be read.
    """
    if path.is_dir():
        for image in find_images([str(path)]):
            yield read_image(image)
        return
    source = open_source(str(path))
    try:
        for item in source:
            if isinstance(item, Frame):
                yield Letterbox((item.width, item.height), (item.width, item.height)).network_input(item)
    finally:
        source.close()


def write_image(path: Path, image: npt.NDArray[np.uint8], *, mark: bool = False) -> None:
    """Write an image, uint8 `[H, W, 3]` RGB or `[H, W]`, in the format of the file's suffix.

    The file is complete or not written at all. `mark` marks it as a result of rtseg; marked files in folders are not inputs.

    Raises:
        SinkError: the suffix is unknown, or the file can't be written.
    """
    check_suffix(path)
    try:
        success, data = cv2.imencode(path.suffix.lower(), image[:, :, ::-1] if image.ndim == 3 else image)
    except cv2.error as error:
        raise SinkError(f"'{path}' can't be encoded: {error.err}") from error
    if not success:
        raise SinkError(f"'{path}' can't be encoded as {path.suffix}")
    write_whole(path, mark_image(data.tobytes()) if mark else data.tobytes())


def process_image(
    path: Path, output: Path, segmenter: Segmenter, overlay: Overlay, *, masks: Path | None = None
) -> ClassMap:
    """Segment one image and write the rendered result and, with `masks`, the class indices.

    Existing files are replaced: call `name_images` and `name_masks` first, which protect the user's files. `masks` is the folder
    of the class indices, `NAME.png`.

    Returns:
        The class map at the image's size, uint8 `[H, W]`.

    Raises:
        SourceError, SinkError, BackendError: reading, writing or inference failed.
    """
    frame = rgb_frame(read_image(path))
    info = StreamInfo(path.name, frame.width, frame.height, frame.pixel_format, frame.color, frame.time_base)
    item = FrameProcessor(segmenter, overlay).process(frame, info)
    if masks is not None:
        write_image(masks / f"{path.stem}.png", class_mask(item, overlay.only), mark=True)
    write_image(output, frame_rgb(item.rendered), mark=True)
    return class_mask(item, None)


def frame_rgb(frame: Frame) -> npt.NDArray[np.uint8]:
    """Return a frame of planar RGB as uint8 `[H, W, 3]`."""
    green, blue, red = frame.planes
    return np.stack([red, green, blue], axis=2)
