"""`rtseg image`: pictures, one by one."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rtseg.errors import SinkError, SourceError
from rtseg.files import write_whole
from rtseg.frame import ClassMap, Frame, Segmented, rgb_frame
from rtseg.letterbox import Letterbox, resize_classes
from rtseg.overlay import Overlay
from rtseg.palette import NO_CLASS
from rtseg.secrets import shown_name
from rtseg.segmenter import Segmenter
from rtseg.sources import open_source

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
"""What is read and written."""


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Pictures that the command line names: files, folders searched for pictures, globs.

    Raises:
        SourceError: nothing matches one of them.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(
                p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and ".partial." not in p.name
            )
            if not inside:
                raise SourceError(
                    f"no pictures in the folder '{pattern}' ({', '.join(sorted(IMAGE_SUFFIXES))} are looked for)"
                )
            found += inside
        elif not path.exists() and glob.has_magic(pattern):
            matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))
            if not matches:
                raise SourceError(f"nothing matches '{shown_name(pattern)}'")
            found += matches
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def name_images(inputs: Sequence[Path], output: Path | None) -> list[Path]:
    """One output for each picture: `output` itself for one picture, files of the same name in the folder `output` for several.

    Raises:
        SinkError: several pictures but one file, two of the same name, or an output that is the input.
    """
    if output is None:
        names = [path.with_name(f"{path.stem}.rtseg{path.suffix}") for path in inputs]
    elif len(inputs) == 1 and not output.is_dir() and output.suffix:
        names = [output]
    elif output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir():
        raise SinkError(f"{len(inputs)} pictures but one output file '{output}'; name a folder instead")
    else:
        names = [output / path.name for path in inputs]
    seen: dict[Path, Path] = {}
    for path, name in zip(inputs, names, strict=True):
        if name in seen:
            raise SinkError(
                f"{seen[name]} and {path} would both be written to {name}; process them into different folders"
            )
        if name.exists() and path.exists() and name.samefile(path):
            raise SinkError(f"the output '{name}' is the input; name another with -o")
        seen[name] = path
    return names


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
        raise SourceError(f"'{path}' is not a JPEG, PNG or WebP picture, or is damaged")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def consecutive_pictures(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
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


def write_image(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Writes uint8 `[H, W, 3]` RGB or `[H, W]` in the format of the suffix; the file appears whole or not at all.

    Raises:
        SinkError: an unknown suffix, or the file can't be written.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise SinkError(f"'{path}': pictures are written as {', '.join(sorted(IMAGE_SUFFIXES))}, not '{path.suffix}'")
    try:
        done, data = cv2.imencode(path.suffix.lower(), picture[:, :, ::-1] if picture.ndim == 3 else picture)
    except cv2.error as error:
        raise SinkError(f"'{path}' can't be encoded: {error.err}") from error
    if not done:
        raise SinkError(f"'{path}' can't be encoded as {path.suffix}")
    write_whole(path, data.tobytes())


def process_image(
    path: Path, output: Path, segmenter: Segmenter, overlay: Overlay, *, masks: Path | None = None
) -> ClassMap:
    """Segments one picture and writes it coloured, and its class indices as `masks/NAME.png` where asked.

    Returns:
        The class map at the picture's size, uint8 `[H, W]`.

    Raises:
        SourceError, SinkError, BackendError: as they say.
    """
    frame = rgb_frame(read_image(path))
    part = segmenter.segment(frame)
    shown = Segmented(frame, part, overlay.apply(frame, part)).shown
    classes = resize_classes(part, frame.width, frame.height)
    if masks is not None:
        kept = (
            classes
            if overlay.only is None
            else np.where(np.isin(classes, overlay.only), classes, NO_CLASS).astype(np.uint8)
        )
        write_image(masks / f"{path.stem}.png", kept)
    write_image(output, frame_rgb(shown))
    return classes


def frame_rgb(frame: Frame) -> npt.NDArray[np.uint8]:
    """A frame of planar RGB as uint8 `[H, W, 3]`."""
    green, blue, red = frame.planes
    return np.stack([red, green, blue], axis=2)
