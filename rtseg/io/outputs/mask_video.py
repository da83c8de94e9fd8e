"""Class masks as a lossless video."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.reformatter import ColorRange

from rtseg.core.errors import SinkError, reason
from rtseg.core.frame import ProcessedFrame, StreamInfo
from rtseg.io.outputs import Sink
from rtseg.io.outputs.mask_values import class_mask, filter_table
from rtseg.io.outputs.partial_file import PartialFile


class MaskVideo(Sink):
    """Sink that writes a video of class indices: 8-bit gray, FFV1 (lossless) in Matroska, with the source's timestamps.

    Timestamps are rounded to one millisecond, the resolution of Matroska. The file is written as `NAME.partial.mkv` and renamed by
    `close`. If the process is killed, all but the last second is readable.
    """

    written = 0

    def __init__(
        self,
        path: str,
        info: StreamInfo,
        *,
        only: Sequence[int] | None = None,
        classes: Sequence[str] = (),
        overwrite: bool = True,
    ) -> None:
        """Open the file with its temporary name.

        Args:
            path: the .mkv file.
            info: the source: size, time base, frame rate.
            only: class indices to keep; None: keep all classes.
            classes: class names of the model, for the tag CLASSES.
            overwrite: replace an existing file.

        Raises:
            SinkError: `path` is a folder or the source itself, must not be replaced, or can't be written.
        """
        self.name = Path(path).name
        self._lookup_table = filter_table(only)
        self._size = info.width, info.height
        self._partial = PartialFile(path, source=info.name, overwrite=overwrite)
        self._open = True
        try:
            # Clusters of one second: a killed process loses at most one.
            options = {"cluster_time_limit": "1000", "flush_packets": "1"}
            self._container = av.open(f"file:{self._partial.path}", "w", format="matroska", options=options)
            self._container.metadata["CLASSES"] = ",".join(classes)
            self._stream = self._add_stream(info)
        except (OSError, av.FFmpegError) as error:
            self._partial.discard()
            raise SinkError(f"can't write {path}: {reason(error)}") from error

    def _add_stream(self, info: StreamInfo) -> Any:
        # For masks the Golomb-Rice coder (0) is faster than the range coder and its files are smaller.
        options = {"level": "3", "coder": "0", "slicecrc": "1"}
        stream = self._container.add_stream("ffv1", rate=info.frame_rate or Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, "gray"
        stream.codec_context.time_base = info.time_base
        # Every frame is a key frame, which does not increase the size. Players can seek to any frame, and a killed process loses
        # only the last few.
        stream.codec_context.gop_size = 1
        stream.codec_context.color_range = ColorRange.JPEG
        stream.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
        return stream

    def write(self, item: ProcessedFrame) -> None:
        """Encode one mask.

        Raises:
            SinkError: the frame size changed, or the mask can't be written.
        """
        size = item.frame.width, item.frame.height
        if size != self._size:
            raise SinkError(
                f"{self.name}: frame {item.frame.index} is {size[0]}x{size[1]}, not {self._size[0]}x{self._size[1]}"
            )
        frame = av.VideoFrame.from_ndarray(class_mask(item, self._lookup_table), format="gray")
        frame.pts, frame.time_base = item.frame.pts, item.frame.time_base
        self._mux(frame)
        self.written += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            raise SinkError(f"can't write {self._partial.path}: {reason(error)}") from error

    def close(self) -> None:
        """Complete the file, read it back, and rename it to its final name.

        Raises:
            SinkError: the file can't be completed, or frames are missing.
        """
        self._mux(None)
        try:
            self._container.close()
            self._open = False
            with av.open(f"file:{self._partial.path}") as container:
                frame_count = sum(packet.size > 0 for packet in container.demux(video=0))
            if frame_count != self.written:
                raise SinkError(
                    f"{self._partial.path} contains {frame_count} of {self.written} frames; is the disk full?"
                )
        except (OSError, av.FFmpegError) as error:
            raise SinkError(f"can't finish {self._partial.path}: {reason(error)}") from error
        self._partial.publish()

    def abort(self) -> None:
        """Complete the file under its temporary name. Remove it if it contains no frames."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError, av.FFmpegError, SinkError):
            if self.written:
                self._mux(None)
        with contextlib.suppress(OSError, av.FFmpegError):
            self._container.close()
        if not self.written:
            self._partial.discard()
