"""Codecs encode values to bytes and decode them again. `json` and `msgpack` are built in and use msgspec."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from dws_core._errors import CodecError
from dws_core._wire.message import JSON
from dws_core._wire.plain_values import plain_value
from dws_core._wire.value_path import path_of_failure

_ERRORS: Final = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


@runtime_checkable
class Codec(Protocol):
    """Encodes values to bytes and decodes them. Pure and thread-safe.

    A codec may also have a method `splice(members, data)`. It encodes an object from `members` and the member `data`,
    whose value is encoded already. With it, the node forwards messages of the broker to clients without decoding them.
    A codec may have a method `decode_id(data)`. It returns the member `id` of an encoded object, a string or an integer,
    or None. With it, the node answers the messages that it refuses without decoding them.

    Attributes:
        name: Short name. Its WebSocket subprotocol is `dws.v1.<name>`.
        binary: Whether messages are sent in binary frames. If False, they are sent in text frames, and `encode` must
            return UTF-8.
    """

    name: str
    binary: bool

    def encode(self, value: JSON) -> bytes:
        """Encode a value. Equal values give equal bytes.

        Raises:
            CodecError: The value has a part that this codec cannot encode.
        """
        ...

    def decode(self, data: bytes | str) -> JSON:
        """Decode a value that `encode` has encoded.

        Raises:
            CodecError: The data cannot be decoded. No other exception may be raised.
        """
        ...


class _Identified(msgspec.Struct):
    """A message of which only the id is decoded."""

    id: str | int | None = None


class JSONCodec:
    """JSON, RFC 8259, in text frames."""

    name = "json"
    binary = False

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=plain_value).encode
        self._decode = msgspec.json.Decoder(float_hook=_float).decode
        self._decode_identified = msgspec.json.Decoder(_Identified).decode

    def encode(self, value: JSON) -> bytes:
        """Encode a value as `json.dumps` does, and models of pydantic as `model_dump(mode="json")` does.

        `bytes` become base64 text, and dates become ISO 8601 text.
        """
        return _encode(self.name, self._encode, value)

    def decode(self, data: bytes | str) -> JSON:
        """Decode UTF-8 bytes or text."""
        return _decode(self.name, self._decode, data)

    def decode_id(self, data: bytes | str) -> str | int | None:
        """Decode only the `id` of a message. Return None if there is none."""
        return _id_of(self._decode_identified, data)

    def splice(self, members: Mapping[str, JSON], data: bytes) -> bytes:
        """Encode an object of `members` and, at the end, the member `data`, whose value is JSON already."""
        return self._encode({**members, "data": msgspec.Raw(data)})


class MsgpackCodec:
    """MessagePack in binary frames."""

    name = "msgpack"
    binary = True

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder(enc_hook=plain_value).encode
        self._decode = msgspec.msgpack.Decoder().decode
        self._decode_identified = msgspec.msgpack.Decoder(_Identified).decode

    def encode(self, value: JSON) -> bytes:
        """Encode a value. `bytes` stay bytes, and keys of objects keep their types. Models of pydantic: see `JSONCodec`."""
        return _encode(self.name, self._encode, value)

    def decode(self, data: bytes | str) -> JSON:
        """Decode bytes."""
        return _decode(self.name, self._decode, data)

    def decode_id(self, data: bytes | str) -> str | int | None:
        """Decode only the `id` of a message. Return None if there is none."""
        return _id_of(self._decode_identified, data)

    def splice(self, members: Mapping[str, JSON], data: bytes) -> bytes:
        """Encode an object of `members` and, at the end, the member `data`, whose value is MessagePack already."""
        return self._encode({**members, "data": msgspec.Raw(data)})


def encode_within(codec: Codec, data: JSON, whole: JSON) -> bytes:
    """Encode a value that contains `data`. The path in an error begins at `data`.

    Raises:
        CodecError: The value cannot be encoded.
    """
    try:
        return codec.encode(whole)
    except CodecError:
        codec.encode(data)
        raise


def decode_id(codec: Codec, data: bytes | str) -> str | int | None:
    """Return the `id` of an encoded message, or None if it has none. Use `decode_id` of the codec if it has one."""
    if (quick := getattr(codec, "decode_id", None)) is not None:
        found: str | int | None = quick(data)
        return found
    try:
        return id_of(codec.decode(data))
    except CodecError:
        return None


def id_of(message: JSON) -> str | int | None:
    """Return the `id` of a decoded message, or None if it has no valid one."""
    found = message.get("id") if isinstance(message, Mapping) else None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def _float(text: str) -> float:
    """Return a number that is no integer. msgspec itself takes 10 µs for each one above 1e290, 40 times as long."""
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is out of range")
    return number


def _id_of(decode: Any, data: bytes | str) -> str | int | None:
    try:
        found: str | int | None = decode(data).id
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return found


def splice(codec: Codec, members: Mapping[str, JSON], data: bytes) -> bytes:
    """Encode an object whose member `data` is encoded already."""
    return splice_of(codec)(members, data)


def splice_of(codec: Codec) -> Callable[[Mapping[str, JSON], bytes], bytes]:
    """Return the function of `splice`: the codec's own one if it has one."""
    found: Callable[[Mapping[str, JSON], bytes], bytes] | None = getattr(codec, "splice", None)
    return found or (lambda members, data: codec.encode({**members, "data": codec.decode(data)}))


def _encode(name: str, encode: Callable[[Any], bytes], value: JSON) -> bytes:
    try:
        return encode(value)
    except _ERRORS as error:
        raise _refusal(name, encode, value, error) from error


def _refusal(name: str, encode: Callable[[Any], bytes], value: JSON, error: Exception) -> CodecError:
    def fails(part: JSON) -> bool:
        try:
            encode(part)
        except Exception:  # noqa: BLE001 -- serializers of an application may raise anything
            return True
        return False

    path = path_of_failure(value, fails)
    return CodecError(name, f"cannot encode {path}: {error}.", fix="send JSON values only", path=path)


def _decode(name: str, decode: Any, data: bytes | str) -> JSON:
    try:
        return decode(data)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        # The text of the library's exception may quote the input, so it is not shown.
        raise CodecError(name, "the bytes cannot be decoded.", fix="check the codec of the sender") from error
