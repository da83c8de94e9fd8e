"""Cover images: stored as metadata in MP4 and as attachments in Matroska."""

from __future__ import annotations

from typing import Any

from av import Packet
from av.container import OutputContainer
from av.stream import Disposition

_TYPES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""File names from the Matroska specification, and MIME types."""


class CoverImage:
    """Cover image of an output. Add it after all other streams.

    Args:
        container: the output, before its header is written.
        template: stream of the input.
        packet: the encoded image.
        index: index of its stream in the completed file.
    """

    def __init__(self, container: OutputContainer, template: Any, packet: Packet[Any], index: int) -> None:
        self.index = index
        self._header_packets: list[Packet[Any]] = []
        if container.format.name == "mp4":
            stream = container.add_stream_from_template(template, opaque=True)
            stream.disposition = Disposition.attached_pic
            copy = Packet(bytes(packet))
            copy.pts = copy.dts = 0
            copy.time_base, copy.stream = template.time_base, stream
            self._header_packets = [copy]
        else:
            name, mime_type = _TYPES[template.codec_context.codec.canonical_name]
            attachment = container.add_attachment(template.metadata.get("filename", name), mime_type, bytes(packet))
            if "title" in template.metadata:
                attachment.metadata["title"] = template.metadata["title"]

    def header_packets(self) -> list[Packet[Any]]:
        """Return the packets to write directly after the header."""
        return self._header_packets

    def process(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Return an empty list: the image is written with the header."""
        return []

    def flush(self) -> list[Packet[Any]]:
        """Return an empty list: no packets are buffered."""
        return []
