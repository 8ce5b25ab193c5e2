"""Codecs: values to bytes and back. Built in: `json` and `msgpack`, both by msgspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from dws_core._errors import CodecError
from dws_core._wire.message import JSON


@runtime_checkable
class Codec(Protocol):
    """Turns values into bytes and back. Pure and thread-safe.

    A codec may also have `splice(members, data)`: encode an object from `members` and the member `data` that is
    encoded already. With it, what came through the broker goes to clients without being decoded.

    Attributes:
        name: Short name; `dws.v1.<name>` is its WebSocket subprotocol.
        binary: True: binary frames; False: text frames, and `encode` returns UTF-8.
    """

    name: str
    binary: bool

    def encode(self, value: JSON) -> bytes:
        """Encode a value; the same value gives the same bytes.

        Raises:
            CodecError: The value has a part that this codec cannot express.
        """
        ...

    def decode(self, data: bytes | str) -> JSON:
        """Decode what `encode` made.

        Raises:
            CodecError: Anything else; no other exception escapes.
        """
        ...


class JSONCodec:
    """JSON, RFC 8259, in text frames."""

    name = "json"
    binary = False

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder().decode

    def encode(self, value: JSON) -> bytes:
        """Encode; `bytes` become base64 text, dates ISO 8601."""
        return _encode(self.name, self._encode, value)

    def decode(self, data: bytes | str) -> JSON:
        """Decode UTF-8 bytes or text."""
        return _decode(self.name, self._decode, data)

    def splice(self, members: Mapping[str, JSON], data: bytes) -> bytes:
        """Encode an object of `members` and, last, the member `data` that is JSON already."""
        return self._encode({**members, "data": msgspec.Raw(data)})


class MsgpackCodec:
    """MessagePack in binary frames."""

    name = "msgpack"
    binary = True

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder().decode

    def encode(self, value: JSON) -> bytes:
        """Encode; `bytes` stay bytes."""
        return _encode(self.name, self._encode, value)

    def decode(self, data: bytes | str) -> JSON:
        """Decode bytes."""
        return _decode(self.name, self._decode, data)

    def splice(self, members: Mapping[str, JSON], data: bytes) -> bytes:
        """Encode an object of `members` and, last, the member `data` that is MessagePack already."""
        return self._encode({**members, "data": msgspec.Raw(data)})


def splice(codec: Codec, members: Mapping[str, JSON], data: bytes) -> bytes:
    """Encode an object with an encoded member `data`, the cheap way where the codec has one."""
    if (quick := getattr(codec, "splice", None)) is not None:
        spliced: bytes = quick(members, data)
        return spliced
    return codec.encode({**members, "data": codec.decode(data)})


def _encode(name: str, encode: Any, value: JSON) -> bytes:
    try:
        encoded: bytes = encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise CodecError(
            name, f"cannot encode a {type(value).__name__}: {error}.", fix="send JSON values only"
        ) from error
    return encoded


def _decode(name: str, decode: Any, data: bytes | str) -> JSON:
    try:
        return decode(data)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        # The library's text may quote the input; say only that it failed.
        raise CodecError(name, "the bytes cannot be decoded.", fix="check what the sender encodes with") from error
