"""Encoding of a synthetic video to a file."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from rtseg.core.errors import SinkError, reason
from rtseg.core.progress import Progress, track
from rtseg.synthetic import SyntheticDrive


def write_video(drive: SyntheticDrive, path: str, *, progress: Progress | None = None) -> None:
    """Encode a synthetic video as near-lossless H.264, tagged as BT.709 limited range.

    Raises:
        SinkError: the file can't be written.
    """
    fps = Fraction(drive.fps).limit_denominator(1001)
    try:
        with av.open(path, "w") as container, track(progress, "drawing", len(drive)) as advance:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "16", "preset": "ultrafast"})
            stream.width, stream.height = drive.width + drive.width % 2, drive.height + drive.height % 2
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = 1 / fps
            stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
            stream.codec_context.color_range = 1
            for index, (rgb, _) in enumerate(drive):
                even = np.pad(rgb, ((0, drive.height % 2), (0, drive.width % 2), (0, 0)), mode="edge")
                frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
                    format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
                )
                frame.pts, frame.time_base = index, 1 / fps
                container.mux(stream.encode(frame))
                advance()
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise SinkError(f"the synthetic video can't be encoded to '{path}': {reason(error)}") from error
