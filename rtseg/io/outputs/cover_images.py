"""Cover pictures: a stream that MP4's muxer turns into metadata, an attachment in Matroska."""

from __future__ import annotations

from typing import Any

from av import Packet
from av.container import OutputContainer
from av.stream import Disposition

_TYPES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""Names that Matroska's specification gives them, and their MIME types."""


class Cover:
    """A cover picture, added behind all other streams.

    Args:
        container: the output, before its header is written.
        template: the input's stream.
        packet: the picture.
        index: where it is found in the complete file.
    """

    def __init__(self, container: OutputContainer, template: Any, packet: Packet[Any], index: int) -> None:
        self.index = index
        self._first: list[Packet[Any]] = []
        if container.format.name == "mp4":
            stream = container.add_stream_from_template(template, opaque=True)
            stream.disposition = Disposition.attached_pic
            copy = Packet(bytes(packet))
            copy.pts = copy.dts = 0
            copy.time_base, copy.stream = template.time_base, stream
            self._first = [copy]
        else:
            name, mime_type = _TYPES[template.codec_context.codec.canonical_name]
            attachment = container.add_attachment(template.metadata.get("filename", name), mime_type, bytes(packet))
            if "title" in template.metadata:
                attachment.metadata["title"] = template.metadata["title"]

    def first(self) -> list[Packet[Any]]:
        """What is to be written right behind the header."""
        return self._first

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Nothing: the picture is known from the beginning."""
        return []

    def flush(self) -> list[Packet[Any]]:
        """Nothing is held back."""
        return []
