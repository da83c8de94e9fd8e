"""RTMP server on the loopback interface, which sends FLV."""

from __future__ import annotations

import socket
import struct

from live_server import TcpServer, encode_ts, raise_disconnected


class RtmpServer(TcpServer):
    """RTMP server that sends FLV (Adobe's RTMP specification 1.0). The chunks of the script are whole FLV tags."""

    @property
    def url(self) -> str:
        return f"rtmp://127.0.0.1:{self.port}/live/street"

    def _respond(self, client: socket.socket, number: int) -> None:
        reader = client.makefile("rb")
        greeting = reader.read(1537)[1:]
        client.sendall(b"\3" + bytes(1536) + greeting)
        reader.read(1536)
        client.sendall(_rtmp(1, struct.pack(">I", 1 << 20)))  # the chunk size: each message is one chunk
        received = b""
        for command, response in (
            ("connect", _amf("_result", 1.0, None, {"code": "NetConnection.Connect.Success"})),
            ("createStream", None),
            ("play", _amf("onStatus", 0.0, None, {"level": "status", "code": "NetStream.Play.Start"})),
        ):
            name = b"\2" + struct.pack(">H", len(command)) + command.encode() + b"\0"
            while name not in received or len(received) < received.index(name) + len(name) + 8:
                received += client.recv(4096) or raise_disconnected()
            begin = received.index(name) + len(name)
            transaction = struct.unpack(">d", received[begin : begin + 8])[0]
            client.sendall(_rtmp(20, response or _amf("_result", transaction, None, 1.0)))
        for chunk in self._script(number):
            while chunk:
                size = int.from_bytes(chunk[1:4], "big")
                stamp = int.from_bytes(chunk[7:8] + chunk[4:7], "big")
                client.sendall(_rtmp(chunk[0], chunk[11 : 11 + size], stamp))
                chunk = chunk[15 + size :]


def encode_flv(frames: int) -> list[bytes]:
    """Encode numbered frames to FLV tags without the file header, one chunk per frame."""
    first, *others = encode_ts(frames, container_format="flv")
    return [first[13:], *others]


def _rtmp(kind: int, payload: bytes, stamp: int = 0) -> bytes:
    stream = 0 if kind == 1 else 1
    return (
        b"\3"
        + stamp.to_bytes(3, "big")
        + len(payload).to_bytes(3, "big")
        + bytes([kind])
        + struct.pack("<I", stream)
        + payload
    )


def _amf(*values: object) -> bytes:
    """Action Message Format 0: strings, numbers, null, and objects of strings."""
    data = b""
    for value in values:
        match value:
            case str():
                data += b"\2" + struct.pack(">H", len(value)) + value.encode()
            case float():
                data += b"\0" + struct.pack(">d", value)
            case dict():
                entries = (struct.pack(">H", len(key)) + key.encode() + _amf(entry) for key, entry in value.items())
                data += b"\3" + b"".join(entries) + b"\0\0\x09"
            case None:
                data += b"\5"
    return data
