"""Where time codes are found in an output, and which of the input's tags it does not hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from av.container import OutputContainer

from rtseg.core.frame import StreamInfo, time_code_of
from rtseg.io.outputs.containers import Container


def time_code_places(container: OutputContainer, kind: Container) -> list[tuple[str, int]]:
    """Return each time code that can stand for a track of the input, and the index of the stream that will say it.

    Args:
        container: the output, with all its streams and metadata, before its header is written.
        kind: what it can hold.
    """
    videos = container.streams.video
    codes = [time_code_of(video.metadata) for video in videos]
    if kind.time_codes == "tags":
        return [(code, video.index) for code, video in zip(codes, videos, strict=True) if code]
    if kind.time_codes == "tracks":
        everywhere = time_code_of(container.metadata)
        written = [everywhere or code for code in codes]
        # The muxer writes its tracks behind all streams.
        return [(code, place) for place, code in enumerate(filter(None, written), len(container.streams))]
    return []


def lost_tags(kind: Container, info: StreamInfo, kept: Sequence[Any], tracks: Collection[str]) -> Iterator[str]:
    """Yield a line for each time code in the input's metadata that is not in the output's.

    Args:
        kind: what the output can hold.
        info: the source. It says itself that the time code of the whole file is not that of a part.
        kept: the input's streams that are in the output, the segmented one not among them.
        tracks: the time codes of the input's tracks, which have lines of their own.
    """
    if not kind.time_codes and time_code_of(info.metadata):
        yield f"{kind.format} can't hold the time code: dropped"
    for stream in [*([] if info.template is None else [info.template]), *kept]:
        code = time_code_of(stream.metadata)
        if code is None or code in tracks:
            continue
        what = f"the time code of {stream.type} stream {stream.index}"
        if info.no_time_code:
            yield f"{what} is not kept {info.no_time_code}"
        elif not (kind.time_codes == "tags" or (kind.time_codes == "tracks" and stream.type == "video")):
            yield f"{kind.format} can't hold {what}: dropped"
