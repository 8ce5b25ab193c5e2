"""What is written to connections: encoded once, shared by all that have the codec."""

from __future__ import annotations

from dws_core._wire.codecs import Codec
from dws_core._wire.message import JSON


class Frame:
    """One encoded message.

    Attributes:
        payload: The encoded bytes; UTF-8 if not `binary`.
        binary: Whether it goes out as a binary frame (RFC 6455 §5.6).
    """

    __slots__ = ("_text", "binary", "payload")

    def __init__(self, payload: bytes, *, binary: bool) -> None:
        self.payload: bytes = payload
        self.binary: bool = binary
        self._text: str | None = None

    @property
    def text(self) -> str:
        """The payload as text, decoded once for all connections."""
        if self._text is None:
            self._text = self.payload.decode()
        return self._text

    def __len__(self) -> int:
        return len(self.payload)


def encode_frame(codec: Codec, value: JSON) -> Frame:
    """Encode a value for connections with this codec.

    Raises:
        CodecError: The codec cannot express the value.
    """
    return Frame(codec.encode(value), binary=codec.binary)
