"""Frames for connections: encoded once, framed once, and shared by all connections with the same codec."""

from __future__ import annotations

from dws_core._wire.codecs import Codec
from dws_core._wire.message import JSON


class Frame:
    """One encoded message.

    Attributes:
        payload: The encoded bytes. They are UTF-8 if `binary` is False.
        binary: Whether it is sent as a binary frame (RFC 6455 §5.6).
        topic: Topic of a published message. None for any other frame, which no slow-consumer policy drops.
    """

    __slots__ = ("_ready", "_text", "binary", "payload", "topic")

    def __init__(self, payload: bytes, *, binary: bool, topic: str | None = None) -> None:
        self.payload: bytes = payload
        self.binary: bool = binary
        self.topic: str | None = topic
        self._text: str | None = None
        self._ready: bytes | None = None

    @property
    def text(self) -> str:
        """The payload as text. It is decoded once for all connections."""
        if self._text is None:
            self._text = self.payload.decode()
        return self._text

    @property
    def ready(self) -> bytes:
        """The whole frame in wire format. It is the same for all connections, because servers do not mask frames."""
        if self._ready is None:
            self._ready = frame_header(len(self.payload), binary=self.binary) + self.payload
        return self._ready

    def frame(self, codec: Codec) -> Frame:
        """Return the frame itself, which is already encoded with the codec of its only connection."""
        return self

    def __len__(self) -> int:
        return len(self.payload)


def encode_frame(codec: Codec, value: JSON) -> Frame:
    """Encode a value for connections with this codec.

    Raises:
        CodecError: The codec cannot encode the value.
    """
    return Frame(codec.encode(value), binary=codec.binary)


def frame_header(length: int, *, binary: bool) -> bytes:
    """Return the header of an unfragmented, unmasked, uncompressed data frame (RFC 6455 §5.2).

    Args:
        length: Length of the payload, in bytes.
        binary: Whether the frame is binary (opcode 2). If False, it is text (opcode 1).
    """
    first = 0x82 if binary else 0x81
    if length < 126:
        return bytes((first, length))
    if length < 65_536:
        return (first << 24 | 126 << 16 | length).to_bytes(4, "big")
    return (first << 72 | 127 << 64 | length).to_bytes(10, "big")
