"""Cover images: a stream that becomes metadata in MP4, an attachment in Matroska."""

from __future__ import annotations

from typing import Any

from av import Packet
from av.container import OutputContainer
from av.stream import Disposition

_TYPES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""File names from the Matroska specification, and MIME types."""


class Cover:
    """A cover image, added after all other streams.

    Args:
        container: the output, before its header is written.
        template: stream of the input.
        packet: the encoded image.
        index: index of its stream in the complete file.
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
        """Return the packets to write directly after the header."""
        return self._first

    def take(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return nothing: the image is known from the beginning."""
        return []

    def flush(self) -> list[Packet[Any]]:
        """Return nothing: no packet is held back."""
        return []
