"""Verification of properties that players use: color tags, orientation, frame size and stream selection."""

from __future__ import annotations

from typing import Any

import av

from rtseg.core.frame import Color
from rtseg.io.inputs.frame_converter import UPRIGHT, orientation_of
from rtseg.io.outputs.file_sink import WrittenFile
from rtseg.video.container_reader import ContainerPackets, StreamPackets

_UNSPECIFIED = 2  # value of H.273
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


def compare_color_tags(color: Color, context: Any) -> str:
    """Return `kept`, `not held by the format` or `changed`, by the input's color and the output's codec context."""
    tags = [
        (color.space_tag, context.colorspace, _UNSPECIFIED),
        (color.primaries_tag, context.color_primaries, _UNSPECIFIED),
        (color.transfer_tag, context.color_trc, _UNSPECIFIED),
        (color.full_range, context.color_range == _FULL_RANGE, False),
    ]
    changed = [(tag_out, unset) for tag_in, tag_out, unset in tags if tag_in not in (unset, tag_out)]
    if not changed:
        return "kept"
    return "not held by the format" if all(tag_out == unset for tag_out, unset in changed) else "changed"


def frame_problems(context: Any, written: WrittenFile, color_tags: str) -> list[str]:
    """Return the problems with color tags, orientation and frame size, by the output's codec context and first frame."""
    problems = []
    if color_tags == "changed":
        problems.append("the color tags differ from the input's")
    with av.open(f"file:{written.path}") as container:
        frame = next(container.decode(video=0), None)
        if frame is None or orientation_of(frame) != UPRIGHT:
            problems.append("players would rotate the video: the output has a display matrix")
    if (context.width, context.height) != written.size:
        width, height = written.size
        problems.append(f"the frame size is {context.width}x{context.height}, not {width}x{height}")
    return problems


def selection_problems(
    before: ContainerPackets, after: ContainerPackets, written: WrittenFile, video: int
) -> list[str]:
    """Return the problems with the order of the streams, and with the video and audio streams that players select.

    `video` is the index of the segmented video stream in the output.
    """
    problems = []
    selected = _selected("video", {video: after.video, **after.others})
    if selected != video:
        problems.append(f"players would show video stream {selected} instead of the segmented one")
    indices = written.copied | written.reencoded
    # Time codes and cover images are written after all other streams.
    kinds = {index: packets.kind for index, packets in sorted(before.others.items()) if index in indices}
    order = [indices[index] for index, kind in kinds.items() if kind not in ("data", "cover")]
    input_indices = {out: index for index, out in indices.items()}
    if order != sorted(order):
        problems.append("the streams are not in the input's order")
    audio_in = _selected("audio", {index: packets for index, packets in before.others.items() if index in indices})
    audio_out = _selected("audio", after.others)
    if audio_in is not None and input_indices.get(-1 if audio_out is None else audio_out) != audio_in:
        problems.append(f"players would not play audio stream {audio_in}, which they play in the input")
    return problems


def _selected(kind: str, streams: dict[int, StreamPackets]) -> int | None:
    """Return the stream of a kind that players select: the first default one, else the first."""
    indices = sorted(index for index, packets in streams.items() if packets.kind == kind)
    return next((index for index in indices if streams[index].default), indices[0] if indices else None)
