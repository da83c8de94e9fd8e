"""Time codes of the output, and time codes of the input that are missing from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from av.container import OutputContainer

from rtseg.core.frame import StreamInfo, time_code_of
from rtseg.io.outputs.containers import Container


def output_time_codes(container: OutputContainer, kind: Container) -> list[tuple[str, int]]:
    """Return the time codes of the output that can replace tracks of the input, with their stream indices.

    Args:
        container: the output, with all its streams and metadata, before its header is written.
        kind: type of the container.
    """
    videos = container.streams.video
    codes = [time_code_of(video.metadata) for video in videos]
    if kind.time_codes == "tags":
        return [(code, video.index) for code, video in zip(codes, videos, strict=True) if code]
    if kind.time_codes == "tracks":
        file_code = time_code_of(container.metadata)
        track_codes = [file_code or code for code in codes]
        # The muxer adds its tracks after all streams.
        return [(code, index) for index, code in enumerate(filter(None, track_codes), len(container.streams))]
    return []


def missing_time_codes(
    kind: Container, info: StreamInfo, kept: Sequence[Any], tracks: Collection[str]
) -> Iterator[str]:
    """Yield a message for each time code in the input's metadata that is missing from the output's.

    Args:
        kind: type of the output container.
        info: the source. Its notes already report that the time code of the file does not apply to a part.
        kept: streams of the input that are in the output, without the segmented one.
        tracks: time codes of the input's tracks, which are reported separately.
    """
    if not kind.time_codes and time_code_of(info.metadata):
        yield f"{kind.format} can't hold the time code: dropped"
    for stream in [*([] if info.template is None else [info.template]), *kept]:
        code = time_code_of(stream.metadata)
        if code is None or code in tracks:
            continue
        description = f"the time code of {stream.type} stream {stream.index}"
        if info.no_time_code:
            yield f"{description} is not kept {info.no_time_code}"
        elif not (kind.time_codes == "tags" or (kind.time_codes == "tracks" and stream.type == "video")):
            yield f"{kind.format} can't hold {description}: dropped"
